"""Pixel metrics from integer counts. The positive class is road; target 255 is left out.

Counts add up over images, tiles and ranks, and only the total becomes a metric. Masks may be
numpy arrays or torch tensors on any device; importing this module imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import numpy as np

from utils.metric_names import WITHOUT_DATA

if TYPE_CHECKING:
    from torch import Tensor

    Array = np.ndarray | Tensor

#: In a target: the pixel takes no part in loss and metrics.
IGNORE = 255
#: What a sweep tries: steps of 0.05, in which lies 0.5, the threshold of a run without a sweep;
#: and lower ones, since scores of the road graph peak there (gaps cost more than width).
DEFAULT_THRESHOLDS = (0.01, 0.02, 0.03, *(step / 20 for step in range(1, 20)))

#: Of a precision-recall curve: even steps, finer towards its ends.
CURVE_THRESHOLDS = (0.001, 0.002, 0.005, *(step / 100 for step in range(1, 100)), 0.995, 0.999)


@dataclass(frozen=True)
class PixelCounts:
    """Numbers of true positive, false positive, false negative and true negative pixels."""

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    @classmethod
    def from_masks(cls, prediction: Array, target: Array) -> PixelCounts:
        """Counts of a prediction (bool, or uint8 with non-zero road) and a target of 0, 1, 255.

        Any shape, the same for both. Raises ValueError for other shapes or target values.
        """
        _check_shapes(prediction, target)
        predicted = prediction != 0
        road, background = target == 1, target == 0
        num_road, num_background = int(road.sum()), int(background.sum())
        _check_values(num_road + num_background + int((target == IGNORE).sum()), target)
        tp, fp = int((predicted & road).sum()), int((predicted & background).sum())
        return cls(tp, fp, num_road - tp, num_background - fp)

    @property
    def has_data(self) -> bool:
        """Whether there is a valid pixel; an image without one cannot be scored."""
        return self != PixelCounts()

    def __add__(self, other: PixelCounts) -> PixelCounts:
        return PixelCounts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def metrics(self) -> dict[str, float]:
        """Precision, recall, f1, iou, accuracy, and mean_iou over road and background.

        0/0 is 1 when predicted and true mask are both empty, and 0 when one of them is.
        """
        tp, fp, fn, tn = self.tp, self.fp, self.fn, self.tn
        no_road, no_background = not tp + fp + fn, not tn + fp + fn
        iou = _ratio(tp, tp + fp + fn, no_road)
        f1 = _ratio(2 * tp, 2 * tp + fp + fn, no_road)
        assert math.isclose(iou, f1 / (2 - f1), rel_tol=1e-9), f"F1 {f1} and IoU {iou} disagree"
        return {
            "precision": _ratio(tp, tp + fp, no_road),
            "recall": _ratio(tp, tp + fn, no_road),
            "f1": f1,
            "iou": iou,
            "accuracy": _ratio(tp + tn, tp + fp + fn + tn, no_road),
            "mean_iou": (iou + _ratio(tn, tn + fp + fn, no_background)) / 2,
        }

    def to_tensor(self) -> Tensor:
        """The four counts as int64, which ranks can sum."""
        import torch

        return torch.tensor(astuple(self), dtype=torch.int64)

    @classmethod
    def from_tensor(cls, counts: Tensor) -> PixelCounts:
        return cls(*counts.tolist())


def iou_per_image(images: Iterable[PixelCounts]) -> float:
    """Mean over images of the image's own IoU; 1 when there is none.

    Images without a valid pixel are left out: they would count as perfect.
    """
    scores = [image.metrics()["iou"] for image in images if image.has_data]
    return math.fsum(scores) / len(scores) if scores else 1.0


def images_without_data(images: Iterable[PixelCounts]) -> dict[str, float]:
    """How many images have no valid pixel, and are in no mean over images, where any has none."""
    number = sum(not image.has_data for image in images)
    return {WITHOUT_DATA: float(number)} if number else {}


def none_without_data(counts: PixelCounts, values: dict[str, float]) -> dict[str, float | None]:
    """The values of an image with these counts; each None, not perfect, without a valid pixel."""
    return {key: value if counts.has_data else None for key, value in values.items()}


class ThresholdCounts:
    """Counts at many thresholds from one pass; a pixel is road where probability >= threshold.

    Each pixel is counted once, under the number of thresholds that it reaches; the counts at a
    threshold are sums of those. Exactly the counts of one comparison per threshold, in the
    probabilities' own type (0.3 becomes the nearest float32 for float32 probabilities).
    """

    def __init__(self, thresholds: Sequence[float] = DEFAULT_THRESHOLDS) -> None:
        self.thresholds = tuple(sorted(set(thresholds)))
        if not self.thresholds or not all(0 < t < 1 for t in self.thresholds):
            raise ValueError(f"thresholds must lie between 0 and 1, got {list(thresholds)}")
        # (background or road, number of thresholds reached)
        self._reached = np.zeros((2, len(self.thresholds) + 1), np.int64)

    def update(self, probability: Array, target: Array) -> None:
        """Add the pixels of float probabilities and a target of 0, 1 and 255, of one shape.

        Raises ValueError for other shapes or target values, and for a probability of a valid
        pixel that is NaN or infinite.
        """
        _check_shapes(probability, target)
        valid = target != IGNORE
        probability, target = probability[valid], target[valid]
        # The infinite edge is reached by nothing but infinity and, in searchsorted, by NaN.
        count = _count_numpy if isinstance(probability, np.ndarray) else _count_torch
        reached = count(probability, target, [*self.thresholds, math.inf])
        if reached[:, -1].any():
            raise ValueError("probabilities contain NaN or infinity")
        _check_values(int(reached.sum()), target)
        self._reached += reached[:, :-1]

    def counts(self) -> list[PixelCounts]:
        """The pixel counts at each of `thresholds`, which ascend."""
        below = self._reached.cumsum(axis=1)[:, :-1]
        above = self._reached.sum(axis=1, keepdims=True) - below
        return [
            PixelCounts(int(tp), int(fp), int(fn), int(tn))
            for (tn, fn), (fp, tp) in zip(below.T, above.T, strict=True)
        ]

    def best(self, metric: str) -> tuple[float, float]:
        """(threshold, value) where a key of `PixelCounts.metrics` is highest.

        The nearest to 0.5 of equally good ones. F1 and IoU rise together, so they agree.
        """
        scores = [counts.metrics()[metric] for counts in self.counts()]
        ranked = zip(scores, self.thresholds, strict=True)
        score, threshold = max(ranked, key=lambda pair: (pair[0], -abs(pair[1] - 0.5)))
        return threshold, score

    def __add__(self, other: ThresholdCounts) -> ThresholdCounts:
        assert self.thresholds == other.thresholds, "counts of different thresholds"
        total = ThresholdCounts(self.thresholds)
        total._reached = self._reached + other._reached
        return total

    def to_tensor(self) -> Tensor:
        """The histogram (2, number of thresholds + 1) as int64, which ranks can sum."""
        import torch

        return torch.tensor(self._reached)

    @classmethod
    def from_tensor(cls, histogram: Tensor, thresholds: Sequence[float]) -> ThresholdCounts:
        counts = cls(thresholds)
        assert histogram.shape == counts._reached.shape, "a histogram of other thresholds"
        counts._reached = histogram.cpu().numpy().copy()
        return counts


def _count_numpy(probability: np.ndarray, target: np.ndarray, edges: list[float]) -> np.ndarray:
    reached = np.searchsorted(np.array(edges, probability.dtype), probability, side="right")
    size = len(edges) + 1
    return np.stack([np.bincount(reached[target == t], minlength=size) for t in (0, 1)])


def _count_torch(probability: Tensor, target: Tensor, edges: list[float]) -> np.ndarray:
    import torch

    boundaries = torch.tensor(edges, dtype=probability.dtype, device=probability.device)
    reached = torch.bucketize(probability, boundaries, right=True)
    size = len(edges) + 1
    histograms = [torch.bincount(reached[target == t], minlength=size) for t in (0, 1)]
    return torch.stack(histograms).cpu().numpy()


def _ratio(numerator: int, denominator: int, both_empty: bool) -> float:
    return numerator / denominator if denominator else float(both_empty)


def _check_shapes(prediction: Array, target: Array) -> None:
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape"
        )


def _check_values(num_known: int, target: Array) -> None:
    if num_known != math.prod(target.shape):
        raise ValueError("target must hold 0 (background), 1 (road) and 255 (no data) only")
