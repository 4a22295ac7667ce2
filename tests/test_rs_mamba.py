"""What RS-Mamba promises beyond the contract of every model."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

import model
from model.baselines.rs_mamba import RSM_SS
from model.meta import on_meta
from model.ops.flops import FLOP_FORMULAS
from tests.conftest import ROOT
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
    ],
)
def test_what_is_not_offered_is_refused(args):
    with pytest.raises(ValueError, match=next(iter(args))):
        RSM_SS(**TINY | args)


def test_numbers_out_of_range_are_told_together():
    wrong = ["ssm_d_state=0", "dims=wide", "depths=[2, 2, 9, 0]", "drop_path_rate=1.0"]
    with pytest.raises(ConfigError) as error:
        load_config(
            ROOT / "config" / "RS_Mamba_SS.yaml",
            [f"model_args.{override}" for override in wrong],
            model_names=model.list_models(),
            model_class=model.model_class,
            warn=pytest.fail,
        )
    for override in wrong:
        assert f"  model_args.{override.partition('=')[0]}" in str(error.value)
    assert "constrained" not in str(error.value)
