"""The selective scan in plain PyTorch, for any device: in blocks of steps, a few scans at a time.

Arguments are those of `selective_scan.selective_scan`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

#: Steps of a chunk. One state in so many is kept for the backward pass, the rest is recomputed.
CHUNK = 32
#: State elements that one step updates at a time: on a CPU a thread's share of an element-wise
#: operation (fewer would idle threads, more would leave the cache), on a GPU enough to fill it.
CPU_WIDTH, GPU_WIDTH = 2**15, 2**20


def kept_every(u: Tensor, A: Tensor) -> int:
    """The steps between two states that the backward pass starts from."""
    return _Plan.of(u, A).block


def forward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """y, and the state before every block: (blocks, B, G, N, d)."""
    plan = _Plan.of(u, A)
    y = u.new_empty(u.shape)  # contiguous, as the fake kernel says
    states = u.new_empty(-(-u.shape[2] // plan.block), len(u), A.shape[0], A.shape[2], A.shape[1])
    work = plan.workspace(2, states)
    for g in plan.groups():
        state = torch.zeros_like(states[0, :, g])
        for i, t in enumerate(plan.blocks()):
            states[i, :, g] = state
            dt = F.softplus(delta[:, g, t] + delta_bias[g, None])
            block = _Block(work, u[:, g, t], dt, A[g], B[:, g, t], C[:, g, t])
            h, state = block.states(state)
            y[:, g, t] = block.unfold(block.C @ h)
    return y.addcmul_(D[:, None], u), states


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
    """The gradients of the seven inputs, from the last block to the first."""
    plan = _Plan.of(u, A)
    du, ddelta, dA, dB, dC = (x.new_empty(x.shape) for x in (u, delta, A, B, C))
    work = plan.workspace(4, states)
    for g in plan.groups():
        carry, dA_g = torch.zeros_like(states[0, :, g]), 0
        for i, t in reversed(list(enumerate(plan.blocks()))):
            raw = delta[:, g, t] + delta_bias[g, None]
            dt = F.softplus(raw)
            block = _Block(work, u[:, g, t], dt, A[g], B[:, g, t], C[:, g, t])
            grads, carry = block.gradients(block.fold(dy[:, g, t]), states[i, :, g], carry)
            dx, ddt, dB[:, g, t], dC[:, g, t] = (block.unfold(x) for x in grads[:4])
            dA_g = dA_g + grads[4].mT
            du[:, g, t] = dx * dt
            ddelta[:, g, t] = (ddt + dx * u[:, g, t]) * raw.sigmoid()
        dA[g] = dA_g
    du.addcmul_(dy, D[:, None])
    return [du, ddelta, dA, dB, dC, (dy * u).sum((0, 2)), ddelta.sum((0, 2))]


class _Plan(NamedTuple):
    """How a scan is cut: `width` groups at a time, in blocks of `chunks` * CHUNK steps.

    The chunks of a block run in parallel, at the price of a second pass (see `_recur`); only a GPU
    gains by that. Forward and backward agree on `block`, which follows from the shapes alone.
    """

    num_groups: int
    length: int
    width: int
    chunks: int

    @classmethod
    def of(cls, u: Tensor, A: Tensor) -> _Plan:
        B, G, L, d = u.shape
        group = max(1, B * d * A.shape[2])
        target = GPU_WIDTH if u.is_cuda else CPU_WIDTH * torch.get_num_threads()
        chunks = min(target // (group * G), -(-L // CHUNK)) if u.is_cuda else 1
        return cls(G, L, width=min(G, max(1, target // group)), chunks=max(1, chunks))

    @property
    def block(self) -> int:
        return self.chunks * CHUNK

    def groups(self) -> Iterator[slice]:
        return (slice(g, g + self.width) for g in range(0, self.num_groups, self.width))

    def blocks(self) -> Iterator[slice]:
        return (slice(t, t + self.block) for t in range(0, self.length, self.block))

    def workspace(self, count: int, states: Tensor) -> Tensor:
        """Room for `count` tensors of the states of a block: (count, S, J, B, width, N, d)."""
        B, _, N, d = states.shape[1:]
        steps = min(CHUNK, self.length)
        return states.new_empty(count, steps, self.chunks, B, self.width, N, d)


class _Block:
    """A stretch of steps, laid out (S steps, J chunks, B, G, N, d) so that a step is contiguous.

    Time runs along the steps of a chunk first, then along the chunks.
    """

    def __init__(
        self, work: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor
    ) -> None:
        """`u` and `delta` (B, G, length, d), the latter after bias and softplus; A (G, d, N).

        `work` (2 or 4, S, J, B, width, N, d) is overwritten: fresh memory for every block would
        cost as much time as the arithmetic.
        """
        self.length, self.chunks = u.shape[2], work.shape[2]
        self.work = work[:, : -(-self.length // self.chunks), :, :, : u.shape[1]]
        self.A = A.mT.contiguous()
        self.dt = self.fold(delta)
        self.x = self.fold(delta * u)
        self.B, self.C = self.fold(B), self.fold(C)
        self.decay = torch.mul(self.dt, self.A, out=self.work[0]).exp_()

    def fold(self, x: Tensor) -> Tensor:
        """(B, G, length, c) -> (S, J, B, G, 1, c), the last chunk filled up with zero steps,
        which leave the state as it is."""
        steps = self.work.shape[1]
        x = F.pad(x, (0, 0, 0, steps * self.chunks - self.length))
        x = x.unflatten(2, (self.chunks, steps)).permute(3, 2, 0, 1, 4)  # BGJSc -> SJBGc
        return x.contiguous().unsqueeze(-2)

    def unfold(self, x: Tensor) -> Tensor:
        """The inverse of `fold`."""
        x = x.squeeze(-2).permute(2, 3, 1, 0, 4)  # SJBGc -> BGJSc
        return x.flatten(2, 3)[:, :, : self.length]

    def states(self, start: Tensor) -> tuple[Tensor, Tensor]:
        """h of every step, and the last one, (B, G, N, d), from the state before the block."""
        h = torch.mul(self.B.mT, self.x, out=self.work[1])
        return h, _recur(self.decay, h, self._chunk_decay(), start)

    def gradients(self, dy: Tensor, start: Tensor, carry: Tensor) -> tuple[list[Tensor], Tensor]:
        """The gradients of x, Δ (through the decay), B, C, folded, and of A (G, N, d).

        `carry` is the gradient of the state after the block; that of the state before the block
        comes back with the others.
        """
        h, _ = self.states(start)
        dh = torch.mul(self.C.mT, dy, out=self.work[2])
        # k_t = decay_t dh_t, the gradient of h_{t-1}, obeys the same recurrence backwards in time.
        k = torch.mul(self.decay, dh, out=self.work[3])
        before = _recur(self.decay, k, self._chunk_decay(), carry, reverse=True)
        dh[:-1] += k[1:]
        dh[-1] += torch.cat([k[0, 1:], carry[None]])
        dB, dC = self.x @ dh.mT, dy @ h.mT
        dx = self.B @ dh
        # The gradient of the exponent Δ A is k_t h_{t-1}.
        k[1:] *= h[:-1]
        k[0] *= torch.cat([start[None], h[-1, :-1]])
        ddt = torch.mul(k, self.A, out=dh).sum(-2, keepdim=True)
        dA = k.mul_(self.dt).sum((0, 1, 2))
        return [dx, ddt, dB, dC, dA], before

    def _chunk_decay(self) -> Tensor:
        """The product of the decays of a chunk, (J, B, G, N, d)."""
        return torch.exp(self.dt.sum(0) * self.A)


def _recur(
    decay: Tensor, x: Tensor, chunk_decay: Tensor, start: Tensor, reverse: bool = False
) -> Tensor:
    """Solve h_t = decay_t h_{t-1} + x_t in place of `x`; `start` is the state before the first.

    Chunks advance together, which takes two passes: the first, from zero, gives what a chunk adds
    to the state that enters it; the second starts each from its true state. Nothing is divided by
    a decay, so strong decay underflows to zero as it should. Returns the last state.
    """
    order = -1 if reverse else 1
    steps = list(zip(decay.unbind(0), x.unbind(0), strict=True))[::order]
    starts = [start]
    if len(chunk_decay) > 1:
        added = torch.zeros_like(chunk_decay)
        for decay_t, x_t in steps:
            added = torch.addcmul(x_t, decay_t, added)
        for total, end in list(zip(chunk_decay, added, strict=True))[::order][:-1]:
            starts.append(torch.addcmul(end, total, starts[-1]))
    state = torch.stack(starts[::order])
    for decay_t, x_t in steps:
        state = x_t.addcmul_(decay_t, state)
    return state[0 if reverse else -1].clone()
