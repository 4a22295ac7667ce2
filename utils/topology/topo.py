"""TOPO: what can be reached on foot from places on both graphs, compared.

Biagioni and Eriksson: Inferring road maps from global positioning system traces, 2012; the
parameters are those of SAM-Road's SpaceNet evaluation (Hetang et al., arXiv 2403.16051).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import KDTree

from utils.topology.distances import Network, Places, points_of
from utils.topology.graph import RoadGraph
from utils.topology.sketch import chain_graph


@dataclass(frozen=True)
class TOPORule:
    """The parameters; a difference of directions is 1 - |cos| of the angle between them."""

    start_spacing_m: float = 55.0
    start_reach_m: float = 11.0
    start_turn: float = 0.04
    walk_m: float = 167.0
    step_m: float = 5.5
    match_m: float = 11.0
    match_turn: float = 0.29
    rival_m: float = 22.0
    rival_precision: float = 0.9


@dataclass(frozen=True)
class TOPOResult:
    """Scores, the number of starts on the truth, and of those that counted."""

    precision: float
    recall: float
    f1: float
    num_starts: int
    num_kept: int


@dataclass(frozen=True)
class _Walk:
    """A graph sampled every few metres: places, points (M x 2), unit directions (M x 2)."""

    network: Network
    places: Places
    points: np.ndarray
    directions: np.ndarray


def topo(truth: RoadGraph, proposal: RoadGraph, rule: TOPORule | None = None) -> TOPOResult:
    """TOPO precision, recall and F1 of a proposed graph.

    Starts lie on each chain of the truth (a road between ends and junctions; a ring counts as
    two), n = max(1, floor(length / spacing)) of them in n + 1 equal pieces; chains shorter than
    half the spacing have none. Both graphs are sampled at the middles of equal steps of at most
    `step_m`. Without a start the scores are 1 when both graphs are empty, else 0.
    """
    rule = rule or TOPORule()
    truth, proposal = chain_graph(truth), chain_graph(proposal)
    starts = _starts(truth, rule)
    if not len(starts[0]) or proposal.is_empty:
        score = float(truth.is_empty and proposal.is_empty)
        return TOPOResult(score, score, score, len(starts[0]), 0)
    matched, proposal_places = _matched_starts(truth, proposal, *starts, rule)
    if not len(matched):
        return TOPOResult(0.0, 0.0, 0.0, len(starts[0]), 0)
    truth_places = Places.on_edges(truth, starts[0][matched], starts[1][matched])
    walks = _walk(truth, rule), _walk(proposal, rule)
    precision, recall = _compare(*walks, truth_places, proposal_places, rule)
    kept = _without_rivals(precision, walks[1].network, proposal_places, rule)
    share = len(kept) / len(starts[0])
    p, r = float(precision[kept].mean()), float(recall[kept].mean()) * share
    return TOPOResult(p, r, 2 * p * r / (p + r) if p + r else 0.0, len(starts[0]), len(kept))


def _starts(truth: RoadGraph, rule: TOPORule) -> tuple[np.ndarray, np.ndarray]:
    """The start points on the truth: edges, and metres along them."""
    edges, along_m = [], []
    for edge, length_m in enumerate(truth.line_lengths_m):
        if length_m >= rule.start_spacing_m / 2:
            num = max(1, int(length_m / rule.start_spacing_m))
            edges += [edge] * num
            along_m += [length_m * (k + 1) / (num + 1) for k in range(num)]
    return np.array(edges, dtype=int), np.array(along_m)


def _matched_starts(
    truth: RoadGraph, proposal: RoadGraph, edge: np.ndarray, along_m: np.ndarray, rule: TOPORule
) -> tuple[np.ndarray, Places]:
    """The starts that have a place in the proposal, and those places.

    It is on the nearest segment of the proposal among those of nearly the same direction.
    """
    points = points_of(truth, edge, along_m)
    directions = _directions(truth, edge, along_m)
    begin, vector, owner, before_m = _segments(proposal)
    tree = shapely.STRtree(shapely.linestrings(np.stack([begin, begin + vector], 1)))
    start, segment = tree.query(
        shapely.points(points), predicate="dwithin", distance=rule.start_reach_m
    )
    length_m = np.hypot(*vector[segment].T)
    offset = points[start] - begin[segment]
    on_m = np.clip((offset * vector[segment]).sum(1) / length_m, 0, length_m)
    away_m = np.hypot(*(offset - vector[segment] * (on_m / length_m)[:, None]).T)
    turn = 1 - np.abs((directions[start] * vector[segment]).sum(1)) / length_m
    fits = np.flatnonzero((away_m < rule.start_reach_m) & (turn < rule.start_turn))
    order = fits[np.lexsort((segment[fits], away_m[fits], start[fits]))]
    matched, first = np.unique(start[order], return_index=True)
    chosen = order[first]
    owners, along = owner[segment[chosen]], before_m[segment[chosen]] + on_m[chosen]
    return matched, Places.on_edges(proposal, owners, along)


def _segments(graph: RoadGraph) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Every straight piece: its begin, vector, edge, and metres from the edge's start to it."""
    begin = np.concatenate([edge.line[:-1] for edge in graph.edges])
    vectors = [np.diff(edge.line, axis=0) for edge in graph.edges]
    lengths = [np.hypot(*vector.T) for vector in vectors]
    before_m = np.concatenate([np.cumsum(length) - length for length in lengths])
    owner = np.repeat(np.arange(len(graph.edges)), [len(vector) for vector in vectors])
    vector = np.concatenate(vectors)
    drawn = np.hypot(*vector.T) > 0
    return begin[drawn], vector[drawn], owner[drawn], before_m[drawn]


def _directions(graph: RoadGraph, edge: np.ndarray, along_m: np.ndarray) -> np.ndarray:
    """Unit vectors along the edges at places on them; at a bend half-way between both sides."""
    nudge_m = 1e-3
    before = points_of(graph, edge, np.maximum(along_m - nudge_m, 0))
    after = points_of(graph, edge, np.minimum(along_m + nudge_m, graph.line_lengths_m[edge]))
    vector = after - before
    return vector / np.maximum(np.hypot(*vector.T), 1e-12)[:, None]


def _walk(graph: RoadGraph, rule: TOPORule) -> _Walk:
    num = np.ceil(graph.line_lengths_m / rule.step_m).astype(int)
    edge = np.repeat(np.arange(len(num)), num)
    ordinal = np.concatenate([np.arange(n) + 0.5 for n in num])
    along_m = graph.line_lengths_m[edge] * ordinal / num[edge]
    return _Walk(
        Network(graph),
        Places.on_edges(graph, edge, along_m),
        points_of(graph, edge, along_m),
        _directions(graph, edge, along_m),
    )


def _compare(
    truth: _Walk, proposal: _Walk, at_truth: Places, at_proposal: Places, rule: TOPORule
) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall of each start: samples within the walk, matched one to one."""
    alike = _alike(truth, proposal, rule)
    precision, recall = np.zeros(len(at_truth)), np.zeros(len(at_truth))
    for first in range(0, len(at_truth), 128):
        rows = slice(first, first + 128)
        holes = truth.network.between(at_truth[rows], truth.places, rule.walk_m)
        marbles = proposal.network.between(at_proposal[rows], proposal.places, rule.walk_m)
        pairs = zip(holes <= rule.walk_m, marbles <= rule.walk_m, strict=True)
        for start, (hole, marble) in enumerate(pairs, first):
            matches = maximum_bipartite_matching(alike[hole][:, marble])
            num_matched = int((matches >= 0).sum())
            precision[start] = num_matched / int(marble.sum())
            recall[start] = num_matched / int(hole.sum())
    return precision, recall


def _alike(truth: _Walk, proposal: _Walk, rule: TOPORule) -> csr_array:
    """Which samples of the truth (rows) and of the proposal (columns) may be matched."""
    near = KDTree(truth.points).sparse_distance_matrix(
        KDTree(proposal.points), rule.match_m, output_type="coo_matrix"
    )
    row, column = near.row, near.col
    turn = 1 - np.abs((truth.directions[row] * proposal.directions[column]).sum(1))
    fits = (near.data < rule.match_m) & (turn < rule.match_turn)
    ones = np.ones(int(fits.sum()), dtype=np.int8)
    shape = len(truth.points), len(proposal.points)
    return csr_array((ones, (row[fits], column[fits])), shape=shape)


def _without_rivals(
    precision: np.ndarray, network: Network, places: Places, rule: TOPORule
) -> np.ndarray:
    """The starts that count: near a better one, only those that are good themselves."""
    apart_m = network.between(places, places, math.nextafter(rule.rival_m, math.inf))
    rivalled = np.zeros(len(precision), dtype=bool)
    kept = []
    for start in np.argsort(-precision, kind="stable"):
        if rivalled[start] and precision[start] < rule.rival_precision:
            continue
        kept.append(start)
        rivalled |= apart_m[start] < rule.rival_m
    return np.array(kept)
