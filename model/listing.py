"""The table of `train.py --list-models`: what can be trained, from which file, at what size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from prettytable import PrettyTable

from model import ALIASES, RECORDS, build_model, weight_sources
from model.meta import on_meta
from model.weights import ROOT, known_weights

CONFIGS = ROOT / "config"
#: Arguments that choose between networks of one class.
VARIANTS = ("model_size", "arch", "encoder_name", "backbone")


def models_table() -> PrettyTable:
    """A row for every config in config/, in the order of the registry.

    Parameters are counted with the config's `model_args` on the meta device: no weights are read.
    Raises ValueError for a file there that is no config of a model.
    """
    table = PrettyTable(["model_classname", "paper", "parameters", "pretrained weights", "config"])
    table.align = "l"
    table.align["parameters"] = "r"
    configs = _configs()
    for name in RECORDS:
        for config, args in configs.get(name, {"-": {}}).items():
            try:
                parameters = f"{_parameters(name, args):,}"
            except (TypeError, ValueError) as error:
                raise ValueError(f"{config}: model_args: {error}") from None
            files = "\n".join(_weight_files(name, args)) or "none"
            row = [_names(name, args), _paper(name, args), parameters, files, config]
            table.add_row(row, divider=True)
    return table


def _configs() -> dict[str, dict[str, dict[str, Any]]]:
    """{model: {file name: model_args}} of every config."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for path in sorted(CONFIGS.glob("*.yaml")):
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"{path}: not valid YAML: {error}") from None
        name = values.get("model_classname") if isinstance(values, dict) else None
        if name not in (*RECORDS, *ALIASES):
            raise ValueError(f"{path}: model_classname is {name!r}, which is no model")
        args = values.get("model_args") or {}
        found.setdefault(ALIASES.get(name, name), {})[path.name] = args
    return found


def _names(name: str, args: dict[str, Any]) -> str:
    """The class, its aliases, and which of its networks the arguments choose."""
    lines = [name, *(f"or {alias}" for alias in ALIASES if ALIASES[alias] == name)]
    variant = ", ".join(args[key] for key in VARIANTS if key in args)
    return "\n".join([*lines, f"({variant})"] if variant else lines)


def _paper(name: str, args: dict[str, Any]) -> str:
    """The model's paper; of a library of many, that of the network which the arguments choose."""
    if name == "SMP" and "arch" in args:
        from model.baselines.smp import PAPERS

        title, paper, link = PAPERS[args["arch"]]
        return f"{title}: {paper}\n{link}"
    record = RECORDS[name]
    return f"{record.title}: {record.paper} {record.year}\n{record.link}".strip()


def _parameters(name: str, args: dict[str, Any]) -> int:
    with on_meta():
        network = build_model(name, args, load_pretrained=False)
    return sum(parameter.numel() for parameter in network.parameters())


def _weight_files(name: str, args: dict[str, Any]) -> list[str]:
    """The files in pretrain_weight/ that these arguments ask for."""
    preferred = {weights.network: weights.file for weights in reversed(known_weights())}
    return [preferred.get(source, Path(source).name) for source in weight_sources(name, args)]
