"""prepare_data.py with --tile: what the tiles cover, share and say of where they are from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests import miniatures
from tests.test_preparation import prepare, rows_of
from utils.dataset_check import check_dataset


def test_tiles_cover_the_image(tmp_path: Path):
    src = miniatures.massachusetts(tmp_path / "src", side=100)
    options = ("--tile", 64, "--overlap", 16)
    assert prepare("massachusetts", src, tmp_path / "dst", *options) == 0
    folder = tmp_path / "dst/massachusetts"
    assert check_dataset(folder) == 0
    rows = rows_of(folder)
    for source in {row["source"] for row in rows}:
        whole = np.asarray(Image.open(src / source))
        seen = np.zeros(whole.shape[:2], bool)
        tiles = [row for row in rows if row["source"] == source]
        road = np.asarray(Image.open(src / tiles[0]["source_label"])) > 0
        for row in tiles:
            top, left = int(row["top"]), int(row["left"])
            part = slice(top, top + 64), slice(left, left + 64)
            image = np.asarray(Image.open(folder / row["split"] / "image" / row["image"]))
            mask = np.asarray(Image.open(folder / row["split"] / "label" / row["label"]))
            assert image.shape == (64, 64, 3) and (image == whole[part]).all()
            assert ((mask > 0) == road[part]).all()
            seen[part] = True
        assert seen.all() and len(tiles) == 4
    assert len({row["name"] for row in rows}) == len(rows)


def test_neighbouring_tiles_share_the_overlap_to_the_pixel(tmp_path: Path):
    """13 of 41 px is no exact float; the last tiles are shifted to the edge."""
    src = miniatures.massachusetts(tmp_path / "src", side=75)
    options = ("--tile", 41, "--overlap", 13)
    assert prepare("massachusetts", src, tmp_path / "dst", *options) == 0
    rows = rows_of(tmp_path / "dst/massachusetts")
    for side in ("top", "left"):
        assert {int(row[side]) for row in rows} == {0, 28, 34}


def test_tiles_without_data_are_left_out_and_the_others_say_where(tmp_path: Path, capsys):
    src = miniatures.massachusetts(tmp_path / "src", side=128)
    path, blank, *_ = (src / "tiff/train").iterdir()
    image = np.array(Image.open(path))
    image[:70] = 255
    miniatures.write(path, image)
    miniatures.write(blank, np.full_like(image, 255))
    assert prepare("massachusetts", src, tmp_path, "--tile", 64) == 0
    assert f"{blank}: left out, no pixel has data" in capsys.readouterr().err
    assert not any(
        row["source"].endswith(blank.name) for row in rows_of(tmp_path / "massachusetts")
    )
    folder = tmp_path / "massachusetts"
    tiles = [row for row in rows_of(folder) if row["source"].endswith(path.name)]
    assert {row["top"] for row in tiles} == {"64"}
    tile = np.asarray(Image.open(folder / "train/image" / tiles[0]["image"]))
    assert tile.shape == (64, 64, 4) and (tile[:6, :, 3] == 0).all() and tile[20:, :, 3].all()
