"""The trained models that a person may choose from, each loaded once and used by one at a time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

import model as registry
from model.base import RoadModel, normalise
from utils import distributed
from utils.checkpoint import load_checkpoint
from utils.config import check_config
from utils.predict import eval_mode
from utils.predictor import Predictor, restore_predictor
from utils.runs import RUNS, best_checkpoint
from utils.tiling import Tile, TileGrid

#: Models that stay in memory; one more takes the place of that which was asked for longest ago.
MAX_LOADED = 3
#: Datasets of `prepare_data.py sample`: the README's, and that of `make demo`.
SYNTHETIC_DATASETS = ("sample", "quickstart")


class Spot(NamedTuple):
    """The tile that decides most about a pixel: its top left pixel, and the pixel within it."""

    image: Tensor  # uint8 (3, H, W)
    top: int
    left: int
    x: int
    y: int


class Models:
    """The checkpoints under logs_weights/, by the names of their runs.

    `extra` are checkpoints from elsewhere. Several threads may use this at once.
    """

    def __init__(self, *extra: Path) -> None:
        self._extra = extra
        self._loaded: OrderedDict[Path, tuple[int, Predictor]] = OrderedDict()
        self._loading, self._using = threading.Lock(), threading.Lock()

    def paths(self) -> dict[str, Path]:
        """The best checkpoint of every run, the newest first, and the extra ones before them."""
        runs = {folder.name: path for folder in RUNS.glob("*") if (path := best_checkpoint(folder))}
        newest = sorted(runs, key=lambda name: (-runs[name].stat().st_mtime, name))
        known = {path.resolve() for path in runs.values()}
        extra = {str(path): path for path in self._extra if path.resolve() not in known}
        return extra | {name: runs[name] for name in newest}

    def name_of(self, checkpoint: Path) -> str:
        """What a checkpoint, of a run or an extra one, is called here."""
        wanted = checkpoint.resolve()
        return next(name for name, path in self.paths().items() if path.resolve() == wanted)

    def default(self) -> str | None:
        """The first extra checkpoint, else the newest run; None without any."""
        return self.name_of(self._extra[0]) if self._extra else next(iter(self.paths()), None)

    def get(self, name: str) -> Predictor:
        """The model of this name; read again only when its file has changed.

        Raises ValueError for an unknown name and for a file that is no checkpoint.
        """
        path = self.paths().get(name)
        if path is None:
            raise ValueError(f"There is no model called {name!r} any more. Choose another one.")
        with self._loading:
            modified_ns = path.stat().st_mtime_ns
            known = self._loaded.get(path)
            if known is None or known[0] != modified_ns:
                self._loaded[path] = (modified_ns, _load(path))
            self._loaded.move_to_end(path)
            while len(self._loaded) > MAX_LOADED:
                self._loaded.popitem(last=False)
            return self._loaded[path][1]

    def probability(
        self,
        name: str,
        image: np.ndarray,
        after_tiles: Callable[[int, int], None] = lambda done, total: None,
    ) -> np.ndarray:
        """Road probability (H, W), float32, of an image (uint8 H W 3)."""
        predictor = self.get(name)
        with self._using:
            return predictor.probability(name, _chw(image), after_tiles)

    def anchors(self, name: str, spot: Spot) -> list:
        """The model's `anchors` of a spot's tile, finest level first, on the CPU."""
        predictor = self.get(name)
        views = spot.image[None].to(predictor.ranks.device)
        with self._using, eval_mode(predictor.model):
            levels = predictor.model.anchors(normalise(views, predictor.model.normalisation))
        return [
            level._replace(
                horizontal=level.horizontal.cpu(),
                vertical=level.vertical.cpu(),
                gate=level.gate.cpu(),
            )
            for level in levels
        ]

    def spot(self, name: str, image: np.ndarray, x: int, y: int) -> Spot:
        """The tile of an image (uint8 H W 3) in which pixel (x, y) weighs most.

        Raises ValueError for a pixel outside the image.
        """
        H, W = image.shape[:2]
        if not (0 <= x < W and 0 <= y < H):
            raise ValueError(f"pixel ({x}, {y}) is outside the image of {W} x {H} px")
        config = self.get(name).config
        grid = TileGrid(H, W, config.image_size, config.tile_overlap)

        def weight(tile: Tile) -> float:
            row, column = y - tile.top, x - tile.left
            inside = 0 <= row < grid.tile_height and 0 <= column < grid.tile_width
            return float(grid.weights(tile)[row, column]) if inside else 0.0

        best = max(grid, key=weight)
        cut = grid.cut(_chw(image), best).contiguous()
        return Spot(cut, best.top, best.left, x - best.left, y - best.top)


def has_anchors(network: RoadModel) -> bool:
    """Whether a model can show its latent anchors, as Anchor-SAM can."""
    return callable(getattr(network, "anchors", None))


def is_synthetic(predictor: Predictor) -> bool:
    """Whether a model has seen nothing but the procedural scenes, as that of the quick start."""
    return predictor.config.dataset_name in SYNTHETIC_DATASETS


def _load(path: Path) -> Predictor:
    checkpoint = load_checkpoint(path)
    config = check_config(
        checkpoint["config"],
        f"config in {path}",
        model_names=registry.list_models(),
        model_class=registry.model_class,
        warn=lambda line: None,
    )
    ranks = distributed.init(config.device)
    return restore_predictor(checkpoint, path, trained=config, config=config, ranks=ranks)


def _chw(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)  # HWC -> CHW
