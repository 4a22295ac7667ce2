"""Images as 8-bit RGB and labels as road masks, whatever they are stored as."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import numpy as np

from utils.decoding import Crop, Decoded, decode, read_header
from utils.nodata import blank_areas

#: Bits that sensors deliver. A 16-bit file holds values of the first of these that is enough.
SENSOR_BITS = (8, 10, 11, 12, 14, 16)
#: More distinct values than this are a lossy mask, fewer may be classes.
MAX_CLASSES = 16
#: A mask's values lie at its ends, but for the seams of roads: JPEG masks and those scaled to a
#: quarter have up to a tenth of their pixels between a fifth and four fifths of the largest value.
#: Aerial photos have a third to nine tenths, a fifth where they are partly blank.
PHOTO_MIDDLE, PHOTO_SHARE = (0.2, 0.8), 0.15
#: Pixels that `looks_like_photo` looks at.
PHOTO_SAMPLE_PX = 40_000


def read_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Height and width from the file's header, after an EXIF rotation."""
    return read_header(Path(path))[:2]


def read_image(path: str | os.PathLike[str], crop: Crop | None = None) -> np.ndarray:
    """An image as uint8 H W 3, RGB: the whole, or `crop` of it.

    JPEG, PNG (1 to 16 bits, grey, palette, with or without alpha) and TIFF. Grey is repeated; of
    more than three bands the first three are taken; an EXIF rotation is applied.
    16-bit values are divided by the largest value of 8, 10, 11, 12, 14 or 16 bits, whichever is
    the least that holds the image's maximum, so that 11-bit imagery in 16-bit files is not black.
    Float values in [0, 1] are multiplied by 255.

    Raises ValueError, one line naming the file, when it is unreadable, truncated or empty, or
    holds other values than these.
    """
    return read_image_and_valid(path, crop)[0]


def valid_pixels(path_or_image: str | os.PathLike[str] | np.ndarray) -> np.ndarray:
    """Where an image shows the ground: bool H W.

    False where alpha is 0, at a GeoTIFF's nodata value, where a float is not finite, and in blank
    white or black areas (`utils.nodata`), the only thing to go by in an array (uint8 H W 3).
    """
    if isinstance(path_or_image, np.ndarray):
        return ~blank_areas(path_or_image)
    return read_image_and_valid(path_or_image)[1]


def read_image_and_valid(
    path: str | os.PathLike[str], crop: Crop | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """`read_image` and `valid_pixels` with one decoding; the latter looks at the crop only."""
    path = Path(path)
    if crop is not None and read_header(path).crops_cheaply:
        image, has_data = _to_8bit(path, decode(path, crop))
    else:  # the whole of it decides over the scale
        image, has_data = _to_8bit(path, decode(path))
        if crop is not None:
            image, has_data = crop.of(image), crop.of(has_data)
    if image.shape[2] == 1:
        image = image.repeat(3, axis=2)
    image = np.ascontiguousarray(image)
    return image, has_data & ~blank_areas(image)


def _to_8bit(path: Path, decoded: Decoded) -> tuple[np.ndarray, np.ndarray]:
    """uint8 H W C and bool H W."""
    values, has_data = decoded
    if has_data is None:
        has_data = np.ones(values.shape[:2], bool)
    if values.dtype == np.uint8:
        return values, has_data
    if np.issubdtype(values.dtype, np.floating):
        has_data = has_data & np.isfinite(values).all(axis=2)
    elif not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"{path}: values of type {values.dtype} are not supported")
    values = np.where(has_data[..., None], values, 0)
    low, high = values.min(initial=0), values.max(initial=0)
    if np.issubdtype(values.dtype, np.floating):
        if low < 0 or high > 1:
            raise ValueError(
                f"{path}: float values from {low:g} to {high:g}; floats must lie in [0, 1], "
                "other values are read as 8- or 16-bit integers"
            )
        return np.rint(values * 255).astype(np.uint8), has_data
    if low < 0 or high > 65535:
        raise ValueError(f"{path}: values from {low} to {high}; integers must lie in [0, 65535]")
    return _brightness_table(int(high))[values], has_data


def _brightness_table(high: int) -> np.ndarray:
    """8-bit brightness of the values 0..high. Only 0 gives 0: dark water is no blank area."""
    full = 2 ** next(bits for bits in SENSOR_BITS if high < 2**bits) - 1
    table = np.rint(np.arange(high + 1) * (255 / full)).astype(np.uint8)
    table[1:] = np.maximum(table[1:], 1)
    return table


def read_label(path: str | os.PathLike[str], crop: Crop | None = None) -> np.ndarray:
    """A road mask as uint8 H W in {0, 1}: the whole, or `crop` of it.

    Any non-zero value is road ({0, 1}, {0, 255}, 1 bit, palette indices), unless the mask is a
    lossy one: more than two values, reaching 128 or more. There road is half of the range or
    more: 128 of 8 bits. Of a colour mask every channel is looked at, and any of them makes road.
    Alpha is not looked at. Raises ValueError as `read_image`.
    """
    path = Path(path)
    if crop is not None and read_header(path).crops_cheaply:
        least = _least_road_value_of_file(path, path.stat().st_mtime_ns)
        return _is_road(read_label_values(path, crop), least)
    values = read_label_values(path)
    return _is_road(values if crop is None else crop.of(values), least_road_value(values))


def read_label_values(path: str | os.PathLike[str], crop: Crop | None = None) -> np.ndarray:
    """What a label holds: whole numbers >= 0, H W C, of a palette the indices."""
    path = Path(path)
    values = decode(path, crop, palette_indices=True).values
    if values.dtype == np.uint8:
        return values
    if not np.isfinite(values).all() or (values < 0).any() or (values != np.rint(values)).any():
        raise ValueError(f"{path}: a label must hold whole numbers from 0 up, 0 where no road is")
    return values


def road_mask(values: np.ndarray) -> np.ndarray:
    """Label values H W C to uint8 H W in {0, 1}, by the rule of `read_label`."""
    return _is_road(values, least_road_value(values))


def least_road_value(values: np.ndarray) -> int:
    """What a mask with these values must reach to be road: 1, or half of a lossy mask's range."""
    top = int(values.max(initial=0))
    if top < 128 or np.count_nonzero(values) == np.count_nonzero(values == top):
        return 1
    return 2 ** (max(8, top.bit_length()) - 1)


def looks_like_photo(values: np.ndarray) -> bool:
    """Whether what a label holds (H W C) is rather an image: see PHOTO_SHARE.

    Soft masks that mostly hold middle values are taken for photos, masks of a few classes not.
    """
    height, width = values.shape[:2]
    step = max(1, int((height * width / PHOTO_SAMPLE_PX) ** 0.5))
    sample = values[::step, ::step]
    low, high = (share * float(sample.max(initial=0)) for share in PHOTO_MIDDLE)
    middle = ((sample > low) & (sample < high)).any(axis=2)
    return bool(
        np.count_nonzero(middle) > PHOTO_SHARE * middle.size
        and len(np.unique(sample)) > MAX_CLASSES
    )


def _is_road(values: np.ndarray, least: int) -> np.ndarray:
    road = values[..., 0] >= least
    for channel in range(1, values.shape[2]):
        road |= values[..., channel] >= least
    return road.view(np.uint8)


@lru_cache(maxsize=4096)
def _least_road_value_of_file(path: Path, modified_ns: int) -> int:
    """Of the whole mask, kept for its crops; the time of change is part of the key."""
    return least_road_value(read_label_values(path))
