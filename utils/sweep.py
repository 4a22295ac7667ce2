"""The threshold sweep: the scores of a split at many thresholds, from one pass over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from prettytable import PrettyTable

from utils.files import write_json
from utils.image_scores import Scoring
from utils.metrics import PixelCounts, ThresholdCounts, iou_per_image
from utils.reports import Conditions

#: What the best threshold is looked for of, where the sweep has it.
SWEPT = ("f1", "iou", "iou_per_image", "apls")


@dataclass(frozen=True)
class ImageSweep:
    """An image at each threshold; `apls` is None when it is not asked for, or no road is true."""

    counts: ThresholdCounts
    apls: tuple[float, ...] | None


def sweep_image(probability: np.ndarray, target: np.ndarray, scoring: Scoring) -> ImageSweep:
    """Road probability (H, W) against a target (H, W) of 0, 1 and 255 at every threshold."""
    counts = ThresholdCounts()
    counts.update(probability, target)
    apls = None
    if "apls" in scoring.topology:
        apls = _apls_by_threshold(probability, target, counts.thresholds, scoring.pixel_size_m)
    return ImageSweep(counts, apls)


def _apls_by_threshold(
    probability: np.ndarray, target: np.ndarray, thresholds: Sequence[float], pixel_size_m: float
) -> tuple[float, ...] | None:
    from utils.topology.apls import apls
    from utils.topology.from_mask import mask_to_graph
    from utils.topology.registry import binarise

    truth = mask_to_graph(target == 1, pixel_size_m)
    if truth.is_empty:
        return None
    masks = (binarise(probability, target, threshold)[0] for threshold in thresholds)
    return tuple(apls(truth, mask_to_graph(mask, pixel_size_m)).apls for mask in masks)


@dataclass(frozen=True)
class Sweep:
    """The scores of a split at each threshold."""

    rows: list[dict[str, float]]  # by rising threshold

    @property
    def metrics(self) -> list[str]:
        return [metric for metric in SWEPT if metric in self.rows[0]]

    def best(self, metric: str) -> dict[str, float]:
        """The row where `metric` is highest; the nearest to 0.5 of equally good ones."""
        return max(self.rows, key=lambda row: (row[metric], -abs(row["threshold"] - 0.5)))

    def table(self) -> PrettyTable:
        table = PrettyTable(["best for", "threshold", *self.metrics, "precision", "recall"])
        for metric in self.metrics:
            row = self.best(metric)
            table.add_row([metric, *(f"{row[n]:.4g}" for n in table.field_names[1:])])
        return table

    def write(self, folder: Path, conditions: Conditions) -> None:
        """Write sweep.json."""
        best = {metric: self.best(metric)["threshold"] for metric in self.metrics}
        content = asdict(conditions) | {"best_threshold": best, "thresholds": self.rows}
        write_json(folder / "sweep.json", content)


def sweep_over(images: Sequence[ImageSweep]) -> Sweep:
    """The scores at each threshold from those of every image."""
    assert images, "a sweep over no image"
    with_apls = [image.apls for image in images if image.apls is not None]
    by_image = [image.counts.counts() for image in images]
    rows = []
    for at, threshold in enumerate(images[0].counts.thresholds):
        counts = [image[at] for image in by_image]
        scores = sum(counts, PixelCounts()).metrics() | {"iou_per_image": iou_per_image(counts)}
        if with_apls:
            scores["apls"] = sum(image[at] for image in with_apls) / len(with_apls)
        rows.append({"threshold": threshold} | scores)
    return Sweep(rows)
