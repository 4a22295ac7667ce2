"""The sum of samples on a CPU, compiled by Numba at the first call and cached beside this file.

Every pixel's channels of a group lie side by side, so that a corner is one vector load; nothing is
allocated but the result. The backward pass gives each thread channels of its own to add into: the
result does not depend on the number of threads.
"""

from __future__ import annotations

import threading

import numba
import numpy as np
import torch
from numba import njit, prange

# Sums may be reordered into vectors; NaN and infinity keep their meaning.
_FAST = {"reassoc", "contract", "nsz"}
# Numba's simplest threading layer does not stand two callers at a time.
_ONE_AT_A_TIME = threading.Lock()


def forward(
    value: np.ndarray, y: np.ndarray, x: np.ndarray, weight: np.ndarray | None
) -> np.ndarray:
    """`sum_of_samples` of value (B, H, W, C) at y, x (B, H, W, G, K), all of one float type."""
    size = (*value.shape, *y.shape[3:])
    out = np.zeros(value.shape, value.dtype)
    with _ONE_AT_A_TIME:
        _use_torchs_threads()
        operands = _flat(value, y, x, y if weight is None else weight)
        _forward(*operands, weight is not None, size, out.reshape(-1))
    return out


def backward(
    grad: np.ndarray, value: np.ndarray, y: np.ndarray, x: np.ndarray, weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Gradients of value, y, x and weight."""
    of_value = np.zeros(value.shape, value.dtype)
    of_y, of_x = np.zeros(y.shape, y.dtype), np.zeros(y.shape, y.dtype)
    weighted = weight is not None
    of_weight = np.zeros(y.shape, y.dtype) if weighted else None
    with _ONE_AT_A_TIME:
        _use_torchs_threads()
        _backward(
            *_flat(grad, value, y, x, weight if weighted else y),
            weighted,
            (*value.shape, *y.shape[3:]),
            *_flat(of_value, of_y, of_x, of_weight if weighted else of_y),
        )
    return of_value, of_y, of_x, of_weight


def _flat(*arrays: np.ndarray) -> list[np.ndarray]:
    return [array.reshape(-1) for array in arrays]


def _use_torchs_threads() -> None:
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))


@njit(inline="always")
def _add(target, first, share, source, start, lanes):
    """target[first : first + lanes] += share * source[start : start + lanes]"""
    for i in range(lanes):  # unsigned: a negative index would count from the end, at a branch each
        target[np.uintp(first + i)] += share * source[np.uintp(start + i)]


@njit(inline="always")
def _dot(one, first, other, start, lanes):
    """Sum of one[first : first + lanes] * other[start : start + lanes]"""
    total = one[np.uintp(first)] * other[np.uintp(start)]
    for i in range(1, lanes):
        total += one[np.uintp(first + i)] * other[np.uintp(start + i)]
    return total


@njit(parallel=True, cache=True, fastmath=_FAST)
def _forward(value, y, x, weight, weighted, size, out):  # pragma: no cover - compiled
    B, H, W, C, G, K = size
    c = C // G
    for line in prange(B * H):
        image = line // H * H
        for pixel in range(line * W, line * W + W):
            for g in range(G):
                for tap in range((pixel * G + g) * K, (pixel * G + g + 1) * K):
                    py, px = y[tap], x[tap]
                    if not (-1 <= py < H and -1 <= px < W):
                        continue
                    top, left = int(np.floor(py)), int(np.floor(px))
                    down, right = py - top, px - left
                    m = weight[tap] if weighted else down * 0 + 1
                    for corner in range(4):
                        dy, dx = corner // 2, corner % 2
                        row, column = top + dy, left + dx
                        if 0 <= row < H and 0 <= column < W:
                            share = (down if dy else 1 - down) * (right if dx else 1 - right) * m
                            start = ((image + row) * W + column) * C + g * c
                            _add(out, pixel * C + g * c, share, value, start, c)


@njit(parallel=True, cache=True, fastmath=_FAST)
def _backward(
    grad, value, y, x, weight, weighted, size, of_value, of_y, of_x, of_weight
):  # pragma: no cover - compiled
    B, H, W, C, G, K = size
    c = C // G
    for part in prange(B * G):  # no two of these add into the same channels of the same image
        image, g = part // G * H, part % G
        for pixel in range(image * W, (image + H) * W):
            here = pixel * C + g * c
            for tap in range((pixel * G + g) * K, (pixel * G + g + 1) * K):
                py, px = y[tap], x[tap]
                if not (-1 <= py < H and -1 <= px < W):
                    continue
                top, left = int(np.floor(py)), int(np.floor(px))
                down, right = py - top, px - left
                m = weight[tap] if weighted else down * 0 + 1
                sample, slope_y, slope_x = m * 0, m * 0, m * 0
                for corner in range(4):
                    dy, dx = corner // 2, corner % 2
                    row, column = top + dy, left + dx
                    if 0 <= row < H and 0 <= column < W:
                        share_y = down if dy else 1 - down
                        share_x = right if dx else 1 - right
                        start = ((image + row) * W + column) * C + g * c
                        dot = _dot(grad, here, value, start, c)
                        _add(of_value, start, share_y * share_x * m, grad, here, c)
                        sample += share_y * share_x * dot
                        slope_y += (share_x if dy else -share_x) * dot
                        slope_x += (share_y if dx else -share_y) * dot
                of_y[tap], of_x[tap] = m * slope_y, m * slope_x
                if weighted:
                    of_weight[tap] = sample
