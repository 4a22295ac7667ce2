"""What demo.py takes and refuses: limits, formats, bombs, names, georeferences."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bad_uploads import write_bad_uploads
from utils.demo.checks import MAX_NAME, Limits, check_upload, safe_name
from utils.demo.picture import read_picture, read_truth

LIMITS = Limits(megabytes=2, megapixels=25)


def write_geotiff(path, values, crs="EPSG:32633", transform=None):
    count, height, width = values.shape
    transform = transform or Affine(0.5, 0, 400_000, 0, -0.5, 5_800_000)
    size = {"count": count, "height": height, "width": width, "dtype": values.dtype}
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, **size) as target:
        target.write(values)


def test_bad_uploads_are_refused_in_one_line_that_names_them(tmp_path):
    files = write_bad_uploads(tmp_path)
    assert len(files) >= 30
    for path in files:
        with pytest.raises(ValueError) as refused:
            read_picture(path, path.name, LIMITS)
        text = str(refused.value)
        assert text.startswith(f"{safe_name(path.name)}."), path.name
        assert "\n" not in text and str(tmp_path) not in text, text


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    write_bad_uploads(tmp_path)

    def decode(*args, **kwargs):
        raise AssertionError("decoded")

    monkeypatch.setattr("utils.demo.picture.read_image_and_valid", decode)
    for name in ("says_huge.png", "is_huge.png", "says_huge.jpg", "huge.tif", "huge_blocks.tif"):
        with pytest.raises(ValueError, match="megapixels"):
            read_picture(tmp_path / name, name, LIMITS)


def test_limits_are_stated_and_can_be_changed(tmp_path):
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (400, 500, 3), np.uint8))
    check_upload(path, Limits(megabytes=1, megapixels=0.2))
    with pytest.raises(ValueError, match=r"500 x 400 px are 0\.2 megapixels, the limit is 0\.19"):
        check_upload(path, Limits(megabytes=1, megapixels=0.19))
    with pytest.raises(ValueError, match=r"0\.6 MB, the limit is 0\.5 MB"):
        check_upload(path, Limits(megabytes=0.5, megapixels=1))
    with pytest.raises(ValueError, match="megapixels must be a positive number"):
        Limits(megapixels=0)
    assert str(Limits(5, 2)) == "up to 5 MB and 2 megapixels"


@settings(max_examples=60)
@given(st.text(max_size=120))
def test_a_safe_name_has_no_folder_and_no_surprise(name):
    safe = safe_name(name)
    assert 0 < len(safe) <= MAX_NAME
    assert not set(safe) & set("/\\\0\n\r\t<>&\"'%:;|*?$`")
    assert not safe.startswith((".", " ")) and not safe.endswith((".", " "))


@pytest.mark.parametrize(
    ("given_name", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\windows\\system.ini", "system"),
        ("/etc/cron.d/job.png", "job"),
        ("..", "image"),
        ("", "image"),
        (".hidden.png", "hidden"),
        ("Straße Nord (2).tif", "Straße Nord (2)"),
        ("a\0b\n.png", "a_b_"),
    ],
)
def test_names_people_and_attackers_use(given_name, shown):
    assert safe_name(given_name) == shown


def test_a_geotiff_brings_its_scale(tmp_path):
    path = tmp_path / "utm.tif"
    write_geotiff(path, np.full((3, 40, 60), 90, np.uint8))
    picture = read_picture(path, "utm.tif", LIMITS)
    assert picture.shape == (40, 60) and picture.note == ""
    assert picture.pixel_size_m == pytest.approx(0.5)
    assert picture.place.crs == "EPSG:32633"


def test_a_georeference_of_no_use_is_left_aside_with_a_word(tmp_path):
    north_pole = Affine(1e-5, 0, 10, 0, -1e-5, 89)
    for name, crs, transform in (
        ("pole.tif", "EPSG:4326", north_pole),
        ("flat.tif", "EPSG:32633", Affine(0, 0, 4e5, 0, 0, 5e6)),
    ):
        write_geotiff(tmp_path / name, np.full((3, 40, 60), 90, np.uint8), crs, transform)
        picture = read_picture(tmp_path / name, name, LIMITS)
        assert picture.place is None and picture.pixel_size_m is None
        assert "georeference is left aside" in picture.note


def test_truth_must_fit_and_leaves_out_what_shows_no_ground(tmp_path):
    image = np.random.default_rng(0).integers(60, 200, (64, 80, 3), np.uint8)
    image[:, :30] = 255  # a blank area
    cv2.imwrite(str(tmp_path / "image.png"), image)
    mask = np.zeros((64, 80), np.uint8)
    mask[20:30] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    cv2.imwrite(str(tmp_path / "other.png"), mask[:40])
    picture = read_picture(tmp_path / "image.png", "image.png", LIMITS)
    truth = read_truth(tmp_path / "mask.png", "mask.png", picture, LIMITS)
    np.testing.assert_array_equal(truth[:, :30], 255)
    np.testing.assert_array_equal(truth[:, 30:], (mask[:, 30:] > 0))
    with pytest.raises(ValueError, match=r"other\.png: the mask has 80 x 40 px, the image 80 x 64"):
        read_truth(tmp_path / "other.png", "other.png", picture, LIMITS)
