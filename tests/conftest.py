"""What every test shares: few threads, no calls home, and the place of the real imagery."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real imagery; tests that need it say so when it is absent."""
    folder = Path(os.environ.get("ANCHOR_SAM_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real imagery not found in {folder} (set ANCHOR_SAM_DATA)")
    return folder
