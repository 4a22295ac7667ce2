"""Pixels as the bytes of an image file."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np


def encoded(suffix: str, pixels: np.ndarray, settings: Sequence[int] = ()) -> bytes:
    """Grey, BGR or BGRA pixels in the format of the suffix; `settings` as OpenCV knows them.

    To be written by Python: OpenCV's own writing does not say that a disk is full.
    """
    done, data = cv2.imencode(suffix, pixels, settings)
    assert done, f"no {suffix} of {pixels.dtype} {pixels.shape}"
    return data.tobytes()
