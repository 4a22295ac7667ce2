"""RS-Mamba against its formulas, and what it promises beyond the contract of every model."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import model
from model.baselines.rs_mamba import RSM_SS, OmniStateSpace
from model.meta import on_meta
from model.ops.flops import FLOP_FORMULAS
from tests.conftest import ROOT
from tests.formulas import batch_norm, conv, gelu, pixel_norm, random_map, relu, scrambled, sigmoid
from utils.config import ConfigError, load_config

TINY = {"dims": 8, "depths": [1, 1, 1, 1], "ssm_d_state": 4, "drop_path_rate": 0.0}


@pytest.fixture
def network() -> RSM_SS:
    torch.manual_seed(0)
    return RSM_SS(**TINY)


def test_recomputation_changes_no_gradient(network):
    image = torch.randn(2, 3, 32, 32)
    gradients = []
    for _ in range(2):
        network.zero_grad()
        network.train()(image).square().mean().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
        network.enable_gradient_checkpointing()
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)


def test_state_space_starts_as_mamba_and_is_not_decayed(network):
    layer = network.stages[2][0].state_space
    steps = F.softplus(layer.dt_bias)
    assert steps.min() >= 1e-4 and steps.max() <= 0.1 + 1e-6
    rates = torch.exp(layer.A_log)
    torch.testing.assert_close(rates, torch.arange(1.0, 5.0).expand_as(rates))
    decayed = {
        id(p)
        for group in network.parameter_groups(1e-3, 0.1)
        if group["weight_decay"]
        for p in group["params"]
    }
    assert not decayed & {id(p) for p in (layer.A_log, layer.D, layer.dt_bias)}
    assert id(layer.x_proj) in decayed


def test_scans_add_their_published_cost():
    """5.02 GFLOP for a 256 x 256 image: a sixteenth at 64 x 64."""
    with on_meta():
        network = RSM_SS().eval()
    totals = []
    for formulas in (None, FLOP_FORMULAS):
        with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
            network(torch.empty(1, 3, 64, 64, device="meta"))
        totals.append(counter.get_total_flops() / 1e9)
    assert totals[1] - totals[0] == pytest.approx(5.02 / 16, rel=2e-3)


def test_one_width_doubles_from_stage_to_stage(network):
    assert [stage[0].norm1.normalized_shape[0] for stage in network.stages] == [8, 16, 32, 64]


@pytest.mark.parametrize(
    "args",
    [
        {"patch_size": 2},
        {"forward_type": "v1"},
        {"ssm_init": "v1"},
        {"norm_layer": "BN"},
        {"dims": [8, 16]},
        {"depths": [1, 1]},
        {"ssm_conv": 4},
        {"ssm_dt_rank": -3},
        {"dims": 0},
        {"dims": [1, 8, 8, 8]},
        {"ssm_ratio": 0.001},
        {"mlp_ratio": 0.001},
    ],
)
def test_what_is_not_offered_is_refused(args):
    with pytest.raises(ValueError, match=next(iter(args))):
        RSM_SS(**TINY | args)


def test_mistakes_are_told_together_once_each():
    wrong = ["ssm_d_state=0", "dims=wide", "depths=[2, 2, 9, 0]", "drop_path_rate=1.0"]
    wrong += ["ssm_dt_rank=-3", "ssm_conv=4"]
    problems = problems_of(wrong)
    assert len(problems) == len(wrong)
    for override in wrong:
        assert any(line.startswith(override.partition("=")[0]) for line in problems)
    assert not any("constrained" in line for line in problems)
    assert problems_of(["dims=[8, 16]", "depths=[2, 2]", "ssm_dt_rank=full"]) == [
        "depths: four entries, one a stage, got [2, 2]",
        "dims: four entries, one a stage, got [8, 16]",
        "ssm_dt_rank: should be 'auto' or an integer greater than 0, got 'full'",
    ]


def problems_of(overrides: list[str]) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load_config(
            ROOT / "config" / "RS_Mamba_SS.yaml",
            [f"model_args.{override}" for override in overrides],
            model_names=model.list_models(),
            model_class=model.model_class,
            warn=pytest.fail,
        )
    return sorted(line.removeprefix("model_args.") for line in error.value.problems)


def scan_places(H: int, W: int) -> list[list[tuple[int, int]]]:
    """The pixels of the eight scans, one after the other."""
    t = range(H * W)
    rows = [(i // W, i % W) for i in t]
    columns = [(i % H, i // H) for i in t]
    diagonals = [(i % H, (i // H + i % H) % W) for i in t]
    anti_diagonals = [(i % H, (i // H - i % H) % W) for i in t]
    scans = [rows, columns, rows[::-1], columns[::-1]]
    return [*scans, diagonals, anti_diagonals, diagonals[::-1], anti_diagonals[::-1]]


def state_space_pixel_by_pixel(layer: OmniStateSpace, x: torch.Tensor) -> torch.Tensor:
    """One image (H, W, C) through the formulas, step by step along each scan."""
    H, W, _ = x.shape
    inner, states = layer.A_log.shape[1:]
    rank = layer.dt_weight.shape[2]
    u, z = (x @ layer.in_proj.weight.T).split(inner, dim=-1)
    u = conv(u.permute(2, 0, 1)[None], layer.conv, padding=1, groups=inner)[0].permute(1, 2, 0)
    u = u * sigmoid(u)
    merged = torch.zeros_like(u)
    for k, places in enumerate(scan_places(H, W)):
        h = torch.zeros(inner, states, dtype=u.dtype)
        for r, c in places:
            step, b, out = (layer.x_proj[k] @ u[r, c]).split((rank, states, states))
            dt = torch.log1p((layer.dt_weight[k] @ step + layer.dt_bias[k]).exp())
            decay = (-dt[:, None] * layer.A_log[k].exp()).exp()
            h = decay * h + (dt * u[r, c])[:, None] * b
            merged[r, c] += h @ out + layer.D[k] * u[r, c]
    centred = merged - merged.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    normed = normed * layer.norm.weight + layer.norm.bias
    return (normed * z * sigmoid(z)) @ layer.out_proj.weight.T


@pytest.mark.parametrize("size", [(3, 4), (4, 2), (1, 3)])
def test_state_space_follows_its_formulas(network, size):
    layer = scrambled(network.stages[1][0].state_space)
    x = random_map(2, *size, 16)
    with torch.no_grad():
        expected = torch.stack([state_space_pixel_by_pixel(layer, image) for image in x])
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)  # scans in float32


def test_stages_meet_as_in_the_papers_figure(network):
    network = scrambled(network)
    image = random_map(1, 3, 32, 64)

    def reduced(x: torch.Tensor, layer: nn.Conv2d, norm: nn.LayerNorm) -> torch.Tensor:
        return pixel_norm(conv(x, layer, stride=2, padding=1), norm, eps=1e-5)

    with torch.no_grad():
        first, norm1, _, second, norm2 = network.patch_embed
        x = reduced(gelu(reduced(image, first, norm1)), second, norm2)
        maps = []
        for i, (block,) in enumerate(network.stages):
            x = (reduced(x, *network.downsamples[i - 1]) if i else x).permute(0, 2, 3, 1)
            x = x + block.state_space(block.norm1(x))
            x = x + F.linear(
                gelu(block.mlp.fc1(block.norm2(x))), block.mlp.fc2.weight, block.mlp.fc2.bias
            )
            x = x.permute(0, 3, 1, 2)
            maps.append(x)
        x = maps.pop()
        for up in network.ups:
            x = torch.cat([F.interpolate(x, scale_factor=2, mode="nearest"), maps.pop()], 1)
            x = relu(batch_norm(conv(x, up.project[0], bias=False), up.project[1]))
        for i in (0, 4):
            x = relu(batch_norm(conv(x, network.head[i], padding=1), network.head[i + 1]))
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        expected = conv(x, network.head[8], padding=3)
        torch.testing.assert_close(network(image), expected.float(), rtol=1e-4, atol=1e-4)
    assert {m.eps for m in network.modules() if isinstance(m, nn.LayerNorm)} == {1e-5}


def test_drop_paths_grow_evenly_and_linear_layers_start_small():
    with on_meta():
        network = RSM_SS(drop_path_rate=0.28)
    rates = [block.drop_path.drop_prob for stage in network.stages for block in stage]
    assert rates == pytest.approx([0.02 * i for i in range(15)])
    block = RSM_SS(**TINY | {"dims": 32}).stages[2][0]
    for layer in (block.state_space.in_proj, block.state_space.out_proj, block.mlp.fc1):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not block.mlp.fc1.bias.any()
    # 256 channels inside: uniform within their root's inverse
    assert 0.06 < block.state_space.x_proj.abs().max() <= 1 / 16
    assert block.state_space.dt_weight.abs().max() <= 8**-0.5
