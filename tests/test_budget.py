"""Trainings that steps or minutes end: the last evaluation, the rate, resuming."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.test_train import assert_equal_weights, run_killed_at, run_train, workplace  # noqa: F401
from utils.checkpoint import load_checkpoint
from utils.optim import Schedule
from utils.schema import Config


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """They take longer than these trainings."""
    monkeypatch.setattr("utils.tracking.training_curves", lambda *_: None)
    monkeypatch.setattr("utils.tracking.sample_sheet", lambda *_: None)


def rows(run: str) -> list[dict]:
    return [json.loads(x) for x in Path(f"logs_weights/{run}/metrics.jsonl").read_text().split("\n")
            if x]  # fmt: skip


def steps(run: str) -> int:
    return load_checkpoint(f"logs_weights/{run}/last.pth")["schedule"]["steps"]


def test_steps_end_within_an_epoch_with_an_evaluation_and_the_lowest_rate(workplace):  # noqa: F811
    never = ("evaluate_epoch=100", "save_interval=100")
    # three steps an epoch
    assert run_train("max_steps=7", *never, "scheduler.CosineAnnealingLR_params.eta_min=1e-5") == 0
    assert steps("run") == 7
    assert [(r["epoch"], r["split"]) for r in rows("run")] == [
        (1, "train"), (2, "train"), (3, "train"), (3, "val"),
    ]  # fmt: skip
    assert rows("run")[-2]["lr"] == pytest.approx(1e-5)
    assert Path("logs_weights/run/best_f1score.pth").is_file()


def test_accumulated_batches_are_one_step(workplace, capsys):  # noqa: F811
    t_max = "scheduler.CosineAnnealingLR_params.T_max"
    assert run_train("max_steps=3", "gradient_accumulation=2", "epochs=1", f"{t_max}=1") == 0
    assert steps("run") == 3  # two an epoch, of two batches and of one
    said = f"tiny.yaml: {t_max} 1 is kept with max_steps 3: the rate is at its minimum from epoch 2"
    assert capsys.readouterr().err.count(said) == 1


def test_a_budget_of_steps_resumes_bit_for_bit(workplace, monkeypatch):  # noqa: F811
    extra = ("max_steps=5", "save_every_steps=1")
    assert run_train(*extra, "run_name=whole") == 0
    run_killed_at(monkeypatch, 5, *extra)  # within the epoch that is cut, after a checkpoint
    assert run_train(*extra, "load=auto") == 0
    assert_equal_weights(Path("logs_weights/whole/last.pth"), Path("logs_weights/run/last.pth"))
    assert rows("whole") == rows("run")


def test_more_steps_go_on_within_the_epoch_that_was_cut(workplace):  # noqa: F811
    """As a run goes on that was killed there: same crops, same weights, each epoch told of once."""
    extra = ("scheduler.active_scheduler=ReduceLROnPlateau", "ema_decay=0.9",
             "scheduler.ReduceLROnPlateau_params.patience=0")  # fmt: skip
    assert run_train(*extra, "max_steps=8", "run_name=whole") == 0  # three steps an epoch
    assert run_train(*extra, "max_steps=4") == 0
    before = Path("logs_weights/run/last.pth").read_bytes()
    assert run_train(*extra, "max_steps=4", "load=auto") == 0
    assert Path("logs_weights/run/last.pth").read_bytes() == before
    assert run_train(*extra, "max_steps=8", "load=auto") == 0
    assert steps("run") == 8
    assert_equal_weights(Path("logs_weights/whole/last.pth"), Path("logs_weights/run/last.pth"))
    assert rows("run") == rows("whole")


def test_minutes_end_within_an_epoch_and_are_not_spent_twice(workplace, capsys):  # noqa: F811
    assert run_train("max_minutes=1e-6", "epochs=100") == 0
    assert steps("run") == 1
    assert [(r["epoch"], r["split"]) for r in rows("run")] == [(1, "train"), (1, "val")]
    assert run_train("max_minutes=1e-6", "epochs=100", "load=auto") == 0
    assert "nothing left to train" in capsys.readouterr().err
    assert steps("run") == 1
    # with more time the epoch goes on
    assert run_train("max_minutes=null", "epochs=1", "load=auto") == 0
    assert steps("run") == 3
    assert [(r["epoch"], r["split"]) for r in rows("run")] == [(1, "train"), (1, "val")]
    # what was counted before goes on counting
    assert load_checkpoint("logs_weights/run/last.pth")["progress"]["seconds"] > 6e-5


def test_two_budgets_are_a_mistake(workplace, capsys):  # noqa: F811
    with pytest.raises(SystemExit) as stop:
        run_train("max_minutes=1", "max_steps=1")
    assert stop.value.code == 2
    assert "give one of them" in capsys.readouterr().err


def test_the_cosine_follows_the_share_of_the_time_that_is_gone():
    import torch

    config = Config(model_classname="x", dataset_name="x")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = Schedule(optimizer, config.scheduler, warm_up_steps=0, steps_per_epoch=9, epochs=9)
    for share, rate in ((0.0, 1.0), (0.5, 0.5), (1.0, 1e-6)):
        schedule.spend(share)
        assert schedule.rate == pytest.approx(rate, abs=1e-6)
