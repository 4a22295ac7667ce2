"""Image and target stay together; every step is applied as often, and as far, as configured."""

from __future__ import annotations

import colorsys
from collections import Counter

import cv2
import numpy as np
import pytest
from scipy.ndimage import affine_transform

from utils.augment import IGNORE, Augment, shift_colour
from utils.schema import Augmentation

STILL = {
    "hue": 0,
    "saturation": 0,
    "value": 0,
    "shift": 0,
    "scale": 0,
    "flip": False,
    "rotate90": False,
}


def settings(**changes) -> Augmentation:
    return Augmentation(**(STILL | changes))


@pytest.fixture(scope="module")
def mask() -> np.ndarray:
    """Blobs of some 10 px, 96 x 96."""
    noise = np.random.default_rng(1).random((96, 96)).astype(np.float32)
    return (cv2.GaussianBlur(noise, (0, 0), 5) > 0.5).astype(np.uint8)


def shown(mask: np.ndarray) -> np.ndarray:
    """An image of the mask: 200 where it is 1, 50 where it is 0."""
    return np.repeat((mask * 150 + 50)[..., None], 3, axis=2)


def test_without_probability_nothing_changes(mask: np.ndarray):
    image, target = Augment(Augmentation(probability=0))(
        shown(mask), mask, np.random.default_rng(0)
    )
    assert (image == shown(mask)).all() and (target == mask).all()


@pytest.mark.parametrize("changes", [{"flip": True}, {"rotate90": True}])
def test_flips_and_turns_keep_image_and_target_equal(mask: np.ndarray, changes: dict):
    augment = Augment(settings(probability=0.5, **changes))
    for seed in range(20):
        image, target = augment(shown(mask), mask, np.random.default_rng(seed))
        assert (image == shown(target)).all()


def test_shift_and_scale_keep_image_and_target_together(mask: np.ndarray):
    augment = Augment(settings(probability=1, shift=0.1, scale=0.1))
    for seed in range(20):
        image, target = augment(shown(mask), mask, np.random.default_rng(seed))
        assert set(np.unique(target)) <= {0, 1, IGNORE}
        square = np.ones((5, 5), np.uint8)
        inner = cv2.erode(target, square) == cv2.dilate(target, square)  # away from edges
        inner[[0, 1, -2, -1]] = inner[:, [0, 1, -2, -1]] = False
        assert inner.mean() > 0.3
        brightness = np.choose(np.minimum(target, 2), [50, 200, 0])
        assert np.abs(image[inner].astype(int) - brightness[inner][:, None]).max() <= 1


def test_what_comes_in_from_outside_is_ignored():
    augment = Augment(settings(probability=1, shift=0.1, scale=0.1))
    image = np.full((100, 100, 3), 90, np.uint8)
    target = np.zeros((100, 100), np.uint8)
    with_outside = 0
    for seed in range(20):
        changed, changed_target = augment(image, target, np.random.default_rng(seed))
        outside = (changed == 0).all(axis=2)
        assert (changed_target[outside] == IGNORE).all()
        ignored = changed_target == IGNORE
        # The image fades over a pixel at the seam, where the target has to decide.
        assert (changed[ignored] < 90).all()
        with_outside += ignored.any()
        assert ignored.mean() < 1 - 0.8**2  # shift 10 %, and half of scale 10 % at each side
    assert with_outside > 10


@pytest.mark.parametrize(("shift", "scale"), [(0.1, 0.0), (0.0, 0.1)])
def test_shift_and_scale_stay_in_their_limits(shift: float, scale: float):
    side = 200
    rows, columns = np.mgrid[:side, :side].astype(np.uint8) + 1
    image = np.stack([rows, columns, rows], axis=2)
    augment = Augment(settings(probability=1, shift=shift, scale=scale))
    shifts, scales = [], []
    for seed in range(60):
        changed, _ = augment(image, np.zeros((side, side), np.uint8), np.random.default_rng(seed))
        near, far = changed[60, 60].astype(float), changed[140, 140].astype(float)
        scales.append(80 / (far - near)[:2].mean())
        shifts += ((near + far)[:2] / 2 - 101).tolist()
    assert np.abs(shifts).max() <= shift * side + 1.5
    assert np.ptp(shifts) >= 1.2 * shift * side
    assert np.abs(np.array(scales) - 1).max() <= scale + 0.02
    assert np.ptp(scales) >= 1.2 * scale


def test_the_eight_positions_all_occur_and_steps_are_independent(mask: np.ndarray):
    augment = Augment(settings(probability=0.5, flip=True, rotate90=True))
    positions = [np.rot90(flipped, turns) for flipped in (mask, mask[::-1]) for turns in range(4)]
    seen = Counter()
    for seed in range(400):
        _, target = augment(shown(mask), mask, np.random.default_rng(seed))
        (position,) = (n for n, known in enumerate(positions) if (known == target).all())
        seen[position] += 1
    assert len(seen) == 8
    # Both flips at p = 1/2 are a coin for mirrored or not, whatever the turn.
    assert 0.4 < sum(seen[n] for n in range(4, 8)) / 400 < 0.6


def test_both_flips_are_drawn_apart(mask: np.ndarray):
    augment = Augment(settings(probability=0.5, flip=True))
    seen = Counter()
    for seed in range(200):
        _, target = augment(shown(mask), mask, np.random.default_rng(seed))
        seen[(target == mask).all(), (target == mask[::-1]).all()] += 1
    assert 25 < seen[True, False] < 75  # neither flip
    assert 25 < seen[False, True] < 75  # the vertical one alone


def test_colour_stays_in_its_limits_and_out_of_the_target(mask: np.ndarray):
    hsv = np.zeros((96, 96, 3), np.uint8)
    hsv[..., 0], hsv[..., 1], hsv[..., 2] = 60 + 20 * mask, 120, 120
    image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    before = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(int)
    augment = Augment(settings(probability=1, hue=30, saturation=5, value=15))
    hues, values = [], []
    for seed in range(40):
        changed, target = augment(image, mask, np.random.default_rng(seed))
        assert (target == mask).all()
        difference = cv2.cvtColor(changed, cv2.COLOR_RGB2HSV).astype(int) - before
        assert np.abs(difference[..., 0]).max() <= 30 + 2  # and what 8 bits round
        assert np.abs(difference[..., 1]).max() <= 5 + 3
        assert np.abs(difference[..., 2]).max() <= 15 + 1
        hues.append(np.median(difference[..., 0]))
        values.append(np.median(difference[..., 2]))
    assert np.ptp(hues) > 35 and np.ptp(values) > 15


def test_steps_are_applied_as_often_as_configured(mask: np.ndarray):
    augment = Augment(settings(probability=0.2, value=40))
    changed = 0
    for seed in range(300):
        image, _ = augment(shown(mask), mask, np.random.default_rng(seed))
        changed += (image != shown(mask)).any()
    assert 30 < changed < 90


def test_the_generator_decides(mask: np.ndarray):
    first, second = Augment(Augmentation()), Augment(Augmentation())
    second(shown(mask), mask, np.random.default_rng(9))  # a past must not matter
    for seed in range(5):
        ours, theirs = (
            augment(shown(mask), mask, np.random.default_rng(seed)) for augment in (first, second)
        )
        assert (ours[0] == theirs[0]).all() and (ours[1] == theirs[1]).all()


def test_ignored_pixels_stay_ignored(mask: np.ndarray):
    target = np.where(mask == 1, IGNORE, 0).astype(np.uint8)
    _, changed = Augment(Augmentation(probability=1))(shown(mask), target, np.random.default_rng(3))
    assert set(np.unique(changed)) == {0, IGNORE}


def test_a_shift_may_leave_nothing():
    augment = Augment(settings(probability=1, shift=1, scale=0.9))
    image, target = np.full((40, 30, 3), 90, np.uint8), np.zeros((40, 30), np.uint8)
    empty = 0
    for seed in range(30):
        changed, changed_target = augment(image, target, np.random.default_rng(seed))
        assert changed.shape == image.shape and changed_target.shape == target.shape
        assert ((changed == 0).all(axis=2) == (changed_target == IGNORE)).all()
        empty += (changed == 0).all()
    assert 0 < empty < 30


@pytest.mark.parametrize("shift", [(25, 0, 0), (-30, 0, 0), (0, 40, 0), (0, -5, 15), (179, 9, -40)])
def test_colour_against_the_standard_library(shift: tuple[float, float, float]):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (12, 20, 3), dtype=np.uint8)
    image[0] = 90  # grey, whose hue means nothing
    changed = shift_colour(image, *shift).astype(int)
    errors = []
    for pixel, found in zip(image.reshape(-1, 3), changed.reshape(-1, 3), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*(pixel / 255))
        h = (h + shift[0] / 180) % 1
        s, v = (min(max(x + d / 255, 0), 1) for x, d in ((s, shift[1]), (v, shift[2])))
        expected = np.array(colorsys.hsv_to_rgb(h, s, v)) * 255
        errors.append(np.abs(found - expected).max())
    # one of 256 hues is 6 steps of a channel; hue, shift and result are rounded
    assert np.max(errors) <= 11 and np.mean(errors) <= 3.5


def test_geometry_against_scipy(mask: np.ndarray):
    """Both shrink or grow about the centre, the image linearly, by the same amounts."""
    image = cv2.GaussianBlur(shown(mask), (0, 0), 2)
    augment = Augment(settings(probability=1, scale=0.3))
    for seed in range(5):
        changed, target = augment(image, mask, np.random.default_rng(seed))
        best = min(
            (np.abs(_scaled(image[..., 0], scale) - changed[..., 0]).mean(), scale)
            for scale in np.linspace(0.7, 1.3, 121)
        )
        assert best[0] < 2
        inner = slice(20, -20)
        expected = _scaled(mask.astype(np.float32), best[1])[inner, inner] > 0.5
        assert ((target[inner, inner] == 1) == expected).mean() > 0.97


def _scaled(plane: np.ndarray, scale: float) -> np.ndarray:
    centre = (np.array(plane.shape) - 1) / 2
    offset = centre - centre / scale
    return affine_transform(plane.astype(np.float32), np.eye(2) / scale, offset, order=1)
