"""Masks to graphs: junctions, spurs, rings, holes, joined gaps, places on the ground."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, label
from skimage.draw import disk, line
from skimage.morphology import skeletonize

from utils.topology.connect import JoinRule
from utils.topology.from_mask import mask_to_graph
from utils.topology.graph import check_graph
from utils.topology.skeleton import skeleton_lines


def road_mask(size, *segments, half_width=3):
    """Roads of 2 * half_width + 1 pixels between (x, y) pairs."""
    mask = np.zeros((size, size), dtype=bool)
    for (x0, y0), (x1, y1) in segments:
        for y, x in zip(*line(y0, x0, y1, x1), strict=True):
            mask[max(y - half_width, 0) : y + half_width + 1,
                 max(x - half_width, 0) : x + half_width + 1] = True  # fmt: skip
    return mask


def degrees(graph):
    return sorted(graph.degrees().tolist())


def test_crossing_roads_meet_in_one_node():
    graph = check_graph(
        mask_to_graph(road_mask(201, ((10, 100), (190, 100)), ((100, 10), (100, 190))))
    )
    assert degrees(graph) == [1, 1, 1, 1, 4]
    centre = graph.nodes[graph.degrees() == 4][0]
    assert np.abs(centre - 100.5).max() < 2
    assert graph.total_length_m == pytest.approx(360, abs=12)


def test_pixel_size_scales_the_graph():
    mask = road_mask(201, ((10, 100), (190, 100)))
    at_1_m, at_half_m = mask_to_graph(mask), mask_to_graph(mask, 0.5, simplify_m=0.5)
    assert at_half_m.total_length_m == pytest.approx(at_1_m.total_length_m / 2, rel=0.01)
    assert at_half_m.nodes[:, 1] == pytest.approx(50.25, abs=0.6)


def test_short_spurs_go_and_long_ones_stay():
    mask = road_mask(201, ((10, 100), (190, 100)), ((60, 100), (60, 112)), ((130, 100), (130, 140)))
    assert degrees(mask_to_graph(mask, min_spur_m=20)) == [1, 1, 1, 3]
    assert degrees(mask_to_graph(mask, min_spur_m=5)) == [1, 1, 1, 1, 3, 3]


def test_a_fork_at_the_end_keeps_its_longer_prong():
    mask = road_mask(
        121, ((10, 60), (90, 60)), ((90, 60), (96, 51)), ((90, 60), (98, 70)), half_width=0
    )
    graph = mask_to_graph(mask, min_spur_m=20)
    assert degrees(graph) == [1, 1]
    assert graph.nodes.max(axis=0) == pytest.approx((98.5, 70.5))


def test_ring_without_a_junction():
    mask = np.zeros((121, 121), dtype=bool)
    mask[disk((60, 60), 43)] = True
    mask[disk((60, 60), 37)] = False
    graph = check_graph(mask_to_graph(mask))
    assert degrees(graph) == [2, 2]
    assert graph.total_length_m == pytest.approx(2 * np.pi * 40, rel=0.03)


def test_small_holes_are_closed_and_blocks_are_not():
    mask = road_mask(121, ((10, 60), (110, 60)), half_width=5)
    mask[59:62, 50:53] = False
    assert degrees(mask_to_graph(mask)) == [1, 1]
    assert degrees(mask_to_graph(mask, max_hole_m2=0)) != [1, 1]


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (1, 40), (40, 1), (30, 30)])
@pytest.mark.parametrize("value", [False, True])
def test_plain_masks_give_sound_graphs(shape, value):
    check_graph(mask_to_graph(np.full(shape, value)))


def test_single_pixels_are_no_road():
    mask = np.zeros((20, 20), dtype=bool)
    mask[::4, ::4] = True
    assert mask_to_graph(mask).is_empty


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), smooth_px=st.sampled_from([1.5, 2.5, 4]))
def test_lines_run_over_the_skeleton_and_connect_what_it_connects(seed, smooth_px):
    noise = np.random.default_rng(seed).normal(size=(60, 60))
    mask = gaussian_filter(noise, smooth_px) > 0
    skeleton = skeletonize(mask)
    parts = label(skeleton, np.ones((3, 3)))[0]
    sizes = np.bincount(parts.ravel())
    lines = [shapely.linestrings(xy) for xy in skeleton_lines(skeleton)]
    y, x = np.nonzero(skeleton & (sizes[parts] > 1))
    drawn = shapely.union_all(lines)
    assert shapely.distance(shapely.points(x + 0.5, y + 0.5), drawn).max(initial=0) < 2.2
    graph = check_graph(mask_to_graph(mask, min_spur_m=0, max_hole_m2=0, simplify_m=0))
    network = nx.MultiGraph(graph.ends.tolist())
    assert nx.number_connected_components(network) == (sizes[1:] > 1).sum()


def gap_mask():
    return road_mask(201, ((10, 100), (90, 100)), ((106, 100), (190, 100)))


def test_gap_is_joined_only_when_asked_for():
    assert degrees(mask_to_graph(gap_mask())) == [1, 1, 1, 1]
    joined = check_graph(mask_to_graph(gap_mask(), join=JoinRule(join_m=20)))
    assert degrees(joined) == [1, 1]
    assert degrees(mask_to_graph(gap_mask(), join=JoinRule(join_m=8))) == [1, 1, 1, 1]


def test_only_ends_that_face_each_other_are_joined():
    beside = road_mask(201, ((10, 100), (90, 100)), ((10, 116), (90, 116)))
    assert degrees(mask_to_graph(beside, join=JoinRule(join_m=30))) == [1, 1, 1, 1]
    corner = road_mask(201, ((10, 100), (90, 100)), ((106, 100), (106, 190)))
    assert degrees(mask_to_graph(corner, join=JoinRule(join_m=30))) == [1, 1, 1, 1]


@pytest.mark.parametrize(("level", "ends"), [(0.4, [1, 1]), (0.1, [1, 1, 1, 1])])
def test_bridge_needs_its_probability(level, ends):
    mask = gap_mask()
    probability = np.where(mask, 0.9, level).astype(np.float32)
    rule = JoinRule(join_m=20, min_probability=0.55)
    assert degrees(mask_to_graph(mask, join=rule, probability=probability)) == ends


def test_settings_without_sense_are_refused():
    with pytest.raises(ValueError, match="needs a probability map"):
        mask_to_graph(gap_mask(), join=JoinRule(join_m=20, min_probability=0.5))
    with pytest.raises(ValueError, match="join_m must be"):
        JoinRule(join_m=0)
    with pytest.raises(ValueError, match="H x W bool"):
        mask_to_graph(np.zeros((3, 3), np.uint8))
    with pytest.raises(ValueError, match="pixel_size_m"):
        mask_to_graph(gap_mask(), 0)
    with pytest.raises(ValueError, match="together"):
        mask_to_graph(gap_mask(), crs="EPSG:32611")


def test_geographic_raster_is_measured_in_its_utm_zone():
    """A pixel of 3e-6 degrees at 36.2 north is 0.269 m wide and 0.333 m high."""
    mask = road_mask(401, ((20, 200), (380, 200)), half_width=6)
    transform = Affine(3e-6, 0, -115.17, 0, -3e-6, 36.24)
    graph = mask_to_graph(mask, transform=transform, crs="EPSG:4326")
    assert graph.crs == "EPSG:32611"
    width_m = 3e-6 * np.cos(np.radians(36.24)) * 111_412
    assert graph.total_length_m == pytest.approx(360 * width_m, rel=0.03)
