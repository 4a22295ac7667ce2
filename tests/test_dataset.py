"""Crops and whole images: what they hold, and that they depend on seed, epoch and index alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from utils.dataset import IGNORE, TrainCrops, WholeImages, find_pairs
from utils.pairing import MAX_NAMES, Pair
from utils.schema import Augmentation

UNCHANGED = Augmentation(probability=0)


def write(path: Path, array: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """root/roads/train: five noise images of 80 x 100 px; red tells the row, green the column."""
    rng = np.random.default_rng(0)
    for number in range(5):
        image = rng.integers(30, 220, (80, 100, 3), dtype=np.uint8)
        image[..., 0] = np.arange(80)[:, None] + 40
        image[..., 1] = np.arange(100)[None] + 40
        label = (image[..., 2] > 120).astype(np.uint8)
        write(tmp_path / f"roads/train/image/{number}.png", image)
        write(tmp_path / f"roads/train/label/{number}.png", label)
    return tmp_path


def test_pairs_by_stem_suffix_and_mixed_extension(tmp_path: Path):
    pixels = np.zeros((4, 4), np.uint8)
    for image, label in [
        ("b_sat.JPG", "b_mask.png"),
        ("a.tif", "a.PNG"),
        ("c_image.jpeg", "c_label.tiff"),
        ("d_img.png", "d_gt.tif"),
        ("e_2_sat.png", "e_2.png"),
        ("_sat.png", "_sat.png"),
    ]:
        write(tmp_path / "d/val/image" / image, pixels)
        write(tmp_path / "d/val/label" / label, pixels)
    for passed_over in ("Thumbs.db", "a.tfw", ".hidden.png", "a.tif.aux.xml"):
        (tmp_path / "d/val/image" / passed_over).write_text("")
    pairs = find_pairs(tmp_path, "d", "val")
    assert [pair.name for pair in pairs] == ["_sat", "a", "b", "c", "d", "e_2"]
    assert pairs[2] == Pair(
        "b", tmp_path / "d/val/image/b_sat.JPG", tmp_path / "d/val/label/b_mask.png"
    )


def test_every_pairing_problem_in_one_message(root: Path):
    pixels = np.zeros((4, 4), np.uint8)
    write(root / "roads/train/image/lonely.png", pixels)
    write(root / "roads/train/label/orphan_mask.png", pixels)
    write(root / "roads/train/image/3_sat.jpg", pixels)
    with pytest.raises(ValueError) as error:
        find_pairs(root, "roads", "train")
    message = str(error.value)
    assert "without a label: 1 (lonely.png)" in message
    assert "without an image: 1 (orphan_mask.png)" in message
    assert "several images of one name: 3.png = 3_sat.jpg" in message


def test_missing_folders_and_empty_folders_are_told_with_their_place(tmp_path: Path):
    with pytest.raises(ValueError, match=r"prepare_data\.py sample") as error:
        find_pairs(tmp_path, "roads", "val")
    assert str(tmp_path / "roads" / "val" / "image") in str(error.value)
    assert str(tmp_path / "roads" / "val" / "label") in str(error.value)
    for folder in ("image", "label"):
        (tmp_path / "roads/val" / folder).mkdir(parents=True)
    with pytest.raises(ValueError, match=r"no images in .*\.tiff"):
        find_pairs(tmp_path, "roads", "val")


def test_long_lists_are_counted(tmp_path: Path):
    for number in range(MAX_NAMES + 3):
        write(tmp_path / f"d/val/image/{number:03}.png", np.zeros((2, 2), np.uint8))
    (tmp_path / "d/val/label").mkdir()
    with pytest.raises(ValueError, match=r"without a label: 23 \(000\.png, .* and 3 more\)"):
        find_pairs(tmp_path, "d", "val")


def test_crop_is_a_part_of_the_image_with_its_label(root: Path):
    pairs = find_pairs(root, "roads", "train")
    crops = TrainCrops(pairs, 32, UNCHANGED, seed=6, crops_per_image=3)
    assert len(crops) == 15
    corners = set()
    for index in range(len(crops)):
        sample = crops[(1, index)]
        assert sample["name"] == str(index // 3)
        assert sample["image"].shape == (3, 32, 32) and sample["image"].dtype == torch.uint8
        assert sample["target"].shape == (32, 32) and sample["target"].dtype == torch.uint8
        top, left = (int(sample["image"][channel, 0, 0]) - 40 for channel in (0, 1))
        whole = np.asarray(Image.open(pairs[index // 3].image))
        expected = whole[top : top + 32, left : left + 32]
        assert (sample["image"].numpy() == expected.transpose(2, 0, 1)).all()
        assert (sample["target"].numpy() == (expected[..., 2] > 120)).all()
        corners.add((top, left))
    assert len(corners) > 10


def test_crops_reach_every_edge_and_nothing_else_is_drawn_on(root: Path):
    crops = TrainCrops(find_pairs(root, "roads", "train")[:1], 76, UNCHANGED, seed=6)
    tops = {int(crops[(epoch, 0)]["image"][0, 0, 0]) - 40 for epoch in range(60)}
    assert tops == {0, 1, 2, 3, 4}


def test_crops_depend_on_seed_epoch_and_index(root: Path):
    pairs = find_pairs(root, "roads", "train")

    def crop(seed: int, epoch: int, index: int) -> torch.Tensor:
        return TrainCrops(pairs, 32, Augmentation(), seed)[(epoch, index)]["image"]

    assert torch.equal(crop(6, 2, 1), crop(6, 2, 1))
    for other in [(7, 2, 1), (6, 3, 1), (6, 2, 2)]:
        assert not torch.equal(crop(6, 2, 1), crop(*other))


def test_workers_change_nothing(root: Path):
    crops = TrainCrops(find_pairs(root, "roads", "train"), 32, Augmentation(), 6, 2)
    keys = [(epoch, index) for epoch in (1, 2) for index in (7, 0, 3, 9)]

    def batches(workers: int) -> list[dict]:
        return list(DataLoader(crops, batch_size=2, sampler=keys, num_workers=workers))

    for alone, shared in zip(batches(0), batches(2), strict=True):
        assert alone["name"] == shared["name"]
        assert torch.equal(alone["image"], shared["image"])
        assert torch.equal(alone["target"], shared["target"])


def test_small_images_are_padded_with_ignore(root: Path):
    pairs = find_pairs(root, "roads", "train")
    sample = TrainCrops(pairs, 96, UNCHANGED, seed=6)[(1, 0)]
    assert sample["image"].shape == (3, 96, 96)
    assert (sample["target"][80:] == IGNORE).all() and (sample["image"][:, 80:] == 0).all()
    assert (sample["target"][:80] != IGNORE).all()
    sample = TrainCrops(pairs, 128, UNCHANGED, seed=6)[(1, 0)]
    assert (sample["target"] != IGNORE).sum() == 80 * 100


def test_blank_area_is_ignored_unless_told_otherwise(root: Path):
    pair = find_pairs(root, "roads", "train")[0]
    image = np.array(Image.open(pair.image))
    image[:, 60:] = 255
    write(pair.image, image)
    target = WholeImages([pair])[0]["target"]
    assert (target[:, 60:] == IGNORE).all() and (target[:, :60] != IGNORE).all()
    assert (WholeImages([pair], ignore_nodata=False)[0]["target"] != IGNORE).all()
    crops = TrainCrops([pair], 64, UNCHANGED, seed=6)
    for epoch in range(8):
        sample = crops[(epoch, 0)]
        blank = (sample["image"] == 255).all(0)
        assert torch.equal(sample["target"] == IGNORE, blank)


def test_a_crop_without_data_is_drawn_anew(tmp_path: Path):
    image = np.full((16, 64, 3), 255, np.uint8)
    image[:, :16] = np.random.default_rng(0).integers(30, 220, (16, 16, 3), dtype=np.uint8)
    pair = Pair(
        "half",
        write(tmp_path / "half.png", image),
        write(tmp_path / "half_mask.png", np.zeros((16, 64), np.uint8)),
    )

    def without_data(ignore_nodata: bool) -> int:
        crops = TrainCrops([pair], 16, UNCHANGED, 6, ignore_nodata=ignore_nodata)
        return sum(bool((crops[(e, 0)]["image"] == 255).all()) for e in range(60))

    # Two of three places show nothing: drawn once, 40 of 60; five times, 8 of 60.
    assert 28 < without_data(False) < 52
    assert without_data(True) < 20


def test_whole_images_keep_their_size(root: Path):
    pairs = find_pairs(root, "roads", "train")
    whole = WholeImages(pairs)
    assert len(whole) == 5
    sample = whole[3]
    assert sample["name"] == "3" and sample["image"].shape == (3, 80, 100)
    expected = np.asarray(Image.open(pairs[3].image)).transpose(2, 0, 1)
    assert (sample["image"].numpy() == expected).all()
    assert sample["image"].is_contiguous() and set(sample["target"].unique().tolist()) == {0, 1}


def test_a_label_of_another_size_is_named(root: Path):
    pair = find_pairs(root, "roads", "train")[0]
    write(pair.label, np.zeros((80, 90), np.uint8))
    with pytest.raises(ValueError, match=r"0\.png: 90 x 80 px, but its image has 100 x 80 px"):
        WholeImages([pair])[0]


def test_real_tiles(real_data: Path):
    pairs = find_pairs(real_data, "massachusetts", "train")
    assert len(pairs) == 43
    crops = TrainCrops(pairs, 256, Augmentation(), seed=6)
    batch = next(iter(DataLoader(crops, batch_size=8, sampler=[(1, i) for i in range(8)])))
    assert batch["image"].shape == (8, 3, 256, 256)
    assert set(batch["target"].unique().tolist()) == {0, 1, IGNORE}
