"""Anchor-SAM: sizes, shapes, training modes, gradients and the anchors that it shows."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from model import build_model
from model.anchor_sam.anchor_mining import StripOffsets
from model.anchor_sam.net import AnchorSAM
from model.meta import on_meta
from model.ops.dcnv3 import DCNv3

#: Parameters: total, trunk, neck, adapter, context fusion, decoder without context fusion.
PARAMETERS = {
    "tiny": (49_936_445, 26_849_472, 369_664, 1_441_040, 12_830_804, 8_445_465),
    "small": (57_034_301, 33_947_328, 369_664, 1_441_040, 12_830_804, 8_445_465),
    "base": (96_664_373, 68_675_712, 431_104, 1_441_040, 16_576_180, 9_540_337),
    "base_plus": (96_664_373, 68_675_712, 431_104, 1_441_040, 16_576_180, 9_540_337),
    "large": (251_907_413, 212_149_296, 553_984, 1_441_040, 25_670_516, 12_092_577),
}
#: GFLOPs of one forward pass at 256, 512 and 1024 px, deformable sampling not counted.
GFLOPS = {
    "tiny": (31.5, 118.8, 516),
    "small": (38.6, 138.9, 584),
    "large": (123.2, 498.1, 2079),
}


def without_memory(model_size: str) -> AnchorSAM:
    with on_meta():
        return AnchorSAM(model_size=model_size).eval()


def nano(seed: int = 0, *, offsets: bool = False, **model_args) -> AnchorSAM:
    """A small network; `offsets` moves its sampling points, which a new one does not."""
    torch.manual_seed(seed)
    net = AnchorSAM(model_size="nano", **model_args)
    if offsets:
        for module in net.modules():
            heads = [module.head] if isinstance(module, StripOffsets) else []
            heads += [module.offset, module.mask] if isinstance(module, DCNv3) else []
            for head in heads:
                nn.init.normal_(head.weight, std=0.3)
                nn.init.normal_(head.bias)
    return net


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("model_size", PARAMETERS)
def test_parameter_counts(model_size):
    net = without_memory(model_size)
    encoder = net.encoder
    parts = (encoder.trunk, encoder.neck, net.adapter, net.context_fusion, net.decoder)
    counts = [sum(p.numel() for p in part.parameters()) for part in (net, *parts)]
    assert tuple(counts) == PARAMETERS[model_size]
    assert sum(counts[1:]) == counts[0]


@pytest.mark.parametrize("model_size", GFLOPS)
def test_arithmetic_of_a_forward_pass(model_size, monkeypatch):
    # What is not counted need not be run: thousands of small operations on the meta device.
    monkeypatch.setattr("model.ops.dcnv3.dcnv3", lambda value, *_, **__: value)
    monkeypatch.setattr("model.anchor_sam.anchor_mining.deform_strip", lambda value, *_: value)
    net = without_memory(model_size)
    for side, gflops in zip((256, 512, 1024), GFLOPS[model_size], strict=True):
        with torch.no_grad(), FlopCounterMode(display=False) as count:
            net(torch.empty(1, 3, side, side, device="meta"))
        assert count.get_total_flops() / 1e9 == pytest.approx(gflops, rel=5e-3)


@pytest.mark.parametrize("sides", [(1, 1), (1, 70), (33, 65), (64, 96), (127, 40)])
def test_any_input_size_gives_logits_of_that_size(sides):
    logits = nano().eval()(torch.randn(1, 3, *sides))
    assert logits.shape == (1, 1, *sides)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


def test_trains_on_a_single_pixel():
    assert nano().train()(torch.randn(1, 3, 1, 1)).isfinite().all()


def test_n_classes_gives_as_many_logits(image):
    assert nano(n_classes=3)(image).shape == (1, 3, 64, 96)


def test_every_parameter_gets_a_finite_gradient(image):
    net = nano(offsets=True).train()
    net.set_training_mode("train_all")
    net(image).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    silent = {n for n, p in net.named_parameters() if p.grad.count_nonzero() == 0}
    assert not silent


def test_adapter_only_freezes_the_trunk_and_nothing_else(image):
    net = nano(offsets=True)
    net.set_training_mode("adapter_only")
    net.train()
    net(image).square().mean().backward()
    for name, parameter in net.named_parameters():
        frozen = name.startswith("encoder.trunk.")
        assert parameter.requires_grad != frozen, name
        assert (parameter.grad is None) == frozen, name
    assert not any(module.training for module in net.encoder.trunk.modules())
    assert all(module.training for module in net.encoder.neck.modules())
    assert all(module.training for module in net.decoder.modules())


def test_a_frozen_trunk_keeps_no_activation(image):
    net = nano()
    kept = []
    for mode in ("train_all", "adapter_only"):
        net.set_training_mode(mode)
        tensors: list[Tensor] = []
        with saved_tensors_hooks(lambda t, into=tensors: (into.append(t), t)[1], lambda t: t):
            last_stage, levels = net.encoder(image)
        kept.append(len(tensors))
        assert last_stage.requires_grad == (mode == "train_all")
        assert all(level.requires_grad for level in levels)
    assert kept[1] < kept[0] / 10


def test_an_unknown_training_mode_lists_the_two():
    with pytest.raises(ValueError, match="'train_all' or 'adapter_only'"):
        nano().set_training_mode("adapter")


@pytest.mark.parametrize("mode", ["train_all", "adapter_only"])
def test_parameter_groups_hold_every_trainable_parameter_once(mode):
    net = nano()
    net.set_training_mode(mode)
    groups = {g["name"]: g["params"] for g in net.parameter_groups(1e-3, 1e-2)}
    grouped = [id(p) for params in groups.values() for p in params]
    assert sorted(grouped) == sorted(id(p) for p in net.parameters() if p.requires_grad)
    no_decay = {id(p) for p in groups["no_decay"]}
    for name, parameter in net.named_parameters():
        if parameter.requires_grad and any(w in name for w in ("pos_embed", "position_bias")):
            assert id(parameter) in no_decay, name


def test_gradient_checkpointing_changes_no_number(image):
    results = []
    for recompute in (False, True):
        net = nano(offsets=True).train()
        if recompute:
            net.enable_gradient_checkpointing()
        loss = net(image).square().mean()
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in net.parameters())])
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_gradient_checkpointing_calls_every_trunk_block_twice(image):
    net = nano().train()
    net.enable_gradient_checkpointing()
    calls = []
    for number, block in enumerate(net.encoder.trunk.blocks):
        block.norm1.register_forward_hook(lambda *_, number=number: calls.append(number))
    net(image).mean().backward()
    assert sorted(calls) == sorted(2 * list(range(len(net.encoder.trunk.blocks))))


def test_a_copy_of_a_checkpointed_network_is_its_own(image):
    net = nano().eval()
    net.enable_gradient_checkpointing()
    twin = copy.deepcopy(net)
    with torch.no_grad():
        before = net(image)
        for parameter in twin.parameters():
            parameter.zero_()
        assert twin(image).count_nonzero() == 0
        torch.testing.assert_close(net(image), before, rtol=0, atol=0)


def test_gradient_checkpointing_of_a_frozen_trunk_is_called_idle(caplog):
    net = nano()
    net.set_training_mode("adapter_only")
    net.enable_gradient_checkpointing()
    assert "gradient_checkpointing has no effect" in caplog.text


def test_a_seed_decides_every_weight(image):
    first, again, other = (nano(seed).eval() for seed in (0, 0, 1))
    torch.testing.assert_close(first.state_dict(), again.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(first(image), again(image), rtol=0, atol=0)
    assert not torch.allclose(first(image), other(image))


def test_bfloat16_autocast_stays_close(image):
    net = nano(offsets=True).eval()
    with torch.no_grad():
        expected = net(image)
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(image)
    assert logits.dtype == torch.float32
    scale = expected.std().item()
    torch.testing.assert_close(logits, expected, rtol=0, atol=0.25 * scale)


def test_a_random_start_is_said_once_and_not_where_a_checkpoint_follows(caplog):
    args = {"model_size": "nano"}
    with caplog.at_level(logging.WARNING):
        build_model("AnchorSAM", args, load_pretrained=False)
        assert not caplog.records
        build_model("AnchorSAM", args)
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "pretrained_weights_path is None, the encoder starts at random" in caplog.text


def test_published_names_build_it():
    args = {"model_size": "nano", "pretrained_weights_path": "nowhere.pt"}
    for name in ("AnchorSAM", "SAM2Point1Net"):
        assert isinstance(build_model(name, args, load_pretrained=False), AnchorSAM)


def test_anchors_of_a_new_network_are_the_regular_taps():
    anchors = nano().anchors(torch.randn(2, 3, 70, 100))
    assert [a.stride for a in anchors] == [4, 8, 16, 32]
    for level, (taps, groups) in zip(anchors, [(7, 4), (7, 4), (5, 8), (5, 8)], strict=True):
        s = level.stride
        cells = (-(-70 // s), -(-100 // s))
        assert level.horizontal.shape == (2, *cells, groups, taps, 2)
        assert level.vertical.shape == level.horizontal.shape
        assert level.gate.shape == (2, 64, *cells)
        row, column, tap = 1, 2, taps - 1
        centre_x, centre_y = column * s + (s - 1) / 2, row * s + (s - 1) / 2
        reach = s * (taps // 2)
        assert level.horizontal[1, row, column, 0, tap].tolist() == [centre_x + reach, centre_y]
        assert level.vertical[1, row, column, 0, tap].tolist() == [centre_x, centre_y + reach]
        assert level.horizontal[0, row, column, 1, 0].tolist() == [centre_x - reach, centre_y]


def test_anchors_are_where_forward_samples(image):
    """The offset heads' outputs, caught in `forward`, lead to the coordinates of `anchors`."""
    net = nano(offsets=True).eval()
    caught: dict[str, Tensor] = {}
    hooks = [
        getattr(adapter, part).register_forward_hook(
            lambda _m, args, out, key=f"{part}{i}": caught.update({key: out, f"in_{key}": args[0]})
        )
        for i, adapter in enumerate(net.adapter)
        for part in ("horizontal_offsets", "vertical_offsets", "gate_projection")
    ]
    with torch.no_grad():
        net(image)
    for hook in hooks:
        hook.remove()
    for i, level in enumerate(net.anchors(image)):
        H, W, _, K = level.horizontal.shape[1:5]
        horizontal, vertical = caught[f"horizontal_offsets{i}"], caught[f"vertical_offsets{i}"]
        assert horizontal.std() > 0.1 and vertical.std() > 0.1
        for h, w, k in ((0, 0, 0), (H - 1, W - 1, K - 1), (H // 2, W // 3, 1)):
            tap = k - K // 2
            to_px = lambda i, s=level.stride: (i + 0.5) * s - 0.5  # noqa: E731
            x, y = level.horizontal[:, h, w, :, k].unbind(-1)
            torch.testing.assert_close(x, to_px(w + tap + horizontal[:, h, w, :, k]))
            assert (y == to_px(h)).all()
            x, y = level.vertical[:, h, w, :, k].unbind(-1)
            torch.testing.assert_close(y, to_px(h + tap + vertical[:, h, w, :, k]))
            assert (x == to_px(w)).all()
        torch.testing.assert_close(level.gate, caught[f"in_gate_projection{i}"])
