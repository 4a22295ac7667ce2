"""JPEG, PNG and TIFF files as they were stored: values, and where the file says that it has none.

`utils.imageio` makes 8-bit images and road masks of them.
"""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from PIL import ExifTags, Image
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from utils.jpeg import decode_jpeg, has_jpeg_end

# Most training tiles have no georeference, and need none.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
# Pillow takes scenes over 179 million pixels for an attack; here they are the normal case.
Image.MAX_IMAGE_PIXELS = None

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_UNREADABLE = (OSError, SyntaxError, EOFError, ValueError, struct.error, RasterioError)


class Crop(NamedTuple):
    """A part of an image, in pixels of the image as it is seen (after an EXIF rotation)."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        rows = slice(self.top, self.top + self.height)
        return rows, slice(self.left, self.left + self.width)

    def of(self, array: np.ndarray) -> np.ndarray:
        return array[self.slices]


class Decoded(NamedTuple):
    """Pixels of an image file, or of a crop of it."""

    values: np.ndarray  # H W C: 1 or 3 colours in the file's own type, or palette indices
    has_data: np.ndarray | None  # bool H W: False where alpha is 0 or nodata; None: all true


class Header(NamedTuple):
    """What an image file says of itself; sizes in pixels."""

    height: int  # as it is seen, after an EXIF rotation
    width: int
    kind: str  # jpeg, png or tiff
    orientation: int  # EXIF, 1 to 8
    crops_cheaply: bool  # JPEG, 8-bit TIFF: `decode` reads less for a crop


def read_header(path: Path) -> Header:
    """What is known without decoding. Raises ValueError, one line, when the file has no header."""
    with one_line_errors(path):
        state = path.stat()
        return _read_header(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=1024)  # a sample asks several times
def _read_header(path: Path, modified_ns: int, size: int) -> Header:
    kind = _kind(path)
    crops_cheaply = False
    if kind == "tiff":  # there are many that Pillow does not know
        orientation = _tiff_orientation(path)
        with _open(path) as source:
            height, width = source.shape
            crops_cheaply = set(source.dtypes) == {"uint8"} and orientation == 1
    else:
        with Image.open(path) as picture:
            width, height = picture.size
            # Asked for the EXIF data of a PNG without any, Pillow would decode the image.
            has_exif = kind == "jpeg" or "exif" in picture.info
            orientation = _orientation(picture) if has_exif else 1
            crops_cheaply = kind == "jpeg" and orientation == 1
    if orientation >= 5:  # the sides change places
        height, width = width, height
    return Header(height, width, kind, orientation, crops_cheaply)


def decode(path: Path, crop: Crop | None = None, *, palette_indices: bool = False) -> Decoded:
    """The pixels of `path` with the EXIF rotation applied; of a part, where it `crops_cheaply`.

    Bands: the first three are red, green and blue; of fewer the first is grey. A band that is
    marked as alpha is no colour. A palette is looked up, unless `palette_indices`.
    Raises ValueError, one line naming the file, when it cannot be read.
    """
    with one_line_errors(path):
        header = read_header(path)
        assert crop is None or header.crops_cheaply
        if header.kind == "jpeg":
            decoded = Decoded(decode_jpeg(path, crop and crop.slices), None)
        elif not has_end(path):  # of a PNG GDAL shows what there is
            raise ValueError(f"{path}: is truncated")
        else:
            decoded = _decode_bands(path, crop, palette_indices)
        return Decoded(*(_turn(part, header.orientation) for part in decoded))


def has_end(path: Path) -> bool:
    """False for a JPEG or PNG that does not end as it should, and may be truncated."""
    kind = read_header(path).kind
    with open(path, "rb") as file:
        file.seek(-min(64, path.stat().st_size), os.SEEK_END)
        tail = file.read()
    if kind == "jpeg":
        return has_jpeg_end(tail)
    return kind == "tiff" or b"IEND" in tail


@contextmanager
def one_line_errors(path: Path | str) -> Iterator[None]:
    """Turn what goes wrong with a file into a ValueError of one line that begins with its name."""
    try:
        yield
    except _UNREADABLE as error:
        if isinstance(error, ValueError) and str(error).startswith(f"{path}: "):
            raise  # one of ours
        cause = error.__cause__ or error  # GDAL's reason is behind rasterio's "Read failed"
        reason = str(cause).replace("\n", " ").strip() or type(cause).__name__
        raise ValueError(f"{path}: {_trouble(Path(path), error, reason)}") from error


def _trouble(path: Path, error: Exception, reason: str) -> str:
    """What is wrong with a file: GDAL's reasons name what it did, not what happened to the file."""
    start = None
    if path.is_file():
        with suppress(OSError), open(path, "rb") as file:
            start = file.read(len(_TIFF[0]))
    if start == b"":
        return "is empty"
    if start in _TIFF and isinstance(error, RasterioError) and "codec" not in reason:
        return f"is truncated or damaged (GDAL: {reason})"
    return f"cannot be read as an image: {reason}"


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
        # Grey with 0 as white reads as a palette, too; its indices would be road inside out.
        if palette_indices and source.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") != "YES":
            return Decoded(values, has_data)
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


def _tiff_orientation(path: Path) -> int:
    """GDAL does not tell. A georeferenced file is north up as it is."""
    try:
        with Image.open(path) as picture:
            return 1 if _GEO_TAGS & set(picture.tag_v2) else _orientation(picture)
    except (OSError, SyntaxError, ValueError):  # of a kind that Pillow does not know
        return 1


#: ModelPixelScale, ModelTiepoint, ModelTransformation
_GEO_TAGS = {33550, 33922, 34264}


def _orientation(picture: Image.Image) -> int:
    orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation if orientation in range(1, 9) else 1


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
