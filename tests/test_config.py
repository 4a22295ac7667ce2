"""Configs: the published keys stay valid, and every mistake is reported at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import model
from tests.conftest import ROOT
from utils.config import ConfigError, dump_config, load_config, nearest
from utils.config_warnings import training_warnings
from utils.runs import find_checkpoint
from utils.schema import Config

SHIPPED = sorted((ROOT / "config").glob("*.yaml"))


class Net:
    def __init__(self, *, n_channels: int = 3, size: Literal["tiny", "large"] = "tiny") -> None:
        pass


def read(path: Path, *overrides: str, warnings: list[str] | None = None) -> Config:
    return load_config(
        path,
        overrides,
        model_names=["Net"],
        model_class=lambda name: Net,
        warn=(warnings if warnings is not None else []).append,
    )


@pytest.fixture
def write(tmp_path):
    def write_yaml(text: str) -> Path:
        path = tmp_path / "a.yaml"
        path.write_text(text)
        return path

    return write_yaml


MINIMAL = "model_classname: Net\ndataset_name: roads\n"


def test_every_mistake_is_reported_at_once_with_the_nearest_name(write):
    path = write(
        MINIMAL + "learning_rat: 1\nimage_size: 1000\n"
        "model_args: {n_chanels: 3, size: huge}\nloss: {bcee: 1}\ntta: {ops: [hflop]}\n"
        "training_strategy: {mode: adapter}\n"
    )
    with pytest.raises(ConfigError) as error:
        read(path, "scheduler.active_schedular=x", "epochs=many", "nonsense")
    report = str(error.value)
    assert report.startswith(f"{path}: 10 problems\n")
    for line in (
        "learning_rat: unknown key, did you mean 'learning_rate'?",
        "model_args.n_chanels: unknown argument of Net, did you mean 'n_channels'?",
        "model_args.size: 'huge' is unknown, one of: tiny, large",
        "image_size: 1000 is not a multiple of 32",
        "loss.bcee: 'bcee' is unknown, did you mean 'bce'?",
        "tta.ops.0: 'hflop' is unknown, did you mean 'hflip'?",
        "training_strategy.mode: 'adapter' is unknown, did you mean 'adapter_only'?",
        "scheduler.active_schedular: unknown key, did you mean 'active_scheduler'?",
        "epochs: expected a whole number, got 'many'",
        "nonsense: expected key=value",
    ):
        assert f"  {line}" in report


def test_published_keys_stay_valid(write):
    warnings: list[str] = []
    config = read(
        write(
            MINIMAL + "model_filename: net_model\nroot_dir: 'null'\nload: ''\nforward_args: null\n"
            "evaluate_inteval: 3\nlog_project_name: ''\ncomet_ml: {api_key: 'k'}\n"
            "model_args: {verbose: false}\n"
            "scheduler: {ReduceLROnPlateau_params: {verbose: true, patience: 7}}\n"
        ),
        warnings=warnings,
    )
    assert config.evaluate_interval == 3
    assert config.load is None and config.root_dir == "datasets"
    assert config.scheduler.ReduceLROnPlateau_params.patience == 7
    named = ("model_filename", "verbose", "COMET_API_KEY", "model_args.verbose")
    assert all(any(name in line for line in warnings) for name in named)
    assert "'k'" not in dump_config(config) and "api_key" not in dump_config(config)


def test_overrides_replace_and_add(write):
    path = write(MINIMAL + "evaluate_inteval: 3\nmodel_args: 'null'\n")
    config = read(
        path,
        "evaluate_inteval=5",
        "model_args.size=large",
        "amp=bf16",
        "max_norm=null",
        "load=auto",
    )
    assert (config.evaluate_interval, config.amp, config.max_norm) == (5, "bf16", None)
    assert config.model_args == {"size": "large"}
    assert config.load == "auto"


def test_a_tilde_is_the_home_folder(write, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    paths = ("root_dir=~/data", "load=~/last.pth", "inference.model_path=~/best.pth")
    config = read(write(MINIMAL), *paths)
    found = (config.root_dir, config.load, config.inference.model_path)
    assert found == ("/home/me/data", "/home/me/last.pth", "/home/me/best.pth")
    assert find_checkpoint("~/run/best.pth", None) == Path("/home/me/run/best.pth")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "not valid YAML"),
        ("- a\n- b", "expected `key: value` lines"),
        ("epochs: 1\nepochs: 2", "'epochs' stands twice"),
        ("", "model_classname: missing"),
        ("model_classname: Nett\ndataset_name: d", "unknown model 'Nett', did you mean 'Net'?"),
        (MINIMAL + "loss: {}", "name at least one loss"),
        (MINIMAL + "learning_rate: .nan", "learning_rate"),
        (MINIMAL + "run_name: ../x", "run_name: letters, digits and . _ - make a name, got '../x'"),
        (
            MINIMAL + "amp: fp32",
            ": 1 problem\n  amp: 'fp32' is unknown, one of: True, False, bf16, fp16",
        ),
        (
            MINIMAL + "max_steps: 1\nmax_minutes: 1",
            "\n  max_steps and max_minutes: give one of them",
        ),
        (MINIMAL + "? [a, b]\n: 3", "unhashable key"),
        (MINIMAL + "evaluate_inteval: 1\nevaluate_interval: 2", "name one of them"),
        (MINIMAL + "model_args: {n_channels: 4}", "n_channels: must be 3 for RGB images"),
    ],
)
def test_other_mistakes(write, text, message):
    with pytest.raises(ConfigError) as error:
        read(write(text))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loss={bce:1,dice: 2}", "loss: YAML wants a space: {bce: 1, dice: 2}"),
        (
            "loss.dice=0",
            "loss.dice: should be greater than 0, got 0; leave a loss out: loss='{bce: 1}'",
        ),
        ("model_args=tiny", "model_args: expected model_args.NAME=value, got 'tiny'"),
        ("scheduler=plateau", "scheduler: expected scheduler.NAME=value, got 'plateau'"),
        ("epochs=1e2", "epochs: expected a whole number, got '1e2'"),
        ("epochs=1.5", "epochs: expected a whole number, got 1.5"),
        ("compile=maybe", "compile: expected true or false, got 'maybe'"),
        ("learning_rate=fast", "learning_rate: expected a number, got 'fast'"),
    ],
)
def test_a_slip_is_one_line_that_says_what_is_meant(write, override, message):
    with pytest.raises(ConfigError) as error:
        read(write(MINIMAL), override)
    assert error.value.problems == [message]


def test_a_path_that_is_no_file_is_a_mistake(tmp_path):
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "a.yaml", "No such file")):
        with pytest.raises(ConfigError, match=f"cannot be read: {reason}"):
            read(path)


def test_settings_without_effect_are_said(write):
    warnings: list[str] = []
    text = "forward_args: {a: 1}\ninference: {forward_args: {b: 1}}\nsave_checkpoint: false\n"
    read(write(MINIMAL + text), "scheduler.CosineAnnealingLR_params.T_max=9", warnings=warnings)
    said = [line.partition(": ")[2].partition(" has no effect")[0] for line in warnings]
    assert said == ["forward_args", "inference.forward_args"]  # of a training see below


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["epochs=5"], ["exceeds epochs 5: the rate does not reach its minimum; null"]),
        (["epochs=9"], []),
        (["epochs=12"], ["is below epochs 12: the rate is at its minimum from epoch 10 on; null"]),
        (["max_steps=90"], ["is kept with max_steps 90: the rate is at its minimum from epoch 10"]),
        (["max_minutes=3"], ["has no effect: the rate follows max_minutes"]),
        (["scheduler.active_scheduler=ReduceLROnPlateau"], []),
        (["scheduler.CosineAnnealingLR_params.T_max=null", "max_steps=90"], []),
        (["epochs=9", "save_checkpoint=false"], ["save_checkpoint is false: the run cannot be"]),
    ],
)
def test_settings_in_a_trainings_way_are_said(write, overrides, said):
    key = "scheduler.CosineAnnealingLR_params.T_max"
    lines = training_warnings(read(write(MINIMAL), f"{key}=9", *overrides))
    assert len(lines) == len(said)
    for line, part in zip(lines, said, strict=True):
        assert line.startswith(part if part.startswith("save") else f"{key} 9 {part}")


@given(st.text(min_size=1, max_size=20))
def test_nearest_is_a_known_name_or_none(name):
    assert nearest(name, ["learning_rate", "epochs"]) in ("learning_rate", "epochs", None)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_configs_are_valid_and_survive_their_own_dump(path, tmp_path):
    def read_shipped(file: Path) -> Config:
        return load_config(
            file,
            model_names=model.list_models(),
            model_class=model.model_class,
            warn=lambda line: pytest.fail(f"a shipped config warns: {line}"),
        )

    config = read_shipped(path)
    assert not training_warnings(config)
    dumped = tmp_path / "config.yaml"
    dumped.write_text(dump_config(config))
    assert read_shipped(dumped) == config
    assert config.inference.threshold is None, "hides the threshold that --sweep chooses"
    assert 15 <= len(path.read_text().splitlines()) <= 45
    assert yaml.safe_load(path.read_text())["model_classname"] in model.list_models()


def test_a_count_of_zero_is_a_mistake():
    with pytest.raises(ConfigError, match=r"model_args\.n_classes: .* greater than 0, got 0"):
        load_config(
            ROOT / "config" / "UNet.yaml",
            ["model_args.n_classes=0"],
            model_names=model.list_models(),
            model_class=model.model_class,
            warn=pytest.fail,
        )


def test_help_imports_no_torch():
    code = (
        "import sys, runpy\n"
        "sys.argv = ['train.py', '--help']\n"
        "try: runpy.run_path('train.py', run_name='__main__')\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_a_mistake_ends_train_py_with_status_2_and_no_traceback(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("model_classname: UNet\ndataset_name: d\nepoch: 3\n")
    done = subprocess.run(
        [sys.executable, "train.py", "-c", str(path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "epoch: unknown key, did you mean 'epochs'?" in done.stderr
    assert "Traceback" not in done.stderr
