#!/usr/bin/env python
"""Anchor-SAM against its encoder alone, and against itself with the operators' references.

python benchmarks/model.py --size tiny --image_size 512 --output tiny.json
python benchmarks/model.py --size large --device cuda --precision bfloat16 --image_size 1024
python benchmarks/model.py --size tiny --device cuda --precision bfloat16 --throughput --compile
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from statistics import median
from typing import Any, get_args
from unittest import mock

import torch
from prettytable import PrettyTable
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.alternating import (
    Work,
    add_settings,
    alternate,
    describe,
    machine,
    peak_bytes,
    ratio,
    shown,
    synchronise,
    write_json,
)
from model.anchor_sam.encoder import ModelSize
from model.anchor_sam.net import AnchorSAM
from model.ops.dcnv3 import dcnv3_reference
from model.ops.deform_strip import deform_strip_reference
from model.ops.dysample import dysample_reference

#: Where the network finds its operators, and their references.
REFERENCES = {
    "model.ops.dcnv3.dcnv3": dcnv3_reference,
    "model.anchor_sam.anchor_mining.deform_strip": deform_strip_reference,
    "model.ops.dysample.dysample": dysample_reference,
}
STEPS = 5  # of the throughput


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="tiny", choices=get_args(ModelSize))
    parser.add_argument("--image_size", type=int, default=512)
    parser.add_argument("--batch_size", type=int, default=1)
    add_settings(parser, rounds=5)
    parser.add_argument(
        "--precision", default="float32", choices=["float32", "bfloat16", "float16"]
    )
    parser.add_argument(
        "--passes", nargs="+", default=["forward", "training_step"], choices=PASSES, help="to time"
    )
    parser.add_argument("--no_reference", action="store_true", help="leave the references out")
    parser.add_argument("--compile", action="store_true", help="torch.compile the fast network")
    parser.add_argument(
        "--throughput",
        action="store_true",
        help="training images a second instead, in the largest batch that fits (CUDA), and the "
        "encoder's share of the step",
    )
    return parser.parse_args()


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


def by_references(work: Work) -> Work:
    """The same with the operators' references in place of the operators."""

    def patched() -> object:
        with ExitStack() as stack:
            for name, reference in REFERENCES.items():
                stack.enter_context(mock.patch(name, reference))
            return work()

    return patched


def forward_of(net: nn.Module, image: Tensor, args: argparse.Namespace) -> Work:
    def forward() -> None:
        net.eval()
        with torch.no_grad(), precision(args):
            net(image)

    return forward


def step_of(net: nn.Module, image: Tensor, args: argparse.Namespace) -> Work:
    """Forward and backward; the optimiser costs the same whatever the operators."""

    def step() -> None:
        net.train()
        net.zero_grad()
        with precision(args):
            loss = net(image).float().mean()
        loss.backward()

    return step


#: What a network does with an image.
PASSES: dict[str, Callable[..., Work]] = {"forward": forward_of, "training_step": step_of}


def compare(args: argparse.Namespace, net: AnchorSAM) -> dict[str, Any]:
    """Forward pass and training step: the encoder, the network, the network by references."""
    image = torch.randn(args.batch_size, 3, args.image_size, args.image_size, device=args.device)
    whole = torch.compile(net) if args.compile else net
    results: dict[str, Any] = {}
    for kind in args.passes:
        of = PASSES[kind]
        works = {
            "encoder": of(EncoderAlone(net.encoder), image, args),
            "whole": of(whole, image, args),
        }
        if not args.no_reference:
            works["reference"] = by_references(of(net, image, args))
        times = alternate(works, args.rounds, args.device, args.clock)
        peaks = {name: peak_bytes(work, args.device) for name, work in works.items()}
        results[kind] = {"seconds": times, "peak_bytes": peaks}
        for name in ("encoder", "reference"):
            if name in times:
                results[kind][f"whole_to_{name}"] = ratio(times["whole"], times[name])
    return results


def throughput(args: argparse.Namespace, net: AnchorSAM) -> dict[str, Any]:
    """Training images a second, and the share of the time that the encoder's own step takes."""
    whole = torch.compile(net) if args.compile else net
    batch = largest_batch(args, net) if args.device == "cuda" else args.batch_size
    image = torch.randn(batch, 3, args.image_size, args.image_size, device=args.device)
    spent = {}
    for name, part in (("whole", whole), ("encoder", EncoderAlone(net.encoder))):
        step = step_of(part, image, args)
        step()  # compiles, allocates
        synchronise(args.device)
        start = time.perf_counter()
        for _ in range(STEPS):
            step()
        synchronise(args.device)
        spent[name] = (time.perf_counter() - start) / STEPS
    return {
        "batch_size": batch,
        "images_per_second": batch / spent["whole"],
        "encoder_share": spent["encoder"] / spent["whole"],
    }


def largest_batch(args: argparse.Namespace, net: AnchorSAM) -> int:
    """The largest power of two that trains within the device's memory."""
    batch = 1
    while True:
        try:
            image = torch.randn(2 * batch, 3, args.image_size, args.image_size, device=args.device)
            step_of(net, image, args)()
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return batch
        batch *= 2


def table(results: dict[str, Any]) -> PrettyTable:
    table = PrettyTable(["", "network", "seconds", "peak [GB]", "whole takes ... times as long"])
    table.align = "r"
    for kind, r in results.items():
        for name, times in r["seconds"].items():
            peak, relation = r["peak_bytes"][name], r.get(f"whole_to_{name}")
            shown_peak = "-" if peak is None else f"{peak / 1e9:.2f}"
            relation = shown(relation) if relation else ""
            table.add_row([kind, name, f"{median(times):.3f}", shown_peak, relation])
    return table


def main() -> None:
    args = parse_args()
    torch.manual_seed(0)
    net = AnchorSAM(model_size=args.size).to(args.device)
    print(f"{args.size}, {args.image_size} px, {args.precision}, {describe(args.device)}")
    if args.throughput:
        results = throughput(args, net)
        print(results)
    else:
        results = compare(args, net)
        print(table(results))
        print("Ratios are medians with quartiles over the rounds; the peak is what a call adds.")
    settings = {name: str(value) for name, value in vars(args).items()}
    write_json(args.output, {"settings": settings, "machine": machine(args.device), **results})


if __name__ == "__main__":
    main()
