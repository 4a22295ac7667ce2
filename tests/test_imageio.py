"""Every kind of file that an image or a label may be, against Pillow and plain numpy."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from utils.decoding import Crop
from utils.imageio import (
    read_image,
    read_image_and_valid,
    read_label,
    read_size,
    valid_pixels,
)

H, W = 40, 56


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    """Smooth enough for JPEG, nowhere black or white."""
    noise = np.random.default_rng(0).uniform(0, 255, (H, W, 3)).astype(np.float32)
    return (cv2.GaussianBlur(noise, (0, 0), 3) * 1.5 - 60).clip(20, 235).astype(np.uint8)


@pytest.fixture(scope="module")
def road() -> np.ndarray:
    mask = np.zeros((H, W), np.uint8)
    mask[10:14] = mask[:, 20:25] = 1
    return mask


def write_tiff(path: Path, bands: np.ndarray, **options) -> Path:
    """bands: C H W."""
    profile = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
    colours = options.pop("colorinterp", None)
    with rasterio.open(
        path, "w", driver="GTiff", dtype=bands.dtype, **profile, **options
    ) as target:
        target.write(bands)
        if colours:
            target.colorinterp = colours
    return path


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.tif", "a.tiff", "b.jpg", "b.JPEG"])
def test_8_bit_rgb(tmp_path: Path, rgb: np.ndarray, name: str):
    Image.fromarray(rgb).save(tmp_path / name, quality=95)
    image = read_image(tmp_path / name)
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    assert (image == np.asarray(Image.open(tmp_path / name))).all()
    assert read_size(tmp_path / name) == (H, W)


@pytest.mark.parametrize("extension", [".png", ".tif"])
@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1"])
def test_other_modes(tmp_path: Path, rgb: np.ndarray, mode: str, extension: str):
    path = tmp_path / f"a{extension}"
    picture = Image.fromarray(rgb)
    if mode in ("LA", "RGBA"):
        picture.putalpha(Image.fromarray(np.arange(W, dtype=np.uint8)[None].repeat(H, 0)))
    picture.convert(mode).save(path)
    expected = np.asarray(Image.open(path).convert("RGB"))
    image, valid = read_image_and_valid(path)
    assert (image == expected).all()
    assert valid[:, 1:].all()
    assert valid[:, 0].all() == (mode not in ("LA", "RGBA"))  # alpha is 0 in the first column
    assert valid[:, 0].any() == (mode not in ("LA", "RGBA"))


def test_transparent_palette_entry(tmp_path: Path, rgb: np.ndarray):
    palette = Image.fromarray(rgb).quantize(8)
    palette.save(tmp_path / "a.png", transparency=3)
    assert (read_image(tmp_path / "a.png") == np.asarray(palette.convert("RGB"))).all()
    assert (valid_pixels(tmp_path / "a.png") == (np.asarray(palette) != 3)).all()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_of_grey_fill_the_range(tmp_path: Path, bits: int):
    grey = np.random.default_rng(0).integers(0, 2**bits, (H, W), dtype=np.uint8)
    full = grey * (255 // (2**bits - 1))
    cv2_like = Image.fromarray(full).convert("L")
    cv2_like.save(tmp_path / "a.png", bits=bits)
    write_tiff(tmp_path / "a.tif", grey[None], nbits=bits)
    assert (read_image(tmp_path / "a.tif") == full[..., None]).all()
    palette = Image.fromarray(grey, "P")
    palette.putpalette([value for step in range(2**bits) for value in (step, 9, 200)])
    palette.save(tmp_path / "p.png", bits=bits)
    assert (read_image(tmp_path / "p.png") == np.asarray(palette.convert("RGB"))).all()


@pytest.mark.parametrize("bits", [8, 10, 11, 12, 14, 16])
@pytest.mark.parametrize("extension", [".png", ".tif"])
def test_16_bits_are_scaled_by_the_sensor_s_range(tmp_path: Path, bits: int, extension: str):
    full = 2**bits - 1
    values = np.random.default_rng(bits).integers(0, full + 1, (H, W, 3), dtype=np.uint16)
    values[0, 0] = 0, full, (full + 1) // 2
    path = tmp_path / f"a{extension}"
    if extension == ".png":
        assert cv2.imwrite(str(path), values[..., ::-1])
    else:
        write_tiff(path, values.transpose(2, 0, 1))
    image = read_image(path)
    exact = values * (255 / full)
    assert np.abs(image - exact).max() <= 0.5 + 0.5 * (exact < 0.5).any()
    assert ((image == 0) == (values == 0)).all()  # only nothing is nothing
    assert image[0, 0].tolist() == [0, 255, 128]


def test_16_bit_grey(tmp_path: Path):
    values = np.linspace(0, 65535, H * W).reshape(H, W).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.shape == (H, W, 3) and np.abs(image[..., 1] - values / 257).max() <= 1


def test_floats_in_0_1_and_no_others(tmp_path: Path, rgb: np.ndarray):
    bands = (rgb.transpose(2, 0, 1) / 255).astype(np.float32)
    bands[:, 3, 4] = np.nan
    image, valid = read_image_and_valid(write_tiff(tmp_path / "a.tif", bands))
    expected = rgb.copy()
    expected[3, 4] = 0
    assert (image == expected).all()
    assert not valid[3, 4] and valid.sum() == H * W - 1
    path = write_tiff(tmp_path / "b.tif", bands * 255)
    with pytest.raises(ValueError, match=r"b\.tif: float values from .*in \[0, 1\]"):
        read_image(path)


def test_integers_out_of_range(tmp_path: Path):
    values = np.full((1, H, W), 70000, np.uint32)
    with pytest.raises(ValueError, match=r"from 0 to 70000; integers must lie in \[0, 65535\]"):
        read_image(write_tiff(tmp_path / "a.tif", values))
    with pytest.raises(ValueError, match="from -1 to 0"):
        read_image(write_tiff(tmp_path / "b.tif", np.full((1, H, W), -1, np.int16)))


def test_more_than_four_bands(tmp_path: Path, rgb: np.ndarray):
    more = np.concatenate([rgb.transpose(2, 0, 1), np.zeros((5, H, W), np.uint8)])
    assert (read_image(write_tiff(tmp_path / "a.tif", more)) == rgb).all()


def test_alpha_and_nodata_of_a_geotiff(tmp_path: Path, rgb: np.ndarray):
    bands = rgb.transpose(2, 0, 1).copy()
    alpha = np.full((1, H, W), 255, np.uint8)
    alpha[:, :, 50:] = 0
    colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    path = write_tiff(tmp_path / "a.tif", np.concatenate([bands, alpha]), colorinterp=colours)
    assert (valid_pixels(path) == (alpha[0] > 0)).all()
    bands[:, :7] = 17
    path = write_tiff(tmp_path / "n.tif", bands, nodata=17)
    assert (valid_pixels(path) == (bands != 17).any(axis=0)).all()
    wide = bands.astype(np.int16) * 40
    wide[:, :7] = -9999
    image, valid = read_image_and_valid(write_tiff(tmp_path / "w.tif", wide, nodata=-9999))
    assert not valid[:7].any() and valid[7:].all()
    assert np.abs(image[7:] - rgb[7:] * (40 * 255 / 16383)).max() <= 0.5  # 9400 needs 14 bits


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", [".jpg", ".png", ".tif"])
def test_exif_rotation(tmp_path: Path, rgb: np.ndarray, orientation: int, extension: str):
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a{extension}"
    Image.fromarray(rgb).save(path, exif=exif, quality=95)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    assert (read_image(path) == expected).all()
    assert read_size(path) == expected.shape[:2]
    part = read_image(path, Crop(3, 5, 20, 30))
    assert (part == expected[3:23, 5:35]).all()


def test_a_georeferenced_file_is_not_turned(tmp_path: Path, rgb: np.ndarray):
    place = {"crs": "EPSG:32618", "transform": from_origin(300000, 4000000, 1, 1)}
    path = write_tiff(tmp_path / "a.tif", rgb.transpose(2, 0, 1), **place)
    assert (read_image(path) == rgb).all()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
@pytest.mark.parametrize("layout", [{}, {"tiled": True, "blockxsize": 16, "blockysize": 16}])
def test_crops_are_parts_of_the_whole(
    tmp_path: Path, rgb: np.ndarray, road: np.ndarray, layout: dict, data: st.DataObject
):
    image_path, label_path = tmp_path / "crop.tif", tmp_path / "crop_mask.tif"
    if not label_path.exists():
        write_tiff(image_path, rgb.transpose(2, 0, 1), **layout)
        write_tiff(label_path, (road * 200 + 3)[None], **layout)  # lossy: 3 is not road
    top, left = data.draw(st.integers(0, H - 1)), data.draw(st.integers(0, W - 1))
    height, width = data.draw(st.integers(1, H - top)), data.draw(st.integers(1, W - left))
    part = (slice(top, top + height), slice(left, left + width))
    crop = Crop(top, left, height, width)
    assert (read_image(image_path, crop) == rgb[part]).all()
    assert (read_label(label_path, crop) == road[part]).all()


def test_16_bit_crops_keep_the_whole_image_s_scale(tmp_path: Path):
    values = np.full((3, H, W), 100, np.uint16)
    values[:, -1, -1] = 2000
    path = write_tiff(tmp_path / "a.tif", values)
    assert (read_image(path, Crop(0, 0, 8, 8)) == round(100 * 255 / 2047)).all()


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "deep.png"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.9])
def test_broken_files_are_named_in_one_line(
    tmp_path: Path, rgb: np.ndarray, name: str, kept: float
):
    path = tmp_path / name
    large = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    if name == "deep.png":
        cv2.imwrite(str(path), large.astype(np.uint16) * 200)
    else:
        Image.fromarray(large).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    for read in (read_image, read_label):
        with pytest.raises(ValueError) as error:
            read(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_what_is_no_image(tmp_path: Path):
    (tmp_path / "a.png").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match=r"a\.png: is no JPEG, PNG or TIFF file"):
        read_image(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"b\.png"):
        read_size(tmp_path / "b.png")


@pytest.mark.parametrize("extension", [".png", ".tif"])
@pytest.mark.parametrize("on", [1, 2, 127, 128, 255])
def test_labels_of_two_values(tmp_path: Path, road: np.ndarray, on: int, extension: str):
    path = tmp_path / f"a{extension}"
    Image.fromarray(road * np.uint8(on)).save(path)
    label = read_label(path)
    assert label.dtype == np.uint8 and (label == road).all()


@pytest.mark.parametrize("extension", [".png", ".tif"])
def test_labels_of_other_kinds(tmp_path: Path, road: np.ndarray, extension: str):
    path = tmp_path / f"a{extension}"
    palette = Image.fromarray(road * np.uint8(3), "P")
    palette.putpalette([255, 255, 255, 0, 0, 0, 9, 9, 9, 0, 0, 0])  # road is black: index counts
    for picture in (palette, Image.fromarray(road > 0)):
        picture.save(path)
        assert (read_label(path) == road).all()
    colour = np.zeros((H, W, 3), np.uint8)
    colour[..., 2] = road * 255
    Image.fromarray(colour).save(path)
    assert (read_label(path) == road).all()
    opaque = np.dstack([colour, np.full((H, W), 255, np.uint8)])
    Image.fromarray(opaque).save(path)
    assert (read_label(path) == road).all()
    grey_alpha = np.dstack([road * 255, np.full((H, W), 255, np.uint8)])
    Image.fromarray(grey_alpha, "LA").save(path)
    assert (read_label(path) == road).all()


def test_label_with_white_as_zero(tmp_path: Path, road: np.ndarray):
    path = write_tiff(tmp_path / "a.tif", 1 - road[None], photometric="MINISWHITE", nbits=1)
    with rasterio.open(path) as source:
        assert source.tags(ns="IMAGE_STRUCTURE")["MINISWHITE"] == "YES"
    assert (read_label(path) == np.asarray(Image.open(path).convert("L")) / 255).all()


def test_lossy_labels(tmp_path: Path, road: np.ndarray):
    Image.fromarray(road * 255).save(tmp_path / "a.jpg", quality=75)
    stored = np.asarray(Image.open(tmp_path / "a.jpg"))
    assert len(np.unique(stored)) > 2
    assert (read_label(tmp_path / "a.jpg") == (stored >= 128)).all()
    faint = np.asarray(road * 2 + np.arange(W, dtype=np.uint8)[None] % 2)  # classes 0 to 3
    Image.fromarray(faint).save(tmp_path / "classes.png")
    assert (read_label(tmp_path / "classes.png") == (faint > 0)).all()


def test_16_bit_and_float_labels(tmp_path: Path, road: np.ndarray):
    wide = road.astype(np.uint16)[None]
    assert (read_label(write_tiff(tmp_path / "a.tif", wide * 65535)) == road).all()
    assert (read_label(write_tiff(tmp_path / "b.tif", wide.astype(np.float32))) == road).all()
    with pytest.raises(ValueError, match="whole numbers"):
        read_label(write_tiff(tmp_path / "c.tif", wide * np.float32(0.5)))


def test_a_file_that_changes_is_read_anew(tmp_path: Path, road: np.ndarray):
    path = tmp_path / "a.tif"
    for scale in (1, 200):
        write_tiff(path, (road * scale)[None])
        assert (read_label(path, Crop(0, 0, 20, 20)) == road[:20, :20]).all()
    write_tiff(path, road[None, :30, :30])
    assert read_size(path) == (30, 30)


def test_real_geotiff(real_data: Path):
    (path,) = (real_data / "spacenet_vegas").glob("*.tif")
    image, valid = read_image_and_valid(path)
    with rasterio.open(path) as source:
        assert (image == source.read([1, 2, 3]).transpose(1, 2, 0)).all()
    assert valid.all()
