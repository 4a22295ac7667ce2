"""The experiment's settings: every key a config may have, its type and its default.

Comments tell what a value does where its name and type do not.
"""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from utils.metric_names import METRICS, PIXEL_METRICS

LossName = Literal["bce", "dice", "focal", "tversky", "lovasz", "soft_cldice", "skeleton_recall"]
TTAOp = Literal["identity", "hflip", "vflip", "rot90", "rot180", "rot270", "transpose"]
MetricName = Literal[METRICS]
Fraction = Annotated[float, Field(ge=0, le=1)]
# the shell leaves the ~ of root_dir=~/data as it is
PathText = Annotated[str, AfterValidator(os.path.expanduser)]

#: image_size, and every tile, is a multiple of this: the largest stride of the models.
SIZE_MULTIPLE = 32


class Section(BaseModel):
    """A mapping of the config: a key that is not declared is an error."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class TrainingStrategy(Section):
    """Which parameters are trained: all, or all but SAM's trunk."""

    mode: Literal["train_all", "adapter_only"] = "train_all"


class PlateauParams(Section):
    """The rate falls by `factor` when evaluations stop improving."""

    factor: float = Field(0.2, gt=0, lt=1)
    patience: int = Field(5, ge=0)  # evaluations without improvement
    min_lr: float = Field(1e-6, ge=0)
    mode: Literal["min", "max"] = "max"  # 'max' follows the val F1, 'min' the val loss


class CosineParams(Section):
    """The rate falls along half a cosine wave."""

    # epochs of the half wave; null: as many as are trained, by `epochs` or max_steps
    T_max: int | None = Field(None, ge=1)
    eta_min: float = Field(1e-6, ge=0)


class Scheduler(Section):
    """How the learning rate goes on after the warm-up."""

    active_scheduler: Literal["CosineAnnealingLR", "ReduceLROnPlateau"] = "CosineAnnealingLR"
    ReduceLROnPlateau_params: PlateauParams = PlateauParams()
    CosineAnnealingLR_params: CosineParams = CosineParams()


class Augmentation(Section):
    """Applied to training crops only; `probability` is that of each step."""

    probability: Fraction = 0.5
    hue: int = Field(30, ge=0, le=180)  # shift limits, on OpenCV's 8-bit HSV scale
    saturation: int = Field(5, ge=0, le=255)
    value: int = Field(15, ge=0, le=255)
    shift: Fraction = 0.1  # share of the side
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.1
    flip: bool = True
    rotate90: bool = True


class Inference(Section):
    """What inference.py reads and writes; train.py takes `batch_size` of it."""

    model_path: PathText | None = None  # null: the best checkpoint of the config's newest run
    split: Literal["train", "val", "test"] = "test"
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None  # null: the checkpoint's, or 0.5
    batch_size: int | None = Field(None, ge=1)  # tiles at a time; null: `batch_size`
    save_outputs: bool = True  # false: only the scores
    save_binary_mask: bool = True
    save_prob_map: bool = False
    prob_map_format: Literal["png", "npy"] = "png"
    save_error_map: bool = True
    save_roads: bool = True  # of scenes: centre lines as GeoPackage and GeoJSON
    join_gap_m: Annotated[float, Field(gt=0)] | None = None  # longest gap that road lines bridge
    forward_args: dict[str, Any] = {}  # of published configs: no effect, and a warning says so

    @property
    def writes_roads(self) -> bool:
        return self.save_roads and self.save_outputs


class TTA(Section):
    """Test-time augmentation: probabilities are averaged over views of the image."""

    enable: bool = False
    ops: list[TTAOp] = ["identity", "hflip", "vflip", "rot90"]

    @field_validator("ops")
    @classmethod
    def _distinct(cls, ops: list[TTAOp]) -> list[TTAOp]:
        if not ops or len(set(ops)) != len(ops):
            raise ValueError("name at least one operation, and each only once")
        return ops


class Comet(Section):
    """The key comes from COMET_API_KEY; without it the experiment is archived in comet_logs/."""

    enable: bool = True
    project_name: str | None = None  # null: log_project_name, or anchor-sam


class Config(Section):
    """One experiment."""

    # Model
    model_classname: str
    model_args: dict[str, Any] = {}  # of the model's constructor, which checks them
    forward_args: dict[str, Any] = {}  # of published configs: no effect, and a warning says so
    training_strategy: TrainingStrategy = TrainingStrategy()

    # Data: root_dir/dataset_name/{train,val,test}/{image,label}
    root_dir: PathText = "datasets"
    dataset_name: str
    image_size: int = Field(
        1024, ge=SIZE_MULTIPLE
    )  # side of training crops and of tiles, in pixels
    crops_per_image: int = Field(1, ge=1)  # random crops of every training image in an epoch
    tile_overlap: Annotated[float, Field(ge=0, le=0.75)] = 0.25  # share of a tile's side
    ignore_nodata: bool = True  # leave pixels without data out of loss and metrics
    augmentation: Augmentation = Augmentation()
    num_workers: int | None = Field(None, ge=0)  # a rank's loader processes; null: up to 8

    # Optimisation
    random_seed: int = Field(6, ge=0, lt=2**32)
    epochs: int = Field(200, ge=1)
    max_steps: int | None = Field(None, ge=1)  # optimiser steps, in place of `epochs`
    # minutes of training steps, evaluations not counted; `epochs` may end it before
    max_minutes: Annotated[float, Field(gt=0)] | None = None
    batch_size: int = Field(2, ge=1)  # per rank
    gradient_accumulation: int = Field(1, ge=1)  # batches a step
    learning_rate: float = Field(2e-4, gt=0)
    weight_decay: float = Field(1e-4, ge=0)  # AdamW's; not of norms and biases
    loss: dict[LossName, Annotated[float, Field(gt=0)]] = Field({"bce": 1.0, "dice": 1.0})
    max_norm: Annotated[float, Field(gt=0)] | None = 1.0  # gradient norm; null: no clipping
    warm_up_step: int = Field(100, ge=0)  # first steps, in which the rate rises linearly
    scheduler: Scheduler = Scheduler()
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None  # null: no averaged weights
    amp: Literal[True, False, "bf16", "fp16"] = True  # true: the better one on CUDA, off on CPU
    compile: bool = False  # the network in training, by torch.compile
    gradient_checkpointing: bool = False  # less memory, more time; not every model offers it

    # Evaluation and checkpoints
    evaluate_epoch: int = Field(1, ge=1)  # the first epoch that is evaluated on val
    evaluate_interval: int = Field(
        1, ge=1, validation_alias=AliasChoices("evaluate_interval", "evaluate_inteval")
    )
    save_checkpoint: bool = True  # last.pth, from which a run resumes
    save_interval: int = Field(1, ge=1)  # epochs between writes of last.pth
    save_every_steps: int | None = Field(1000, ge=1)  # and within long epochs
    metrics: list[MetricName] = [*PIXEL_METRICS]  # on val and test; topology only where named
    best_metric: MetricName = "f1"  # another than f1 adds best_METRIC.pth, which inference prefers
    pixel_size: Annotated[float, Field(gt=0)] | None = None  # metres; null: a pixel counts as one
    save_best_model: bool = True  # best_f1score.pth and best_loss.pth, chosen on val
    load: PathText | None = None  # a last.pth resumes its run, other weights start a new one
    reset_scheduler_on_load: bool = False  # a resumed run begins its warm-up and schedule anew

    # Names
    run_name: str | None = None  # of the run's folder; null: model and dataset
    log_project_name: str | None = None  # of Comet, where comet_ml.project_name is null
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: CUDA where there is one

    inference: Inference = Inference()
    tta: TTA = TTA()
    comet_ml: Comet = Comet()

    @field_validator("image_size")
    @classmethod
    def _whole_strides(cls, side: int) -> int:
        if side % SIZE_MULTIPLE:
            raise ValueError(f"{side} is not a multiple of {SIZE_MULTIPLE}")
        return side

    @model_validator(mode="after")
    def _one_budget(self) -> Config:
        if self.max_steps is not None and self.max_minutes is not None:
            raise ValueError("max_steps and max_minutes: give one of them")
        return self

    @field_validator("run_name")
    @classmethod
    def _file_name(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[\w.-]+", name):
            raise ValueError(f"letters, digits and . _ - make a name, got {name!r}")
        return name

    @field_validator("loss")
    @classmethod
    def _some_loss(cls, loss: dict[LossName, float]) -> dict[LossName, float]:
        if not loss:
            raise ValueError("name at least one loss")
        return loss
