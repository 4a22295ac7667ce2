"""What every test shares: few threads, no calls home, small data, and where real imagery is."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]

os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell's background job ignores Ctrl-C, and what the tests start and interrupt would inherit it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def no_gradients():
    import torch

    with torch.no_grad():
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real imagery; tests that need it say so when it is absent."""
    folder = Path(os.environ.get("ANCHOR_SAM_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real imagery not found in {folder} (set ANCHOR_SAM_DATA)")
    return folder


@pytest.fixture(scope="session")
def tiny_roads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ROOT with the dataset `tiny`: bright bars on dark ground, 96 x 80 px, 6 / 3 / 2 images."""
    root = tmp_path_factory.mktemp("datasets")
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3), ("test", 2)):
        for kind in ("image", "label"):
            (root / "tiny" / split / kind).mkdir(parents=True)
        for number in range(count):
            label = np.zeros((80, 96), np.uint8)
            ends = rng.integers(0, 80, 4)
            cv2.line(label, (0, int(ends[0])), (95, int(ends[1])), 255, 9)
            cv2.line(label, (int(ends[2]), 0), (int(ends[3]), 79), 255, 9)
            image = rng.normal(90, 12, (80, 96, 3)) + (label[..., None] > 0) * 60
            name = f"{split}_{number}.png"
            folder = root / "tiny" / split
            cv2.imwrite(str(folder / "image" / name), image.clip(1, 250).astype(np.uint8))
            cv2.imwrite(str(folder / "label" / name), label)
    return root
