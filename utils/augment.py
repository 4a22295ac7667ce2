"""Random changes of a training crop: the same geometry for image and target, colour for the image.

The steps and their limits are those of `Augmentation` in utils/schema.py; each is applied with
its `probability`. They are those of the method's published training. Flips and turns are
albumentations'; HueSaturationValue and ShiftScaleRotate (without rotation), which take most of its
time, are written out here in one pass each.
"""

from __future__ import annotations

import os
import random

import cv2
import numpy as np

# albumentations asks the package index for its newest version when it is imported.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations as A

from utils.metrics import IGNORE
from utils.schema import Augmentation

#: OpenCV's 8-bit hue has 180 steps; in its full range of 256 a sum that overflows is the right hue.
HUE_STEPS, FULL_HUE_STEPS = 180, 256


class Augment:
    """Changes image (uint8 H W 3) and target (uint8 H W in {0, 1, IGNORE}) together.

    Colour: hue, saturation and value shift by up to the limits, on OpenCV's 8-bit HSV scale.
    Geometry: scale about the centre and shift, by shares of the side, then flips and a turn by a
    multiple of 90 degrees. Pixels that come in from outside are black, and IGNORE in the target.
    """

    def __init__(self, settings: Augmentation) -> None:
        self._settings = settings
        p = settings.probability
        flips = [A.HorizontalFlip(p=p), A.VerticalFlip(p=p)] if settings.flip else []
        turns = [A.RandomRotate90(p=p)] if settings.rotate90 else []
        self._positions = A.Compose(flips + turns)

    def __call__(
        self, image: np.ndarray, target: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """All that is random comes from `rng`."""
        limits = self._settings
        recolours, moves = rng.random(2) < limits.probability
        colour = rng.uniform(-1, 1, 3) * (limits.hue, limits.saturation, limits.value)
        shift = rng.uniform(-limits.shift, limits.shift, 2)
        scale = rng.uniform(1 - limits.scale, 1 + limits.scale)
        if recolours and colour.any():
            image = shift_colour(image, *colour)
        if moves:
            image = _move(image, scale, shift, cv2.INTER_LINEAR, 0)
            target = _move(target, scale, shift, cv2.INTER_NEAREST_EXACT, IGNORE)
        # Not set_random_seed, which gives each step the same seed: all of them would be applied,
        # or none.
        self._positions.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        changed = self._positions(image=image, mask=target)
        return changed["image"], changed["mask"]


def shift_colour(image: np.ndarray, hue: float, saturation: float, value: float) -> np.ndarray:
    """`image` (uint8 H W 3, RGB) with its hue turned, and saturation and value raised and clipped.

    The amounts are on OpenCV's 8-bit scale: 180 for all hues, 255 for the others.
    """
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    H, W, _ = hsv.shape
    turn = round(hue * FULL_HUE_STEPS / HUE_STEPS) % FULL_HUE_STEPS
    up = np.array([turn, max(0, round(saturation)), max(0, round(value))], np.uint8)
    down = np.array([0, max(0, -round(saturation)), max(0, -round(value))], np.uint8)
    most = np.array([255, 255 - up[1], 255 - up[2]], np.uint8)
    rows = hsv.reshape(H, 3 * W)  # whole rows at a time: many times faster than pixels of three
    most, up, down = (np.tile(pixel, W) for pixel in (most, up, down))
    np.minimum(rows, most, out=rows)
    rows += up  # of the hue, which has no bounds, it wraps
    np.maximum(rows, down, out=rows)
    rows -= down
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def _move(
    array: np.ndarray, scale: float, shift: np.ndarray, interpolation: int, outside: int
) -> np.ndarray:
    """Scaled about the centre, then shifted, both to whole pixels: so a resize is enough, which is
    twice as fast as a warp."""
    H, W = array.shape[:2]
    # An even difference keeps the centre.
    height, width = (max(1, side + 2 * round((scale - 1) * side / 2)) for side in (H, W))
    scaled = cv2.resize(array, (width, height), interpolation=interpolation)
    top = (H - height) // 2 + int(shift[1] * H)
    left = (W - width) // 2 + int(shift[0] * W)
    moved = np.full_like(array, outside)
    rows, scaled_rows = _overlap(top, height, H)
    columns, scaled_columns = _overlap(left, width, W)
    moved[rows, columns] = scaled[scaled_rows, scaled_columns]
    return moved


def _overlap(start: int, length: int, side: int) -> tuple[slice, slice]:
    """Of a line of `length` that begins at `start`: what lies within 0..side, there and in it."""
    first = max(0, start)
    last = max(first, min(side, start + length))
    return slice(first, last), slice(first - start, last - start)
