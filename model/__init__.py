"""The models, by class name. Importing this package imports no torch; building a model does."""

from __future__ import annotations

import importlib
import inspect
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from model.base import RoadModel

logger = logging.getLogger(__name__)


class ModelRecord(NamedTuple):
    """What is known of a model without building it."""

    module: str
    title: str  # as people call it
    paper: str  # authors and venue
    year: int
    link: str  # DOI or arXiv number; empty: none is known
    weights: tuple[str, ...] = ()  # what `pretrained: true` loads, as model/weights.py names it


RECORDS = {
    "AnchorSAM": ModelRecord(
        "model.anchor_sam.net",
        "Anchor-SAM",
        "Li et al., IEEE TGRS",
        2026,
        "doi 10.1109/TGRS.2026.3684896",
    ),
    "UNet": ModelRecord(
        "model.baselines.unet", "U-Net", "Ronneberger et al., MICCAI", 2015, "arXiv:1505.04597"
    ),
    "DLinkNet": ModelRecord(
        "model.baselines.dlinknet",
        "D-LinkNet",
        "Zhou et al., CVPR Workshops",
        2018,
        "doi 10.1109/CVPRW.2018.00034",
        ("resnet34",),
    ),
    "DeepLabV3Plus": ModelRecord(
        "model.baselines.deeplabv3plus",
        "DeepLabV3+",
        "Chen et al., ECCV",
        2018,
        "arXiv:1802.02611",
        ("resnet101",),
    ),
    "CGCNet": ModelRecord(
        "model.baselines.cgcnet",
        "CGCNet",
        "Liu et al., IEEE TGRS",
        2025,
        "doi 10.1109/TGRS.2025.3593017",
        ("resnet34",),
    ),
    "CCNet": ModelRecord(
        "model.baselines.ccnet", "C2Net", "Yang et al., IEEE TGRS", 2024, "", ("resnet34",)
    ),
    "TransRoadNet": ModelRecord(
        "model.baselines.transroadnet",
        "TransRoadNet",
        "Yang et al., IEEE GRSL",
        2022,
        "doi 10.1109/LGRS.2022.3171973",
        ("resnet34",),
    ),
    "AFDANet": ModelRecord(
        "model.baselines.afdanet", "AFDANet", "Deng et al., IEEE GRSL", 2025, "", ("resnet34",)
    ),
    "CMTFNet": ModelRecord(
        "model.baselines.cmtfnet",
        "CMTFNet",
        "Wu et al., IEEE TGRS",
        2023,
        "doi 10.1109/TGRS.2023.3314641",
        ("resnet50",),
    ),
    "RSM_SS": ModelRecord(
        "model.baselines.rs_mamba", "RS-Mamba", "Zhao et al., IEEE TGRS", 2024, "arXiv:2404.02668"
    ),
    "StripUnet": ModelRecord(
        "model.baselines.strip_unet",
        "StripUnet",
        "Ma et al., IEEE TIV",
        2024,
        "doi 10.1109/TIV.2024.3393508",
        ("resnet34",),
    ),
    "SAM2UNet": ModelRecord(
        "model.baselines.sam2unet", "SAM2-UNet", "Xiong et al.", 2024, "arXiv:2408.08870"
    ),
    "SMP": ModelRecord(
        "model.baselines.smp",
        "segmentation_models_pytorch",
        "Iakubovskii, the library",
        2019,
        "github.com/qubvel-org/segmentation_models.pytorch",
    ),
}
MODELS = {name: record.module for name, record in RECORDS.items()}
#: Other names of the same class, as published configs spell them.
ALIASES = {"SAM2Point1Net": "AnchorSAM"}
#: Constructor arguments that load pretrained weights, and the value that loads none.
PRETRAINED_ARGS = {"pretrained": False, "pretrained_weights_path": None, "encoder_weights": None}


def list_models() -> list[str]:
    """Every name that `model_classname` accepts."""
    return [*MODELS, *ALIASES]


def model_class(model_classname: str) -> type[RoadModel]:
    """The class of this name. Raises ValueError for a name outside `list_models()`."""
    name = ALIASES.get(model_classname, model_classname)
    if name not in MODELS:
        raise ValueError(f"unknown model {model_classname!r}, one of: {', '.join(list_models())}")
    return getattr(importlib.import_module(MODELS[name]), name)


def weight_sources(model_classname: str, model_args: dict[str, Any]) -> dict[str, str]:
    """What these arguments load weights from, with the argument that asks for it.

    Networks ('resnet34') and files, as `model.weights.find_weights` takes them.
    """
    name = ALIASES.get(model_classname, model_classname)
    parameters = inspect.signature(model_class(name)).parameters
    sources: dict[str, str] = {}
    for key, nothing in PRETRAINED_ARGS.items():
        asked = model_args.get(key, parameters[key].default) if key in parameters else nothing
        if asked is True:
            sources |= dict.fromkeys(RECORDS[name].weights, key)
        elif asked != nothing:
            sources[asked] = key
    return sources


def build_model(
    model_classname: str, model_args: dict[str, Any], *, load_pretrained: bool = True
) -> RoadModel:
    """The model of a config; a start from random weights, where there are better, is said.

    With `load_pretrained=False` no weight file is touched: for a checkpoint that brings every
    weight itself.
    """
    cls = model_class(model_classname)
    parameters = inspect.signature(cls).parameters
    for name, nothing in PRETRAINED_ARGS.items():
        if name not in parameters:
            continue
        if not load_pretrained:
            model_args = model_args | {name: nothing}
        elif model_args.get(name, parameters[name].default) == nothing:
            logger.warning(
                "%s: %s is %s, the encoder starts at random", cls.__name__, name, nothing
            )
    return cls(**model_args)
