"""The paired bootstrap against scipy's, and its statistics against scores of real repetitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from utils.comparison.bootstrap import (
    draw_images,
    holm,
    metrics_of_draws,
    paired_differences,
    two_sided_p,
)
from utils.image_scores import ImageScores, score_split
from utils.metrics import PixelCounts


def image_rows(rng: np.random.Generator, number: int, skill: float, roads: np.ndarray) -> list:
    rows = []
    for at in range(number):
        tp = rng.binomial(roads[at], skill)
        fp = rng.poisson(20)
        counts = PixelCounts(int(tp), int(fp), int(roads[at] - tp), int(1000 - roads[at] - fp))
        topology = {
            "apls": float(rng.uniform()),
            "apls_truth_empty": float(at == 2),
            "cldice": float(rng.uniform()),
            "betti0_error": float(rng.integers(9)),
        }
        rows.append({"name": str(at), **counts.metrics(), **topology, **vars(counts)})
    return rows


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(5)
    roads = rng.integers(50, 300, 25)
    skills = {"first": 0.70, "same": 0.70, "better": 0.85}
    return {
        name: [image_rows(rng, 25, skill, roads) for _ in range(2)]
        for name, skill in skills.items()
    }


def split_score(rows: list, key: str) -> float:
    """A split's metric by what inference.py uses."""
    names = ("tp", "fp", "fn", "tn")
    topology = ("apls", "apls_truth_empty", "cldice", "betti0_error")
    scores = [
        ImageScores(PixelCounts(*(row[n] for n in names)), {key: row[key] for key in topology})
        for row in rows
    ]
    return score_split(scores)[key]


@pytest.mark.parametrize("metric", ["iou", "apls"])
def test_intervals_are_those_of_scipy(images, metric):
    two = {name: images[name] for name in ("first", "better")}
    (found,) = paired_differences(two, [metric], resamples=4000, seed=1)

    def difference(chosen) -> float:
        means = [
            np.mean([split_score([rows[at] for at in chosen], metric) for rows in two[name]])
            for name in ("better", "first")
        ]
        return means[0] - means[1]

    assert found.difference == pytest.approx(difference(range(25)))
    reference = stats.bootstrap(
        (np.arange(25),),
        difference,
        vectorized=False,
        n_resamples=800,
        method="percentile",
        random_state=2,
    )
    # the percentiles of two samples: within four of the smaller one's standard errors
    error = 4 * reference.standard_error / np.sqrt(800 * 0.025) * 0.4
    assert found.low == pytest.approx(reference.confidence_interval.low, abs=error)
    assert found.high == pytest.approx(reference.confidence_interval.high, abs=error)


def test_a_better_model_is_told_from_an_equal_one(images):
    found = {entry.model: entry for entry in paired_differences(images, ["f1"], resamples=2000)}
    better, same = found["better"], found["same"]
    assert better.low > 0 and better.p < 0.01 and better.p_holm == pytest.approx(2 * better.p)
    assert same.low < 0 < same.high and same.p > 0.05


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 24), min_size=1, max_size=25))
def test_a_draw_scores_as_the_images_that_are_in_it(chosen):
    rng = np.random.default_rng(0)
    rows = image_rows(rng, 25, 0.6, rng.integers(0, 300, 25))
    counts = np.bincount(chosen, minlength=25)[None]
    keys = ["f1", "precision", "mean_iou", "iou_per_image", "apls", "cldice", "betti0_error"]
    found = metrics_of_draws(rows, keys, counts)
    for key in keys:
        expected = split_score([rows[at] for at in chosen], key)
        assert found[key][0] == pytest.approx(expected), key


def test_scores_of_summed_lengths_are_formed_anew():
    rows = []
    for hits, total in ((3, 10), (40, 50), (0, 7)):
        counts = {"predicted_matched": hits, "predicted": total, "true_matched": hits, "true": 9}
        row = {f"relaxed_{key}_px": float(value) for key, value in counts.items()}
        rows.append({"name": "x", "tp": 1, "fp": 1, "fn": 1, "tn": 1, **row})
    found = metrics_of_draws(rows, ["relaxed_precision"], np.array([[1, 1, 1], [2, 0, 1]]))
    assert found["relaxed_precision"] == pytest.approx([43 / 67, 6 / 27])


def test_draws_are_as_many_images_as_there_are_and_repeat():
    draws = draw_images(7, 5000, seed=3)
    assert (draws.sum(axis=1) == 7).all()
    assert draws.mean() == pytest.approx(1.0)
    assert draws.var() == pytest.approx(1 - 1 / 7, rel=0.05)  # binomial (7, 1/7)
    assert (draws == draw_images(7, 5000, seed=3)).all()


def test_holm_by_an_example_worked_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_p_values():
    assert two_sided_p(np.zeros(99)) == 1.0
    assert two_sided_p(np.ones(999)) == pytest.approx(2 / 1000)
    assert two_sided_p(np.array([-1.0] + [1.0] * 98)) == pytest.approx(4 / 100)
