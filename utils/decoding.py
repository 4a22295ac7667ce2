"""JPEG, PNG and TIFF files as they were stored: values, and where the file says that it has none.

`utils.imageio` makes 8-bit images and road masks of them.
"""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import rasterio
from PIL import ExifTags, Image, ImageOps
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

# Most training tiles have no georeference, and need none.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
# Pillow takes scenes over 179 million pixels for an attack; here they are the normal case.
Image.MAX_IMAGE_PIXELS = None

_JPEG, _JPEG_END, _PNG = b"\xff\xd8\xff", b"\xff\xd9", b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_UNREADABLE = (OSError, SyntaxError, EOFError, ValueError, struct.error, cv2.error)


class Crop(NamedTuple):
    """A part of an image, in pixels of the image as it is seen (after an EXIF rotation)."""

    top: int
    left: int
    height: int
    width: int

    def of(self, array: np.ndarray) -> np.ndarray:
        return array[self.top : self.top + self.height, self.left : self.left + self.width]


class Decoded(NamedTuple):
    values: np.ndarray  # H W C: 1 or 3 colours in the file's own type, or palette indices
    has_data: np.ndarray | None  # bool H W: False where alpha is 0 or nodata; None: all true


class Header(NamedTuple):
    height: int
    width: int
    crops_cheaply: bool  # 8-bit TIFF: `decode` reads only the rows or tiles of a crop


def read_header(path: Path) -> Header:
    """The size, without decoding. Raises ValueError, one line, when the file has none."""
    with _one_line_errors(path):
        kind = _kind(path)
        if kind == "jpeg":
            with Image.open(path) as picture:
                width, height = picture.size
                dtypes = set()
        else:
            with _open(path) as source:
                height, width = source.shape
                dtypes = set(source.dtypes)
        turned = _orientation(path)
        if turned >= 5:  # EXIF 5-8: the sides change places
            height, width = width, height
        return Header(height, width, kind == "tiff" and dtypes == {"uint8"} and turned == 1)


def decode(path: Path, crop: Crop | None = None, *, palette_indices: bool = False) -> Decoded:
    """The pixels of `path`, or of a part of it, with the EXIF rotation applied.

    Bands: one is grey; two are grey and alpha; of three or more the first three are red, green
    and blue, and a band marked as alpha is no colour. A palette is looked up, unless
    `palette_indices`. Raises ValueError, one line naming the file, when it cannot be read.
    """
    with _one_line_errors(path):
        if _kind(path) == "jpeg":
            decoded = Decoded(_decode_jpeg(path), None)
        elif crop is not None and read_header(path).crops_cheaply:
            return _decode_bands(path, crop, palette_indices)
        else:
            decoded = _decode_bands(path, None, palette_indices)
            turned = _orientation(path)
            decoded = Decoded(*(_turn(part, turned) for part in decoded))
    if crop is None:
        return decoded
    return Decoded(*(part if part is None else crop.of(part) for part in decoded))


def has_end(path: Path) -> bool:
    """False for a JPEG or PNG that does not end as it should, and may be truncated."""
    kind = _kind(path)
    with open(path, "rb") as file:
        file.seek(-min(64, path.stat().st_size), os.SEEK_END)
        tail = file.read()
    if kind == "jpeg":
        return tail.rstrip(b"\0").endswith(_JPEG_END)
    return kind == "tiff" or b"IEND" in tail


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        if isinstance(error, ValueError) and str(error).startswith(f"{path}: "):
            raise  # one of ours
        cause = error.__cause__ or error  # GDAL's reason is behind rasterio's "Read failed"
        reason = str(cause).replace("\n", " ").strip() or type(cause).__name__
        raise ValueError(f"{path}: cannot be read as an image: {reason}") from error


def _kind(path: Path) -> str:
    """By content, since names lie."""
    with open(path, "rb") as file:
        start = file.read(len(_PNG))
    if not start:
        raise ValueError(f"{path}: is empty")
    if start.startswith(_JPEG):
        return "jpeg"
    if start == _PNG:
        return "png"
    if start.startswith(_TIFF):
        return "tiff"
    raise ValueError(f"{path}: is no JPEG, PNG or TIFF file")


def _decode_jpeg(path: Path) -> np.ndarray:
    """uint8 H W 3. OpenCV is the faster decoder, but shows a truncated file as half grey."""
    data = path.read_bytes()
    if data.rstrip(b"\0").endswith(_JPEG_END):
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        if image is not None:
            return image
    with Image.open(path) as picture:
        return np.array(ImageOps.exif_transpose(picture).convert("RGB"))


@contextmanager
def _open(path: Path) -> Iterator[rasterio.DatasetReader]:
    # Without this GDAL lists the whole folder each time it opens a file in it.
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="TRUE"), rasterio.open(path) as source:
        yield source


def _decode_bands(path: Path, crop: Crop | None, palette_indices: bool) -> Decoded:
    window = crop and Window(crop.left, crop.top, crop.width, crop.height)
    with _open(path) as source:
        colours = [
            band
            for band, meaning in zip(source.indexes, source.colorinterp, strict=True)
            if meaning != ColorInterp.alpha
        ]
        colours = colours[:3] if len(colours) >= 3 else colours[:1]
        values = source.read(colours, window=window)
        values = np.ascontiguousarray(values.transpose(1, 2, 0))  # CHW -> HWC
        all_valid = all(MaskFlags.all_valid in flags for flags in source.mask_flag_enums)
        has_data = None if all_valid else source.dataset_mask(window=window) > 0
        if source.colorinterp[0] != ColorInterp.palette:
            return Decoded(_spread_few_bits(values, _bits(path, source)), has_data)
        if palette_indices:
            inverted = source.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES"
            return Decoded(values.max(initial=1) - values if inverted else values, has_data)
        table = np.zeros((np.iinfo(values.dtype).max + 1, 4), np.uint8)
        for index, colour in source.colormap(1).items():
            table[index] = colour
        looked_up = table[values[..., 0]]
        opaque = looked_up[..., 3] > 0
        return Decoded(looked_up[..., :3], opaque if has_data is None else opaque & has_data)


def _bits(path: Path, source: rasterio.DatasetReader) -> int:
    """Bits of a stored value: GDAL reads a PNG of 1, 2 or 4 bits as it is, and does not say so."""
    if source.driver == "PNG":
        with open(path, "rb") as file:
            return file.read(25)[24]  # IHDR's bit depth
    return int(source.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8))


def _spread_few_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """1, 2 and 4 bits to the whole range of 8."""
    return values * np.uint8(255 // (2**bits - 1)) if bits in (1, 2, 4) else values


def _orientation(path: Path) -> int:
    """EXIF orientation, 1 to 8; a georeferenced file is north up as it is."""
    try:
        with Image.open(path) as picture:
            if picture.format == "TIFF" and _GEO_TAGS & set(picture.tag_v2):
                return 1
            if picture.format == "PNG" and "exif" not in picture.info:
                return 1  # asked for it, Pillow would decode the image to look behind it
            turned = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, SyntaxError, ValueError):  # a TIFF of a kind that Pillow does not know
        return 1
    return turned if turned in range(1, 9) else 1


#: ModelPixelScale, ModelTiepoint, ModelTransformation
_GEO_TAGS = {33550, 33922, 34264}


def _turn(array: np.ndarray | None, orientation: int) -> np.ndarray | None:
    """The array (H W ...) as it is meant to be seen, by its EXIF orientation."""
    if array is None or orientation == 1:
        return array
    if orientation >= 5:
        array = array.swapaxes(0, 1)  # HW -> WH; 6 and 8 are mirrored below
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)
