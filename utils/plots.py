"""Every picture that the scripts write: maps of errors, sheets of masks, training curves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from utils.files import atomic_path
from utils.metrics import IGNORE, PixelCounts
from utils.sheet import DPI, Row, write_sheet

WHITE, BLACK, RED, BLUE, GREY = (
    np.array(colour, np.uint8)
    for colour in [(255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 0, 255), (128, 128, 128)]
)
ERROR_LEGEND = {
    "true positive": WHITE,
    "true negative": BLACK,
    "false positive": RED,
    "false negative": BLUE,
    "no data": GREY,
}
PROBABILITY_COLOURS = "viridis"  # even steps for any colour vision
#: Okabe and Ito's colours, told apart with any colour vision; the black stands for the total.
CURVE_COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
SCORES = ("f1", "iou", "precision", "recall")
LINE_STYLES = {"train": "-", "val": "--"}


def error_map(mask: np.ndarray, target: np.ndarray) -> np.ndarray:
    """RGB uint8 (H, W, 3) in `ERROR_LEGEND`'s colours of a mask and a target (H, W) of 0, 1, 255.

    White where road was found, black where there is none, red where it was invented, blue where it
    was missed, grey where the target says nothing.
    """
    road, predicted = target == 1, mask != 0
    colours = np.stack([BLACK, RED, BLUE, WHITE])[2 * road + predicted]
    colours[target == IGNORE] = GREY
    return colours


# Sheets of images


def sample_sheet(
    images: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    probabilities: Sequence[np.ndarray],
    path: str | os.PathLike[str],
    threshold: float,
    names: Sequence[str] | None = None,
) -> None:
    """A row for each image: the image, the truth, the probability of road, and the errors.

    `images` are uint8 (H, W, 3), `targets` (H, W) of 0, 1 and 255, `probabilities` (H, W) in
    [0, 1]; road is where they reach `threshold`. Sizes may differ between images. `names` stand
    before each row's scores. Raises ValueError for no image or lists of different lengths.
    """
    names = names or [f"image {number}" for number in range(1, len(images) + 1)]
    colour_map = matplotlib.colormaps[PROBABILITY_COLOURS]
    rows = []
    for name, image, target, probability in zip(names, images, targets, probabilities, strict=True):
        mask = probability >= threshold
        probability_rgba = colour_map(probability, bytes=True)
        panels = [image, mask_rgb(target), probability_rgba[..., :3], error_map(mask, target)]
        rows.append(Row(f"{name}   {_score(mask, target)}", panels))
    columns = ["image", "truth", "probability", f"errors at threshold {threshold:g}"]
    write_sheet(columns, rows, path, legend=ERROR_LEGEND, scale=(2, PROBABILITY_COLOURS))


def overview(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
    path: str | os.PathLike[str],
) -> None:
    """A row for each (title, image, truth, prediction, error), as for the worst and best image.

    `image` is uint8 (H, W, 3), `truth` (H, W) of 0, 1 and 255, `prediction` a mask (H, W) and
    `error` its `error_map`. The IoU is written behind the title. Raises ValueError for no row.
    """
    sheet = [
        Row(
            f"{title}   {_score(prediction, truth)}",
            [image, mask_rgb(truth), mask_rgb(prediction != 0), error],
        )
        for title, image, truth, prediction, error in rows
    ]
    columns = ["image", "truth", "prediction", "errors"]
    write_sheet(columns, sheet, path, legend=ERROR_LEGEND)


def mask_rgb(mask: np.ndarray) -> np.ndarray:
    """White road on black, grey where the mask says nothing."""
    colours = np.where(mask[..., None] == 1, WHITE, BLACK)
    colours[mask == IGNORE] = GREY
    return colours


def _score(mask: np.ndarray, target: np.ndarray) -> str:
    counts = PixelCounts.from_masks(mask, target)
    if not counts.has_data:
        return "no valid pixel"
    metrics = counts.metrics()
    return f"IoU {metrics['iou']:.3f}   F1 {metrics['f1']:.3f}"


# Training curves


def training_curves(rows: Sequence[dict[str, Any]], path: str | os.PathLike[str]) -> None:
    """Losses, scores and learning rate over the epochs.

    `rows` are those of metrics.jsonl: "epoch", "split" ("train" or "val") and any of "loss",
    "loss_NAME", "f1", "iou", "precision", "recall" and "lr". A later row of the same epoch and
    split replaces an earlier one; what no row holds is not drawn.
    """
    figure = Figure(figsize=(14.5, 4.5), dpi=DPI, layout="constrained")
    loss, score, rate = figure.subplots(1, 3, width_ratios=[5, 5, 4], sharex=True)
    epochs = [row["epoch"] for row in rows]
    loss.set_xlim(min(epochs, default=1) - 0.5, max(epochs, default=1) + 0.5)
    names = list(dict.fromkeys(key for row in rows for key in row))
    losses = [name for name in names if name == "loss" or name.startswith("loss_")]
    _draw_curves(loss, rows, losses, {"loss": "total"})
    loss.set_title("loss")
    _draw_curves(score, rows, SCORES, {"f1": "F1", "iou": "IoU"})
    score.set_title(_best_f1(rows, score))
    _draw_curves(rate, rows, ["lr"], {})
    rate.set_title("learning rate")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    rate.set_ylim(0, 1.08 * max((row.get("lr") or 0 for row in rows), default=0) or 1)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI)


def _draw_curves(
    axes: Axes, rows: Sequence[dict[str, Any]], names: Sequence[str], labels: dict[str, str]
) -> None:
    """A colour for each name, a line style for each split."""
    for name, colour in zip(names, np.resize(CURVE_COLOURS, len(names)), strict=True):
        for split, style in LINE_STYLES.items():
            points = {
                row["epoch"]: row[name]
                for row in rows
                if row["split"] == split and row.get(name) is not None
            }
            if points:
                epochs = sorted(points)
                axes.plot(
                    epochs,
                    [points[epoch] for epoch in epochs],
                    color=colour,
                    linestyle=style,
                    linewidth=2 if name == "loss" else 1.4,
                    marker="o" if len(epochs) <= 20 else None,
                    markersize=4,
                    label=f"{split} {labels.get(name, name.removeprefix('loss_'))}",
                )
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    if len(axes.lines) > 1:
        axes.legend(fontsize="small")
    if not axes.lines:
        axes.text(0.5, 0.5, "nothing yet", transform=axes.transAxes, ha="center", color="0.5")


def _best_f1(rows: Sequence[dict[str, Any]], axes: Axes) -> str:
    """Mark the epoch of the best val F1 and return the panel's title, which tells it."""
    scored = {
        row["epoch"]: row["f1"]
        for row in rows
        if row["split"] == "val" and row.get("f1") is not None
    }
    if not scored:
        return "scores"
    epoch = max(scored, key=scored.__getitem__)
    axes.axvline(epoch, color="0.5", linewidth=1, linestyle=":")
    return f"scores (best val F1 {scored[epoch]:.4f}, epoch {epoch})"
