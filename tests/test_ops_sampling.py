"""The sampling operator: its kernels against PyTorch's sampler, and what tools see of it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from model.ops import sampling_cpu, sampling_native
from model.ops.dcnv3 import DCNv3, dcnv3
from model.ops.deform_strip import deform_strip
from model.ops.dysample import dysample
from model.ops.flops import FLOP_FORMULAS
from model.ops.sampling import portable
from tests.sampling_cases import (
    CASES,
    Case,
    check_by_pytorchs_sampler,
    check_places_that_are_no_number,
    check_types_of_gradients,
)

every_case = pytest.mark.parametrize("case", CASES, ids=str)


@every_case
@pytest.mark.parametrize("width", [1, 3, 21])  # of a group: scalars, and vectors with a rest
def test_kernels_agree_with_pytorchs_sampler(case: Case, width: int):
    check_by_pytorchs_sampler(sampling_cpu, case, case.operands(width), rtol=1e-7, atol=1e-7)


@every_case
def test_places_that_are_no_number_give_none(case: Case):
    check_places_that_are_no_number(sampling_cpu, case)
    # PyTorch's sampler gives their gradients to no pixel of the map.
    check_places_that_are_no_number(sampling_native, case, backward=False)


@every_case
def test_gradients_come_in_the_types_of_their_operands(case: Case):
    check_types_of_gradients(sampling_cpu, case)


def test_the_number_of_threads_changes_no_bit(monkeypatch):
    operands = CASES[2].operands(16, torch.float32)
    results = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        out = sampling_cpu.forward(*operands, "square", 1)
        results.append([out, *sampling_cpu.backward(out, *operands, "square", 1)])
    torch.testing.assert_close(*results, rtol=0, atol=0)


class OperatorNames(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.add(func.namespace)
        return func(*args, **(kwargs or {}))


def public_calls() -> list[tuple[Callable[..., Tensor], list[Tensor]]]:
    torch.manual_seed(0)
    value = torch.randn(2, 5, 6, 8)
    return [
        (lambda v, o: deform_strip(v, o, "h"), [value, 3 * torch.randn(2, 5, 6, 2, 7)]),
        (lambda v, o: deform_strip(v, o, "w"), [value, 3 * torch.randn(2, 5, 6, 2, 5)]),
        (dcnv3, [value, 2 * torch.randn(2, 5, 6, 2, 9, 2), torch.rand(2, 5, 6, 2, 9)]),
        (dysample, [value.permute(0, 3, 1, 2), torch.randn(2, 2, 2, 4, 5, 6)]),
    ]


@pytest.mark.parametrize("number", range(4), ids=["strip_h", "strip_w", "dcnv3", "dysample"])
def test_the_portable_form_gives_the_same_without_custom_operators(number: int):
    operator, operands = public_calls()[number]
    results, namespaces = [], []
    for use_portable in (False, True):
        leaves = [operand.clone().requires_grad_() for operand in operands]
        with OperatorNames() as operators:
            if use_portable:
                with portable():
                    out = operator(*leaves)
            else:
                out = operator(*leaves)
        out.square().sum().backward()
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
        namespaces.append(operators.seen)
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-4)
    assert "anchor_sam" in namespaces[0]
    assert namespaces[1] == {"aten"}


def test_the_portable_form_is_what_a_tracer_sees():
    operator, operands = public_calls()[0]

    class Network(torch.nn.Module):
        def forward(self, *operands: torch.Tensor) -> torch.Tensor:
            return operator(*operands)

    with portable():
        program = torch.export.export(Network(), tuple(operands), strict=True)
    assert "grid_sampl" in program.graph_module.code
    assert "anchor_sam" not in program.graph_module.code


def test_portable_ends_with_its_block():
    operator, operands = public_calls()[0]
    with pytest.raises(KeyError), portable():
        raise KeyError
    with OperatorNames() as operators:
        operator(*operands)
    assert "anchor_sam" in operators.seen


def test_portable_is_of_one_thread():
    operator, operands = public_calls()[0]
    with portable(), ThreadPoolExecutor(1) as other, OperatorNames() as operators:
        operator(*operands)
        seen_here = set(operators.seen)

        def seen_there() -> set[str]:
            with OperatorNames() as operators:
                operator(*operands)
            return operators.seen

        assert "anchor_sam" in other.submit(seen_there).result()
    assert seen_here == {"aten"}


#: FLOPs of a forward pass: two a corner, tap and channel.
FLOPS = (2 * 2 * 7 * 480, 2 * 2 * 5 * 480, 2 * 4 * 9 * 480, 2 * 4 * 4 * 480)


@pytest.mark.parametrize("number", range(4), ids=["strip_h", "strip_w", "dcnv3", "dysample"])
def test_flops_are_counted_on_request_alone(number: int):
    operator, operands = public_calls()[number]
    leaves = [operand.requires_grad_() for operand in operands]
    for formulas, expected in ((None, 0), (FLOP_FORMULAS, 3 * FLOPS[number])):
        with FlopCounterMode(custom_mapping=formulas, display=False) as counter:
            operator(*leaves).sum().backward()
        assert counter.get_total_flops() == expected


@every_case
def test_the_operator_is_registered_as_pytorch_wants_it(case: Case):
    operands = [t if t is None else t.requires_grad_() for t in case.operands(2)]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    operator = torch.ops.anchor_sam.deform_sample.default
    torch.library.opcheck(operator, (*operands, case.form, case.step), test_utils=checks)


class Operators(nn.Module):
    """A strip, DCNv3 and DySample in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = DCNv3(16, groups=2)

    def forward(self, x: Tensor, offset: Tensor, points: Tensor) -> Tensor:
        x = self.layer(deform_strip(x.permute(0, 2, 3, 1), offset, "w").permute(0, 3, 1, 2))
        return dysample(x, points)


def test_compilers_and_exporters_see_one_call_an_operator():
    torch.manual_seed(0)
    net = Operators()
    inputs = (torch.randn(1, 16, 5, 6), torch.randn(1, 5, 6, 2, 5), torch.randn(1, 2, 2, 4, 5, 6))
    expected = net(*inputs)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    out = compiled(*inputs)
    out.sum().backward()
    torch.testing.assert_close(out, expected)
    assert net.layer.offset.weight.grad.isfinite().all()
    program = torch.export.export(net, inputs)
    calls = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert calls.count("anchor_sam.deform_sample.default") == 3
    torch.testing.assert_close(program.module()(*inputs), expected)
