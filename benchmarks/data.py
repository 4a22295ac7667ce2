#!/usr/bin/env python
"""A training sample's cost: python benchmarks/data.py [--split datasets/massachusetts/train]

python benchmarks/data.py --device cuda

Ours (decode, crop, pixels without data, augment, tensor) beside a plain pipeline of albumentations
(OpenCV decodes everything, RandomCrop and the same steps, ToTensorV2; it looks for no pixels
without data), alternating in one process on the same images. Times are those that one core works,
whatever else the machine does. The bound: 25 ms a sample at 1024 from a JPEG of 1500 x 1500.
Samples are bytes; what it takes to bring them to the device and to normalise them there, as a
training does, is measured by the clock on the wall.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import torch
from prettytable import PrettyTable

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations as A
from albumentations.pytorch import ToTensorV2

from benchmarks.alternating import add_device, add_output, positive, synchronise, write_results
from model.base import IMAGENET, normalise
from utils.arguments import ArgumentParser
from utils.augment import Augment
from utils.command_line import user_mistakes
from utils.dataset import IGNORE, TrainCrops, find_pairs, to_sample
from utils.decoding import Crop
from utils.imageio import read_image_and_valid, read_label, read_size
from utils.memory import keep_freed_memory
from utils.pairing import Pair, listed
from utils.schema import Augmentation
from utils.synthetic.scene import draw_scene

SIDE_PX = 1500
SCENES = 3
BATCH_SIZE, BATCHES = 4, 10  # that go to the device


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    parser.add_argument(
        "--split", type=Path, help=f"ROOT/DATASET/SPLIT (default: {SCENES} procedural scenes)"
    )
    parser.add_argument("--size", type=positive, default=1024, help="of the crops (default 1024)")
    parser.add_argument(
        "--samples", type=positive, default=60, help="of each pipeline (default 60)"
    )
    add_device(parser)
    add_output(parser)
    return parser.read(argv)


def procedural_split(folder: Path) -> Path:
    """Scenes of 1500 x 1500 px as JPEGs of quality 95, with their labels."""
    split = folder / "scenes" / "train"
    for kind in ("image", "label"):
        (split / kind).mkdir(parents=True)
    for index in range(SCENES):
        scene = draw_scene(6, index, SIDE_PX)
        pixels = cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR)
        quality = (cv2.IMWRITE_JPEG_QUALITY, 95)
        cv2.imwrite(str(split / "image" / f"{index}.jpg"), pixels, quality)
        cv2.imwrite(str(split / "label" / f"{index}.png"), scene.label)
    return split


def pairs_of(split: Path, size: int) -> list[Pair]:
    """The pairs of ROOT/DATASET/SPLIT. Raises ValueError for images smaller than the crops."""
    whole = split.absolute()  # a name alone has no ROOT in it
    pairs = find_pairs(whole.parent.parent, whole.parent.name, whole.name)
    small = [pair.name for pair in pairs if min(read_size(pair.image)) < size]
    if small:
        raise ValueError(f"smaller than the crops of {size} px: {listed(small)}")
    return pairs


def plain_pipeline(pairs: list[Pair], size: int) -> Callable[[int], object]:
    """What most training code does, with the steps and limits of our defaults."""
    limits = Augmentation()
    p = limits.probability
    steps = A.Compose(
        [
            A.RandomCrop(size, size),
            A.HueSaturationValue(limits.hue, limits.saturation, limits.value, p=p),
            A.Affine(
                scale=(1 - limits.scale, 1 + limits.scale),
                translate_percent=(-limits.shift, limits.shift),
                keep_ratio=True,
                p=p,
            ),
            A.HorizontalFlip(p=p),
            A.VerticalFlip(p=p),
            A.RandomRotate90(p=p),
            ToTensorV2(),
        ],
        seed=6,
    )

    def sample(index: int) -> object:
        pair = pairs[index % len(pairs)]
        image = cv2.cvtColor(cv2.imread(str(pair.image)), cv2.COLOR_BGR2RGB)
        mask = cv2.imread(str(pair.label), cv2.IMREAD_GRAYSCALE)
        return steps(image=image, mask=(mask > 127).astype(np.uint8))

    return sample


def compare(pairs: list[Pair], size: int, samples: int) -> dict[str, list[float]]:
    """Times of samples by both pipelines, in milliseconds, in turn."""
    crops = TrainCrops(pairs, size, Augmentation(), seed=6)
    plain = plain_pipeline(pairs, size)
    times: dict[str, list[float]] = {"ours": [], "albumentations": []}
    for number in range(-4, samples):  # the first ones do not count
        ours_ms, _ = timed(lambda n=number: crops[(n + 5, n % len(pairs))])
        plain_ms, _ = timed(lambda n=number: plain(n))
        if number >= 0:
            times["ours"].append(ours_ms)
            times["albumentations"].append(plain_ms)
    return times


def stages(pairs: list[Pair], size: int, samples: int) -> dict[str, float]:
    """Mean times of the parts of our samples, in milliseconds."""
    augment, rng = Augment(Augmentation()), np.random.default_rng(0)
    total = dict.fromkeys(("image and pixels without data", "label", "augment", "tensor"), 0.0)
    for number in range(samples):
        pair = pairs[number % len(pairs)]
        height, width = read_size(pair.image)
        top, left = rng.integers(height - size + 1), rng.integers(width - size + 1)
        crop = Crop(int(top), int(left), size, size)
        spent, (image, valid) = timed(lambda c=crop, p=pair: read_image_and_valid(p.image, c))
        total["image and pixels without data"] += spent
        spent, target = timed(lambda c=crop, p=pair: read_label(p.label, c))
        total["label"] += spent
        target[~valid] = IGNORE
        spent, changed = timed(lambda i=image, t=target: augment(i, t, rng))
        total["augment"] += spent
        spent, _ = timed(lambda c=changed: to_sample(*c, ""))
        total["tensor"] += spent
    return {name: value / samples for name, value in total.items()}


def device_ms(size: int, device: str) -> float:
    """Milliseconds an image from the loader's batch to normalised values on the device."""
    images = torch.randint(256, (BATCH_SIZE, 3, size, size), dtype=torch.uint8)
    images = images.pin_memory() if device == "cuda" else images  # as the loader does
    times = []
    for _ in range(BATCHES + 1):
        synchronise(device)
        start = time.perf_counter()
        normalise(images.to(device, non_blocking=True), IMAGENET)
        synchronise(device)
        times.append(time.perf_counter() - start)
    return 1e3 * median(times[1:]) / BATCH_SIZE  # the first batch prepares


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """Milliseconds of this thread's core, and the result."""
    start = time.thread_time()
    result = work()
    return 1e3 * (time.thread_time() - start), result


def report(times: dict[str, list[float]], parts: dict[str, float]) -> dict[str, object]:
    """Print the tables, and return what they show."""
    table = PrettyTable(["pipeline", "mean [ms]", "quartiles [ms]", "images a second a core"])
    table.align = "r"
    for name, values in times.items():
        low, high = np.percentile(values, (25, 75))
        mean = float(np.mean(values))
        table.add_row([name, f"{mean:.1f}", f"{low:.1f} - {high:.1f}", f"{1e3 / mean:.1f}"])
    print(table)
    ratios = np.array(times["albumentations"]) / np.array(times["ours"])
    low, middle, high = np.percentile(ratios, (25, 50, 75))
    print(f"ours is {middle:.2f} times as fast (median; quartiles {low:.2f} to {high:.2f})")
    table = PrettyTable(["stage of ours", "mean [ms]"])
    table.align = "r"
    for name, value in parts.items():
        table.add_row([name, f"{value:.1f}"])
    print(table)
    return {
        "mean_ms": {name: float(np.mean(values)) for name, values in times.items()},
        "images_per_second_per_core": {n: 1e3 / float(np.mean(v)) for n, v in times.items()},
        "ratio": {"median": middle, "quartiles": [low, high]},
        "stages_ms": parts,
        "samples_ms": times,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure both pipelines in turns; print, and write where asked."""
    args = parse_args(argv)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    keep_freed_memory()  # as the loader's processes do
    with tempfile.TemporaryDirectory() as folder:
        split = args.split or procedural_split(Path(folder))
        with user_mistakes():
            pairs = pairs_of(split, args.size)
        print(f"{len(pairs)} images of {split}, crops of {args.size} px")
        times = compare(pairs, args.size, args.samples)
        result = report(times, stages(pairs, args.size, args.samples))
    on_device = device_ms(args.size, args.device)
    print(f"to the device and normalised there ({args.device}): {on_device:.2f} ms an image")
    write_results(args, {"images": len(pairs), "device_ms": on_device} | result)


if __name__ == "__main__":
    main()
