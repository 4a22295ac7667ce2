"""Scores with everything they depend on: metrics.json, metrics.xlsx, sweep.json, the console."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openpyxl import Workbook
from prettytable import PrettyTable

from utils.files import atomic_path
from utils.metrics import PixelCounts, ThresholdCounts, iou_per_image
from utils.results import ImageResult

#: What the console shows of the overall scores.
SHOWN = ("f1", "iou", "iou_per_image", "precision", "recall", "accuracy", "mean_iou")
#: What a sweep looks for the best threshold of.
SWEPT = ("f1", "iou", "iou_per_image")


@dataclass(frozen=True)
class Conditions:
    """What a score depends on besides the images; no report goes without it."""

    split: str | None  # None: images without labels
    threshold: float | None  # None in a sweep, which tries many
    threshold_from: str
    tile: int  # px
    overlap: float  # share of a tile's side
    tta: list[str]
    arithmetic: str  # float32, or the type of autocast
    checkpoint: str
    epoch: int
    pixel_size: float | None  # metres; None: not known

    def __str__(self) -> str:
        threshold = "" if self.threshold is None else f"threshold {self.threshold:g} "
        pixel_size = "not known" if self.pixel_size is None else f"{self.pixel_size:g} m"
        return (
            f"{self.split or 'images without labels'}, {threshold}({self.threshold_from}), "
            f"tiles of {self.tile} px, overlap {self.overlap:g}, TTA {'+'.join(self.tta)}, "
            f"{self.arithmetic}, pixel size {pixel_size}\n{self.checkpoint}, epoch {self.epoch}"
        )


def overall_scores(results: Sequence[ImageResult]) -> dict[str, float]:
    """The metrics of the summed counts, and the mean of the images' own IoU beside them."""
    total = sum((result.counts for result in results), PixelCounts())
    return total.metrics() | {"iou_per_image": iou_per_image(r.counts for r in results)}


def write_scores(folder: Path, conditions: Conditions, results: Sequence[ImageResult]) -> None:
    """Write metrics.json and metrics.xlsx (sheets images, overall, conditions)."""
    rows = [
        {"name": result.name} | result.counts.metrics() | asdict(result.counts)
        for result in results
    ]
    overall = overall_scores(results)
    _write_json(folder / "metrics.json", asdict(conditions) | {"images": rows, "overall": overall})
    book = Workbook()
    book.remove(book.active)
    sheet = book.create_sheet("images")
    for line in [list(rows[0]), *(list(row.values()) for row in rows)] if rows else []:
        sheet.append(line)
    for title, values in (("overall", overall), ("conditions", asdict(conditions))):
        sheet = book.create_sheet(title)
        for key, value in values.items():
            sheet.append([key, "+".join(value) if isinstance(value, list) else value])
    with atomic_path(folder / "metrics.xlsx") as path:
        book.save(path)


def write_predictions(folder: Path, conditions: Conditions, results: Sequence[ImageResult]) -> None:
    """Write predictions.json, for images without labels: no scores, but how they were made."""
    images = [{"name": result.name, "road_share": result.road_share} for result in results]
    _write_json(folder / "predictions.json", asdict(conditions) | {"images": images})


def score_table(results: Sequence[ImageResult]) -> PrettyTable:
    scores = overall_scores(results)
    table = PrettyTable(["images", *SHOWN])
    table.add_row([len(results), *(f"{scores[name]:.4f}" for name in SHOWN)])
    return table


@dataclass(frozen=True)
class Sweep:
    """The scores of a split at each threshold."""

    rows: list[dict[str, float]]  # by rising threshold

    def best(self, metric: str) -> dict[str, float]:
        """The row where `metric` is highest; the nearest to 0.5 of equally good ones."""
        return max(self.rows, key=lambda row: (row[metric], -abs(row["threshold"] - 0.5)))

    def table(self) -> PrettyTable:
        table = PrettyTable(["best for", "threshold", *SWEPT, "precision", "recall"])
        for metric in SWEPT:
            row = self.best(metric)
            table.add_row([metric, *(f"{row[n]:.4g}" for n in table.field_names[1:])])
        return table

    def write(self, folder: Path, conditions: Conditions) -> None:
        """Write sweep.json."""
        best = {metric: self.best(metric)["threshold"] for metric in SWEPT}
        content = asdict(conditions) | {"best_threshold": best, "thresholds": self.rows}
        _write_json(folder / "sweep.json", content)


def sweep_over(images: Sequence[ThresholdCounts]) -> Sweep:
    """The scores at each threshold from the counts of every image."""
    assert images, "a sweep over no image"
    rows = []
    for at, threshold in enumerate(images[0].thresholds):
        counts = [image.counts()[at] for image in images]
        scores = sum(counts, PixelCounts()).metrics() | {"iou_per_image": iou_per_image(counts)}
        rows.append({"threshold": threshold} | scores)
    return Sweep(rows)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
