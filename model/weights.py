"""Published weights: which files the models know, where they lie, and the one way to load them.

The files, their sources, licences and papers stand in pretrain_weight/SHA256SUMS, the table that
download.bash fetches by. Nothing here downloads, and nothing falls back to random weights.
"""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "pretrain_weight" / "SHA256SUMS"
#: What torch.load was seen to raise for cut and flipped bytes, depending on where they are.
DAMAGE = (
    RuntimeError,
    EOFError,
    OSError,
    LookupError,
    ValueError,
    TypeError,
    AssertionError,
    struct.error,
    zipfile.BadZipFile,
)


class WeightFile(NamedTuple):
    """A published file; `sha256` is its first digits only where no more are stated."""

    file: str
    sha256: str
    group: str
    url: str
    licence: str
    source: str

    @property
    def network(self) -> str:
        """What the weights are of: 'resnet34', 'sam2.1_hiera_large'."""
        return self.file.removesuffix(".pt").partition("-")[0]


def known_weights() -> list[WeightFile]:
    """Every file of the table, the preferred one of a network first."""
    files, group = [], ["", "", "", ""]
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("#@ "):
            group = [field.strip() for field in line.removeprefix("#@ ").split("|")]
        elif line and not line.startswith("#"):
            sha256, file = line.split()
            name, url, licence, source = group
            files.append(WeightFile(file, sha256, name, f"{url}/{file}", licence, source))
    return files


def weights_folder() -> Path:
    """Where weight files lie: $ANCHOR_SAM_WEIGHTS, else pretrain_weight/ of this project."""
    return Path(os.environ.get("ANCHOR_SAM_WEIGHTS") or ROOT / "pretrain_weight")


def find_weights(source: str | Path) -> Path:
    """The file of a network ('resnet34') or the file at a path.

    A path that does not exist but has the name of a published file is looked for in
    `weights_folder()`, so that a config works from any directory. Raises ValueError when the file
    is nowhere, with the command that fetches it.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    name = path.name
    matches = [w.file for w in known_weights() if name in (w.file, w.network)]
    for file in matches:
        if (weights_folder() / file).is_file():
            return weights_folder() / file
    if not matches:
        raise ValueError(f"weights {source}: no such file")
    raise ValueError(
        f"{matches[0]} is not in {weights_folder()}: fetch it with "
        f"`bash pretrain_weight/download.bash {matches[0]}`, or name its folder in "
        "ANCHOR_SAM_WEIGHTS"
    )


def read_weights(source: str | Path) -> dict[str, Tensor]:
    """The tensors of a weight file by name, on the CPU; a `{"model": ...}` around them is removed.

    Raises ValueError, in one line, for a file that is missing, damaged or no dict of tensors, or
    that holds code.
    """
    path = find_weights(source)
    content = _read(path)
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(
            f"{path} holds no weights: expected a dict of tensors by name{_how_to_replace(path)}"
        )
    return content


def load_weights(
    module: nn.Module, source: str | Path, *, prefix: str = "", drop: tuple[str, ...] = ()
) -> None:
    """Load the tensors under `prefix` into `module`, all of them, by name and shape.

    `drop` names the starts of tensors (after the prefix) that the module does without. BatchNorm's
    counters, which older files lack, keep their value. Raises ValueError as `read_weights` does,
    and when names or shapes differ.
    """
    path = find_weights(source)
    given = {
        name.removeprefix(prefix): tensor
        for name, tensor in read_weights(path).items()
        if name.startswith(prefix)
    }
    given = {name: tensor for name, tensor in given.items() if not name.startswith(drop)}
    own = module.state_dict()
    counters = {name: own[name] for name in own if name.endswith("num_batches_tracked")}
    given = counters | given
    problems = _misfits(own, given)
    if problems:
        what = f"tensors under {prefix!r} of {path}" if prefix else str(path)
        raise ValueError(f"{what} do not fit {type(module).__name__}: {'; '.join(problems)}")
    module.load_state_dict(given)


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Files older than torch 1.6 are no zip archives and cannot be mapped.
        return torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except PermissionError:
        raise ValueError(f"{path} cannot be read: permission denied") from None
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error).upper():
            raise ValueError(
                f"{path} is refused: it holds Python objects besides tensors, and reading them "
                f"would run code{_how_to_replace(path)}"
            ) from None
    except (*DAMAGE, SafetensorError):
        pass
    raise ValueError(f"{path} is truncated, damaged or no torch file{_how_to_replace(path)}")


def _how_to_replace(path: Path) -> str:
    if path.name not in {w.file for w in known_weights()}:
        return ""
    return f": delete it and fetch it again with `bash pretrain_weight/download.bash {path.name}`"


def _misfits(own: dict[str, Tensor], given: dict[str, Tensor]) -> list[str]:
    missing = [name for name in own if name not in given]
    foreign = [name for name in given if name not in own]
    shapes = [
        f"{name} {tuple(given[name].shape)} for {tuple(own[name].shape)}"
        for name in own
        if name in given and given[name].shape != own[name].shape
    ]
    kinds = ((missing, "missing"), (foreign, "unknown"), (shapes, "of another shape"))
    return [
        f"{len(found)} {kind} ({', '.join(found[:3])}{', ...' if len(found) > 3 else ''})"
        for found, kind in kinds
        if found
    ]
