"""An image without a single valid pixel has no score, and none of the means counts it."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import openpyxl
import pytest
import rasterio

import evaluate
import inference
from tests.tiny_run import RUN, enter_workplace, read_json, save_run
from utils.comparison.bootstrap import metrics_of_draws
from utils.comparison.summary import Scored, summarise
from utils.metric_names import METRICS, main_value

KEYS = [main_value(name).key for name in METRICS]
LINE = "Images: 1 without a valid pixel left out of the means"


def scores_of_split(capsys) -> tuple[dict, str]:
    metrics = f"metrics=[{', '.join(METRICS)}]"
    assert inference.main(["-c", "tiny.yaml", metrics, "pixel_size=1"]) == 0
    return read_json("results/run/metrics.json"), capsys.readouterr().out


@pytest.fixture
def with_and_without(tmp_path, monkeypatch, tiny_roads, capsys):
    """metrics.json and what was printed of a test split, then with a blank image in it."""
    shutil.copytree(tiny_roads, tmp_path / "data")
    enter_workplace(tmp_path, monkeypatch, tmp_path / "data")
    save_run(RUN / "best_f1score.pth", seed=0)
    before = scores_of_split(capsys)
    folder = tmp_path / "data" / "tiny" / "test"
    label = cv2.imread(str(folder / "label" / "test_0.png"))
    cv2.imwrite(str(folder / "image" / "a_blank.png"), np.full((80, 96, 3), 255, np.uint8))
    cv2.imwrite(str(folder / "label" / "a_blank.png"), label)
    return before, scores_of_split(capsys)


def test_inference_and_compare_leave_it_out(with_and_without):
    (before, told_before), (after, told) = with_and_without
    assert after["overall"] == before["overall"] | {"images_without_data": 1}
    assert "images_without_data" not in before["overall"]
    assert LINE in told.splitlines() and "left out" not in told_before
    blank, *others = after["images"]
    assert others == before["images"]
    assert {blank[key] for key in blank if key not in ("name", "tp", "fp", "fn", "tn")} == {None}
    sheet = openpyxl.load_workbook("results/run/metrics.xlsx")["images"]
    head, first, *_ = sheet.iter_rows(values_only=True)
    assert first[head.index("name")] == "a_blank" and first[head.index("betti0_error")] is None

    draws = np.array([[1, 1, 1], [3, 0, 0], [1, 2, 0]])
    whole, only_blank, one = zip(
        *metrics_of_draws(after["images"], KEYS, draws).values(), strict=True
    )
    assert whole == pytest.approx([after["overall"][key] for key in KEYS])
    assert dict(zip(KEYS, only_blank, strict=True))["betti0_error"] == 0
    assert one == pytest.approx([others[0].get(key, others[0]["iou"]) for key in KEYS])
    costs = {"m": {"weight": None, "forward": None, "problems": []}}
    about = {"dataset": "tiny", "budget": "", "image_size": 64}
    found = summarise([Scored("m", 6, "TinyNet", after, Path("r"))], costs, {}, about)
    assert found["about"]["num_images"] == 3 and found["about"]["images_without_data"] == 1


def test_evaluate_leaves_it_out(tmp_path, capsys):
    truth = np.zeros((64, 64), np.uint8)
    truth[30:34] = 1
    for name, values in {"a": truth, "b": np.full_like(truth, 9)}.items():
        (tmp_path / "gt").mkdir(exist_ok=True)
        size = {"height": 64, "width": 64, "count": 1, "dtype": "uint8", "nodata": 9}
        with rasterio.open(tmp_path / "gt" / f"{name}.tif", "w", driver="GTiff", **size) as file:
            file.write(values, 1)
        (tmp_path / "pred").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "pred" / f"{name}.png"), np.roll(truth, 2, axis=0) * 255)
    given = ["--pred", str(tmp_path / "pred"), "--gt", str(tmp_path / "gt"), "--workers", "1"]
    assert evaluate.main([*given, "--output", str(tmp_path / "out")]) == 0
    assert LINE in capsys.readouterr().out.splitlines()
    report = read_json(str(tmp_path / "out" / "metrics.json"))
    one, blank = report["images"]
    assert set(blank.values()) == {"b", None}
    same = [key for key in one if key in report["overall"]]
    assert {"iou", "topo_f1", "cldice", "betti0_error", "quality", "apls"} <= {*same}
    assert {k: report["overall"][k] for k in same} == pytest.approx({k: one[k] for k in same})
    assert 0 < one["iou"] < 1 and report["overall"]["iou_per_image"] == pytest.approx(one["iou"])
    rows = list(openpyxl.load_workbook(tmp_path / "out" / "metrics.xlsx")["images"].values)
    assert rows[2][0] == "b" and set(rows[2][1:]) == {None}
