"""A folder with a run of TinyNet, as the tests of inference.py need it."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import inference
import model
from tests.tiny_net import TinyNet
from utils.checkpoint import save_checkpoint
from utils.config import load_config

RUN = Path("logs_weights/run")


def enter_workplace(
    folder: Path, monkeypatch: pytest.MonkeyPatch, root: Path, more: str = ""
) -> None:
    """Work in `folder`, with TinyNet in the registry and tiny.yaml, a config for it."""
    monkeypatch.chdir(folder)
    monkeypatch.setitem(model.MODELS, "TinyNet", "tests.tiny_net")
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest's own handlers stay
    Path("tiny.yaml").write_text(
        f"model_classname: TinyNet\nmodel_args: {{dim: 4}}\nroot_dir: {root}\n"
        f"dataset_name: tiny\nimage_size: 64\nrun_name: run\nbatch_size: 2\n{more}"
    )


def network(seed: int) -> TinyNet:
    """Calls bright patches of 4 x 4 px road; the seed blurs its judgement a little."""
    torch.manual_seed(seed)
    made = TinyNet(dim=4)
    with torch.no_grad():
        for parameter in (made.down.weight, made.down.bias, made.mix.weight, made.mix.bias):
            parameter.mul_(0.02)
        made.down.weight[0] += 1 / 48  # the patch's mean
        made.mix.weight[0, 0, 1, 1] += 1
        made.head.weight.fill_(6)
        made.head.bias.fill_(-1)
    return made


def save_run(path: Path, *, seed: int, **other: Any) -> None:
    config = load_config(
        "tiny.yaml", model_names=["TinyNet"], model_class=lambda _: TinyNet, warn=print
    )
    checkpoint = {
        "model_classname": "TinyNet",
        "config": config.model_dump(mode="json"),
        "model": network(seed).state_dict(),
        "ema": None,
        "epoch": 7,
        "threshold": None,
        "scores": {},
    }
    save_checkpoint(path, checkpoint | other)


def read_json(path: str) -> dict[str, Any]:
    return json.loads(Path(path).read_text())


def grey(path: Path) -> np.ndarray:
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert pixels.ndim == 2, path
    return pixels


def probabilities(folder: str) -> dict[str, np.ndarray]:
    return {path.stem: np.load(path) for path in sorted(Path(folder, "prob").glob("*.npy"))}


def refused(capsys, *argv: str) -> str:
    """The message of a run that ends with status 2."""
    with pytest.raises(SystemExit) as ended:
        inference.main(list(argv))
    assert ended.value.code == 2
    return capsys.readouterr().err.strip()
