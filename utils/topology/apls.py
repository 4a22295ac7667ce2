"""Average path length similarity of two road graphs (APLS).

Van Etten, Lindenbaum, Bacastow: SpaceNet, a remote sensing dataset and challenge series, 2018
(arXiv 1807.01232), with the conventions of its authors' program.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import shapely

from utils.topology.distances import AT_END_M, Network, Places, points_of
from utils.topology.graph import RoadGraph

#: "Farther than the snap distance" in coordinates of a million metres, whose last digit is 1e-10.
ROUNDING_M = 1e-9


class Route(NamedTuple):
    """A pair of control points (numbers in `OneWay.points`) and what its route costs, 0 to 1."""

    start: int
    end: int
    cost: float
    length_m: float


@dataclass(frozen=True)
class OneWay:
    """One direction: the routes between control points of one graph, looked for in the other."""

    score: float
    num_routes: int
    points: np.ndarray  # C x 2, nodes first, then the points on edges
    missing: np.ndarray  # C, bool: no place in the other graph
    cost: np.ndarray  # C: mean cost of the routes from each point, 0 without one
    worst: tuple[Route, ...] = ()


@dataclass(frozen=True)
class APLSResult:
    """APLS, its two directions and the parameters that it was computed with."""

    apls: float
    truth_to_proposal: OneWay
    proposal_to_truth: OneWay
    truth_empty: bool
    proposal_empty: bool
    parameters: dict[str, float | bool]


def apls(
    truth: RoadGraph,
    proposal: RoadGraph,
    *,
    spacing_m: float = 50.0,
    snap_m: float = 4.0,
    min_route_m: float = 0.001,
    displace: bool = True,
    num_worst: int = 0,
) -> APLSResult:
    """APLS of a proposed graph: the harmonic mean of both directions, 0 when either is 0.

    `spacing_m` lies between control points on an edge; a control point farther than `snap_m`
    from the other graph is missing; routes shorter than `min_route_m` do not count. With
    `displace`, as the authors' program has it, a control point takes the place of the end node
    that it falls on, and the next one there displaces it; without, all of them are attached.
    `num_worst` routes that cost most are kept in each direction. An empty graph scores 0.
    """
    for name, value in (("spacing_m", spacing_m), ("snap_m", snap_m), ("min_route_m", min_route_m)):
        if not value > 0:
            raise ValueError(f"{name} must be a positive number of metres, got {value}")
    rule = (spacing_m, snap_m, min_route_m, displace, num_worst)
    forth = _one_way(truth, proposal, *rule)
    back = _one_way(proposal, truth, *rule)
    both = forth.score + back.score
    return APLSResult(
        apls=2 * forth.score * back.score / both if forth.score and back.score else 0.0,
        truth_to_proposal=forth,
        proposal_to_truth=back,
        truth_empty=truth.is_empty,
        proposal_empty=proposal.is_empty,
        parameters={
            "spacing_m": spacing_m,
            "snap_m": snap_m,
            "min_route_m": min_route_m,
            "displace": displace,
        },
    )


def control_points(graph: RoadGraph, spacing_m: float) -> tuple[Places, np.ndarray]:
    """The control points of a graph as places and coordinates: nodes, then points on edges.

    An edge shorter than three quarters of the spacing has none, one up to the spacing its
    middle, a longer one those that cut it in ceil(length / spacing) equal pieces.
    """
    length_m = graph.lengths_m
    pieces = np.where(length_m <= spacing_m, 2, np.ceil(length_m / spacing_m)).astype(int)
    pieces[length_m < 0.75 * spacing_m] = 1
    edge = np.repeat(np.arange(len(pieces)), pieces - 1)
    ordinal = np.concatenate([np.arange(1, n) for n in pieces]) if len(pieces) else np.zeros(0)
    along_m = graph.line_lengths_m[edge] * ordinal / pieces[edge]
    nodes = Places.at_nodes(np.arange(len(graph.nodes)))
    if not len(edge):
        return nodes, graph.nodes
    places = Places.concatenate(nodes, Places.on_edges(graph, edge, along_m))
    return places, np.concatenate([graph.nodes, points_of(graph, edge, along_m)])


def snap(points: np.ndarray, graph: RoadGraph, snap_m: float) -> tuple[Places, np.ndarray]:
    """Each point's nearest place on the graph, and whether it is farther than `snap_m`.

    Of equally near edges the first is taken. A missing point's place is meaningless.
    """
    if graph.is_empty:
        return Places.at_nodes(np.zeros(len(points), dtype=int)), np.ones(len(points), dtype=bool)
    geometries = shapely.points(points)
    reach_m = snap_m + ROUNDING_M
    pairs = graph.tree.query_nearest(geometries, max_distance=reach_m * (1 + 1e-9) + ROUNDING_M)
    order = np.lexsort(pairs[::-1])
    point, first = np.unique(pairs[0][order], return_index=True)
    edge = np.zeros(len(points), dtype=int)
    edge[point] = pairs[1][order][first]
    missing = np.ones(len(points), dtype=bool)
    missing[point] = shapely.distance(geometries[point], graph.lines[edge[point]]) > reach_m
    along_m = shapely.line_locate_point(graph.lines[edge], geometries)
    return Places.on_edges(graph, edge, along_m), missing


def _displaced(places: Places, missing: np.ndarray) -> np.ndarray:
    """The points that a later one displaces from the node, old or new, that they stand for."""
    at_node = places.edge < 0
    along = np.where(at_node, 0, np.rint(places.from_nodes_m[:, 0] / AT_END_M)).astype(np.int64)
    keys = np.stack([places.edge, np.where(at_node, places.nodes[:, 0], along)], 1)
    present = np.flatnonzero(~missing)
    # np.unique keeps the first of equals, so the last point comes first.
    _, last = np.unique(keys[present][::-1], axis=0, return_index=True)
    displaced = ~missing
    displaced[present[len(present) - 1 - last]] = False
    return displaced


def _one_way(
    graph: RoadGraph,
    other: RoadGraph,
    spacing_m: float,
    snap_m: float,
    min_route_m: float,
    displace: bool,
    num_worst: int,
) -> OneWay:
    places, points = control_points(graph, spacing_m)
    found, missing = snap(points, other, snap_m)
    if displace:
        missing |= _displaced(found, missing)
    if graph.is_empty or other.is_empty:
        return OneWay(0.0, 0, points, missing, np.ones(len(points)))
    network = Network(graph, split=places.edge)
    other_network = Network(other, split=found.edge[~missing])
    routes = np.zeros(len(points), dtype=np.int64)
    cost = np.zeros(len(points))
    worst: list[Route] = []
    for rows, here_m in network.blocks(places):
        there_m = other_network.between(found[rows], found)
        there_m[:, missing] = np.inf
        block_cost, counts = _route_costs(here_m, there_m, missing, rows, min_route_m)
        routes[rows], cost[rows] = counts.sum(axis=1), block_cost.sum(axis=1)
        if num_worst:
            worst += _dearest(block_cost, here_m, missing, rows)
    total = int(routes.sum())
    score = 1 - cost.sum() / total if total else 0.0
    mean_cost = np.divide(cost, routes, out=np.zeros_like(cost), where=routes > 0)
    return OneWay(
        max(float(score), 0.0), total, points, missing, mean_cost, _worst(worst, missing, num_worst)
    )


def _route_costs(
    here_m: np.ndarray,
    there_m: np.ndarray,
    missing: np.ndarray,
    rows: slice,
    min_route_m: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The cost of each route of a block of starts, and which routes count."""
    counts = np.isfinite(here_m)
    counts &= (here_m >= min_route_m) | missing[rows, None]
    starts = np.arange(rows.start, rows.stop)
    counts[starts - rows.start, starts] = False
    with np.errstate(invalid="ignore", divide="ignore"):
        cost = np.abs(here_m - there_m)
        cost /= here_m
    cost[np.isinf(there_m) | missing[rows, None]] = 1.0
    np.minimum(cost, 1.0, out=cost)
    cost[~counts] = 0.0
    return cost, counts


def _dearest(
    cost: np.ndarray, length_m: np.ndarray, missing: np.ndarray, rows: slice
) -> list[Route]:
    """The dearest route of each start of a block; of equals one between points that were found,
    and then the shortest, which shows best where the fault lies.
    """
    dearest = cost.max(axis=1, initial=0)
    rank = np.where(cost == dearest[:, None], length_m, np.inf)
    rank[:, missing] *= 1e6
    end = rank.argmin(axis=1)
    found = zip(range(rows.start, rows.stop), end, dearest, strict=True)
    return [Route(a, int(b), float(c), float(length_m[a - rows.start, b])) for a, b, c in found]


def _worst(routes: list[Route], missing: np.ndarray, num_worst: int) -> tuple[Route, ...]:
    """The dearest routes, in the order of `_dearest`, no two of which share a control point."""
    kept: list[Route] = []
    taken: set[int] = set()
    order = sorted(routes, key=lambda r: (-r.cost, missing[r.start] | missing[r.end], r.length_m))
    for route in order:
        if route.cost > 0 and len(kept) < num_worst and not taken & {route.start, route.end}:
            kept.append(route)
            taken |= {route.start, route.end}
    return tuple(kept)
