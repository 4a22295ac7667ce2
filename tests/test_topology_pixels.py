"""clDice, Betti errors, relaxed and buffer scores against loops over pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import euler_number
from skimage.morphology import skeletonize

from utils.metric_names import main_value
from utils.topology.betti import betti_errors, betti_numbers
from utils.topology.buffer import buffer_counts
from utils.topology.cldice import cldice
from utils.topology.registry import (
    METRIC_FUNCTIONS,
    buffer_values,
    summarise,
)
from utils.topology.relaxed import RelaxedCurve, relaxed_counts

seeds = st.integers(0, 2**32 - 1)


def random_masks(seed, side=11):
    """Two masks, alike in part; now and then an empty one."""
    rng = np.random.default_rng(seed)
    first = rng.random((side, side)) < rng.choice([0, 0.1, 0.4, 0.7])
    changed = rng.random((side, side)) < rng.choice([0.05, 0.3, 1])
    second = np.where(changed, rng.random((side, side)) < rng.choice([0, 0.3]), first)
    return first, second


def pixels(mask):
    return [tuple(p) for p in np.argwhere(mask).tolist()]


def matched(mask, other, reach):
    return sum(any(math.dist(p, q) <= reach for q in pixels(other)) for p in pixels(mask))


def share(part, whole, both_empty):
    return part / whole if whole else float(both_empty)


def flood(mask, start, steps):
    seen, queue = {start}, [start]
    while queue:
        y, x = queue.pop()
        for dy, dx in steps:
            near = (y + dy, x + dx)
            inside = 0 <= near[0] < mask.shape[0] and 0 <= near[1] < mask.shape[1]
            if inside and mask[near] and near not in seen:
                seen.add(near)
                queue.append(near)
    return seen


def count_parts(mask, steps, touching_border=True):
    left, parts = set(pixels(mask)), 0
    while left:
        part = flood(mask, next(iter(left)), steps)
        left -= part
        edge = any(y in (0, mask.shape[0] - 1) or x in (0, mask.shape[1] - 1) for y, x in part)
        parts += touching_border or not edge
    return parts


FOUR = [(0, 1), (0, -1), (1, 0), (-1, 0)]
EIGHT = [*FOUR, (1, 1), (1, -1), (-1, 1), (-1, -1)]


@settings(max_examples=200, deadline=None)
@given(seed=seeds)
def test_betti_numbers_are_parts_and_enclosed_background(seed):
    mask, other = random_masks(seed)
    expected = count_parts(mask, EIGHT), count_parts(~mask, FOUR, touching_border=False)
    assert betti_numbers(mask) == expected
    assert expected[1] == expected[0] - euler_number(mask, connectivity=2)
    errors = betti_errors(other, mask, tile_px=6)
    assert errors["betti0_error"] == abs(count_parts(other, EIGHT) - expected[0])
    tiles = [(slice(y, y + 6), slice(x, x + 6)) for y in (0, 6) for x in (0, 6)]
    per_tile = [abs(count_parts(other[t], EIGHT) - count_parts(mask[t], EIGHT)) for t in tiles]
    assert errors["betti0_error_tiles"] == pytest.approx(np.mean(per_tile))


@settings(max_examples=200, deadline=None)
@given(seed=seeds, reach=st.sampled_from([0, 1, 1.5, 3]))
def test_relaxed_scores_are_shares_of_pixels_with_a_near_one(seed, reach):
    prediction, target = random_masks(seed)
    counts = relaxed_counts(prediction, target, reach)
    empty = not prediction.any() and not target.any()
    precision = share(matched(prediction, target, reach), prediction.sum(), empty)
    recall = share(matched(target, prediction, reach), target.sum(), empty)
    assert (counts.precision, counts.recall) == pytest.approx((precision, recall))
    both = precision + recall
    assert counts.f1 == pytest.approx(2 * precision * recall / both if both else 0)


@settings(max_examples=200, deadline=None)
@given(seed=seeds)
def test_curve_is_one_comparison_per_threshold(seed):
    rng = np.random.default_rng(seed)
    curve = RelaxedCurve((0.1, 0.3, 0.5, 0.9), rho_px=2)
    totals = [relaxed_counts(*np.zeros((2, 1, 1), bool))] * 4
    for _ in range(2):
        target = random_masks(int(rng.integers(2**32)))[0]
        probability = (rng.integers(0, 11, target.shape) / 10).astype(np.float32)
        curve.update(probability, target)
        for i, threshold in enumerate(curve.thresholds):
            totals[i] += relaxed_counts(probability >= np.float32(threshold), target, 2)
    assert curve.counts() == totals
    threshold, value = curve.break_even()
    precision, recall = np.array([(total.precision, total.recall) for total in totals]).T
    there = [np.interp(threshold, curve.thresholds, share) for share in (precision, recall)]
    assert value == pytest.approx(sum(there) / 2)
    ahead = precision - recall
    if any(a < 0 <= b and p for a, b, p in zip(ahead, ahead[1:], precision[1:], strict=False)):
        assert there[0] == pytest.approx(there[1])
    else:
        assert abs(there[0] - there[1]) == min(abs(ahead)[precision + recall > 0], default=0)


def test_break_even_lies_where_precision_meets_recall():
    """9 true pixels at 0.9, one at 0.2, and false ones at 0.3: a false one makes them equal."""
    target = np.zeros((1, 40), bool)
    target[0, :10] = True
    probability = np.zeros((1, 40), np.float32)
    probability[0, :9], probability[0, 9] = 0.9, 0.2
    probability[0, 30] = 0.3
    curve = RelaxedCurve(rho_px=0)
    curve.update(probability, target)
    threshold, value = curve.break_even()
    assert value == pytest.approx(0.9, abs=1e-6)
    assert 0.2 <= threshold <= 0.31
    both = curve + curve
    assert both.break_even()[1] == pytest.approx(value)
    assert both.counts()[0].true == 20


@settings(max_examples=200, deadline=None)
@given(seed=seeds, pixel_size_m=st.sampled_from([0.5, 1.0, 2.0]))
def test_buffer_scores_are_shares_of_skeleton_pixels(seed, pixel_size_m):
    prediction, target = random_masks(seed)
    values = buffer_values(buffer_counts(prediction, target, pixel_size_m))
    extraction, reference = skeletonize(prediction), skeletonize(target)
    reach = 3 / pixel_size_m
    empty = not extraction.any() and not reference.any()
    hits, found = matched(extraction, reference, reach), matched(reference, extraction, reach)
    lost = reference.sum() - found
    assert values["completeness"] == pytest.approx(share(found, reference.sum(), empty))
    assert values["correctness"] == pytest.approx(share(hits, extraction.sum(), empty))
    assert values["quality"] == pytest.approx(share(hits, extraction.sum() + lost, empty))


@settings(max_examples=200, deadline=None)
@given(seed=seeds)
def test_cldice_is_the_harmonic_mean_of_both_shares(seed):
    prediction, target = random_masks(seed)
    values = cldice(prediction, target)
    if not prediction.any() or not target.any():
        assert values["cldice"] == float(not prediction.any() and not target.any())
        return
    lines = pixels(skeletonize(prediction)), pixels(skeletonize(target))
    tprec = sum(target[p] for p in lines[0]) / len(lines[0])
    tsens = sum(prediction[p] for p in lines[1]) / len(lines[1])
    assert (values["cldice_tprec"], values["cldice_tsens"]) == pytest.approx((tprec, tsens))
    assert values["cldice"] == pytest.approx(2 * tprec * tsens / max(tprec + tsens, 1e-12))


def road(size=80, row=40):
    mask = np.zeros((size, size), np.uint8)
    mask[row - 3 : row + 4, 5:-5] = 1
    return mask


@pytest.mark.parametrize("name", METRIC_FUNCTIONS)
@pytest.mark.parametrize("prediction", ["probability", "mask"])
def test_registry_scores_the_truth_as_perfect(name, prediction):
    target = road()
    given_ = target * np.float32(0.7) if prediction == "probability" else target.astype(bool)
    values = METRIC_FUNCTIONS[name](given_, target, 1.0, 0.5)
    key, more_is_better = main_value(name)
    assert values[key] == (1 if more_is_better else 0)
    assert all(type(value) is float and math.isfinite(value) for value in values.values())


@pytest.mark.parametrize("name", METRIC_FUNCTIONS)
def test_pixels_without_data_are_left_out(name):
    target, prediction = road(), road()
    prediction[:40, 37:44] = 1  # a false road, from the edge down to the true one
    prediction[5:12, 55:75] = 1
    key, more_is_better = main_value(name)
    metric = METRIC_FUNCTIONS[name]
    assert metric(prediction, target, 1.0, 0.5)[key] != (1 if more_is_better else 0)
    target[:37] = 255
    assert metric(prediction, target, 1.0, 0.5)[key] == (1 if more_is_better else 0)


@pytest.mark.parametrize("name", METRIC_FUNCTIONS)
@pytest.mark.parametrize("empty", ["prediction", "target", "both"])
def test_empty_masks_have_a_defined_value(name, empty):
    nothing = np.zeros_like(road())
    prediction = nothing if empty != "target" else road()
    target = nothing if empty != "prediction" else road()
    key, more_is_better = main_value(name)
    value = METRIC_FUNCTIONS[name](prediction, target, 1.0, 0.5)[key]
    perfect = empty == "both" and name != "apls"
    assert value == (float(perfect) if more_is_better else float(not perfect))


def test_different_sizes_are_refused():
    with pytest.raises(ValueError, match="one size"):
        METRIC_FUNCTIONS["cldice"](road(80), road(64), 1.0, 0.5)


def test_summary_pools_counts_and_leaves_out_images_without_roads():
    nothing = np.zeros_like(road())
    pairs = [(road(), road()), (road(row=60), road()), (nothing, nothing)]
    rows = [
        METRIC_FUNCTIONS["apls"](*pair, 1.0, 0.5) | METRIC_FUNCTIONS["relaxed"](*pair, 1.0, 0.5)
        for pair in pairs
    ]
    overall = summarise(rows)
    assert overall["apls"] == pytest.approx(0.5)
    assert overall["apls_images_left_out"] == 1
    assert overall["relaxed_precision"] == pytest.approx(0.5)
    assert overall["relaxed_true_px"] == 2 * road().sum()
