#!/usr/bin/env python
"""A short training of every config: does the loss fall, what does a step cost, what memory; and
what inference.py scores with its checkpoint on the test split.

python benchmarks/training.py --data datasets/sample --output training.json
python benchmarks/training.py --data ROOT/DATASET -c config/UNet.yaml batch_size=4 --steps 50

Every config trains in a process of its own, from random weights, so that its peak memory is its
own and a failure costs one row. `key=value` holds for all configs. Models on the encoder of SAM
take its size 'tiny' and train all of it (model_args.model_size=... names another size).
Rows that --output has already are kept: a second call goes on where the first was stopped. Beside
that JSON file stands the table in Markdown. Without --output nothing is written.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.alternating import add_output, positive
from utils.arguments import ArgumentParser
from utils.command_line import refuse, user_mistakes
from utils.files import atomic_path
from utils.pairing import find_pairs

if TYPE_CHECKING:
    from utils.training import Training

ROOT = Path(__file__).resolve().parents[1]

COLUMNS = {
    "config": lambda row: row["config"],
    "parameters [M]": lambda row: f"{row['parameters'] / 1e6:.1f}",
    "loss at start": lambda row: f"{row['loss_start']:.3f}",
    "at end": lambda row: f"{row['loss_end']:.3f}",
    "s a step": lambda row: f"{row['step_s']:.2f}",
    "peak memory [GB]": lambda row: f"{row['peak_bytes'] / 1e9:.2f}",
    "test F1": lambda row: f"{row['test_f1']:.3f}",
}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="ROOT/DATASET")
    # `-c A.yaml B.yaml key=value` puts the overrides behind the files
    parser.add_argument(
        "-c", "--config", nargs="+", default=[], metavar="FILE", help="default: all in config/"
    )
    parser.add_argument(
        "--steps", type=positive, default=200, help="of each training (default %(default)s)"
    )
    parser.add_argument(
        "--size",
        type=positive,
        default=256,
        help="side of the crops, in pixels (default %(default)s)",
    )
    add_output(parser)
    parser.add_argument("--row", type=Path, help=argparse.SUPPRESS)  # one config, in this process
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for every config")
    args = parser.read(argv)
    args.overrides += [text for text in args.config if "=" in text]
    args.config = [Path(text) for text in args.config if "=" not in text]
    args.data = args.data.absolute()  # "." alone has no name
    args.config = args.config or sorted((ROOT / "config").glob("*.yaml"))
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing; print, and write where asked. The status: 1 when a row failed."""
    args = parse_args(argv)
    if args.row:
        args.row.write_text(json.dumps(measure(args.config[0], args)))
        return 0
    settings = {
        "steps": args.steps,
        "size": args.size,
        "dataset": args.data.name,
        "overrides": args.overrides,
    }
    with user_mistakes():
        check(args)
        results = read_results(args.output, settings)
    for config in args.config:
        name = config.name
        if "error" in results["rows"].get(name, {"error": None}):
            print(f"{name} ...", flush=True)
            results["rows"][name] = {"config": name} | run_apart(config, args)
            print(line(results["rows"][name]), flush=True)
            write_results(args.output, results)
    print(markdown(results))
    if args.output:
        print(f"written: {args.output} and {args.output.with_suffix('.md')}")
    return int(any("error" in row for row in results["rows"].values()))


def check(args: argparse.Namespace) -> None:
    """Raise ValueError for all that would fail every row, and for configs that are not there."""
    problems = [f"{path}: no such file" for path in args.config if not path.is_file()]
    problems += [f"{t}: expected key=value" for t in args.overrides if "=" not in t]
    for split in ("train", "test"):
        try:
            find_pairs(args.data.parent, args.data.name, split)
        except ValueError as error:
            problems.append(str(error))
    refuse(problems)


def run_apart(config: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The row of a config, from processes of its own; a reason where there is none."""
    with tempfile.TemporaryDirectory() as folder:
        row, results = Path(folder) / "row.json", Path(folder) / "results"
        training = [__file__, "--row", str(row), "-c", str(config), "--data", str(args.data)]
        training += ["--steps", str(args.steps), "--size", str(args.size), *args.overrides]
        scoring = [str(ROOT / "inference.py"), "--checkpoint", str(checkpoint_beside(row))]
        scoring += ["--output", str(results), "inference.save_outputs=false"]
        for command in (training, scoring):
            done = subprocess.run([sys.executable, *command], stderr=subprocess.PIPE, text=True)
            if done.returncode:
                return {"error": reason(done)}
        scores = json.loads((results / "metrics.json").read_text())
        return json.loads(row.read_text()) | {"test_f1": scores["overall"]["f1"]}


def checkpoint_beside(row: Path) -> Path:
    return row.with_suffix(".pth")


def reason(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"ended by signal {-done.returncode} (9: out of memory?)"
    lines = done.stderr.strip().splitlines()
    return lines[-1].strip() if lines else f"status {done.returncode}"


def measure(path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Train the model of a config for `steps` steps in one epoch."""
    import math

    import torch

    from utils.checkpoint import save_checkpoint, seed_everything
    from utils.command_line import set_up_logging
    from utils.distributed import init
    from utils.loading import training_batches
    from utils.training import weights_checkpoint

    set_up_logging()
    with user_mistakes():
        config = load(path, args)
        pairs = find_pairs(config.root_dir, config.dataset_name, "train")
        # A single epoch holds all the steps, so that the schedule is that of a whole training.
        crops = math.ceil(args.steps * config.batch_size / len(pairs))
        config = config.model_copy(update={"crops_per_image": crops})
        ranks = init(config.device)
        seed_everything(config.random_seed)
        batches = training_batches(config, ranks, pairs)
        state, losses, seconds = train(config, ranks, batches, args.steps)
    save_checkpoint(checkpoint_beside(args.row), weights_checkpoint(state, scores={}))
    edge = max(1, args.steps // 10)
    return {
        "parameters": sum(p.numel() for p in state.model.parameters()),
        "loss_start": sum(losses[:edge]) / edge,
        "loss_end": sum(losses[-edge:]) / edge,
        "step_s": sorted(seconds)[len(seconds) // 2],
        "peak_bytes": peak_bytes(ranks.device.type),
        "batch_size": config.batch_size,
        "model_args": config.model_args,
        "device": torch.cuda.get_device_name() if ranks.device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
    }


def load(path: Path, args: argparse.Namespace) -> Any:
    """The config with what this benchmark sets: nothing is pretrained, one short epoch."""
    import logging

    import yaml

    import model
    from utils.config import load_config

    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    accepted = model.model_class(values["model_classname"]).__init__.__kwdefaults__
    overrides = [f"root_dir={args.data.parent}", f"dataset_name={args.data.name}"]
    overrides += [f"image_size={args.size}", "epochs=1", f"warm_up_step={args.steps // 10}"]
    overrides += ["scheduler.CosineAnnealingLR_params.T_max=null", "num_workers=0"]
    overrides += [
        f"model_args.{key}={json.dumps(nothing)}"
        for key, nothing in model.PRETRAINED_ARGS.items()
        if key in accepted
    ]
    if "model_size" in accepted and values["model_args"].get("model_size") != "nano":
        overrides.append("model_args.model_size=tiny")
    overrides.append("training_strategy.mode=train_all")
    return load_config(
        path,
        [*overrides, *args.overrides],
        model_names=model.list_models(),
        model_class=model.model_class,
        warn=logging.getLogger("training").warning,
    )


def train(
    config: Any, ranks: Any, batches: Any, steps: int
) -> tuple[Training, list[float], list[float]]:
    """The state after the last step, and the loss and the seconds of every step."""
    import time

    import model
    from utils.engine import Stopped, train_one_epoch
    from utils.training import build_training

    network = model.build_model(config.model_classname, config.model_args)
    state = build_training(config, ranks, network, batches_per_epoch=steps)
    sums, times = [0.0], [time.perf_counter()]

    def after_step() -> None:
        # The engine has just read the losses, for which a GPU had to finish its forward pass.
        sums.append(state.progress.sums["loss"])
        times.append(time.perf_counter())

    batches.batch_sampler.start_at(1)
    with suppress(Stopped):  # crops may make a few batches more than the steps
        train_one_epoch(
            state,
            batches,
            remaining=len(batches.batch_sampler),
            after_step=after_step,
            stop_asked=lambda: len(times) > steps,
        )
    losses = [after - before for before, after in pairwise(sums)]
    seconds = [after - before for before, after in pairwise(times)]
    return state, losses, seconds


def peak_bytes(device: str) -> int:
    """Of this process: its resident memory, or what it took of the GPU."""
    import resource

    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def read_results(path: Path | None, settings: dict[str, Any]) -> dict[str, Any]:
    """What an earlier call with the same settings has measured. Raises ValueError for others."""
    if path is None or not path.is_file():
        return {"settings": settings, "rows": {}}
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        found = results["settings"]
    except (ValueError, LookupError, TypeError):
        raise ValueError(f"{path} is none of this benchmark's: give another --output") from None
    if found != settings:
        raise ValueError(f"{path} is of other settings, {found}: give another --output")
    return results


def write_results(path: Path | None, results: dict[str, Any]) -> None:
    if path is None:
        return
    for target, text in (
        (path, json.dumps(results, indent=2)),
        (path.with_suffix(".md"), markdown(results)),
    ):
        with atomic_path(target) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


def markdown(results: dict[str, Any]) -> str:
    """The table; losses are means over the first and the last tenth of the steps, F1 is at 0.5."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    rows = sorted(results["rows"].items(), key=lambda item: item[0].casefold())
    lines += [line(row) for _, row in rows]
    return "\n".join(lines)


def line(row: dict[str, Any]) -> str:
    if "error" in row:
        cells = [row["config"], f"failed: {row['error']}"] + [""] * (len(COLUMNS) - 2)
    else:
        cells = [show(row) for show in COLUMNS.values()]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
