"""The centre-line graph of the streets in view, in the plain exchange format."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from shapely import LineString, box
from shapely.geometry.base import BaseGeometry

from utils.synthetic.network import Road

SIMPLIFY_M = 0.1  # what traced vertices may move: invisible, and straight streets stay short


def road_graph(roads: list[Road], view: tuple[float, float]) -> dict[str, list]:
    """{"nodes": [[x, y], ...], "edges": [[i, j, length, [[x, y], ...]], ...]} in metres.

    The origin is the view's upper left corner, x runs right and y down; pixel (row, column) covers
    [column, column + 1] x [row, row + 1]. Nodes are junctions, dead ends and exits at the border.
    """
    window = box(view[0], view[0], view[1], view[1])
    nodes: dict[tuple[float, float], int] = {}
    edges = []
    for road in roads:
        for line in _pieces(road):
            for part in _lines(line.simplify(SIMPLIFY_M).intersection(window)):
                points = np.round(np.asarray(part.coords) - view[0], 3)
                length = round(float(np.hypot(*np.diff(points, axis=0).T).sum()), 3)
                if length > 0:
                    ends = [nodes.setdefault(tuple(points[e]), len(nodes)) for e in (0, -1)]
                    edges.append([*ends, length, points.tolist()])
    return {"nodes": [list(node) for node in nodes], "edges": edges}


def _pieces(road: Road) -> list[LineString]:
    """The street between its junctions."""
    cuts = sorted({0, *road.junctions, len(road.points) - 1})
    return [LineString(road.points[a : b + 1]) for a, b in pairwise(cuts)]


def _lines(shape: BaseGeometry) -> list[LineString]:
    parts = getattr(shape, "geoms", [shape])
    return [part for part in parts if isinstance(part, LineString) and not part.is_empty]
