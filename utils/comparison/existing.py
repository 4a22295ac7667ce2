"""Runs that were trained before, as members of a comparison."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from model import PRETRAINED_ARGS
from utils.comparison.plan import Task, for_scoring, refuse_different_protocols, safe_name
from utils.runs import CONFIG_FILE, best_checkpoint
from utils.schema import Config

_NUMBERED = re.compile(r"(-seed\d+|-\d+)$")


def find_tasks(
    folders: Sequence[Path],
    configs: Mapping[str, Config],
    seeds: Sequence[int],
    read: Callable[[Path], Config],
) -> list[Task]:
    """The runs below `folders` (or that these are) as tasks, by model and seed.

    With `configs`, only runs of their models, under their names; else a run goes by its folder's
    name without the number behind it. With `seeds`, only those, and all of them. `read` gives the
    config of a file. Raises ValueError for runs that are missing, that stand twice, or that were
    not made for one protocol.
    """
    runs = [run for folder in folders for run in _runs_in(folder)]
    if not runs:
        listed = ", ".join(map(str, folders))
        raise ValueError(f"--runs: no folder with {CONFIG_FILE} and a checkpoint in {listed}")
    found: dict[str, dict[int, Task]] = {}
    for run in runs:
        config = read(run / CONFIG_FILE)
        if seeds and config.random_seed not in seeds:
            continue
        for name in _names(run, config, configs):
            of_model = found.setdefault(name, {})
            if config.random_seed in of_model:
                raise ValueError(
                    f"--runs: {of_model[config.random_seed].run} and {run} are both {name} with "
                    f"seed {config.random_seed}: name the folders of the runs that you mean"
                )
            task = Task(name, config.random_seed, for_scoring(config), run.absolute())
            of_model[config.random_seed] = task
    _refuse_gaps(found, configs, seeds)
    order = [safe_name(name) for name in configs] or sorted(found)
    tasks = [found[name][seed] for name in order for seed in sorted(found[name])]
    refuse_different_protocols({task.key: task.config for task in tasks})
    return tasks


def _runs_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f"--runs: {folder} is no folder")
    candidates = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    return [run for run in candidates if (run / CONFIG_FILE).is_file() and best_checkpoint(run)]


def _names(run: Path, config: Config, configs: Mapping[str, Config]) -> list[str]:
    if not configs:
        return [safe_name(_NUMBERED.sub("", run.name))]
    return [safe_name(name) for name, own in configs.items() if _model(own) == _model(config)]


def _model(config: Config) -> tuple[str, dict[str, Any]]:
    args = {k: v for k, v in config.model_args.items() if k not in PRETRAINED_ARGS}
    return config.model_classname, args


def _refuse_gaps(
    found: Mapping[str, Mapping[int, Task]], configs: Mapping[str, Config], seeds: Sequence[int]
) -> None:
    names = [safe_name(name) for name in configs] or list(found)
    missing = [
        f"{name} with seed {seed}" for name in names for seed in seeds
        if seed not in found.get(name, {})
    ] or [name for name in names if not found.get(name)]  # fmt: skip
    if missing or not names:
        raise ValueError(f"--runs: no run of {', '.join(missing) or 'these seeds'}")
