"""`train.py --list-models`: every config with its paper, its size and its weight file."""

from __future__ import annotations

import io
import os
import sys

import pytest

import train
from model import MODELS
from model.listing import models_table
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def rows() -> dict[str, list[str]]:
    return {row[-1]: row for row in models_table().rows}


def test_every_config_and_every_model_is_listed(rows):
    assert set(rows) == {path.name for path in (ROOT / "config").glob("*.yaml")}
    assert {row[0].splitlines()[0] for row in rows.values()} == set(MODELS)


def test_rows_say_what_the_config_builds(rows):
    name, paper, parameters, weights, _ = rows["Anchor-SAM.yaml"]
    assert name == "AnchorSAM\nor SAM2Point1Net\n(large)"
    assert "IEEE TGRS 2026" in paper and "10.1109/TGRS.2026.3684896" in paper
    assert (parameters, weights) == ("251,907,413", "sam2.1_hiera_large.pt")
    assert rows["LinkNet.yaml"][0] == "SMP\n(linknet, resnet34)"
    assert rows["LinkNet.yaml"][1].startswith("LinkNet: Chaurasia and Culurciello, VCIP 2017\n")
    assert rows["UNet.yaml"][2:4] == ["31,037,633", "none"]
    assert rows["DeepLabV3Plus.yaml"][2:4] == ["59,339,169", "resnet101-63fe2227.pth"]
    assert rows["D-LinkNet.yaml"][3] == "resnet34-b627a593.pth"  # the class's own default
    assert rows["UPerNet.yaml"][3] == "resnet50-0676ba61.pth"
    assert rows["SegFormer.yaml"][3] == rows["quickstart.yaml"][3] == "none"


def test_the_option_needs_no_config(monkeypatch, capsys):
    monkeypatch.setattr("model.listing.models_table", lambda: "the table")
    with pytest.raises(SystemExit) as stop:
        train.main(["--list-models"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == "the table\n"


def without_reader(monkeypatch, *, buffered: bool):
    """Standard output as `| head` leaves it behind."""
    reader, writer = os.pipe()
    os.close(reader)
    output = os.fdopen(writer, "w") if buffered else os.fdopen(writer, "wb", buffering=0)
    output = output if buffered else io.TextIOWrapper(output, write_through=True)
    monkeypatch.setattr(sys, "stdout", output)
    return output


@pytest.mark.parametrize("buffered", [True, False])
def test_a_reader_that_has_left_is_no_error(monkeypatch, capfd, buffered):
    monkeypatch.setattr("model.listing.models_table", lambda: "the table")
    output = without_reader(monkeypatch, buffered=buffered)
    with pytest.raises(SystemExit) as stop:
        train.main(["--list-models"])
    assert stop.value.code == 141  # as for a program that SIGPIPE ends
    output.close()  # as Python does at its end: no complaint
    assert capfd.readouterr() == ("", "")


def test_another_broken_pipe_stays_an_error(monkeypatch):
    def broken():
        raise BrokenPipeError

    monkeypatch.setattr("model.listing.models_table", broken)
    with pytest.raises(BrokenPipeError):
        train.main(["--list-models"])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [", "mine.yaml: not valid YAML"),
        ("- a", "mine.yaml: model_classname is None"),
        ("model_classname: Nett", "mine.yaml: model_classname is 'Nett'"),
        ("model_classname: UNet\nmodel_args: {deep: 1}", "mine.yaml: model_args: .*'deep'"),
    ],
)
def test_a_file_that_is_no_config_is_named(tmp_path, monkeypatch, text, problem):
    (tmp_path / "mine.yaml").write_text(text)
    monkeypatch.setattr("model.listing.CONFIGS", tmp_path)
    with pytest.raises(ValueError, match=problem):
        models_table()
