"""demo.py without a browser: files, facts, and mistakes on the command line."""

from __future__ import annotations

import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

import demo
from tests.demo_runs import save_run


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest's own handlers stay
    cv2.imwrite("photo.png", np.random.default_rng(0).integers(0, 255, (70, 90, 3), np.uint8))
    cv2.imwrite("mask.png", np.eye(70, 90, dtype=np.uint8) * 255)
    return tmp_path


def test_one_image_without_a_browser(workplace, capsys):
    save_run(Path("logs_weights/run"))
    save_run(Path("other"), seed=1, dataset="city")
    options = "--truth mask.png --compare other --pixel 10 20 --pixel-size 2 --threshold 0.51"
    assert demo.main(["--image", "photo.png", "--output", "out", *options.split()]) == 0
    text = capsys.readouterr().out
    assert "run was trained on synthetic scenes only" in text
    assert text.count("latent anchors of pixel (10, 20)") == 2 and "IoU" in text
    folders = sorted(path.name for path in Path("out").iterdir())
    assert folders == ["other_best_f1score", "run_best_f1score"]
    written = {path.name for path in Path("out/run_best_f1score").iterdir()}
    ends = ("mask.png", "roads.geojson", "roads.gpkg", "roads.png", "probability.png",
            "road_graph.png", "errors.png", "points_4.png", "gate_32.png")  # fmt: skip
    assert {f"photo_{end}" for end in ends} <= written
    assert cv2.imread("out/run_best_f1score/photo_mask.png").shape == (70, 90, 3)


@pytest.mark.parametrize("georeferenced", [True, False])
def test_a_pixel_size_beside_the_files_own_has_no_effect_and_is_told(
    workplace, capsys, georeferenced
):
    save_run(Path("logs_weights/run"))
    place = {"crs": "EPSG:32631", "transform": from_origin(500_000, 5_000_000, 0.25, 0.25)}
    size = {"width": 90, "height": 70, "count": 3, "dtype": "uint8"}
    with rasterio.open("a.tif", "w", **size, **(place if georeferenced else {})) as file:
        file.write(cv2.imread("photo.png").transpose(2, 0, 1))
    capsys.readouterr()
    assert demo.main(["--image", "a.tif", "--output", "out", "--pixel-size", "2"]) == 0
    told = "--pixel-size has no effect: by the georeference of a.tif it is 0.25 m\n"
    assert capsys.readouterr().err.count(told) == georeferenced


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--image", "gone.png"], "gone.png: No such file or directory"),
        (["--image", "photo.png", "--truth", "photo.png", "--checkpoint", "no/run"], "no/run"),
        (["--image", "photo.png", "--threshold", "2"], "--threshold must lie between 0 and 1"),
        (["--image", "photo.png", "--pixel-size", "-1"], "--pixel-size must be positive"),
        (["--image", "photo.png", "--max-megapixels", "0.001"], "the limit is 0.001"),
        (["--image", "photo.png", "--pixel", "95", "0"], "outside the image of 90 x 70 px"),
        (["--truth", "mask.png"], "--truth: only together with --image"),
        (
            ["--image", "photo.png", "--port", "99999"],
            "only without --image\n--port must be a number",
        ),
        (["--max-mb", "-3"], "megabytes must be a positive number"),
    ],
)
def test_mistakes_are_a_line_and_status_2(workplace, capsys, argv, message):
    save_run(Path("logs_weights/run"))
    with pytest.raises(SystemExit) as ended:
        demo.main(argv)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
