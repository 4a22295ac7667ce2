"""Before the work: what each input is, what its result depends on, and what is done already."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from utils.files import atomic_path
from utils.pairing import EXTENSIONS, find_images
from utils.predictor import Predictor
from utils.raster import Raster, is_photo, is_virtual, open_raster, raster_name, source_files
from utils.results import map_folders
from utils.scenes.plan import BLOCK_PX, Job, ScenePlan, Wanted, plan_blocks
from utils.scenes.predictions import Predictions, read_object, remove_results
from utils.scenes.store import BlockStore

#: Files of a folder that are looked at; a file that is named may be of any other kind.
RASTERS = (*EXTENSIONS, ".vrt", ".jp2", ".img")
#: Part of every fingerprint: to be raised when results change that settings do not show.
VERSION = 2


@dataclass(frozen=True)
class Photo(Job):
    """A JPEG or PNG without georeference, small enough to be predicted at once."""

    path: str


@dataclass(frozen=True)
class Asked:
    """What the command line says about rasters."""

    output: Path
    bands: tuple[int, ...] | None
    gsd: float | None


def find_rasters(path: str) -> list[tuple[str, str]]:
    """Names and places of one raster, or of a folder's.

    What only GDAL can look at (/vsicurl/...) is passed on as it is. Raises ValueError when there
    is nothing.
    """
    if is_virtual(path):
        return [(raster_name(path), path)]
    return [(name, str(file)) for name, file in find_images(path, RASTERS)]


def prepare(
    predictor: Predictor, asked: Asked, name: str, path: str, weights_sha256: str
) -> tuple[Photo | ScenePlan, list[str]]:
    """What to do about an input, and what its user should know, a line each.

    ValueError, one line, when it cannot be used.
    """
    settings = predictor.config.inference
    folders = map_folders(settings, labelled=False)
    if is_photo(path):
        if asked.gsd is not None:
            raise ValueError(f"{path}: has no georeference, and --gsd needs the pixel size")
        if not folders:
            raise ValueError(
                f"{path}: a photo has no road lines: set inference.save_binary_mask=true or "
                "inference.save_prob_map=true"
            )
        notes = [f"{path}: --bands has no effect on a photo"] if asked.bands else []
        fingerprint = _fingerprint(predictor, path, weights_sha256)
        return Photo(asked.output, name, fingerprint, path), notes
    raster, notes = open_raster(path, asked.bands, asked.gsd)
    if "prob" in folders and settings.prob_map_format == "npy":
        notes.append(f"{path}: inference.prob_map_format=npy has no effect on a scene")
    wanted = Wanted(
        mask="mask" in folders,
        probability="prob" in folders,
        roads=settings.writes_roads,
        threshold=predictor.threshold,
        join_gap_m=settings.join_gap_m,
    )
    return _scene_plan(predictor, asked.output, name, raster, wanted, weights_sha256), notes


def _scene_plan(
    predictor: Predictor,
    output: Path,
    name: str,
    raster: Raster,
    wanted: Wanted,
    weights_sha256: str,
) -> ScenePlan:
    grid = predictor.grid(raster.grid_shape)
    result_of = BLOCK_PX, *astuple(wanted), str(raster)
    return ScenePlan(
        raster=raster,
        output=output,
        name=name,
        fingerprint=_fingerprint(predictor, raster.path, weights_sha256, *result_of),
        blocks=plan_blocks(
            grid.tops,
            grid.lefts,
            (grid.tile_height, grid.tile_width),
            raster.grid_shape,
            BLOCK_PX,
        ),
        wanted=wanted,
        tags=(
            ("MODEL", predictor.config.model_classname),
            ("CHECKPOINT", f"{predictor.checkpoint.name}, epoch {predictor.epoch}"),
            ("THRESHOLD", f"{predictor.threshold:g}"),
        ),
    )


def take_up(
    job: Photo | ScenePlan, files: Sequence[Path], earlier: Predictions
) -> tuple[set[str] | None, str | None]:
    """Make the job's folder ready; the names of the blocks that are missing, and a note.

    Without blocks (None) the job is done already: an earlier run with the same fingerprint did
    it, and `files` are there. What was begun or done with other settings is dropped, so that
    nothing old stays beside what is new.
    """
    begun = job.work / "fingerprint.txt"
    before = begun.read_text(encoding="utf-8") if begun.is_file() else None
    entry = None
    # what was begun with other settings since may have put its own files there
    if before in (None, job.fingerprint) and all(file.exists() for file in files):
        entry = _finished_entry(job, earlier)
    listed = earlier.entries.get(job.name, {}).get("fingerprint")
    if entry is None and {before, listed} - {None, job.fingerprint}:
        remove_results(job.output, job.name)
    if before != job.fingerprint:
        shutil.rmtree(job.work, ignore_errors=True)
        with atomic_path(begun) as path:
            path.write_text(job.fingerprint, encoding="utf-8")
    job.failure.unlink(missing_ok=True)
    if entry is not None:
        job.finish(**entry)
        return None, f"{job.name}: done already{_not_looked_at(job, files[0])}"
    job.record.unlink(missing_ok=True)
    if isinstance(job, Photo):
        return set(), None
    store = BlockStore(job)
    missing = {block.name for block in job.blocks if not store.path(block).exists()}
    done = len(job.blocks) - len(missing)
    if not done:
        return missing, None
    note = f"{job.name}: goes on, {done}/{len(job.blocks)} blocks are there"
    return missing, note + _not_looked_at(job, job.work)


def _not_looked_at(job: Photo | ScenePlan, result: Path) -> str:
    """What to say of a result whose source may have changed since, and cannot tell."""
    unseen = [file for file in source_files(job.path) if is_virtual(file)]
    if not unseen:
        return ""
    return f"; whether {unseen[0]} has changed is not known: delete {result} to begin anew"


def _finished_entry(job: Job, earlier: Predictions) -> dict[str, Any] | None:
    """What an earlier run reported of this job."""
    for entry in (read_object(job.record), earlier.entries.get(job.name)):
        if entry and entry.get("fingerprint") == job.fingerprint:
            return {key: entry[key] for key in entry if key not in ("name", "fingerprint")}
    return None


def _fingerprint(predictor: Predictor, path: str, weights_sha256: str, *other: Any) -> str:
    """Of all that the result depends on: weights, settings, and the input as it is now."""
    conditions = asdict(predictor.conditions(None)) | {"checkpoint": weights_sha256}
    states = [
        (file, state.st_size, state.st_mtime_ns)
        for file in source_files(path)
        if not is_virtual(file) and os.path.exists(file)
        for state in [os.stat(file)]
    ]
    parts = [
        VERSION,
        conditions,
        predictor.batch_size,
        predictor.config.ignore_nodata,
        predictor.ranks.device.type,
        predictor.config.inference.model_dump(mode="json"),
        path,
        states,
        *other,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
