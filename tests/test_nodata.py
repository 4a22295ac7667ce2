"""Blank areas are found to the pixel or so; roofs, water and shadow are not taken for them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from utils.imageio import read_image, valid_pixels
from utils.nodata import blank_areas

SIDE = 256


@pytest.fixture(scope="module")
def ground() -> np.ndarray:
    noise = np.random.default_rng(0).uniform(0, 255, (SIDE, SIDE, 3)).astype(np.float32)
    return (cv2.GaussianBlur(noise, (0, 0), 1.5) * 3 - 250).clip(20, 230).astype(np.uint8)


def polygon(*points: tuple[int, int]) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(mask, [np.array(points)], 1)
    return mask > 0


SHAPES = {
    "side": polygon((180, 0), (256, 0), (256, 256), (170, 256)),
    "corner": polygon((200, 256), (256, 256), (256, 190)),
    "wedge": polygon((0, 0), (230, 0), (0, 30)),
    "collar": ~polygon((60, 10), (245, 60), (200, 245), (12, 200)),
    "all": np.ones((SIDE, SIDE), bool),
}


@pytest.mark.parametrize("fill", [0, 255])
@pytest.mark.parametrize("shape", SHAPES)
def test_blank_areas_are_exact_without_loss(ground: np.ndarray, shape: str, fill: int):
    image = ground.copy()
    image[SHAPES[shape]] = fill
    assert (blank_areas(image) == SHAPES[shape]).all()


@pytest.mark.parametrize(("quality", "share_missed"), [(75, 0.1), (95, 0.03)])
@pytest.mark.parametrize("fill", [0, 255])
@pytest.mark.parametrize("shape", SHAPES)
def test_blank_areas_in_jpeg(
    tmp_path: Path,
    ground: np.ndarray,
    shape: str,
    fill: int,
    quality: int,
    share_missed: float,
):
    image = ground.copy()
    blank = SHAPES[shape]
    image[blank] = fill
    Image.fromarray(image).save(tmp_path / "a.jpg", quality=quality)
    found = ~valid_pixels(tmp_path / "a.jpg")
    missed, invented = blank & ~found, found & ~blank
    assert missed.sum() <= share_missed * blank.sum() + 40
    around = cv2.dilate(blank.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert not (invented & ~around).any()
    assert invented.sum() <= 0.02 * blank.sum() + 20


def test_bright_and_dark_objects_are_ground(ground: np.ndarray):
    roof = polygon((60, 60), (160, 50), (170, 150), (70, 160))
    for value in (255, 250, 0, 4):
        image = ground.copy()
        image[roof] = value
        assert not blank_areas(image).any()
        image = ground.copy()
        image[100:150, 200:] = value  # at the border, but not at a corner
        assert not blank_areas(image).any()


@pytest.mark.parametrize("low", [3, 246])
def test_textured_water_and_roofs_at_a_corner_are_ground(ground: np.ndarray, low: int):
    image = ground.copy()
    texture = np.random.default_rng(1).integers(0, 10, (SIDE, SIDE, 3)) + low
    image[SHAPES["side"]] = np.minimum(texture, 255).astype(np.uint8)[SHAPES["side"]]
    assert not blank_areas(image).any()


def test_one_channel_at_its_end_is_ground(ground: np.ndarray):
    image = ground.copy()
    image[:, 150:] = 0, 0, 60
    image[:, :60] = 255, 255, 200
    assert not blank_areas(image).any()


def test_a_large_hole_is_blank_without_a_corner(ground: np.ndarray):
    hole = np.zeros((SIDE, SIDE), bool)
    hole[40:200, 40:200] = True
    image = ground.copy()
    image[hole] = 0
    assert (blank_areas(image) == hole).all()


def test_a_crop_sees_what_the_whole_sees(ground: np.ndarray):
    image = ground.copy()
    image[SHAPES["collar"]] = 255
    whole = blank_areas(image)
    rng = np.random.default_rng(0)
    for _ in range(100):
        y, x = rng.integers(0, SIDE - 128, 2)
        part = slice(y, y + 128), slice(x, x + 128)
        # A part of less than 256 px, or nowhere 8 px wide, is left alone.
        assert (blank_areas(image[part]) != whole[part]).sum() < 400


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (8, 8), (9, 40)])
def test_small_images(shape: tuple[int, int]):
    assert blank_areas(np.full((*shape, 3), 255, np.uint8)).all() == (shape == (9, 40))


def test_real_tiles(real_data: Path):
    folder = real_data / "massachusetts" / "train" / "image"
    partly_blank = 0
    for path in folder.iterdir():
        image = read_image(path)
        found = ~valid_pixels(image)
        white = (image >= 250).all(axis=2)
        if white.mean() > 0.1:
            partly_blank += 1
            assert abs(int(found.sum()) - int(white.sum())) < 0.01 * white.sum()
        assert (image[found] >= 240).all()  # no water, no shadow
        assert found.mean() < 0.012 or white.mean() > 0.1  # else thin wedges at the most
    assert partly_blank == 7


def test_real_roofs_and_lakes(real_data: Path):
    folder = real_data / "massachusetts"
    shops = read_image(folder / "train" / "image" / "18028870_15_0_0.jpg")
    assert (shops.min(axis=2) >= 240).sum() > 3000 and valid_pixels(shops).all()
    lake = read_image(folder / "test" / "image" / "21628930_15_516_312.jpg")
    dark = lake.max(axis=2) <= 15
    assert dark.mean() > 0.3 and valid_pixels(lake)[dark].all()
