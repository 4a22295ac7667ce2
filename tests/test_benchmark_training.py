"""benchmarks/training.py: rows that are kept, failures that cost one row, a real measurement."""

from __future__ import annotations

import json
import subprocess

import pytest

from benchmarks import training
from tests.conftest import ROOT
from utils.checkpoint import load_checkpoint

ROW = {
    "parameters": 2e6,
    "loss_start": 1.5,
    "loss_end": 0.5,
    "step_s": 0.25,
    "peak_bytes": 3e9,
    "test_f1": 0.125,
}


@pytest.fixture
def call(tmp_path, monkeypatch, tiny_roads):
    def run(*args: str) -> int:
        monkeypatch.chdir(tmp_path)
        data = ["--data", str(tiny_roads / "tiny")]
        return training.main([*data, *args])

    return run


def test_a_second_call_measures_what_is_missing_or_failed(call, tmp_path, monkeypatch, capsys):
    asked = []

    def run_apart(config, args):
        asked.append(config.stem)
        return {"error": "no weights"} if config.stem == "UNet" and len(asked) < 3 else dict(ROW)

    monkeypatch.setattr(training, "run_apart", run_apart)
    files = [str(ROOT / "config" / name) for name in ("UNet.yaml", "LinkNet.yaml")]
    names = ["-c", *files, "batch_size=2", "--output", "training.json"]
    assert call(*names) == 1
    assert "| UNet.yaml | failed: no weights |" in (tmp_path / "training.md").read_text()
    assert call(*names) == 0
    assert asked == ["UNet", "LinkNet", "UNet"]
    rows = json.loads((tmp_path / "training.json").read_text())["rows"]
    assert rows["LinkNet.yaml"]["loss_end"] == 0.5
    settings = json.loads((tmp_path / "training.json").read_text())["settings"]
    assert settings["overrides"] == ["batch_size=2"]
    out = capsys.readouterr().out
    assert "| LinkNet.yaml | 2.0 | 1.500 | 0.500 | 0.25 | 3.00 | 0.125 |" in out
    with pytest.raises(SystemExit) as ended:
        call(*names, "--steps", "7")
    assert ended.value.code == 2 and "other settings" in capsys.readouterr().err


def test_nothing_is_written_unless_asked(call, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "run_apart", lambda *_: dict(ROW))
    assert call("-c", str(ROOT / "config" / "UNet.yaml")) == 0
    assert not [*tmp_path.iterdir()]
    assert "| UNet.yaml | 2.0 |" in capsys.readouterr().out


def test_mistakes_are_told_at_once_before_any_training(call, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "run_apart", None)
    with pytest.raises(SystemExit) as ended:
        call("batch_size", "-c", "nope.yaml", "--data", "none/roads")
    assert ended.value.code == 2
    told = capsys.readouterr().err
    for mistake in (
        "nope.yaml: no such file",
        "batch_size: expected",
        "train: no folder",
    ):
        assert mistake in told


def test_an_output_of_another_program_stays(call, tmp_path, capsys):
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(SystemExit) as ended:
        call("-c", str(ROOT / "config" / "UNet.yaml"), "--output", "other.json")
    assert ended.value.code == 2 and "other.json is none of" in capsys.readouterr().err


def test_a_row_is_a_training_of_its_own(call, tmp_path):
    row = tmp_path / "row.json"
    config = str(ROOT / "config" / "quickstart.yaml")
    given = ["batch_size=1", "model_args.model_size=nano"]
    assert call("--row", str(row), "-c", config, "--steps", "3", "--size", "32", *given) == 0
    measured = json.loads(row.read_text())
    assert measured["batch_size"] == 1 and measured["model_args"]["model_size"] == "nano"
    assert measured["parameters"] == 2_159_891
    assert 0 < measured["loss_end"] < 10 and measured["step_s"] > 0
    assert 1e8 < measured["peak_bytes"] < 1e11
    checkpoint = load_checkpoint(training.checkpoint_beside(row))
    assert sum(t.numel() for t in checkpoint["model"].values()) >= 2_159_891


@pytest.mark.parametrize(
    ("status", "stderr", "reason"),
    [(1, "Traceback\nValueError: too small\n", "ValueError: too small"), (-9, "", "signal 9")],
)
def test_a_process_that_fails_gives_its_reason(call, monkeypatch, tmp_path, status, stderr, reason):
    done = subprocess.CompletedProcess([], status, stderr=stderr)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    unet = str(ROOT / "config" / "UNet.yaml")
    assert call("-c", unet, "--output", "training.json") == 1
    (row,) = json.loads((tmp_path / "training.json").read_text())["rows"].values()
    assert reason in row["error"]
