"""What is written on a plot: names beside its points, and plain numbers along a wide scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.text import Annotation, Text
from matplotlib.ticker import NullFormatter
from matplotlib.transforms import Bbox

#: Sides of a point, the most readable first, and distances in points that are tried.
_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
_DISTANCES_PT = (0, 8, 18, 30, 44)
_HORIZONTAL = {1: "left", 0: "center", -1: "right"}
#: Largest number through the smallest, below which an axis may hold no power of ten.
_SHORT = 8
_VERTICAL = {1: "bottom", 0: "center", -1: "top"}


def label_points(
    axes: Axes,
    names: Sequence[str],
    points: Sequence[tuple[float, float]],
    radii_pt: Sequence[float],
    fontsize: float = 9,
) -> None:
    """Write each name beside its point (data coordinates), at least `radii_pt` points away.

    The axes must have their final limits. The first place that covers nothing is taken, or the
    one that covers least; a thin line leads from a name that is not next to its point.
    """
    axes.figure.draw_without_rendering()
    px = axes.figure.dpi / 72
    taken = [
        Bbox.from_bounds(x - r * px, y - r * px, 2 * r * px, 2 * r * px)
        for (x, y), r in zip(axes.transData.transform(points), radii_pt, strict=True)
    ]
    for name, point, radius in zip(names, points, radii_pt, strict=True):
        best, least = None, float("inf")
        for label in _candidates(axes, name, point, radius, fontsize):
            label.get_window_extent()  # puts the text where it belongs
            box = Text.get_window_extent(label)  # without the line
            cost = _covered(box, taken) + _outside(box, axes.get_window_extent())
            if cost < least:
                best, least = (label, box), cost
            label.remove()
            if not cost:
                break
        assert best is not None
        axes.add_artist(best[0])
        taken.append(best[1])


def write_plain_numbers(axis: Axis) -> None:
    """0.1 and 300 along a logarithmic axis, which has its final limits; more where it is short."""
    low, high = axis.get_view_interval()
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("{x:g}" if high / low < _SHORT else NullFormatter())


def _candidates(
    axes: Axes, name: str, point: tuple[float, float], radius: float, fontsize: float
) -> Iterator[Annotation]:
    for distance in _DISTANCES_PT:
        for dx, dy in _SIDES:
            reach = radius + 2 + distance
            yield axes.annotate(
                name,
                point,
                xytext=(dx * reach, dy * reach),
                textcoords="offset points",
                ha=_HORIZONTAL[dx],
                va=_VERTICAL[dy],
                fontsize=fontsize,
                parse_math=False,  # a dollar sign in a file name is no formula
                arrowprops={"arrowstyle": "-", "lw": 0.5, "color": "0.5"} if distance else None,
            )


def _covered(box: Bbox, taken: Sequence[Bbox]) -> float:
    """Square pixels of `box` that others have."""
    shared = (Bbox.intersection(box, other) for other in taken)
    return sum(part.width * part.height for part in shared if part is not None)


def _outside(box: Bbox, axes: Bbox) -> float:
    inside = Bbox.intersection(box, axes)
    return box.width * box.height - (inside.width * inside.height if inside is not None else 0)
