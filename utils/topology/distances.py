"""Places on a road graph and the shortest distances between them.

A place on an edge is known by the edge's two nodes and its distance from each, so Dijkstra's
algorithm runs over the graph's own nodes only, however many places there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from utils.topology.graph import RoadGraph

#: A place this close to an end of its edge is at the end: projections round in the last digits.
AT_END_M = 1e-6
#: Up to so many nodes the distances between all of them are computed once (128 MB).
ALL_PAIRS_NODES = 4000
BLOCK_ROWS = 256


@dataclass(frozen=True)
class Places:
    """P places: `nodes` (P x 2) around each, `from_nodes_m` (P x 2), and `edge` (P; -1 at a node).

    A place at a node has that node twice, at distance 0.
    """

    nodes: np.ndarray
    from_nodes_m: np.ndarray
    edge: np.ndarray

    def __len__(self) -> int:
        return len(self.edge)

    def __getitem__(self, rows: slice | np.ndarray) -> Places:
        return Places(self.nodes[rows], self.from_nodes_m[rows], self.edge[rows])

    @classmethod
    def at_nodes(cls, nodes: np.ndarray) -> Places:
        nodes = np.asarray(nodes, dtype=np.int64)
        return cls(np.stack([nodes, nodes], 1), np.zeros((len(nodes), 2)), np.full(len(nodes), -1))

    @classmethod
    def on_edges(cls, graph: RoadGraph, edge: np.ndarray, along_m: np.ndarray) -> Places:
        """Places `along_m` metres from the start of the polylines of the edges `edge`."""
        rest_m = graph.line_lengths_m[edge] - along_m
        nodes = graph.ends[edge]
        from_nodes_m = np.stack([along_m, rest_m], 1)
        for end in (0, 1):
            there = from_nodes_m[:, end] <= AT_END_M
            nodes = np.where(there[:, None], nodes[:, [end, end]], nodes)
            from_nodes_m = np.where(there[:, None], 0.0, from_nodes_m)
        at_node = (nodes[:, 0] == nodes[:, 1]) & (from_nodes_m.max(axis=1, initial=0) == 0)
        return cls(nodes, from_nodes_m, np.where(at_node, -1, edge))

    @classmethod
    def concatenate(cls, first: Places, second: Places) -> Places:
        return cls(
            np.concatenate([first.nodes, second.nodes]),
            np.concatenate([first.from_nodes_m, second.from_nodes_m]),
            np.concatenate([first.edge, second.edge]),
        )


class Network:
    """Shortest distances on a graph some of whose edges are split by places on them.

    A split edge has the length of its polyline, the others keep their stored length. Of
    parallel edges the shortest counts.
    """

    def __init__(self, graph: RoadGraph, split: np.ndarray | None = None) -> None:
        weights_m = graph.lengths_m.copy()
        if split is not None:
            split = np.unique(split[split >= 0])
            weights_m[split] = graph.line_lengths_m[split]
        self.num_nodes = len(graph.nodes)
        self._matrix = _shortest_links(graph.ends, weights_m, self.num_nodes)
        self._all: np.ndarray | None = None

    def from_nodes(self, nodes: np.ndarray, limit_m: float = np.inf) -> np.ndarray:
        """len(nodes) x num_nodes distances in metres; infinite where no road leads."""
        if self.num_nodes > ALL_PAIRS_NODES or np.isfinite(limit_m):
            return dijkstra(self._matrix, indices=nodes, limit=limit_m)
        if self._all is None:
            self._all = dijkstra(self._matrix)
        return self._all[nodes]

    def between(self, sources: Places, targets: Places, limit_m: float = np.inf) -> np.ndarray:
        """len(sources) x len(targets) distances; with a limit, longer ones may be infinite."""
        nodes, row = np.unique(sources.nodes, return_inverse=True)
        row = row.reshape(sources.nodes.shape)
        to_nodes = self.from_nodes(nodes, limit_m)
        to_nodes = _nearer_end(to_nodes[row[:, 0]], to_nodes[row[:, 1]], sources.from_nodes_m)
        # Transposed, a target's distances lie together in memory, and taking them is fast.
        to_nodes = np.ascontiguousarray(to_nodes.T)
        left, right = targets.nodes.T
        result = _nearer_end(to_nodes[left], to_nodes[right], targets.from_nodes_m).T
        _along_the_same_edge(result, sources, targets)
        return result

    def blocks(self, places: Places) -> Iterator[tuple[slice, np.ndarray]]:
        """Distances from some of the places to all of them, block after block of rows."""
        for first in range(0, len(places), BLOCK_ROWS):
            rows = slice(first, min(first + BLOCK_ROWS, len(places)))
            yield rows, self.between(places[rows], places)


def _nearer_end(first: np.ndarray, second: np.ndarray, from_ends_m: np.ndarray) -> np.ndarray:
    """Row-wise the shorter way over either end of the edge that a place lies on."""
    first += from_ends_m[:, :1]
    second += from_ends_m[:, 1:]
    return np.minimum(first, second, out=first)


def _along_the_same_edge(result: np.ndarray, sources: Places, targets: Places) -> None:
    """Between two places on one edge the way may lead along the edge alone."""
    order = np.argsort(targets.edge, kind="stable")
    edges = targets.edge[order]
    begins = np.searchsorted(edges, sources.edge, "left")
    ends = np.searchsorted(edges, sources.edge, "right")
    for row in np.flatnonzero(sources.edge >= 0):
        columns = order[begins[row] : ends[row]]
        apart_m = np.abs(targets.from_nodes_m[columns, 0] - sources.from_nodes_m[row, 0])
        result[row, columns] = np.minimum(result[row, columns], apart_m)


def _shortest_links(ends: np.ndarray, weights_m: np.ndarray, num_nodes: int) -> csr_array:
    """The symmetric matrix of direct links, of parallel ones the shortest."""
    order = np.argsort(weights_m, kind="stable")
    low, high = np.sort(ends[order], axis=1).T
    _, first = np.unique(low * max(num_nodes, 1) + high, return_index=True)
    low, high, weights_m = low[first], high[first], weights_m[order][first]
    apart = low != high
    low, high, weights_m = low[apart], high[apart], weights_m[apart]
    rows, columns = np.concatenate([low, high]), np.concatenate([high, low])
    return csr_array((np.tile(weights_m, 2), (rows, columns)), shape=(num_nodes, num_nodes))


def points_of(graph: RoadGraph, edge: np.ndarray, along_m: np.ndarray) -> np.ndarray:
    """The coordinates (P x 2) of places on edges."""
    points = shapely.line_interpolate_point(graph.lines[edge], along_m)
    return shapely.get_coordinates(points)
