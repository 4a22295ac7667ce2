"""The sampling operator's forms, operands for them, and the check by PyTorch's own sampler."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from model.ops import sampling_native

Operands = Sequence[Tensor | None]


class Case(NamedTuple):
    form: str
    step: int
    taps: int

    def operands(
        self, width: int, dtype: torch.dtype = torch.float64
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Value, offset and weight; two groups of `width` channels. No operand is contiguous.

        The sides are odd; most places lie on the map, some far outside.
        """
        B, H, W, G, K = 2, 5, 3, 2, self.taps
        generator = torch.Generator().manual_seed(width)

        def random(*shape: int) -> Tensor:
            # Drawn with the two sides of the map in turn.
            turned = torch.randn(shape[0], shape[2], shape[1], *shape[3:], generator=generator)
            return turned.to(dtype).transpose(1, 2)

        shapes = {"square": (G, K, 2), "subpixels": (2, G, K)}
        offset = 2 * random(B, H, W, *shapes.get(self.form, (G, K)))
        offset[:, 0, 0] *= 1e4
        weight = random(B, H, W, G, K).abs() if self.form == "square" else None
        return random(B, H, W, G * width), offset, weight


CASES = (
    Case("strip_h", 1, 5),
    Case("strip_w", 1, 7),
    Case("square", 1, 9),
    Case("square", 3, 9),
    Case("subpixels", 2, 4),
    Case("subpixels", 3, 9),
)
#: In float32 the number of a pixel at its end leaves the fraction of a place 13 bits.
LONG_ROW = Case("strip_w", 1, 3)


def operands_of_long_row() -> Operands:
    generator = torch.Generator().manual_seed(0)
    shapes = (1, 1, 1031, 2), (1, 1, 1031, 1, 3)
    return *(torch.randn(shape, generator=generator) for shape in shapes), None


def check_by_pytorchs_sampler(
    kernels: ModuleType,
    case: Case,
    operands: Operands,
    *,
    rtol: float,
    atol: float,
    of_offset: bool = True,
) -> None:
    """Assert that kernels give what PyTorch's sampler does in float64, forward and backward.

    Without `of_offset` the gradient of the offsets is left out.
    """
    exact = [t if t is None else t.double() for t in operands]
    out = kernels.forward(*operands, case.form, case.step)
    expected = sampling_native.forward(*exact, case.form, case.step)
    grad = torch.randn_like(out)
    gradients = kernels.backward(grad, *operands, case.form, case.step)
    wanted = sampling_native.backward(grad.double(), *exact, case.form, case.step)
    pairs = [(out, expected), (gradients[0], wanted[0]), (gradients[2], wanted[2])]
    pairs += [(gradients[1], wanted[1])] if of_offset else []
    for ours, theirs in pairs:
        assert ours.dtype == out.dtype
        torch.testing.assert_close(ours.double(), theirs, rtol=rtol, atol=atol)


def check_places_that_are_no_number(
    kernels: ModuleType, case: Case, *, backward: bool = True
) -> None:
    """Assert that NaN among the offsets shows, forward and backward, and nowhere else."""
    value, offset, weight = case.operands(3, torch.float32)
    value, offset = torch.ones_like(value), torch.zeros_like(offset)
    offset[1, 2, 1] = torch.nan
    out = kernels.forward(value, offset, weight, case.form, case.step)
    step = case.step if case.form == "subpixels" else 1
    there = torch.zeros(out.shape, dtype=torch.bool)
    there[1, 2 * step : 3 * step, step : 2 * step] = True
    assert torch.equal(out.isnan(), there)
    if backward:
        of_value, _, _ = kernels.backward(out, value, offset, weight, case.form, case.step)
        assert of_value[1].isnan().any() and of_value[0].isfinite().all()


def check_types_of_gradients(kernels: ModuleType, case: Case) -> None:
    """Assert that every gradient has the type and shape of its operand, where these differ."""
    value, offset, weight = case.operands(16, torch.float32)
    operands = value.bfloat16(), offset, None if weight is None else weight.half()
    out = kernels.forward(*operands, case.form, case.step)
    assert out.dtype == torch.bfloat16
    gradients = kernels.backward(out, *operands, case.form, case.step)
    for gradient, operand in zip(gradients, operands, strict=True):
        assert operand is None or (gradient.dtype, gradient.shape) == (operand.dtype, operand.shape)
