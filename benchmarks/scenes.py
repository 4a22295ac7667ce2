#!/usr/bin/env python
"""Share of the model's own speed that scenes are mapped at: python benchmarks/scenes.py

In one process and in turn: the model alone on tiles that lie ready in memory, and a whole scene
from its compressed GeoTIFF to its mask and road lines. The bound: 0.9 of the model's speed.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import rasterio
import torch
from affine import Affine
from prettytable import PrettyTable
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.alternating import positive
from model import build_model, list_models, model_class
from model.base import RoadModel
from utils.arguments import ArgumentParser
from utils.checkpoint import save_checkpoint
from utils.command_line import user_mistakes
from utils.config import load_config
from utils.distributed import init
from utils.predictor import Predictor
from utils.scenes.blocks import predict_blocks
from utils.scenes.predictions import Predictions
from utils.scenes.prepare import Asked, prepare, take_up
from utils.scenes.run import map_rasters

QUICKSTART = Path(__file__).resolve().parents[1] / "config" / "quickstart.yaml"


class KnownAnswer(RoadModel):
    """Takes the time of a network, and calls bright pixels road: random weights see no roads."""

    def __init__(self, network: RoadModel) -> None:
        super().__init__()
        self.network = network
        self.stride, self.min_size = network.stride, network.min_size
        self.normalisation = network.normalisation

    def forward_padded(self, image: Tensor) -> Tensor:
        return self.network.forward_padded(image).mul(0) + 10 * image.mean(dim=1, keepdim=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Map a scene in three ways by turns, and print what each costs."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("-c", "--config", default=str(QUICKSTART), help="(default config/quickstart.yaml)")
    add("--tile", type=positive, default=256, help="side in pixels (default %(default)s)")
    add(
        "--side",
        type=positive,
        default=2240,
        help="of the square scene, in pixels (default %(default)s)",
    )
    add("--rounds", type=positive, default=3, help="(default %(default)s)")
    args = parser.read(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with user_mistakes():
            predictor = build_predictor(args.config, folder, args.tile)
        image = write_scene(folder / "scene.tif", args.side)
        grid = predictor.grid(image.shape[1:])
        tiles = [grid.cut(image, place).clone() for place in grid]
        print(f"{len(tiles)} tiles of {args.tile} px, {torch.get_num_threads()} threads")
        alone(predictor, tiles[: 2 * predictor.batch_size])
        rows = []
        for number in range(1, args.rounds + 1):
            times = np.array([work() for work in turns(predictor, folder, tiles)])
            rows.append([*times[:, 0], *times[0] / times[1], *times[0] / times[2]])
            print(f"round {number} of {args.rounds} done", flush=True)
    units = ["model alone [s]", "to blocks [s]", "to roads [s]"]
    shares = [f"{end} ({clock})" for end in ("to blocks", "to roads") for clock in ("wall", "CPU")]
    table = PrettyTable(["round", *units, *shares])
    for number, row in enumerate([*rows, np.median(rows, axis=0)], 1):
        name = number if number <= len(rows) else "median"
        table.add_row([name, *(f"{value:.2f}" for value in row)])
    print(table)


def turns(
    predictor: Predictor, folder: Path, tiles: list[Tensor]
) -> list[Callable[[], tuple[float, float]]]:
    """What is compared; each call returns the seconds that it took, by the clock and of CPU."""
    works = (
        partial(alone, predictor, tiles),
        partial(blocks, predictor, folder),
        partial(whole, predictor, folder),
    )
    return [partial(seconds, work) for work in works]


def seconds(work: Callable[[], None]) -> tuple[float, float]:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    with redirect_stdout(None):
        work()
    return time.perf_counter() - wall_s, time.process_time() - cpu_s


def write_scene(path: Path, side: int) -> Tensor:
    """A compressed scene of noise with a grid of bright roads; its image."""
    image = np.random.default_rng(0).integers(20, 90, (side, side, 3), dtype=np.uint8)
    for at in range(60, side, 280):
        cv2.line(image, (at, 0), (at + side // 9, side), (235, 235, 235), 9)
        cv2.line(image, (0, at), (side, at - side // 11), (235, 235, 235), 9)
    place = {"crs": "EPSG:32611", "transform": Affine(0.5, 0, 640_000, 0, -0.5, 4_010_000)}
    tiles = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
    shape = {"height": side, "width": side, "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", **shape, **tiles, **place) as file:
        file.write(image.transpose(2, 0, 1))  # HWC -> CHW
    return torch.from_numpy(image.transpose(2, 0, 1).copy())  # HWC -> CHW


def build_predictor(config_file: str, folder: Path, tile: int) -> Predictor:
    """The config's model with random weights."""
    overrides = [f"image_size={tile}"]
    models = {"model_names": list_models(), "model_class": model_class}
    config = load_config(config_file, overrides, **models, warn=print)
    network = build_model(config.model_classname, config.model_args, load_pretrained=False)
    save_checkpoint(folder / "random.pth", {"model": {}})
    ranks = init(config.device)
    return Predictor(
        config=config,
        ranks=ranks,
        model=KnownAnswer(network).to(ranks.device).eval(),
        checkpoint=folder / "random.pth",
        epoch=0,
        threshold=0.5,
        threshold_from="default",
    )


def alone(predictor: Predictor, tiles: list[Tensor]) -> None:
    with predictor.mode():
        for _ in predictor.tile_probabilities(tiles):
            pass


def blocks(predictor: Predictor, folder: Path) -> None:
    """From the file to what the model says of it, on disk."""
    asked = Asked(folder / "blocks", None, None)
    plan, _ = prepare(predictor, asked, "scene", str(folder / "scene.tif"), "")
    take_up(plan, list(plan.files().values()), Predictions({}, {}))
    predict_blocks(predictor, [(plan, block) for block in plan.blocks])
    shutil.rmtree(folder / "blocks")


def whole(predictor: Predictor, folder: Path) -> None:
    """From the file to mask and road lines."""
    asked = Asked(folder / "out", None, None)
    status = map_rasters(predictor, asked, [("scene", str(folder / "scene.tif"))])
    assert status == 0
    shutil.rmtree(folder / "out")


if __name__ == "__main__":
    main()
