"""Losses against independent code, and their equality over ranks."""

from __future__ import annotations

import itertools
import typing

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from scipy import ndimage
from skimage.morphology import skeletonize
from torch.nn.parallel import DistributedDataParallel
from torchvision.ops import sigmoid_focal_loss

from utils import losses
from utils.distributed import sum_over_ranks
from utils.losses import build_loss
from utils.schema import LossName

NAMES = typing.get_args(LossName)
SMOOTH_NAMES = ("bce", "dice", "focal", "tversky", "skeleton_recall")
ALL = {name: 0.5 + 0.25 * i for i, name in enumerate(NAMES)}


def batch(B=2, H=24, W=20, *, seed=0, ignored=0.2, dtype=torch.float32):
    """Logits and roads of a few pixels' width, a part of them without data."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(B, 1, H, W, generator=generator, dtype=dtype)
    target = torch.zeros(B, H, W, dtype=torch.uint8)
    for b in range(B):
        target[b, 3 + 2 * b : 8 + 3 * b] = 1
        target[b, :, 5 + b : 9 + b] = 1
    target[torch.rand(B, H, W, generator=generator) < ignored] = 255
    return logits, target


def valid_pixels(logits, target):
    """Logits and truth of the valid pixels, flat."""
    valid = target != 255
    return logits[:, 0][valid], (target[valid] == 1).to(logits.dtype)


def one(name, logits, target):
    total, parts = build_loss({name: 1.0})(logits, target)
    assert list(parts) == [name]
    return total


def gradient(logits, target, weights=ALL, **kwargs):
    logits = logits.clone().requires_grad_()
    total, _ = build_loss(weights, **kwargs)(logits, target)
    total.backward()
    return total.detach(), logits.grad


# The interface


def test_every_name_of_the_schema_has_a_loss():
    assert set(losses.LOSSES) == set(NAMES)


@pytest.mark.parametrize("weights", [{}, {"iou": 1.0}, {"bce": 1.0, "Dice": 1.0}])
def test_unknown_names_are_answered_with_the_known_ones(weights):
    with pytest.raises(ValueError, match="bce, dice, focal"):
        build_loss(weights)


def test_the_total_weighs_the_detached_parts():
    logits, target = batch()
    total, parts = build_loss(ALL)(logits.requires_grad_(), target)
    assert total.requires_grad and total.shape == () and total.dtype == torch.float32
    assert not any(part.requires_grad for part in parts.values())
    expected = sum(ALL[name] * float(parts[name]) for name in NAMES)
    assert float(total.detach()) == pytest.approx(expected)
    for name in NAMES:
        assert float(one(name, logits.detach(), target)) == pytest.approx(float(parts[name]))


@pytest.mark.parametrize("shape", [(2, 24, 20), (2, 2, 24, 20), (2, 1, 24, 19)])
def test_shapes_that_would_broadcast_are_refused(shape):
    with pytest.raises(ValueError, match="expected logits"):
        build_loss({"bce": 1.0})(torch.zeros(shape), torch.zeros(2, 24, 20, dtype=torch.uint8))


# Values against independent code


def test_bce():
    logits, target = batch()
    expected = F.binary_cross_entropy_with_logits(*valid_pixels(logits, target))
    torch.testing.assert_close(one("bce", logits, target), expected)


def test_focal():
    logits, target = batch()
    pixels = valid_pixels(logits, target)
    expected = sigmoid_focal_loss(*pixels, alpha=0.25, gamma=2, reduction="mean")
    torch.testing.assert_close(one("focal", logits, target), expected)


def numpy_pixels(logits, target):
    z, t = (x.double().numpy() for x in valid_pixels(logits, target))
    return 1 / (1 + np.exp(-z)), t


def test_dice():
    logits, target = batch()
    p, t = numpy_pixels(logits, target)
    expected = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
    assert float(one("dice", logits, target)) == pytest.approx(expected, rel=1e-5)


def test_tversky():
    logits, target = batch()
    p, t = numpy_pixels(logits, target)
    tp, fp, fn = (p * t).sum(), (p * (1 - t)).sum(), ((1 - p) * t).sum()
    expected = 1 - (tp + 1) / (tp + 0.3 * fp + 0.7 * fn + 1)
    assert float(one("tversky", logits, target)) == pytest.approx(expected, rel=1e-5)


def brute_force_lovasz(logits, truth):
    """The Lovasz extension from the definition: the Jaccard set function on the level sets.

    Its value is the integral over levels of the Jaccard loss of the pixels whose hinge error
    exceeds the level, so the order of equal errors plays no part.
    """
    errors = np.maximum(1 - logits * np.where(truth, 1, -1), 0)
    levels = np.unique(np.append(errors, 0.0))
    total = 0.0
    for low, high in itertools.pairwise(levels):
        wrong = {i for i, error in enumerate(errors) if error > low}
        true = {i for i, t in enumerate(truth) if t}
        predicted = true ^ wrong
        jaccard = len(true & predicted) / len(true | predicted) if true | predicted else 1.0
        total += (high - low) * (1 - jaccard)
    return total


@pytest.mark.parametrize("seed", range(5))
def test_lovasz_is_the_mean_over_images_of_the_extension(seed):
    logits, target = batch(B=4, H=6, W=7, seed=seed)
    target[1] = 255  # does not count
    target[2][target[2] == 1] = 0  # nothing true
    logits[3] = logits[3].round()  # many equal errors
    expected = []
    for b in (0, 2, 3):
        z, t = valid_pixels(logits[b : b + 1], target[b : b + 1])
        expected.append(brute_force_lovasz(z.double().numpy(), t.numpy() == 1))
    result = float(one("lovasz", logits, target))
    assert result == pytest.approx(np.mean(expected), rel=1e-5)


def test_lovasz_gradient_is_the_slope_of_the_extension():
    logits, target = batch(B=1, H=5, W=6, seed=3, dtype=torch.float64)
    _, slope = gradient(logits, target, {"lovasz": 1.0})
    step = 1e-6
    for index in np.ndindex(5, 6):
        moved = []
        for sign in (1, -1):
            shifted = logits.clone()
            shifted[0, 0][index] += sign * step
            z, t = valid_pixels(shifted, target)
            moved.append(brute_force_lovasz(z.numpy(), t.numpy() == 1))
        assert float(slope[0, 0][index]) == pytest.approx(
            (moved[0] - moved[1]) / (2 * step), abs=1e-6
        )


def numpy_soft_skeleton(mask, iterations=10):
    """The paper's algorithm by scipy's grey morphology."""
    cross = ndimage.generate_binary_structure(2, 1)

    def erode(x):
        return ndimage.grey_erosion(x, footprint=cross, mode="constant", cval=np.inf)

    def open_(x):
        return ndimage.grey_dilation(erode(x), size=3, mode="constant", cval=-np.inf)

    skeleton = np.maximum(mask - open_(mask), 0)
    for _ in range(iterations):
        mask = erode(mask)
        skeleton = skeleton + (1 - skeleton) * np.maximum(mask - open_(mask), 0)
    return skeleton


def test_soft_cldice():
    logits, target = batch(H=40, W=36)
    p = np.where(target == 255, 0, logits[:, 0].double().sigmoid())
    t = (target == 1).double().numpy()
    skeleton_p = np.stack([numpy_soft_skeleton(x) for x in p])
    skeleton_t = np.stack([numpy_soft_skeleton(x) for x in t])
    precision = ((skeleton_p * t).sum() + 1) / (skeleton_p.sum() + 1)
    sensitivity = ((skeleton_t * p).sum() + 1) / (skeleton_t.sum() + 1)
    expected = 1 - 2 * precision * sensitivity / (precision + sensitivity)
    assert float(one("soft_cldice", logits, target)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("width", [1, 2, 9, 20, 21])
def test_the_soft_skeleton_reaches_the_middle_of_wide_roads(width):
    mask = torch.zeros(1, 60, 60)
    mask[:, 15 : 15 + width] = 1
    skeleton = losses._soft_skeleton(mask)
    rows = skeleton[0, :, 30].nonzero().flatten().tolist()
    middle = 15 + (width - 1) / 2
    assert rows and all(abs(row - middle) <= 0.5 for row in rows)


def test_skeleton_recall():
    logits, target = batch(H=40, W=36, ignored=0.02)
    p = logits[:, 0].double().sigmoid().numpy()
    diamond = np.add.outer(np.abs(np.arange(-2, 3)), np.abs(np.arange(-2, 3))) <= 2
    found = length = 0.0
    for b, road in enumerate((target == 1).numpy()):
        tube = ndimage.binary_dilation(skeletonize(road), diamond) & road
        found, length = found + (p[b] * tube).sum(), length + tube.sum()
    assert 0 < length < (target == 1).sum()
    expected = 1 - (found + 1) / (length + 1)
    assert float(one("skeleton_recall", logits, target)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", SMOOTH_NAMES)
def test_gradients_of_the_smooth_losses(name):
    logits, target = batch(B=2, H=6, W=9, dtype=torch.float64)
    loss = build_loss({name: 1.0})
    assert torch.autograd.gradcheck(lambda z: loss(z, target)[0], logits.requires_grad_())


# What is left out


@pytest.mark.parametrize("fill", [50.0, -1e4, float("inf"), float("nan")])
@pytest.mark.parametrize("name", NAMES)
def test_ignored_logits_change_nothing(name, fill):
    logits, target = batch()
    ignored = (target == 255)[:, None]
    expected_value, expected_grad = gradient(logits, target, {name: 1.0})
    value, grad = gradient(logits.masked_fill(ignored, fill), target, {name: 1.0})
    assert torch.equal(value, expected_value) and torch.equal(grad, expected_grad)
    assert grad[ignored].abs().max() == 0 and grad[~ignored].abs().max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_without_data_has_loss_and_gradient_zero(name):
    logits, target = batch()
    value, grad = gradient(logits, torch.full_like(target, 255), {name: 1.0})
    assert value == 0 and grad.abs().max() == 0


# Hard inputs


@pytest.mark.parametrize("scale", [1e4, -1e4])
@pytest.mark.parametrize("name", NAMES)
def test_extreme_logits_are_finite(name, scale):
    logits, target = batch()
    value, grad = gradient(logits.sign() * scale, target, {name: 1.0})
    assert value.isfinite() and grad.isfinite().all()


@pytest.mark.parametrize("truth", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_empty_and_full_masks(name, truth):
    logits, _ = batch()
    target = torch.full((2, 24, 20), truth, dtype=torch.uint8)
    value, grad = gradient(logits, target, {name: 1.0})
    assert value.isfinite() and value >= 0 and grad.isfinite().all()
    right, _ = gradient(torch.full_like(logits, 100.0 * (2 * truth - 1)), target, {name: 1.0})
    assert right == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_computed_in_float32(name, dtype):
    logits, target = batch()
    logits = logits.to(dtype)
    expected, _ = gradient(logits.float(), target, {name: 1.0})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, grad = gradient(logits, target, {name: 1.0})
    assert value.dtype == torch.float32 and value == expected
    assert grad.dtype == dtype and grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_a_step_down_the_gradient_lowers_the_loss(name):
    logits, target = batch()
    before, grad = gradient(logits, target, {name: 1.0})
    after, _ = gradient(logits - 0.1 * grad / grad.abs().max(), target, {name: 1.0})
    assert after < before


# Ranks


def test_sums_over_ranks_make_the_loss_of_the_joint_batch():
    logits, target = batch(B=4)
    target[0, :10] = 255  # ranks with different numbers of valid pixels
    target[1] = 255
    expected_value, expected_grad = gradient(logits, target)
    halves = [(logits[:2], target[:2]), (logits[2:], target[2:])]
    local = []
    for half in halves:
        gradient(*half, sum_over_ranks=lambda sums: local.append(sums.detach()) or sums)
    assert len(local) == 2  # one reduction a rank
    for r, half in enumerate(halves):
        other = local[1 - r]
        value, grad = gradient(*half, sum_over_ranks=lambda sums, other=other: sums + other)
        torch.testing.assert_close(value, expected_value)
        torch.testing.assert_close(grad, expected_grad[2 * r : 2 * r + 2])


def make_network():
    torch.manual_seed(0)
    return torch.nn.Conv2d(1, 1, 5, padding=2)


def train_rank(rank, folder):
    """One of two ranks: its half of the batch through DDP; writes its loss and gradients."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    image, target = batch(B=4)
    target[0, :10] = 255
    network = DistributedDataParallel(make_network())
    mine = slice(2 * rank, 2 * rank + 2)
    total, _ = build_loss(ALL, sum_over_ranks)(network(image[mine]), target[mine])
    total.backward()
    result = [total.detach()] + [p.grad for p in network.module.parameters()]
    torch.save(result, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_have_the_loss_and_gradient_of_one(tmp_path):
    mp.spawn(train_rank, args=(str(tmp_path),), nprocs=2)
    image, target = batch(B=4)
    target[0, :10] = 255
    network = make_network()
    total, _ = build_loss(ALL)(network(image), target)
    total.backward()
    expected = [total.detach()] + [p.grad for p in network.parameters()]
    for rank in range(2):
        result = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for value, reference in zip(result, expected, strict=True):
            torch.testing.assert_close(value, reference)
