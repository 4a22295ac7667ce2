"""The public road datasets in small: their folders and names as they are distributed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from rasterio.transform import from_origin

#: Degrees a pixel of the SpaceNet miniatures: about 0.24 x 0.3 m in Las Vegas.
DEGREES = 2.7e-6
WEST, NORTH = -115.17, 36.24


def write(path: Path, pixels: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def scene(seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """An image (uint8 H W 3) without blank areas, and its mask (uint8 H W, 0 and 255)."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    row, column = rng.integers(4, min(height, width) - 8, 2)
    mask[row : row + 4] = mask[:, column : column + 3] = 255
    image = rng.integers(60, 110, (height, width, 3)) + (mask[..., None] > 0) * 90
    return image.astype(np.uint8), mask


def deepglobe(root: Path, count: int = 12, side: int = 48) -> Path:
    """train/NNN_sat.jpg and NNN_mask.png of three bands; valid and test without masks."""
    for number in range(count):
        image, mask = scene(number, side, side)
        write(root / f"train/{100 + number}_sat.jpg", image, quality=90)
        lossy = np.where(mask > 0, 253, 3).astype(np.uint8)  # not quite 0 and 255, as some are
        write(root / f"train/{100 + number}_mask.png", lossy[..., None].repeat(3, axis=2))
    for part in ("valid", "test"):
        write(root / part / "900_sat.jpg", scene(99, side, side)[0])
    (root / "metadata.csv").write_text("image_id,split,sat_image_path,mask_path\n")
    return root


def massachusetts(root: Path, side: int = 60) -> Path:
    """tiff/{train,val,test} with *_labels: images .tiff, masks .tif; png/ repeats some."""
    for part, count in {"train": 5, "val": 2, "test": 2}.items():
        for number in range(count):
            image, mask = scene(len(part) * 10 + number, side, side)
            name = f"{len(part)}0078{number}60_15"
            write(root / f"tiff/{part}/{name}.tiff", image)
            write(root / f"tiff/{part}_labels/{name}.tif", mask)
    write(root / "png/train/1.png", image)
    write(root / "png/train_labels/1.png", mask)
    return root


def chn6(root: Path, side: int = 64) -> Path:
    """CHN6-CUG/{train,val}/{images,gt} with NAME_sat.jpg and NAME_mask.png."""
    for part, count in {"train": 10, "val": 3}.items():
        for number in range(count):
            image, mask = scene(len(part) * 50 + number, side, side)
            write(root / f"CHN6-CUG/{part}/images/{part}am{number}_sat.jpg", image, quality=90)
            write(root / f"CHN6-CUG/{part}/gt/{part}am{number}_mask.png", mask)
    return root


def spacenet(root: Path, count: int = 6) -> Path:
    """SpaceNet 3's names of today: 11-bit chips of unequal size, lines with lanes."""
    for number in range(count):
        height, width = 130, 130 - number % 2 * 30
        chip(root, "AOI_2_Vegas", f"img{number}", height, width, number)
    city = root / "AOI_2_Vegas"
    for speeds in city.glob("geojson_roads/*"):  # the same lines a second time
        other = city / "geojson_roads_speed" / speeds.name.replace("roads_img", "roads_speed_img")
        other.parent.mkdir(exist_ok=True)
        other.write_text(speeds.read_text())
    return root


def chip(root: Path, city: str, key: str, height: int, width: int, seed: int) -> Path:
    """One chip of 11 bits with a strip without data at its right, and a horizontal line."""
    rng = np.random.default_rng(seed)
    bands = rng.integers(100, 700, (3, height, width)).astype(np.uint16)
    bands[:, 0, 0] = 2047
    bands[:, :, -10:] = 0
    path = root / city / "PS-RGB" / f"SN3_roads_train_{city}_PS-RGB_{key}.tif"
    path.parent.mkdir(parents=True, exist_ok=True)
    place = {"crs": "EPSG:4326", "transform": from_origin(WEST, NORTH, DEGREES, DEGREES)}
    shape = {"count": 3, "height": height, "width": width, "dtype": "uint16"}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place) as target:
        target.write(bands)
    y = NORTH - height / 2 * DEGREES
    line = [[WEST - 0.001, y], [WEST + 0.001, y]]
    labels = root / city / "geojson_roads" / f"SN3_roads_train_{city}_geojson_roads_{key}.geojson"
    write_lines(labels, [(line, {"lane_numbe": "2", "paved": 1})])
    return path


def write_lines(path: Path, lines: list[tuple[list, dict]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    features = [
        {
            "type": "Feature",
            "properties": properties,
            "geometry": {"type": "LineString", "coordinates": line},
        }
        for line, properties in lines
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


MINIATURES = {
    "deepglobe": deepglobe,
    "massachusetts": massachusetts,
    "spacenet": spacenet,
    "chn6": chn6,
}
