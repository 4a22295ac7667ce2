"""What an image scores, and from images a split: pixels always, topology where it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from utils.metric_names import topology_among
from utils.metrics import PixelCounts, images_without_data, iou_per_image, none_without_data

if TYPE_CHECKING:
    from utils.topology.relaxed import RelaxedCurve


@dataclass(frozen=True)
class Scoring:
    """How a prediction becomes scores; `metrics` as in the config, pixel metrics need no naming."""

    threshold: float
    metrics: Sequence[str] = ()
    pixel_size: float | None = None  # metres; None: a pixel counts as one

    @property
    def pixel_size_m(self) -> float:
        return self.pixel_size or 1.0

    @property
    def topology(self) -> tuple[str, ...]:
        return topology_among(self.metrics)


@dataclass(frozen=True)
class ImageScores:
    """The counts of an image without a label, or without a valid pixel, are all zero, and its
    values None."""

    counts: PixelCounts = field(default_factory=PixelCounts)
    topology: dict[str, float | None] = field(default_factory=dict)
    relaxed_curve: RelaxedCurve | None = None  # of `relaxed`: its break-even point is a split's

    def values(self) -> dict[str, float | None]:
        return none_without_data(self.counts, self.counts.metrics() | self.topology)


def score_image(probability: np.ndarray, target: np.ndarray, scoring: Scoring) -> ImageScores:
    """Scores of road probability (H, W) against a target (H, W) of 0, 1 and 255 (no data)."""
    counts = PixelCounts.from_masks(probability >= np.float32(scoring.threshold), target)
    topology, curve = {}, None
    if scoring.topology:
        # seconds that others need not wait
        from utils.topology.registry import relaxed_curve, topology_values

        topology = topology_values(
            scoring.topology, probability, target, scoring.pixel_size_m, scoring.threshold
        )
        if "relaxed" in scoring.topology:
            curve = relaxed_curve(probability, target)
            topology["relaxed_break_even"] = curve.break_even()[1]
    return ImageScores(counts, none_without_data(counts, topology), curve)


def score_split(images: Sequence[ImageScores]) -> dict[str, float]:
    """Metrics of the summed counts, the mean of the images' own IoU, and each topology metric's
    value for a split (`utils.topology.registry.summarise`).

    Images without a valid pixel are in none of them; `images_without_data` tells of any.
    """
    counts = [image.counts for image in images]
    overall = sum(counts, PixelCounts()).metrics() | {"iou_per_image": iou_per_image(counts)}
    overall |= images_without_data(counts)
    if any(image.topology for image in images):
        from utils.topology.registry import break_even_values, summarise

        overall |= summarise([image.topology for image in images])
        overall |= break_even_values(image.relaxed_curve for image in images)
    return overall
