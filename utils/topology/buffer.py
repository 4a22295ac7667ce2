"""Completeness, correctness and quality of extracted roads within a buffer.

Wiedemann, Heipke, Mayer, Jamet: Empirical evaluation of automatically extracted road axes, 1998.
"""

from __future__ import annotations

import numpy as np
from skimage.morphology import skeletonize

from utils.topology.matching import MatchCounts

BUFFER_M = 3.0


def buffer_counts(
    prediction: np.ndarray,
    target: np.ndarray,
    pixel_size_m: float = 1.0,
    buffer_m: float = BUFFER_M,
) -> MatchCounts:
    """Skeleton pixels of H x W bool masks and how many lie within the other's buffer.

    Of the counts, recall is the completeness, precision the correctness, and quality the
    quality: matched extraction / (extraction + unmatched reference).
    """
    reach_px = buffer_m / pixel_size_m + 1e-9  # 3 m at 0.3 m must reach 10 pixels
    return MatchCounts.within(skeletonize(prediction), skeletonize(target), reach_px)
