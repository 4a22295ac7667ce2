"""Why a score is low, to be seen: both graphs, their control points, the routes that cost most."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from utils.files import atomic_path
from utils.topology.apls import APLSResult, OneWay, control_points
from utils.topology.graph import RoadGraph
from utils.topology.routes import route_line

TRUTH, PROPOSAL, ROUTE = "#3a3a3a", "#1f77b4", "#d62728"
#: Cost of a control point's routes: from green, 0, to red, 1.
COST_COLOURS = matplotlib.colormaps["RdYlGn_r"]


def draw_comparison(
    truth: RoadGraph, proposal: RoadGraph, result: APLSResult, name: str, path: Path
) -> None:
    """Draw truth, proposal and the worst routes side by side into a PNG.

    Control points are coloured by the mean cost of their routes; crosses are those that the
    other graph does not have. `result` must be the APLS of the two with its worst routes.
    """
    figure = Figure(figsize=(21, 8), layout="constrained")
    figure.suptitle(
        f"{name}   APLS {result.apls:.3f}   (truth to proposal "
        f"{result.truth_to_proposal.score:.3f}, proposal to truth "
        f"{result.proposal_to_truth.score:.3f})",
        fontsize=15,
    )
    left, middle, right = figure.subplots(1, 3)
    _draw_side(left, truth, proposal, result.truth_to_proposal, "truth", TRUTH)
    _draw_side(middle, proposal, truth, result.proposal_to_truth, "proposal", PROPOSAL)
    _draw_worst(right, truth, proposal, result)
    for axes in (left, middle, right):
        _frame(axes, truth, proposal)
    scale = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, 1), COST_COLOURS)
    figure.colorbar(scale, ax=middle, label="mean cost of a control point's routes", shrink=0.7)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=90)


def _draw_side(
    axes: Axes, graph: RoadGraph, other: RoadGraph, way: OneWay, label: str, colour: str
) -> None:
    _draw_lines(axes, other, "#d9d9d9", 3)
    _draw_lines(axes, graph, colour, 1.2)
    found = ~way.missing
    style = {"c": way.cost[found], "cmap": COST_COLOURS, "vmin": 0, "vmax": 1}
    axes.scatter(*way.points[found].T, s=26, zorder=3, edgecolors="black", linewidths=0.4, **style)
    axes.scatter(*way.points[way.missing].T, s=34, zorder=4, color=ROUTE, marker="x")
    axes.set_title(
        f"{label}: {len(graph.edges)} roads, {graph.total_length_m / 1000:.2f} km, "
        f"{len(way.points)} control points, {int(way.missing.sum())} missing in the other"
    )


def _draw_worst(axes: Axes, truth: RoadGraph, proposal: RoadGraph, result: APLSResult) -> None:
    _draw_lines(axes, truth, "#b5b5b5", 4)
    _draw_lines(axes, proposal, PROPOSAL, 1.2)
    spacing_m = result.parameters["spacing_m"]
    sides = (truth, result.truth_to_proposal, "-"), (proposal, result.proposal_to_truth, ":")
    for graph, way, dashes in sides:
        places, _ = control_points(graph, spacing_m)
        for route in way.worst:
            line = route_line(graph, places, route.start, route.end)
            axes.plot(*line.T, dashes, color=ROUTE, linewidth=2.4, alpha=0.8, zorder=3)
            axes.plot(*line[[0, -1]].T, "o", color=ROUTE, markersize=4, zorder=4)
            axes.annotate(f"{route.cost:.2f}", line[len(line) // 2], fontsize=8, zorder=5)
    num = len(result.truth_to_proposal.worst), len(result.proposal_to_truth.worst)
    axes.set_title(
        f"routes that cost most: {num[0]} of the truth (solid), {num[1]} of the proposal (dotted)"
    )


def _draw_lines(axes: Axes, graph: RoadGraph, colour: str, width: float) -> None:
    lines = [edge.line for edge in graph.edges]
    axes.add_collection(LineCollection(lines, colors=colour, linewidths=width, zorder=1))


def _frame(axes: Axes, truth: RoadGraph, proposal: RoadGraph) -> None:
    """The same view for all, in metres; rows of an image without a CRS run downwards."""
    points = np.concatenate([truth.nodes, proposal.nodes, *(e.line for e in truth.edges)])
    if not len(points):
        points = np.array([(0.0, 0.0), (1.0, 1.0)])
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.03 * max(*(high - low), 1.0)
    axes.set_xlim(low[0] - margin, high[0] + margin)
    axes.set_ylim(low[1] - margin, high[1] + margin)
    if truth.crs is None:
        axes.invert_yaxis()
    axes.set_aspect("equal")
    axes.ticklabel_format(useOffset=False, style="plain")
    axes.tick_params(labelsize=7)
    axes.set_xlabel("m", fontsize=8)
