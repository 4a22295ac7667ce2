"""A prediction and its truth, found by stem and brought to one place on the ground."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.command_line import refuse
from utils.metrics import IGNORE
from utils.pairing import IMAGE_SUFFIXES, LABEL_SUFFIXES, listed
from utils.topology.connect import JoinRule
from utils.topology.crs import to_crs
from utils.topology.from_mask import mask_to_graph
from utils.topology.from_vector import CentreLines, lines_to_graph
from utils.topology.graph import RoadGraph, graph_from_lines
from utils.topology.inputs import RASTERS, VECTORS, Given, Raster, read_given

#: What a stem may end in, and what is no part of the pair's name.
SUFFIXES = (*IMAGE_SUFFIXES, *LABEL_SUFFIXES, "_pred", "_prob", "_graph")


class PairPaths(NamedTuple):
    name: str
    prediction: Path
    truth: Path


def find_pair_paths(prediction: Path, truth: Path) -> tuple[list[PairPaths], list[str]]:
    """The pairs of two files, or of two folders by stem, and a line for each lonely file.

    Raises ValueError when a path does not exist, or only one is a folder.
    """
    paths = (prediction, truth)
    refuse([f"{path}: no such file or folder" for path in paths if not path.exists()])
    if prediction.is_dir() != truth.is_dir():
        raise ValueError("--pred and --gt must be two files or two folders")
    if not prediction.is_dir():
        return [PairPaths(_name(prediction), prediction, truth)], []
    predictions, problems = _by_name(prediction)
    truths, more_problems = _by_name(truth)
    problems += more_problems
    problems += [f"{predictions[n].name}: no truth of that stem in {truth}"
                 for n in sorted(predictions.keys() - truths.keys())]  # fmt: skip
    problems += [f"{truths[n].name}: no prediction of that stem in {prediction}"
                 for n in sorted(truths.keys() - predictions.keys())]  # fmt: skip
    names = sorted(predictions.keys() & truths.keys())
    return [PairPaths(name, predictions[name], truths[name]) for name in names], problems


def _by_name(folder: Path) -> tuple[dict[str, Path], list[str]]:
    found = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in (*RASTERS, *VECTORS) and not path.name.startswith("."):
            found[_name(path)].append(path)
    doubles = [f"{name}: several files of one stem in {folder}: {listed(p.name for p in paths)}"
               for name, paths in found.items() if len(paths) > 1]  # fmt: skip
    return {name: paths[0] for name, paths in found.items() if len(paths) == 1}, doubles


def _name(path: Path) -> str:
    stem = path.stem
    for suffix in SUFFIXES:
        if stem.lower().endswith(suffix) and len(stem) > len(suffix):
            return stem[: -len(suffix)]
    return stem


@dataclass(frozen=True)
class GivenPair:
    """A prediction and a truth in one CRS (None: pixels times the pixel size)."""

    prediction: Given
    truth: Given
    pixel_size_m: float
    target_crs: str | None

    @classmethod
    def read(cls, paths: PairPaths, pixel_size_m: float) -> GivenPair:
        """Both sides read and checked; ValueError, in a line, for what is wrong with them.

        A raster without a place on the ground takes that of the other side's raster. The truth
        decides over the common metric CRS.
        """
        prediction = _read(paths.prediction, truth=False)
        truth = _read(paths.truth, truth=True)
        if isinstance(prediction, Raster) and isinstance(truth, Raster):
            prediction, truth = _same_ground(prediction, truth)
        if (prediction.crs is None) != (truth.crs is None):
            raise ValueError(
                f"mixed CRS: the prediction has {prediction.crs or 'none'}, "
                f"the truth {truth.crs or 'none'}"
            )
        pair = cls(prediction, truth, pixel_size_m, _common_crs(prediction, truth))
        raster = next((s for s in (truth, prediction) if isinstance(s, Raster)), None)
        if raster is not None:
            grid = raster.grid(pixel_size_m, pair.target_crs)
            pair = replace(pair, pixel_size_m=grid.pixel_size_m)
        return pair

    @property
    def has_masks(self) -> bool:
        return isinstance(self.prediction, Raster) and isinstance(self.truth, Raster)

    @property
    def has_raster(self) -> bool:
        return isinstance(self.prediction, Raster) or isinstance(self.truth, Raster)

    def photos(self) -> tuple[str, ...]:
        """The sides, "prediction" and "truth", whose raster looks like a photo."""
        sides = {"prediction": self.prediction, "truth": self.truth}
        return tuple(
            name
            for name, given in sides.items()
            if isinstance(given, Raster) and given.looks_like_photo
        )

    def probability(self) -> np.ndarray:
        """The prediction as float32 H x W; of a mask 0 and 1."""
        return self.prediction.values.astype(np.float32)

    def predicted_mask(self, threshold: float) -> np.ndarray:
        return _road(self.prediction, threshold)

    def target(self) -> np.ndarray:
        """The truth as uint8 H x W: 0, 1, and 255 where either side has no data."""
        valid = self.truth.valid & self.prediction.valid
        return np.where(valid, self.truth.values, IGNORE).astype(np.uint8)

    def truth_graph(self) -> RoadGraph:
        return self._graph(self.truth, 0.5)

    def predicted_graph(self, threshold: float, join: JoinRule | None = None) -> RoadGraph:
        """The graph of the prediction; `join` closes the gaps of a raster's."""
        if join and not isinstance(self.prediction, Raster):
            raise ValueError("--connect needs a mask or a probability map as prediction")
        return self._graph(self.prediction, threshold, join)

    def _graph(self, given: Given, threshold: float, join: JoinRule | None = None) -> RoadGraph:
        if isinstance(given, CentreLines):
            return lines_to_graph(given, self.target_crs)
        if isinstance(given, RoadGraph):
            return _reprojected(given, self.target_crs)
        road = _road(given, threshold)
        if self.has_masks:
            road &= self.target() != IGNORE
        return mask_to_graph(
            road,
            self.pixel_size_m,
            join=join,
            probability=given.values if given.is_probability else None,
            transform=given.transform,
            crs=given.crs,
            target_crs=self.target_crs,
        )


def _read(path: Path, *, truth: bool) -> Given:
    try:
        return read_given(path, truth=truth)
    except ValueError as error:
        message = str(error).removeprefix(f"{path}: ")
        raise ValueError(f"{path}: {message}") from None


def _same_ground(prediction: Raster, truth: Raster) -> tuple[Raster, Raster]:
    if prediction.values.shape != truth.values.shape:
        sizes = " and ".join(
            " x ".join(map(str, side.values.shape)) for side in (prediction, truth)
        )
        raise ValueError(f"masks of different sizes: {sizes} (prediction and truth)")
    if prediction.crs is None:
        return replace(prediction, transform=truth.transform, crs=truth.crs), truth
    if truth.crs is None:
        return prediction, replace(truth, transform=prediction.transform, crs=prediction.crs)
    return prediction, truth


def _common_crs(prediction: Given, truth: Given) -> str | None:
    """The truth's metric CRS; the prediction's when the truth has no line to lie anywhere."""
    for given in (truth, prediction):
        if isinstance(given, Raster):
            return given.grid(1.0).target_crs
        if isinstance(given, RoadGraph) or len(given.lines):
            return given.crs if isinstance(given, RoadGraph) else given.metric_crs()
    return truth.crs


def _road(raster: Raster, threshold: float) -> np.ndarray:
    if raster.is_probability:
        return raster.values >= np.float32(threshold)
    return raster.values.copy()


def _reprojected(graph: RoadGraph, target_crs: str | None) -> RoadGraph:
    if graph.crs == target_crs:
        return graph
    lines = (to_crs(edge.line, graph.crs, target_crs) for edge in graph.edges)
    return graph_from_lines(lines, target_crs)
