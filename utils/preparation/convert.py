"""One image and its label from a distribution into the layout, whole or cut into tiles.

An 8-bit image that stays whole is copied byte for byte. Tiles, and 16-bit chips that are
stretched, are written without loss: as GeoTIFF where the source has a place, else as PNG. Masks
are written anew, 0 and 255 in one band, in the same way.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.windows import Window
from rasterio.windows import transform as window_transform

from utils.dataset_check import examine
from utils.decoding import Crop, decode, read_header
from utils.encoding import encoded
from utils.files import atomic_path, sha256
from utils.imageio import read_image_and_valid, read_label
from utils.pairing import Pair
from utils.preparation.lines import draw_lines
from utils.preparation.manifest import Row
from utils.preparation.sources import Source
from utils.stretch import Limits, to_8bit

_GEOTIFF = {
    "driver": "GTiff",
    "dtype": "uint8",
    "tiled": True,
    "blockxsize": 256,
    "blockysize": 256,
    "compress": "deflate",
    "predictor": 2,
}


class Place(NamedTuple):
    """Where on the ground an image lies."""

    crs: CRS
    transform: Affine

    def of(self, crop: Crop) -> Place:
        window = Window(crop.left, crop.top, crop.width, crop.height)
        return Place(self.crs, window_transform(window, self.transform))


@dataclass(frozen=True)
class Conversion:
    """How every source is brought into `folder` (ROOT/DATASET)."""

    src: Path
    folder: Path
    tile: int | None  # side in pixels; None: images stay whole
    overlap: int  # pixels that neighbouring tiles share, the last of a row or column more
    road_width_m: float | None = None
    limits: dict[str, Limits] = field(default_factory=dict)  # by part; of 16-bit imagery

    def convert(self, source: Source, split: str) -> list[Row]:
        """Write the pair, or its tiles; tiles without any data are left out.

        Raises ValueError, one line, when image or label cannot be read.
        """
        mask = self._mask(source)
        place = _place(source.image)
        if self.tile is None and self._limits(source) is None:
            image = self.folder / split / "image" / (source.name + source.image.suffix.lower())
            label = self._write_mask(split, source.name, mask, place)
            with atomic_path(image) as temporary:
                shutil.copyfile(source.image, temporary)
            pairs = [(Pair(source.name, image, label), Crop(0, 0, *mask.shape))]
        else:
            pairs = list(self._write_tiles(source, split, mask, place))
        origin = self.origin(source, split)
        try:
            return [_row(pair, crop, origin) for pair, crop in pairs]
        except ValueError as error:  # a copy shows only here that it cannot be decoded
            for pair, _ in pairs:
                pair.image.unlink()
                pair.label.unlink()
            copied = str(pairs[0][0].image)
            raise ValueError(str(error).replace(copied, str(source.image))) from None

    def origin(self, source: Source, split: str) -> dict[str, str]:
        """What a pair is made from, and how, as its rows tell it: see `Row.is_of`."""
        limits = self._limits(source) or ()
        return {
            "split": split,
            "source": self.relative(source.image),
            "source_label": self.relative(source.label),
            "source_sha256": sha256(source.image),
            "source_label_sha256": sha256(source.label),
            "stretch": " ".join(f"{low}-{high}" for low, high in limits),
        }

    def _limits(self, source: Source) -> Limits | None:
        is_8bit = read_header(source.image).crops_cheaply
        return None if is_8bit else self.limits.get(source.part)

    def _mask(self, source: Source) -> np.ndarray:
        if source.label.suffix.lower() == ".geojson":
            return draw_lines(source.label, source.image, self.road_width_m)
        return read_label(source.label)

    def _write_tiles(
        self, source: Source, split: str, mask: np.ndarray, place: Place | None
    ) -> Iterator[tuple[Pair, Crop]]:
        image, valid = _pixels(source.image, self._limits(source))
        for crop in self._crops(*mask.shape):
            if not crop.of(valid).any():
                continue
            name = source.name if self.tile is None else f"{source.name}_{crop.top}_{crop.left}"
            where = place and place.of(crop)
            label_path = self._write_mask(split, name, crop.of(mask), where)
            path = self.folder / split / "image" / (name + _suffix(place))
            _write_image(path, crop.of(image), crop.of(valid), where)
            yield Pair(name, path, label_path), crop

    def _crops(self, height: int, width: int) -> list[Crop]:
        """Neighbours share `overlap` pixels; the last row and column end at the image's edge."""
        if self.tile is None:
            return [Crop(0, 0, height, width)]
        tops, lefts = (self._starts(length) for length in (height, width))
        size = min(self.tile, height), min(self.tile, width)
        return [Crop(top, left, *size) for top in tops for left in lefts]

    def _starts(self, length: int) -> list[int]:
        last = max(0, length - self.tile)
        return [*range(0, last, self.tile - self.overlap), last]

    def _write_mask(self, split: str, name: str, mask: np.ndarray, place: Place | None) -> Path:
        path = self.folder / split / "label" / (name + _suffix(place))
        with atomic_path(path) as temporary:
            if place:
                _write_geotiff(temporary, mask[..., None] * np.uint8(255), None, place)
            else:
                _write_png(temporary, mask * np.uint8(255))
        return path

    def relative(self, path: Path) -> str:
        """As the manifest names a source."""
        return path.relative_to(self.src).as_posix()


def _row(pair: Pair, crop: Crop, origin: dict[str, str]) -> Row:
    """What the manifest says of a pair, by what was written."""
    report = examine(pair)
    if report.problem:
        raise ValueError(report.problem)
    return Row(
        name=pair.name,
        top=crop.top,
        left=crop.left,
        width=report.width,
        height=report.height,
        road_share=round(report.road_px / max(1, report.valid_px), 6),
        image=pair.image.name,
        label=pair.label.name,
        image_sha256=sha256(pair.image),
        label_sha256=sha256(pair.label),
        **origin,
    )


def _pixels(path: Path, limits: Limits | None) -> tuple[np.ndarray, np.ndarray]:
    """uint8 H W 3, and where there is data: bool H W."""
    if limits is None:
        return read_image_and_valid(path)
    values, has_data = decode(path)
    valid = (values > 0).any(axis=2)
    if has_data is not None:
        valid &= has_data
    image = to_8bit(values[..., :3].transpose(2, 0, 1), valid, limits)  # HWC -> CHW
    return image.transpose(1, 2, 0), valid  # CHW -> HWC


def _place(path: Path) -> Place | None:
    if read_header(path).kind != "tiff":
        return None
    with rasterio.open(path) as source:
        return Place(source.crs, source.transform) if source.crs else None


def _suffix(place: Place | None) -> str:
    return ".tif" if place else ".png"


def _write_image(path: Path, image: np.ndarray, valid: np.ndarray, place: Place | None) -> None:
    """Pixels without data become transparent; there is an alpha band only where there are some."""
    alpha = None if valid.all() else valid * np.uint8(255)
    with atomic_path(path) as temporary:
        if place:
            _write_geotiff(temporary, image, alpha, place)
        else:
            pixels = image if alpha is None else np.dstack([image, alpha])
            _write_png(temporary, pixels)


def _write_geotiff(path: Path, bands: np.ndarray, alpha: np.ndarray | None, place: Place) -> None:
    """bands: H W C of 1 or 3."""
    if alpha is not None:
        bands = np.dstack([bands, alpha])
    height, width, count = bands.shape
    shape = {"height": height, "width": width, "count": count}
    colours = {"photometric": "RGB"} if count >= 3 else {}
    with rasterio.open(path, "w", **_GEOTIFF, **shape, **colours, **place._asdict()) as target:
        target.write(np.ascontiguousarray(bands.transpose(2, 0, 1)))  # HWC -> CHW
        if alpha is not None:
            target.colorinterp = [*target.colorinterp[:-1], ColorInterp.alpha]


def _write_png(path: Path, pixels: np.ndarray) -> None:
    """RGB, RGB with alpha, or grey."""
    if pixels.ndim == 3:
        swap = cv2.COLOR_RGB2BGR if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
        pixels = cv2.cvtColor(np.ascontiguousarray(pixels), swap)
    path.write_bytes(encoded(".png", pixels))
