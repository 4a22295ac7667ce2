"""Relaxed precision and recall, and their break-even point over thresholds.

Mnih: Machine learning for aerial image labeling, PhD thesis, University of Toronto, 2013; the
protocol of the Massachusetts Roads dataset, with a slack of 3 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from utils.topology.matching import MatchCounts, near

RHO_PX = 3.0
#: Steps of the curve on which precision and recall are seen to meet.
THRESHOLDS = tuple(step / 500 for step in range(1, 500))


def relaxed_counts(
    prediction: np.ndarray, target: np.ndarray, rho_px: float = RHO_PX
) -> MatchCounts:
    """Counts of H x W bool masks; their precision, recall and f1 are the relaxed ones."""
    return MatchCounts.within(prediction, target, rho_px)


class RelaxedCurve:
    """Relaxed counts at many thresholds from one pass over the probabilities of many images.

    A true pixel is recalled at a threshold when the highest probability within the slack reaches
    it, so that one dilation serves all thresholds; the result is that of one comparison each.
    """

    def __init__(self, thresholds: Sequence[float] = THRESHOLDS, rho_px: float = RHO_PX) -> None:
        self.thresholds = np.unique(np.asarray(thresholds, dtype=float))
        self.rho_px = rho_px
        self._counts = np.zeros((4, len(self.thresholds)), dtype=np.int64)

    def update(self, probability: np.ndarray, target: np.ndarray) -> None:
        """Add an image: H x W float32 probabilities and a bool mask. Left-out pixels are 0."""
        highest = cv2.dilate(probability.astype(np.float32), _disc(self.rho_px))
        near_true = near(target, self.rho_px)
        self._counts += np.stack(
            [
                self._reached(probability),
                self._reached(probability[near_true]),
                np.full(len(self.thresholds), target.sum()),
                self._reached(highest[target]),
            ]
        )

    def __add__(self, other: RelaxedCurve) -> RelaxedCurve:
        total = RelaxedCurve(self.thresholds, self.rho_px)
        total._counts = self._counts + other._counts
        return total

    def counts(self) -> list[MatchCounts]:
        """The counts at each of `thresholds`, which ascend."""
        return [MatchCounts(*column) for column in self._counts.T.tolist()]

    def break_even(self) -> tuple[float, float]:
        """(threshold, value) where precision and recall meet, interpolated between thresholds.

        Where they do not, the mean of both where they are nearest to each other.
        """
        counts = self.counts()
        precision = np.array([c.precision for c in counts])
        recall = np.array([c.recall for c in counts])
        ahead = precision - recall
        crossing = np.flatnonzero((ahead[:-1] < 0) & (ahead[1:] >= 0) & (precision[1:] > 0))
        if len(crossing):
            i = crossing[0]
            share = -ahead[i] / (ahead[i + 1] - ahead[i])
            value = precision[i] + share * (precision[i + 1] - precision[i])
            threshold = self.thresholds[i] + share * np.diff(self.thresholds)[i]
            return float(threshold), float(value)
        nearest = int(np.argmin(np.where(precision + recall > 0, np.abs(ahead), 2)))
        return float(self.thresholds[nearest]), float(precision[nearest] + recall[nearest]) / 2

    def _reached(self, values: np.ndarray) -> np.ndarray:
        """How many of the values reach each threshold."""
        steps = np.searchsorted(self.thresholds.astype(np.float32), values.ravel(), side="right")
        reached = np.bincount(steps, minlength=len(self.thresholds) + 1)
        return reached[::-1].cumsum()[::-1][1:]


def _disc(radius: float) -> np.ndarray:
    y, x = np.ogrid[-int(radius) : int(radius) + 1, -int(radius) : int(radius) + 1]
    return (x * x + y * y <= radius * radius).astype(np.uint8)
