"""What the benchmarks share: timing in turns, ratios with their spread, memory, a JSON file."""

from __future__ import annotations

import argparse
import ctypes
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import ArgumentParser
from utils.files import write_json

Work = Callable[[], object]


#: Seconds that pass, or that this process computes in all its threads.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def add_settings(parser: argparse.ArgumentParser, rounds: int) -> None:
    """The arguments of every benchmark."""
    add_device(parser)
    parser.add_argument(
        "--rounds",
        type=positive,
        default=rounds,
        help="of which medians are taken (default %(default)s)",
    )
    parser.add_argument(
        "--clock",
        default="wall",
        choices=CLOCKS,
        help="cpu: the seconds that all threads compute, for a machine that others use as well "
        "(with OMP_WAIT_POLICY=PASSIVE, so that waiting threads do not count; default wall)",
    )
    add_output(parser)


def positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {text!r}")
    return int(text)


def add_device(parser: argparse.ArgumentParser) -> None:
    def present(name: str) -> str:
        if name == "cuda" and not torch.cuda.is_available():
            raise argparse.ArgumentTypeError("PyTorch finds no CUDA device here")
        return name

    parser.add_argument(
        "--device", default="cpu", type=present, choices=["cpu", "cuda"], help="(default cpu)"
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """The option --output FILE; a folder is refused."""

    def no_folder(text: str) -> Path:
        if Path(text).is_dir():
            raise argparse.ArgumentTypeError(f"{text} is a folder, a file is wanted")
        return Path(text)

    parser.add_argument(
        "--output", type=no_folder, metavar="FILE", help="write the results as JSON, too"
    )


def parsed(parser: ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments that `add_settings` and others have added."""
    args = parser.read(argv)
    if args.device == "cuda" and args.clock == "cpu":
        parser.error("--clock cpu: it does not see what a GPU computes")
    return args


def alternate(
    candidates: dict[str, Work], rounds: int, device: str, clock: str = "wall"
) -> dict[str, list[float]]:
    """Seconds of every candidate, called in turns so that a busy machine slows all alike."""
    now = CLOCKS[clock]
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds + 1):
        for name, work in candidates.items():
            synchronise(device)
            start = now()
            work()
            synchronise(device)
            times[name].append(now() - start)
    return {name: spent[1:] for name, spent in times.items()}  # the first call prepares


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def ratio(numerator: list[float], denominator: list[float]) -> dict[str, float]:
    """Median and quartiles of the rounds' ratios."""
    ratios = [a / b for a, b in zip(numerator, denominator, strict=True)]
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return {"median": median(ratios), "low": low, "high": high}


def shown(value: dict[str, float]) -> str:
    return f"{value['median']:.2f} ({value['low']:.2f}-{value['high']:.2f})"


def peak_bytes(work: Work, device: str) -> int | None:
    """Memory that a call takes at its height beyond what was held before; None where unknown.

    On a CPU this is the resident memory that Linux reports, PyTorch's and everyone else's.
    """
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    if platform.libc_ver()[0] != "glibc":
        return None
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _resident_bytes("VmRSS")
    work()
    return _resident_bytes("VmHWM") - before


def _resident_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


def saved_bytes(work: Work) -> int:
    """Memory that autograd keeps for the backward pass, each storage counted once."""
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        held = work()  # its graph keeps every storage alive, so that no address comes twice
    total = sum(storage.nbytes() for storage in kept.values())
    del held
    return total


def machine(device: str) -> dict[str, Any]:
    """What a figure depends on, for the written results."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    return {
        "device": f"{device}: {name}",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def describe(device: str) -> str:
    facts = machine(device)
    return f"{facts['device']}, {facts['threads']} threads, PyTorch {facts['torch']}"


def write_results(args: argparse.Namespace, results: dict[str, Any]) -> None:
    """Write the results beside the settings and the machine that they depend on, if asked for."""
    if args.output is None:
        return
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    facts = {"settings": settings, "machine": machine(args.device)}
    write_json(args.output, facts | results)
    print(f"written: {args.output}")
