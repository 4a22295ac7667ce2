"""`inference.py --input SCENE` as its users run it, with a network whose answers are known."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.features import rasterize

import inference
import model
from tests.bright_net import BrightNet
from tests.conftest import ROOT
from tests.ranks import run_two_ranks
from tests.scene_files import UTM, picture, road_mask, write_scene
from utils.checkpoint import save_checkpoint
from utils.config import load_config
from utils.scenes import prepare, run

ARGV = ["--checkpoint", "bright.pth", "--output", "out"]
PROB = "inference.save_prob_map=true"


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with a checkpoint of BrightNet; blocks are small, so that a scene has many."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(model.MODELS, "BrightNet", "tests.bright_net")
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest's own handlers stay
    monkeypatch.setattr(prepare, "BLOCK_PX", 150)
    Path("bright.yaml").write_text(
        "model_classname: BrightNet\ndataset_name: none\nimage_size: 64\nbatch_size: 4\n"
    )
    config = load_config(
        "bright.yaml", model_names=["BrightNet"], model_class=lambda _: BrightNet, warn=print
    )
    checkpoint = {
        "model_classname": "BrightNet",
        "config": config.model_dump(mode="json"),
        "model": BrightNet().state_dict(),
        "ema": None,
        "epoch": 3,
        "threshold": None,
        "scores": {},
    }
    save_checkpoint(Path("bright.pth"), checkpoint)
    return tmp_path


def infer(scene: str, *more: str) -> int:
    return inference.main([*ARGV, "--input", scene, *more])


def band(path: str) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(1)


def entries(folder: str = "out") -> dict[str, dict]:
    report = json.loads(Path(folder, "predictions.json").read_text())
    return {entry["name"]: entry for entry in report["images"]}


def contents(folder: str) -> dict[str, bytes]:
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_scene_keeps_its_place_and_its_gaps(workplace, capsys):
    mask = road_mask(300, 420, num=1)
    alpha = np.full((300, 420), 255, np.uint8)
    alpha[:170, :200] = 0
    bands = np.concatenate([picture(mask), alpha[None]])
    write_scene("scene.tif", bands, **UTM, photometric="rgb", alpha="yes")
    assert infer("scene.tif", PROB) == 0
    with rasterio.open("out/mask/scene.tif") as file, rasterio.open("out/prob/scene.tif") as prob:
        for output in (file, prob):
            assert output.crs == UTM["crs"] and output.transform == UTM["transform"]
            assert output.nodata == 255 and output.dtypes == ("uint8",)
            assert output.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert prob.scales[0] == pytest.approx(1 / 254)
        assert file.tags()["MODEL"] == "BrightNet"
        found, probability = file.read(1), prob.read(1)
    np.testing.assert_array_equal(found, np.where(alpha == 0, 255, mask))
    np.testing.assert_array_equal(probability == 255, alpha == 0)
    sure = 1 / (1 + np.exp(-20 * (240 / 255 - 0.5)))
    np.testing.assert_allclose(probability[found == 1] / 254, sure, atol=0.5 / 254 + 1e-4)
    assert entries()["scene"]["road_share"] == pytest.approx(mask[alpha > 0].mean())

    roads = geopandas.read_file("out/roads/scene.gpkg")
    assert roads.crs == UTM["crs"] and len(roads) > 4
    np.testing.assert_allclose(roads.length_m, roads.length, rtol=1e-3)  # UTM's own scale
    assert 4.5 < roads.width_m.median() < 5.5 and roads.probability.min() > 0.99
    left, top = UTM["transform"] * (0, 0)
    here = shapely.box(left, top - 150, left + 210, top).buffer(1e-6)
    assert roads.within(here).all()
    world = geopandas.read_file("out/roads/scene.geojson")
    assert world.crs == "EPSG:4326"
    apart_m = world.to_crs(UTM["crs"]).geometry.hausdorff_distance(roads.geometry)
    assert apart_m.max() < 0.01
    assert sorted(os.listdir("out")) == ["mask", "predictions.json", "prob", "roads"]
    assert "predictions.json, mask, prob, roads" in capsys.readouterr().out


def test_the_lines_of_a_perfect_mask_lie_on_the_truth(workplace, real_data):
    chip = real_data / "spacenet_vegas" / "RGB-PanSharpen_AOI_2_Vegas_img0.tif"
    truth = geopandas.read_file(chip.parent / "AOI_2_Vegas_img0.geojson").to_crs("EPSG:32611")
    with rasterio.open(chip) as file:
        place = {"crs": file.crs, "transform": file.transform}
        surface = truth.buffer(2, cap_style="flat").to_crs(file.crs)
        mask = rasterize(surface.geometry, file.shape, transform=file.transform) > 0
    write_scene("chip.tif", picture(mask), **place)
    assert infer("chip.tif", "image_size=256", "inference.threshold=0.6") == 0
    np.testing.assert_array_equal(band("out/mask/chip.tif"), mask)
    roads = geopandas.read_file("out/roads/chip.gpkg").to_crs("EPSG:32611")

    def apart_m(lines: geopandas.GeoDataFrame, other: geopandas.GeoDataFrame) -> np.ndarray:
        dense = shapely.segmentize(lines.geometry.to_numpy(), 0.5)
        return shapely.distance(
            shapely.points(shapely.get_coordinates(dense)), other.geometry.union_all()
        )

    off_m = apart_m(roads, truth)
    assert np.quantile(off_m, 0.99) < 0.3 and off_m.max() < 0.7
    assert (apart_m(truth, roads) < 1).mean() > 0.98  # ends are thinned off
    assert 3.8 < roads.width_m.median() < 4.3


def test_another_pixel_size_for_the_model(workplace, capsys):
    mask = road_mask(240, 300, width_px=14)
    write_scene("fine.tif", picture(mask), **UTM)
    assert infer("fine.tif", "--gsd", "1.25", PROB) == 0
    with rasterio.open("out/mask/fine.tif") as file:
        assert file.shape == mask.shape and file.transform == UTM["transform"]
        found = file.read(1) == 1
    assert (found & mask).sum() / (found | mask).sum() > 0.85
    ours, plain = geopandas.read_file("out/roads/fine.gpkg"), None
    assert infer("fine.tif", "--output", "plain") == 0
    plain = geopandas.read_file("plain/roads/fine.gpkg")
    off_m = shapely.hausdorff_distance(ours.geometry.union_all(), plain.geometry.union_all())
    assert off_m < 6 and ours.length_m.sum() == pytest.approx(plain.length_m.sum(), rel=0.05)
    assert json.loads(Path("out/predictions.json").read_text())["pixel_size"] == 1.25
    assert entries()["fine"]["pixel_size_m"] == pytest.approx(1.25)
    assert entries("plain")["fine"]["pixel_size_m"] == pytest.approx(0.5, rel=1e-3)
    told = capsys.readouterr().out
    assert "float32, pixel size 1.25 m\n" in told
    assert "float32, pixel size of each file's georeference, if any\n" in told


def test_bands_and_16_bit(workplace):
    mask = road_mask(200, 200)
    dark = np.random.default_rng(0).integers(290, 310, (200, 200))
    near_infrared = np.where(mask, 900, dark).astype(np.uint16)
    bands = np.stack([dark, dark, dark, near_infrared]).astype(np.uint16)
    write_scene("deep.tif", bands, **UTM, nodata=0)
    assert infer("deep.tif", "--bands", "4,4,4") == 0
    np.testing.assert_array_equal(band("out/mask/deep.tif") == 1, mask)


def test_bad_files_cost_a_line_each_and_leave_the_others(workplace, capsys):
    mask, folder = road_mask(140, 140), Path("mixed")
    folder.mkdir()
    turned = rasterio.Affine(0.45, 0.21, 640_000, 0.21, -0.45, 4_010_000)
    write_scene(folder / "good.tif", picture(mask), **UTM)
    write_scene(folder / "rotated.tif", picture(mask), crs=UTM["crs"], transform=turned)
    write_scene(folder / "no_crs.tif", picture(mask), transform=UTM["transform"])
    write_scene(folder / "one_band.tif", picture(mask, 1), **UTM)
    write_scene(folder / "all_nodata.tif", np.zeros((3, 140, 140), np.uint8), **UTM, nodata=0)
    noise = np.random.default_rng(0).integers(0, 255, (3, 140, 140), dtype=np.uint8)
    write_scene(folder / "truncated.tif", noise, **UTM)
    whole = (folder / "truncated.tif").read_bytes()
    (folder / "truncated.tif").write_bytes(whole[: len(whole) * 2 // 3])
    (folder / "empty.tif").touch()
    (folder / "corrupt.tif").write_bytes(b"II*\0" + bytes(100))

    assert infer("mixed") == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "mixed/" in line]
    named = {line.split(":")[0].removeprefix("mixed/") for line in lines}
    assert len(lines) == 7
    assert named == {
        *("rotated.tif", "no_crs.tif", "one_band.tif", "all_nodata.tif"),
        *("truncated.tif", "empty.tif", "corrupt.tif"),
    }
    told = "\n".join(lines)
    for name in ("truncated", "corrupt"):
        assert f"mixed/{name}.tif: is truncated or damaged (GDAL: " in told
    assert "mixed/empty.tif: is empty" in lines
    usable = {"good", "rotated", "no_crs", "one_band", "all_nodata"}
    assert set(entries()) == usable == {path.stem for path in Path("out/mask").iterdir()}
    for name in usable - {"all_nodata"}:
        np.testing.assert_array_equal(band(f"out/mask/{name}.tif"), mask)
    assert (band("out/mask/all_nodata.tif") == 255).all()
    with rasterio.open("out/mask/rotated.tif") as file:
        assert file.transform.almost_equals(turned)
    roads = geopandas.read_file("out/roads/rotated.gpkg")
    back = roads.affine_transform((~turned).to_shapely())
    assert back.within(shapely.box(0, 0, 140, 140)).all()
    assert "length_px" in geopandas.read_file("out/roads/no_crs.gpkg")
    assert len(geopandas.read_file("out/roads/all_nodata.gpkg")) == 0
    assert set(os.listdir("out/.unfinished")) == {"truncated"}


def test_typing_mistakes_are_refused(workplace, capsys):
    write_scene("scene.tif", picture(road_mask(70, 70)))
    for argv, part in (
        (["--input", "scene.tif", "--bands", "1,2"], "one or three band numbers"),
        (["--input", "scene.tif", "--gsd", "0"], "pixel size in metres"),
        (["--gsd", "1"], "go with --input"),
    ):
        with pytest.raises(SystemExit) as ended:
            inference.main([*ARGV, *argv])
        assert ended.value.code == 2 and part in capsys.readouterr().err
    cv2.imwrite("photo.png", np.zeros((9, 9, 3), np.uint8))
    for name in ("scene.tif", "photo.png"):
        assert infer(name, "--gsd", "1") == 1
        said = f"{name}: has no georeference, and --gsd needs the pixel size\n"
        assert said in capsys.readouterr().err
    assert infer("scene.tif", "--bands", "1,2,7") == 1
    assert "has bands 1 to 3, --bands asks for 7" in capsys.readouterr().err


class Killed(BaseException):
    """Nothing catches it."""


def test_what_was_killed_goes_on_to_the_same_bytes(workplace, monkeypatch, capsys):
    """Ends the work at each of its renames in turn, which is where a file comes into being."""
    mask = road_mask(220, 210)
    write_scene("scene.tif", picture(mask), **UTM)
    rename, calls = os.replace, itertools.count(1)
    monkeypatch.setattr(os, "replace", lambda *paths: (next(calls), rename(*paths)))
    assert infer("scene.tif", PROB, "--output", "whole") == 0
    num_renames = next(calls) - 1
    assert num_renames > 15
    for last in range(1, num_renames, 7):
        shutil.rmtree("out", ignore_errors=True)
        left = itertools.count(last, -1)

        def rename_or_die(*paths, left=left):
            if next(left) <= 0:
                raise Killed
            rename(*paths)

        monkeypatch.setattr(os, "replace", rename_or_die)
        with pytest.raises(Killed):
            infer("scene.tif", PROB)
        monkeypatch.setattr(os, "replace", rename)
        Path("out/.predictions.a1b2c3d4.json").touch()  # as kill -9 leaves it
        assert infer("scene.tif", PROB) == 0
        assert contents("out") == contents("whole"), last
    assert "blocks are there" in capsys.readouterr().err
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.*")}
    assert infer("scene.tif", PROB) == 0
    assert "scene: done already" in capsys.readouterr().err
    after = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.*")}
    del before[Path("out/predictions.json")], after[Path("out/predictions.json")]
    assert after == before
    assert infer("scene.tif", "inference.threshold=0.2", PROB) == 0
    assert "done already" not in capsys.readouterr().err


def test_a_killed_process_is_continued_by_two_ranks(workplace):
    Path("start.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "if __name__ == '__main__':\n"
        "    import inference, model\n"
        "    from utils.scenes import prepare, run\n"
        "    model.MODELS['BrightNet'] = 'tests.bright_net'\n"
        "    prepare.BLOCK_PX, run.LARGE_PX = 150, int(sys.argv.pop())\n"
        "    sys.exit(inference.main())\n"
    )
    Path("scenes").mkdir()
    for name, shape in (("a", (620, 600)), ("b", (150, 150))):
        write_scene(f"scenes/{name}.tif", picture(road_mask(*shape, num=12)), **UTM)
    argv = [sys.executable, "start.py", *ARGV, "--input", "scenes", PROB, "device=cpu"]
    killed = subprocess.Popen([*argv, "0"])  # with a helper process from the first pixel on
    while len(list(Path("out").rglob("*.npy"))) < 6 and killed.poll() is None:
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    ranks = run_two_ranks([*argv, str(run.LARGE_PX)], timeout_s=200)
    said = ranks[0].stderr + ranks[1].stderr
    assert [rank.status for rank in ranks] == [0, 0], said
    assert "a: goes on, " in said
    assert inference.main([*ARGV, "--output", "one", "--input", "scenes", PROB]) == 0
    assert contents("out") == contents("one")


def test_memory_does_not_grow_with_the_scene(workplace, monkeypatch):
    monkeypatch.setattr(prepare, "BLOCK_PX", 1024)
    monkeypatch.setattr(run, "LARGE_PX", 10**9)  # all in this process
    for name, side in (("small", 2560), ("large", 5632)):
        shape = {"height": side, "width": side, "count": 3, "dtype": "uint8", "nodata": 0}
        tiles = {"tiled": True, "blockxsize": 512, "blockysize": 512, "sparse_ok": True}
        with rasterio.open(f"{name}.tif", "w", driver="GTiff", **shape, **tiles, **UTM) as file:
            corner = rasterio.windows.Window(side - 500, side - 400, 300, 200)
            file.write(picture(road_mask(200, 300)), window=corner)

    peak = Path("/proc/self/clear_refs")
    if not peak.exists():
        pytest.skip("a process's peak memory can be reset on Linux only")

    def peak_mb(name: str) -> float:
        peak.write_text("5")  # the peak is that from now on
        assert infer(f"{name}.tif") == 0
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    small_mb = peak_mb("small")
    # Its pixels would take 95 MB, their blend 127 MB more. GDAL may cache the mask's 32 MB, and
    # what the first scene of a process loads stays.
    assert peak_mb("large") < small_mb + 130
    mask = band("out/mask/large.tif")
    assert (mask != 255).sum() == 200 * 300 and (mask == 1).any()


def test_photos_are_not_called_road_where_they_are_blank(workplace):
    import cv2

    image = np.full((300, 300), 20, np.uint8)
    image[:, 120:135] = 220
    image[200:, :150] = 255  # no data, and bright
    cv2.imwrite("photo.png", image)
    assert infer("photo.png") == 0
    mask = cv2.imread("out/mask/photo.png", cv2.IMREAD_GRAYSCALE)
    assert (mask[:200, 120:135] == 255).all() and not mask[200:, :150].any()
    assert sorted(os.listdir("out")) == ["mask", "predictions.json"]
