"""Which file of a distribution is which: images, their masks, and the part they are handed out in.

Every mistake of a source folder is collected, so that one report tells all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from utils.pairing import IMAGE_SUFFIXES, LABEL_SUFFIXES, SPLITS, is_image, listed, pair_up

#: Folders below --src in which a distribution is looked for: archives unpack into one or two.
MAX_DEPTH = 3


class Source(NamedTuple):
    """A pair as its distribution has it."""

    name: str  # of the pair, once in the dataset
    image: Path
    label: Path  # a mask, or lines as GeoJSON
    part: str  # the split that it is handed out in; of SpaceNet the city


class Found(NamedTuple):
    """What a source folder holds; nothing at all when it is of another shape."""

    sources: list[Source]
    problems: list[str]  # what must be mended first
    notes: list[str]  # what is left out, and what looks incomplete


def find_deepglobe(src: Path) -> Found:
    """Flat folders of NNN_sat.jpg and NNN_mask.png; only train has masks."""

    def is_root(folder: Path) -> bool:
        inner = folder / "train"
        return _has_satellite_images(inner if inner.is_dir() else folder)

    root = _find_root(src, is_root)
    if root is None:
        return Found([], [], [])
    folder = root / "train" if (root / "train").is_dir() else root
    files = list(_images(folder))
    images = [file for file in files if file.stem.lower().endswith(IMAGE_SUFFIXES)]
    labels = [file for file in files if file.stem.lower().endswith(LABEL_SUFFIXES)]
    pairs, problems = pair_up(images, labels, str(folder), str(folder))
    if foreign := set(files) - set(images) - set(labels):
        names = listed(file.name for file in foreign)
        problems.append(f"{folder}: neither NAME_sat nor NAME_mask: {len(foreign)} ({names})")
    notes = [
        f"{root / name}: left out, images without masks: {count}"
        for name in ("valid", "test")
        if (root / name).is_dir() and (count := sum(1 for _ in _images(root / name)))
    ]
    return Found([Source(*pair, "train") for pair in pairs], problems, notes)


def find_massachusetts(src: Path) -> Found:
    """tiff/{train,val,test} with _labels beside them, or {train,valid,test}/{sat,map}."""
    shapes = (("{}", "{}_labels"), ("{}/sat", "{}/map"))
    return _find_parts(src, SPLITS, shapes)


def find_chn6(src: Path) -> Found:
    """{train,val}/{images,gt} with NAME_sat.jpg and NAME_mask.png."""
    return _find_parts(src, ("train", "val"), (("{}/images", "{}/gt"),))


def double_names(sources: list[Source]) -> list[str]:
    """A problem, when names occur in several parts: they could not stand in one split."""
    counts = Counter(source.name for source in sources)
    doubles = [name for name, count in counts.items() if count > 1]
    return [f"in more than one part: {len(doubles)} ({listed(doubles)})"] if doubles else []


def _find_parts(src: Path, parts: tuple[str, ...], shapes: tuple[tuple[str, str], ...]) -> Found:
    """Pairs of a folder for each part; a part that is missing is a problem."""

    def folders(root: Path, part: str) -> tuple[Path, Path] | None:
        for alias in (part, "valid") if part == "val" else (part,):
            for image, label in shapes:
                pair = root / image.format(alias), root / label.format(alias)
                if pair[0].is_dir() and pair[1].is_dir():
                    return pair
        return None

    root = _find_root(src, lambda folder: any(folders(folder, part) for part in parts))
    if root is None:
        return Found([], [], [])
    found = Found([], [], [])
    for part in parts:
        pair = folders(root, part)
        if pair is None:
            wanted = " or ".join(" and ".join(name.format(part) for name in s) for s in shapes)
            found.problems.append(f"{root}: no folders {wanted}")
            continue
        images, labels = pair
        pairs, problems = pair_up(_images(images), _images(labels), str(images), str(labels))
        found.sources.extend(Source(*p, part) for p in pairs)
        found.problems.extend(problems)
    return found


def _find_root(src: Path, is_root: Callable[[Path], bool]) -> Path | None:
    """The nearest folder of the shape, `src` itself or below it; tiff/ is preferred to png/."""
    level = [src]
    for _ in range(MAX_DEPTH + 1):
        for folder in level:
            if is_root(folder):
                return folder
        inner = [path for folder in level for path in folder.iterdir() if path.is_dir()]
        level = sorted(inner, key=lambda path: (path.name != "tiff", path))
    return None


def _has_satellite_images(folder: Path) -> bool:
    return any(path.stem.lower().endswith("_sat") for path in _images(folder))


def _images(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if is_image(path))
