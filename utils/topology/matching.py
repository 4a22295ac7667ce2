"""Matched pixels counted: two shares, and what they are when there is nothing to share."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt


@dataclass(frozen=True)
class MatchCounts:
    """Pixels of a prediction and of the truth, and how many lie near the other; they add up."""

    predicted: int = 0
    predicted_matched: int = 0
    true: int = 0
    true_matched: int = 0

    @classmethod
    def within(cls, prediction: np.ndarray, target: np.ndarray, reach_px: float) -> MatchCounts:
        """Counts of H x W bool masks; near is a Euclidean distance of at most `reach_px`."""
        near_true, near_predicted = near(target, reach_px), near(prediction, reach_px)
        return cls(
            int(prediction.sum()),
            int((prediction & near_true).sum()),
            int(target.sum()),
            int((target & near_predicted).sum()),
        )

    def __add__(self, other: MatchCounts) -> MatchCounts:
        return MatchCounts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def precision(self) -> float:
        """Matched share of the prediction; 0/0 is 1 when both are empty, else 0."""
        return self._share(self.predicted_matched, self.predicted)

    @property
    def recall(self) -> float:
        """Matched share of the truth; 0/0 is 1 when both are empty, else 0."""
        return self._share(self.true_matched, self.true)

    @property
    def f1(self) -> float:
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0

    @property
    def quality(self) -> float:
        """Matched prediction / (prediction + unmatched truth); 0/0 is 1."""
        return self._share(self.predicted_matched, self.predicted + self.true - self.true_matched)

    def _share(self, part: int, whole: int) -> float:
        if whole:
            return part / whole
        return float(not self.predicted and not self.true)


def near(mask: np.ndarray, reach_px: float) -> np.ndarray:
    """Pixels within a Euclidean distance of `reach_px` from the mask, the mask among them."""
    if not mask.any():
        return np.zeros_like(mask)
    return distance_transform_edt(~mask) <= reach_px
