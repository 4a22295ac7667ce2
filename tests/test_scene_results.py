"""What scenes leave in the output folder, beside blank areas, failures and older results."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2
import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import shapely
import torch
from torch import Tensor

from tests.bright_net import BrightNet
from tests.scene_files import UTM, picture, road_mask, write_scene
from tests.test_scenes import PROB, band, entries, infer, workplace  # noqa: F401
from utils.scenes.plan import ScenePlan


def test_places_that_only_gdal_reaches(workplace, capsys):  # noqa: F811
    mask = road_mask(130, 130)
    write_scene("inner.tif", picture(mask), **UTM)
    shutil.make_archive("packed", "zip", ".", "inner.tif")
    for again in ("", "changed is not known: delete out/mask/inner.tif to begin anew"):
        assert infer("/vsizip/packed.zip/inner.tif") == 0
        assert again in capsys.readouterr().err
        np.testing.assert_array_equal(band("out/mask/inner.tif") == 1, mask)


def test_the_files_behind_a_vrt_are_looked_at(workplace, capsys):  # noqa: F811
    write_scene("inner.tif", picture(road_mask(100, 110)), **UTM)
    rasterio.shutil.copy("inner.tif", "outer.vrt", driver="VRT")
    nested = Path("outer.vrt").read_text().replace("inner.tif", "outer.vrt")
    Path("outermost.vrt").write_text(nested)
    for seed, is_done in ((0, False), (0, True), (1, False)):
        mask = road_mask(100, 110, seed)
        if not is_done:
            write_scene("inner.tif", picture(mask), **UTM)
        assert infer("outermost.vrt", "inference.save_roads=false") == 0
        assert ("done already" in capsys.readouterr().err) == is_done
        np.testing.assert_array_equal(band("out/mask/outermost.tif") == 1, mask)


def test_blank_areas_without_a_nodata_value_have_no_data(workplace):  # noqa: F811
    """A scene in blocks against the photo of the same pixels, whose rule sees the whole."""
    mask = road_mask(290, 320)
    footprint = np.zeros(mask.shape, np.uint8)
    cv2.fillPoly(footprint, [np.array([(70, 12), (305, 50), (260, 280), (20, 240)])], 1)
    blank = footprint == 0
    image = np.where(blank, 0, picture(mask).clip(max=230))
    image[:, blank & (np.arange(320) < 160)] = 255
    write_scene("scene.tif", image, **UTM)
    cv2.imwrite("photo.png", image.transpose(1, 2, 0))
    assert infer("scene.tif", PROB) == infer("photo.png") == 0
    found = band("out/mask/scene.tif")
    np.testing.assert_array_equal(found == 255, blank)
    np.testing.assert_array_equal(band("out/prob/scene.tif") == 255, blank)
    photo = cv2.imread("out/mask/photo.png", cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(found == 1, photo == 255)
    roads = geopandas.read_file("out/roads/scene.gpkg")
    at = shapely.get_coordinates(roads.affine_transform((~UTM["transform"]).to_shapely()))
    inner = cv2.erode(blank.view(np.uint8), np.ones((9, 9), np.uint8))
    assert len(at) and not inner[tuple(at.astype(int).T[::-1])].any()
    fast = "inference.save_roads=false"
    assert infer("scene.tif", "ignore_nodata=false", fast) == 0
    assert (band("out/mask/scene.tif") != 255).all()

    deep = np.where(mask, 900, 300).astype(np.uint16)[None].repeat(3, axis=0)
    deep[:, blank] = 0
    deep[:, 130:160, 130:160] = 2000  # too few to rule the stretch
    write_scene("deep.tif", deep, **UTM)
    assert infer("deep.tif", fast) == 0
    found = band("out/mask/deep.tif")
    np.testing.assert_array_equal(found == 255, blank)
    np.testing.assert_array_equal(found == 1, ~blank & (deep[0] > 600))


def test_an_output_folder_is_filled_by_several_commands(workplace, capsys):  # noqa: F811
    no_roads = "inference.save_roads=false"
    for name in ("a", "b", "c"):
        write_scene(f"{name}.tif", picture(road_mask(70, 80)), **UTM)
        assert infer(f"{name}.tif") == 0
    cv2.imwrite("photo.png", np.zeros((70, 70, 3), np.uint8))
    assert infer("photo.png") == 0
    assert [*entries()] == ["a", "b", "c", "photo"]
    assert entries()["a"]["files"] == ["mask/a.tif", "roads/a.gpkg", "roads/a.geojson"]
    Path("out/mask/b.tif").unlink()  # its user moved it
    capsys.readouterr()
    assert infer("c.tif") == 0 and "c: done already" in capsys.readouterr().err
    assert [*entries()] == ["a", "c", "photo"]

    Path("out/roads/a.shp").touch()  # none of ours
    assert infer("a.tif", no_roads) == 0
    kept = {"a.shp", *(f"{name}.{suffix}" for name in "bc" for suffix in ("gpkg", "geojson"))}
    assert {*os.listdir("out/roads")} == kept
    assert [*entries()] == ["a", "c", "photo"]  # none of the report's conditions has changed
    assert infer("a.tif", no_roads, "inference.threshold=0.3") == 0
    assert [*entries()] == ["a"]
    assert "2 results of other settings are no longer listed" in capsys.readouterr().err


def test_a_result_is_not_believed_when_other_settings_were_begun(workplace, capsys):  # noqa: F811
    mask = road_mask(70, 80)
    write_scene("a.tif", picture(mask), **UTM)
    assert infer("a.tif") == 0
    threshold = "inference.threshold=0.9999999"

    def ends(*_, **__):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScenePlan, "finish", ends)
        with pytest.raises(KeyboardInterrupt):
            infer("a.tif", threshold)
    assert not (band("out/mask/a.tif") == 1).any() and [*entries()] == ["a"]
    assert infer("a.tif") == 0 and "done already" not in capsys.readouterr().err
    np.testing.assert_array_equal(band("out/mask/a.tif") == 1, mask)


def test_results_of_other_pixels_do_not_stay_beside_a_failure(workplace):  # noqa: F811
    for name in ("a", "b"):
        write_scene(f"{name}.tif", picture(road_mask(70, 80)), **UTM)
        assert infer(f"{name}.tif") == 0
    content = Path("a.tif").read_bytes()
    Path("a.tif").write_bytes(content[:-60])
    assert infer("a.tif") == 1
    assert [*entries()] == ["b"] and os.listdir("out/mask") == ["b.tif"]


@pytest.mark.parametrize("content", ['{"images": [{"na', "[]", '{"images": [3, {}]}'])
def test_a_damaged_list_of_results_is_begun_anew(workplace, capsys, content):  # noqa: F811
    write_scene("a.tif", picture(road_mask(70, 80)), **UTM)
    Path("out").mkdir()
    Path("out/predictions.json").write_text(content)
    assert infer("a.tif", "inference.save_roads=false") == 0
    told = "out/predictions.json: is damaged, and begun anew" in capsys.readouterr().err
    assert [*entries()] == ["a"] and told == ("3" not in content)


def test_roads_alone_can_be_asked_for(workplace, capsys):  # noqa: F811
    write_scene("scene.tif", picture(np.arange(130)[:, None].repeat(90, 1) // 10 == 6), **UTM)
    cv2.imwrite("photo.png", np.zeros((70, 70, 3), np.uint8))
    no_maps = "inference.save_binary_mask=false"
    assert infer("scene.tif", no_maps) == 0
    assert sorted(os.listdir("out")) == ["predictions.json", "roads"]
    assert len(geopandas.read_file("out/roads/scene.gpkg")) == 1
    assert "scene: 1 road, " in capsys.readouterr().err
    assert infer("photo.png", no_maps) == 1
    assert "photo.png: a photo has no road lines" in capsys.readouterr().err
    for nothing in (["inference.save_roads=false", no_maps], ["inference.save_outputs=false"]):
        with pytest.raises(SystemExit) as ended:
            infer("scene.tif", *nothing)
        assert ended.value.code == 2 and "would write nothing" in capsys.readouterr().err


def test_an_answer_that_is_no_number_costs_its_image_alone(workplace, monkeypatch, capsys):  # noqa: F811
    answer = BrightNet.forward_padded

    def breaks_at_77(network: BrightNet, image: Tensor) -> Tensor:
        broken = (image - (77 / 255 - 0.5)).abs().amax(dim=1, keepdim=True) < 1e-3
        return answer(network, image).masked_fill(broken, torch.nan)

    monkeypatch.setattr(BrightNet, "forward_padded", breaks_at_77)
    mask, folder = road_mask(190, 200), Path("mixed")
    folder.mkdir()
    for name in ("a", "b_bad", "c"):
        image = picture(mask)
        if "bad" in name:
            image[:, 100, 30] = 77
        write_scene(folder / f"{name}.tif", image, **UTM)
        cv2.imwrite(f"mixed/{name}_photo.png", image.transpose(1, 2, 0))
    for _ in range(2):
        assert infer("mixed", "inference.save_roads=false") == 1
        told = [line for line in capsys.readouterr().err.splitlines() if "not a number" in line]
        reason = "the model's answer is not a number: its weights are broken (bright.pth)"
        assert sorted(told) == [f"b_bad: {reason}", f"b_bad_photo: {reason}"]
        good = {"a.tif", "c.tif", "a_photo.png", "c_photo.png"}
        assert set(os.listdir("out/mask")) == good
        assert set(entries()) == {Path(name).stem for name in good}
