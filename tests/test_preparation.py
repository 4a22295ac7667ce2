"""Public datasets into the layout: each one's shape, splits, tiles, stops and mistakes."""

from __future__ import annotations

import csv
import hashlib
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import prepare_data
from tests import miniatures
from tests.conftest import ROOT
from utils.dataset_check import check_dataset


def prepare(dataset: str, src: Path, dst: Path, *options: object) -> int:
    return prepare_data.main(
        [dataset, "--src", str(src), "--dst", str(dst), *[str(option) for option in options]]
    )


def refused(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """What a request that must fail says."""
    with pytest.raises(SystemExit) as ended:
        prepare(*arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "manifest.csv", newline="") as file:
        return list(csv.DictReader(file))


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def deepglobe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return miniatures.deepglobe(tmp_path_factory.mktemp("deepglobe"))


@pytest.mark.parametrize("dataset", list(miniatures.MINIATURES))
def test_every_distribution_passes_the_check(tmp_path: Path, dataset: str, capsys):
    src = miniatures.MINIATURES[dataset](tmp_path / "src")
    before = content(src)
    assert prepare(dataset, src, tmp_path / "dst") == 0
    folder = tmp_path / "dst" / dataset
    assert check_dataset(folder) == 0, capsys.readouterr().out
    assert content(src) == before
    assert json.loads((folder / "manifest.json").read_text())["complete"] is True
    rows = rows_of(folder)
    assert len(rows) == len(list(folder.glob("*/image/*"))) == len(list(folder.glob("*/label/*")))
    for row in rows:
        image = folder / row["split"] / "image" / row["image"]
        label = folder / row["split"] / "label" / row["label"]
        assert row["image_sha256"] == hashlib.sha256(image.read_bytes()).hexdigest()
        assert row["label_sha256"] == hashlib.sha256(label.read_bytes()).hexdigest()
        assert row["source_sha256"] == hashlib.sha256(before[row["source"]]).hexdigest()
        assert row["source_label"] in before
        mask = np.asarray(Image.open(label))
        assert mask.ndim == 2 and set(np.unique(mask)) == {0, 255}
        assert (int(row["height"]), int(row["width"])) == mask.shape
        valid = np.ones(mask.shape, bool)
        if dataset == "spacenet":
            valid[:, -10:] = False  # where the miniature has no data
        assert float(row["road_share"]) == pytest.approx((mask[valid] > 0).mean(), abs=1e-4)


def test_whole_images_are_copied_and_masks_cleaned(tmp_path: Path, deepglobe: Path):
    assert prepare("deepglobe", deepglobe, tmp_path) == 0
    for row in rows_of(tmp_path / "deepglobe"):
        folder = tmp_path / "deepglobe" / row["split"]
        source = deepglobe / row["source"]
        assert (folder / "image" / row["image"]).read_bytes() == source.read_bytes()
        stored = np.asarray(Image.open(deepglobe / row["source_label"]))[..., 0]
        mask = np.asarray(Image.open(folder / "label" / row["label"]))
        assert (mask == np.where(stored >= 128, 255, 0)).all()


def test_official_splits_are_kept(tmp_path: Path):
    src = miniatures.massachusetts(tmp_path / "src")
    prepare("massachusetts", src, tmp_path / "dst")
    rows = rows_of(tmp_path / "dst/massachusetts")
    assert all(row["source"].startswith(f"tiff/{row['split']}/") for row in rows)
    src = miniatures.chn6(tmp_path / "chn6")
    prepare("chn6", src, tmp_path / "dst", "--split", "official")
    rows = rows_of(tmp_path / "dst/chn6")
    assert Counter(row["split"] for row in rows) == {"train": 9, "val": 1, "test": 3}
    assert all("val/images" in row["source"] for row in rows if row["split"] == "test")


def test_the_older_names_of_massachusetts(tmp_path: Path):
    for part in ("train", "valid", "test"):
        image, mask = miniatures.scene(len(part), 40, 40)
        miniatures.write(tmp_path / f"src/{part}/sat/{part}_15.tiff", image)
        miniatures.write(tmp_path / f"src/{part}/map/{part}_15.tif", mask)
    assert prepare("massachusetts", tmp_path / "src", tmp_path) == 0
    splits = {row["split"]: row["name"] for row in rows_of(tmp_path / "massachusetts")}
    assert splits == {"train": "train_15", "val": "valid_15", "test": "test_15"}


def splits_of(src: Path, dst: Path, *options: object) -> dict[str, str]:
    assert prepare("deepglobe", src, dst, *options) == 0
    return {row["name"]: row["split"] for row in rows_of(dst / "deepglobe")}


def test_the_academic_split_is_seeded(tmp_path: Path, deepglobe: Path):
    first = splits_of(deepglobe, tmp_path / "a")
    # 12 * 1530 / 6226 for the test, a tenth of the others to choose on
    assert Counter(first.values()) == {"test": 3, "val": 1, "train": 8}
    assert splits_of(deepglobe, tmp_path / "b", "--split", "academic", "--seed", 6) == first
    assert splits_of(deepglobe, tmp_path / "c", "--seed", 7) != first


def test_shares(tmp_path: Path, deepglobe: Path):
    found = splits_of(deepglobe, tmp_path, "--split", "ratio:50,25,25")
    assert Counter(found.values()) == {"train": 6, "val": 3, "test": 3}


def test_lists(tmp_path: Path, deepglobe: Path):
    names = tmp_path / "train.txt"
    names.write_text("# to train on\n" + "".join(f"{n}_sat.jpg\n" for n in range(100, 108)))
    found = splits_of(deepglobe, tmp_path / "a", "--list", names)
    assert {name for name, split in found.items() if split == "test"} == {
        "108", "109", "110", "111"
    }  # fmt: skip
    assert Counter(found.values())["val"] == 1
    names.write_text("100 train\n101,val\n102 test\n", encoding="utf-8-sig")  # as Windows may
    found = splits_of(deepglobe, tmp_path / "b", "--list", names)
    assert found == {"100": "train", "101": "val", "102": "test"}


def test_every_mistake_of_a_list(tmp_path: Path, deepglobe: Path, capsys):
    names = tmp_path / "names.txt"
    names.write_text("100\n100\n101 training\n77\n78\n")
    said = refused(capsys, "deepglobe", deepglobe, tmp_path, "--list", names)
    assert f"{names}:2: 100 is listed twice" in said
    assert f"{names}:3: expected NAME or NAME SPLIT, got '101 training'" in said
    assert "not in --src: 2 (77, 78)" in said
    names.write_bytes("100\nÄ\n".encode("latin-1"))
    said = refused(capsys, "deepglobe", deepglobe, tmp_path, "--list", names)
    assert said.splitlines()[-1] == f"{names}: not a text file in UTF-8"


def test_every_mistake_of_the_source_in_one_report(tmp_path: Path, capsys):
    src = miniatures.deepglobe(tmp_path / "src")
    (src / "train/100_mask.png").unlink()
    (src / "train/101_sat.jpg").unlink()
    half = (src / "train/102_sat.jpg").read_bytes()
    (src / "train/102_sat.jpg").write_bytes(half[: len(half) // 2])
    miniatures.write(src / "train/103_mask.png", np.zeros((40, 48), np.uint8))
    (src / "train/104_mask.png").write_text("<html>")
    miniatures.write(src / "train/preview.png", np.zeros((4, 4), np.uint8))
    said = refused(capsys, "deepglobe", src, tmp_path / "dst")
    for part in (
        "without a label: 1 (100_sat.jpg)",
        "without an image: 1 (101_mask.png)",
        "102_sat.jpg: cannot be read",
        "103: the image has 48 x 48 px, its label 48 x 40",
        "104_mask.png: is no JPEG, PNG or TIFF file",
        "neither NAME_sat nor NAME_mask: 1 (preview.png)",
    ):
        assert part in said
    assert not (tmp_path / "dst").exists()


def test_missing_folders_and_archives_are_named(tmp_path: Path, capsys):
    src = miniatures.massachusetts(tmp_path / "src")
    (src / "tiff/val_labels").rename(src / "tiff/labels_of_val")
    assert "no folders val and val_labels or val/sat and val/map" in refused(
        capsys, "massachusetts", src, tmp_path / "dst"
    )
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/archive.zip").write_bytes(b"PK")
    said = refused(capsys, "chn6", tmp_path / "empty", tmp_path)
    assert said.startswith(f"{tmp_path / 'empty'}: no CHN6-CUG here, expected train/images")
    assert "unpack first: archive.zip" in said
    assert "no such folder" in refused(capsys, "chn6", tmp_path / "nowhere", tmp_path)


def test_mistakes_of_the_command_line_are_told_together(tmp_path: Path, deepglobe: Path, capsys):
    options = ("--split", "oficial", "--tile", 8, "--seed", -1, "--list", tmp_path / "none.txt")
    said = refused(capsys, "deepglobe", deepglobe, tmp_path, *options)
    wrong = ("deepglobe has academic, ratio:80,10,10", "at least 32", "negative", "none.txt")
    for part in wrong:
        assert part in said
    said = refused(capsys, "deepglobe", tmp_path / "nowhere", tmp_path, *options)
    for part in (*wrong, "nowhere: no such folder"):
        assert part in said
    said = refused(capsys, "deepglobe", deepglobe, tmp_path, "--split", "ratio:1,2")
    assert "three positive numbers" in said
    assert "no effect without --tile" in refused(
        capsys, "deepglobe", deepglobe, tmp_path, "--overlap", 8
    )
    assert "must stay as it is" in refused(capsys, "deepglobe", deepglobe, deepglobe / "out")


def test_other_settings_and_foreign_folders_are_refused(tmp_path: Path, deepglobe: Path, capsys):
    prepare("deepglobe", deepglobe, tmp_path)
    assert "another setting (seed 6)" in refused(
        capsys, "deepglobe", deepglobe, tmp_path, "--seed", 7
    )
    (tmp_path / "other/deepglobe").mkdir(parents=True)
    (tmp_path / "other/deepglobe/notes.txt").write_text("mine")
    assert "holds other things" in refused(capsys, "deepglobe", deepglobe, tmp_path / "other")


def test_a_second_run_does_nothing_again_and_mends_what_is_gone(tmp_path: Path, deepglobe: Path):
    prepare("deepglobe", deepglobe, tmp_path)
    folder = tmp_path / "deepglobe"
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/*/*")}
    gone = sorted(before)[3]
    expected = content(folder)
    gone.unlink()
    assert prepare("deepglobe", deepglobe, tmp_path) == 0
    assert content(folder) == expected
    again = [path for path, time_ns in before.items() if path.stat().st_mtime_ns != time_ns]
    assert {path.stem for path in again} == {gone.stem}


def test_other_images_of_the_same_names_are_refused(tmp_path: Path, deepglobe: Path, capsys):
    prepare("deepglobe", deepglobe, tmp_path)
    before = content(tmp_path / "deepglobe")
    other = miniatures.deepglobe(tmp_path / "other")
    for path in other.glob("train/*_sat.jpg"):
        miniatures.write(path, miniatures.scene(int(path.name[:3]), 48, 48)[0], quality=90)
    for src in (other, other / "train"):  # the same paths below --src, and others
        said = refused(capsys, "deepglobe", src, tmp_path)
        assert f"{tmp_path / 'deepglobe'}: was prepared from other images: give the --src" in said
    assert content(tmp_path / "deepglobe") == before


def test_changed_images_and_masks_are_converted_anew(tmp_path: Path, capsys):
    src = miniatures.deepglobe(tmp_path / "src", count=6)
    assert prepare("deepglobe", src, tmp_path / "twice", "--tile", 40) == 0
    folder = tmp_path / "twice/deepglobe"
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/*/*")}
    image, mask = miniatures.scene(50, 60, 40)  # has fewer tiles than it had
    miniatures.write(src / "train/100_sat.jpg", image, quality=90)
    miniatures.write(src / "train/100_mask.png", mask)
    miniatures.write(src / "train/101_mask.png", mask[:48].repeat(2, axis=1)[:, :48])
    capsys.readouterr()
    assert prepare("deepglobe", src, tmp_path / "twice", "--tile", 40) == 0
    assert "2 are not as they were, and are converted anew" in capsys.readouterr().err
    assert prepare("deepglobe", src, tmp_path / "once", "--tile", 40) == 0
    assert content(folder) == content(tmp_path / "once/deepglobe")
    kept = {
        path.stem[:3]
        for path, time in before.items()
        if path.is_file() and path.stat().st_mtime_ns == time
    }
    assert kept == {"102", "103", "104", "105"}


def test_a_pair_that_cannot_be_decoded_costs_a_line(tmp_path: Path, capsys):
    """A PNG of which only the pixels are damaged looks sound from outside."""
    src = miniatures.deepglobe(tmp_path / "src", count=5)
    path = src / "train/102_mask.png"
    data = bytearray(path.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(data)
    assert prepare("deepglobe", src, tmp_path) == 1
    assert "102_mask.png: cannot be read" in capsys.readouterr().err
    folder = tmp_path / "deepglobe"
    assert len(list(folder.glob("*/image/*"))) == 4
    assert not (folder / "manifest.csv").exists()
    miniatures.deepglobe(src, count=5)
    assert prepare("deepglobe", src, tmp_path) == 0
    assert len(rows_of(folder)) == 5


def test_a_copy_that_cannot_be_decoded_is_not_kept(tmp_path: Path, capsys):
    src = miniatures.massachusetts(tmp_path / "src", side=40)
    path = next((src / "tiff/train").iterdir())
    path.write_bytes(path.read_bytes()[:-1000])
    assert prepare("massachusetts", src, tmp_path) == 1
    said = capsys.readouterr().err
    assert f"{path}: is truncated or damaged" in said
    assert str(tmp_path / "massachusetts") not in said
    folder = tmp_path / "massachusetts"
    assert len(list(folder.glob("*/image/*"))) == len(list(folder.glob("*/label/*"))) == 8


def test_killed_at_any_moment_nothing_is_half_written(tmp_path: Path):
    src = miniatures.deepglobe(tmp_path / "src", count=120, side=160)
    prepare("deepglobe", src, tmp_path / "whole")
    command = [sys.executable, "prepare_data.py", "deepglobe"]
    command += ["--src", str(src), "--dst", str(tmp_path / "killed")]
    folder = tmp_path / "killed" / "deepglobe"
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while len(list(folder.glob("*/image/[!.]*"))) < 20 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    written = list(folder.glob("*/*/[!.]*"))
    assert 40 <= len(written) < 240 and not (folder / "manifest.csv").exists()
    for path in written:
        Image.open(path).load()
    assert prepare("deepglobe", src, tmp_path / "killed") == 0
    assert content(folder) == content(tmp_path / "whole" / "deepglobe")
