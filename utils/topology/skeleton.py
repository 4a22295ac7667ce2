"""A skeleton image as polylines between its ends and junctions.

scikit-image gives the graph of pixels; only the walk along it is written here. Packages that do
it all compile themselves for seconds in every process that imports them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from skimage.graph import pixel_graph

#: A way from a junction back to itself over so few pixels is the corner of a staircase.
CORNER_PX = 2


def skeleton_lines(skeleton: np.ndarray) -> list[np.ndarray]:
    """Polylines (K x 2: x, y of pixel centres) of a skeleton (bool H x W), each pixel on one.

    A junction may be several pixels that touch; their mean becomes the end of all its lines.
    Rings begin and end at one of their pixels. Single pixels are no line.
    """
    if skeleton.sum() < 2:
        return []
    graph, flat = pixel_graph(skeleton, connectivity=2)
    graph = _without_shortcuts(graph)
    y, x = np.unravel_index(flat, skeleton.shape)
    points = np.stack([x, y], axis=1) + 0.5
    neighbours = [part.tolist() for part in np.split(graph.indices, graph.indptr[1:-1])]
    degree = np.diff(graph.indptr)
    junction = np.flatnonzero(degree > 2)
    cluster = np.full(len(flat), -1)
    _, cluster[junction] = connected_components(graph[junction][:, junction])
    members = cluster[junction]
    sums = [np.bincount(members, weights=axis) for axis in points[junction].T]
    centres = np.stack(sums, axis=1) / np.bincount(members)[:, None]
    lines = []
    for path in _paths(neighbours, cluster.tolist()):
        line = points[path]
        for place in (0, -1):
            if cluster[path[place]] >= 0:
                line[place] = centres[cluster[path[place]]]
        lines.append(line)
    return lines


def _without_shortcuts(graph: csr_matrix) -> csr_matrix:
    """The pixel graph without the links by which touching junction pixels form triangles.

    Around a junction, and along some stairs, a pixel touches its neighbour's neighbour, too. Of
    the links between such pixels those of a minimum spanning tree stay. Of equally long links the
    one that comes first row by row is preferred, so that every cut of a scene that shows the
    junction whole gives the same tree.
    """
    graph.sort_indices()
    junction = np.diff(graph.indptr) > 2
    links = graph.tocoo()
    among = junction[links.row] & junction[links.col]
    row, column = links.row[among], links.col[among]
    ends = np.minimum(row, column) * np.int64(graph.shape[0]) + np.maximum(row, column)
    place = np.unique(ends, return_inverse=True)[1]
    later = 1 + 0.1 * place / max(len(place), 1)  # 1.1 is still shorter than a diagonal
    within = csr_matrix((links.data[among] * later, (row, column)), shape=graph.shape)
    shape = csr_matrix((np.ones(len(row)), (row, column)), shape=graph.shape)
    tree = minimum_spanning_tree(within).astype(bool).astype(float)
    kept = graph - graph.multiply(shape) + (tree + tree.T)
    kept.eliminate_zeros()
    kept.sort_indices()
    return kept


def _paths(neighbours: list[list[int]], cluster: list[int]) -> Iterator[list[int]]:
    """Pixel numbers along each line; of every line once, of a ring its first pixel twice."""
    passed = [False] * len(neighbours)
    for start, around in enumerate(neighbours):
        if len(around) == 2:
            continue
        for step in around:
            within = cluster[start] >= 0 and cluster[start] == cluster[step]
            if within or passed[step] or (len(neighbours[step]) != 2 and step < start):
                continue
            path = _walk([start, step], neighbours, passed)
            closed = cluster[start] >= 0 and cluster[start] == cluster[path[-1]]
            if not closed or len(path) - 2 > CORNER_PX:
                yield path
    for start, around in enumerate(neighbours):
        if len(around) == 2 and not passed[start]:
            passed[start] = True
            yield _walk([start, around[0]], neighbours, passed, home=start)


def _walk(
    path: list[int], neighbours: list[list[int]], passed: list[bool], home: int | None = None
) -> list[int]:
    """Follow a path over pixels with two neighbours to an end, a junction, or `home`."""
    while len(neighbours[path[-1]]) == 2 and path[-1] != home:
        passed[path[-1]] = True
        before, ahead = neighbours[path[-1]]
        path.append(ahead if before == path[-2] else before)
    return path
