"""`metrics`, `best_metric` and `pixel_size` of a config, in train.py and inference.py."""

from __future__ import annotations

import json
import shutil

import numpy as np
import openpyxl
import pytest

import evaluate
import inference
import train
from tests.tiny_run import (
    RUN,
    enter_workplace,
    grey,
    probabilities,
    read_json,
    refused,
    save_run,
)
from utils.checkpoint import load_checkpoint
from utils.runs import best_checkpoint
from utils.topology.apls import apls
from utils.topology.from_mask import mask_to_graph

ALL = "metrics=[iou,apls,topo,cldice,betti,relaxed,buffer]"


@pytest.fixture
def config(tmp_path, monkeypatch, tiny_roads) -> str:
    """tiny.yaml for TinyNet in an empty folder, images of 2 m a pixel."""
    more = "pixel_size: 2.0\ncomet_ml: {enable: false}\n"
    enter_workplace(tmp_path, monkeypatch, tiny_roads, more)
    return "tiny.yaml"


def test_inference_and_evaluate_agree(config, tiny_roads, capsys):
    save_run(RUN / "best_f1score.pth", seed=0)
    npy = ["inference.save_prob_map=true", "inference.prob_map_format=npy"]
    assert inference.main(["-c", config, ALL, *npy]) == 0
    shown = capsys.readouterr().out
    truth = str(tiny_roads / "tiny" / "test" / "label")
    given = ["--pred", "results/run/prob", "--gt", truth, "--pixel-size", "2"]
    assert evaluate.main([*given, "--output", "evaluated"]) == 0
    ours, theirs = read_json("results/run/metrics.json"), read_json("evaluated/metrics.json")
    for own, other in zip(ours["images"], theirs["images"], strict=True):
        assert other.pop("name") == own["name"]
        assert {key: own[key] for key in other} == pytest.approx(other)
    assert ours["overall"] == pytest.approx(ours["overall"] | theirs["overall"])
    assert "relaxed_break_even_threshold" in theirs["overall"]
    assert ours["overall"]["apls"] > 0.2 and f"{ours['overall']['apls']:.4f}" in shown
    assert "pixel size 2 m" in shown and "relaxed: rho_px 3\n" in shown and ours["pixel_size"] == 2
    stated = theirs["parameters"]
    assert ours["parameters"] == {key: stated[key] for key in ours["parameters"]}
    assert {"apls", "topo", "relaxed", "buffer", "betti", "mask_to_graph"} == {*ours["parameters"]}
    conditions = openpyxl.load_workbook("results/run/metrics.xlsx")["conditions"]
    assert dict(conditions.iter_rows(values_only=True))["parameters.apls.snap_m"] == 4


def test_a_sweep_knows_the_best_threshold_for_apls(config, tiny_roads, capsys):
    save_run(RUN / "best_f1score.pth", seed=0)
    npy = ["inference.save_prob_map=true", "inference.prob_map_format=npy"]
    assert inference.main(["-c", config, *npy, "inference.split=val", "--output", "val"]) == 0
    argv = ["-c", config, "--sweep", "best_metric=apls"]
    assert inference.main(argv) == 0
    report = read_json("results/run/sweep.json")
    labels = tiny_roads / "tiny" / "val" / "label"
    for row in report["thresholds"][::5]:
        scores = []
        for name, probability in probabilities("val").items():
            road = mask_to_graph(grey(labels / f"{name}.png") > 0, 2.0)
            found = mask_to_graph(probability >= np.float32(row["threshold"]), 2.0)
            scores.append(apls(road, found).apls)
        assert row["apls"] == pytest.approx(sum(scores) / len(scores))
    best = max(report["thresholds"], key=lambda r: (r["apls"], -abs(r["threshold"] - 0.5)))
    assert report["best_threshold"]["apls"] == best["threshold"]
    assert load_checkpoint(RUN / "best_f1score.pth")["threshold"] == best["threshold"]
    # It is told without being asked for, but not without metres.
    capsys.readouterr()
    assert inference.main(["-c", config, "--sweep"]) == 0
    again = read_json("results/run/sweep.json")
    assert again["thresholds"] == report["thresholds"]
    assert again["parameters"] == report["parameters"] and again["parameters"]["apls"]
    f1 = again["best_threshold"]["f1"]
    assert load_checkpoint(RUN / "best_f1score.pth")["threshold"] == f1
    assert "APLS peaks" not in capsys.readouterr().out
    assert inference.main(["-c", config, "--sweep", "pixel_size=null"]) == 0
    assert "APLS peaks at another threshold; pixel_size=METRES adds it" in capsys.readouterr().out
    assert "apls" not in read_json("results/run/sweep.json")["best_threshold"]


@pytest.mark.parametrize(
    ("metric", "key", "sign"), [("cldice", "cldice", 1), ("betti", "betti0_error", -1)]
)
def test_training_keeps_the_best_by_any_metric(config, capsys, metric, key, sign):
    argv = [
        "-c",
        config,
        "epochs=5",
        "learning_rate=0.03",
        "warm_up_step=1",
        f"best_metric={metric}",
    ]
    assert train.main(argv) == 0
    rows = [json.loads(line) for line in (RUN / "metrics.jsonl").read_text().splitlines()]
    scores = {row["epoch"]: sign * row[key] for row in rows if row["split"] == "val"}
    best = load_checkpoint(RUN / f"best_{metric}.pth")
    assert scores[best["epoch"]] == max(scores.values()) == sign * best["scores"][key]
    assert best_checkpoint(RUN).name == f"best_{metric}.pth"
    assert (RUN / "best_f1score.pth").is_file()
    assert f"best epoch (val {metric})" in capsys.readouterr().out
    # A continued run judges by another metric from its first epoch on.
    assert train.main([*argv[:-1], "best_metric=iou", "epochs=6", "load=auto"]) == 0
    assert load_checkpoint(RUN / "best_iou.pth")["epoch"] == 6
    shutil.rmtree(RUN)
    save_run(RUN / "best_f1score.pth", seed=0)
    assert best_checkpoint(RUN).name == "best_f1score.pth"


def test_names_and_scale_are_checked(config, capsys):
    save_run(RUN / "best_f1score.pth", seed=0)
    assert "did you mean 'apls'" in refused(capsys, "-c", config, "metrics=[aplz]")
    assert "did you mean 'cldice'" in refused(capsys, "-c", config, "best_metric=cldise")
    assert "pixel_size" in refused(capsys, "-c", config, "pixel_size=0")
    assert inference.main(["-c", config, "metrics=[apls]", "pixel_size=null"]) == 0
    assert "pixel_size is null: a pixel counts as a metre in apls" in capsys.readouterr().err
