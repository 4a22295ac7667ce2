"""The benchmarks' shared arithmetic, and each of them once at its smallest."""

from __future__ import annotations

import json
import re

import pytest
import torch

from benchmarks import (
    alternating,
    data,
    model,
    operators,
    scenes,
    selective_scan,
    topology,
    training,
)
from utils.arguments import ArgumentParser


def test_candidates_take_turns_and_the_first_turn_does_not_count(monkeypatch):
    now = iter(range(100))
    monkeypatch.setitem(alternating.CLOCKS, "wall", lambda: next(now) ** 2)
    calls = []
    works = {name: lambda name=name: calls.append(name) for name in ("a", "b")}
    times = alternating.alternate(works, 2, "cpu")
    assert calls == ["a", "b"] * 3
    # The clock shows 0 1 | 4 9 | 16 25 | 36 49 | 64 81 | 100 121.
    assert times == {"a": [9, 17], "b": [13, 21]}


def test_ratios_are_those_of_the_rounds():
    assert alternating.ratio([6.0], [3.0]) == {"median": 2, "low": 2, "high": 2}
    spread = alternating.ratio([2.0, 8.0, 9.0], [2.0, 4.0, 3.0])  # 1, 2, 3: not 8 / 3
    assert spread == {"median": 2, "low": 1, "high": 3}
    assert alternating.shown(spread) == "2.00 (1.00-3.00)"


def test_saved_bytes_count_a_storage_once():
    x = torch.ones(1000, requires_grad=True)
    assert alternating.saved_bytes(lambda: x.exp()) == 4000  # the result
    assert alternating.saved_bytes(lambda: x * x) == 4000  # x, which is saved twice
    assert alternating.saved_bytes(lambda: x.exp().exp()) == 8000
    assert alternating.saved_bytes(lambda: x + 1) == 0


@pytest.mark.parametrize("rounds", ["0", "-1", "two", "1.5"])
def test_rounds_that_measure_nothing_are_refused(capsys, rounds):
    parser = ArgumentParser("a benchmark")
    alternating.add_settings(parser, rounds=5)
    with pytest.raises(SystemExit) as ended:
        alternating.parsed(parser, ["--rounds", rounds])
    assert ended.value.code == 2
    told = f"--rounds: expected a whole number from 1 on, got '{rounds}'"
    assert told in capsys.readouterr().err


@pytest.fixture
def measured(tmp_path):
    """A function from a benchmark and its arguments to the JSON that it writes."""

    def run(benchmark, *args: str) -> dict:
        benchmark.main([*args, "--output", str(tmp_path / "results.json")])
        return json.loads((tmp_path / "results.json").read_text())

    return run


def test_operators(measured, capsys):
    results = measured(operators, "--side=4", "--rounds=1", "--precision=float16", "--clock=cpu")
    wanted = {"side": 4, "rounds": 1, "precision": "float16", "clock": "cpu", "device": "cpu"}
    assert wanted.items() <= results["settings"].items()
    assert results["machine"]["torch"] == torch.__version__
    for operator in results["operators"].values():
        assert 0 < operator["differences"]["result"] < 0.05  # of numbers near 1 in half precision
        assert len(operator["forward_backward"]["seconds"]["fast"]) == 1
    assert "map 4 x 4, float16, cpu clock" in capsys.readouterr().out


def test_selective_scan(measured, monkeypatch, capsys):
    monkeypatch.setattr(selective_scan, "DIMS", (8, 16, 32, 64))
    results = measured(selective_scan, "--side=8", "--rounds=1")
    assert {"side": 8, "rounds": 1, "clock": "wall"}.items() <= results["settings"].items()
    assert len(results["scans"]) == 7
    assert all(scan["speedup"]["median"] > 0 for scan in results["scans"].values())
    assert f"{alternating.describe('cpu')}, image 8 x 8 px, float32" in capsys.readouterr().out


def test_model_keeps_less_of_a_frozen_trunk(measured):
    results = measured(model, "--size=nano", "--image-size=64", "--saved")
    assert {"size": "nano", "image_size": 64, "saved": True}.items() <= results["settings"].items()
    trained, frozen = results["train_all"], results["adapter_only"]
    assert 0 < 4 * frozen["encoder"] < trained["encoder"]
    assert frozen["whole"] < trained["whole"] - 0.9 * (trained["encoder"] - frozen["encoder"])


def test_data(measured, tiny_roads):
    split = str(tiny_roads / "tiny" / "train")
    results = measured(data, "--split", split, "--size=64", "--samples=2")
    assert {"split": split, "size": 64, "samples": 2}.items() <= results["settings"].items()
    assert results["images"] == 6
    assert {name: len(ms) for name, ms in results["samples_ms"].items()} == {
        "ours": 2,
        "albumentations": 2,
    }


def test_scenes(capsys):
    scenes.main(["--tile=64", "--side=96", "--rounds=1"])
    assert "model alone [s]" in capsys.readouterr().out


def test_topology(monkeypatch, capsys):
    monkeypatch.setattr(topology, "SIDE_PX", 200)
    monkeypatch.setattr(topology, "GRIDS", ((4, 1),))
    topology.main([])
    out = capsys.readouterr().out
    assert "4 x 4" in out and "200 x 200 px" in out


@pytest.mark.parametrize(
    ("benchmark", "args", "told"),
    [
        (data, ["--split", "nope"], "nope: no folder"),
        (data, ["--split", "tiny/train"], "smaller than the crops of 1024 px: train_0"),
        (scenes, ["-c", "nope.yaml"], "nope.yaml: 1 problem"),
        (data, ["--output", "tiny"], "--output: tiny is a folder"),
        (topology, ["--side", "nope"], "--side: unknown option"),
    ],
)
def test_mistakes_are_told_in_a_line(monkeypatch, tiny_roads, capsys, benchmark, args, told):
    monkeypatch.chdir(tiny_roads)
    with pytest.raises(SystemExit) as ended:
        benchmark.main(args)
    assert ended.value.code == 2 and told in capsys.readouterr().err


@pytest.mark.parametrize(
    "benchmark", [data, model, operators, scenes, selective_scan, topology, training]
)
def test_help_tells_every_default(monkeypatch, capsys, benchmark):
    monkeypatch.setenv("COLUMNS", "1000")  # an option's help in a line
    with pytest.raises(SystemExit) as ended:
        benchmark.main(["--help"])
    assert ended.value.code == 0
    options = re.split(r"\n  (?=-)", capsys.readouterr().out.split("options:")[1])[2:]
    takes_a_value = re.compile(r"[^ ]+( [A-Z{]|, )")
    with_values = [text for text in options if takes_a_value.match(text)]
    silent = {text.split()[0] for text in with_values if "default" not in text}
    assert silent <= {"--data", "--output"}  # required, and written when asked
