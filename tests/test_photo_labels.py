"""Photos are told from masks, however the masks were stored and scaled."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.imageio import looks_like_photo, read_label_values

SIDE = 256


def streets() -> np.ndarray:
    """A street grid denser than any city's: a quarter of it is road."""
    mask = np.zeros((SIDE, SIDE, 1), np.uint8)
    for at in range(10, SIDE, 60):
        mask[at : at + 8] = mask[:, at : at + 8] = 255
    return mask


def lossy(mask: np.ndarray, quality: int) -> np.ndarray:
    data = cv2.imencode(".jpg", mask, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)[..., None]


def scaled(mask: np.ndarray) -> np.ndarray:
    return cv2.resize(mask, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)[..., None]


def photo() -> np.ndarray:
    noise = np.random.default_rng(0).uniform(0, 255, (SIDE, SIDE, 3)).astype(np.float32)
    return (cv2.GaussianBlur(noise, (0, 0), 3) * 3 - 280).clip(20, 235).astype(np.uint8)


def half_blank(image: np.ndarray) -> np.ndarray:
    image = image.copy()
    image[:, SIDE // 2 :] = 255
    return image


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("mask", streets()),
        ("JPEG", lossy(streets(), 75)),
        ("poor JPEG", lossy(streets(), 30)),
        ("scaled", scaled(streets())),
        ("red on green", np.concatenate([streets(), 200 - streets() // 2, streets() * 0], axis=2)),
        ("classes", streets() // 5 + np.arange(SIDE, dtype=np.uint8)[:, None, None] % 8 * 25),
        ("blank", streets() * 0),
        ("all road", streets() * 0 + 255),
    ],
)  # fmt: skip
def test_masks_are_no_photos(kind, values):
    assert not looks_like_photo(values), kind


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("colours", photo()),
        ("grey", photo()[..., :1]),
        ("16 bits", photo().astype(np.uint16) * 8),
        ("half of it blank", half_blank(photo())),
        ("larger than the sample", photo().repeat(5, axis=0).repeat(5, axis=1)),
    ],
)
def test_photos_are_photos(kind, values):
    assert looks_like_photo(values), kind


def test_real_tiles(real_data: Path):
    folder = real_data / "massachusetts"
    found = {
        kind: [looks_like_photo(read_label_values(path)) for path in folder.glob(f"*/{kind}/*")]
        for kind in ("image", "label")
    }
    assert all(found["image"]) and not any(found["label"])
