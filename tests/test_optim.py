"""The learning rate of every step, and the averaged weights."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import yaml
from torch import nn

from tests.conftest import ROOT
from utils.optim import AveragedWeights, Schedule
from utils.schema import Config, CosineParams, PlateauParams, Scheduler


def schedule(
    settings: Scheduler,
    *,
    warm_up: int = 0,
    steps: int = 10,
    epochs: int = 4,
    max_steps: int | None = None,
) -> Schedule:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    return Schedule(
        optimizer,
        settings,
        warm_up_steps=warm_up,
        steps_per_epoch=steps,
        epochs=epochs,
        max_steps=max_steps,
    )


def rates(schedule: Schedule, count: int) -> list[float]:
    seen = []
    for _ in range(count):
        seen.append(schedule.rate)
        schedule.step()
    return seen


def test_cosine_equals_torchs_own():
    settings = Scheduler(CosineAnnealingLR_params=CosineParams(eta_min=0.1))
    ours = rates(schedule(settings), 40)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40, eta_min=0.1)
    for rate in ours:
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        theirs.step()


def test_warm_up_rises_linearly_to_the_peak_and_the_end_is_the_minimum():
    seen = rates(schedule(Scheduler(), warm_up=10), 41)
    assert seen[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert seen[10] == pytest.approx(1.0)
    assert seen[40] == pytest.approx(1e-6)
    assert all(a > b for a, b in itertools.pairwise(seen[10:]))


def test_a_shorter_half_wave_stays_at_its_minimum():
    settings = Scheduler(CosineAnnealingLR_params=CosineParams(T_max=2, eta_min=0.5))
    assert rates(schedule(settings), 40)[20:] == pytest.approx([0.5] * 20)


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_rates_fall_to_the_end_of_whatever_was_asked_for(path):
    config = Config(**yaml.safe_load(path.read_text()))
    cosine = config.scheduler.CosineAnnealingLR_params.model_copy(update={"T_max": config.epochs})
    published = config.scheduler.model_copy(update={"CosineAnnealingLR_params": cosine})
    kinds = {"warm_up": config.warm_up_step, "epochs": config.epochs}
    ours, theirs = (schedule(settings, **kinds) for settings in (config.scheduler, published))
    assert rates(ours, 10 * config.epochs) == rates(theirs, 10 * config.epochs)
    longer = schedule(config.scheduler, steps=1, epochs=20_000, max_steps=20_000)
    assert rates(longer, 20_000)[10_000] == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_plateau_equals_torchs_own(mode):
    scores = [0.1, 0.3, 0.2, 0.2, 0.2, 0.25, 0.1, 0.4, 0.3, 0.3, 0.3, 0.3]
    params = PlateauParams(factor=0.5, patience=2, min_lr=0.2, mode=mode)
    ours = schedule(
        Scheduler(active_scheduler="ReduceLROnPlateau", ReduceLROnPlateau_params=params)
    )
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode, factor=0.5, patience=2, min_lr=0.2, threshold=0
    )
    for score in scores:
        ours.evaluated(f1=score, loss=score)
        theirs.step(score)
        assert ours.rate == pytest.approx(optimizer.param_groups[0]["lr"])


def test_a_restored_schedule_goes_on_alike():
    one, two = schedule(Scheduler(), warm_up=5), schedule(Scheduler(), warm_up=5)
    rates(one, 17)
    two.load_state_dict(one.state_dict())
    assert rates(two, 20) == rates(one, 20)


def test_averaged_weights_follow_the_definition_and_leave_the_model_as_it_was():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    ema = AveragedWeights(model, decay=0.9)
    expected = model[0].weight.detach().clone()
    for update in range(1, 30):
        with torch.no_grad():
            model[0].weight.add_(torch.randn_like(model[0].weight))
            model[1].num_batches_tracked.add_(1)
        ema.update(model)
        decay = min(0.9, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * model[0].weight.detach()
    own = model[0].weight.detach().clone()
    with ema.applied_to(model):
        assert torch.allclose(model[0].weight, expected, atol=1e-6)
        assert int(model[1].num_batches_tracked) == 29
    assert torch.equal(model[0].weight, own)
    assert math.isfinite(float(ema.weights["1.running_var"].sum()))
