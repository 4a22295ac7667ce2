"""How long a network takes for an image and for a training step, measured in a fresh process.

One model a process: caches, memory and compiled kernels of one do not reach the next, and one that
is killed for its memory costs a line, not the whole table.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from model import build_model
from model.base import RoadModel
from utils import distributed
from utils.compiling import compile_network
from utils.distributed import Ranks
from utils.engine import train_one_epoch
from utils.profiling.memory import PeakMemory
from utils.profiling.parts import part_meter
from utils.schema import Config
from utils.training import amp_dtype, build_training

DType = Literal["fp32", "bf16", "fp16"]
#: Passes over which the time by part is taken; it is a share, not a record.
PART_PASSES = 3
SMALL_SIDE = 64  # px, of the first pass, after which the process has loaded what it needs
FEWEST = 3  # timed passes, whatever `limit_s` says


class Conditions(NamedTuple):
    """What a time depends on besides the model."""

    size: int
    batch: int
    device: str
    dtype: DType
    compiled: bool
    warm_up: int  # passes before the first that is timed
    repeats: int  # timed passes ...
    limit_s: float  # ... of which no more begin after so many seconds


@dataclass(frozen=True)
class Timing:
    """Of a forward pass in eval mode, or of a whole training step (forward, backward, AdamW)."""

    median_s: float
    p90_s: float
    fps: float  # images a second at the median
    peak_bytes: int | None  # None where the system does not tell
    warm_up: int
    repeats: int
    by_part_s: dict[str, float] | None = None  # of a forward pass, not compiled


class MeasuringFailed(RuntimeError):
    """The model could not be run; the message is one line."""


def measure(config: Config, conditions: Conditions, *, train: bool) -> Timing:
    """The timing of a config's model, from a process of its own. Raises MeasuringFailed."""
    task = time_training_step if train else time_forward
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        try:
            return pool.submit(task, config, conditions).result()
        except BrokenProcessPool:
            raise MeasuringFailed("its process was killed (not enough memory?)") from None
        except Exception as error:  # whatever a model may raise is a row of the table
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise MeasuringFailed(reason) from error


def device_name(device: torch.device) -> str:
    """What to call the processor in a report."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def time_forward(config: Config, conditions: Conditions) -> Timing:
    """Forward passes in eval mode, in this process."""
    ranks = distributed.init(conditions.device)
    device = ranks.device
    model = _network(config, ranks).eval()
    memory = PeakMemory(model, device)
    network = compile_network(model, device) if conditions.compiled else model
    small, image = (
        torch.randn(conditions.batch, 3, side, side).to(device)
        for side in (SMALL_SIDE, conditions.size)
    )
    dtype = amp_dtype(_amp(conditions), device)
    autocast = torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)
    with torch.inference_mode(), autocast:
        model(small)
        memory.start()
        started, times = time.perf_counter(), []
        for _ in range(conditions.warm_up):
            network(image)
        _wait(device)
        while len(times) < conditions.repeats and not _over(started, times, conditions):
            before = time.perf_counter()
            network(image)
            _wait(device)
            times.append(time.perf_counter() - before)
        peak = memory.peak()
        by_part = _time_by_part(model, device, image)
    return _timing(times, conditions, peak, by_part)


def time_training_step(config: Config, conditions: Conditions) -> Timing:
    """Training steps as train.py makes them, on random images, in this process."""
    ranks = distributed.init(conditions.device)
    changes = {
        "amp": _amp(conditions),
        "batch_size": conditions.batch,
        "gradient_accumulation": 1,
        "warm_up_step": 0,
        "compile": conditions.compiled,
    }
    config = config.model_copy(update=changes)
    training = build_training(config, ranks, _network(config, ranks), batches_per_epoch=1)
    memory = PeakMemory(training.model, ranks.device)
    small, full = (_random_batch(conditions.batch, side) for side in (SMALL_SIDE, conditions.size))
    train_one_epoch(training, [small], remaining=1)
    memory.start()
    started, ends = time.perf_counter(), []

    def batches() -> Iterator[dict[str, Any]]:
        while len(ends) < conditions.warm_up + conditions.repeats:
            if _over(started, ends[conditions.warm_up :], conditions):
                return
            yield full

    def after_step() -> None:
        _wait(ranks.device)
        ends.append(time.perf_counter())

    train_one_epoch(training, batches(), remaining=2**31, after_step=after_step)
    times = np.diff([started, *ends])[conditions.warm_up :]
    return _timing(list(times), conditions, memory.peak(), None)


def _network(config: Config, ranks: Ranks) -> RoadModel:
    model = build_model(config.model_classname, config.model_args, load_pretrained=False)
    return model.to(ranks.device)


def _random_batch(batch: int, side: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        "image": torch.randint(256, (batch, 3, side, side), dtype=torch.uint8, generator=generator),
        "target": torch.randint(2, (batch, side, side), dtype=torch.uint8, generator=generator),
        "name": ["random"] * batch,
    }


def _amp(conditions: Conditions) -> bool | str:
    """The config's `amp` for the type of a measurement."""
    return False if conditions.dtype == "fp32" else conditions.dtype


def _time_by_part(model: RoadModel, device: torch.device, image: Tensor) -> dict[str, float]:
    def now() -> float:
        _wait(device)
        return time.perf_counter()

    with part_meter(model, now) as meter:
        for _ in range(PART_PASSES):
            model(image)
    return {part: seconds / PART_PASSES for part, seconds in meter.total.items()}


def _over(started: float, times: list[float], conditions: Conditions) -> bool:
    enough = len(times) >= min(FEWEST, conditions.repeats)
    return enough and time.perf_counter() - started > conditions.limit_s


def _timing(
    times: list[float], conditions: Conditions, peak: int | None, by_part: dict[str, float] | None
) -> Timing:
    median, p90 = (float(np.percentile(times, share)) for share in (50, 90))
    fps = conditions.batch / median
    return Timing(median, p90, fps, peak, conditions.warm_up, len(times), by_part)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
