"""Is a model better than another on these images, or were the images kind to it?

Paired bootstrap over images (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993): the
same images, drawn with replacement, score both models; the differences that come out show how far
the difference depends on which images happen to be in the split. A model's score is the mean over
its seeds, all of which see the same draw: seeds are not drawn, so nothing is said about others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from utils.metrics import PixelCounts

RESAMPLES = 10_000
CONFIDENCE = 0.95
COUNTS = ("tp", "fp", "fn", "tn")
#: Topology metrics of summed counts, by the end of the counts' names and the start.
SUMMED = ("relaxed", "buffer")

Rows = Sequence[Mapping[str, Any]]


class Difference(NamedTuple):
    """A model's metric minus the baseline's."""

    model: str
    metric: str
    difference: float
    low: float  # of the confidence interval, by percentiles
    high: float
    p: float  # two-sided
    p_holm: float  # over the models that are compared with the baseline by this metric


def paired_differences(
    images: Mapping[str, Sequence[Rows]],
    metrics: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Difference]:
    """Every other model against the first, by every metric.

    `images` holds for each model the image rows of each seed, the same images in the same order.
    """
    num_images = len(next(iter(images.values()))[0])
    draws = draw_images(num_images, resamples, seed)
    whole = np.ones((1, num_images), np.int64)
    scores = {
        model: {key: np.mean(values, axis=0) for key, values in _by_metric(runs, metrics, draws)}
        for model, runs in images.items()
    }
    observed = {
        model: {key: np.mean(values) for key, values in _by_metric(runs, metrics, whole)}
        for model, runs in images.items()
    }
    baseline, *others = images
    found = []
    for metric in metrics:
        family = []
        for model in others:
            drawn = scores[model][metric] - scores[baseline][metric]
            low, high = np.percentile(drawn, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
            difference = observed[model][metric] - observed[baseline][metric]
            numbers = (float(x) for x in (difference, low, high))
            family.append((model, metric, *numbers, two_sided_p(drawn)))
        adjusted = holm([entry[-1] for entry in family])
        found += [Difference(*entry, p) for entry, p in zip(family, adjusted, strict=True)]
    return found


def draw_images(num_images: int, resamples: int, seed: int) -> np.ndarray:
    """How often each image is in each draw with replacement: (resamples, num_images) int64."""
    rng = np.random.default_rng(seed)
    chosen = rng.integers(num_images, size=(resamples, num_images))
    counts = np.zeros((resamples, num_images), np.int64)
    np.add.at(counts, (np.arange(resamples)[:, None], chosen), 1)
    return counts


def metrics_of_draws(
    images: Rows, metrics: Sequence[str], draws: np.ndarray
) -> dict[str, np.ndarray]:
    """Each metric's value in each draw (draws: how often each image is in it): (num_draws,).

    Formed as over a split: counts are summed, and the rest is a mean over the images with a valid
    pixel, for APLS over those whose truth has roads.
    """
    sums = draws @ _columns(images, COUNTS)
    of_pixels = [PixelCounts(*map(int, row)).metrics() for row in sums]
    of_counts = _of_summed_counts(images, metrics, draws)
    found = {}
    for metric in metrics:
        if metric in of_pixels[0]:
            found[metric] = np.array([values[metric] for values in of_pixels])
        elif metric in of_counts:
            found[metric] = of_counts[metric]
        else:
            found[metric] = _mean_over_images(images, metric, draws)
    return found


def two_sided_p(drawn: np.ndarray) -> float:
    """How seldom the difference falls on its rarer side of zero, doubled."""
    rarer = min(np.sum(drawn <= 0), np.sum(drawn >= 0))
    return float(min(1.0, 2 * (rarer + 1) / (len(drawn) + 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Scandinavian Journal of Statistics 6, 1979)."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = highest
    return adjusted


def _by_metric(
    runs: Sequence[Rows], metrics: Sequence[str], draws: np.ndarray
) -> list[tuple[str, list[np.ndarray]]]:
    """Pairs of a metric and its values: (num_draws,) for each seed."""
    of_runs = [metrics_of_draws(rows, metrics, draws) for rows in runs]
    return [(metric, [values[metric] for values in of_runs]) for metric in metrics]


def _of_summed_counts(
    images: Rows, metrics: Sequence[str], draws: np.ndarray
) -> dict[str, np.ndarray]:
    keys = [
        key for key in images[0]
        if key.endswith("_px") and key.partition("_")[0] in SUMMED
    ]  # fmt: skip
    if not keys:
        return {}
    from utils.topology.registry import summarise  # seconds that others need not wait

    sums = draws @ _columns(images, keys)
    rows = [summarise([dict(zip(keys, map(float, row), strict=True))]) for row in sums]
    wanted = [metric for metric in metrics if metric in rows[0] and metric not in keys]
    return {metric: np.array([row[metric] for row in rows]) for metric in wanted}


def _mean_over_images(images: Rows, metric: str, draws: np.ndarray) -> np.ndarray:
    key = "iou" if metric == "iou_per_image" else metric
    counted = _columns(images, COUNTS).any(axis=1)
    if metric.startswith("apls"):
        counted &= [not row.get("apls_truth_empty") for row in images]
    if_none = 1.0 if metric == "iou_per_image" else 0.0
    values = np.array([float(row[key] or 0) for row in images])
    weights = draws * counted
    total = weights.sum(axis=1)
    means = (weights @ values) / np.maximum(total, 1)
    return np.where(total > 0, means, if_none)


def _columns(images: Rows, keys: Sequence[str]) -> np.ndarray:
    # None stands where an image has no valid pixel
    return np.array([[int(row[key] or 0) for key in keys] for row in images], np.int64)
