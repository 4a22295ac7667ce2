"""The selective scan against loops and filters, and the eight scan orders of RS-Mamba."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import lfilter
from torch import nn
from torch.autograd import gradcheck

from model.ops import scan_blocked, scan_cpu
from model.ops import selective_scan as scan_module
from model.ops.omni_scan import omni_merge, omni_scan, scan_orders
from model.ops.selective_scan import selective_scan, selective_scan_reference

CPU = torch.device("cpu")


def scan_inputs(
    B: int, G: int, L: int, d: int, N: int, dtype: torch.dtype = torch.float32
) -> list[torch.Tensor]:
    """u, delta, A, B, C, D, delta_bias of the usual sizes: step sizes of 0.01 to 1."""
    generator = torch.Generator().manual_seed(L)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs = [normal(B, G, L, d), normal(B, G, L, d), -4 * normal(G, d, N).abs()]
    inputs += [normal(B, G, L, N), normal(B, G, L, N), normal(G, d), normal(G, d) - 2]
    return [x.to(dtype) for x in inputs]


def by_hand(u, delta, A, B, C, D, delta_bias) -> np.ndarray:
    """The recurrence in float64 NumPy, one number after the other."""
    u, delta, A, B, C, D, bias = (x.double().numpy() for x in (u, delta, A, B, C, D, delta_bias))
    y = np.empty_like(u)
    for b, g, j in np.ndindex(u.shape[0], u.shape[1], u.shape[3]):
        h = np.zeros(A.shape[2])
        for t in range(u.shape[2]):
            dt = np.logaddexp(0, delta[b, g, t, j] + bias[g, j])
            h = np.exp(dt * A[g, j]) * h + dt * u[b, g, t, j] * B[b, g, t]
            y[b, g, t, j] = C[b, g, t] @ h + D[g, j] * u[b, g, t, j]
    return y


@pytest.fixture(params=["in sequence", "chunks in parallel"])
def plan(request, monkeypatch):
    """Plain PyTorch in tiny blocks: a short sequence has several. The second form is for GPUs."""
    chunks = 3 if request.param == "chunks in parallel" else 1

    def small(cls, u, A):
        return cls(u.shape[1], u.shape[2], width=2, chunks=chunks)

    monkeypatch.setattr(scan_module, "_form", lambda u: scan_blocked)
    monkeypatch.setattr(scan_blocked, "CHUNK", 4)
    monkeypatch.setattr(scan_blocked._Plan, "of", classmethod(small))


@pytest.mark.parametrize("shape", [(2, 3, 75, 4, 5), (1, 1, 1, 1, 1), (1, 2, 32, 3, 2)])
@pytest.mark.parametrize("function", [selective_scan, selective_scan_reference])
def test_float32_matches_a_loop_in_float64(function, shape):
    inputs = scan_inputs(*shape)
    expected = by_hand(*inputs)
    error = np.abs(function(*inputs).numpy() - expected).max()
    assert error <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("length", [1, 4, 12, 13, 30])
def test_blocks_of_every_remainder(plan, length):
    inputs = [x.requires_grad_() for x in scan_inputs(2, 3, length, 2, 3, torch.float64)]
    y, expected = selective_scan(*inputs), selective_scan_reference(*inputs)
    torch.testing.assert_close(y, expected)
    weight = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(0))
    grads = torch.autograd.grad(y, inputs, weight)
    for grad, of_reference in zip(
        grads, torch.autograd.grad(expected, inputs, weight), strict=True
    ):
        torch.testing.assert_close(grad, of_reference)


@pytest.mark.parametrize("shape", [(2, 3, 75, 4, 5), (1, 1, 1, 1, 1), (1, 2, 64, 130, 16)])
@pytest.mark.parametrize("form", [scan_blocked, scan_cpu])
def test_float32_gradients_match_the_reference_in_float64(monkeypatch, form, shape):
    monkeypatch.setattr(scan_module, "_form", lambda u: form)
    inputs = [x.requires_grad_() for x in scan_inputs(*shape)]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    y, expected = selective_scan(*inputs), selective_scan_reference(*exact)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    grads = [y, *torch.autograd.grad(y, inputs, weight)]
    of_reference = [expected, *torch.autograd.grad(expected, exact, weight.double())]
    for grad, wanted in zip(grads, of_reference, strict=True):
        assert (grad - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_step_sizes_from_the_smallest_to_the_largest():
    """softplus and exp of the kernels, over all that they can meet."""
    delta = torch.linspace(-100, 100, 4001)[None, None, None]
    u, ones = torch.ones_like(delta), torch.ones(1, 1, 1, 1)
    zeros = torch.zeros(1, delta.shape[-1])
    inputs = [u, delta, torch.full((1, 4001, 1), -1.0), ones, ones, zeros, zeros]
    inputs = [x.requires_grad_() for x in inputs]
    y = selective_scan(*inputs)
    x = delta.detach().double()
    torch.testing.assert_close(y.double(), F.softplus(x), rtol=1e-5, atol=1e-37)
    (slope,) = torch.autograd.grad(y.sum(), inputs[1])
    torch.testing.assert_close(slope.double(), x.sigmoid(), rtol=1e-5, atol=1e-37)


@pytest.mark.parametrize("number", range(7), ids=["u", "delta", "A", "B", "C", "D", "delta_bias"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_number_shows_where_the_reference_has_it(number: int, value: float):
    inputs = scan_inputs(1, 2, 8, 3, 4)
    inputs[number].view(-1)[0] = value
    y, expected = selective_scan(*inputs), selective_scan_reference(*inputs)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("form", [scan_blocked, scan_cpu])
def test_results_are_contiguous_as_the_compiler_is_told(form):
    inputs = [x.mT.contiguous().mT if x.ndim == 4 else x for x in scan_inputs(2, 3, 9, 4, 5)]
    y, states = form.forward(*inputs)
    results = [y, states, *form.backward(torch.ones_like(y), states, *inputs)]
    assert all(result.is_contiguous() for result in results)


@pytest.mark.parametrize("form", [scan_blocked, scan_cpu])
def test_no_image_gives_none(monkeypatch, form):
    monkeypatch.setattr(scan_module, "_form", lambda u: form)
    inputs = [x.requires_grad_() for x in scan_inputs(0, 2, 8, 3, 4)]
    y = selective_scan(*inputs)
    assert y.shape == (0, 2, 8, 3)
    assert all(not grad.any() for grad in torch.autograd.grad(y.sum(), inputs))


def test_the_number_of_threads_changes_no_bit(monkeypatch):
    inputs = [x.requires_grad_() for x in scan_inputs(2, 4, 70, 5, 3)]
    results = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        y = selective_scan(*inputs)
        results.append([y, *torch.autograd.grad(y.square().sum(), inputs)])
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_gradients_by_finite_differences(plan):
    inputs = [x.requires_grad_() for x in scan_inputs(1, 2, 9, 2, 2, torch.float64)]
    assert gradcheck(selective_scan, inputs)


def test_long_sequence_is_the_linear_filter():
    L, dt, a = 5000, 0.02, -0.3
    u = torch.randn(1, 1, L, 1, generator=torch.Generator().manual_seed(0))
    ones, zero = torch.ones(1, 1, L, 1), torch.zeros(1, 1)
    delta = torch.full_like(u, float(np.log(np.expm1(dt))))
    y = selective_scan(u, delta, torch.full((1, 1, 1), a), ones, 2 * ones, zero, zero)
    expected = lfilter([2 * dt], [1, -np.exp(dt * a)], u.double().flatten().numpy())
    np.testing.assert_allclose(y.flatten().numpy(), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("form", [scan_blocked, scan_cpu])
def test_strong_decay_forgets_instead_of_dividing_by_zero(monkeypatch, form):
    monkeypatch.setattr(scan_module, "_form", lambda u: form)
    inputs = scan_inputs(1, 2, 40, 3, 4)
    inputs[2] = torch.full_like(inputs[2], -1e4)
    inputs = [x.requires_grad_() for x in inputs]
    y = selective_scan(*inputs)
    u, delta, _, b, c, D, bias = inputs
    dt = F.softplus(delta + bias[:, None])
    memoryless = dt * u * (b * c).sum(-1, keepdim=True) + D[:, None] * u
    torch.testing.assert_close(y, memoryless, rtol=1e-4, atol=1e-5)
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(y.sum(), inputs))


def test_layout_of_the_inputs_does_not_matter():
    inputs = scan_inputs(2, 2, 40, 3, 4)
    expected = selective_scan(*inputs)
    scattered = [x.transpose(-1, -2).contiguous().transpose(-1, -2) for x in inputs]
    assert not scattered[0].is_contiguous()
    torch.testing.assert_close(selective_scan(*scattered), expected)
    inputs[0].requires_grad_()
    (grad,) = torch.autograd.grad(selective_scan(*inputs).sum(), inputs[0])  # an expanded gradient
    (of_reference,) = torch.autograd.grad(selective_scan_reference(*inputs).sum(), inputs[0])
    torch.testing.assert_close(grad, of_reference)


def test_bfloat16_and_autocast_are_computed_in_float32():
    inputs = scan_inputs(1, 2, 40, 8, 16)
    rounded = [x.bfloat16().requires_grad_() for x in inputs]
    widened = [x.detach().float().requires_grad_() for x in rounded]
    y = selective_scan(*rounded)
    assert y.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = selective_scan(*widened)
        grads = torch.autograd.grad(under_autocast.sum(), widened)
    expected = selective_scan(*widened)
    assert torch.equal(y, expected) and torch.equal(under_autocast, expected)
    plain = torch.autograd.grad(expected.sum(), widened)
    assert all(torch.equal(a, b) for a, b in zip(grads, plain, strict=True))


def test_states_are_not_kept_for_the_backward_pass():
    B, G, L, d, N = 1, 2, 1024, 8, 16
    kept: list[torch.Tensor] = []

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept.append(x)
        return x

    inputs = [x.requires_grad_() for x in scan_inputs(B, G, L, d, N)]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        y = selective_scan(*inputs)
    assert y.requires_grad
    of_inputs = sum(x.numel() for x in inputs)
    assert sum(x.numel() for x in kept) <= of_inputs + B * G * L * d * N / 16


def test_operator_is_sound_for_tracing():
    inputs = [x.requires_grad_() for x in scan_inputs(1, 2, 40, 3, 4)]
    torch.library.opcheck(
        scan_module._scan,
        inputs,
        test_utils=(
            "test_schema",
            "test_autograd_registration",
            "test_faketensor",
            "test_aot_dispatch_dynamic",
        ),
    )


def test_arguments_of_the_cuda_kernel():
    """Its documented interface: u, delta (B, G d, L), A (G d, N), B, C (B, G, N, L)."""

    def kernel(u, delta, A, B, C, D, *, delta_bias, delta_softplus):
        assert delta_softplus
        G = B.shape[1]
        A, D, delta_bias = (x.unflatten(0, (G, -1)) for x in (A, D, delta_bias))
        u, delta = (x.unflatten(1, (G, -1)).transpose(2, 3) for x in (u, delta))
        y = selective_scan_reference(
            u, delta, A, B.transpose(2, 3), C.transpose(2, 3), D, delta_bias
        )
        return y.transpose(2, 3).flatten(1, 2)

    inputs = scan_inputs(2, 3, 7, 4, 5)
    expected = selective_scan_reference(*inputs)
    torch.testing.assert_close(scan_module._run_mamba(kernel, *inputs), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_matches_the_cpu():
    inputs = [x.requires_grad_() for x in scan_inputs(2, 8, 3000, 32, 16)]
    on_gpu = [x.detach().cuda().requires_grad_() for x in inputs]
    y, y_gpu = selective_scan(*inputs), selective_scan(*on_gpu)
    torch.testing.assert_close(y_gpu.cpu(), y, rtol=1e-3, atol=1e-3)
    grads = torch.autograd.grad(y.square().mean(), inputs)
    for grad, gpu in zip(grads, torch.autograd.grad(y_gpu.square().mean(), on_gpu), strict=True):
        torch.testing.assert_close(gpu.cpu(), grad, rtol=1e-3, atol=1e-3 * float(grad.abs().max()))


class TestOrders:
    def test_published_example(self):
        orders, _ = scan_orders(3, 4, CPU)
        assert orders[0].tolist() == list(range(12))
        assert orders[1].tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
        assert orders[4].tolist() == [0, 5, 10, 1, 6, 11, 2, 7, 8, 3, 4, 9]
        assert orders[5].tolist() == [0, 7, 10, 1, 4, 11, 2, 5, 8, 3, 6, 9]
        for forward, reversal in ((0, 2), (1, 3), (4, 6), (5, 7)):
            assert orders[reversal].tolist() == orders[forward].tolist()[::-1]

    @pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (7, 3), (3, 7), (8, 8)])
    def test_permutations_and_their_inverses(self, size):
        orders, places = scan_orders(*size, CPU)
        pixels = torch.arange(size[0] * size[1])
        for order, place in zip(orders, places, strict=True):
            assert torch.equal(order.sort().values, pixels)
            assert torch.equal(order[place], pixels)

    @pytest.mark.parametrize("size", [(4, 6), (5, 1)])
    def test_merging_unprocessed_scans_is_eight_times_the_map(self, size):
        x = torch.randn(2, *size, 3, dtype=torch.float64)
        sequences = omni_scan(x)
        orders, _ = scan_orders(*size, CPU)
        for k in range(8):
            assert torch.equal(sequences[:, k], x.flatten(1, 2)[:, orders[k]])
        torch.testing.assert_close(omni_merge(sequences, *size), 8 * x)

    def test_gradients_by_finite_differences(self):
        x = torch.randn(1, 2, 3, 2, dtype=torch.float64, requires_grad=True)
        y = torch.randn(1, 8, 6, 2, dtype=torch.float64, requires_grad=True)
        assert gradcheck(omni_scan, x)
        assert gradcheck(lambda y: omni_merge(y, 2, 3), y)

    def test_orders_made_in_inference_mode_serve_training(self):
        scan_orders.cache_clear()
        with torch.inference_mode():
            omni_scan(torch.ones(1, 3, 5, 2))
        x = torch.ones(1, 3, 5, 2, requires_grad=True)
        omni_merge(omni_scan(x), 3, 5).sum().backward()
        assert torch.equal(x.grad, torch.full_like(x, 8))
        assert not scan_orders(3, 5, CPU)[0].is_inference()

    @pytest.mark.parametrize("kept_before", [False, True])
    def test_orders_without_values_are_neither_kept_nor_mixed(self, kept_before):
        class ThereAndBack(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return omni_merge(omni_scan(x), *x.shape[1:3])

        scan_orders.cache_clear()
        x = torch.randn(1, 3, 5, 2)
        if kept_before:
            omni_scan(x)
        exported = torch.export.export(ThereAndBack(), (x,), strict=False).module()
        for net in (ThereAndBack(), exported):
            torch.testing.assert_close(net(x), 8 * x)

    def test_compilers_take_the_orders_for_constants(self):
        def there_and_back(x: torch.Tensor) -> torch.Tensor:
            return omni_merge(omni_scan(x), *x.shape[1:3])

        x = torch.randn(1, 4, 6, 2, requires_grad=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*lru_cache.*")
            y = torch.compile(there_and_back, fullgraph=True, backend="aot_eager")(x)
        y.sum().backward()
        torch.testing.assert_close(y, 8 * x)
        torch.testing.assert_close(x.grad, torch.full_like(x, 8))
