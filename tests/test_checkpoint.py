"""Checkpoint files: whole or absent, and every wrong one named in a line."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from utils.checkpoint import (
    load_checkpoint,
    load_model_weights,
    random_state,
    read_torch_file,
    restore_random_state,
    save_checkpoint,
)

WHOLE = {
    "model_classname": "UNet",
    "config": {},
    "epoch": 1,
    "model": {},
    "ema": None,
    "threshold": None,
    "scores": {},
}


def test_round_trip_and_no_leftovers(tmp_path):
    path = tmp_path / "run" / "last.pth"
    save_checkpoint(path, WHOLE | {"model": {"w": torch.ones(2)}})
    assert torch.equal(load_checkpoint(path)["model"]["w"], torch.ones(2))
    assert [p.name for p in path.parent.iterdir()] == ["last.pth"]


def test_a_failed_write_keeps_the_previous_file(tmp_path):
    path = tmp_path / "last.pth"
    save_checkpoint(path, WHOLE)
    with pytest.raises(TypeError):
        save_checkpoint(path, WHOLE | {"model": (i for i in range(3))})
    assert load_checkpoint(path)["model_classname"] == "UNet"
    assert [p.name for p in tmp_path.iterdir()] == ["last.pth"]


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


def test_wrong_files_are_named_in_one_line(tmp_path, capsys):
    good, cut, text, code, other, old = (tmp_path / f"{n}.pth" for n in "abcdef")
    save_checkpoint(good, WHOLE | {"model": {"w": torch.zeros(9999)}})
    cut.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    text.write_text("not a checkpoint")
    torch.save({"x": Evil()}, code)
    torch.save({"w": torch.zeros(1)}, other)
    torch.save({"format": 0, "model_classname": "UNet", "model": {}}, old)
    made, begun = tmp_path / "made.pth", tmp_path / "begun.pth"
    save_checkpoint(made, {"model_classname": "UNet", "model": {}, "scores": 0.5, "ema": None})
    save_checkpoint(begun, WHOLE | {"optimizer": {}, "schedule": {}, "scaler": {}})
    torch.save({"model_classname": "UNet", "model": {}}, alien := tmp_path / "alien.pth")
    for path, message in (
        (alien, "kind: format, config, epoch, ema, threshold, scores"),
        (made, "no whole checkpoint, missing or of another kind: config, epoch, threshold, scores"),
        (begun, "of another kind: ema_updates, progress, history, random"),
        (tmp_path / "absent.pth", "no such file"),
        (tmp_path, "is a folder, name a file in it"),
        (cut, "truncated or damaged: copy it again, or name another checkpoint of its run$"),
        (text, "no torch file"),
        (code, "holds code besides tensors"),
        (other, "not a checkpoint of this project"),
        (old, "checkpoint format 0"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            load_checkpoint(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert "code ran" not in capsys.readouterr().out
    torch.save([1], other)
    with pytest.raises(ValueError, match="holds a list"):
        read_torch_file(other)


def test_weights_that_do_not_fit_are_named():
    model = nn.Sequential(nn.Linear(3, 2))
    weights = {"0.weight": torch.zeros(3, 3), "1.bias": torch.zeros(2)}
    with pytest.raises(ValueError, match=r"1 tensors missing \(first: 0.bias\)") as error:
        load_model_weights(model, weights, "a.pth")
    assert "1 tensors unknown (first: 1.bias)" in str(error.value)
    assert "0.weight is (3, 3), not (2, 3)" in str(error.value)
    for foreign in (torch.zeros(2), {"0.weight": "text"}, {"state_dict": model.state_dict()}):
        with pytest.raises(ValueError, match=r"a\.pth holds no weights"):
            load_model_weights(model, foreign, "a.pth")


def test_random_sequences_continue_after_a_weights_only_round_trip(tmp_path):
    def draw() -> tuple:
        return random.random(), np.random.rand(), np.random.randn(), torch.rand(1).item()  # noqa: NPY002

    np.random.randn()  # noqa: NPY002 - leaves a cached half of a Box-Muller pair
    torch.save(random_state(), tmp_path / "state.pth")
    expected = [draw() for _ in range(3)]
    restore_random_state(torch.load(tmp_path / "state.pth", weights_only=True))
    assert [draw() for _ in range(3)] == expected
