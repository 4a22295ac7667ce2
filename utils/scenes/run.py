"""Maps of everything that `--input` names, by one process or by many on one file system."""

from __future__ import annotations

import logging
import multiprocessing
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from utils.distributed import gather_in_order
from utils.files import remove_leftovers, sha256
from utils.predictor import Predictor
from utils.results import map_files, map_folders
from utils.scenes.blocks import predict_blocks
from utils.scenes.finish import finish_in_background, finish_scenes
from utils.scenes.photos import map_photo
from utils.scenes.plan import Job, ScenePlan, work_folder
from utils.scenes.predictions import FILE, read_object, read_predictions, write_predictions
from utils.scenes.prepare import Asked, Photo, prepare, take_up
from utils.scenes.store import SceneFailed, wait_for

logger = logging.getLogger(__name__)

#: From this many pixels on a helper process is worth the seconds that it takes to start.
LARGE_PX = 16_000_000

#: Of each job the names of the blocks that are missing; None when an earlier run did it.
Missing = list[tuple[Job, set[str] | None]]


def map_rasters(predictor: Predictor, asked: Asked, inputs: Sequence[tuple[str, str]]) -> int:
    """Map rasters (name, path); 0 when all of them were, 1 when some could not be used.

    Every rank calls this. The work is divided at the start; from then on ranks wait for files,
    never for each other, and a rank that dies leaves its part to the next start.
    """
    ranks = predictor.ranks
    jobs = _prepared(predictor, asked, inputs)
    open_jobs = [(job, missing) for job, missing in jobs if missing is not None]
    plans = [job for job, _ in open_jobs if isinstance(job, ScenePlan)]
    photos = [job for job, _ in open_jobs if isinstance(job, Photo)]
    with _finishing(plans, ranks.rank, ranks.world):
        for index in predictor.share(len(photos), "images"):
            map_photo(predictor, photos[index])
        parts = [
            (plan, block)
            for plan, missing in open_jobs
            if isinstance(plan, ScenePlan)
            for block in plan.blocks
            if block.name in missing
        ]
        predict_blocks(predictor, parts[ranks.rank :: ranks.world])
    _left(asked.output, ranks.rank).touch()
    if not ranks.is_main:
        return 0
    return _conclude(predictor, asked, [job for job, _ in jobs], len(inputs))


def _prepared(predictor: Predictor, asked: Asked, inputs: Sequence[tuple[str, str]]) -> Missing:
    """What is to be done about each usable input; the others cost a line each."""
    ranks, own = predictor.ranks, {}
    work_folder(asked.output).mkdir(parents=True, exist_ok=True)
    if ranks.is_main:
        for rank in range(ranks.world):
            _left(asked.output, rank).unlink(missing_ok=True)
        for kind in ("", *map_folders(predictor.config.inference, labelled=False)):
            remove_leftovers(asked.output / kind)
        if (asked.output / FILE).exists() and read_object(asked.output / FILE) is None:
            logger.warning("%s: is damaged, and begun anew", asked.output / FILE)
    weights_sha256 = sha256(predictor.checkpoint)
    earlier = read_predictions(asked.output)
    for index in predictor.share(len(inputs), "looking at inputs"):
        own[index] = None
        try:
            job, notes = prepare(predictor, asked, *inputs[index], weights_sha256)
            missing, note = take_up(job, _files(predictor, job), earlier)
        except (ValueError, OSError) as error:
            logger.error("%s", error)
            continue
        own[index] = job, missing
        for text in notes:
            logger.warning("%s", text)
        if note:
            logger.info("%s", note)
    return [job for job in gather_in_order(own) if job is not None]


@contextmanager
def _finishing(plans: list[ScenePlan], rank: int, world: int) -> Iterator[None]:
    """Finish scenes while the block runs, in a process of its own; small ones after it."""
    if sum(plan.raster.grid_shape[0] * plan.raster.grid_shape[1] for plan in plans) < LARGE_PX:
        yield
        finish_scenes(plans, rank, world)
        return
    helper = multiprocessing.get_context("spawn").Process(
        target=finish_in_background, args=(plans, rank, world), daemon=True
    )
    helper.start()
    try:
        yield
        helper.join()
    finally:
        helper.terminate()
    if helper.exitcode:
        for plan in plans:
            if not plan.record.exists():
                plan.fail(f"{plan.name}: the finishing process ended with {helper.exitcode}")


def _conclude(predictor: Predictor, asked: Asked, jobs: list[Job], num_inputs: int) -> int:
    """Report on what all ranks did, and remove what the work took."""
    entries = []
    for job in jobs:
        try:
            wait_for(job.record, job)
        except SceneFailed:
            continue
        entries.append(read_object(job.record))
    for rank in range(predictor.ranks.world):
        wait_for(_left(asked.output, rank))
    done = {entry["name"] for entry in entries}
    conditions = predictor.conditions(None, pixel_size=asked.gsd)
    num_left_out = write_predictions(asked.output, conditions, entries)
    if num_left_out:
        text = "%s: %d results of other settings are no longer listed"
        logger.warning(text, asked.output / FILE, num_left_out)
    if entries:
        files = [file for job in jobs if job.name in done for file in _files(predictor, job)]
        folders = dict.fromkeys(file.parent.name for file in files)
        print(conditions)
        print(f"{asked.output}/: {', '.join([FILE, *folders])}")
    for job in jobs:
        if job.name in done:
            shutil.rmtree(job.work, ignore_errors=True)
    for rank in range(predictor.ranks.world):
        _left(asked.output, rank).unlink(missing_ok=True)
    if not any(work_folder(asked.output).iterdir()):
        work_folder(asked.output).rmdir()
    return 0 if len(entries) == num_inputs else 1


def _files(predictor: Predictor, job: Job) -> list[Path]:
    """What is written of an input."""
    if isinstance(job, ScenePlan):
        return list(job.files().values())
    settings = predictor.config.inference
    return list(map_files(job.output, job.name, settings, labelled=False).values())


def _left(output: Path, rank: int) -> Path:
    """Exists when a rank needs the work folder no more."""
    return work_folder(output) / f"rank-{rank}.left"
