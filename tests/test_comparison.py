"""compare.py: a whole comparison in this process, interrupted and resumed, and all that it leaves.

The scripts run here and not in processes of their own; `test_comparison_launch` has those.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import signal
from html.parser import HTMLParser
from pathlib import Path
from unittest import mock

import numpy as np
import openpyxl
import pytest
import torch
import yaml
from PIL import Image

import compare
import inference
import model
import train
from utils.comparison import tables
from utils.comparison.launch import Interrupted, Launcher, ScriptFailed

SETTINGS = ["dataset_name=tiny", "image_size=64", "batch_size=2", "num_workers=0",
            "comet_ml.enable=false", "learning_rate=0.01", "evaluate_epoch=100"]  # fmt: skip
COMMAND = ["-c", "small.yaml", "large.yaml", "--seeds", "6,7", "--budget", "steps=4",
           "--out", "out", "--no-latency"]  # fmt: skip
SCRIPTS = {"train.py": train.main, "inference.py": inference.main}


class Script:
    """In place of processes: calls of the scripts' own `main`, which it counts.

    `stop_at` interrupts the training of that number after its third step.
    """

    def __init__(self, monkeypatch) -> None:
        self.calls: list[tuple[str, str]] = []
        self.steps: dict[str, int] = {}
        self.stop_at: int | None = None
        self._monkeypatch = monkeypatch

    def __call__(self, launcher: Launcher, script: str, arguments: list[str], log: str) -> None:
        from utils import engine

        self.calls.append((script, log))
        stop_here = self.stop_at == len([s for s, _ in self.calls if s == "train.py"])
        real = engine._train_step

        class Killed(BaseException):
            pass

        def step(training, group):
            if script == "train.py" and stop_here and training.schedule.steps == 3:
                raise Killed
            real(training, group)
            self.steps[log] = self.steps.get(log, 0) + 1

        folder = os.getcwd()
        with self._monkeypatch.context() as patch:
            patch.setattr(engine, "_train_step", step)
            os.chdir(launcher._folder)
            try:
                status = SCRIPTS[script](arguments)
            except Killed:
                raise Interrupted(signal.SIGTERM) from None
            except SystemExit as stop:
                status = stop.code
            finally:
                os.chdir(folder)
        if status:
            raise ScriptFailed(f"{script}: status {status}")


@pytest.fixture(scope="module")
def module_patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def workplace(module_patch, tmp_path_factory, tiny_roads):
    folder = tmp_path_factory.mktemp("work")
    module_patch.chdir(folder)
    module_patch.setitem(model.MODELS, "TinyNet", "tests.tiny_net")
    module_patch.setattr(signal, "signal", lambda *_: None)  # pytest's own handlers stay
    for name, dim in (("small", 2), ("large", 12)):
        content = {"model_classname": "TinyNet", "model_args": {"dim": dim}}
        content |= {"root_dir": str(tiny_roads), "save_every_steps": 1}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder


@pytest.fixture(scope="module")
def script(module_patch):
    script = Script(module_patch)
    module_patch.setattr(Launcher, "run", lambda launcher, *args: script(launcher, *args))
    return script


@pytest.fixture(scope="module")
def finished(workplace, script):
    """A comparison that was interrupted in its second training, and then ran to its end: the
    steps done before, and what was printed after."""
    script.stop_at = 2
    assert compare.main([*COMMAND, *SETTINGS]) == 143
    interrupted = dict(script.steps)
    script.stop_at = None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert compare.main([*COMMAND, *SETTINGS]) == 0
    return interrupted, printed.getvalue()


def without_outputs():
    """For what is about the work alone: drawing takes seconds."""
    return mock.patch.object(compare, "conclude", return_value=True)


def summary() -> dict:
    return json.loads(Path("out/comparison.json").read_text())


def test_an_interruption_costs_no_step_that_was_saved(finished, script):
    interrupted, _ = finished
    assert interrupted == {"small-seed6": 4, "small-seed7": 3}
    assert script.steps == dict.fromkeys(
        ["small-seed6", "small-seed7", "large-seed6", "large-seed7"], 4
    )
    before = len(script.calls)
    with without_outputs():
        assert compare.main([*COMMAND, *SETTINGS]) == 0
    assert script.calls[before:] == []


def test_an_interrupted_training_ends_as_one_that_was_not(finished, workplace, script):
    whole = ["-c", "small.yaml", "--seeds", "7", "--budget", "steps=4", "--no-latency"]
    with without_outputs():
        assert compare.main([*whole, "--out", "whole", *SETTINGS]) == 0
    one, two = (
        torch.load(f"{out}/logs_weights/small-seed7/last.pth", weights_only=True)["model"]
        for out in ("out", "whole")
    )
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_means_are_those_of_the_runs(finished):
    for row in summary()["models"]:
        scores = []
        for seed in (6, 7):
            folder = Path(f"out/results/{row['name']}-seed{seed}")
            scores.append(json.loads((folder / "metrics.json").read_text())["overall"])
        for key, score in row["scores"].items():
            values = [run[key] for run in scores]
            assert score["values"] == pytest.approx(values, rel=1e-11)
            assert score["mean"] == pytest.approx(np.mean(values))
            assert score["std"] == pytest.approx(np.std(values, ddof=1))
    ranks = [row["scores"]["iou"]["rank"] for row in summary()["models"]]
    means = [row["scores"]["iou"]["mean"] for row in summary()["models"]]
    assert sorted(ranks) == [1, 2] and ranks[int(np.argmax(means))] == 1


def numbers(text: str) -> list[float]:
    return [float(x) for x in re.findall(r"[-+]?\d+\.\d+", text)]


def test_table_sheet_and_json_hold_the_same_numbers(finished):
    _, printed = finished
    report = summary()
    keys = [metric["key"] for metric in report["metrics"]]
    book = openpyxl.load_workbook("out/comparison.xlsx")
    header, *sheet = book["scores"].iter_rows(values_only=True)
    with open("out/comparison.csv") as file:
        lines = list(csv.DictReader(file))
    markdown = Path("out/comparison.md").read_text().splitlines()
    latex = Path("out/scores.tex").read_text().splitlines()
    for row, cells, line in zip(report["models"], sheet, lines, strict=True):
        cells = dict(zip(header, cells, strict=True))
        rounded = []
        for key in keys:
            for part in ("mean", "std", "rank"):
                assert cells[f"{key}_{part}"] == row["scores"][key][part]
                assert float(line[f"{key}_{part}"]) == row["scores"][key][part]
            rounded += [round(row["scores"][key][part], 4) for part in ("mean", "std")]
        assert cells["parameters"] == row["parameters"] and cells["flops"] == row["flops"]
        starts = {"| " + row["name"]: printed.splitlines(), "| " + row["name"] + " |": markdown,
                  "    " + row["name"] + " &": latex}  # fmt: skip
        for start, text in starts.items():
            (own,) = [t for t in text if t.startswith(start) and "±" in t.replace(r"$\pm$", "±")]
            assert numbers(own)[: 2 * len(keys)] == pytest.approx(rounded)
    ours = {entry["model"] for entry in report["significance"]["differences"]}
    rows = list(book["significance"].iter_rows(values_only=True, min_row=2))
    assert ours == {"large"} and len(rows) == len(keys)
    assert [list(r) for r in rows] == [
        list(entry.values()) for entry in report["significance"]["differences"]
    ]


def test_best_is_bold_and_second_underlined_everywhere(finished):
    _, printed = finished
    report = summary()
    best = next(m for m in report["models"] if m["scores"]["iou"]["rank"] == 1)
    second = next(m for m in report["models"] if m["scores"]["iou"]["rank"] == 2)
    files = ("", "comparison.md", "scores.tex", "report.html")
    for row, signs in (
        (best, ("*{}*", "**{}**", r"\textbf{{{}}}", "<b>{}</b>")),
        (second, ("_{}_", "<u>{}</u>", r"\underline{{{}}}", "<u>{}</u>")),
    ):
        text = tables.spread(row["scores"]["iou"])
        for sign, file in zip(signs, files, strict=True):
            content = (Path("out") / file).read_text() if file else printed
            wanted = text.replace("±", r"$\pm$") if file.endswith("tex") else text
            assert sign.format(wanted) in content, (file, sign)
        sheet = openpyxl.load_workbook("out/comparison.xlsx")["scores"]
        column = [cell.value for cell in sheet[1]].index("iou_mean") + 1
        line = [cell.value for cell in sheet["A"]].index(row["name"]) + 1
        font = sheet.cell(line, column).font
        assert (font.bold, font.underline) == ((True, None) if row is best else (False, "single"))


def test_latex_has_balanced_groups_and_as_many_cells_as_columns(finished):
    document = Path("out/comparison.tex").read_text()
    assert r"\usepackage{booktabs}" in document
    for name in re.findall(r"\\input\{(\w+)\}", document):
        text = Path(f"out/{name}.tex").read_text()
        plain = re.sub(r"\\.", "", text.replace(r"\\", ""))
        assert plain.count("{") == plain.count("}")
        (columns,) = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", text)
        rows = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert len(rows) > 1
        for line in rows:
            assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1
        assert text.count(r"\begin") == text.count(r"\end")
        assert not re.search(r"[±↑↓]|(?<!\\)[%#](?!$)", text.replace("!}{%", ""))


class Sources(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.images = 0

    def handle_starttag(self, tag, attributes):
        self.images += tag == "img"
        self.found += [value for key, value in attributes if key in ("src", "href", "srcset")]


def test_the_report_asks_for_nothing_from_outside(finished):
    text = Path("out/report.html").read_text()
    parser = Sources()
    parser.feed(text)
    assert parser.images == 3 * 2 + 1  # charts on light and on dark ground, and the grid
    assert all(source.startswith("data:") for source in parser.found)
    assert not re.search(r"https?://|@import|url\(", text)
    for word in ("Significance", "prefers-color-scheme", "small", "large", "steps=4"):
        assert word in text


def test_figures_are_pictures_and_the_grid_has_a_column_a_model(finished):
    sizes = {p.name: Image.open(p).size for p in Path("out/figures").iterdir()}
    assert set(sizes) == {"bars.png", "bars_dark.png", "precision_recall.png",
                          "precision_recall_dark.png", "efficiency.png", "efficiency_dark.png",
                          "disagreement.png"}  # fmt: skip
    width, height = sizes["disagreement.png"]
    assert width > 4 * 256 and height > 2 * 200  # image, truth, two models; two test images


def test_other_settings_in_the_same_folder_are_refused(finished, capsys):
    with pytest.raises(SystemExit) as stop:
        compare.main([*COMMAND, *SETTINGS, "learning_rate=0.02"])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert "small-seed6: learning_rate was 0.01, is now 0.02" in err and "--out" in err


def test_more_metrics_score_again_and_train_nothing(finished, script):
    before = len(script.calls)
    assert compare.main([*COMMAND, *SETTINGS, "metrics=[iou, betti]"]) == 0
    assert {name for name, _ in script.calls[before:]} == {"inference.py"}
    keys = {metric["key"]: metric["more_is_better"] for metric in summary()["metrics"]}
    assert keys["betti0_error"] is False and keys["iou"] is True


def test_runs_that_exist_are_scored_and_not_trained(finished, script, capsys):
    before = len(script.calls)
    runs = ["--runs", "out/logs_weights", "--out", "again", "--no-latency", "--seeds", "6"]
    assert compare.main([*runs, "inference.threshold=0.4"]) == 0
    assert [name for name, _ in script.calls[before:]] == ["inference.py"] * 2
    report = json.loads(Path("again/comparison.json").read_text())
    assert [m["name"] for m in report["models"]] == ["large", "small"]
    assert report["scoring"]["threshold"] == 0.4
    assert report["models"][0]["scores"]["iou"]["std"] is None
    for argv, message in (
        ([*runs[:-1], "6,9"], "no run of large with seed 9, small with seed 9"),
        (["--runs", "out/logs_weights", "whole/logs_weights"], "are both small with seed 7"),
        (["--runs", "out/results"], "no folder with config.yaml"),
        ([*runs, "--budget", "steps=3"], "--budget has no meaning with --runs"),
    ):
        with pytest.raises(SystemExit) as stop:
            compare.main(argv)
        assert stop.value.code == 2
        assert message in capsys.readouterr().err


def test_a_model_that_fails_is_named_and_the_rest_compared(finished, script, capsys):
    content = yaml.safe_load(Path("small.yaml").read_text())
    Path("bad.yaml").write_text(yaml.safe_dump(content | {"load": "absent.pth"}))
    argv = ["-c", "bad.yaml", "small.yaml", "--budget", "steps=1", "--out", "bad", "--no-latency"]
    assert compare.main([*argv, *SETTINGS]) == 1
    report = json.loads(Path("bad/comparison.json").read_text())
    assert list(report["failures"]) == ["bad-seed6"]
    assert [m["name"] for m in report["models"]] == ["small"]
    assert "bad-seed6: FAILED: train.py" in capsys.readouterr().out
    assert "bad-seed6" in Path("bad/report.html").read_text()
    mended = content | {"model_args": {"dim": 3}}
    Path("bad.yaml").write_text(yaml.safe_dump(mended))
    before = len(script.calls)
    with without_outputs():  # other settings of a model that never trained are no other comparison
        assert compare.main([*argv, *SETTINGS]) == 0
    assert script.calls[before:] == [("train.py", "bad-seed6"), ("inference.py", "bad-seed6")]


def test_missing_weights_are_told_together_before_any_training(
    workplace, script, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("ANCHOR_SAM_WEIGHTS", str(tmp_path))
    configs = {
        "first": {"model_classname": "DLinkNet", "model_args": {"pretrained": True}},
        "second": {"model_classname": "SMP", "model_args": {
            "arch": "unet", "encoder_name": "resnet18", "encoder_weights": "mine.pth"}},
        "third": {"model_classname": "DLinkNet", "model_args": {"pretrained": False}},
    }  # fmt: skip
    root = yaml.safe_load(Path("small.yaml").read_text())["root_dir"]
    for name, content in configs.items():
        Path(f"{name}.yaml").write_text(yaml.safe_dump(content | {"root_dir": root}))
    before = len(script.calls)
    argv = ["-c", "third.yaml", "first.yaml", "second.yaml", "--seeds", "6,7", "--out", "weights"]
    with pytest.raises(SystemExit) as stop:
        compare.main([*argv, *SETTINGS])
    assert stop.value.code == 2 and len(script.calls) == before
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("first: resnet34-")
    assert first.endswith(", or set pretrained: false")
    wanted = Path("weights/mine.pth").absolute()  # where the training would look
    without = "or set encoder_weights: null"
    assert second == f"second: weights {wanted}: no such file, {without}"


@pytest.mark.parametrize(
    ("argv", "messages"),
    [
        ([], ["name configs"]),
        (["-c", "small.yaml", "--seeds", "6,x"], ["--seeds", "'6,x'"]),
        (["-c", "small.yaml", "--budget", "step=3"], ["--budget", "did you mean 'steps'"]),
        (["-c", "small.yaml", "--budget", "step=3", "--seeds", "six", "epoch=2"],
         ["--budget", "--seeds", "did you mean 'epochs'"]),
        (["-c", "small.yaml", "--budget", "steps=0"], ["above 0"]),
        (["-c", "small.yaml", "other.yaml", "batch_sise=3"], ["other.yaml", "'batch_size'"]),
        (["-c", "small.yaml", "other.yaml"], ["image_size: small has 64, other has 96", "epochs"]),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_any_work(workplace, capsys, argv, messages):
    content = yaml.safe_load(Path("small.yaml").read_text()) | {"image_size": 96, "epochs": 3}
    Path("other.yaml").write_text(yaml.safe_dump(content))
    settings = SETTINGS if "other.yaml" not in argv else ["dataset_name=tiny"]
    if "other.yaml" in argv:
        small = yaml.safe_load(Path("small.yaml").read_text()) | {"image_size": 64}
        Path("small.yaml").write_text(yaml.safe_dump(small))
    with pytest.raises(SystemExit) as stop:
        compare.main([*argv, *(settings if argv else [])])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert all(message in err for message in messages), err
