"""Float32 operators at the widths of level 1: results and gradients as exact as asked for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.operators import level_1

BOUND = 1e-5  # absolute, of values and gradients of order one; relative of larger ones


def awkward(name: str, operand: Tensor) -> Tensor:
    """The same, not contiguous; some of the offsets lead far out of the map."""
    turned = operand.transpose(1, 2).contiguous()
    if name == "offset":
        turned.view(-1)[::13] *= 1e4
    return turned.transpose(1, 2)


@pytest.mark.parametrize("sides", [(23, 41), (2, 1021)], ids=str)
@pytest.mark.parametrize("name", level_1(1, 1, torch.float32, "cpu"))
def test_results_and_gradients_are_those_of_the_reference(name: str, sides: tuple[int, int]):
    fast, reference, operands = level_1(*sides, torch.float32, "cpu")[name]
    operands = [awkward(*item) for item in operands.items()]
    grad, results = None, []
    for operator in (fast, reference):
        leaves = [operand.clone().requires_grad_() for operand in operands]
        out = operator(*leaves)
        grad = torch.randn_like(out) if grad is None else grad
        results.append([out, *torch.autograd.grad(out, leaves, grad)])
    torch.testing.assert_close(*results, rtol=BOUND, atol=BOUND)
