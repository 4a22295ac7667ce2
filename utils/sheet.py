"""A sheet of pictures: rows of panels under titles, laid out by the pixel.

Drawn by matplotlib's objects onto Agg: no display, no global state, safe beside other plots.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from PIL import Image

from utils.files import atomic_path

DPI = 128  # a power of two: sizes in inches turn into whole pixels again
PANEL_PX = (256, 640)  # widths of a panel: smaller images are enlarged, larger ones reduced


class Row(NamedTuple):
    """Panels, RGB uint8 (H, W, 3) of one shape, and the line above them."""

    title: str
    panels: list[np.ndarray]


def write_sheet(
    columns: Sequence[str],
    rows: Sequence[Row],
    path: str | os.PathLike[str],
    *,
    legend: Mapping[str, np.ndarray],
    scale: tuple[int, str] | None = None,
) -> None:
    """Write rows of panels under the columns' titles, and a legend of RGB uint8 colours.

    `scale` (column, colour map) draws the colours of 0 to 1 under a column. All panels get the
    width of the widest image, within `PANEL_PX`. Raises ValueError when there is no row.
    """
    if not rows:
        raise ValueError(f"{path}: there is no image to draw")
    layout = _Layout(rows, with_scale=scale is not None)
    figure = Figure(figsize=(layout.width / DPI, layout.height / DPI), dpi=DPI)
    _write_titles(figure, layout, columns, rows)
    for row, top, height in zip(rows, layout.panel_tops(), layout.heights, strict=True):
        for column, panel in enumerate(row.panels):
            _place(figure, layout, panel, column, top, height)
    if scale is not None:
        _add_scale(figure, layout, *scale)
    _add_legend(figure, layout, legend)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI)


class _Layout:
    """Where things are on the sheet, in pixels counted from the top left."""

    def __init__(self, rows: Sequence[Row], *, with_scale: bool) -> None:
        widest = max(row.panels[0].shape[1] for row in rows)
        smallest, largest = PANEL_PX
        whole_steps = widest * math.ceil(smallest / widest)  # enlarged without a blur
        self.panel_width = min(max(widest, whole_steps), largest)
        self.heights = [
            max(1, round(self.panel_width * panels[0].shape[0] / panels[0].shape[1]))
            for _, panels in rows
        ]
        self.font_px = self.gap = min(max(self.panel_width // 22, 13), 26)
        self.points = self.font_px * 72 / DPI
        self.line, self.row_line = 2 * self.font_px, 3 * self.font_px
        self.panels_end = self.line + sum(self.row_line + height for height in self.heights)
        self.scale_height = 4 * self.font_px if with_scale else 0
        self.width = len(rows[0].panels) * (self.panel_width + self.gap) + self.gap
        self.height = self.panels_end + self.scale_height + self.row_line

    def left(self, column: int) -> int:
        return self.gap + column * (self.panel_width + self.gap)

    def panel_tops(self) -> Iterator[int]:
        """Where the panels of each row begin; its title is in the line above."""
        top = self.line
        for height in self.heights:
            top += self.row_line
            yield top
            top += height

    def fraction(self, x: float, y: float) -> tuple[float, float]:
        """matplotlib's figure coordinates of a pixel position."""
        return x / self.width, 1 - y / self.height


def _write_titles(
    figure: Figure, layout: _Layout, columns: Sequence[str], rows: Sequence[Row]
) -> None:
    # A file name may hold dollar signs, which are no formula
    style: dict[str, Any] = {"fontsize": layout.points, "va": "center", "parse_math": False}
    for column, title in enumerate(columns):
        place = layout.fraction(layout.left(column) + layout.panel_width / 2, layout.line * 0.75)
        figure.text(*place, title, ha="center", weight="bold", **style)
    for row, top in zip(rows, layout.panel_tops(), strict=True):
        place = layout.fraction(layout.left(0), top - layout.line / 2)
        figure.text(*place, row.title, ha="left", **style)


def _place(
    figure: Figure, layout: _Layout, panel: np.ndarray, column: int, top: int, height: int
) -> None:
    """Put the panel's pixels, resized once, and a thin frame on the sheet."""
    size = (layout.panel_width, height)
    enlarged = layout.panel_width >= panel.shape[1]
    picture = Image.fromarray(np.ascontiguousarray(panel))
    picture = picture.resize(size, Image.Resampling.NEAREST if enlarged else Image.Resampling.BOX)
    left, bottom = layout.left(column), layout.height - top - height
    figure.figimage(np.asarray(picture), left, bottom, origin="upper")
    # The frame lies under the pixels, so that it cannot blend into them
    corner, sides = (left - 1, bottom - 1), (size[0] + 2, size[1] + 2)
    figure.add_artist(
        Rectangle(corner, *sides, transform=None, color="0.6", linewidth=0, zorder=-1)
    )


def _add_scale(figure: Figure, layout: _Layout, column: int, colour_map: str) -> None:
    left, bottom = layout.fraction(layout.left(column), layout.panels_end + 2 * layout.font_px)
    width, height = layout.panel_width / layout.width, layout.font_px / layout.height
    axes = figure.add_axes((left, bottom, width, height))
    axes.imshow(np.linspace(0, 1, 256)[None], colour_map, aspect="auto", extent=(0, 1, 0, 1))
    axes.set_yticks([])
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.tick_params(labelsize=0.85 * layout.points, length=3)


def _add_legend(figure: Figure, layout: _Layout, legend: Mapping[str, np.ndarray]) -> None:
    handles = [
        Patch(facecolor=colour / 255, edgecolor="0.5", label=label)
        for label, colour in legend.items()
    ]
    figure.legend(
        handles=handles,
        loc="center right",
        bbox_to_anchor=layout.fraction(
            layout.width - layout.gap, layout.height - layout.row_line / 2
        ),
        ncols=len(handles),
        fontsize=layout.points,
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        handlelength=1.2,
        columnspacing=1.5,
    )
