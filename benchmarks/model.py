#!/usr/bin/env python
"""Anchor-SAM against its encoder alone, and against itself with the operators' references.

python benchmarks/model.py --size tiny --image-size 512 --output tiny.json
python benchmarks/model.py --size large --device cuda --precision bfloat16 --image-size 1024
python benchmarks/model.py --size tiny --device cuda --precision bfloat16 --throughput --compile
python benchmarks/model.py --size tiny --saved

--throughput measures training steps with clipping and AdamW, of images that lie on the device: how
many images a second, and which share of the time the encoder's own step takes. --saved tells what
a forward pass keeps for the backward pass, with and without a frozen trunk.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, get_args
from unittest import mock

import torch
import torch.nn.functional as F
from prettytable import PrettyTable
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.alternating import (
    Work,
    add_settings,
    alternate,
    describe,
    parsed,
    peak_bytes,
    positive,
    ratio,
    saved_bytes,
    shown,
    write_results,
)
from model.anchor_sam.encoder import ModelSize
from model.anchor_sam.net import AnchorSAM
from model.ops.dcnv3 import dcnv3_reference
from model.ops.deform_strip import deform_strip_reference
from model.ops.dysample import dysample_reference
from utils.arguments import ArgumentParser

#: Where the network finds its operators, and their references.
REFERENCES = {
    "model.ops.dcnv3.dcnv3": partial(dcnv3_reference, dtype=torch.float32),
    "model.anchor_sam.anchor_mining.deform_strip": partial(
        deform_strip_reference, dtype=torch.float32
    ),
    "model.ops.dysample.dysample": partial(dysample_reference, dtype=torch.float32),
    "model.ops.dcnv3.pointwise": F.linear,
    "model.ops.pointwise.pointwise": F.linear,
}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    parser.add_argument(
        "--size", default="tiny", choices=get_args(ModelSize), help="(default %(default)s)"
    )
    parser.add_argument(
        "--image-size", type=positive, default=512, help="in pixels (default %(default)s)"
    )
    parser.add_argument(
        "--batch-size",
        type=positive,
        help="default 1; of --throughput on CUDA the largest that fits (uncompiled), to an eighth",
    )
    add_settings(parser, rounds=5)
    parser.add_argument(
        "--precision",
        default="float32",
        choices=["float32", "bfloat16", "float16"],
        help="(default %(default)s)",
    )
    parser.add_argument(
        "--passes", nargs="+", default=[*PASSES], choices=PASSES, help="to time (default both)"
    )
    parser.add_argument("--no-reference", action="store_true", help="leave the references out")
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile the encoder and the fast network"
    )
    parser.add_argument(
        "--throughput", action="store_true", help="measure training images a second instead"
    )
    parser.add_argument(
        "--saved", action="store_true", help="measure what is kept for the backward pass instead"
    )
    return parsed(parser, argv)


class EncoderAlone(nn.Module):
    """The encoder with a scalar behind it, so that its training step can be timed."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor) -> Tensor:
        last_stage, levels = self.encoder(image)
        return last_stage.mean() + sum(level.mean() for level in levels)


def precision(args: argparse.Namespace) -> AbstractContextManager:
    if args.precision == "float32":
        return nullcontext()
    return torch.autocast(args.device, getattr(torch, args.precision))


def contenders(net: AnchorSAM, args: argparse.Namespace) -> dict[str, nn.Module]:
    """The encoder alone and the whole network, compiled where asked for."""
    parts = {"encoder": EncoderAlone(net.encoder), "whole": net}
    return {name: torch.compile(part) if args.compile else part for name, part in parts.items()}


def random_images(batch: int, args: argparse.Namespace) -> Tensor:
    return torch.randn(batch, 3, args.image_size, args.image_size, device=args.device)


def by_references(work: Work) -> Work:
    """The same with the operators' references in place of the operators."""

    def patched() -> object:
        with ExitStack() as stack:
            for name, reference in REFERENCES.items():
                stack.enter_context(mock.patch(name, reference))
            return work()

    return patched


def forward_of(net: nn.Module, image: Tensor, args: argparse.Namespace) -> Work:
    """A forward pass in eval mode, without gradients."""

    def forward() -> None:
        net.eval()
        with torch.no_grad(), precision(args):
            net(image)

    return forward


def step_of(net: nn.Module, image: Tensor, args: argparse.Namespace) -> Work:
    """Forward and backward; the optimiser costs the same whatever the operators."""

    def step() -> None:
        gradients(net, image, args)
        net.zero_grad()  # so that nothing is held between calls

    return step


def gradients(net: nn.Module, image: Tensor, args: argparse.Namespace) -> None:
    net.train()
    with precision(args):
        loss = net(image).float().mean()
    loss.backward()


#: What a network does with an image.
PASSES: dict[str, Callable[..., Work]] = {"forward": forward_of, "training_step": step_of}


def compare(args: argparse.Namespace, net: AnchorSAM) -> dict[str, Any]:
    """Forward pass and training step: the encoder, the network, the network by references."""
    image = random_images(args.batch_size or 1, args)
    results: dict[str, Any] = {}
    for kind in args.passes:
        of = PASSES[kind]
        works = {name: of(part, image, args) for name, part in contenders(net, args).items()}
        if not args.no_reference:
            works["reference"] = by_references(of(net, image, args))
        times = alternate(works, args.rounds, args.device, args.clock)
        peaks = {name: peak_bytes(work, args.device) for name, work in works.items()}
        results[kind] = {"seconds": times, "peak_bytes": peaks}
        for name in ("encoder", "reference"):
            if name in times:
                results[kind][f"whole_to_{name}"] = ratio(times["whole"], times[name])
    return results


def saved(args: argparse.Namespace, net: AnchorSAM) -> dict[str, dict[str, int]]:
    """Bytes kept for the backward pass when all is trained, and with `adapter_only`'s freezing."""
    image = random_images(args.batch_size or 1, args)
    parts = {"encoder": EncoderAlone(net.encoder), "whole": net}

    def forward(part: nn.Module) -> Tensor:
        with precision(args):
            return part(image)

    results = {}
    for mode, frozen in (("train_all", ()), ("adapter_only", net.adapter_only_frozen)):
        net.freeze(*frozen)
        net.train()
        results[mode] = {name: saved_bytes(partial(forward, p)) for name, p in parts.items()}
    return results


def throughput(args: argparse.Namespace, net: AnchorSAM) -> dict[str, Any]:
    """Training images a second, and the share of the time that the encoder's own step takes."""
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.0)  # all the work, and the weights stay
    batch = args.batch_size
    if batch is None:
        batch = largest_batch(args, net, optimiser) if args.device == "cuda" else 1
    image = random_images(batch, args)
    works = {
        name: partial(train, part, image, args, optimiser)
        for name, part in contenders(net, args).items()
    }
    times = alternate(works, args.rounds, args.device, args.clock)
    return {
        "batch_size": batch,
        "images_per_second": batch / median(times["whole"]),
        "encoder_share": ratio(times["encoder"], times["whole"]),
        "seconds": times,
        "peak_bytes": peak_bytes(works["whole"], args.device),
    }


def train(
    net: nn.Module, image: Tensor, args: argparse.Namespace, optimiser: torch.optim.Optimizer
) -> None:
    """A training step; the optimiser passes over parameters without a gradient."""
    gradients(net, image, args)
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad()


def largest_batch(
    args: argparse.Namespace, net: AnchorSAM, optimiser: torch.optim.Optimizer
) -> int:
    """The largest batch that trains within the device's memory, to an eighth of it."""

    def fits(batch: int) -> bool:
        try:
            train(net, random_images(batch, args), args, optimiser)
        except torch.OutOfMemoryError:
            return False
        return True

    most, too_many = 0, None
    while too_many is None or too_many - most > max(1, most // 8):
        batch = max(1, 2 * most) if too_many is None else (most + too_many) // 2
        if fits(batch):
            most = batch
        else:
            too_many = batch
        optimiser.zero_grad()
        torch.cuda.empty_cache()
    if not most:
        sys.exit(f"not one image of {args.image_size} px fits into the memory of the device")
    return most


def table(results: dict[str, Any]) -> PrettyTable:
    """A row for every kind of pass and network."""
    table = PrettyTable(["", "network", "seconds", "peak [GB]", "whole takes ... times as long"])
    table.align = "r"
    for kind, r in results.items():
        for name, times in r["seconds"].items():
            peak, relation = r["peak_bytes"][name], r.get(f"whole_to_{name}")
            shown_peak = "-" if peak is None else f"{peak / 1e9:.2f}"
            relation = shown(relation) if relation else ""
            table.add_row([kind, name, f"{median(times):.3f}", shown_peak, relation])
    return table


def main(argv: Sequence[str] | None = None) -> None:
    """Compare, or measure throughput or memory; print and write the results."""
    args = parse_args(argv)
    torch.manual_seed(0)
    net = AnchorSAM(model_size=args.size).to(args.device)
    print(f"{args.size}, {args.image_size} px, {args.precision}, {describe(args.device)}")
    if args.throughput:
        results = throughput(args, net)
        share, rate = shown(results["encoder_share"]), results["images_per_second"]
        print(f"training in batches of {results['batch_size']}: {rate:.2f} images a second")
        print(f"the encoder's own step takes {share} of the whole step's time")
    elif args.saved:
        results = saved(args, net)
        for mode, kept in results.items():
            told = ", ".join(f"{name} {count / 1e6:.0f} MB" for name, count in kept.items())
            print(f"{mode}: kept for the backward pass: {told}")
    else:
        results = compare(args, net)
        print(table(results))
        print("Ratios are medians with quartiles over the rounds; the peak is what a call adds.")
    write_results(args, results)


if __name__ == "__main__":
    main()
