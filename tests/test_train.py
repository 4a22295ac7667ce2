"""train.py as its users run it: files, resuming, refusals, signals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import openpyxl
import pytest
import torch
from torch.amp import GradScaler

import model
import train
from tests.conftest import ROOT
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.config import load_config
from utils.distributed import Ranks
from utils.engine import NonFiniteLoss, _train_step
from utils.resume import resume
from utils.training import Training, build_training

SETTINGS = (
    "dataset_name=tiny",
    "image_size=64",
    "epochs=3",
    "batch_size=2",
    "warm_up_step=2",
    "learning_rate=0.01",
    "num_workers=0",
    "comet_ml.enable=false",
    "run_name=run",
)


@pytest.fixture
def workplace(tmp_path, monkeypatch, tiny_roads):
    """An empty folder to run in, with TinyNet in the registry and a config for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(model.MODELS, "TinyNet", "tests.tiny_net")
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest's own handlers stay
    (tmp_path / "tiny.yaml").write_text(f"model_classname: TinyNet\nroot_dir: {tiny_roads}\n")
    return tmp_path


def run_train(*overrides: str, config: str = "tiny.yaml") -> int:
    return train.main(["-c", config, *SETTINGS, *overrides])


def run_killed_at(monkeypatch, step_number: int, *overrides: str) -> None:
    """A run that ends without a word after so many steps."""
    from utils import engine

    class Killed(BaseException):
        pass

    real_step, steps = engine._train_step, []

    def step(training, group):
        real_step(training, group)
        steps.append(1)
        if len(steps) == step_number:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_train_step", step)
        with pytest.raises(Killed):
            run_train(*overrides)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path)["model"]


def assert_equal_weights(one: Path, two: Path) -> None:
    first, second = weights(one), weights(two)
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


def test_a_run_leaves_its_files(workplace, capsys):
    assert run_train("ema_decay=0.9") == 0
    run = workplace / "logs_weights" / "run"
    names = {p.name for p in run.iterdir()}
    assert names == {
        "config.yaml",
        "metrics.jsonl",
        "training_metrics.xlsx",
        "curves.png",
        "samples",
        "last.pth",
        "best_f1score.pth",
        "best_loss.pth",
    }
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(r["epoch"], r["split"]) for r in rows] == [
        (epoch, split) for epoch in (1, 2, 3) for split in ("train", "val")
    ]
    val = [r for r in rows if r["split"] == "val"]
    assert all(r["iou"] == pytest.approx(r["f1"] / (2 - r["f1"])) for r in val)
    book = openpyxl.load_workbook(run / "training_metrics.xlsx")
    assert book.sheetnames == ["train", "val", "config"]
    assert book["val"].max_row == 4
    best = load_checkpoint(run / "best_f1score.pth")
    assert best["scores"]["f1"] == max(r["f1"] for r in val)
    assert "optimizer" not in best and best["ema"]
    assert [p.name for p in sorted((run / "samples").iterdir())] == [
        "0001.png",
        "0002.png",
        "0003.png",
    ]
    config = load_config(
        run / "config.yaml",
        model_names=model.list_models(),
        model_class=model.model_class,
        warn=pytest.fail,
    )
    assert config.model_classname == "TinyNet"
    out = capsys.readouterr().out
    assert "best epoch" in out and f"{run}/: best_f1score.pth, " in out
    assert "val, threshold 0.5, tiles of 64 px, overlap 0.25, pixel size not known" in out


def test_the_network_learns_and_runs_do_not_overwrite_each_other(workplace):
    assert run_train("epochs=15", "augmentation.probability=0", "ema_decay=0.9") == 0
    assert run_train("epochs=1") == 0
    assert sorted(p.name for p in (workplace / "logs_weights").iterdir()) == ["run", "run-2"]
    rows = [json.loads(x) for x in Path("logs_weights/run/metrics.jsonl").read_text().splitlines()]
    losses = [r["loss"] for r in rows if r["split"] == "train"]
    assert losses[-1] < 0.8 * losses[0]
    assert rows[-1]["iou"] > 0.4


@pytest.mark.parametrize(("kill_at", "workers"), [(1, 0), (3, 0), (5, 0), (8, 0), (5, 1)])
def test_a_run_killed_at_a_step_continues_bit_for_bit(workplace, monkeypatch, kill_at, workers):
    extra = ("ema_decay=0.9", "save_every_steps=2", f"num_workers={workers}")
    assert run_train(*extra, "run_name=whole") == 0

    run_killed_at(monkeypatch, kill_at, *extra)
    torch.manual_seed(123)  # another process would not have this one's random state
    Path("logs_weights/run/.last.ab_12xyz.pth").write_bytes(b"half a checkpoint")
    assert run_train(*extra, "load=auto") == 0
    whole, resumed = Path("logs_weights/whole"), Path("logs_weights/run")
    assert_equal_weights(whole / "last.pth", resumed / "last.pth")
    assert_equal_weights(whole / "best_loss.pth", resumed / "best_loss.pth")
    averaged = [load_checkpoint(r / "last.pth")["ema"] for r in (whole, resumed)]
    assert all(torch.equal(averaged[0][k], averaged[1][k]) for k in averaged[0])
    assert (whole / "metrics.jsonl").read_text() == (resumed / "metrics.jsonl").read_text()
    assert not list(resumed.glob(".*"))


def test_a_finished_run_is_left_as_it_is_and_more_epochs_go_on(workplace, capsys):
    assert run_train() == 0
    last = Path("logs_weights/run/last.pth")
    before = weights(last)
    assert run_train("load=auto") == 0
    assert "nothing left to train" in capsys.readouterr().err
    assert all(torch.equal(before[k], v) for k, v in weights(last).items())
    assert run_train("load=auto", "epochs=4", "learning_rate=0.02") == 0
    assert load_checkpoint(last)["progress"]["epoch"] == 5
    assert "learning_rate was 0.01, is now 0.02" in capsys.readouterr().err


def test_plain_weights_start_a_new_run_with_a_fresh_optimiser(workplace, capsys):
    assert run_train("epochs=1") == 0
    assert run_train("epochs=1", "load=logs_weights/run/best_loss.pth") == 0
    assert "with a fresh optimiser" in capsys.readouterr().err
    assert load_checkpoint("logs_weights/run-2/last.pth")["schedule"]["steps"] == 3
    torch.save(weights(Path("logs_weights/run/last.pth")), "plain.pth")
    assert run_train("epochs=1", "load=plain.pth") == 0
    save_checkpoint(Path("run.safetensors"), load_checkpoint("logs_weights/run/best_loss.pth"))
    capsys.readouterr()
    assert run_train("epochs=1", "load=run.safetensors") == 0
    assert "weights of run.safetensors, with a fresh optimiser" in capsys.readouterr().err


def test_wrong_weights_are_refused_with_status_2(workplace, capsys):
    assert run_train("epochs=1") == 0
    last = "logs_weights/run/last.pth"
    checkpoint = load_checkpoint(last)
    save_checkpoint(Path("other.pth"), checkpoint | {"model_classname": "UNet"})
    for overrides, message in (
        (("load=other.pth",), "other.pth is a checkpoint of UNet, the config asks for TinyNet"),
        (("load=absent.pth",), "absent.pth: no such file"),
        (("dataset_name=absent",), "absent"),
        (("training_strategy.mode=adapter_only",), "TinyNet has no adapter"),
        (("gradient_checkpointing=true",), "TinyNet does not offer it"),
    ):
        with pytest.raises(SystemExit) as stop:
            run_train(*overrides)
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
    for path in (last, "logs_weights/run/best_loss.pth"):
        with pytest.raises(SystemExit):
            run_train(f"load={path}", "model_args.dim=4")
        first, second = capsys.readouterr().err.splitlines()
        assert first == (
            f"{path} was trained with model_args.dim=8, the config asks for 4: "
            "set model_args.dim=8, or load another file"
        )
        assert second.startswith(f"{path} does not fit this TinyNet")
    assert sorted(p.name for p in Path("logs_weights").iterdir()) == ["run"]


def test_a_non_finite_loss_stops_with_the_files_of_the_batch(workplace, capsys):
    assert run_train("learning_rate=1e30", "warm_up_step=0", "max_norm=null") == 1
    message = capsys.readouterr().err
    assert "train_" in message and "lower learning_rate" in message
    assert run_train("learning_rate=1e30", "warm_up_step=0", "max_norm=null", "max_steps=1") == 1
    assert "val_0: the model's answer is not a number" in capsys.readouterr().err


def fresh_training(*overrides: str) -> Training:
    models = {"model_names": ["TinyNet"], "model_class": model.model_class}
    config = load_config("tiny.yaml", [*SETTINGS, *overrides], **models, warn=pytest.fail)
    torch.manual_seed(0)
    network = model.build_model("TinyNet", config.model_args)
    return build_training(config, Ranks(0, 1, torch.device("cpu")), network, batches_per_epoch=9)


def test_settings_that_change_on_resuming_have_their_effect(workplace):
    assert run_train("epochs=1", "weight_decay=0.1") == 0
    checkpoint = load_checkpoint("logs_weights/run/last.pth")
    state = fresh_training("learning_rate=0.5", "weight_decay=0.2", "ema_decay=0.9")
    resume(state, checkpoint, "last.pth")
    decay, no_decay = state.optimizer.param_groups
    assert (decay["weight_decay"], no_decay["weight_decay"]) == (0.2, 0)
    assert decay["lr"] > 0.1
    for name, value in checkpoint["model"].items():
        assert torch.equal(state.ema.weights[name], value)
    checkpoint["optimizer"]["param_groups"][0]["params"].pop()
    with pytest.raises(ValueError, match=r"trained other parameters .*load=run/best_f1score\.pth"):
        resume(state, checkpoint, "run/last.pth")


def one_step(scaled: bool, image: torch.Tensor) -> list[torch.Tensor]:
    """The gradients that a step clips to a norm of 0.01 and leaves."""
    state = fresh_training("max_norm=0.01", "model_args.dropout=0")
    network = state.model
    state.scaler = GradScaler("cpu", enabled=scaled)
    target = torch.zeros(2, 8, 8, dtype=torch.uint8)
    _train_step(state, [{"image": image, "target": target, "name": ["one", "two"]}])
    return [parameter.grad for parameter in network.parameters()]


def test_the_true_gradient_is_clipped_not_the_scaled_one(workplace):
    image = torch.randint(0, 255, (2, 3, 8, 8), dtype=torch.uint8)
    plain, scaled = one_step(False, image), one_step(True, image)
    assert float(torch.cat([g.flatten() for g in plain]).norm()) == pytest.approx(0.01, rel=1e-3)
    for one, other in zip(plain, scaled, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-9)


def test_a_non_finite_gradient_stops_with_the_files_of_the_batch(workplace, monkeypatch):
    def backward(training, batch, **_):
        for parameter in training.model.parameters():
            parameter.grad = torch.full_like(parameter, float("inf"))

    monkeypatch.setattr("utils.engine._backward", backward)
    with pytest.raises(NonFiniteLoss, match=r"gradient is inf in epoch 1 .* one, two: look at"):
        one_step(False, torch.zeros(2, 3, 8, 8, dtype=torch.uint8))


def test_accumulated_batches_give_the_gradient_of_the_joint_batch(workplace):
    same = ("epochs=1", "loss={bce: 1}", "model_args.dropout=0", "augmentation.probability=0")
    frozen_norm = ("crops_per_image=2", "image_size=32")
    assert run_train(*same, *frozen_norm, "batch_size=4", "run_name=joint") == 0
    assert run_train(*same, *frozen_norm, "gradient_accumulation=2", "run_name=parts") == 0
    steps = [
        load_checkpoint(f"logs_weights/{name}/last.pth")["schedule"]["steps"]
        for name in ("joint", "parts")
    ]
    assert steps == [3, 3]


def test_a_broken_comet_does_not_stop_a_run(workplace, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "comet_ml", None)
    assert run_train("epochs=1", "comet_ml.enable=true") == 0
    assert "the run goes on without it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["term", "int"]
)
def test_signals_save_and_end_with_their_status(tmp_path, tiny_roads, number, status):
    command = [sys.executable, str(ROOT / "train.py"), "-c", str(ROOT / "config/quickstart.yaml")]
    overrides = [*SETTINGS, f"root_dir={tiny_roads}", "epochs=1000", "evaluate_interval=1000"]
    process = subprocess.Popen(
        [*command, *overrides], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    last = tmp_path / "logs_weights" / "run" / "last.pth"
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert "to continue: load=" in err and "Traceback" not in err
    assert "optimizer" in load_checkpoint(last)
