"""The datasets that prepare_data.py knows, by the names that it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from utils.pairing import listed
from utils.preparation.sources import (
    Found,
    double_names,
    find_chn6,
    find_deepglobe,
    find_massachusetts,
)
from utils.preparation.spacenet import find_spacenet

_ARCHIVES = (".zip", ".gz", ".tar", ".tgz")


class Distribution(NamedTuple):
    """A dataset as its authors hand it out."""

    title: str
    shape: str  # of its folders, for messages
    find: Callable[[Path], Found]
    splits: tuple[str, ...]  # what --split takes, the default first
    sizes: Mapping[str, int] = {}  # pairs of each part, where that is fixed


#: "academic" is the split that papers compare on; elsewhere it is the official one.
DISTRIBUTIONS: dict[str, Distribution] = {
    "deepglobe": Distribution(
        title="DeepGlobe roads",
        shape="train/ with NAME_sat.jpg and NAME_mask.png",
        find=find_deepglobe,
        splits=("academic", "ratio"),
        sizes={"train": 6226},
    ),
    "massachusetts": Distribution(
        title="Massachusetts roads",
        shape="tiff/ with train, train_labels, val, val_labels, test and test_labels, "
        "or train/sat, train/map and so on",
        find=find_massachusetts,
        splits=("official", "academic", "ratio"),
        sizes={"train": 1108, "val": 14, "test": 49},
    ),
    "spacenet": Distribution(
        title="SpaceNet roads",
        shape="AOI_N_City/PS-RGB/*.tif with AOI_N_City/geojson_roads/*.geojson, "
        "or RGB-PanSharpen and geojson/spacenetroads",
        find=find_spacenet,
        splits=("ratio",),
    ),
    "chn6": Distribution(
        title="CHN6-CUG",
        shape="train/images, train/gt, val/images and val/gt",
        find=find_chn6,
        splits=("official", "academic", "ratio"),
        sizes={"train": 3608, "val": 903},
    ),
}


def find_sources(dataset: str, src: Path) -> Found:
    """What `src` holds of a dataset, with a problem where that is nothing."""
    distribution = DISTRIBUTIONS[dataset]
    found = distribution.find(src)
    found.problems.extend(double_names(found.sources))
    if not found.sources and not found.problems:
        archives = [path.name for path in src.iterdir() if path.suffix in _ARCHIVES]
        hint = f"; unpack first: {listed(archives)}" if archives else ""
        found.problems.append(
            f"{src}: no {distribution.title} here, expected {distribution.shape}{hint}"
        )
    counts = Counter(source.part for source in found.sources)
    found.notes.extend(
        f"{part}: {counts[part]} pairs, the whole distribution has {size}"
        for part, size in distribution.sizes.items()
        if found.sources and counts[part] != size
    )
    return found
