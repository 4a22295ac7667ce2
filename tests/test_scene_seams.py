"""Scenes by a network that looks around: neither blocks nor the edges of tiles may show."""

from __future__ import annotations

import numpy as np
import rasterio
import torch

import inference
from model.base import normalise
from tests.scene_files import UTM, write_scene
from tests.tiny_net import TinyNet
from tests.tiny_run import RUN, enter_workplace, save_run
from utils.predict import predict
from utils.scenes import prepare

TILE, STEP, OVERLAP = 64, 40, 0.375
#: How far TinyNet looks: its own patch of 4 px, one beside it, and one more for the enlargement.
REACH_PX = 12


def far_from_edges(length: int) -> np.ndarray:
    """Which pixels of an axis lie too deep in each of their tiles to see where it ends."""
    deep, last = np.ones(length, bool), length - TILE
    for start in [*range(0, last, STEP), last]:
        if start > 0:
            deep[start : start + REACH_PX] = False
        if start < last:
            deep[start + TILE - REACH_PX : start + TILE] = False
    return deep


def test_blocks_and_tiles_do_not_show(tmp_path, monkeypatch):
    enter_workplace(tmp_path, monkeypatch, tmp_path)
    monkeypatch.setattr(prepare, "BLOCK_PX", 150)
    torch.manual_seed(3)
    network = TinyNet(dim=4).eval()
    ground = np.random.default_rng(1).integers(0, 256, (3, 312, 268), dtype=np.uint8)
    image = torch.from_numpy(ground)
    with torch.no_grad():
        network.head.weight.mul_(60)  # clear answers, half of them road
        network.head.bias -= network(normalise(image[None], network.normalisation)).median()
    save_run(RUN / "best_f1score.pth", seed=0, model=network.state_dict())
    write_scene("noise.tif", ground, **UTM)
    options = ["inference.save_prob_map=true", "inference.save_roads=false"]
    assert (
        inference.main(
            ["--input", "noise.tif", "--output", "out", *options, f"tile_overlap={OVERLAP}"]
        )
        == 0
    )
    with rasterio.open("out/prob/noise.tif") as prob, rasterio.open("out/mask/noise.tif") as mask:
        found, road = prob.read(1) / 254, mask.read(1)

    whole = predict(network, image, tile=TILE, overlap=OVERLAP, batch_size=2, device="cpu")
    np.testing.assert_allclose(found, whole, atol=0.51 / 254)
    clear = np.abs(whole - 0.5) > 1e-4
    np.testing.assert_array_equal(road[clear], whole[clear] > 0.5)

    with torch.inference_mode():
        untiled = network(normalise(image[None], network.normalisation))[0, 0].sigmoid().numpy()
    deep = far_from_edges(312)[:, None] & far_from_edges(268)
    np.testing.assert_allclose(found[deep], untiled[deep], atol=0.51 / 254)
    assert 0.4 < road.mean() < 0.6 and np.abs(found - untiled)[~deep].max() > 0.05
