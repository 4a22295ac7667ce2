"""The folders of runs: logs_weights/RUN holds a training, results/RUN what inference made of it."""

from __future__ import annotations

import re
from glob import escape as glob_escape
from pathlib import Path

import yaml

from utils.schema import Config

RUNS = Path("logs_weights")
RESULTS = Path("results")
CONFIG_FILE = "config.yaml"
LAST = "last.pth"
BEST_F1 = "best_f1score.pth"
BEST_LOSS = "best_loss.pth"


def run_name(config: Config) -> str:
    """The config's `run_name`, or model and dataset."""
    return config.run_name or f"{config.model_classname}_{config.dataset_name}"


def new_run(config: Config) -> Path:
    """A folder that no run has used: RUN, else RUN-2, RUN-3 ..., made on return."""
    number = 1
    while True:
        folder = _numbered(config, number)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not any(folder.iterdir()):
                return folder
            number += 1
        else:
            return folder


def newest_run(config: Config | None = None) -> Path | None:
    """The latest run of this config's name that holds a checkpoint, or of all; None without one."""
    if config is None:
        runs = [f for f in RUNS.glob("*") if best_checkpoint(f)]
        return max(runs, key=lambda f: (best_checkpoint(f).stat().st_mtime, f.name), default=None)
    numbered = {n: f for n, f in _folders(config).items() if best_checkpoint(f)}
    return numbered[max(numbered)] if numbered else None


def latest_folder(config: Config) -> Path | None:
    """The latest run of this config's name, whether it came to a checkpoint or not."""
    numbered = _folders(config)
    return numbered[max(numbered)] if numbered else None


def best_of(metric: str) -> str:
    """The name of the checkpoint that is best on val by this metric."""
    return BEST_F1 if metric == "f1" else f"best_{metric}.pth"


def best_checkpoint(run: Path) -> Path | None:
    """The checkpoint that inference takes by default: the best on val, else the last one.

    Best by the `best_metric` of the run's own config.
    """
    names = (best_of(_best_metric(run)), BEST_F1, LAST)
    return next((run / name for name in names if (run / name).is_file()), None)


def _best_metric(run: Path) -> str:
    config = run / CONFIG_FILE
    if not config.is_file():
        return "f1"
    return yaml.safe_load(config.read_text(encoding="utf-8")).get("best_metric", "f1")


def find_checkpoint(named: str | None, config: Config | None) -> Path:
    """The checkpoint that is named, by its file or its run's folder, else the newest run's best.

    Raises ValueError, saying where it looked, when there is none in the folder.
    """
    path = Path(named).expanduser() if named else None
    if path and not path.is_dir():
        return path
    run = path or newest_run(config)
    found = best_checkpoint(run) if run else None
    if found is None:
        looked_in = named or RUNS.absolute() / (run_name(config) if config else "RUN")
        raise ValueError(
            f"no {BEST_F1} and no {LAST} in {looked_in}: train.py makes them, "
            "--checkpoint names one elsewhere"
        )
    return found


def results_folder(checkpoint: Path) -> Path:
    """Where inference with this checkpoint writes: results/, by the name of its run."""
    return RESULTS / checkpoint.resolve().parent.name


def _folders(config: Config) -> dict[int, Path]:
    pattern = re.compile(re.escape(run_name(config)) + r"(?:-(\d+))?$")
    return {
        int(match[1] or 1): folder
        for folder in RUNS.glob(f"{glob_escape(run_name(config))}*")
        if (match := pattern.match(folder.name)) and folder.is_dir()
    }


def _numbered(config: Config, number: int) -> Path:
    return RUNS / (run_name(config) + (f"-{number}" if number > 1 else ""))
