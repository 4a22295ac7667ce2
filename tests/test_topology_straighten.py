"""Straight roads drawn, thinned and straightened again, against the lines they were drawn from."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage.morphology import skeletonize

from utils.synthetic.scene import draw_scene
from utils.topology.apls import apls
from utils.topology.arms import Surface
from utils.topology.graph import RoadGraph, check_graph, graph_from_json
from utils.topology.skeleton import skeleton_lines
from utils.topology.sketch import RoadSketch
from utils.topology.straighten import straighten

SIDE = 200
MIDDLE = np.array([100.3, 99.6])


def rays(*angles_deg: float, length: float = 80, start: np.ndarray = MIDDLE) -> shapely.Geometry:
    angles = np.radians(angles_deg)
    ends = start + length * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return shapely.MultiLineString([[start, end] for end in ends])


def drawn(lines: shapely.Geometry, half_px: float, cap: str = "round") -> np.ndarray:
    road = shapely.buffer(lines, half_px, cap_style=cap)
    return rasterize([road], (SIDE, SIDE), transform=Affine.identity()) > 0


def surface(mask: np.ndarray, side_m: float = 1.0) -> Surface:
    def is_road(points: np.ndarray) -> np.ndarray:
        x, y = np.floor(points / side_m).astype(int).T
        return np.pad(mask, 100)[y + 100, x + 100]

    return Surface(side_m, is_road)


def graphs(mask: np.ndarray, half_px: float) -> tuple[RoadGraph, RoadGraph]:
    """As thinning leaves the network, and straightened."""
    sketch = RoadSketch()
    for line in skeleton_lines(skeletonize(mask)):
        sketch.add(line)
    sketch.merge_chains()
    sketch.drop_spurs(2.5 * half_px)
    straight = straighten(sketch, lambda _: half_px, surface(mask))
    return sketch.to_graph(), check_graph(straight.to_graph())


def off_px(graph: RoadGraph, truth: shapely.Geometry, within: shapely.Geometry) -> float:
    lines = shapely.intersection(graph.lines, within)
    points = shapely.points(shapely.get_coordinates(shapely.segmentize(lines, 0.5)))
    return shapely.distance(points, truth).max()


CROSSINGS = {
    "crossing": (3, 93, 183, 273),
    "slanting crossing": (20, 70, 200, 250),
    "T": (8, 188, 98),
    "Y": (10, 130, 250),
    "slip road": (0, 180, 50),
    "corner": (15, 95),
    "sharp corner": (5, 60),
}


@pytest.mark.parametrize("half_px", [3.0, 4.5, 8.0])
@pytest.mark.parametrize("angles_deg", CROSSINGS.values(), ids=CROSSINGS.keys())
def test_roads_meet_where_they_were_drawn_to(angles_deg, half_px):
    truth, num = rays(*angles_deg), len(angles_deg)
    thinned, straight = graphs(drawn(truth, half_px), half_px)
    around = shapely.Point(MIDDLE).buffer(50)  # ends are another matter
    after_px, before_px = (off_px(graph, truth, around) for graph in (straight, thinned))
    assert after_px < min(0.15 * half_px + 0.7, before_px + 0.1)
    gap_px = shapely.distance(shapely.Point(MIDDLE), shapely.union_all(straight.lines))
    assert gap_px < 0.1 * half_px + 0.8
    degrees = sorted(straight.degrees().tolist())
    assert degrees == [1] * num + [num] * (num > 2)


def test_junctions_that_are_two_stay_two():
    apart = np.array([14, 0])
    truth = shapely.union_all(
        [rays(0, 180), rays(90), rays(270, start=MIDDLE + apart)],
    )
    _, straight = graphs(drawn(truth, 5), 5)
    found = straight.nodes[straight.degrees() == 3]
    found = found[found[:, 0].argsort()]
    np.testing.assert_allclose(found, [MIDDLE, MIDDLE + apart], atol=1)


def test_curves_are_no_corners():
    truth = shapely.Point(MIDDLE).buffer(40, quad_segs=64).exterior
    thinned, straight = graphs(drawn(truth, 6), 6)
    assert len(straight.edges) == 2  # halves of a ring, cut where it pleases
    assert shapely.union_all(thinned.lines).equals(shapely.union_all(straight.lines))


def test_a_corner_is_not_carried_off_the_road():
    """The tip of a hairpin that is filled and cut off."""
    truth = rays(-14, 14, length=90, start=MIDDLE - (40, 0))
    mask = drawn(truth, 6)
    mask[:, :85] = False
    thinned, straight = graphs(mask, 6)
    assert shapely.bounds(thinned.lines)[:, 0].min() > 85
    assert 83 < shapely.bounds(straight.lines)[:, 0].min() < 95


@pytest.mark.parametrize("slant_deg", [12, 20, 30])
def test_an_end_lies_in_the_middle_of_its_road(slant_deg):
    truth = rays(slant_deg, length=150, start=np.array([-10.0, 60.0]))
    image = shapely.box(0, 0, SIDE, SIDE)
    thinned, straight = graphs(drawn(truth, 6, "flat"), 6)
    assert off_px(straight, truth, image) < 1.3 < 3 < off_px(thinned, truth, image)
    assert shapely.covers(image, straight.lines).all()


def test_streets_of_a_drawn_town_come_closer_to_the_truth():
    scene = draw_scene(6, 0, 512)
    truth, mask = graph_from_json(scene.graph), scene.label > 0
    half_px = distance_transform_edt(mask)[skeletonize(mask)].mean()
    drawn_lines = shapely.union_all(truth.lines)
    thinned, straight = graphs(mask, half_px)
    dense = [
        shapely.points(shapely.get_coordinates(shapely.segmentize(graph.lines, 0.5)))
        for graph in (thinned, straight)
    ]
    before, after = ((shapely.distance(points, drawn_lines) > 1).mean() for points in dense)
    assert after < 0.75 * before
    assert apls(truth, straight).apls > apls(truth, thinned).apls


@given(seed=st.integers(0, 2**32 - 1), smooth_px=st.sampled_from([1.5, 2.5, 4]))
@settings(max_examples=25, deadline=None)
def test_any_network_keeps_together_what_it_connects(seed, smooth_px):
    noise = np.random.default_rng(seed).normal(size=(70, 70))
    mask = gaussian_filter(noise, smooth_px) > 0
    thinned, straight = graphs(mask, smooth_px)
    parts = [
        nx.number_connected_components(nx.MultiGraph(graph.ends.tolist()))
        for graph in (thinned, straight)
    ]
    assert parts[0] == parts[1]
    if len(straight.edges):
        moved = shapely.hausdorff_distance(
            shapely.union_all(thinned.lines), shapely.union_all(straight.lines)
        )
        assert moved < 4.5 * smooth_px
