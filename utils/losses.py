"""The named losses on logits, each a function of sums so that ranks share one exact loss.

A loss is written in two halves: sums over the pixels of this rank, and the value of those sums.
All sums of all losses travel through one differentiable all-reduce between the halves, so that
N ranks with batch b have the loss and the gradient of one process with batch N * b.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from skimage.morphology import dilation, skeletonize
from torch import Tensor

from utils.metrics import IGNORE
from utils.schema import LossName

SMOOTH = 1.0  # px, added to both sides of every ratio: 0/0 is 1, and empty masks have a gradient
FOCAL_GAMMA, FOCAL_ALPHA = 2.0, 0.25  # the paper's best pair
TVERSKY_FALSE_POSITIVE, TVERSKY_FALSE_NEGATIVE = 0.3, 0.7  # the paper's best pair
SKELETON_ITERATIONS = 10  # erosions of the soft skeleton: thins roads of up to 21 px width
TUBE_DILATIONS = 2  # a tube of 5 px around the true skeleton, as in the paper


class Pixels(NamedTuple):
    """A batch as the losses see it, all (B, H, W); where `valid` is 0, so are the others."""

    logits: Tensor
    probability: Tensor
    truth: Tensor
    valid: Tensor

    @classmethod
    def of(cls, logits: Tensor, target: Tensor) -> Pixels:
        """Pixels of logits (B, 1, H, W) in float32 (float64 stays) and target (B, H, W)."""
        ignored = target == IGNORE
        logits = logits.squeeze(1).to(torch.promote_types(logits.dtype, torch.float32))
        # Filled before anything is computed: not even an infinite logit leaks out of there.
        logits = logits.masked_fill(ignored, 0)
        probability = logits.sigmoid().masked_fill(ignored, 0)
        return cls(logits, probability, (target == 1).to(logits), (~ignored).to(logits))


class Loss(NamedTuple):
    """`sums` gives scalars that add up over images and ranks, `value` the loss of the totals."""

    sums: Callable[[Pixels], tuple[Tensor, ...]]
    value: Callable[..., Tensor]


class RoadLoss:
    """The weighted sum of named losses; see `build_loss`."""

    def __init__(
        self, weights: dict[LossName, float], sum_over_ranks: Callable[[Tensor], Tensor]
    ) -> None:
        self.weights = dict(weights)
        self.sum_over_ranks = sum_over_ranks

    def __call__(self, logits: Tensor, target: Tensor) -> tuple[Tensor, dict[LossName, Tensor]]:
        """The loss of the batch of all ranks, and its parts by name, detached and unweighted.

        `logits` (B, 1, H, W) of any float type; `target` (B, H, W), 1 road, 0 background and 255
        left out: such pixels touch neither value nor gradient, and a batch of nothing else has
        loss 0 and gradient 0. Raises ValueError when the shapes do not fit each other.
        """
        if logits.ndim != 4 or logits.shape[1] != 1 or target.shape != logits[:, 0].shape:
            raise ValueError(
                "expected logits (B, 1, H, W) and target (B, H, W), "
                f"got {tuple(logits.shape)} and {tuple(target.shape)}"
            )
        with torch.autocast(logits.device.type, enabled=False):
            pixels = Pixels.of(logits, target)
            sums = [LOSSES[name].sums(pixels) for name in self.weights]
            totals = self.sum_over_ranks(torch.stack([s for group in sums for s in group]))
            groups = totals.split([len(group) for group in sums])
            parts = {
                name: LOSSES[name].value(*group)
                for name, group in zip(self.weights, groups, strict=True)
            }
            total = sum(weight * parts[name] for name, weight in self.weights.items())
        return total, {name: part.detach() for name, part in parts.items()}


def build_loss(
    weights: dict[LossName, float], sum_over_ranks: Callable[[Tensor], Tensor] = lambda sums: sums
) -> RoadLoss:
    """The loss of a config's `loss: {name: weight}`.

    `sum_over_ranks` sums a tensor over the ranks and its gradient over them as well
    (`torch.distributed.nn.functional.all_reduce`); DDP's averaging then gives the exact gradient.
    The default is that of a single process. Raises ValueError for an unknown name.
    """
    known = typing.get_args(LossName)
    if not weights or not set(weights) <= set(known):
        raise ValueError(f"losses {list(weights)}: expected some of {', '.join(known)}")
    return RoadLoss(weights, sum_over_ranks)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return (numerator + SMOOTH) / (denominator + SMOOTH)


def _mean(total: Tensor, count: Tensor) -> Tensor:
    return total / count.clamp(min=1)


def _bce_sums(pixels: Pixels) -> tuple[Tensor, ...]:
    """Binary cross entropy: mean over the valid pixels."""
    entropy = F.binary_cross_entropy_with_logits(
        pixels.logits, pixels.truth, weight=pixels.valid, reduction="sum"
    )
    return entropy, pixels.valid.sum()


def _focal_sums(pixels: Pixels) -> tuple[Tensor, ...]:
    """Focal loss (Lin et al., ICCV 2017, arXiv:1708.02002): mean over the valid pixels."""
    entropy = F.binary_cross_entropy_with_logits(pixels.logits, pixels.truth, reduction="none")
    wrongness = -torch.expm1(-entropy)  # 1 - p_t, without cancellation
    alpha = torch.where(pixels.truth == 1, FOCAL_ALPHA, 1 - FOCAL_ALPHA)
    focal = alpha * wrongness**FOCAL_GAMMA * entropy
    return (focal * pixels.valid).sum(), pixels.valid.sum()


def _overlap_sums(pixels: Pixels) -> tuple[Tensor, ...]:
    """Soft intersection, predicted area and true area of the whole batch."""
    intersection = (pixels.probability * pixels.truth).sum()
    return intersection, pixels.probability.sum(), pixels.truth.sum()


def _dice(intersection: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
    """1 - Dice coefficient of soft masks (V-Net, Milletari et al., 3DV 2016, arXiv:1606.04797)."""
    return 1 - _ratio(2 * intersection, predicted + true)


def _tversky(intersection: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
    """1 - Tversky index (Salehi et al., MLMI 2017, arXiv:1706.05721)."""
    errors = TVERSKY_FALSE_POSITIVE * (predicted - intersection)
    errors = errors + TVERSKY_FALSE_NEGATIVE * (true - intersection)
    return 1 - _ratio(intersection, intersection + errors)


def _lovasz_sums(pixels: Pixels) -> tuple[Tensor, ...]:
    """Lovasz hinge (Berman et al., CVPR 2018, arXiv:1705.08790): mean over images.

    The Lovasz extension weighs the sorted hinge errors by what each adds to the Jaccard loss of
    the set of those before it. The gain is written in closed form, since the difference of two
    neighbouring Jaccard losses cancels in float32. Images without a valid pixel do not count.
    """
    sign = 2 * pixels.truth - 1
    # An error of 0 or less weighs nothing, wherever it is sorted: so ignored pixels get 0.
    errors = ((1 - pixels.logits * sign) * pixels.valid).flatten(1)
    errors, order = errors.sort(dim=1, descending=True)
    positive = pixels.truth.flatten(1).gather(1, order)
    num_true = positive.sum(1, keepdim=True)
    intersection = num_true - positive.cumsum(1)
    union = num_true + (1 - positive).cumsum(1)
    negative_gain = intersection / (union * (union - 1).clamp(min=1))
    negative_gain = torch.where(union == 1, 1, negative_gain)  # the first, when nothing is true
    gain = torch.where(positive == 1, 1 / union, negative_gain)
    return (errors.relu() * gain).sum(), pixels.valid.flatten(1).amax(1).sum()


def _soft_cldice_sums(pixels: Pixels) -> tuple[Tensor, ...]:
    """Soft clDice (Shit et al., CVPR 2021, arXiv:2003.07311), sums over the whole batch.

    Beyond the image's sides the masks go on; pixels left out are background to both skeletons.
    """
    predicted = _soft_skeleton(pixels.probability)
    true = _soft_skeleton(pixels.truth)
    precise, sensitive = (predicted * pixels.truth).sum(), (true * pixels.probability).sum()
    return precise, predicted.sum(), sensitive, true.sum()


def _soft_cldice(precise: Tensor, predicted: Tensor, sensitive: Tensor, true: Tensor) -> Tensor:
    precision, sensitivity = _ratio(precise, predicted), _ratio(sensitive, true)
    return 1 - 2 * precision * sensitivity / (precision + sensitivity)


def _soft_skeleton(mask: Tensor) -> Tensor:
    """What opening removes from the mask (B, H, W) and from each of its erosions, united."""
    skeleton = torch.zeros_like(mask)
    for _ in range(SKELETON_ITERATIONS + 1):
        eroded = _soft_erode(mask)
        ridge = (mask - F.max_pool2d(eroded, 3, stride=1, padding=1)).relu()
        skeleton = skeleton + (1 - skeleton) * ridge
        mask = eroded
    return skeleton


def _soft_erode(mask: Tensor) -> Tensor:
    """Minimum over the cross of a pixel and its four neighbours."""
    vertical = F.max_pool2d(-mask, (3, 1), stride=1, padding=(1, 0))
    horizontal = F.max_pool2d(-mask, (1, 3), stride=1, padding=(0, 1))
    return -torch.maximum(vertical, horizontal)


def _skeleton_recall_sums(pixels: Pixels) -> tuple[Tensor, ...]:
    """Skeleton recall (Kirchhoff et al., ECCV 2024, arXiv:2404.03010), over the whole batch."""
    tube = _skeleton_tube(pixels.truth)
    return (pixels.probability * tube).sum(), tube.sum()


def _skeleton_tube(truth: Tensor) -> Tensor:
    """The skeleton of each true mask (B, H, W), widened but kept inside it; on the CPU."""
    tubes = []
    for mask in truth.cpu().numpy() == 1:
        tube = skeletonize(mask)
        for _ in range(TUBE_DILATIONS):
            tube = dilation(tube)
        tubes.append(tube & mask)
    return torch.from_numpy(np.stack(tubes)).to(truth)


def _skeleton_recall(found: Tensor, length: Tensor) -> Tensor:
    return 1 - _ratio(found, length)


LOSSES: dict[LossName, Loss] = {
    "bce": Loss(_bce_sums, _mean),
    "dice": Loss(_overlap_sums, _dice),
    "focal": Loss(_focal_sums, _mean),
    "tversky": Loss(_overlap_sums, _tversky),
    "lovasz": Loss(_lovasz_sums, _mean),
    "soft_cldice": Loss(_soft_cldice_sums, _soft_cldice),
    "skeleton_recall": Loss(_skeleton_recall_sums, _skeleton_recall),
}
