"""Windows of rasters against the file read at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import Resampling

from tests.scene_files import UTM, write_scene
from utils.raster import is_photo, is_virtual, open_raster, raster_name, read_window


def noise(shape: tuple[int, ...], high: int, dtype: str, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, high, shape).astype(dtype)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A picture of 8 bit with gaps, its values, and a fine one without."""
    made = tmp_path_factory.mktemp("rasters")
    bands = noise((3, 150, 210), 255, "uint8")
    bands[:, 40:70, 30:90] = 0
    write_scene(made / "gaps.tif", bands, **UTM, nodata=0)
    return made


windows = st.tuples(st.integers(0, 60), st.integers(0, 90), st.integers(1, 90), st.integers(1, 120))


@given(windows)
@settings(max_examples=12, deadline=None)
def test_windows_are_parts_of_the_whole(folder, window) -> None:
    raster, notes = open_raster(str(folder / "gaps.tif"))
    top, left, height, width = window
    image, valid = read_window(raster, *window)
    with rasterio.open(folder / "gaps.tif") as file:
        whole = file.read()[:, top : top + height, left : left + width]
    np.testing.assert_array_equal(image, whole)
    np.testing.assert_array_equal(valid, whole.any(axis=0))
    assert not notes and raster.pixel_size_m == pytest.approx(0.5)


@given(st.sampled_from([0.31, 1.0, 1.37]), windows)
@settings(max_examples=12, deadline=None)
def test_resampled_windows_fit_together(folder, gsd, window) -> None:
    raster, _ = open_raster(str(folder / "gaps.tif"), gsd=gsd)
    H, W = raster.grid_shape
    assert (round(150 * 0.5 / gsd), round(210 * 0.5 / gsd)) == (H, W)
    top, left = min(window[0], H - 1), min(window[1], W - 1)
    height, width = min(window[2], H - top), min(window[3], W - left)
    image, valid = read_window(raster, top, left, height, width)
    whole, all_valid = read_window(raster, 0, 0, H, W)
    rows, columns = slice(top, top + height), slice(left, left + width)
    np.testing.assert_array_equal(valid, all_valid[rows, columns])
    assert np.abs(image.astype(int) - whole[:, rows, columns]).max() <= 1
    corner = raster.grid_transform * (W, H)
    np.testing.assert_allclose(corner, UTM["transform"] * (210, 150))


def test_halving_is_the_mean_of_four(tmp_path) -> None:
    fine = np.kron(noise((3, 20, 30), 250, "uint8"), np.ones((2, 2), np.uint8))
    write_scene(tmp_path / "fine.tif", fine, **UTM)
    raster, _ = open_raster(str(tmp_path / "fine.tif"), gsd=1.0)
    smooth = read_window(raster, 0, 0, 20, 30)[0].astype(float)
    with rasterio.open(tmp_path / "fine.tif") as file:
        mean = file.read(out_shape=(3, 20, 30), resampling=Resampling.average).astype(float)
    assert np.corrcoef(smooth.ravel(), mean.ravel())[0, 1] > 0.9
    assert smooth.mean() == pytest.approx(mean.mean(), rel=0.01)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_other_types_are_stretched_by_the_whole_scene(tmp_path, dtype) -> None:
    values = noise((3, 90, 80), 3000, "int64").astype(dtype)
    values[:, :30] = -1 if dtype == "int16" else 0
    path = str(tmp_path / "deep.tif")
    write_scene(path, values, **UTM, nodata=-1 if dtype == "int16" else 0)
    raster, _ = open_raster(path, bands=(3, 1, 2))
    image, valid = read_window(raster, 20, 10, 60, 50)
    assert not valid[:10].any() and valid[10:].all()
    for band, source in enumerate((2, 0, 1)):
        low, high = np.percentile(values[source, 30:], (2, 98))
        part = values[source, 20:80, 10:60].astype(float)
        wanted = np.rint(1 + 254 * ((part - low) / (high - low)).clip(0, 1))
        wanted[:10] = 0
        assert np.abs(image[band] - wanted).max() <= 1
        assert image[band, 10:].min() == 1 and image[band].max() == 255


def test_the_stretch_looks_at_overviews_or_patches(tmp_path) -> None:
    ramp = np.linspace(100, 4000, 2200 * 2200).reshape(1, 2200, 2200).astype(np.uint16)
    path = str(tmp_path / "large.tif")
    write_scene(path, ramp, **UTM)
    patches = open_raster(path)[0].limits[0]
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], Resampling.nearest)
    overviews = open_raster(path)[0].limits[0]
    exact = np.percentile(ramp, (2, 98))
    np.testing.assert_allclose(overviews, exact, rtol=0.02)
    np.testing.assert_allclose(patches, exact, rtol=0.2)


def test_palettes_are_looked_up(tmp_path) -> None:
    indices = noise((1, 40, 50), 3, "uint8")
    write_scene(tmp_path / "palette.tif", indices, **UTM)
    with rasterio.open(tmp_path / "palette.tif", "r+") as file:
        file.write_colormap(1, {1: (200, 10, 20, 255), 2: (1, 2, 3, 255)})
    raster, notes = open_raster(str(tmp_path / "palette.tif"))
    image, _ = read_window(raster, 5, 0, 35, 50)
    colours = np.array([(0, 0, 0), (200, 10, 20), (1, 2, 3)])
    np.testing.assert_array_equal(image.transpose(1, 2, 0), colours[indices[0, 5:]])
    assert not notes


def test_photos_and_scenes_are_told_apart(tmp_path) -> None:
    picture = noise((3, 20, 30), 255, "uint8")
    plain = {"tiled": None, "blockxsize": None, "blockysize": None, "compress": None}
    write_scene(tmp_path / "a.png", picture, **plain | {"driver": "PNG"})
    write_scene(tmp_path / "b.jpg", picture, **plain | {"driver": "JPEG"})
    write_scene(tmp_path / "c.jpg", picture, **plain | {"driver": "JPEG"})
    (tmp_path / "c.jgw").write_text("0.5\n0\n0\n-0.5\n640000\n4010000\n")
    write_scene(tmp_path / "d.tif", picture)
    found = {path.name: is_photo(str(path)) for path in sorted(tmp_path.glob("*.[pjt][npi][gf]"))}
    assert found == {"a.png": True, "b.jpg": True, "c.jpg": False, "d.tif": False}
    data = (tmp_path / "c.jpg").read_bytes()
    (tmp_path / "c.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"c\.jpg: is truncated"):
        open_raster(str(tmp_path / "c.jpg"))


def test_names_of_places() -> None:
    address = "/vsicurl/https://example.org/a/scene_7.tif?token=x.y"
    assert is_virtual(address) and raster_name(address) == "scene_7"
    assert is_virtual("s3://bucket/b.tif") and not is_virtual("data/b.tif")
