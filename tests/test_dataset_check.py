"""The dataset report and the quick look before a training: what they find, and what they return."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from utils import dataset_check
from utils.dataset_check import check_dataset, dataset_problems


def write(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Three splits of two sound pairs, 48 x 32 and 64 x 64 px; a quarter of every mask is road."""
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name, (height, width) in {"a": (32, 48), "b": (64, 64)}.items():
            image = rng.integers(30, 220, (height, width, 3), dtype=np.uint8)
            label = np.zeros((height, width), np.uint8)
            label[: height // 4] = 255
            write(tmp_path / "roads" / split / "image" / f"{name}.png", image)
            write(tmp_path / "roads" / split / "label" / f"{name}.png", label)
    return tmp_path / "roads"


def report(dataset: Path, capsys: pytest.CaptureFixture) -> tuple[int, str]:
    status = check_dataset(dataset)
    return status, capsys.readouterr().out


def quick_look(dataset: Path, splits: tuple[str, ...] = ("train", "val")) -> None:
    dataset_problems(dataset.parent, dataset.name, splits)


def run_check(dataset: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "prepare_data.py", "check", str(dataset)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_a_sound_dataset(dataset: Path):
    done = run_check(dataset)
    assert done.returncode == 0, done.stderr
    assert "errors: 0, warnings: 0" in done.stdout
    row = next(line for line in done.stdout.splitlines() if "train" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["train", "2", "48 x 32", "48 x 32", "64 x 64", "25.00%", "0.00%", "0, 255"]
    quick_look(dataset)


def test_everything_that_is_wrong_at_once(dataset: Path):
    (dataset / "train/image/a.png").rename(dataset / "train/image/other.png")
    half = (dataset / "train/image/b.png").read_bytes()
    (dataset / "train/image/b.png").write_bytes(half[: len(half) // 2])
    write(dataset / "val/label/a.png", np.full((32, 40), 255, np.uint8))
    write(dataset / "val/image/b.png", np.asarray(Image.open(dataset / "test/image/b.png")))
    for path in (dataset / "test/label").iterdir():
        write(path, np.zeros_like(np.asarray(Image.open(path))))
    done = run_check(dataset)
    assert done.returncode == 1 and not done.stderr
    for line in [
        "error: train/image: without a label: 1 (other.png)",
        "error: train/label: without an image: 1 (a.png)",
        f"error: train: {dataset / 'train/image/b.png'}: is truncated",
        "error: val: a: the image has 48 x 32 px, its label 40 x 32",
        "error: the same image in different splits: val/b = test/b",
        "warning: test: masks without road: 2 (a, b)",
        "errors: 5, warnings: 1",
    ]:
        assert line in done.stdout
    with pytest.raises(ValueError) as error:
        quick_look(dataset, ("train", "val", "test"))
    for part in [
        "without a label: 1 (other.png)",
        "without an image: 1 (a.png)",
        "b.png: is truncated",
        "val: a: the image has 48 x 32 px",
        "test: no mask shows any road",
        "prepare_data.py check",
    ]:
        assert part in str(error.value)


def test_both_files_of_a_pair_are_looked_at(dataset: Path, capsys: pytest.CaptureFixture):
    for path in (dataset / "val/image/a.png", dataset / "val/label/a.png"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"image/a\.png: is empty; .*label/a\.png: is empty"):
        quick_look(dataset)
    _, out = report(dataset, capsys)
    assert "image/a.png: is empty; " in out and "label/a.png: is empty\n" in out


def test_missing_splits(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    (dataset / "test").rename(tmp_path / "elsewhere")
    status, out = report(dataset, capsys)
    assert status == 1 and f"error: test: no folder {dataset / 'test' / 'image'}" in out
    quick_look(dataset)  # a training needs no test split
    with pytest.raises(ValueError, match="test: no folder"):
        quick_look(dataset, ("train", "val", "test"))


def test_no_folder_at_all(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert report(tmp_path / "nowhere", capsys) == (1, f"{tmp_path / 'nowhere'}: no such folder\n")
    with pytest.raises(ValueError, match=r"train: no folder(.|\n)*val: no folder"):
        quick_look(tmp_path / "nowhere")


def test_a_folder_of_nearly_that_name_is_told(dataset: Path):
    dataset.rename(dataset.parent / "deepglobe")
    with pytest.raises(ValueError, match=r"deepglobe: dataset_name=deepglobe\?"):
        quick_look(dataset.parent / "DeepGlobe")


def test_no_pairs(dataset: Path, capsys: pytest.CaptureFixture):
    for path in dataset.glob("val/*/*"):
        path.unlink()
    status, out = report(dataset, capsys)
    assert status == 1 and "error: val: no images in" in out
    with pytest.raises(ValueError, match="val: no images in"):
        quick_look(dataset)


def test_shares_are_those_of_all_pixels(dataset: Path, capsys: pytest.CaptureFixture):
    image = np.array(Image.open(dataset / "val/image/b.png"))
    image[:, 32:] = 255
    write(dataset / "val/image/b.png", image)
    label = np.zeros((64, 64), np.uint8)
    label[:, :16] = label[:, 40:] = 1  # the blank half holds road, too
    write(dataset / "val/label/b.png", label)
    _, out = report(dataset, capsys)
    row = next(line for line in out.splitlines() if " val " in line)
    area, blank = 32 * 48 + 64 * 64, 32 * 64
    road = (8 * 48 + 16 * 64) / (area - blank)
    assert f"{road:.2%}" in row and f"{blank / area:.2%}" in row and "0, 1, 255" in row


def test_warnings_are_no_errors(dataset: Path, capsys: pytest.CaptureFixture):
    write(dataset / "train/image/a.png", np.full((32, 48, 3), 255, np.uint8))
    classes = np.zeros((64, 64), np.uint8)
    classes[:9], classes[9:12] = 1, 255
    write(dataset / "train/label/b.png", classes)
    twin = np.asarray(Image.open(dataset / "val/image/a.png"))
    write(dataset / "val/image/twin.png", twin)
    write(dataset / "val/label/twin.png", np.eye(32, 48, dtype=np.uint8))
    status, out = report(dataset, capsys)
    assert status == 0
    assert "warning: train: images without data: 1 (a)" in out
    assert "labels with the values 0, 1, 255 are read as lossy masks, in which only 128" in out
    assert "warning: the same image more than once: val/a = val/twin" in out
    assert "errors: 0, warnings: 3" in out


def test_blank_images_are_no_doubles(dataset: Path, capsys: pytest.CaptureFixture):
    for split in ("train", "val"):
        write(dataset / split / "image/a.png", np.full((32, 48, 3), 255, np.uint8))
    status, out = report(dataset, capsys)
    assert status == 0 and "same image" not in out


def test_quick_look_warns_of_empty_masks(
    dataset: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    write(dataset / "train/label/a.png", np.zeros((32, 48), np.uint8))
    with caplog.at_level(logging.WARNING):
        quick_look(dataset)
    assert caplog.messages == ["train: masks without road: 1 (a)"]
    caplog.clear()
    monkeypatch.setattr(dataset_check, "MAX_LABELS_DECODED", 3)
    quick_look(dataset)
    assert not caplog.messages


def test_photos_in_place_of_masks_are_warned_of(
    dataset: Path, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
):
    for name in "ab":
        photo = np.asarray(Image.open(dataset / f"train/image/{name}.png"))
        write(dataset / f"train/label/{name}.png", photo)
    line = "train: labels that look like photos, not masks: 2 (a, b)"
    status, out = report(dataset, capsys)
    assert status == 0 and f"warning: {line}\nerrors: 0, warnings: 1\n" in out
    with caplog.at_level(logging.WARNING):
        quick_look(dataset)
    assert caplog.messages == [line]


def test_quick_look_sees_truncated_jpegs(dataset: Path):
    (dataset / "val/image/a.png").unlink()
    noise = np.random.default_rng(0).integers(30, 220, (32, 48, 3), dtype=np.uint8)
    path = write(dataset / "val/image/a.jpg", noise)
    data = path.read_bytes()
    path.write_bytes(data + b"\0\0 and a camera's note")
    quick_look(dataset)
    path.write_bytes(data[:-40])
    with pytest.raises(ValueError, match=r"a\.jpg: cannot be read as an image: .*truncated"):
        quick_look(dataset)


def test_the_report_needs_no_torch():
    code = "import sys, utils.dataset_check; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_real_tiles(real_data: Path, capsys: pytest.CaptureFixture):
    status, out = report(real_data / "massachusetts", capsys)
    assert status == 0 and "errors: 0, warnings: 0" in out
    for split, pairs in {"train": 43, "val": 10, "test": 14}.items():
        row = next(line for line in out.splitlines() if split in line and "512 x 512" in line)
        assert f" {pairs} " in row
    quick_look(real_data / "massachusetts")
