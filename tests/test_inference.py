"""inference.py as its users run it: maps, reports, thresholds, refusals, ranks."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import openpyxl
import pytest
import torch

import inference
from tests.conftest import ROOT
from tests.ranks import run_two_ranks
from tests.tiny_run import (
    RUN,
    enter_workplace,
    grey,
    network,
    probabilities,
    read_json,
    refused,
    save_run,
)
from utils.checkpoint import load_checkpoint


@pytest.fixture
def workplace(tmp_path, monkeypatch, tiny_roads):
    """A folder with a config for TinyNet, and a run with its best weights."""
    enter_workplace(tmp_path, monkeypatch, tiny_roads)
    save_run(RUN / "best_f1score.pth", seed=0)
    return tmp_path


def f1_and_iou(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    both = sum(int((mask & road).sum()) for mask, road in pairs)
    either = sum(int((mask | road).sum()) for mask, road in pairs)
    return 2 * both / (either + both), both / either


def test_a_split_is_scored(workplace, tiny_roads, capsys):
    assert inference.main(["-c", "tiny.yaml", "inference.save_prob_map=true"]) == 0
    folder, truth = Path("results/run"), tiny_roads / "tiny" / "test" / "label"
    report = read_json("results/run/metrics.json")
    pairs = []
    for row in report["images"]:
        file = f"{row['name']}.png"
        mask, label = grey(folder / "mask" / file), grey(truth / file)
        assert set(np.unique(mask)) == {0, 255}
        pairs.append((mask > 0, label > 0))
        assert (row["f1"], row["iou"]) == pytest.approx(f1_and_iou(pairs[-1:]))
        assert row["tp"] + row["fp"] + row["fn"] + row["tn"] == 96 * 80
        probability = grey(folder / "prob" / file)
        clear = np.abs(probability.astype(int) - 128) > 1
        np.testing.assert_array_equal(probability[clear] > 127, mask[clear] > 0)
        errors = cv2.imread(str(folder / "error_map" / file))[..., ::-1]
        false_positive = (mask > 0) & (label == 0)
        np.testing.assert_array_equal((errors == (255, 0, 0)).all(-1), false_positive)
        np.testing.assert_array_equal((errors == (0, 0, 255)).all(-1), (mask == 0) & (label > 0))
    assert [row["name"] for row in report["images"]] == ["test_0", "test_1"]
    overall = report["overall"]
    assert (overall["f1"], overall["iou"]) == pytest.approx(f1_and_iou(pairs))
    own = [row["iou"] for row in report["images"]]
    assert overall["iou"] > 0.5
    assert overall["iou_per_image"] == pytest.approx(sum(own) / 2)
    assert overall["iou_per_image"] != pytest.approx(overall["iou"], abs=1e-6)
    assert cv2.imread("results/run/overview.png").shape[1] > 4 * 96
    out = capsys.readouterr().out
    for part in ("test, threshold 0.5 (default), tiles of 64 px", f"{overall['iou']:.4f}"):
        assert part in out
    for part in ("results/run/", "metrics.json", "overview.png", "error_map"):
        assert part in out


def test_every_report_names_its_conditions(workplace):
    argv = ["-c", "tiny.yaml", "tta.enable=true", "tta.ops=[identity, vflip]", "tile_overlap=0.5"]
    assert inference.main([*argv, "inference.threshold=0.4", "inference.split=val"]) == 0
    report = read_json("results/run/metrics.json")
    scores = ("images", "overall", "curve")
    named = {key: value for key, value in report.items() if key not in scores}
    assert len(named.pop("weights_sha256")) == 64
    assert named == {
        "split": "val",
        "threshold": 0.4,
        "threshold_from": "inference.threshold",
        "tile": 64,
        "overlap": 0.5,
        "tta": ["identity", "vflip"],
        "arithmetic": "float32",
        "checkpoint": str(RUN / "best_f1score.pth"),
        "epoch": 7,
        "pixel_size": None,
        "parameters": {},
    }
    (point,) = [point for point in report["curve"] if point["threshold"] == 0.4]
    keys = ("tp", "fp", "fn", "tn")
    assert point["counts"] == [sum(row[key] for row in report["images"]) for key in keys]
    book = openpyxl.load_workbook("results/run/metrics.xlsx")
    assert book.sheetnames == ["images", "overall", "conditions"]
    head, *rows = book["images"].iter_rows(values_only=True)
    assert [dict(zip(head, row, strict=True)) for row in rows] == [
        pytest.approx(row) for row in report["images"]
    ]
    overall = dict(book["overall"].iter_rows(values_only=True))
    assert overall == pytest.approx(report["overall"])
    assert dict(book["conditions"].iter_rows(values_only=True))["tta"] == "identity+vflip"


def test_only_what_is_asked_for_is_written(workplace):
    settings = ["inference.save_binary_mask=false", "inference.save_prob_map=true"]
    settings += ["inference.prob_map_format=npy", "inference.save_error_map=false"]
    assert inference.main(["-c", "tiny.yaml", *settings, "--output", "maps"]) == 0
    written = {path.relative_to("maps").parts[0] for path in Path("maps").rglob("*")}
    assert written == {"prob", "metrics.json", "metrics.xlsx", "overview.png", ".maps.json"}
    for probability in probabilities("maps").values():
        assert probability.dtype == np.float32 and probability.shape == (80, 96)
    assert inference.main(["-c", "tiny.yaml", "inference.save_outputs=false"]) == 0
    assert {path.name for path in Path("results/run").iterdir()} == {"metrics.json", "metrics.xlsx"}


def test_a_split_leaves_no_maps_of_the_one_before_and_all_other_files(
    workplace, tiny_roads, monkeypatch
):
    shutil.copy(tiny_roads / "tiny" / "test" / "image" / "test_0.png", "photo.png")
    assert inference.main(["--input", "photo.png", "--output", "out"]) == 0
    for name in ("mask/mine.png", "prob/notes.txt", "error_map/mine.png"):
        Path("out", name).parent.mkdir(exist_ok=True)
        Path("out", name).touch()
    others = maps("out")

    def score(*settings: str) -> set[str]:
        assert inference.main(["-c", "tiny.yaml", "--output", "out", *settings]) == 0
        return maps("out") - others

    npy = ["inference.save_prob_map=true", "inference.prob_map_format=npy"]
    tests = {f"{kind}/test_{i}.png" for kind in ("mask", "error_map") for i in (0, 1)}
    assert score(*npy) == tests | {"prob/test_0.npy", "prob/test_1.npy"}
    assert score("inference.threshold=0.3") == tests
    with monkeypatch.context() as patch:
        patch.setattr("utils.reports.write_scores", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            score(*npy)
    vals = {f"{kind}/val_{i}.png" for kind in ("mask", "error_map") for i in range(3)}
    assert score("inference.split=val") == vals and others < maps("out")
    assert Path("out/overview.png").exists()
    assert not score("inference.save_outputs=false") and others == maps("out")
    assert not Path("out/overview.png").exists() and not Path("out/.maps.json").exists()


def test_a_map_that_input_has_written_since_stays(workplace, tiny_roads):
    image = str(tiny_roads / "tiny" / "test" / "image" / "test_0.png")
    assert inference.main(["-c", "tiny.yaml", "--output", "out"]) == 0
    assert inference.main(["--input", image, "--output", "out"]) == 0
    assert inference.main(["-c", "tiny.yaml", "--output", "out", "inference.split=val"]) == 0
    left = {path.name for path in Path("out/mask").iterdir() if path.name.startswith("test")}
    assert left == {"test_0.png"}


def test_a_changed_list_of_maps_deletes_nothing_else(workplace):
    Path("out/mask").mkdir(parents=True)
    files = ["../tiny.yaml", "mask/../../tiny.yaml", "mask", "mask/a.txt", "x/a.png", 3, None]
    Path("out/mask/a.txt").touch()
    for content in (json.dumps({"files": files}), '{"files": 3}', "[]", "{"):
        Path("out/.maps.json").write_text(content)
        assert inference.main(["-c", "tiny.yaml", "--output", "out"]) == 0
        assert Path("tiny.yaml").exists() and Path("out/mask/a.txt").exists()
        assert "mask/test_1.png" in read_json("out/.maps.json")["files"]


def maps(folder: str) -> set[str]:
    """The files in its folders."""
    return {path.relative_to(folder).as_posix() for path in Path(folder).glob("*/*")}


def test_averaged_weights_are_used_where_they_are(workplace):
    save_run(Path("other/averaged.pth"), seed=1, ema=network(0).state_dict())
    for path in (RUN / "best_f1score.pth", Path("other/averaged.pth")):
        assert inference.main(["-c", "tiny.yaml", "--checkpoint", str(path)]) == 0
    assert (
        read_json("results/run/metrics.json")["images"]
        == read_json("results/other/metrics.json")["images"]
    )


def test_the_model_is_the_checkpoints_own(workplace, capsys):
    argv = ["-c", "tiny.yaml", "model_args.dim=16", "inference.save_outputs=false"]
    assert inference.main(argv) == 0
    assert "model_args: {'dim': 16} has no effect" in capsys.readouterr().err
    assert inference.main(["-c", "tiny.yaml", "inference.save_outputs=false"]) == 0
    assert "no effect" not in capsys.readouterr().err


def test_warnings_of_a_training_are_no_inferences(workplace, capsys):
    training = ["scheduler.CosineAnnealingLR_params.T_max=9", "save_checkpoint=false"]
    own = ["inference.save_outputs=false", "inference.forward_args={a: 1}"]
    for source, argv in (("tiny.yaml", ["-c", "tiny.yaml"]), ("config in", [])):
        assert inference.main([*argv, *training, *own]) == 0
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(source) and "inference.forward_args has no effect" in line


def test_the_checkpoint_is_the_best_of_the_newest_run(workplace, capsys):
    quick = "inference.save_outputs=false"

    def used(*argv: str) -> str:
        assert inference.main([*argv, quick]) == 0
        lines = capsys.readouterr().out.splitlines()
        return next(line.split(", epoch")[0] for line in lines if ", epoch 7" in line)

    save_run(RUN / "last.pth", seed=1)
    assert used("-c", "tiny.yaml") == str(RUN / "best_f1score.pth")
    save_run(Path("logs_weights/run-2/last.pth"), seed=2)
    assert used("-c", "tiny.yaml") == "logs_weights/run-2/last.pth"
    assert used() == "logs_weights/run-2/last.pth"
    assert used("-c", "tiny.yaml", "--checkpoint", str(RUN)) == str(RUN / "best_f1score.pth")
    named = f"inference.model_path={RUN}/last.pth"
    assert used("-c", "tiny.yaml", named) == used(named) == str(RUN / "last.pth")
    assert used(named, "inference.model_path=null") == used("inference.model_path=")


def test_a_missing_checkpoint_is_a_line(workplace, capsys):
    message = refused(capsys, "-c", "tiny.yaml", "--checkpoint", "logs_weights/none.pth")
    assert message.startswith("logs_weights/none.pth: no such file") and "train.py" in message
    shutil.rmtree("logs_weights")
    message = refused(capsys, "-c", "tiny.yaml")
    assert str(workplace / "logs_weights" / "run") in message and "train.py" in message
    assert "train.py" in refused(capsys)


def test_other_files_are_refused_in_a_line(workplace, capsys):
    Path("junk.pth").write_bytes(b"junk")
    torch.save({"weight": torch.zeros(2)}, "plain.pth")
    weights = network(0).state_dict()
    weights.pop("head.bias")
    save_run(Path("short.pth"), seed=0, model=weights)
    for name, part in (
        ("junk.pth", "truncated or damaged"),
        ("plain.pth", "not a checkpoint of this project"),
        ("short.pth", "1 tensors missing (first: head.bias)"),
    ):
        message = refused(capsys, "-c", "tiny.yaml", "--checkpoint", name)
        assert name in message and part in message and "\n" not in message


def test_typing_mistakes_are_refused(workplace, capsys):
    message = refused(capsys, "-c", "tiny.yaml", "inference.treshold=0.3")
    assert "did you mean 'threshold'" in message
    assert "did you mean 'hflip'" in refused(capsys, "tta.ops=[hflipp]")
    assert "none.yaml" in refused(capsys, "-c", "none.yaml")
    assert "no folder" in refused(capsys, "dataset_name=nowhere")
    assert "not allowed with" in refused(capsys, "--sweep", "--input", "x")
    Path("taken").touch()
    assert "taken: a file is in the way" in refused(capsys, "--output", "taken")


def test_a_sweep_chooses_the_threshold(workplace, tiny_roads, capsys):
    npy = ["inference.save_prob_map=true", "inference.prob_map_format=npy"]
    assert inference.main(["-c", "tiny.yaml", "inference.split=val", *npy, "--output", "val"]) == 0
    before = load_checkpoint(RUN / "best_f1score.pth")
    assert inference.main(["-c", "tiny.yaml", "--sweep"]) == 0
    out = capsys.readouterr().out
    report = read_json("results/run/sweep.json")
    assert report["split"] == "val" and report["threshold"] is None

    labels = tiny_roads / "tiny" / "val" / "label"
    pairs = [(p, grey(labels / f"{name}.png") > 0) for name, p in probabilities("val").items()]
    for row in report["thresholds"]:
        masks = [(p >= np.float32(row["threshold"]), road) for p, road in pairs]
        assert (row["f1"], row["iou"]) == pytest.approx(f1_and_iou(masks))
        own = [f1_and_iou([pair])[1] for pair in masks]
        assert row["iou_per_image"] == pytest.approx(sum(own) / len(own))
    best = max(report["thresholds"], key=lambda row: row["f1"])
    assert report["best_threshold"]["f1"] == report["best_threshold"]["iou"] == best["threshold"]
    assert best["threshold"] != 0.5
    assert f"{best['f1']:.4g}" in out and f"threshold {best['threshold']:g}" in out

    after = load_checkpoint(RUN / "best_f1score.pth")
    assert after.pop("threshold") == best["threshold"] and before.pop("threshold") is None
    assert all(torch.equal(after["model"][k], v) for k, v in before.pop("model").items())
    del after["model"]
    assert after == before

    assert inference.main(["-c", "tiny.yaml"]) == 0
    report = read_json("results/run/metrics.json")
    assert report["threshold"] == best["threshold"]
    assert report["threshold_from"] == "checkpoint, chosen on val"
    assert inference.main(["-c", "tiny.yaml", "inference.threshold=0.9"]) == 0
    assert read_json("results/run/metrics.json")["threshold"] == 0.9
    assert inference.main(["-c", "tiny.yaml", "--sweep", "inference.threshold=0.9"]) == 0
    assert "inference.threshold=0.9 hides it" in capsys.readouterr().err


def test_images_without_labels(workplace, tiny_roads, capsys):
    Path("photos/sub").mkdir(parents=True)
    for source, name in (("test_0", "a"), ("test_1", "b")):
        shutil.copy(tiny_roads / "tiny" / "test" / "image" / f"{source}.png", f"photos/{name}.png")
    assert inference.main(["-c", "tiny.yaml"]) == 0
    assert inference.main(["--input", "photos", "--output", "out"]) == 0
    for source, name in (("test_0", "a"), ("test_1", "b")):
        mask = grey(Path("out/mask") / f"{name}.png")
        np.testing.assert_array_equal(mask, grey(Path("results/run/mask") / f"{source}.png"))
    report = read_json("out/predictions.json")
    assert report["split"] is None and report["threshold"] == 0.5
    assert report["images"][1]["road_share"] == pytest.approx((mask > 0).mean())
    assert {path.name for path in Path("out").iterdir()} == {"mask", "predictions.json"}
    assert "predictions.json, mask" in capsys.readouterr().out

    # Equal stems are kept apart, an unreadable file does not stop the others.
    cv2.imwrite("photos/a.jpg", np.full((40, 30, 3), 90, np.uint8))
    Path("photos/broken.tif").write_bytes(b"II*\0")
    assert inference.main(["--input", "photos", "--output", "more"]) == 1
    written = sorted(path.name for path in Path("more/mask").iterdir())
    assert written == ["a.jpg.png", "a.png.png", "b.png"]
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and "broken.tif" in errors[0]

    assert inference.main(["--input", "photos/b.png", "--output", "one"]) == 0
    assert [path.name for path in Path("one/mask").iterdir()] == ["b.png"]


def test_inputs_that_give_nothing_are_refused(workplace, capsys):
    Path("empty").mkdir()
    assert "empty: no images" in refused(capsys, "--input", "empty")
    assert "nowhere: no such" in refused(capsys, "--input", "nowhere")
    message = refused(capsys, "--input", "empty", "inference.save_outputs=false")
    assert "would write nothing" in message


def test_broken_weights_are_named(workplace, capsys):
    weights = network(0).state_dict()
    weights["head.bias"].fill_(float("nan"))
    save_run(RUN / "best_f1score.pth", seed=0, model=weights)
    assert inference.main(["-c", "tiny.yaml"]) == 1
    assert "test_0: the model's answer is not a number" in capsys.readouterr().err
    assert not Path("results/run/metrics.json").exists()


def test_two_ranks_write_what_one_does(workplace):
    (workplace / "start.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nimport inference, model\n"
        "model.MODELS['TinyNet'] = 'tests.tiny_net'\nsys.exit(inference.main())\n"
    )
    argv = ["-c", "tiny.yaml", "inference.split=val", "device=cpu"]
    assert inference.main([*argv, "--output", "one"]) == 0
    for earlier in ("inference.split=test", "inference.save_prob_map=true"):  # which goes
        assert inference.main([*argv, earlier, "--output", "two"]) == 0
    ranks = run_two_ranks([sys.executable, "start.py", *argv, "--output", "two"], timeout_s=120)
    assert [rank.status for rank in ranks] == [0, 0]
    assert "iou_per_image" in ranks[0].stdout and not ranks[1].stdout
    assert read_json("two/metrics.json") == read_json("one/metrics.json")
    one, two = (sorted(p.relative_to(f) for p in Path(f).rglob("*.png")) for f in ("one", "two"))
    assert one == two and len(one) == 3 + 3 + 1
    for name in one:
        assert (Path("one") / name).read_bytes() == (Path("two") / name).read_bytes()


def test_help_does_not_import_torch():
    ask = (
        "import sys, inference\n"
        "try: inference.main(['--help'])\n"
        "except SystemExit as end: sys.exit(end.code or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "--sweep" in done.stdout


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_at_once(number, status):
    ask = (
        "import os\nfrom utils.command_line import end_at_signals\n"
        f"end_at_signals()\nos.kill(os.getpid(), {int(number)})"
    )
    done = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status and not done.stderr
