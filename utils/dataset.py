"""Training crops and whole images as tensors; pixels without data are IGNORE in the target."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from utils.augment import IGNORE, Augment
from utils.decoding import Crop
from utils.imageio import (
    read_image,
    read_image_and_valid,
    read_label,
    read_size,
    valid_pixels,
)
from utils.pairing import Pair, find_pairs
from utils.schema import Augmentation

__all__ = [
    "IGNORE",
    "Pair",
    "TrainCrops",
    "WholeImages",
    "find_pairs",
    "read_image",
    "read_label",
    "valid_pixels",
]

#: Places that are tried for a crop in which anything can be learnt.
MAX_DRAWS = 5


class TrainCrops(Dataset):
    """Random crops of `image_size` px at native resolution, augmented.

    Every random choice comes from (seed, epoch, index): a crop is the same whatever process
    reads it. A crop that holds no data at all is drawn anew, up to MAX_DRAWS times. Images
    smaller than the crop are padded below and to the right: black, and IGNORE in the target.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        image_size: int,
        augmentation: Augmentation,
        seed: int,
        crops_per_image: int = 1,
        ignore_nodata: bool = True,
    ) -> None:
        self.pairs = list(pairs)
        self.image_size = image_size
        self.seed = seed
        self.crops_per_image = crops_per_image
        self.ignore_nodata = ignore_nodata
        self._augment = Augment(augmentation)

    def __len__(self) -> int:
        return len(self.pairs) * self.crops_per_image

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor | str]:
        """The crop `index` of `epoch`, by key = (epoch, index).

        Returns image uint8 (3, S, S), target uint8 (S, S) in {0, 1, IGNORE}, and name.
        """
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        pair = self.pairs[index // self.crops_per_image]
        H, W = read_size(pair.image)
        for _ in range(MAX_DRAWS):
            crop = _draw_crop(rng, H, W, self.image_size)
            image, target = _read_pair(pair, (H, W), crop, self.ignore_nodata)
            if (target != IGNORE).any():
                break
        image, target = _pad(image, target, self.image_size)
        return to_sample(*self._augment(image, target, rng), pair.name)


class WholeImages(Dataset):
    """Images in native size with their targets, for evaluation.

    Returns image uint8 (3, H, W), target uint8 (H, W) in {0, 1, IGNORE}, and name.
    """

    def __init__(self, pairs: Sequence[Pair], ignore_nodata: bool = True) -> None:
        self.pairs = list(pairs)
        self.ignore_nodata = ignore_nodata

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        pair = self.pairs[index]
        size = read_size(pair.image)
        return to_sample(*_read_pair(pair, size, None, self.ignore_nodata), pair.name)


def _draw_crop(rng: np.random.Generator, H: int, W: int, side: int) -> Crop:
    """A square of `side`, anywhere; the whole of a side that is shorter."""
    height, width = min(side, H), min(side, W)
    top, left = rng.integers(H - height + 1), rng.integers(W - width + 1)
    return Crop(int(top), int(left), height, width)


def _read_pair(
    pair: Pair, size: tuple[int, int], crop: Crop | None, ignore_nodata: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 H W 3 and target uint8 H W in {0, 1, IGNORE}."""
    if read_size(pair.label) != size:
        raise ValueError(
            f"{pair.label}: {_by(read_size(pair.label))} px, but its image has {_by(size)} px"
        )
    image, valid = read_image_and_valid(pair.image, crop)
    target = read_label(pair.label, crop)
    if ignore_nodata:
        target[~valid] = IGNORE
    return image, target


def _by(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"


def _pad(image: np.ndarray, target: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    below, right = side - image.shape[0], side - image.shape[1]
    if not below and not right:
        return image, target
    return (
        np.pad(image, ((0, below), (0, right), (0, 0))),
        np.pad(target, ((0, below), (0, right)), constant_values=IGNORE),
    )


def to_sample(image: np.ndarray, target: np.ndarray, name: str) -> dict[str, Tensor | str]:
    return {
        "image": torch.from_numpy(_planes(image)),
        "target": torch.from_numpy(np.ascontiguousarray(target)),
        "name": name,
    }


def _planes(image: np.ndarray) -> np.ndarray:
    """HWC -> CHW; OpenCV is several times faster at it than NumPy."""
    H, W, C = image.shape
    planes = np.empty((C, H, W), image.dtype)
    cv2.split(image, list(planes))
    return planes
