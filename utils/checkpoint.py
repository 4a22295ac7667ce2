"""Checkpoints: one file that carries its config, its weights and, to resume, everything else.

Layout (a dict that `torch.load(weights_only=True)` reads):
    format, model_classname, config, epoch, model, ema, threshold, scores     in every file
    optimizer, schedule, scaler, ema_updates, progress, history, random       in last.pth only
"""

from __future__ import annotations

import hashlib
import os
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.weights import DAMAGE
from utils.files import atomic_path

FORMAT = 1
SAFETENSORS = ".safetensors"
DAMAGED = "truncated or damaged: copy it again, or name another checkpoint of its run"
#: The parts of every file, and what is in them.
_PARTS = {
    "format": int,
    "config": dict,
    "epoch": int,
    "model": dict,
    "ema": (dict, type(None)),
    "threshold": (int, float, type(None)),
    "scores": dict,
}
#: Those of a last.pth besides.
_PARTS_TO_RESUME = {
    "optimizer": dict,
    "schedule": dict,
    "scaler": dict,
    "ema_updates": int,
    "progress": dict,
    "history": list,
    "random": list,
}


def save_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Write beside `path` and rename, so that a killed run keeps the previous file."""
    if path.suffix == SAFETENSORS:
        from utils.safetensors_file import write_safetensors

        write_safetensors(path, {"format": FORMAT} | checkpoint)
        return
    with atomic_path(path) as temporary:
        torch.save({"format": FORMAT} | checkpoint, temporary)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint of ours, on the CPU; weights alone may be a safetensors file.

    Raises ValueError, in one line, for anything else.
    """
    if Path(path).suffix == SAFETENSORS:
        from utils.safetensors_file import read_safetensors

        checkpoint = read_safetensors(_existing(path))
    else:
        checkpoint = read_torch_file(path)
    if "model_classname" not in checkpoint or "model" not in checkpoint:
        raise ValueError(f"{path}: not a checkpoint of this project (no model_classname in it)")
    if checkpoint.get("format", FORMAT) != FORMAT:
        raise ValueError(
            f"{path}: checkpoint format {checkpoint['format']}, this program reads {FORMAT}"
        )
    _refuse_parts(checkpoint, path)
    return checkpoint


def _refuse_parts(checkpoint: dict[str, Any], path: str | Path) -> None:
    parts = _PARTS | (_PARTS_TO_RESUME if is_resumable(checkpoint) else {})
    missing = [name for name in parts if not isinstance(checkpoint.get(name, ...), parts[name])]
    if missing:
        raise ValueError(
            f"{path}: no whole checkpoint, missing or of another kind: {', '.join(missing)} "
            "(take a file that train.py wrote)"
        )


def read_torch_file(path: str | Path) -> dict[str, Any]:
    """The dict in a torch file. Raises ValueError, in one line, when it is not readable as one."""
    path = _existing(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path}: not loaded, it is no torch file or holds code besides tensors"
        ) from None
    except DAMAGE:  # of which torch tells in terms of its internals
        raise ValueError(f"{path}: {DAMAGED}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}, expected a dict of tensors")
    return content


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: is a folder, name a file in it (of a run: last.pth goes on)")
    if not path.is_file():
        raise ValueError(f"{path}: no such file (train.py writes checkpoints to logs_weights/RUN/)")
    if not os.access(path, os.R_OK):
        raise ValueError(f"{path}: cannot be read, permission denied")
    return path


def is_resumable(checkpoint: dict[str, Any]) -> bool:
    """Whether this is a last.pth, which continues its run, rather than weights alone."""
    return "optimizer" in checkpoint


def inference_weights(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The weights to predict with: the averaged ones where the run kept them."""
    return checkpoint["ema"] or checkpoint["model"]


def weights_sha256(weights: dict[str, Tensor]) -> str:
    """The hexadecimal SHA-256 of tensors and their names, whatever file they came in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def load_model_weights(model: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Load every tensor by name and shape. Raises ValueError that names the first mismatches.

    `weights` may be what a foreign file holds: anything but tensors is refused likewise.
    """
    if not isinstance(weights, dict) or not all(isinstance(v, Tensor) for v in weights.values()):
        raise ValueError(f"{source} holds no weights: expected a dict of tensors by name")
    expected = model.state_dict()
    missing = [name for name in expected if name not in weights]
    foreign = [name for name in weights if name not in expected]
    shapes = [
        f"{name} is {tuple(weights[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    problems = [
        f"{len(found)} {what} (first: {found[0]})"
        for found, what in (
            (missing, "tensors missing"),
            (foreign, "tensors unknown"),
            (shapes, "shapes differ"),
        )
        if found
    ]
    if problems:
        name = type(model).__name__
        raise ValueError(f"{source} does not fit this {name}: {'; '.join(problems)}")
    model.load_state_dict(weights)


def random_state() -> dict[str, Any]:
    """Every random state of this process, in types that a weights-only load accepts."""
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    version, internal, gauss = random.getstate()
    return {
        "python": [version, list(internal), gauss],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Continue every random sequence of this process where `random_state` found it."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(  # noqa: NPY002
        (name, keys.numpy().astype(np.uint32), position, has_gauss, cached)
    )
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def seed_everything(seed: int, rank: int = 0) -> None:
    """Seed python, numpy and torch; ranks draw different numbers."""
    random.seed(seed + rank)
    np.random.seed((seed + rank) % 2**32)  # noqa: NPY002
    torch.manual_seed(seed + rank)
