"""The maps of results/RUN: a mask, a probability map and an error map for every image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from utils.encoding import encoded
from utils.files import atomic_path
from utils.image_scores import ImageScores, Scoring, score_image
from utils.plots import error_map
from utils.schema import Inference


class ImageResult(NamedTuple):
    """An image's outcome. The mask is kept as PNG: a few kilobytes, for the pictures at the end."""

    name: str
    road_share: float  # of the image's pixels
    scores: ImageScores
    mask_png: bytes

    @property
    def mask(self) -> np.ndarray:
        """The predicted road, bool (H, W)."""
        return cv2.imdecode(np.frombuffer(self.mask_png, np.uint8), cv2.IMREAD_GRAYSCALE) > 0


def image_result(
    name: str, probability: np.ndarray, scoring: Scoring, target: np.ndarray | None
) -> ImageResult:
    """What a probability map (H, W) makes of an image; `target` holds 0, 1 and 255 (no data)."""
    mask = probability >= np.float32(scoring.threshold)
    scores = ImageScores() if target is None else score_image(probability, target, scoring)
    return ImageResult(
        name, float(mask.mean()), scores, encoded(".png", mask.astype(np.uint8) * 255)
    )


def map_folders(settings: Inference, labelled: bool = True) -> list[str]:
    """The folders that `write_maps` writes to; error maps need labels."""
    wanted = {
        "mask": settings.save_binary_mask,
        "prob": settings.save_prob_map,
        "error_map": settings.save_error_map and labelled,
    }
    return [name for name, write in wanted.items() if write and settings.save_outputs]


def map_files(
    folder: Path, name: str, settings: Inference, labelled: bool = True
) -> dict[str, Path]:
    """The files that `write_maps` writes of an image, by their folders' names."""
    npy = settings.prob_map_format == "npy"
    return {
        kind: folder / kind / f"{name}{'.npy' if kind == 'prob' and npy else '.png'}"
        for kind in map_folders(settings, labelled)
    }


def write_maps(
    folder: Path,
    result: ImageResult,
    probability: np.ndarray,
    target: np.ndarray | None,
    settings: Inference,
) -> list[Path]:
    """Write mask/NAME.png (0 and 255), prob/NAME.png (0..255) or .npy (float32), and
    error_map/NAME.png where there is a label, as `inference.save_...` asks; what was written."""
    files = map_files(folder, result.name, settings, labelled=target is not None)
    if "mask" in files:
        _write(files["mask"], result.mask_png)
    if "prob" in files and settings.prob_map_format == "npy":
        with atomic_path(files["prob"]) as path:
            np.save(path, probability)
    elif "prob" in files:
        _write(files["prob"], encoded(".png", np.rint(probability * 255).astype(np.uint8)))
    if "error_map" in files:
        errors = error_map(result.mask, target)[..., ::-1]  # RGB -> BGR
        _write(files["error_map"], encoded(".png", errors))
    return list(files.values())


def worst_median_best(results: Sequence[ImageResult]) -> list[tuple[str, int]]:
    """What to show: "worst", "median" and "best" by the image's own IoU, with their positions.

    Images without data are passed over; no image stands twice.
    """
    scored = [at for at, result in enumerate(results) if result.scores.counts.has_data]
    scored.sort(key=lambda at: (results[at].scores.values()["iou"], results[at].name))
    if len(scored) < 2:
        return [("only image", at) for at in scored]
    roles = {scored[len(scored) // 2]: "median", scored[0]: "worst", scored[-1]: "best"}
    return [(roles[at], at) for at in scored if at in roles]


def _write(path: Path, data: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
