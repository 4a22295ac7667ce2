"""What a comparison has to do: a training and a scoring for each model and seed.

Nothing here imports torch, so that a typing mistake is answered at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.config import nearest
from utils.schema import Config

#: What must be the same for all models, as it decides what their scores mean.
PROTOCOL = (
    *("root_dir", "dataset_name", "ignore_nodata", "image_size", "tile_overlap", "tta"),
    *("metrics", "pixel_size", "inference.split", "inference.threshold"),
)
#: Settings that decide nothing about a comparison.
IRRELEVANT = {"device", "num_workers", "inference", "comet_ml", "log_project_name", "run_name"}
#: A budget's word, and the setting that it means.
BUDGETS = {"epochs": "epochs", "steps": "max_steps", "minutes": "max_minutes"}
#: With a budget of steps, the most of it that the warm-up may take.
WARM_UP_SHARE = 0.1
#: More epochs than minutes will ever allow.
ENDLESS_EPOCHS = 1_000_000


@dataclass(frozen=True)
class Task:
    """A model with a seed; `run` is an existing run that takes the place of a training."""

    model: str
    seed: int
    config: Config
    run: Path | None = None

    @property
    def key(self) -> str:
        """The name of its run, its results and its log."""
        return f"{self.model}-seed{self.seed}"


def read_seeds(text: str) -> tuple[int, ...]:
    """'6,7,8' as numbers. Raises ValueError for anything else."""
    try:
        seeds = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise ValueError(f"--seeds: expected numbers separated by commas, got {text!r}") from None
    if min(seeds) < 0:
        raise ValueError(f"--seeds: {min(seeds)} is negative")
    return seeds


def read_budget(text: str) -> dict[str, Any]:
    """'steps=200' as the settings that it means for every model. Raises ValueError."""
    kind, equals, amount = text.partition("=")
    if kind not in BUDGETS or not equals:
        near = nearest(kind, BUDGETS) if equals else None
        hint = f", did you mean {near!r}?" if near else ""
        raise ValueError(f"--budget: expected epochs=E, steps=S or minutes=M, got {text!r}{hint}")
    try:
        number = float(amount) if kind == "minutes" else int(amount)
    except ValueError:
        raise ValueError(f"--budget: {amount!r} is no number of {kind}") from None
    if not 0 < number < float("inf"):
        raise ValueError(f"--budget: {kind} must be above 0, got {amount}")
    budget = {"max_steps": None, "max_minutes": None, BUDGETS[kind]: number}
    return budget | {"epochs": ENDLESS_EPOCHS} if kind == "minutes" else budget


def plan_trainings(
    configs: Mapping[str, Config], seeds: Sequence[int], budget: Mapping[str, Any]
) -> list[Task]:
    """A task for each config and seed, with the budget and paths that hold from any folder.

    Raises ValueError where configs differ in what must be the same.
    """
    fitted = {safe_name(name): _with_budget(config, budget) for name, config in configs.items()}
    if len(fitted) < len(configs):
        raise ValueError(f"the files' names are too much alike: {', '.join(configs)}")
    refuse_different_protocols(fitted, PROTOCOL if budget else (*PROTOCOL, *BUDGETS.values()))
    return [
        Task(name, seed, _for_run(config, name, seed))
        for name, config in fitted.items()
        for seed in seeds or (config.random_seed,)
    ]


def refuse_different_protocols(
    configs: Mapping[str, Config], settings: Sequence[str] = PROTOCOL
) -> None:
    """Raises ValueError that lists each setting that is not the same for all, and its values."""
    problems = []
    for setting, values in differing(configs, settings).items():
        listed = ", ".join(f"{name} has {value}" for name, value in values.items())
        problems.append(f"  {setting}: {listed}")
    if problems:
        raise ValueError(
            "\n".join(
                [
                    "models are compared under one protocol, but their configs differ:",
                    *problems,
                    "give key=value for all of them (for epochs also --budget)",
                ]
            )
        )


def differing(
    configs: Mapping[str, Config], settings: Sequence[str] | None = None
) -> dict[str, dict[str, Any]]:
    """The settings that are not the same for all, with each model's value; by default those that
    shape a training, apart from the model itself."""
    flat = {name: _flat(config) for name, config in configs.items()}
    if settings is None:
        model = {"model_classname", "model_args", "random_seed", "load"}
        if all(config.max_steps is not None for config in configs.values()):
            model.add("epochs")  # which follow from the steps
        keys = next(iter(flat.values()))
        settings = [key for key in keys if key.partition(".")[0] not in IRRELEVANT | model]
    found = {}
    for setting in settings:
        values = {name: own[setting] for name, own in flat.items()}
        if any(value != next(iter(values.values())) for value in values.values()):
            found[setting] = values
    return found


def changed_settings(old: Mapping[str, Any], new: Config) -> list[str]:
    """The settings of a training that are not what a stored config of it says."""
    now = new.model_dump(mode="json")
    scored_only = {"tta", "metrics", "pixel_size", "load"}
    return [
        f"{key} was {old[key]}, is now {value}"
        for key, value in now.items()
        if key not in IRRELEVANT | scored_only and old.get(key, value) != value
    ]


def safe_name(name: str) -> str:
    """A config's name as a run may be called."""
    return re.sub(r"[^\w.-]", "_", name)


def for_scoring(config: Config) -> Config:
    """The config with the masks, and nothing else, written beside the scores."""
    outputs = {
        "model_path": None,
        "save_outputs": True,
        "save_binary_mask": True,
        "save_prob_map": False,
        "save_error_map": False,
    }
    inference = config.inference.model_copy(update=outputs)
    root = str(Path(config.root_dir).absolute())
    return config.model_copy(update={"inference": inference, "root_dir": root})


def _with_budget(config: Config, budget: Mapping[str, Any]) -> Config:
    """The cosine ends with the budget; a warm-up that would fill it is shortened."""
    if not budget:
        return config
    changes = dict(budget)
    steps = budget.get("max_steps")
    if steps is not None:
        changes["warm_up_step"] = min(config.warm_up_step, int(WARM_UP_SHARE * steps))
    cosine = config.scheduler.CosineAnnealingLR_params.model_copy(update={"T_max": None})
    scheduler = config.scheduler.model_copy(update={"CosineAnnealingLR_params": cosine})
    return config.model_copy(update=changes | {"scheduler": scheduler})


def _for_run(config: Config, name: str, seed: int) -> Config:
    load = config.load
    if load is not None and load != "auto" and Path(load).exists():
        load = str(Path(load).absolute())
    config = config.model_copy(update={"random_seed": seed, "load": load})
    return for_scoring(config.model_copy(update={"run_name": f"{name}-seed{seed}"}))


def _flat(config: Config) -> dict[str, Any]:
    """Settings by dotted keys, one level deep: what is compared as a whole stays whole."""
    flat: dict[str, Any] = {}
    for key, value in config.model_dump(mode="json").items():
        if isinstance(value, dict) and key in ("inference", "training_strategy", "augmentation"):
            flat |= {f"{key}.{sub}": item for sub, item in value.items()}
        else:
            flat[key] = value
    return flat
