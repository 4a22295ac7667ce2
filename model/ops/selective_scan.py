"""The selective state-space recurrence of Mamba (Gu and Dao, arXiv:2312.00752).

One custom operator of PyTorch and its gradient, so that torch.compile does not unroll the loops
and tools that trace (FLOP counters, the meta device) see one call instead of thousands of steps.
Numba runs it on a CPU (`scan_cpu`), the kernel of `mamba_ssm` on CUDA where it is installed, plain
PyTorch elsewhere (`scan_blocked`).

Shapes: B images, G groups (scan directions) of d channels each, N states a channel, L steps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from model.ops import scan_blocked


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> Tensor:
    """y_t = <C_t, h_t> + D u_t with h_t = exp(Δ_t A) h_{t-1} + Δ_t u_t B_t, h_0 = 0, along L.

    Δ = softplus(delta + delta_bias). Shapes: u, delta (B, G, L, d); A (G, d, N), negative;
    B, C (B, G, L, N); D, delta_bias (G, d). Returns (B, G, L, d).

    Computed in float32 whatever the inputs and autocast say (float64 inputs stay float64): decays
    multiply up over thousands of steps. Memory grows with L, but no state per step is kept.
    """
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    inputs = [x.to(dtype) for x in (u, delta, A, B, C, D, delta_bias)]
    kernel = _mamba_kernel() if u.is_cuda and dtype == torch.float32 else None
    return _run_mamba(kernel, *inputs) if kernel else _scan(*inputs)[0]


def selective_scan_reference(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> Tensor:
    """`selective_scan` as the formula reads, one step after the other, in the inputs' dtype."""
    delta = F.softplus(delta + delta_bias[:, None])
    state = u.new_zeros(*u.shape[:2], u.shape[3], A.shape[2])
    outputs = []
    # not delta[:, :, t], whose gradient would fill a whole tensor at every step
    for dt, x, b, c in zip(*(sequence.unbind(2) for sequence in (delta, u, B, C)), strict=True):
        decay = torch.exp(dt[..., None] * A)
        drive = (dt * x)[..., None] * b[:, :, None]
        state = decay * state + drive
        outputs.append((state * c[:, :, None]).sum(-1))
    return torch.stack(outputs, dim=2) + D[:, None] * u


def _without_autocast(op: Callable) -> Callable:
    @functools.wraps(op)
    def run(*tensors: Tensor):
        with torch.autocast(tensors[0].device.type, enabled=False):
            return op(*tensors)

    return run


def _form(u: Tensor) -> ModuleType:
    """Who computes it; Numba's compiler is imported when first needed."""
    if u.device.type == "cpu" and u.dtype == torch.float32:
        from model.ops import scan_cpu

        return scan_cpu
    return scan_blocked


@torch.library.custom_op("anchor_sam::selective_scan", mutates_args=())
@_without_autocast
def _scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """y, and the states that the backward pass starts from: (blocks, B, G, N, d)."""
    return _form(u).forward(u, delta, A, B, C, D, delta_bias)


@_scan.register_fake
def _(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> tuple[Tensor, Tensor]:
    blocks = -(-u.shape[2] // _form(u).kept_every(u, A))
    G, d, N = A.shape
    return u.new_empty(u.shape), u.new_empty(blocks, u.shape[0], G, N, d)


@torch.library.custom_op("anchor_sam::selective_scan_backward", mutates_args=())
@_without_autocast
def _scan_backward(
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
    return _form(u).backward(dy, states, u, delta, A, B, C, D, delta_bias)


@_scan_backward.register_fake
def _(
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
    return [x.new_empty(x.shape) for x in (u, delta, A, B, C, D, delta_bias)]


def _keep_for_backward(ctx, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1], *inputs)


def _backward(ctx, dy: Tensor, _: Tensor) -> tuple[Tensor, ...]:
    return tuple(_scan_backward(dy, *ctx.saved_tensors))


_scan.register_autograd(_backward, setup_context=_keep_for_backward)


@functools.cache
def _mamba_kernel() -> Callable[..., Tensor] | None:
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError:  # not installed, or built for another torch
        return None
    return selective_scan_fn


def _run_mamba(
    kernel: Callable[..., Tensor],
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
) -> Tensor:
    """The CUDA kernel wants channels before length, with the groups' channels in one axis."""
    u, delta = (x.mT.flatten(1, 2).contiguous() for x in (u, delta))  # BGLd -> B(Gd)L
    B, C = B.mT.contiguous(), C.mT.contiguous()  # BGLN -> BGNL
    y = kernel(
        u,
        delta,
        A.flatten(0, 1),
        B,
        C,
        D.flatten(),
        delta_bias=delta_bias.flatten(),
        delta_softplus=True,
    )
    return y.unflatten(1, A.shape[:2]).mT
