"""profile.png: where the time goes, and what it buys, model by model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model.base import PARTS
from utils.files import atomic_path
from utils.labels import label_points, write_plain_numbers
from utils.plots import CURVE_COLOURS
from utils.profiling.report import number_at
from utils.sheet import DPI

POINT_PT = 4
PART_COLOURS = dict(zip(PARTS, CURVE_COLOURS[1:], strict=False))


def draw_profile(report: dict[str, Any], path: Path) -> None:
    """Bars by part and a scatter with the models' names.

    Of times where they were measured; else the bars are FLOPs, drawn against parameters.
    """
    rows = [row for row in report["models"] if row["weight"]]
    timed = [row for row in rows if row["forward"]]
    figure = Figure(figsize=(13, 2.2 + 0.38 * max(6, len(rows))), dpi=DPI, layout="constrained")
    bars, scatter = figure.subplots(1, 2)
    if timed:
        _bars(bars, timed, ("forward", "by_part_s"), 1e-3, "ms a forward pass, by part")
        _scatter(scatter, timed, ("forward", "median_s"), 1e-3, "median latency, ms")
    else:
        _bars(bars, rows, ("weight", "flops_by_part"), 1e9, "GFLOPs, by part")
        _scatter(scatter, rows, ("weight", "parameters"), 1e6, "parameters, millions")
    c = report["conditions"]
    compiled = ", compiled" if c["compiled"] else ""
    figure.suptitle(
        f"{c['batch']} x 3 x {c['size']} x {c['size']}, {c['dtype']}{compiled}, {c['processor']}",
        fontsize="medium",
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI)


def _bars(
    axes: Axes, rows: Sequence[dict[str, Any]], path: tuple[str, ...], unit: float, title: str
) -> None:
    """A bar a model, the longest at the bottom, cut into its parts."""
    totals = [sum(number_at(row, path).values()) for row in rows]
    order = np.argsort(totals)
    left = np.zeros(len(rows))
    for part in PARTS:
        values = np.array([number_at(rows[at], (*path, part)) or 0.0 for at in order]) / unit
        if values.any():
            axes.barh(range(len(rows)), values, left=left, color=PART_COLOURS[part], label=part)
        left += values
    for place, length in enumerate(left):
        axes.text(
            length, place, f" {length:.{0 if length >= 100 else 2}f}", va="center", fontsize="small"
        )
    axes.set_yticks(range(len(rows)), [rows[at]["name"] for at in order], parse_math=False)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(title)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.legend(fontsize="small")


def _scatter(
    axes: Axes, rows: Sequence[dict[str, Any]], path: tuple[str, ...], unit: float, title: str
) -> None:
    points = [(row["weight"]["flops"] / 1e9, number_at(row, path) / unit) for row in rows]
    axes.scatter(*zip(*points, strict=True), s=POINT_PT**2 * 2, color=CURVE_COLOURS[1], zorder=3)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(0.2)
    for axis in (axes.xaxis, axes.yaxis):
        write_plain_numbers(axis)
    axes.set_xlabel("GFLOPs")
    axes.set_ylabel(title)
    axes.grid(color="0.9", which="both")
    axes.set_axisbelow(True)
    label_points(axes, [row["name"] for row in rows], points, [POINT_PT] * len(rows))
