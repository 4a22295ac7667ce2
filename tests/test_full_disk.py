"""No room for a file: a line that names it, status 1, and what was there before stays.

The system's limit on the size of a file stands for the full disk: writers fail alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from openpyxl import Workbook
from PIL import Image

import inference
import prepare_data
from tests.test_train import run_train, workplace  # noqa: F401
from tests.tiny_run import RUN, enter_workplace, save_run
from utils.encoding import encoded
from utils.files import DiskFull, atomic_path
from utils.safetensors_file import write_safetensors

resource = pytest.importorskip("resource", reason="this system does not limit the size of files")

NOISE = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)


@contextmanager
def room_of(num_bytes: int) -> Iterator[None]:
    """No file can grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def status_and_line(capsys, program: Callable[[], int]) -> tuple[int, str]:
    """How a program ended, and the last line that it said."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        program()
    told = capsys.readouterr().err
    assert "Traceback" not in told
    return ended.value.code, told.splitlines()[-1]


def write_sheet(path: Path) -> None:
    book = Workbook()
    for row in NOISE.reshape(64, -1).tolist():
        book.active.append(row)
    book.save(path)


WRITERS = {
    "a.png": lambda path: path.write_bytes(encoded(".png", NOISE)),
    "a.npy": lambda path: np.save(path, NOISE),
    "a.tif": lambda path: Image.fromarray(NOISE).save(path, compression="tiff_deflate"),
    "a.pth": lambda path: torch.save({"a": torch.from_numpy(NOISE)}, path),
    "a.xlsx": write_sheet,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of openpyxl
def test_every_writer_names_the_file_and_leaves_the_old_one(tmp_path, name):
    (tmp_path / name).write_text("old")
    message = rf"{name} could not be written \(File too large\)"
    with pytest.raises(DiskFull, match=message), room_of(3000):  # noqa: SIM117
        with atomic_path(tmp_path / name) as path:
            WRITERS[name](path)
    assert (tmp_path / name).read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_safetensors_too(tmp_path):
    checkpoint = {"model": {"a": torch.from_numpy(NOISE)}, "ema": None}
    with pytest.raises(DiskFull, match=r"a\.safetensors"), room_of(3000):
        write_safetensors(tmp_path / "a.safetensors", checkpoint)


def test_other_failures_stay_what_they_are(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "a"):
        1 / 0  # noqa: B018


def test_training_goes_on_when_there_is_room_again(workplace, capsys):  # noqa: F811
    assert run_train("epochs=1") == 0
    last = workplace / RUN / "last.pth"
    before = last.read_bytes()
    for room, file in ((100, "config.yaml"), (len(before) // 8, "best_")):
        with room_of(room):
            status, line = status_and_line(capsys, lambda: run_train("epochs=2", "load=auto"))
        assert status == 1 and line.startswith(f"logs_weights/run/{file}")
        assert line.endswith("(File too large): free some space, then go on with load=auto")
        assert last.read_bytes() == before
        assert not list(last.parent.glob(".*"))
    assert run_train("epochs=2", "load=auto") == 0


def test_inference_and_preparation(tmp_path, monkeypatch, tiny_roads, capsys):
    enter_workplace(tmp_path, monkeypatch, tiny_roads)
    save_run(RUN / "best_f1score.pth", seed=0)
    with room_of(50):
        status, line = status_and_line(capsys, lambda: inference.main(["-c", "tiny.yaml"]))
        assert status == 1 and line.startswith("results/run/.maps.json could not")
        assert line.endswith("free some space, then give the same command again")
        command = ["sample", "--dst", "new", "--images", "1", "--size", "128"]
        status, line = status_and_line(capsys, lambda: prepare_data.main(command))
        assert status == 1 and line.startswith("new/manifest.json could not be written")
