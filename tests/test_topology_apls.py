"""APLS: the worked values, and a restatement that inserts control points one after another."""

from __future__ import annotations

import itertools
import math

import networkx as nx
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.ops import substring

from utils.topology.apls import apls
from utils.topology.graph import Edge, RoadGraph, graph_from_lines, straight_graph

EMPTY = straight_graph([], [])
ROAD = straight_graph([(0, 0), (400, 0)], [(0, 1)])
SHORT = straight_graph([(0, 0), (200, 0)], [(0, 1)])
STUB = straight_graph([(0, 0), (0, 3), (200, 0)], [(0, 1), (0, 2)])
GRID_NODES = [(x * 100, y * 100) for y in range(3) for x in range(3)]
GRID_LINKS = [(i, i + 1) for i in range(9) if i % 3 < 2] + [(i, i + 3) for i in range(6)]
#: Leaves the road after 60 m, runs 60 m beside it, and comes back 60 m before its end.
DETOUR = graph_from_lines([[(0, 0), (60, 0), (60, 60), (140, 60), (140, 0), (200, 0)]])

WORKED = {
    "same": (ROAD, ROAD, 1, 1, 1),
    "2 m aside": (ROAD, straight_graph([(0, 2), (400, 2)], [(0, 1)]), 1, 1, 1),
    "20 m aside": (ROAD, straight_graph([(0, 20), (400, 20)], [(0, 1)]), 0, 0, 0),
    "nothing": (ROAD, EMPTY, 0, 0, 0),
    "no truth": (EMPTY, ROAD, 0, 0, 0),
    "neither": (EMPTY, EMPTY, 0, 0, 0),
    "half": (ROAD, SHORT, 0.277778, 1, 0.434783),
    "gap": (
        ROAD,
        straight_graph([(0, 0), (180, 0), (220, 0), (400, 0)], [(0, 1), (2, 3)]),
        *(0.333333, 1, 0.5),
    ),
    "late start": (ROAD, straight_graph([(3, 0), (400, 0)], [(0, 1)]), 0.995470, 1, 0.997730),
    "detour": (SHORT, DETOUR, 0.28, 0.150893, 0.196104),
    "missing link": (
        straight_graph(GRID_NODES, GRID_LINKS),
        straight_graph(GRID_NODES, [link for link in GRID_LINKS if link != (4, 5)]),
        *(0.857460, 0.966767, 0.908839),
    ),
    "stub": (STUB, SHORT, 0.658659, 1, 0.794207),
}


@pytest.mark.parametrize("name", WORKED)
def test_worked_values(name):
    truth, proposal, forth, back, score = WORKED[name]
    result = apls(truth, proposal)
    assert result.truth_to_proposal.score == pytest.approx(forth, abs=1e-6)
    assert result.proposal_to_truth.score == pytest.approx(back, abs=1e-6)
    assert result.apls == pytest.approx(score, abs=1e-6)
    assert (result.truth_empty, result.proposal_empty) == (truth is EMPTY, proposal is EMPTY)


def test_without_displacement_a_stub_costs_only_its_own_length():
    result = apls(STUB, SHORT, displace=False)
    assert result.truth_to_proposal.score == pytest.approx(0.925326, abs=1e-6)
    assert result.apls == pytest.approx(0.961215, abs=1e-6)


def test_snap_distance_is_inclusive():
    aside = straight_graph([(0, 4), (400, 4)], [(0, 1)])
    assert apls(ROAD, aside).apls == 1
    assert apls(ROAD, aside, snap_m=3.99).apls == 0


def test_stored_length_of_an_unsplit_edge_counts():
    """A road of 30 m has no control point within, so the length that the file gives is kept."""
    line = np.array([(0.0, 0.0), (30.0, 0.0)])
    truth = RoadGraph(line, (Edge(0, 1, 30.0, line),))
    longer = RoadGraph(line, (Edge(0, 1, 36.0, line),))
    assert apls(truth, longer).truth_to_proposal.score == pytest.approx(1 - 6 / 30)


def test_impossible_parameters_are_refused():
    with pytest.raises(ValueError, match="snap_m must be a positive number"):
        apls(ROAD, ROAD, snap_m=0)


def test_worst_routes_show_the_gap():
    truth, proposal = WORKED["gap"][:2]
    worst = apls(truth, proposal, num_worst=3).truth_to_proposal.worst
    ends = {tuple(sorted((route.start, route.end))) for route in worst}
    assert worst[0].cost == 1
    assert len({point for pair in ends for point in pair}) == 2 * len(worst)


class SplitGraph:
    """Edges as (node, node, length, line), split one after another, as in the authors' program."""

    def __init__(self, graph: RoadGraph) -> None:
        self.edges = [
            (("node", e.start), ("node", e.end), e.length_m, shapely.LineString(e.line))
            for e in graph.edges
        ]
        self.attached = []

    def split(self, number: int, at_m: float, label: object) -> None:
        start, end, _, line = self.edges[number]
        parts = substring(line, 0, at_m), substring(line, at_m, line.length)
        self.edges[number : number + 1] = [
            (start, label, parts[0].length, parts[0]),
            (label, end, parts[1].length, parts[1]),
        ]

    def insert(self, point: np.ndarray, label: object, snap_m: float, displace: bool) -> None:
        point = shapely.Point(point)
        distances = [line.distance(point) for *_, line in self.edges]
        if not distances or min(distances) > snap_m:
            return
        number = int(np.argmin(distances))
        start, end, _, line = self.edges[number]
        at_m = line.project(point)
        at_start, at_end = at_m <= 1e-6, at_m >= line.length - 1e-6
        if not at_start and not at_end:
            self.split(number, at_m, label)
        elif displace:
            old = start if at_start else end
            self.edges = [
                (label if a == old else a, label if b == old else b, m, line)
                for a, b, m, line in self.edges
            ]
        else:
            self.attached.append((label, start if at_start else end))

    def distances(self) -> dict:
        network = nx.Graph()
        links = [edge[:3] for edge in self.edges] + [(a, b, 0.0) for a, b in self.attached]
        for a, b, length in links:
            known = network.get_edge_data(a, b, {"weight": math.inf})["weight"]
            network.add_edge(a, b, weight=min(known, length))
        return dict(nx.all_pairs_dijkstra_path_length(network))


def with_midpoints(graph, spacing_m):
    """The control points (label, x and y) of a graph, and the graph split at them."""
    points = [(("node", i), xy) for i, xy in enumerate(graph.nodes)]
    whole = SplitGraph(graph)
    unsplit, whole.edges = whole.edges, []
    for edge in unsplit:
        length, line = edge[2:]
        pieces = 1 if length < 0.75 * spacing_m else max(2, math.ceil(length / spacing_m))
        whole.edges.append(edge)
        for k in range(1, pieces):
            points.append(
                (("on", len(points)), line.interpolate(k * line.length / pieces).coords[0])
            )
            whole.split(len(whole.edges) - 1, line.length / pieces, points[-1][0])
    return points, whole


def restated_one_way(graph, other, displace, spacing_m=50, snap_m=4):
    points, whole = with_midpoints(graph, spacing_m)
    found = SplitGraph(other)
    for label, xy in points:
        found.insert(xy, ("control", label), snap_m, displace)
    here, there = whole.distances(), found.distances()
    costs = []
    for (a, _), (b, _) in itertools.permutations(points, 2):
        true_m = here.get(a, {}).get(b)
        if true_m is None:
            continue
        if ("control", a) not in there:
            costs.append(1)
        elif true_m >= 0.001:
            other_m = there[("control", a)].get(("control", b), math.inf)
            costs.append(min(1, abs(true_m - other_m) / true_m))
    return 1 - sum(costs) / len(costs) if costs and other.edges and graph.edges else 0


def random_graph(rng: np.random.Generator) -> RoadGraph:
    """A few nodes on a jittered lattice, edges with a bend, some parallel, some lengths off."""
    num = int(rng.integers(2, 8))
    cells = rng.choice(16, num, replace=False)
    nodes = np.stack([cells % 4, cells // 4], 1) * 30.0 + rng.uniform(-9, 9, (num, 2))
    edges = []
    for _ in range(rng.integers(1, 10)):
        a, b = rng.choice(num, 2, replace=False)
        bend = (nodes[a] + nodes[b]) / 2 + rng.uniform(-15, 15, 2)
        straight = rng.random() < 0.4 and all({a, b} != {e.start, e.end} for e in edges)
        line = np.array([nodes[a], nodes[b]] if straight else [nodes[a], bend, nodes[b]])
        drawn_m = shapely.LineString(line).length
        edges.append(Edge(int(a), int(b), drawn_m * rng.choice([1, 1, 1.1]), line))
    return RoadGraph(nodes, tuple(edges))


def disturbed(graph: RoadGraph, rng: np.random.Generator) -> RoadGraph:
    """The same roads less a few, moved by a few metres, or not at all."""
    moves = rng.normal(0, rng.choice([0, 1.5, 3]), graph.nodes.shape)
    nodes = graph.nodes + moves
    edges = []
    for edge in graph.edges:
        if rng.random() < 0.8:
            line = edge.line.copy()
            line[[0, -1]] = nodes[[edge.start, edge.end]]
            edges.append(edge._replace(line=line, length_m=shapely.LineString(line).length))
    return RoadGraph(nodes, tuple(edges))


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), displace=st.booleans())
def test_agrees_with_control_points_inserted_one_by_one(seed, displace):
    rng = np.random.default_rng(seed)
    truth = random_graph(rng)
    proposal = disturbed(truth, rng) if rng.random() < 0.8 else random_graph(rng)
    result = apls(truth, proposal, displace=displace)
    forth = restated_one_way(truth, proposal, displace)
    back = restated_one_way(proposal, truth, displace)
    assert result.truth_to_proposal.score == pytest.approx(forth, abs=1e-9)
    assert result.proposal_to_truth.score == pytest.approx(back, abs=1e-9)
    expected = 2 * forth * back / (forth + back) if forth and back else 0
    assert result.apls == pytest.approx(expected, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.5, 2.0, 7.0]))
def test_scale_changes_nothing_when_the_parameters_scale_too(seed, scale):
    rng = np.random.default_rng(seed)
    truth = random_graph(rng)
    proposal = disturbed(truth, rng)
    scaled = [
        RoadGraph(
            graph.nodes * scale,
            tuple(Edge(e.start, e.end, e.length_m * scale, e.line * scale) for e in graph.edges),
        )
        for graph in (truth, proposal)
    ]
    # 0.731 m: no control point is at the snap distance to the last digit.
    plain = apls(truth, proposal, spacing_m=47.31, snap_m=3.731, displace=False)
    parameters = {"spacing_m": 47.31 * scale, "snap_m": 3.731 * scale, "min_route_m": 0.001 * scale}
    assert apls(*scaled, **parameters, displace=False).apls == pytest.approx(plain.apls, abs=1e-6)
