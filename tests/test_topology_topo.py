"""TOPO against a restatement that walks a graph of single samples with networkx."""

from __future__ import annotations

import math
from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.topology.graph import RoadGraph, graph_from_lines, straight_graph
from utils.topology.topo import topo

ROAD = straight_graph([(0, 0), (400, 0)], [(0, 1)])
EMPTY = straight_graph([], [])


def test_road_against_itself():
    result = topo(ROAD, ROAD)
    assert (result.precision, result.recall, result.f1) == (1, 1, 1)
    assert (result.num_starts, result.num_kept) == (7, 7)


def test_half_the_road():
    """Starts at 50, 100 ... 350 m; those at 250 and more have no place on the first 200 m."""
    result = topo(ROAD, straight_graph([(0, 0), (200, 0)], [(0, 1)]))
    assert (result.num_starts, result.num_kept) == (7, 4)
    assert result.precision == 1
    assert 0.25 < result.recall < 4 / 7


def test_direction_of_a_start_matters():
    across = straight_graph([(50, -100), (50, 100)], [(0, 1)])
    assert topo(ROAD, across).num_kept == 0


@pytest.mark.parametrize(
    ("truth", "proposal", "score"), [(EMPTY, EMPTY, 1), (ROAD, EMPTY, 0), (EMPTY, ROAD, 0)]
)
def test_empty_graphs(truth, proposal, score):
    assert topo(truth, proposal).f1 == score


def test_starts_that_share_a_proposed_road_compete():
    """Of two streets 16 m apart one is proposed, half-way between: all its starts are good, and
    all stay. With false streets along it none is good, and one of each two is dropped.
    """
    truth = straight_graph([(0, 0), (400, 0), (0, 16), (400, 16)], [(0, 1), (2, 3)])
    between = [(0, 8), (400, 8)]
    assert topo(truth, graph_from_lines([np.array(between, float)])).num_kept == 14
    combs = [[(x, 8), (x, 150)] for x in range(20, 400, 40)]
    stops = [(0, 8), *(line[0] for line in combs), (400, 8)]
    pieces = [*combs, *pairwise(stops)]
    result = topo(truth, graph_from_lines([np.array(line, float) for line in pieces]))
    assert (result.num_starts, result.num_kept) == (14, 7)
    assert result.recall <= 0.5


def chains(rng: np.random.Generator) -> RoadGraph:
    """A lattice with bends, whose nodes are ends or junctions and no mere passage."""
    nodes = np.array([(x, y) for y in range(2) for x in range(3)]) * 70.0
    nodes = nodes + rng.uniform(-12, 12, nodes.shape)
    links = [(i, i + 1) for i in range(6) if i % 3 < 2] + [(i, i + 3) for i in range(3)]
    links = [link for link in links if rng.random() < 0.75] or links
    lines = [[nodes[a], (nodes[a] + nodes[b]) / 2 + rng.uniform(-9, 9, 2), nodes[b]]
             for a, b in links]  # fmt: skip
    degree = np.bincount(np.ravel(links), minlength=6)
    lines += [[nodes[i], nodes[i] + rng.uniform(20, 40, 2) * rng.choice([-1, 1], 2)]
              for i in np.flatnonzero(degree == 2)]  # fmt: skip
    return graph_from_lines([np.array(line) for line in lines])


def moved(graph: RoadGraph, rng: np.random.Generator) -> RoadGraph:
    shift = rng.uniform(-5, 5, 2)
    kept = [edge.line + shift for edge in graph.edges if rng.random() < 0.8]
    degree = {}
    for line in kept:
        for point in (tuple(line[0]), tuple(line[-1])):
            degree[point] = degree.get(point, 0) + 1
    kept += [np.array([p, np.add(p, (25.3, -31.7))]) for p, count in degree.items() if count == 2]
    return graph_from_lines(kept)


def direction(line, at_m):
    a, b = (line.interpolate(min(max(at_m + d, 0), line.length)) for d in (-1e-3, 1e-3))
    return np.array([b.x - a.x, b.y - a.y]) / a.distance(b)


def sampled(graph, extra):
    """Every step of a graph as a node of its own, and `extra` places (label, edge, metres)."""
    network, samples = nx.Graph(), {}
    for number, edge in enumerate(graph.edges):
        line = shapely.LineString(edge.line)
        num = math.ceil(line.length / 5.5)
        stops = [(line.length * (k + 0.5) / num, ("step", number, k)) for k in range(num)]
        for at_m, label in stops:
            samples[label] = (np.array(line.interpolate(at_m).coords[0]), direction(line, at_m))
        stops += [(at_m, label) for label, e, at_m in extra if e == number]
        stops = [(0, edge.start), *sorted(stops, key=lambda s: s[0]), (line.length, edge.end)]
        for (here_m, here), (there_m, there) in pairwise(stops):
            length = there_m - here_m
            if network.has_edge(here, there):
                length = min(length, network[here][there]["weight"])
            network.add_edge(here, there, weight=length)
    return network, samples


def restated(truth, proposal):
    starts = []
    for number, edge in enumerate(truth.edges):
        length = shapely.LineString(edge.line).length
        if length >= 27.5:
            num = max(1, math.floor(length / 55))
            starts += [(number, length * (k + 1) / (num + 1)) for k in range(num)]
    matched = []
    for number, (edge, at_m) in enumerate(starts):
        line = shapely.LineString(truth.edges[edge].line)
        point, heading, best = line.interpolate(at_m), direction(line, at_m), None
        for e, other in enumerate(proposal.edges):
            before_m = 0
            for a, b in pairwise(other.line):
                piece = shapely.LineString([a, b])
                away_m, turn = piece.distance(point), 1 - abs(heading @ (b - a)) / piece.length
                if away_m < 11 and turn < 0.04 and (best is None or away_m < best[0]):
                    best = (away_m, e, before_m + piece.project(point))
                before_m += piece.length
        if best:
            matched.append(
                (number, (("start", number), edge, at_m), (("start", number), *best[1:]))
            )
    here, holes = sampled(truth, [m[1] for m in matched])
    there, marbles = sampled(proposal, [m[2] for m in matched])
    scored = []
    for number, *_ in matched:
        near_holes = [s for s in nx.single_source_dijkstra_path_length(here, ("start", number), 167)
                      if s in holes]  # fmt: skip
        near_marbles = [s for s in nx.single_source_dijkstra_path_length(
            there, ("start", number), 167) if s in marbles]  # fmt: skip
        (p, u), (q, v) = (
            tuple(np.array(part) for part in zip(*(samples[s] for s in near), strict=True))
            for samples, near in ((holes, near_holes), (marbles, near_marbles))
        )
        close = np.hypot(*(p[:, None] - q[None]).T).T < 11
        alike = np.argwhere(close & (1 - np.abs(u @ v.T) < 0.29))
        pairs = nx.Graph((("hole", i), ("marble", j)) for i, j in alike.tolist())
        top = [node for node in pairs if node[0] == "hole"]
        num = len(nx.bipartite.maximum_matching(pairs, top)) // 2
        scored.append((num / len(near_marbles), num / len(near_holes), ("start", number)))
    kept, rivalled = [], set()
    for precision, recall, label in sorted(scored, key=lambda s: -s[0]):
        if label in rivalled and precision < 0.9:
            continue
        kept.append((precision, recall))
        near = nx.single_source_dijkstra_path_length(there, label, 22)
        rivalled |= {other for other in near if near[other] < 22}
    if not kept:
        return 0, 0
    precision, recall = np.mean(kept, axis=0)
    return precision, recall * len(kept) / len(starts)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_agrees_with_a_walk_from_sample_to_sample(seed):
    rng = np.random.default_rng(seed)
    truth = chains(rng)
    proposal = moved(truth, rng)
    result = topo(truth, proposal)
    assert (result.precision, result.recall) == pytest.approx(restated(truth, proposal), abs=1e-9)
