"""Random changes of a training crop: the same geometry for image and target, colour for the image.

The steps and their limits are those of `Augmentation` in utils/schema.py; each is applied with
its `probability`.
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


class Augment:
    """Changes image (uint8 H W 3) and target (uint8 H W in {0, 1, IGNORE}) together.

    Colour: hue, saturation and value shift by up to the limits, on OpenCV's 8-bit HSV scale.
    Geometry: scale about the centre and shift, by shares of the side, then flips and a turn by a
    multiple of 90 degrees. Pixels that come in from outside are black, and IGNORE in the target.
    """

    def __init__(self, settings: Augmentation) -> None:
        self._steps = A.Compose(_steps(settings))

    def __call__(
        self, image: np.ndarray, target: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """All that is random comes from `rng`."""
        # Not set_random_seed, which gives each step the same seed: all of them would be applied,
        # or none.
        self._steps.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        changed = self._steps(image=image, mask=target)
        return changed["image"], changed["mask"]


def _steps(settings: Augmentation) -> list[A.BasicTransform]:
    p = settings.probability
    steps: list[A.BasicTransform] = []
    if settings.hue or settings.saturation or settings.value:
        steps.append(
            A.HueSaturationValue(settings.hue, settings.saturation, settings.value, p=p),
        )
    if settings.shift or settings.scale:
        steps.append(
            A.Affine(
                scale=(1 - settings.scale, 1 + settings.scale),
                translate_percent=(-settings.shift, settings.shift),
                keep_ratio=True,
                interpolation=cv2.INTER_LINEAR,
                mask_interpolation=cv2.INTER_NEAREST,
                border_mode=cv2.BORDER_CONSTANT,
                fill=0,
                fill_mask=IGNORE,
                p=p,
            )
        )
    if settings.flip:
        steps += [A.HorizontalFlip(p=p), A.VerticalFlip(p=p)]
    if settings.rotate90:
        steps.append(A.RandomRotate90(p=p))
    return steps
