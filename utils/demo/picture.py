"""The image that a person looks at: its pixels, its name, and where on the ground it lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from pyproj.exceptions import ProjError

from utils.decoding import read_header
from utils.demo.checks import Limits, check_upload, safe_name
from utils.imageio import read_image_and_valid, read_label
from utils.metrics import IGNORE
from utils.topology.crs import crs_name
from utils.topology.grid import PixelGrid


@dataclass(frozen=True)
class Place:
    """Where a georeferenced image lies."""

    transform: Affine
    crs: str
    pixel_size_m: float


@dataclass(frozen=True)
class Picture:
    """An image (uint8 H W 3, RGB), where it shows the ground (bool H W), and what is known of it.

    `note` is a sentence on something that was not understood.
    """

    name: str
    image: np.ndarray
    valid: np.ndarray
    place: Place | None = None
    pixel_size_m: float | None = None  # None: not known
    note: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        return self.image.shape[:2]

    @property
    def size_text(self) -> str:
        H, W = self.shape
        return f"{W} x {H} px"


def read_picture(path: Path, name: str, limits: Limits) -> Picture:
    """An upload, called `name`. Raises ValueError in one line that names it by that name."""
    try:
        check_upload(path, limits)
        image, valid = read_image_and_valid(path)
    except (ValueError, MemoryError, OverflowError) as error:
        raise ValueError(_sentence(error, path, name)) from error
    place, note = _read_place(path)
    pixel_size_m = place.pixel_size_m if place else None
    return Picture(safe_name(name), image, valid, place, pixel_size_m, note)


def read_truth(path: Path, name: str, picture: Picture, limits: Limits) -> np.ndarray:
    """The mask of the true roads of a picture: uint8 H W, 1 road, 255 where there is no ground.

    Raises ValueError in one line.
    """
    try:
        check_upload(path, limits)
        mask = read_label(path)
    except (ValueError, MemoryError, OverflowError) as error:
        raise ValueError(_sentence(error, path, name)) from error
    return truth_of(mask, name, picture)


def truth_of(mask: np.ndarray, name: str, picture: Picture) -> np.ndarray:
    """A road mask (H, W) of 0 and 1 as a target, when it has the picture's size."""
    if mask.shape != picture.shape:
        H, W = mask.shape
        raise ValueError(
            f"{_shown(name)}: the mask has {W} x {H} px, the image {picture.size_text}"
        )
    return np.where(picture.valid, mask, np.uint8(IGNORE)).astype(np.uint8)


def _read_place(path: Path) -> tuple[Place | None, str]:
    """Where a GeoTIFF lies, and a sentence when it says so in a way that is of no use."""
    if read_header(path).kind != "tiff":
        return None, ""
    with rasterio.open(path) as source:
        if source.crs is None or source.transform.is_identity:
            return None, ""
        shape, transform, crs = source.shape, source.transform, source.crs
    try:
        name = crs_name(crs)
        pixel_size_m = PixelGrid.of(shape, 1.0, transform, name).pixel_size_m
        if not 0 < pixel_size_m < np.inf:
            raise ValueError("a pixel has no size")
    except (ValueError, ProjError) as error:
        return None, f"Its georeference is left aside: {error}."
    return Place(transform, name, pixel_size_m), ""


def _sentence(error: Exception, path: Path, name: str) -> str:
    """An error's text, with the name that the person knows in place of the server's path."""
    if not isinstance(error, ValueError):
        return f"{_shown(name)}: is too large to be read here"
    reason = str(error).removeprefix(f"{path}: ")
    for known_here in (str(path), path.name):
        reason = reason.replace(known_here, "the file")
    return f"{_shown(name)}: {reason}"


def _shown(name: str) -> str:
    """The name with its suffix, as far as it is safe to show."""
    suffix = "".join(c for c in Path(name).suffix[1:6] if c.isalnum())
    return safe_name(name) + (f".{suffix}" if suffix else "")
