"""Doing what a comparison needs and has not done yet; what is done is written down at once."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from model import PRETRAINED_ARGS, weight_sources
from utils.command_line import Mistakes, refuse
from utils.comparison.launch import Launcher, ScriptFailed
from utils.comparison.plan import Task, changed_settings
from utils.config import dump_config
from utils.files import atomic_path, write_json
from utils.runs import LAST, RESULTS, RUNS, best_checkpoint

logger = logging.getLogger(__name__)

CONFIGS = Path("configs")
STATE_FILE = "state.json"


@dataclass
class State:
    """What has been done, by the tasks' keys; the file in the comparison's folder."""

    file: Path
    trained_s: dict[str, float] = field(default_factory=dict)
    scored: dict[str, str] = field(default_factory=dict)  # what the scores depend on

    @classmethod
    def read(cls, folder: Path) -> State:
        file = folder / STATE_FILE
        if not file.is_file():
            return cls(file)
        content = json.loads(file.read_text(encoding="utf-8"))
        return cls(file, content["trained_s"], content["scored"])

    def write(self) -> None:
        write_json(self.file, {"trained_s": self.trained_s, "scored": self.scored})


class Work:
    """The trainings and scorings of a comparison in `folder`."""

    def __init__(self, folder: Path, launcher: Launcher) -> None:
        self.folder, self._launcher = folder.absolute(), launcher
        self.state = State.read(self.folder)

    def prepare(self, tasks: Sequence[Task]) -> None:
        """Write the tasks' configs.

        Raises ValueError where a run was begun with other settings, and for every weight file
        that a training would miss.
        """
        anew = [task for task in tasks if self._begins_anew(task)]
        mistakes = Mistakes()
        with mistakes:
            self._refuse_other_settings([task for task in tasks if task not in anew])
        with mistakes:
            self._refuse_missing_weights(anew)
        mistakes.report()
        for task in tasks:
            self._write_config(task)

    def do(self, task: Task) -> Path:
        """Train and score a task as far as it is not done; its results' folder.

        Raises ScriptFailed, and Interrupted after a signal.
        """
        if task.run is None:
            self._train(task)
        self._score(task)
        return self.results(task)

    def results(self, task: Task) -> Path:
        return self.folder / RESULTS / task.key

    def run(self, task: Task) -> Path:
        return task.run or self.folder / RUNS / task.key

    def _refuse_other_settings(self, begun: Sequence[Task]) -> None:
        problems = []
        for task in begun:
            file = self._config_file(task)
            if task.run is None and file.is_file():
                old = yaml.safe_load(file.read_text(encoding="utf-8"))
                problems += [f"  {task.key}: {c}" for c in changed_settings(old, task.config)]
        if problems:
            first = f"{self.folder} holds a comparison with other settings:"
            advice = "ask for those settings again, or name another folder (--out)"
            raise ValueError("\n".join([first, *problems, advice]))

    def _refuse_missing_weights(self, anew: Sequence[Task]) -> None:
        from model.weights import find_weights  # torch, for which typing mistakes need not wait

        problems = []
        for task in anew:
            config = task.config
            if config.load not in (None, "auto"):
                continue  # that file brings every weight
            for source, key in weight_sources(config.model_classname, config.model_args).items():
                try:  # the training's working directory is the comparison's folder
                    find_weights(self.folder / Path(source).expanduser())
                except ValueError as error:
                    without = json.dumps(PRETRAINED_ARGS[key])
                    problems.append(f"{task.model}: {error}, or set {key}: {without}")
        refuse(list(dict.fromkeys(problems)))  # seeds miss the same

    def _begins_anew(self, task: Task) -> bool:
        """Whether it is to be trained, and nothing is there to go on from."""
        return not (task.run or self._is_trained(task) or (self.run(task) / LAST).is_file())

    def _is_trained(self, task: Task) -> bool:
        return task.key in self.state.trained_s and best_checkpoint(self.run(task)) is not None

    def _train(self, task: Task) -> None:
        if self._is_trained(task):
            logger.info("%s: is trained", task.key)
            return
        run, anew = self.run(task), self._begins_anew(task)
        overrides = [] if anew else [f"load={run / LAST}"]
        if run.exists() and anew:
            shutil.rmtree(run)  # it came to no checkpoint: begun again under the same name
        logger.info("%s: %s", task.key, "training goes on" if overrides else "training")
        started = time.monotonic()
        self._launcher.run("train.py", ["-c", str(self._config_file(task)), *overrides], task.key)
        if best_checkpoint(run) is None:
            raise ScriptFailed("train.py: it left no checkpoint (save_checkpoint=false?)")
        self.state.trained_s[task.key] = time.monotonic() - started
        self.state.write()

    def _score(self, task: Task) -> None:
        depends_on = self._scores_depend_on(task)
        results = self.results(task)
        if self.state.scored.get(task.key) == depends_on and (results / "metrics.json").is_file():
            logger.info("%s: is scored", task.key)
            return
        logger.info("%s: scoring", task.key)
        arguments = ["-c", str(self._config_file(task)), "--checkpoint", str(self.run(task))]
        self._launcher.run("inference.py", [*arguments, "--output", str(results)], task.key)
        self.state.scored[task.key] = depends_on
        self.state.write()

    def _scores_depend_on(self, task: Task) -> str:
        checkpoint = best_checkpoint(self.run(task))
        assert checkpoint is not None
        file = checkpoint.stat()
        settings: dict[str, Any] = task.config.model_dump(mode="json")
        keys = ("root_dir", "dataset_name", "ignore_nodata", "image_size", "tile_overlap", "tta",
                "metrics", "pixel_size", "inference", "amp")  # fmt: skip
        return json.dumps(
            [str(checkpoint), file.st_size, file.st_mtime_ns, {key: settings[key] for key in keys}]
        )

    def _config_file(self, task: Task) -> Path:
        return self.folder / CONFIGS / f"{task.key}.yaml"

    def _write_config(self, task: Task) -> None:
        with atomic_path(self._config_file(task)) as path:
            path.write_text(dump_config(task.config), encoding="utf-8")
