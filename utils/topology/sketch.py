"""A road graph in the making: lines are added, chained, pruned and joined, then frozen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import networkx as nx
import numpy as np
import shapely

from utils.topology.graph import RoadGraph, graph_from_lines, open_parts, polyline_length_m

Point = tuple[float, float]


class DeadEnd(NamedTuple):
    """A node with one road: its place and that road's polyline, which ends there."""

    point: Point
    line: np.ndarray


#: The sums of a line along which nothing was measured.
NOTHING = np.zeros(1)


class RoadSketch:
    """Polylines (K x 2, in metres) that meet where their ends are equal.

    A line may carry sums of what was measured along it; they add up where lines become one.
    """

    def __init__(self) -> None:
        self._graph = nx.MultiGraph()

    def add(self, line: np.ndarray, sums: np.ndarray = NOTHING) -> None:
        """Add a polyline; a closed one becomes a loop."""
        start, end = (tuple(point) for point in line[[0, -1]].tolist())
        self._graph.add_edge(start, end, line=line, sums=sums, length_m=polyline_length_m(line))

    def merge_chains(self) -> None:
        """Make one road of two wherever exactly two meet."""
        for node in list(self._graph.nodes):
            roads = list(self._graph.edges(node, data=True))
            if len(roads) == 2 and self._graph.degree(node) == 2:
                towards, away = (_ending_at(road["line"], node) for *_, road in roads)
                sums = roads[0][2]["sums"] + roads[1][2]["sums"]
                self._graph.remove_node(node)
                self.add(np.concatenate([towards, away[-2::-1]]), sums)

    def drop_spurs(self, min_spur_m: float) -> None:
        """Drop dead ends, loops and unconnected roads shorter than `min_spur_m`.

        The shortest goes first, and what continues straight on at its junction is then one road
        with the rest: of a fork at the end of a road one prong stays.
        """
        while self._drop_spurs_once(min_spur_m):
            self.merge_chains()

    def _drop_spurs_once(self, min_spur_m: float) -> bool:
        roads = self._graph.edges(keys=True, data="length_m")
        short = sorted((road for road in roads if road[3] < min_spur_m), key=lambda road: road[3])
        dropped = False
        for start, end, key, _ in short:
            degrees = self._graph.degree(start), self._graph.degree(end)
            is_spur = min(degrees) == 1 and max(degrees) != 2
            if is_spur or start == end:
                self._graph.remove_edge(start, end, key)
                dropped = True
        self._graph.remove_nodes_from(list(nx.isolates(self._graph)))
        return dropped

    def dead_ends(self) -> list[DeadEnd]:
        ends = [node for node, degree in self._graph.degree if degree == 1]
        lines = (next(iter(self._graph.edges(node, data="line")))[2] for node in ends)
        return [
            DeadEnd(node, _ending_at(line, node)) for node, line in zip(ends, lines, strict=True)
        ]

    def to_graph(self, simplify_m: float = 0.0, crs: str | None = None) -> RoadGraph:
        """The graph, with polylines simplified by Douglas-Peucker; equal ones stand once."""
        return graph_from_lines((line for line, _ in self.measured_lines(simplify_m)), crs)

    def measured_lines(self, simplify_m: float = 0.0) -> list[tuple[np.ndarray, np.ndarray]]:
        """The lines of `to_graph`, none of them closed, each with its sums."""
        lines: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
        for line, sums in self._open_lines():
            simple = _simplified(line, simplify_m)
            lines.setdefault(min(simple.tobytes(), simple[::-1].tobytes()), (simple, sums))
        return list(lines.values())

    def _open_lines(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for *_, road in self._graph.edges(data=True):
            parts = open_parts(road["line"])
            for part in parts:
                yield part, road["sums"] / len(parts)


def chain_graph(graph: RoadGraph) -> RoadGraph:
    """The graph without nodes at which just two roads meet; lengths are those of polylines."""
    sketch = RoadSketch()
    for edge in graph.edges:
        line = edge.line.copy()
        line[[0, -1]] = graph.nodes[[edge.start, edge.end]]  # equal in the last digit, too
        sketch.add(line)
    sketch.merge_chains()
    return sketch.to_graph(crs=graph.crs)


def _ending_at(line: np.ndarray, point: Point) -> np.ndarray:
    return line if tuple(line[-1].tolist()) == point else line[::-1]


def _simplified(line: np.ndarray, simplify_m: float) -> np.ndarray:
    if not simplify_m or len(line) < 3:
        return np.ascontiguousarray(line)
    return shapely.get_coordinates(shapely.simplify(shapely.linestrings(line), simplify_m))
