"""SpaceNet: names of both releases, widths in metres on the ground, 11 bits to 8, real chip."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from pyproj import Geod
from rasterio.features import rasterize

from tests import miniatures
from tests.miniatures import DEGREES, NORTH, WEST
from tests.test_preparation import content, prepare, refused, rows_of
from utils.dataset_check import check_dataset
from utils.imageio import valid_pixels
from utils.preparation.lines import draw_lines, road_width_m
from utils.preparation.spacenet import find_spacenet


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The miniature, and ROOT/spacenet made of it."""
    root = tmp_path_factory.mktemp("spacenet")
    src = miniatures.spacenet(root / "src")
    assert prepare("spacenet", src, root / "dst") == 0
    return src, root / "dst" / "spacenet"


def test_image_and_mask_stay_where_they_are(prepared: tuple[Path, Path]):
    src, folder = prepared
    sizes = set()
    for row in rows_of(folder):
        with rasterio.open(src / row["source"]) as chip:
            expected = chip.crs, chip.transform, chip.shape
        for kind in ("image", "label"):
            with rasterio.open(folder / row["split"] / kind / row[kind]) as written:
                assert (written.crs, written.transform, written.shape) == expected
                assert set(written.dtypes) == {"uint8"}
        sizes.add(expected[2])
    assert len(sizes) == 2


def test_values_are_stretched_by_the_percentiles_of_the_city(prepared: tuple[Path, Path]):
    src, folder = prepared
    rows = rows_of(folder)
    chips = {row["source"]: rasterio.open(src / row["source"]).read() for row in rows}
    values = np.concatenate([chip[:, :, :-10].reshape(3, -1) for chip in chips.values()], axis=1)
    low, high = np.percentile(values, (2, 98), axis=1)
    for row in rows:
        path = folder / row["split"] / "image" / row["image"]
        with rasterio.open(path) as source:
            image = source.read([1, 2, 3]).astype(int)
        chip = chips[row["source"]]
        assert (image[:, :, -10:] == 0).all()
        assert not valid_pixels(path)[:, -10:].any()
        image, chip = image[:, :, :-10], chip[:, :, :-10].astype(float)
        assert image.min() == 1 and image.max() == 255  # 0 is for pixels without data
        exact = 1 + 254 * (chip - low[:, None, None]) / (high - low)[:, None, None]
        inside = (exact > 1) & (exact < 255)
        # every eighth pixel tells the percentiles: they lie by some values of 600 off
        assert np.abs(image - exact)[inside].max() < 6


@pytest.mark.parametrize("latitude", [-60.0, 0.0, 36.24])
@pytest.mark.parametrize("width_m", [6.0, 15.0])
def test_a_width_is_metres_on_the_ground(tmp_path: Path, latitude: float, width_m: float):
    """Whatever a degree measures there, along and across the meridian."""
    place = rasterio.transform.Affine(DEGREES, 0, WEST, 0, -DEGREES, latitude)
    path = tmp_path / "PS-RGB_AOI_2_Vegas_img1.tif"
    profile = {"count": 3, "height": 200, "width": 240, "dtype": "uint8", "driver": "GTiff"}
    with rasterio.open(path, "w", **profile, crs="EPSG:4326", transform=place):
        pass
    x, y = WEST + 120 * DEGREES, latitude - 100 * DEGREES
    geod = Geod(ellps="WGS84")
    across_m = geod.line_length([x, x + DEGREES], [y, y])
    along_m = geod.line_length([x, x], [y, y + DEGREES])
    for line, pixels, pixel_m in (
        ([[x, y - 1], [x, y + 1]], lambda mask: mask.sum(axis=1), across_m),
        ([[x - 1, y], [x + 1, y]], lambda mask: mask.sum(axis=0), along_m),
    ):
        lines = miniatures.write_lines(tmp_path / "a.geojson", [(line, {})])
        counts = pixels(draw_lines(lines, path, width_m))
        assert np.abs(counts * pixel_m - width_m).max() <= pixel_m


def test_widths_from_properties():
    assert road_width_m({"lane_number": "1"}) == 8
    assert road_width_m({"lane_numbe": 4}) == 14
    assert road_width_m({"lane_number": "6", "width_m": "17.5"}) == 17.5
    assert road_width_m({"lane_number": "none", "width": -3}) == 8
    assert road_width_m({}) == 8


def test_tiles_keep_their_place(tmp_path: Path):
    src = miniatures.spacenet(tmp_path / "src", count=3)
    assert prepare("spacenet", src, tmp_path, "--tile", 64, "--overlap", 8) == 0
    folder = tmp_path / "spacenet"
    assert check_dataset(folder) == 0
    for row in rows_of(folder):
        top, left = int(row["top"]), int(row["left"])
        for kind in ("image", "label"):
            with rasterio.open(folder / row["split"] / kind / row[kind]) as tile:
                x, y = tile.transform.c, tile.transform.f
        assert x == pytest.approx(WEST + left * DEGREES, abs=1e-12)
        assert y == pytest.approx(NORTH - top * DEGREES, abs=1e-12)


def test_the_older_names(tmp_path: Path):
    new = miniatures.chip(tmp_path / "new", "AOI_3_Paris", "img4", 60, 70, 0)
    city = tmp_path / "src" / "AOI_3_Paris_Roads_Train"
    image = city / "RGB-PanSharpen" / "RGB-PanSharpen_AOI_3_Paris_img4.tif"
    image.parent.mkdir(parents=True)
    new.rename(image)
    line = [[WEST, NORTH - 30 * DEGREES], [WEST + 1, NORTH - 30 * DEGREES]]
    roads = city / "geojson" / "spacenetroads" / "spacenetroads_AOI_3_Paris_img4.geojson"
    miniatures.write_lines(roads, [(line, {})])
    buildings = city / "geojson" / "buildings" / "buildings_AOI_3_Paris_img4.geojson"
    miniatures.write_lines(buildings, [])
    found = find_spacenet(tmp_path / "src")
    assert found.problems == [] and found.sources == [
        ("AOI_3_Paris_img4", image, roads, "AOI_3_Paris")
    ]


def test_the_plain_lines_are_taken(tmp_path: Path):
    src = miniatures.spacenet(tmp_path / "src", count=2)
    assert all(s.label.parent.name == "geojson_roads" for s in find_spacenet(src).sources)


def test_chips_and_lines_that_miss_each_other(tmp_path: Path, capsys):
    src = miniatures.spacenet(tmp_path / "src", count=4)
    city = src / "AOI_2_Vegas"
    for path in city.glob("geojson_roads*/*img1.geojson"):
        path.unlink()
    next(city.glob("PS-RGB/*img2.tif")).unlink()
    next(city.glob("PS-RGB/*img3.tif")).rename(city / "PS-RGB" / "mosaic.tif")
    test = src / "AOI_2_Vegas_Roads_Test_Public" / "PS-RGB" / "PS-RGB_AOI_2_Vegas_img9.tif"
    test.parent.mkdir(parents=True)
    test.write_bytes(next(city.glob("PS-RGB/*img0.tif")).read_bytes())
    said = refused(capsys, "spacenet", src, tmp_path)
    assert "images without lines: SN3_roads_train_AOI_2_Vegas_PS-RGB_img1.tif" in said
    assert "lines without an image: " in said and "img2.geojson" in said
    assert "no AOI_N_City and imgN in the names of: mosaic.tif" in said
    assert "left out, test chips without lines: 1" in said


def test_lines_that_are_none(tmp_path: Path, capsys):
    src = miniatures.spacenet(tmp_path / "src", count=4)
    paths = sorted((src / "AOI_2_Vegas" / "geojson_roads").iterdir())
    paths[0].write_text('{"features": [')
    polygon = {"type": "Polygon", "coordinates": [[[0, 0], [0, 1], [1, 1], [0, 0]]]}
    feature = {"type": "Feature", "properties": {}, "geometry": polygon}
    paths[1].write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    paths[2].write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    said = refused(capsys, "spacenet", src, tmp_path)
    assert f"{paths[0]}: cannot be read as GeoJSON" in said
    assert f"{paths[1]}: expected lines, found Polygon" in said
    for path in paths[:2]:
        miniatures.write_lines(path, [])
    assert prepare("spacenet", src, tmp_path) == 0  # a chip without roads is sound
    masks = (tmp_path / "spacenet").glob("*/label/*")
    assert sorted(bool(rasterio.open(mask).read().any()) for mask in masks) == [False] * 3 + [True]


def test_chips_that_cannot_be_used(tmp_path: Path, capsys):
    src = miniatures.spacenet(tmp_path / "src", count=3)
    paths = sorted((src / "AOI_2_Vegas" / "PS-RGB").iterdir())
    profile = {"driver": "GTiff", "dtype": "uint8", "height": 50, "width": 50}
    with rasterio.open(paths[0], "w", count=1, **profile):
        pass
    paths[1].write_bytes(paths[1].read_bytes()[:6])
    said = refused(capsys, "spacenet", src, tmp_path)
    assert f"{paths[0]}: no coordinate reference system" in said
    assert f"{paths[0]}: 1 bands" in said
    assert f"{paths[1]}: is truncated or damaged" in said


def test_a_truncated_chip_costs_a_line(tmp_path: Path, capsys):
    """Its city is stretched without it, and again when it is there."""
    src = miniatures.spacenet(tmp_path / "src", count=3)
    path = sorted((src / "AOI_2_Vegas" / "PS-RGB").iterdir())[1]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    assert prepare("spacenet", src, tmp_path / "dst") == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if path.name in line]
    assert len(lines) == 1 and lines[0].startswith(f"{path}: is truncated or damaged")
    folder = tmp_path / "dst" / "spacenet"
    assert len(list(folder.glob("*/image/*"))) == len(list(folder.glob("*/label/*"))) == 2
    path.write_bytes(whole)
    assert prepare("spacenet", src, tmp_path / "dst") == 0
    assert prepare("spacenet", src, tmp_path / "once") == 0
    assert content(folder) == content(tmp_path / "once" / "spacenet")


def test_the_real_chip(tmp_path: Path, real_data: Path):
    """Against geopandas' own reprojection, at a width that is asked for."""
    src = real_data / "spacenet_vegas"
    assert prepare("spacenet", src, tmp_path, "--road-width", 6) == 1  # none is left for val
    (row,) = rows_of(tmp_path / "spacenet")
    folder = tmp_path / "spacenet" / row["split"]
    source = src / row["source"]
    assert (folder / "image" / row["image"]).read_bytes() == source.read_bytes()
    lines = geopandas.read_file(src / row["source_label"])
    roads = lines.to_crs(lines.estimate_utm_crs()).buffer(3)
    with rasterio.open(source) as chip, rasterio.open(folder / "label" / row["label"]) as label:
        polygons = roads.to_crs(chip.crs)
        expected = rasterize(polygons, chip.shape, transform=chip.transform, dtype="uint8")
        assert label.transform == chip.transform and label.crs == chip.crs
        differing = (label.read(1) > 0) != (expected > 0)
    assert differing.mean() < 1e-5
    assert float(row["road_share"]) == pytest.approx(expected.mean(), abs=1e-5)


@pytest.mark.parametrize(
    ("count", "status", "missing"), [(1, 1, "val and test"), (2, 0, "test"), (3, 0, None)]
)
def test_what_train_py_refuses_is_not_recommended(
    tmp_path: Path, capsys, count: int, status: int, missing: str | None
):
    src = miniatures.spacenet(tmp_path / "src", count=count)
    assert prepare("spacenet", src, tmp_path, "--tile", 64) == status
    said = capsys.readouterr()
    assert ("train on it: " in said.out) == (status == 0)
    assert (f"too few pairs: none for {missing}\n" in said.err) == (missing is not None)


def test_a_split_of_blank_chips_alone_is_empty(tmp_path: Path, capsys):
    src = miniatures.spacenet(tmp_path / "src", count=3)
    names = [source.name for source in find_spacenet(src).sources]
    parts = [f"{name} {part}\n" for name, part in zip(names, ("train", "val", "test"), strict=True)]
    (tmp_path / "list.txt").write_text("".join(parts))
    with rasterio.open(find_spacenet(src).sources[1].image, "r+") as chip:
        chip.write(np.zeros_like(chip.read()))
    assert prepare("spacenet", src, tmp_path, "--list", tmp_path / "list.txt") == 1
    said = capsys.readouterr()
    assert "too few pairs: none for val\n" in said.err and "train on it: " not in said.out
