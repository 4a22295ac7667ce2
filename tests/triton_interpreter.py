"""The Triton kernels under Triton's interpreter, which runs them on a CPU.

Run by test_ops_triton.py in a process of its own: TRITON_INTERPRET counts before Triton is
imported, and for all of the process.
"""

from __future__ import annotations

import pytest
import torch

from model.ops import sampling_triton
from tests.sampling_cases import (
    CASES,
    LONG_ROW,
    Case,
    check_by_pytorchs_sampler,
    check_places_that_are_no_number,
    check_types_of_gradients,
    operands_of_long_row,
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernels_agree_with_pytorchs_sampler(case: Case, monkeypatch):
    monkeypatch.setattr(sampling_triton, "_MOST_CHANNELS", 2)  # a rest of one, and several blocks
    check_by_pytorchs_sampler(sampling_triton, case, case.operands(3), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("case", CASES[4:5], ids=str)
def test_float32_is_kept_to_its_last_bits(case: Case):
    operands = case.operands(3, torch.float32)
    check_by_pytorchs_sampler(sampling_triton, case, operands, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES[::2], ids=str)
def test_places_that_are_no_number_give_none(case: Case):
    check_places_that_are_no_number(sampling_triton, case)


@pytest.mark.parametrize("case", CASES[2:3], ids=str)
def test_gradients_come_in_the_types_of_their_operands(case: Case):
    check_types_of_gradients(sampling_triton, case)


def test_fractions_keep_their_bits_far_along_the_map():
    operands = operands_of_long_row()
    check_by_pytorchs_sampler(sampling_triton, LONG_ROW, operands, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_are_kept_in_float32(dtype: torch.dtype):
    # Rounded once, and the interpreter rounds bfloat16 towards zero. Slopes jump at whole pixels,
    # where rounded offsets may lie: no gradient of these here.
    check_by_pytorchs_sampler(
        sampling_triton,
        CASES[2],
        [t.to(dtype) for t in CASES[2].operands(2)],
        rtol=torch.finfo(dtype).eps,
        atol=4e-6,
        of_offset=False,
    )


@pytest.mark.parametrize("far", [3e9, float("inf")])
def test_far_offsets_read_zero_and_pass_no_gradient(far: float):
    value, offset, weight = CASES[2].operands(1, torch.float32)
    offset = torch.full_like(offset, far)
    offset[:, ::2] *= -1
    out = sampling_triton.forward(value, offset, weight, "square", 1)
    grads = sampling_triton.backward(torch.ones_like(out), value, offset, weight, "square", 1)
    for tensor in (out, *grads):
        assert tensor.count_nonzero() == 0
