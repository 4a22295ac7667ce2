"""The selective scan on a CPU, in float32: tensors to arrays, and the scans to threads.

Arguments are those of `selective_scan.selective_scan`; `scan_numba` has the kernels.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from model.ops import scan_numba
from model.ops.scan_blocked import CHUNK
from model.ops.threads import in_parts


def kept_every(u: Tensor, A: Tensor) -> int:
    """The steps between two states that the backward pass starts from."""
    return CHUNK


def forward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """y, and the state before every block of steps: (blocks, B, G, N, d)."""
    num_images, G, L, d = u.shape
    N = A.shape[2]
    y = u.new_empty(u.shape)
    states = u.new_empty(-(-L // CHUNK), num_images, G, N, d)
    arrays = _operands(u, delta, A, B, C, D, delta_bias)
    arrays += [_scans(y), states.flatten(1, 2).numpy()]

    def work(begin: int, end: int) -> None:
        scan_numba.forward(*arrays, CHUNK, begin, end)

    in_parts(num_images * G, work)
    return y, states


def backward(
    dy: Tensor,
    states: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
) -> list[Tensor]:
    """The gradients of the seven inputs."""
    num_images, G, _, d = u.shape
    N = A.shape[2]
    du, ddelta, dB, dC = (x.new_empty(x.shape) for x in (u, delta, B, C))
    # Sums over images, of which a scan has but its own.
    dA = u.new_empty(num_images, G, N, d)
    dD = u.new_empty(num_images, G, d)
    dbias = u.new_empty(num_images, G, d)
    arrays = [_scans(dy), states.flatten(1, 2).numpy()]
    arrays += _operands(u, delta, A, B, C, D, delta_bias)
    arrays += [_scans(x) for x in (du, ddelta, dA, dB, dC, dD, dbias)]

    def work(begin: int, end: int) -> None:
        scan_numba.backward(*arrays, CHUNK, begin, end)

    in_parts(num_images * G, work)
    dA, dD, dbias = (x.sum(0) for x in (dA, dD, dbias))
    return [du, ddelta, dA.mT.contiguous(), dB, dC, dD, dbias]


def _operands(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> list[np.ndarray]:
    """In the shapes of the kernels."""
    A, D, delta_bias = (x.detach().contiguous().numpy() for x in (A.mT, D, delta_bias))
    return [_scans(u), _scans(delta), A, _scans(B), _scans(C), D, delta_bias]


def _scans(x: Tensor) -> np.ndarray:
    """(B, G, ...) -> (B G, ...), an array."""
    return x.detach().contiguous().flatten(0, 1).numpy()
