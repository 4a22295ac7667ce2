"""A trained model with the settings that it predicts with: what the tasks of inference.py share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model import build_model
from model.base import RoadModel
from utils.checkpoint import inference_weights, load_model_weights
from utils.distributed import Ranks
from utils.image_scores import Scoring
from utils.predict import (
    naming,
    predict,
    predict_tiles,
    prediction_mode,
    refuse_nan,
)
from utils.progress import progress
from utils.reports import Conditions
from utils.schema import Config
from utils.tiling import TileGrid
from utils.training import amp_dtype


@dataclass(frozen=True)
class Predictor:
    """`config` rules data, inference and tta; the model's own settings are in its checkpoint."""

    config: Config
    ranks: Ranks
    model: RoadModel
    checkpoint: Path
    epoch: int
    threshold: float
    threshold_from: str

    def probability(
        self,
        name: str,
        image: Tensor,
        after_tiles: Callable[[int, int], None] = lambda done, total: None,
    ) -> np.ndarray:
        """Road probability (H, W), float32, of a uint8 image (3, H, W).

        `after_tiles` is told how many of how many tiles are done. Raises NonFinitePrediction with
        the image's name.
        """
        with naming(name, self.checkpoint):
            return predict(
                self.model,
                image,
                tile=self.config.image_size,
                overlap=self.config.tile_overlap,
                batch_size=self.batch_size,
                ops=self._views,
                device=self.ranks.device,
                amp_dtype=self._amp_dtype,
                after_tiles=after_tiles,
            )

    def grid(self, shape: tuple[int, int]) -> TileGrid:
        """The tiles of a raster (H, W)."""
        return TileGrid(*shape, self.config.image_size, self.config.tile_overlap)

    def mode(self) -> AbstractContextManager[None]:
        """What `tile_probabilities` is to be called in."""
        return prediction_mode(self.model, self.ranks.device, self._amp_dtype)

    def tile_probabilities(self, tiles: Iterable[Tensor]) -> Iterator[Tensor]:
        """Road probability (h, w), float32, of each of the tiles, uint8 (3, h, w) of one size."""
        return predict_tiles(
            self.model,
            tiles,
            batch_size=self.batch_size,
            ops=self._views,
            device=self.ranks.device,
        )

    def refuse_nan(self, name: str, probability: Tensor) -> None:
        """Raise NonFinitePrediction, with the image's name, when there is a NaN."""
        with naming(name, self.checkpoint):
            refuse_nan(probability, self._amp_dtype)

    @property
    def batch_size(self) -> int:
        """Tiles at a time."""
        return self.config.inference.batch_size or self.config.batch_size

    def share(self, total: int, description: str) -> Iterable[int]:
        """The positions below `total` that fall to this rank; rank 0 shows how far it is."""
        own = range(self.ranks.rank, total, self.ranks.world)
        return progress(own, len(own), description) if self.ranks.is_main else own

    def conditions(
        self, split: str | None, *, sweep: bool = False, pixel_size: float | None = None
    ) -> Conditions:
        """What every report of these predictions names; `split` None: images without labels.

        Of these `pixel_size` is what all were resampled to, None when each kept its own.
        """
        return Conditions(
            split=split,
            threshold=None if sweep else self.threshold,
            threshold_from="a sweep" if sweep else self.threshold_from,
            tile=self.config.image_size,
            overlap=self.config.tile_overlap,
            tta=self._views,
            arithmetic=str(self._amp_dtype or torch.float32).removeprefix("torch."),
            checkpoint=str(self.checkpoint),
            epoch=self.epoch,
            pixel_size=self.config.pixel_size if split else pixel_size,
            parameters=self._parameters(sweep) if split else {},
        )

    @property
    def scoring(self) -> Scoring:
        """How its predictions of labelled images are scored: as training does on val."""
        metrics = [*self.config.metrics, self.config.best_metric]
        return Scoring(self.threshold, metrics, self.config.pixel_size)

    @property
    def swept_scoring(self) -> Scoring:
        """With APLS, too, which peaks at other thresholds; not without metres, which it counts."""
        known = ["apls"] if self.config.pixel_size else []
        return replace(self.scoring, metrics=[*self.scoring.metrics, *known])

    def _parameters(self, sweep: bool) -> dict[str, Any]:
        topology = (self.swept_scoring if sweep else self.scoring).topology
        if not topology:
            return {}
        from utils.topology.parameters import topology_parameters

        return topology_parameters(topology)

    @property
    def _views(self) -> list[str]:
        return list(self.config.tta.ops) if self.config.tta.enable else ["identity"]

    @property
    def _amp_dtype(self) -> torch.dtype | None:
        return amp_dtype(self.config.amp, self.ranks.device)


def restore_predictor(
    checkpoint: dict[str, Any], path: Path, *, trained: Config, config: Config, ranks: Ranks
) -> Predictor:
    """The model of a checkpoint, on this rank's device, ready to predict as `config` says.

    `trained` is the checkpoint's own config, by which the model is built. Raises ValueError when
    the weights do not fit it.
    """
    network = build_model(trained.model_classname, trained.model_args, load_pretrained=False)
    load_model_weights(network, inference_weights(checkpoint), str(path))
    threshold, threshold_from = choose_threshold(config, checkpoint)
    return Predictor(
        config=config,
        ranks=ranks,
        model=network.to(ranks.device).eval(),
        checkpoint=path,
        epoch=checkpoint["epoch"],
        threshold=threshold,
        threshold_from=threshold_from,
    )


def choose_threshold(config: Config, checkpoint: dict[str, Any]) -> tuple[float, str]:
    """The threshold of the masks, and where it is from."""
    if config.inference.threshold is not None:
        return config.inference.threshold, "inference.threshold"
    if checkpoint["threshold"] is not None:
        return checkpoint["threshold"], "checkpoint, chosen on val"
    return 0.5, "default"
