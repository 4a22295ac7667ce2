"""Names on plots: none covers another, and wide scales have plain numbers."""

from __future__ import annotations

import itertools

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from utils.labels import label_points, write_plain_numbers


@pytest.fixture
def axes():
    figure = Figure(figsize=(7, 5), dpi=100)
    return figure.subplots()


def test_crowded_names_do_not_cover_each_other_or_leave_the_plot(axes):
    names = [f"a model called {number}" for number in range(8)]
    points = [(0.5 + 0.02 * (number % 3), 0.5 + 0.02 * (number // 3)) for number in range(8)]
    points[0] = (0.99, 0.99)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.scatter(*zip(*points, strict=True))
    label_points(axes, names, points, [4] * 8)
    axes.figure.draw_without_rendering()
    labels = [child for child in axes.get_children() if isinstance(child, Annotation)]
    assert [label.get_text() for label in labels] == names
    boxes = [Text.get_window_extent(label) for label in labels]
    assert not any(one.overlaps(two) for one, two in itertools.combinations(boxes, 2))
    inside = axes.get_window_extent()
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 for box in boxes)


@pytest.mark.parametrize(("limits", "shown"), [((0.05, 20), "0.1"), ((200, 900), "300")])
def test_log_axes_are_written_in_plain_numbers(axes, limits, shown):
    axes.set_xscale("log")
    axes.set_xlim(*limits)
    write_plain_numbers(axes.xaxis)
    axes.figure.draw_without_rendering()
    ticks = [*axes.get_xticklabels(), *axes.get_xticklabels(minor=True)]
    texts = {tick.get_text() for tick in ticks}
    assert shown in texts and not any("e" in text or "{" in text for text in texts)
