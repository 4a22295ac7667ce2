"""The comparison's charts, on light or dark ground: bars, precision-recall, accuracy for FLOPs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.comparison.summary import headline
from utils.comparison.tables import label
from utils.files import atomic_path
from utils.labels import label_points, write_plain_numbers
from utils.plots import CURVE_COLOURS
from utils.sheet import DPI

_INK = {"light": "#1c1c1c", "dark": "#e4e4e4"}
_GROUND = {"light": "#ffffff", "dark": "#191b1f"}
_GRID = {"light": "#e2e2e2", "dark": "#3a3d44"}
_STYLES = ("-", "--", ":", "-.")
#: Areas of bubbles, in square points a million parameters and at their least.
_AREA_PER_MILLION, _LEAST_AREA = 9.0, 30.0
_PANEL_COLUMNS = 4


def theme(ground: str) -> dict[str, str]:
    """matplotlib's settings for 'light' or 'dark'."""
    ink, paper = _INK[ground], _GROUND[ground]
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    papered = ("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor")
    return dict.fromkeys(inked, ink) | dict.fromkeys(papered, paper) | {"grid.color": _GRID[ground]}


def draw_bars(summary: Mapping[str, Any], path: Path) -> None:
    """A panel a metric, a bar a model: the mean, its standard deviation, and every seed a dot."""
    metrics, models = summary["metrics"], summary["models"]
    columns = min(_PANEL_COLUMNS, len(metrics))
    lines = math.ceil(len(metrics) / columns)
    size = (3.4 * columns + 1, lines * (0.9 + 0.34 * len(models)))
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    panels = np.ravel(figure.subplots(lines, columns, sharey=True, squeeze=False))
    for axes, metric in zip(panels, metrics, strict=False):
        scores = [model["scores"][metric["key"]] for model in models]
        means = [score["mean"] for score in scores]
        errors = [score["std"] or 0.0 for score in scores]
        places = np.arange(len(models))
        bars = {"color": _colours(models), "height": 0.7}
        if any(errors):
            bars |= {"xerr": errors, "ecolor": matplotlib.rcParams["text.color"], "capsize": 3}
        axes.barh(places, means, **bars)
        for place, score in zip(places, scores, strict=True):
            seeds = score["values"] if len(score["values"]) > 1 else []
            axes.plot(seeds, [place] * len(seeds), ".", color="0.5", markersize=4)
            end = score["mean"] + (score["std"] or 0.0)
            axes.text(end, place, f"  {score['mean']:.3f}", va="center", fontsize=8)
        axes.set_yticks(places, [model["name"] for model in models], parse_math=False)
        axes.set_title(f"{label(metric['key'])} {'↑' if metric['more_is_better'] else '↓'}")
        axes.set_xlim(0, 1.25 * max(*means, *np.add(means, errors), 1e-9))
        _grid(axes, "x")
    panels[0].invert_yaxis()
    for axes in panels[len(metrics) :]:
        axes.set_visible(False)
    _save(figure, path)


def draw_curves(summary: Mapping[str, Any], path: Path) -> None:
    """Precision against recall over the thresholds, with lines of equal F1."""
    figure = Figure(figsize=(7.5, 6), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for f1 in (0.2, 0.4, 0.6, 0.8):
        recall = np.geomspace(f1 / (2 - f1), 1, 100)
        precision = f1 * recall / (2 * recall - f1)
        axes.plot(recall, precision, color=matplotlib.rcParams["grid.color"], lw=1)
        axes.text(1.0, f1 / (2 - f1), f" F1 {f1}", fontsize=7, color="0.5", va="center")
    for number, model in enumerate(summary["models"]):
        points = model["curve"]
        axes.plot(
            [point["recall"] for point in points],
            [point["precision"] for point in points],
            color=_colours(summary["models"])[number],
            linestyle=_STYLES[number // (len(CURVE_COLOURS) - 1) % len(_STYLES)],
            linewidth=1.8,
            label=model["name"],
        )
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    _grid(axes, "both")
    axes.legend(loc="best", fontsize="small")
    _save(figure, path)


def draw_efficiency(summary: Mapping[str, Any], path: Path) -> None:
    """A bubble a model: FLOPs against the headline metric, its area the parameters."""
    key = headline(summary)
    models = [model for model in summary["models"] if model["flops"]]
    figure = Figure(figsize=(7.5, 6), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    points = [(model["flops"] / 1e9, model["scores"][key]["mean"]) for model in models]
    errors = [model["scores"][key]["std"] or 0.0 for model in models]
    areas = [_area(model["parameters"]) for model in models]
    axes.errorbar(*zip(*points, strict=True), yerr=errors, fmt="none", ecolor="0.5", capsize=3)
    axes.scatter(*zip(*points, strict=True), s=areas, c=_colours(models), alpha=0.8, zorder=3)
    axes.set_xscale("log")
    axes.margins(0.25)
    write_plain_numbers(axes.xaxis)
    axes.set(xlabel="GFLOPs", ylabel=label(key))
    _grid(axes, "both")
    _bubble_legend(axes, [model["parameters"] for model in models])
    radii = [math.sqrt(area / math.pi) for area in areas]
    label_points(axes, [model["name"] for model in models], points, radii)
    _save(figure, path)


def _bubble_legend(axes: Axes, parameters: Sequence[int]) -> None:
    largest = max(parameters) / 1e6
    for millions in (largest / 10, largest / 2, largest):
        shown = float(f"{millions:.1g}")
        text = f"{shown:g} M parameters"
        axes.scatter([], [], s=_area(shown * 1e6), color="0.5", alpha=0.6, label=text)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.1), ncols=3, frameon=False,
                fontsize="small", borderpad=1.5)  # fmt: skip


def _area(parameters: float) -> float:
    return _LEAST_AREA + _AREA_PER_MILLION * parameters / 1e6


def _colours(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """A colour each, without the black, which a dark ground swallows."""
    return [str(colour) for colour in np.resize(CURVE_COLOURS[1:], len(models))]


def _grid(axes: Axes, which: str) -> None:
    axes.grid(axis=which, color=matplotlib.rcParams["grid.color"])
    axes.set_axisbelow(True)


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI)
