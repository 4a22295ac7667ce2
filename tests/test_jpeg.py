"""Parts of JPEG files, against Pillow's decoding of the whole."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from utils.decoding import Crop
from utils.imageio import read_image, read_label
from utils.jpeg import decode_jpeg

H, W = 150, 90
KINDS = {
    "444": {"subsampling": 0},
    "422": {"subsampling": 1},
    "420": {"subsampling": 2},
    "optimised": {"optimize": True},
    "restarts": {"restart_marker_blocks": 3},
    "progressive": {"progressive": True},
    "comment": {"comment": b"\xff\xd9 not the end \xff\xc0"},
}


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    noise = np.random.default_rng(0).uniform(0, 255, (H, W, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2) * 2 - 120
    return Image.fromarray(smooth.clip(20, 235).astype(np.uint8))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_part_is_that_of_the_whole(
    tmp_path: Path, picture: Image.Image, kind: str, data: st.DataObject
):
    path = tmp_path / f"{kind}.jpg"
    if not path.exists():
        picture.save(path, quality=92, **KINDS[kind])
    top, left = data.draw(st.integers(0, H - 1)), data.draw(st.integers(0, W - 1))
    height, width = data.draw(st.integers(1, H - top)), data.draw(st.integers(1, W - left))
    crop = Crop(top, left, height, width)
    assert (read_image(path, crop) == crop.of(np.asarray(Image.open(path)))).all()


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_colours(tmp_path: Path, picture: Image.Image, mode: str):
    path = tmp_path / "a.jpg"
    picture.convert(mode).save(path)
    image = read_image(path)
    difference = image.astype(int) - np.asarray(Image.open(path).convert("RGB"))
    assert np.abs(difference).max() <= (1 if mode == "CMYK" else 0)  # there are two roundings
    crop = Crop(5, 6, 20, 30)
    assert (read_image(path, crop) == crop.of(image)).all()


@pytest.mark.parametrize(("kind", "spared"), [("444", True), ("420", True), ("progressive", False)])
def test_what_lies_below_is_not_decoded(
    tmp_path: Path, picture: Image.Image, kind: str, spared: bool, monkeypatch
):
    picture.save(tmp_path / "a.jpg", **KINDS[kind])
    decoded, decode = [], simplejpeg.decode_jpeg

    def spy(*arguments, **options):
        decoded.append(decode(*arguments, **options))
        return decoded[-1]

    monkeypatch.setattr(simplejpeg, "decode_jpeg", spy)
    part = decode_jpeg(tmp_path / "a.jpg", (slice(30, 50), slice(10, 60)))
    assert part.shape == (20, 50, 3) and part.flags.owndata
    assert decoded[0].shape[0] == (H if not spared else 64 if kind == "444" else 80)


def test_a_lossy_mask_is_judged_as_a_whole(tmp_path: Path):
    """A part in which the compression left faint traces alone is no road."""
    mask = np.zeros((120, 80), np.uint8)
    mask[20:30] = 255
    Image.fromarray(mask).save(tmp_path / "a.jpg", quality=60)
    whole = np.asarray(Image.open(tmp_path / "a.jpg")) >= 128
    for crop in (Crop(31, 0, 40, 80), Crop(10, 5, 30, 60), Crop(0, 0, 120, 80)):
        assert (read_label(tmp_path / "a.jpg", crop) == crop.of(whole)).all()


def test_threads_do_not_share_their_memory(tmp_path: Path, picture: Image.Image):
    grey = np.asarray(picture.convert("L").resize((300, 400)))
    for number in range(8):
        pixels = np.roll(grey, 31 * number, axis=number % 2)[: 400 - 20 * number]
        Image.fromarray(pixels).save(tmp_path / f"{number}.jpg")
    paths = sorted(tmp_path.iterdir()) * 10
    crop = Crop(20, 10, 100, 120)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda path: read_image(path, crop), paths))
    for path, part in zip(paths, parts, strict=True):
        assert (part == crop.of(np.asarray(Image.open(path).convert("RGB")))).all()


def test_a_truncated_file_is_refused_even_where_the_part_is_there(
    tmp_path: Path, picture: Image.Image
):
    file = io.BytesIO()
    picture.save(file, "JPEG")
    path = tmp_path / "a.jpg"
    path.write_bytes(file.getvalue()[:-200])
    with pytest.raises(ValueError, match=r"a\.jpg: cannot be read as an image: .*truncated"):
        read_image(path, Crop(0, 0, 10, 10))
