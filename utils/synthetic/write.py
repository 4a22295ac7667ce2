"""Writing the embedded data set: its folder, splits and manifest, and going on after a stop.

DST/{train,val,test}/image/scene_0000.jpg     RGB, JPEG
DST/{train,val,test}/label/scene_0000.png     road mask, 0 or 255
DST/{train,val,test}/graph/scene_0000.json    centre lines, metres (1 px = 1 m)
DST/manifest.json                             what it was made from
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from utils.command_line import leave_signals_to_parent
from utils.cores import usable_cores
from utils.encoding import encoded
from utils.files import atomic_path
from utils.synthetic.scene import draw_scene

GENERATOR_VERSION = 1  # raised when the same seed would give another picture
MANIFEST = "manifest.json"
SPLITS = ("train", "val", "test")
SIZES = (128, 2048)
MAX_IMAGES = 10_000
JPEG_SETTINGS = (
    cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_PROGRESSIVE, 0, cv2.IMWRITE_JPEG_OPTIMIZE, 0,
)  # fmt: skip


def write_sample_dataset(
    dst: str,
    *,
    images: int,
    size: int,
    seed: int,
    workers: int | None = None,
    set_aside: bool = False,
) -> int:
    """Write `images` scenes of `size` pixels a side under `dst`; return the exit status.

    The bytes depend on the arguments alone, not on `workers` (None: one per available core). A set
    that is complete is left as it is, one that was interrupted is completed; other things in `dst`
    are moved beside it with `set_aside`. Status 0: the set is there. 2: wrong arguments, or `dst`
    holds other things. 130 and 143: interrupted by Ctrl-C or SIGTERM, call it again.
    """
    folder = Path(dst)
    problems = _argument_problems(images, size, seed)
    wanted = _manifest(images, size, seed)
    if not problems and (problem := _folder_problem(folder, wanted)):
        if set_aside:
            _set_aside(folder)
        else:
            problems = [problem]
    if problems:
        for problem in problems:
            print(f"prepare_data.py sample: {problem}", file=sys.stderr)
        return 2
    missing = [i for i in range(images) if not all(p.exists() for p in _paths(folder, i, images))]
    if not missing and _read_manifest(folder) == wanted | {"complete": True}:
        print(f"{folder}: {images} scenes of {size} px, seed {seed}: already complete")
        return 0
    try:
        _write_manifest(folder, wanted | {"complete": False})
        _remove_leftovers(folder)
        _write_scenes(folder, missing, images=images, size=size, seed=seed, workers=workers)
        _write_manifest(folder, wanted | {"complete": True})
    except (KeyboardInterrupt, SystemExit) as stop:  # the latter from `end_at_signals`
        print(f"{folder}: interrupted, the same command goes on from here", file=sys.stderr)
        return stop.code if isinstance(stop, SystemExit) else 130
    counts = ", ".join(f"{count} {split}" for split, count in wanted["splits"].items())
    print(f"{folder}: {images} scenes of {size} px, seed {seed}: {counts}")
    return 0


def split_counts(images: int) -> dict[str, int]:
    """Scenes in each split: about 70, 15 and 15 %, at least one each from three scenes on."""
    val = max(round(0.15 * images), 1) if images >= 2 else 0
    test = max(round(0.15 * images), 1) if images >= 3 else 0
    return {"train": images - val - test, "val": val, "test": test}


def _manifest(images: int, size: int, seed: int) -> dict:
    return {
        "generator": "procedural aerial road scenes",
        "version": GENERATOR_VERSION,
        "seed": seed,
        "size_px": size,
        "pixel_size_m": 1.0,
        "images": images,
        "splits": split_counts(images),
        "graph": "metres from the upper left corner of the image, x right, y down; nodes are "
        "junctions, dead ends and exits at the image border",
    }


def _argument_problems(images: int, size: int, seed: int) -> list[str]:
    problems = []
    if not 1 <= images <= MAX_IMAGES:
        problems.append(f"--images must be 1 to {MAX_IMAGES}, got {images}")
    if not SIZES[0] <= size <= SIZES[1]:
        problems.append(f"--size must be {SIZES[0]} to {SIZES[1]} pixels, got {size}")
    if seed < 0:
        problems.append(f"--seed must not be negative, got {seed}")
    return problems


def _folder_problem(folder: Path, wanted: dict) -> str | None:
    if folder.exists() and not folder.is_dir():
        return f"{folder} is a file, name a folder with --dst"
    if not folder.exists():
        return None
    found = _read_manifest(folder)
    if found is None:
        # A temporary manifest is all that a very early stop leaves.
        foreign = [p for p in folder.iterdir() if not p.name.startswith(".manifest.")]
        return f"{folder} holds other things, name an empty or new folder" if foreign else None
    differing = [key for key, value in wanted.items() if found.get(key) != value]
    if differing:
        return f"{folder} holds a set of another {', '.join(differing)}, name another folder"
    return None


def _set_aside(folder: Path) -> None:
    """Move what is there, whatever it is, and say where it is now."""
    places = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(1))
    place = next(place for place in places if not place.exists())
    folder.rename(place)
    print(f"{folder}: held other things, or a set of other settings: moved to {place}")


def _read_manifest(folder: Path) -> dict | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError):
        return None
    ours = isinstance(manifest, dict) and "size_px" in manifest and "complete" in manifest
    return manifest if ours else None


def _write_manifest(folder: Path, manifest: dict) -> None:
    with atomic_path(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _remove_leftovers(folder: Path) -> None:
    """Delete what a killed run had begun to write, which has a hidden name."""
    for pattern in (".manifest.*", "*/*/.scene_*"):
        for path in folder.glob(pattern):
            path.unlink()


def _paths(folder: Path, index: int, images: int) -> tuple[Path, Path, Path]:
    """Image, label and graph of a scene. Splits are consecutive scenes: no place is in two."""
    counts = split_counts(images)
    ends = np.cumsum([counts[split] for split in SPLITS])
    split = folder / SPLITS[int(np.searchsorted(ends, index, side="right"))]
    name = f"scene_{index:04d}"
    return (
        split / "image" / f"{name}.jpg",
        split / "label" / f"{name}.png",
        split / "graph" / f"{name}.json",
    )


def _write_scenes(
    folder: Path, indices: list[int], *, images: int, size: int, seed: int, workers: int | None
) -> None:
    for split in SPLITS:
        for kind in ("image", "label", "graph"):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
    task = partial(_write_scene, folder, images=images, size=size, seed=seed)
    workers = min(workers or usable_cores(), len(indices))
    done = map(task, indices) if workers <= 1 else in_processes(task, indices, workers)
    for _ in tqdm(done, total=len(indices), desc="scenes", unit="scene", disable=None):
        pass


def in_processes(task: partial, indices: Sequence[int], workers: int) -> Iterator[None]:
    """Do the task for every index; one that is closed early begins no more."""
    # Spawned, not forked: the caller may run threads, whose locks a fork would copy.
    context = multiprocessing.get_context("spawn")
    # Not by `with`: its own shutdown at the end would take the cancelling back.
    pool = ProcessPoolExecutor(workers, context, _start_worker)
    try:
        for future in as_completed([pool.submit(task, index) for index in indices]):
            yield future.result()
    finally:  # after a failure or Ctrl-C, the scenes not yet begun are left out
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    cv2.setNumThreads(1)
    leave_signals_to_parent()


def _write_scene(folder: Path, index: int, *, images: int, size: int, seed: int) -> None:
    scene = draw_scene(seed, index, size)
    image_path, label_path, graph_path = _paths(folder, index, images)
    _write_image(image_path, cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR), JPEG_SETTINGS)
    _write_image(label_path, scene.label, (cv2.IMWRITE_PNG_COMPRESSION, 6))
    with atomic_path(graph_path) as temporary:
        temporary.write_text(json.dumps(scene.graph) + "\n", encoding="utf-8")


def _write_image(path: Path, pixels: np.ndarray, settings: tuple[int, ...]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded(path.suffix, pixels, settings))
