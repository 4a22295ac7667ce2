"""`prepare_data.py deepglobe|massachusetts|spacenet|chn6`: from --src to ROOT/DATASET."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.dataset_check import in_threads, quick_problem
from utils.files import sha256
from utils.pairing import SPLITS, Pair, listed
from utils.preparation.convert import Conversion
from utils.preparation.distributions import DISTRIBUTIONS, find_sources
from utils.preparation.manifest import ROWS_FILE, Manifest, Row
from utils.preparation.sources import Source
from utils.preparation.spacenet import chip_problem
from utils.preparation.splits import assign, check_split
from utils.preparation.stretch import city_limits
from utils.stretch import PERCENTILES

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    dataset: str
    src: Path
    dst: Path  # ROOT
    split: str | None = None
    list_file: Path | None = None
    tile: int | None = None
    overlap: int = 0
    seed: int = 6
    road_width_m: float | None = None

    @property
    def folder(self) -> Path:
        return self.dst / self.dataset


def prepare_dataset(request: Request) -> int:
    """Bring a distribution into the layout; a run that was stopped goes on where it was.

    Raises ValueError with everything that is wrong with the request or the source folder. Returns
    1 when pairs could not be converted or do not belong there, each with a line, and when there
    are none to train on or to choose checkpoints on; else 0.
    """
    split = _checked(request)
    found = find_sources(request.dataset, request.src)
    for note in found.notes:
        logger.info("%s", note)
    looked_at = in_threads(_problem, found.sources, f"{request.dataset}: looking at files")
    if problems := found.problems + [problem for problem in looked_at if problem]:
        raise ValueError("\n".join(problems))
    splits = assign(found.sources, split, request.list_file, request.seed)
    sources = [source for source in found.sources if source.name in splits]
    if left_out := len(found.sources) - len(sources):
        logger.info("%d pairs are not in the list and are left out", left_out)
    manifest = Manifest(request.folder, _settings(request, split, splits))
    manifest.begin()
    try:
        rows, failed = _convert(request, sources, splits, manifest)
    except SystemExit:  # by a signal
        logger.error("%s: interrupted, the same command goes on from here", request.folder)
        raise
    strangers = manifest.strangers(rows)
    if strangers:
        logger.error("%s: of another source: %s", request.folder, listed(strangers))
    if strangers or failed:
        return 1
    manifest.finish(rows)
    counts = Counter(row.split for row in rows)
    empty = [part for part in SPLITS if not counts[part]]
    if empty:
        logger.warning("too few pairs: none for %s", " and ".join(empty))
    trainable = not {"train", "val"} & set(empty)
    _print_summary(request, split, counts, trainable=trainable)
    return 0 if trainable else 1


def _checked(request: Request) -> str:
    """The split's name. Raises ValueError with every mistake of the arguments."""
    problems = []
    if not request.src.is_dir():
        problems.append(f"--src {request.src}: no such folder")
    if request.tile is not None and request.tile < 32:
        problems.append(f"--tile {request.tile}: at least 32 pixels")
    if request.overlap and request.tile is None:
        problems.append("--overlap has no effect without --tile")
    elif request.tile and not 0 <= request.overlap < request.tile:
        problems.append(f"--overlap {request.overlap}: from 0 to below --tile {request.tile}")
    if request.seed < 0:
        problems.append(f"--seed {request.seed}: must not be negative")
    if request.road_width_m is not None and not 0 < request.road_width_m < 1000:
        problems.append(f"--road-width {request.road_width_m:g}: in metres, above 0")
    if request.list_file and not request.list_file.is_file():
        problems.append(f"--list {request.list_file}: no such file")
    if request.src.resolve() in (request.folder.resolve(), *request.folder.resolve().parents):
        problems.append(f"--dst {request.dst}: lies in --src, which must stay as it is")
    split = ""
    try:
        split = check_split(request.dataset, request.split, request.list_file)
    except ValueError as error:
        problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    return split


def _problem(source: Source) -> str | None:
    """What can be told without decoding the image."""
    if source.label.suffix.lower() == ".geojson":
        return chip_problem(source)
    return quick_problem(Pair(source.name, source.image, source.label))


def _settings(request: Request, split: str, splits: dict[str, str]) -> dict[str, Any]:
    """What decides over the dataset's content."""
    counts = Counter(splits.values())
    settings: dict[str, Any] = {
        "dataset": request.dataset,
        "split": split,
        "list_sha256": sha256(request.list_file) if request.list_file else None,
        "seed": request.seed,
        "sources": {part: counts[part] for part in SPLITS},
        "tile": request.tile,
        "overlap": request.overlap,
    }
    if request.dataset == "spacenet":
        settings |= {"road_width_m": request.road_width_m, "percentiles": list(PERCENTILES)}
    return settings


def _convert(
    request: Request, sources: Sequence[Source], splits: dict[str, str], manifest: Manifest
) -> tuple[list[Row], int]:
    """The rows of all sources that could be converted, and how many could not: a line for each."""
    conversion = Conversion(
        request.src,
        request.folder,
        request.tile,
        request.overlap,
        request.road_width_m,
        city_limits(sources) if request.dataset == "spacenet" else {},
    )

    def convert(source: Source) -> list[Row] | str:
        try:
            return conversion.convert(source, splits[source.name])
        except ValueError as error:
            return str(error)

    done = _unchanged(conversion, sources, splits, manifest)
    names = [conversion.relative(source.image) for source in sources]
    missing = [at for at, name in enumerate(names) if name not in done]
    if len(missing) < len(names):
        logger.info("%d of %d are there already", len(names) - len(missing), len(names))
    failed = 0
    results = in_threads(convert, [sources[at] for at in missing], request.dataset)
    for at, result in zip(missing, results, strict=True):
        if isinstance(result, str):
            logger.error("%s", result)
            failed += 1
        elif not result:
            logger.warning("%s: left out, no pixel has data", sources[at].image)
        else:
            manifest.add(names[at], result)
            done[names[at]] = result
    return [row for name in names for row in done.get(name, [])], failed


def _unchanged(
    conversion: Conversion, sources: Sequence[Source], splits: dict[str, str], manifest: Manifest
) -> dict[str, list[Row]]:
    """The rows, by source, that still are what a conversion would give; the others are withdrawn.

    Raises ValueError when no image is one that the folder was made from.
    """
    found = manifest.done()
    again = [source for source in sources if conversion.relative(source.image) in found]
    origins = in_threads(
        lambda source: conversion.origin(source, splits[source.name]),
        again,
        f"{manifest.folder.name}: looking for changes",
    )
    other, changed = 0, []
    for origin in origins:
        rows = found[origin["source"]]
        other += rows[0].source_sha256 != origin["source_sha256"]
        if not all(row.is_of(origin) for row in rows):
            changed.append(origin["source"])
    if found and other == len(again):
        raise ValueError(
            f"{manifest.folder}: was prepared from other images: "
            "give the --src that it is of, name another --dst, or delete the folder"
        )
    if changed:
        logger.info("%d are not as they were, and are converted anew", len(changed))
        manifest.withdraw(row for name in changed for row in found.pop(name))
    return found


def _print_summary(
    request: Request, split: str, counts: Mapping[str, int], *, trainable: bool
) -> None:
    shares = ", ".join(f"{counts[part]} {part}" for part in SPLITS)
    title = DISTRIBUTIONS[request.dataset].title
    print(f"{request.folder}: {title}, split {split}: {shares} ({ROWS_FILE})")
    print(f"look at it: python prepare_data.py check {request.folder}")
    if trainable:
        print(f"train on it: root_dir={request.dst} dataset_name={request.dataset}")
