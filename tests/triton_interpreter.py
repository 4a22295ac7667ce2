"""The Triton kernels under Triton's interpreter, which runs them on a CPU.

Run by test_ops_triton.py in a process of its own: TRITON_INTERPRET counts before Triton is
imported, and for all of the process.
"""

from __future__ import annotations

import pytest
import torch

from model.ops import sampling_native, sampling_triton
from tests.sampling_cases import CASES, Case


@pytest.mark.parametrize("case", CASES[:5], ids=str)
def test_kernels_agree_with_pytorchs_sampler(case: Case, monkeypatch):
    monkeypatch.setattr(sampling_triton, "_MOST_CHANNELS", 2)  # a rest of one, and several blocks
    operands = case.operands(3)
    out = sampling_triton.forward(*operands, case.form, case.step)
    expected = sampling_native.forward(*operands, case.form, case.step)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    actual = sampling_triton.backward(grad, *operands, case.form, case.step)
    expected = sampling_native.backward(grad, *operands, case.form, case.step)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_are_kept_in_float32(dtype: torch.dtype):
    operands = [t.to(dtype) for t in CASES[2].operands(2)]
    exact = [t.double() for t in operands]
    out = sampling_triton.forward(*operands, "square", 1)
    expected = sampling_native.forward(*exact, "square", 1)
    assert out.dtype == dtype
    # Rounded once, and the interpreter rounds bfloat16 towards zero.
    bound = torch.finfo(dtype).eps
    torch.testing.assert_close(out.double(), expected, rtol=bound, atol=2e-6)
    grads = sampling_triton.backward(out, *operands, "square", 1)
    wanted = sampling_native.backward(out.double(), *exact, "square", 1)
    # Slopes jump at whole pixels, where rounded offsets may lie: no gradient of these here.
    for grad, other in zip(grads[::2], wanted[::2], strict=True):
        assert grad.dtype == dtype
        torch.testing.assert_close(grad.double(), other, rtol=bound, atol=4e-6)


@pytest.mark.parametrize("far", [3e9, float("inf")])
def test_far_offsets_read_zero_and_pass_no_gradient(far: float):
    value, offset, weight = CASES[2].operands(1, torch.float32)
    offset = torch.full_like(offset, far)
    offset[:, ::2] *= -1
    out = sampling_triton.forward(value, offset, weight, "square", 1)
    grads = sampling_triton.backward(torch.ones_like(out), value, offset, weight, "square", 1)
    for tensor in (out, *grads):
        assert tensor.count_nonzero() == 0
