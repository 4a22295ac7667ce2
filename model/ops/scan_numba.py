"""The kernels of the selective scan on a CPU, compiled by Numba at the first call.

Along the sequence, one step after the other, for some channels at a time, whose states never leave
the caches: no tensor of the states exists. Arrays are float32 and contiguous; S scans are the
images times the groups G. u, delta, y: (S, L, d); A: (G, N, d); B, C: (S, L, N); D, bias: (G, d);
states, those before every block of `steps` steps: (blocks, S, N, d).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from model.ops import simd
from model.ops.compiled import compiled
from model.ops.simd import REORDERED, float_of_bits

#: Channels at a time: a constant, so that LLVM makes vectors of the inner loops.
CHANNELS = 64

_LOG2_E, _LN2 = np.float32(np.log2(np.e)), np.float32(np.log(2))
_ZERO, _ONE, _TWO = np.float32(0), np.float32(1), np.float32(2)
_LEAST = np.float32(-126)  # exponent of the least normal number
_EXP2 = tuple(np.float32(np.log(2) ** i / math.factorial(i)) for i in range(7, 0, -1))
_ATANH = tuple(np.float32(1 / power) for power in (13, 11, 9, 7, 5, 3))

_FLAGS = {"fastmath": set(REORDERED), "error_model": "numpy"}
_compiled = compiled(simd, **_FLAGS)
_inlined = njit(forceinline=True, **_FLAGS)


@_inlined
def _exp2(x):
    """2^x of a negative x, to 2e-7 of it: Taylor's series around the nearest whole number."""
    x = max(x, _LEAST)
    power = np.rint(x)
    rest = x - power
    series = _EXP2[0]
    series = series * rest + _EXP2[1]
    series = series * rest + _EXP2[2]
    series = series * rest + _EXP2[3]
    series = series * rest + _EXP2[4]
    series = series * rest + _EXP2[5]
    series = series * rest + _EXP2[6]
    series = series * rest + _ONE
    return series * float_of_bits((np.int32(power) + np.int32(127)) << np.int32(23))


@_inlined
def _softplus(x):
    """log(1 + e^x) and its slope."""
    small = _exp2(-_LOG2_E * abs(x))
    # log(1 + small) = 2 atanh(small / (2 + small)), of at most 1/3
    part = small / (_TWO + small)
    square = part * part
    series = _ATANH[0]
    series = series * square + _ATANH[1]
    series = series * square + _ATANH[2]
    series = series * square + _ATANH[3]
    series = series * square + _ATANH[4]
    series = series * square + _ATANH[5]
    value = max(x, _ZERO) + _TWO * (series * square + _ONE) * part
    return value, (_ONE if x > 0 else small) / (_ONE + small)


@_inlined
def _zeros(rows):
    return np.zeros((rows, CHANNELS), np.float32)


@_inlined
def _to_base_2(A, first, width, a):
    """The channels first.. of A, for `_exp2`."""
    for n in range(len(A)):
        for c in range(width):
            a[n, c] = A[n, first + c] * _LOG2_E


@_compiled
def forward(u, delta, A, B, C, D, bias, y, states, steps, begin, end):  # pragma: no cover
    """Fill `y` and `states` for the scans begin..end."""
    _, L, d = u.shape
    G, N = A.shape[:2]
    a, h = _zeros(N), _zeros(N)
    step, x, total = np.zeros((3, CHANNELS), np.float32)
    for scan in range(begin, end):
        group = scan % G
        for first in range(0, d, CHANNELS):
            width = min(CHANNELS, d - first)
            _to_base_2(A[group], first, width, a)
            h[:] = 0
            for t in range(L):
                if t % steps == 0:
                    states[t // steps, scan, :, first : first + width] = h[:, :width]
                for c in range(width):
                    given = u[scan, t, first + c]
                    step[c], _ = _softplus(delta[scan, t, first + c] + bias[group, first + c])
                    x[c] = step[c] * given
                    total[c] = D[group, first + c] * given
                for n in range(N):
                    b, out = B[scan, t, n], C[scan, t, n]
                    for c in range(CHANNELS):
                        state = _exp2(step[c] * a[n, c]) * h[n, c] + b * x[c]
                        h[n, c] = state
                        total[c] += out * state
                for c in range(width):
                    y[scan, t, first + c] = total[c]


@_inlined
def _advance(u, delta, a, bias, B, scan, first, width, start, stop, step, slope, decay, h):
    """The states after the steps start..stop, h[1:], from the one before them, h[0]."""
    x = np.zeros(CHANNELS, np.float32)
    for t in range(start, stop):
        i = t - start
        for c in range(width):
            step[i, c], slope[i, c] = _softplus(delta[scan, t, first + c] + bias[first + c])
            x[c] = step[i, c] * u[scan, t, first + c]
        for n in range(len(a)):
            b = B[scan, t, n]
            for c in range(CHANNELS):
                kept = _exp2(step[i, c] * a[n, c])
                decay[i, n, c] = kept
                h[i + 1, n, c] = kept * h[i, n, c] + b * x[c]


@_inlined
def _give_back(
    u, D, first, width, grad, step, slope, of_x, of_exponent, du, ddelta, of_bias, of_skip
):
    """The gradients of u, delta, bias and D at one step."""
    for c in range(width):
        given = u[first + c]
        of_step = of_exponent[c] * _LN2 + of_x[c] * given
        of_raw = of_step * slope[c]
        ddelta[first + c] = of_raw
        du[first + c] = of_x[c] * step[c] + D[first + c] * grad[c]
        of_bias[c] += of_raw
        of_skip[c] += grad[c] * given


@_compiled
def backward(
    dy, states, u, delta, A, B, C, D, bias, du, ddelta, dA, dB, dC, dD, dbias, steps, begin, end
):  # pragma: no cover
    """Fill the gradients for the scans begin..end; dA (S, N, d), dD and dbias (S, d) are a scan's.

    The states of a block of steps are computed once more. A scan is one thread's, in order: the
    result does not depend on the number of threads.
    """
    _, L, d = u.shape
    G, N = A.shape[:2]
    a, carry, of_a = _zeros(N), _zeros(N), _zeros(N)
    step, slope = _zeros(steps), _zeros(steps)
    decay = np.zeros((steps, N, CHANNELS), np.float32)
    h = np.zeros((steps + 1, N, CHANNELS), np.float32)
    x, grad, of_x, of_exponent, of_skip, of_bias = np.zeros((6, CHANNELS), np.float32)
    dB[begin:end], dC[begin:end] = 0, 0
    for scan in range(begin, end):
        group = scan % G
        for first in range(0, d, CHANNELS):
            width = min(CHANNELS, d - first)
            # What lies beyond `width` must add nothing to the sums over channels.
            a[:], step[:], x[:], grad[:], h[0] = 0, 0, 0, 0, 0
            carry[:], of_a[:], of_skip[:], of_bias[:] = 0, 0, 0, 0
            _to_base_2(A[group], first, width, a)
            for block in range((L - 1) // steps, -1, -1):
                start, stop = block * steps, min(L, (block + 1) * steps)
                h[0, :, :width] = states[block, scan, :, first : first + width]
                _advance(
                    u, delta, a, bias[group], B, scan, first, width, start, stop, step, slope,
                    decay, h,
                )  # fmt: skip
                for t in range(stop - 1, start - 1, -1):
                    i = t - start
                    for c in range(width):
                        x[c] = step[i, c] * u[scan, t, first + c]
                        grad[c] = dy[scan, t, first + c]
                    of_x[:], of_exponent[:] = 0, 0
                    for n in range(N):
                        b, out = B[scan, t, n], C[scan, t, n]
                        of_b, of_out = np.float32(0), np.float32(0)
                        for c in range(CHANNELS):
                            of_out += grad[c] * h[i + 1, n, c]
                            of_state = grad[c] * out + carry[n, c]
                            of_b += of_state * x[c]
                            of_x[c] += of_state * b
                            before = of_state * decay[i, n, c]
                            carry[n, c] = before
                            of_decay = before * h[i, n, c]
                            of_exponent[c] += of_decay * a[n, c]
                            of_a[n, c] += of_decay * step[i, c]
                        dB[scan, t, n] += of_b
                        dC[scan, t, n] += of_out
                    _give_back(
                        u[scan, t], D[group], first, width, grad, step[i], slope[i], of_x,
                        of_exponent, du[scan, t], ddelta[scan, t], of_bias, of_skip,
                    )  # fmt: skip
            dA[scan, :, first : first + width] = of_a[:, :width]
            dD[scan, first : first + width] = of_skip[:width]
            dbias[scan, first : first + width] = of_bias[:width]
