"""What an uploaded file must be before it is decoded: small enough, and an image."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import rasterio

from utils.decoding import read_header

MAX_NAME = 80  # characters of a name that is shown and written again
MAX_BANDS = 16
MIN_SIDE_PX, MAX_SIDE_PX = 16, 32_768
#: A strip or tile of a TIFF is decoded as a whole: it may hold this many times the image's limit.
MAX_BLOCK_SHARE = 4


@dataclass(frozen=True)
class Limits:
    """What an upload may be; the page states it."""

    megabytes: float = 100.0
    megapixels: float = 25.0

    def __post_init__(self) -> None:
        for name in ("megabytes", "megapixels"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"the limit of {name} must be a positive number")

    @property
    def max_bytes(self) -> int:
        return int(self.megabytes * 1e6)

    def __str__(self) -> str:
        return f"up to {self.megabytes:g} MB and {self.megapixels:g} megapixels"


def check_upload(path: Path, limits: Limits) -> None:
    """Refuse a file that is too large, no image, or would be too large when decoded.

    Nothing but the header is read, so that a file of a few kilobytes which says that it is a
    million pixels wide costs nothing. Raises ValueError in one line that names the file.
    """
    size = path.stat().st_size
    if size > limits.max_bytes:
        raise ValueError(f"{path}: {size / 1e6:.1f} MB, the limit is {limits.megabytes:g} MB")
    header = read_header(path)
    H, W = header.height, header.width
    shortest, longest = min(H, W), max(H, W)
    megapixels = H * W / 1e6
    if megapixels > limits.megapixels:
        raise ValueError(
            f"{path}: {W} x {H} px are {megapixels:.1f} megapixels, "
            f"the limit is {limits.megapixels:g}"
        )
    if shortest < MIN_SIDE_PX or longest > MAX_SIDE_PX:
        raise ValueError(
            f"{path}: {W} x {H} px, a side must have {MIN_SIDE_PX} to {MAX_SIDE_PX} px"
        )
    if header.kind == "tiff":
        _check_bands(path, limits)


def _check_bands(path: Path, limits: Limits) -> None:
    """A TIFF may hold any number of bands, and blocks that are larger than the image."""
    with rasterio.open(path) as source:
        if source.count > MAX_BANDS:
            raise ValueError(f"{path}: {source.count} bands, at most {MAX_BANDS} are read")
        block_px = max(height * width for height, width in source.block_shapes)
        if block_px > MAX_BLOCK_SHARE * limits.megapixels * 1e6:
            raise ValueError(f"{path}: is stored in blocks of {block_px / 1e6:.0f} megapixels")


def safe_name(name: str) -> str:
    """The last part of a name that somebody gave, without its suffix and without surprises.

    Neither folders nor control characters nor leading dots stay; an empty name is "image".
    """
    last = re.split(r"[\\/]", unicodedata.normalize("NFC", name))[-1]
    stem = last.rpartition(".")[0] or last
    kept = "".join(c if c.isalnum() or c in " -_.()" else "_" for c in stem)
    return kept.strip(" .")[:MAX_NAME].strip(" .") or "image"
