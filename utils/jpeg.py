"""JPEG files to RGB pixels, decoded no further down than asked.

Most of a decoder's time goes into the entropy code, which can only be read from its start. So
what lies left, right and above of a crop must be read, but what lies below need not be: a
sequential file whose header states fewer rows is read to those rows, and no further.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

END = b"\xff\xd9"
#: Memory that each thread keeps for decoding; larger images get their own.
MAX_SCRATCH_BYTES = 64 << 20

_BASELINE, _SEQUENTIAL, _SCAN = 0xC0, 0xC1, 0xDA
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # the others are no frame headers


def decode_jpeg(path: Path, part: tuple[slice, slice] | None = None) -> np.ndarray:
    """uint8 H W 3, RGB, as stored (no EXIF rotation): the whole, or rows and columns of it.

    What libjpeg-turbo objects to is left to Pillow, which forgives slips and raises OSError for
    truncated files.
    """
    data = path.read_bytes()
    try:
        if part is None:
            return simplejpeg.decode_jpeg(data)
        shorter = _with_fewer_rows(data, part[0].stop) if has_jpeg_end(data[-64:]) else None
        if shorter is None:
            return _decoded_to_scratch(data, strict=True)[part].copy()
        # What is left behind the last row counts as a slip.
        return _decoded_to_scratch(shorter, strict=False)[part].copy()
    except ValueError:
        with Image.open(path) as picture:
            whole = np.array(picture.convert("RGB"))
            return whole if part is None else whole[part].copy()


_scratch = threading.local()


def _decoded_to_scratch(data: bytes | bytearray, strict: bool) -> np.ndarray:
    """The pixels in memory that this thread's next call uses again: fresh memory costs a third
    of the decoding, page by page."""
    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    size = height * width * 3
    if size > MAX_SCRATCH_BYTES:
        return simplejpeg.decode_jpeg(data, strict=strict)
    if getattr(_scratch, "pixels", np.empty(0)).size < size:
        _scratch.pixels = np.empty(size, np.uint8)
    return simplejpeg.decode_jpeg(data, buffer=_scratch.pixels[:size], strict=strict)


def has_jpeg_end(tail: bytes) -> bool:
    """Whether a file with these last bytes ends as a JPEG should."""
    return tail.rstrip(b"\0").endswith(END)


def _with_fewer_rows(data: bytes, rows: int) -> bytearray | None:
    """The file with a header that ends it below `rows`; None where that saves or means nothing."""
    frame, components = _sequential_frame(data)
    if frame is None:
        return None
    height = int.from_bytes(data[frame + 1 : frame + 3], "big")
    block_rows = 8 * max(data[frame + 7 + 3 * i] & 15 for i in range(components))
    # One more row of blocks: the colours of subsampled files are smoothed across the border.
    kept = (-(-rows // block_rows) + 1) * block_rows
    if not 0 < kept < height:
        return None
    shorter = bytearray(data)
    shorter[frame + 1 : frame + 3] = kept.to_bytes(2, "big")
    return shorter


def _sequential_frame(data: bytes) -> tuple[int | None, int]:
    """Where the frame header (precision, height, width, components) begins, and its components.

    None for progressive files and for those that store their colours in scans of their own.
    """
    at, frame, components = 2, None, 0
    while at + 4 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker == _SCAN:
            return (frame if data[at + 4] == components else None), components
        if marker in _FRAMES:
            if marker not in (_BASELINE, _SEQUENTIAL):
                return None, 0
            frame, components = at + 4, data[at + 9]
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None, 0
