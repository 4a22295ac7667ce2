"""A checkpoint's weights as a safetensors file: no code in it, readable by many programs.

What is no tensor (config, epoch, threshold, scores) is JSON in its header, under `anchor_sam`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from utils.checkpoint import DAMAGED
from utils.files import atomic_path

KEY = "anchor_sam"


def write_safetensors(path: Path, checkpoint: dict[str, Any]) -> None:
    """Write the weights that a checkpoint predicts with: the averaged ones where it has them."""
    weights = checkpoint["ema"] or checkpoint["model"]
    rest = {key: checkpoint[key] for key in checkpoint if key not in ("model", "ema")}
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {"format": "pt", KEY: json.dumps(rest)})


def read_safetensors(path: Path) -> dict[str, Any]:
    """The checkpoint in a safetensors file. Raises ValueError, in one line, for any other file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        raise ValueError(f"{path}: {DAMAGED}") from None
    if KEY not in metadata:
        raise ValueError(f"{path}: not written by this project (no {KEY} in its header)")
    return json.loads(metadata[KEY]) | {"model": weights, "ema": None}
