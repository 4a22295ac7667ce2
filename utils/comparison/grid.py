"""The test images on which the models disagree most: image, truth, and each model's errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from utils.dataset import WholeImages
from utils.decoding import Crop
from utils.metrics import IGNORE
from utils.plots import ERROR_LEGEND, error_map, mask_rgb
from utils.sheet import Row, write_sheet

NUM_IMAGES = 4
CROP_PX = 384  # side of what is shown of a larger image: where the disagreement is


def draw_disagreement(images: WholeImages, masks: Mapping[str, Path], path: Path) -> None:
    """Write the grid; `masks` are the folders of the models' masks, NAME.png, by model."""
    ranked = sorted(
        ((_disagreement(_votes(masks, item["name"]), item["target"].numpy()).mean(), index)
         for index, item in enumerate(images)),
        key=lambda pair: (-pair[0], pair[1]),
    )  # fmt: skip
    rows = []
    for share, index in ranked[:NUM_IMAGES]:
        item = images[index]
        image, target = item["image"].permute(1, 2, 0).numpy(), item["target"].numpy()  # CHW -> HWC
        votes = _votes(masks, item["name"])
        crop = _most_disputed(_disagreement(votes, target))
        panels = [crop.of(image), mask_rgb(crop.of(target))]
        panels += [error_map(crop.of(mask), crop.of(target)) for mask in votes]
        title = f"{item['name']}   {100 * share:.1f} % disputed"
        if crop.of(target).shape != target.shape:
            title += f"   {crop.width} x {crop.height} px from ({crop.left}, {crop.top})"
        rows.append(Row(title, panels))
    write_sheet(["image", "truth", *masks], rows, path, legend=ERROR_LEGEND)


def _votes(masks: Mapping[str, Path], name: str) -> list[np.ndarray]:
    """Each model's mask, bool (H, W). Raises ValueError for one that is not there."""
    found = []
    for folder in masks.values():
        mask = cv2.imread(str(folder / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
        if mask is None:
            raise ValueError(f"{folder / name}.png: no such mask, remove {folder.parent}")
        found.append(mask > 0)
    return found


def _disagreement(votes: Sequence[np.ndarray], target: np.ndarray) -> np.ndarray:
    """0 where all agree or nothing is known, up to 1 where half of the models say road."""
    share = np.mean(votes, axis=0)
    return np.where(target == IGNORE, 0.0, 4 * share * (1 - share))


def _most_disputed(disagreement: np.ndarray) -> Crop:
    """The window of CROP_PX with the most disagreement; of small images all."""
    H, W = disagreement.shape
    height, width = min(CROP_PX, H), min(CROP_PX, W)
    sums = cv2.integral(disagreement)
    windows = (
        sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width]
        + sums[:-height, :-width]
    )  # fmt: skip
    top, left = np.unravel_index(np.argmax(windows), windows.shape)
    return Crop(int(top), int(left), height, width)
