"""Scores with everything they depend on: metrics.json, metrics.xlsx, the console."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any

from openpyxl import Workbook
from prettytable import PrettyTable

from utils.files import atomic_path, write_json
from utils.image_scores import score_split
from utils.metric_names import left_out_lines, main_value, parameter_lines
from utils.metrics import ThresholdCounts
from utils.results import ImageResult


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
    # metres; None: not known, a pixel counts as one; of images without labels: each its own
    pixel_size: float | None
    parameters: dict[str, Any] = field(default_factory=dict)  # of topology metrics

    def __str__(self) -> str:
        threshold = "" if self.threshold is None else f"threshold {self.threshold:g} "
        first = (
            f"{self.split or 'images without labels'}, {threshold}({self.threshold_from}), "
            f"tiles of {self.tile} px, overlap {self.overlap:g}, TTA {'+'.join(self.tta)}, "
            f"{self.arithmetic}, {self._pixel_size_text}"
        )
        lines = [first, f"{self.checkpoint}, epoch {self.epoch}"]
        return "\n".join(lines + parameter_lines(self.parameters))

    @property
    def _pixel_size_text(self) -> str:
        if self.split is None and self.pixel_size is None:
            return "pixel size of each file's georeference, if any"
        return pixel_size_text(self.pixel_size)


def pixel_size_text(metres: float | None) -> str:
    return f"pixel size {'not known' if metres is None else f'{metres:g} m'}"


def write_scores(
    folder: Path,
    conditions: Conditions,
    results: Sequence[ImageResult],
    curve: ThresholdCounts,
    weights_sha256: str,
) -> None:
    """Write metrics.json, with the counts along the precision-recall curve, and metrics.xlsx
    (sheets images, overall, conditions).

    `weights_sha256` (utils.checkpoint) tells whose scores they are when a file of that name has
    been written anew.
    """
    rows = [
        {"name": result.name} | result.scores.values() | asdict(result.scores.counts)
        for result in results
    ]
    overall = score_split([result.scores for result in results])
    points = [
        {"threshold": threshold, "counts": astuple(counts)}
        for threshold, counts in zip(curve.thresholds, curve.counts(), strict=True)
    ]
    scores = {"images": rows, "overall": overall, "curve": points}
    source = asdict(conditions) | {"weights_sha256": weights_sha256}
    write_json(folder / "metrics.json", source | scores)
    book = Workbook()
    book.remove(book.active)
    sheet = book.create_sheet("images")
    for line in [list(rows[0]), *(list(row.values()) for row in rows)] if rows else []:
        sheet.append(line)
    for title, values in (("overall", overall), ("conditions", asdict(conditions))):
        sheet = book.create_sheet(title)
        for key, value in flat_items(values):
            if value != {}:  # no parameters where no metric has any
                sheet.append([key, "+".join(value) if isinstance(value, list) else value])
    with atomic_path(folder / "metrics.xlsx") as path:
        book.save(path)


def score_table(results: Sequence[ImageResult], metrics: Sequence[str]) -> str:
    """The split's scores, each metric of the config by its main value, and what they leave out."""
    scores = score_split([result.scores for result in results])
    shown = [main_value(metric).key for metric in metrics]
    table = PrettyTable(["images", *shown])
    table.add_row([len(results), *(f"{scores[name]:.4f}" for name in shown)])
    return "\n".join([table.get_string(), *left_out_lines(scores)])


def flat_items(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The entries of nested mappings by dotted keys, for a sheet."""
    rows = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            rows += flat_items(value, f"{prefix}{key}.")
        else:
            rows.append((prefix + key, value))
    return rows
