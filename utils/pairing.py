"""Which image belongs to which label: ROOT/DATASET/{train,val,test}/{image,label}."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from utils.config import nearest

SPLITS = ("train", "val", "test")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".tif", ".tiff")  # in upper case too
#: What a stem may end in, and what is no part of the pair's name.
IMAGE_SUFFIXES = ("_sat", "_image", "_img")
LABEL_SUFFIXES = ("_mask", "_label", "_gt")
#: Names of a kind that a message shows before it only counts.
MAX_NAMES = 20


class Pair(NamedTuple):
    """An image and its label."""

    name: str  # the stem that image and label share
    image: Path
    label: Path


def find_pairs(root_dir: str | os.PathLike[str], dataset_name: str, split: str) -> list[Pair]:
    """The pairs of a split, sorted by name.

    An image and a label are a pair when their stems are the same, after a suffix of
    IMAGE_SUFFIXES or LABEL_SUFFIXES is taken off; the extensions may differ. Hidden files and
    files with other extensions are passed over.

    Raises ValueError with everything that is wrong: missing folders, no pairs, files without a
    partner, stems that occur twice.
    """
    pairs, problems = scan_split(Path(root_dir) / dataset_name, split)
    if problems:
        raise ValueError("\n".join(problems))
    return pairs


def find_images(
    path: str | os.PathLike[str], extensions: Iterable[str] = EXTENSIONS
) -> list[tuple[str, Path]]:
    """Names and paths of one image, or of a folder's (not of its folders'), sorted.

    Of a folder files with these extensions are taken; one that is named may have any. The name
    is the stem, or the whole file name where stems are equal. Raises ValueError when there is
    nothing.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    if not path.is_dir():
        return [(path.stem, path)]
    files = sorted(file for file in path.iterdir() if is_image(file, extensions))
    if not files:
        raise ValueError(f"{path}: no images in this folder (looked for {', '.join(extensions)})")
    stems = Counter(file.stem for file in files)
    return [(file.stem if stems[file.stem] == 1 else file.name, file) for file in files]


def is_image(path: Path, extensions: Iterable[str] = EXTENSIONS) -> bool:
    """By its name, and not hidden."""
    return path.suffix.lower() in extensions and not path.name.startswith(".")


def scan_split(dataset: Path, split: str) -> tuple[list[Pair], list[str]]:
    """The pairs that there are, and what is wrong, a line each."""
    folders = dataset / split / "image", dataset / split / "label"
    missing = [folder for folder in folders if not folder.is_dir()]
    if missing:
        looked_for = " and ".join(str(folder.absolute()) for folder in missing)
        return [], [
            f"{split}: no folder {looked_for}{_neighbour(dataset)}. A dataset is "
            "ROOT/DATASET/{train,val,test}/{image,label}, with root_dir and dataset_name of the "
            "config as ROOT and DATASET; 'python prepare_data.py sample --dst ROOT/DATASET' writes "
            "one to start with"
        ]
    images, labels = ([path for path in folder.iterdir() if is_image(path)] for folder in folders)
    pairs, problems = pair_up(images, labels, f"{split}/image", f"{split}/label")
    if not images and not labels:
        problems.append(
            f"{split}: no images in {folders[0].absolute()} (looked for {', '.join(EXTENSIONS)})"
        )
    return pairs, problems


def _neighbour(dataset: Path) -> str:
    """The folder beside a missing dataset that may have been meant."""
    if dataset.is_dir() or not dataset.parent.is_dir():
        return ""
    name = nearest(dataset.name, [path.name for path in dataset.parent.iterdir() if path.is_dir()])
    return f" (there is {dataset.parent / name}: dataset_name={name}?)" if name else ""


def pair_up(
    images: Iterable[Path], labels: Iterable[Path], image_place: str, label_place: str
) -> tuple[list[Pair], list[str]]:
    """The pairs of two lists of files, by name, and what is wrong, a line each."""
    image_of, double_images = _by_stem(images, IMAGE_SUFFIXES)
    label_of, double_labels = _by_stem(labels, LABEL_SUFFIXES)
    problems = []
    if double_images:
        problems.append(f"{image_place}: several images of one name: {listed(double_images)}")
    if double_labels:
        problems.append(f"{label_place}: several labels of one name: {listed(double_labels)}")
    if lonely := image_of.keys() - label_of.keys():
        names = listed(image_of[name].name for name in lonely)
        problems.append(f"{image_place}: without a label: {len(lonely)} ({names})")
    if lonely := label_of.keys() - image_of.keys():
        names = listed(label_of[name].name for name in lonely)
        problems.append(f"{label_place}: without an image: {len(lonely)} ({names})")
    names = sorted(image_of.keys() & label_of.keys())
    return [Pair(name, image_of[name], label_of[name]) for name in names], problems


def _by_stem(files: Iterable[Path], suffixes: tuple[str, ...]) -> tuple[dict[str, Path], list[str]]:
    """Files by the pair's name, and those that share a name with another."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(files):
        found[pair_name(path.stem, suffixes)].append(path)
    doubles = [" = ".join(path.name for path in paths) for paths in found.values() if paths[1:]]
    return {name: paths[0] for name, paths in found.items()}, doubles


def pair_name(stem: str, suffixes: tuple[str, ...]) -> str:
    """The stem without the first of the suffixes that it ends in."""
    for suffix in suffixes:
        if stem.lower().endswith(suffix) and len(stem) > len(suffix):
            return stem[: -len(suffix)]
    return stem


def listed(names: Iterable[str]) -> str:
    """Names in order, separated by commas, the first MAX_NAMES of them."""
    names = sorted(names)
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more
