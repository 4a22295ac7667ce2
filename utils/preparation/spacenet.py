"""SpaceNet 3 and 5: which chip and which lines belong together, by both releases' names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import rasterio

from utils.decoding import read_header
from utils.pairing import listed
from utils.preparation.lines import read_lines
from utils.preparation.sources import Found, Source

_IMAGES = ("ps-rgb", "rgb-pansharpen")
_LINES = ("geojson_roads", "spacenetroads", "geojson_roads_speed", "")  # the first found is taken
_KEY = re.compile(r"(AOI_\d+_[A-Za-z]+).*?((?:img|chip)\d+)")


def find_spacenet(src: Path) -> Found:
    """Chips of any number of cities below `src`, with their lines."""
    images, nameless = _by_key(
        path
        for path in sorted([*src.rglob("*.tif"), *src.rglob("*.tiff")])
        if any(kind in _place(path, src) for kind in _IMAGES)
    )
    every_line, nameless_lines = _by_key(
        path for path in sorted(src.rglob("*.geojson")) if "building" not in _place(path, src)
    )
    lines = {key: _preferred(paths) for key, paths in every_line.items()}
    found = Found([], [], [])
    without = []
    for key, paths in images.items():
        if len(paths) > 1:
            names = listed(str(path.relative_to(src)) for path in paths)
            found.problems.append(f"{src}: several images of {key}: {names}")
        elif key not in lines:
            without.append(paths[0])
        else:
            city = _KEY.match(key)[1]
            found.sources.append(Source(key, paths[0], lines[key], city))
    tests = [path for path in without if "test" in _place(path, src)]
    if tests:
        found.notes.append(f"{src}: left out, test chips without lines: {len(tests)}")
    if missing := listed(path.name for path in without if path not in tests):
        found.problems.append(f"{src}: images without lines: {missing}")
    if lonely := listed(lines[key].name for key in lines.keys() - images.keys()):
        found.problems.append(f"{src}: lines without an image: {lonely}")
    if nameless or nameless_lines:
        names = listed(path.name for path in nameless + nameless_lines)
        found.problems.append(f"{src}: no AOI_N_City and imgN in the names of: {names}")
    return found


def chip_problem(source: Source) -> str | None:
    """What headers and lines tell before anything is drawn."""
    problems = []
    try:
        read_header(source.image)
        with rasterio.open(source.image) as chip:
            if chip.crs is None:
                problems.append(f"{source.image}: no coordinate reference system to place lines by")
            if chip.count < 3:
                problems.append(f"{source.image}: {chip.count} bands, expected three or more")
    except ValueError as error:
        problems.append(str(error))
    try:
        read_lines(source.label)
    except ValueError as error:
        problems.append(str(error))
    return "\n".join(problems) or None


def _by_key(paths: Iterable[Path]) -> tuple[dict[str, list[Path]], list[Path]]:
    """Files by chip (AOI_2_Vegas_img7), and those whose names tell none."""
    found: dict[str, list[Path]] = defaultdict(list)
    nameless = []
    for path in paths:
        match = _KEY.search(path.stem)
        if match:
            found[f"{match[1]}_{match[2]}"].append(path)
        else:
            nameless.append(path)
    return dict(sorted(found.items())), nameless


def _preferred(paths: list[Path]) -> Path:
    """Of several files of lines the plain ones: the others repeat them with speeds."""

    def rank(path: Path) -> int:
        return next(i for i, kind in enumerate(_LINES) if kind in (path.parent.name, ""))

    return min(paths, key=rank)


def _place(path: Path, src: Path) -> str:
    return str(path.relative_to(src)).lower()
