"""What is wrong with a dataset folder, before a training finds out.

`dataset_problems` is the quick look that every training starts with; `check_dataset` decodes
everything and prints a report.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from prettytable import PrettyTable

from utils.cores import usable_cores
from utils.decoding import decode, has_end
from utils.imageio import (
    MAX_CLASSES,
    least_road_value,
    looks_like_photo,
    read_image_and_valid,
    read_label_values,
    read_size,
    road_mask,
)
from utils.pairing import SPLITS, Pair, listed, scan_split
from utils.progress import progress

logger = logging.getLogger(__name__)

#: A training decodes its labels beforehand, to find empty ones, when there are no more than this.
MAX_LABELS_DECODED = 1000
#: What is said of labels by `looks_like_photo`.
PHOTOS = "labels that look like photos, not masks"

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class PairReport:
    """What a pair holds; only `problem` when it cannot be read or does not fit together."""

    name: str
    problem: str | None = None
    height: int = 0
    width: int = 0
    valid_px: int = 0
    road_px: int = 0  # of the valid ones
    label_values: frozenset[int] = frozenset()
    least_road_value: int = 1
    label_is_photo: bool = False
    digest: str = ""  # of the decoded image


@dataclass
class Findings:
    """Of a whole dataset."""

    reports: dict[str, list[PairReport]] = field(default_factory=dict)  # by split
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def dataset_problems(
    root_dir: str | os.PathLike[str], dataset_name: str, splits: Sequence[str]
) -> None:
    """A quick look at the splits that a training needs.

    Looks at names, headers, sizes and the ends of files (TIFFs' headers only), and, up to
    MAX_LABELS_DECODED labels, for masks without road and for photos in place of masks, which are
    logged as warnings.

    Raises ValueError with everything that is wrong, a line each.
    """
    problems: list[str] = []
    sound: dict[str, list[Pair]] = {}
    for split in splits:
        pairs, found = scan_split(Path(root_dir) / dataset_name, split)
        checked = list(in_threads(quick_problem, pairs, f"{split}: looking at files"))
        problems += found + [f"{split}: {problem}" for problem in checked if problem]
        sound[split] = [pair for pair, problem in zip(pairs, checked, strict=True) if not problem]
    if sum(map(len, sound.values())) <= MAX_LABELS_DECODED:
        for split, pairs in sound.items():
            problems += _label_problems(split, pairs)
    if problems:
        hint = f"'python prepare_data.py check {Path(root_dir) / dataset_name}' looks closer"
        raise ValueError("\n".join([*problems, hint]))


def quick_problem(pair: Pair) -> str | None:
    """What headers, sizes and ends of files tell; of TIFFs the headers only."""
    sizes, problems = [], []
    for path in (pair.image, pair.label):
        try:
            sizes.append(read_size(path))
            if not has_end(path):
                decode(path)  # raises, unless there is only something behind the end
        except ValueError as error:
            problems.append(str(error))
    return "; ".join(problems) or _size_problem(pair, *sizes)


def _size_problem(pair: Pair, image: tuple[int, int], label: tuple[int, int]) -> str | None:
    if image == label:
        return None
    return (
        f"{pair.name}: the image has {image[1]} x {image[0]} px, its label {label[1]} x {label[0]}"
    )


def _label_problems(split: str, pairs: list[Pair]) -> list[str]:
    """Labels that cannot be read, and a split without any road; a few empty masks may be right."""

    empty, photos = [], []

    def look(pair: Pair) -> str | None:
        try:
            values = read_label_values(pair.label)
        except ValueError as error:
            return f"{split}: {error}"
        if not road_mask(values).any():
            empty.append(pair.name)
        if looks_like_photo(values):
            photos.append(pair.name)
        return None

    problems = list(in_threads(look, pairs, f"{split}: looking at labels"))
    if pairs and len(empty) == len(pairs):
        return [f"{split}: no mask shows any road"]
    for what, names in {"masks without road": empty, PHOTOS: photos}.items():
        if names:
            logger.warning("%s: %s: %d (%s)", split, what, len(names), listed(names))
    return [problem for problem in problems if problem]


def in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], what: str
) -> Iterator[Result]:
    """Results in order, while progress is shown; decoders, numpy and hashing run in parallel."""
    with ThreadPoolExecutor(min(16, usable_cores())) as pool:
        yield from progress(pool.map(work, items), len(items), what)


def check_dataset(folder: str | os.PathLike[str]) -> int:
    """Decode everything below `folder` (ROOT/DATASET) and print what it is and what is wrong.

    Errors: missing split folders, splits without pairs, files without a partner, unreadable
    files, images and labels of different sizes, the same image (by the SHA-256 of its decoded
    pixels) in two splits. Warnings: masks without road, images without data, labels that look like
    photos, masks of a few values of which some are not road, the same image twice in a split.

    Returns 1 when there are errors, else 0.
    """
    dataset = Path(folder)
    if not dataset.is_dir():
        print(f"{dataset}: no such folder")
        return 1
    findings = Findings()
    for split in SPLITS:
        pairs, problems = scan_split(dataset, split)
        reports = list(in_threads(examine, pairs, f"{split}: decoding"))
        problems += [f"{split}: {report.problem}" for report in reports if report.problem]
        findings.reports[split] = [report for report in reports if not report.problem]
        findings.errors += problems
        findings.warnings += _doubtful(split, findings.reports[split])
    _find_doubles(findings)
    _print_report(dataset, findings)
    return 1 if findings.errors else 0


def examine(pair: Pair) -> PairReport:
    """Decode both files of a pair."""
    contents, problems = [], []
    for read, path in ((read_image_and_valid, pair.image), (read_label_values, pair.label)):
        try:
            contents.append(read(path))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        return PairReport(pair.name, problem="; ".join(problems))
    (image, valid), values = contents
    if problem := _size_problem(pair, valid.shape, values.shape[:2]):
        return PairReport(pair.name, problem=problem)
    road = road_mask(values)
    return PairReport(
        pair.name,
        height=image.shape[0],
        width=image.shape[1],
        valid_px=int(valid.sum()),
        road_px=int(road[valid].sum()),
        label_values=frozenset(np.unique(values).tolist()),
        least_road_value=least_road_value(values),
        label_is_photo=looks_like_photo(values),
        digest=hashlib.sha256(str(image.shape).encode() + image.tobytes()).hexdigest(),
    )


def _doubtful(split: str, reports: list[PairReport]) -> list[str]:
    doubts = {
        "masks without road": [r.name for r in reports if r.valid_px and not r.road_px],
        "images without data": [r.name for r in reports if not r.valid_px],
        PHOTOS: [r.name for r in reports if r.label_is_photo],
    }
    lines = [
        f"{split}: {what}: {len(names)} ({listed(names)})"
        for what, names in doubts.items()
        if names
    ]
    classes: dict[tuple[frozenset[int], int], list[str]] = defaultdict(list)
    for report in reports:
        if report.least_road_value > 1 and len(report.label_values) <= MAX_CLASSES:
            classes[report.label_values, report.least_road_value].append(report.name)
    return lines + [
        f"{split}: labels with the values {_values(values)} are read as lossy masks, in which only "
        f"{least} and more is road: {len(names)} ({listed(names)})"
        for (values, least), names in classes.items()
    ]


def _find_doubles(findings: Findings) -> None:
    places: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for split, reports in findings.reports.items():
        for report in reports:
            if report.valid_px:
                places[report.digest].append((split, report.name))
    for same in places.values():
        names = " = ".join(f"{split}/{name}" for split, name in same)
        if len({split for split, _ in same}) > 1:
            findings.errors.append(f"the same image in different splits: {names}")
        elif len(same) > 1:
            findings.warnings.append(f"the same image more than once: {names}")


def _print_report(dataset: Path, findings: Findings) -> None:
    table = PrettyTable(
        ["split", "pairs", "smallest", "median", "largest", "road", "no data", "label values"]
    )
    for split, reports in findings.reports.items():
        table.add_row([split, *_row(reports)])
    print(dataset)
    print(table)
    for kind, lines in (("error", findings.errors), ("warning", findings.warnings)):
        for line in lines:
            print(f"{kind}: {line}")
    print(f"errors: {len(findings.errors)}, warnings: {len(findings.warnings)}")


def _row(reports: list[PairReport]) -> list[str | int]:
    """Sizes are ordered by area; the road's share is that of the pixels with data."""
    if not reports:
        return [0, *["-"] * 6]
    sizes = sorted(((r.width, r.height) for r in reports), key=lambda size: size[0] * size[1])
    picked = sizes[0], sizes[(len(sizes) - 1) // 2], sizes[-1]
    area = sum(width * height for width, height in sizes)
    valid = sum(r.valid_px for r in reports)
    road = sum(r.road_px for r in reports) / valid if valid else 0
    values = frozenset().union(*(r.label_values for r in reports))
    return [
        len(reports),
        *(f"{width} x {height}" for width, height in picked),
        f"{road:.2%}",
        f"{1 - valid / area:.2%}",
        _values(values),
    ]


def _values(values: frozenset[int]) -> str:
    if len(values) <= MAX_CLASSES:
        return ", ".join(map(str, sorted(values)))
    return f"{len(values)} from {min(values)} to {max(values)}"
