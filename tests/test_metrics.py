"""Pixel metrics against torchmetrics and against counting by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from torchmetrics.functional import classification as reference

from utils.metrics import DEFAULT_THRESHOLDS, PixelCounts, ThresholdCounts, iou_per_image

SHAPES = st_numpy.array_shapes(min_dims=1, max_dims=3, max_side=6)
TARGETS = st_numpy.arrays(np.uint8, SHAPES, elements=st.sampled_from([0, 0, 1, 1, 255]))
THRESHOLDS = [0.02, 0.3, 0.5, 0.7, 0.9]
NUMBERS = st.integers(0, 10**13)
COUNTS = st.builds(PixelCounts, NUMBERS, NUMBERS, NUMBERS, NUMBERS)


@st.composite
def masks(draw):
    target = draw(TARGETS)
    return draw(st_numpy.arrays(bool, target.shape)), target


@st.composite
def probability_maps(draw, dtype=np.float32):
    """Probabilities, many of them exactly a threshold or its neighbour."""
    target = draw(TARGETS)
    edges = [dtype(t) for t in THRESHOLDS]
    near = edges + [np.nextafter(e, dtype(0)) for e in edges] + [dtype(0), dtype(1)]
    width = 32 if dtype is np.float32 else 64
    elements = st.one_of(st.sampled_from(near), st.floats(0, 1, width=width))
    return draw(st_numpy.arrays(dtype, target.shape, elements=elements)), target


def count_by_hand(prediction, target):
    pairs = list(zip(prediction.ravel().tolist(), target.ravel().tolist(), strict=True))
    return PixelCounts(*(pairs.count(pair) for pair in [(1, 1), (1, 0), (0, 1), (0, 0)]))


@given(masks())
def test_counts_are_those_by_hand_for_every_kind_of_array(pair):
    prediction, target = pair
    expected = count_by_hand(prediction, target)
    assert PixelCounts.from_masks(prediction, target) == expected
    assert PixelCounts.from_masks(prediction.astype(np.uint8) * 255, target) == expected
    tensors = torch.from_numpy(prediction), torch.from_numpy(target)
    assert PixelCounts.from_masks(*tensors) == expected
    assert PixelCounts.from_masks(tensors[0].to(torch.uint8), tensors[1]) == expected
    assert type(PixelCounts.from_masks(*tensors).tp) is int


@settings(deadline=None)
@given(masks())
def test_metrics_are_those_of_torchmetrics(pair):
    prediction, target = pair
    counts = PixelCounts.from_masks(prediction, target)
    p, t = torch.from_numpy(prediction.astype(int)), torch.from_numpy(target.astype(int))
    metrics = counts.metrics()
    references = {  # where the denominator is not 0: the rule for 0/0 is tested below
        "precision": (reference.binary_precision, counts.tp + counts.fp),
        "recall": (reference.binary_recall, counts.tp + counts.fn),
        "f1": (reference.binary_f1_score, counts.tp + counts.fp + counts.fn),
        "iou": (reference.binary_jaccard_index, counts.tp + counts.fp + counts.fn),
        "accuracy": (reference.binary_accuracy, sum(vars(counts).values())),
    }
    assert set(metrics) == {*references, "mean_iou"}
    for name, (function, denominator) in references.items():
        if denominator:
            expected = float(function(p, t, ignore_index=255))
            assert metrics[name] == pytest.approx(expected, rel=1e-6), name
    swapped = PixelCounts.from_masks(~prediction, np.where(target == 255, 255, 1 - target))
    assert metrics["mean_iou"] == (metrics["iou"] + swapped.metrics()["iou"]) / 2


@given(COUNTS)
def test_iou_and_f1_agree_and_all_lies_in_the_unit_interval(counts):
    metrics = counts.metrics()
    assert math.isclose(metrics["iou"], metrics["f1"] / (2 - metrics["f1"]), rel_tol=1e-9)
    assert all(0 <= value <= 1 for value in metrics.values())


@pytest.mark.parametrize(
    "counts, expected",
    [  # precision, recall, f1, iou, accuracy, mean_iou
        (PixelCounts(), (1, 1, 1, 1, 1, 1)),
        (PixelCounts(tn=9), (1, 1, 1, 1, 1, 1)),
        (PixelCounts(tp=9), (1, 1, 1, 1, 1, 1)),
        (PixelCounts(fn=4), (0, 0, 0, 0, 0, 0)),
        (PixelCounts(fp=4), (0, 0, 0, 0, 0, 0)),
        (PixelCounts(fn=4, tn=12), (0, 0, 0, 0, 0.75, 0.375)),
        (PixelCounts(fp=4, tn=12), (0, 0, 0, 0, 0.75, 0.375)),
    ],
)
def test_empty_masks(counts, expected):
    assert tuple(counts.metrics().values()) == expected


@given(masks(), masks())
def test_counts_add_up_over_images_and_ranks(first, second):
    a, b = PixelCounts.from_masks(*first), PixelCounts.from_masks(*second)
    joint = [np.concatenate([x.ravel(), y.ravel()]) for x, y in zip(first, second, strict=True)]
    assert a + b == sum([a, b], PixelCounts()) == PixelCounts.from_masks(*joint)


@given(COUNTS, COUNTS)
def test_counts_travel_as_tensors(a, b):
    assert PixelCounts.from_tensor(a.to_tensor() + b.to_tensor()) == a + b


def test_wrong_masks_are_refused():
    mask = np.zeros((4, 4), np.uint8)
    with pytest.raises(ValueError, match="differ in shape"):
        PixelCounts.from_masks(mask, mask[:, :1])
    with pytest.raises(ValueError, match="must hold 0"):
        PixelCounts.from_masks(mask, mask + 2)
    with pytest.raises(ValueError, match="must hold 0"):
        ThresholdCounts().update(mask.astype(float), mask + 2)
    with pytest.raises(ValueError, match="differ in shape"):
        ThresholdCounts().update(mask.astype(float), mask[:1])


def test_iou_per_image_is_the_mean_over_images_with_data():
    images = [PixelCounts(tp=1, fp=1), PixelCounts(tp=3, fn=1, tn=5), PixelCounts(tn=7)]
    assert iou_per_image(images) == pytest.approx((0.5 + 0.75 + 1) / 3)
    assert iou_per_image([*images, PixelCounts()]) == iou_per_image(images)
    assert iou_per_image([]) == 1


# Thresholds


def sweep(probability, target, thresholds=THRESHOLDS):
    counts = ThresholdCounts(thresholds)
    counts.update(probability, target)
    return counts


@given(probability_maps())
def test_a_sweep_counts_what_each_comparison_counts(pair):
    probability, target = pair
    expected = [PixelCounts.from_masks(probability >= t, target) for t in THRESHOLDS]
    assert sweep(probability, target).counts() == expected
    tensors = torch.from_numpy(probability), torch.from_numpy(target)
    assert [PixelCounts.from_masks(tensors[0] >= t, tensors[1]) for t in THRESHOLDS] == expected
    assert sweep(*tensors).counts() == expected


@given(probability_maps(np.float64))
def test_a_sweep_is_exact_in_double_precision(pair):
    probability, target = pair
    expected = [PixelCounts.from_masks(probability >= t, target) for t in THRESHOLDS]
    assert sweep(probability, target).counts() == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_sweep_of_half_precision(dtype):
    generator = torch.Generator().manual_seed(0)
    probability = torch.rand(40, 40, generator=generator).to(dtype)
    target = torch.randint(0, 2, (40, 40), generator=generator, dtype=torch.uint8)
    expected = [PixelCounts.from_masks(probability >= t, target) for t in THRESHOLDS]
    assert sweep(probability, target).counts() == expected


@given(probability_maps(), probability_maps())
def test_sweeps_add_up_over_images_and_ranks(first, second):
    a, b = sweep(*first), sweep(*second)
    both = sweep(*first)
    both.update(*second)
    assert (a + b).counts() == both.counts()
    travelled = ThresholdCounts.from_tensor(a.to_tensor() + b.to_tensor(), THRESHOLDS)
    assert travelled.counts() == both.counts()
    expected = [x + y for x, y in zip(a.counts(), b.counts(), strict=True)]
    assert both.counts() == expected


@given(probability_maps())
def test_the_best_threshold_is_no_worse_than_any_and_nearest_to_one_half(pair):
    probability, target = pair
    counts = sweep(probability, target)
    for metric in ("iou", "f1", "accuracy"):
        scores = {
            t: PixelCounts.from_masks(probability >= t, target).metrics()[metric]
            for t in THRESHOLDS
        }
        threshold, value = counts.best(metric)
        assert value == scores[threshold] == max(scores.values())
        ties = [t for t, score in scores.items() if score == value]
        assert abs(threshold - 0.5) == min(abs(t - 0.5) for t in ties)
    assert counts.best("iou")[0] == counts.best("f1")[0]


def test_nothing_counted_has_the_default_threshold():
    assert ThresholdCounts().best("iou") == (0.5, 1.0)
    assert sweep(np.zeros(0, np.float32), np.zeros(0, np.uint8)).best("f1") == (0.5, 1.0)


def test_the_default_thresholds_ascend_and_hold_one_half():
    assert list(DEFAULT_THRESHOLDS) == sorted(set(DEFAULT_THRESHOLDS))
    assert 0.5 in DEFAULT_THRESHOLDS and 0 < DEFAULT_THRESHOLDS[0] < DEFAULT_THRESHOLDS[-1] < 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_probabilities_that_are_no_numbers_are_refused_but_where_ignored(bad, convert):
    probability = np.array([0.2, bad, 0.8], np.float32)
    target = np.array([0, 255, 1], np.uint8)
    assert sweep(convert(probability), convert(target)).counts()[2] == PixelCounts(tp=1, tn=1)
    target[1] = 1
    with pytest.raises(ValueError, match="NaN or infinity"):
        sweep(convert(probability), convert(target))


@pytest.mark.parametrize("thresholds", [[], [0.0, 0.5], [0.5, 1.0], [math.nan]])
def test_thresholds_out_of_range_are_refused(thresholds):
    with pytest.raises(ValueError, match="between 0 and 1"):
        ThresholdCounts(thresholds)
