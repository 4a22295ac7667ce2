#!/usr/bin/env python
"""The selective scan of RS-Mamba against its step-by-step loop, in turns within one process.

python benchmarks/selective_scan.py --output selective_scan.json
python benchmarks/selective_scan.py --device cuda --side 256

The scan of a map of --side x --side, forward and as a training step (forward and backward); then,
for an image of --side pixels, a training step of one block of every stage, and of the whole network
with either scan. The loop is `selective_scan_reference`, whose gradient costs as little as a loop's
can; it keeps all states: 9 GB for 128 x 128.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import torch
from prettytable import PrettyTable
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.alternating import (
    Work,
    add_settings,
    alternate,
    describe,
    parsed,
    positive,
    ratio,
    shown,
    write_results,
)
from model.baselines.rs_mamba import RSM_SS
from model.ops.omni_scan import NUM_SCANS
from model.ops.selective_scan import selective_scan, selective_scan_reference
from utils.arguments import ArgumentParser

SCANS = {"fast": selective_scan, "loop": selective_scan_reference}
DIMS = (96, 192, 384, 768)
STATES = 16


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    add_settings(parser, rounds=5)
    parser.add_argument(
        "--side", type=positive, default=128, help="of the image, in pixels (default %(default)s)"
    )
    return parsed(parser, argv)


def scan_inputs(length: int, d: int, device: str) -> list[Tensor]:
    torch.manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, device=device)

    inputs = [normal(1, NUM_SCANS, length, d), normal(1, NUM_SCANS, length, d)]
    inputs += [-normal(NUM_SCANS, d, STATES).abs()]
    inputs += [normal(1, NUM_SCANS, length, STATES), normal(1, NUM_SCANS, length, STATES)]
    return [*inputs, normal(NUM_SCANS, d), normal(NUM_SCANS, d) - 2]


def forward_works(length: int, d: int, device: str) -> dict[str, Work]:
    inputs = scan_inputs(length, d, device)
    return {name: lambda scan=scan: scan(*inputs) for name, scan in SCANS.items()}


def step_works(length: int, d: int, device: str) -> dict[str, Work]:
    inputs = [x.requires_grad_() for x in scan_inputs(length, d, device)]
    grad = torch.randn_like(inputs[0])

    def step(scan: Callable[..., Tensor]) -> None:
        torch.autograd.grad(scan(*inputs), inputs, grad)

    return {name: lambda scan=scan: step(scan) for name, scan in SCANS.items()}


def network_works(side: int, device: str) -> dict[str, Work]:
    """A training step of RS-Mamba, without optimiser, with either scan."""
    torch.manual_seed(0)
    network = RSM_SS(dims=DIMS).to(device).train()
    image = torch.randn(1, 3, side, side, device=device)

    def step(scan: Callable[..., Tensor]) -> None:
        with mock.patch("model.baselines.rs_mamba.selective_scan", scan):
            network(image).square().mean().backward()
        network.zero_grad()

    return {name: lambda scan=scan: step(scan) for name, scan in SCANS.items()}


def measure(side: int, rounds: int, device: str, clock: str) -> dict[str, Any]:
    results = {}

    def compare(name: str, works: dict[str, Work]) -> None:
        seconds = alternate(works, rounds, device, clock)
        results[name] = {"seconds": seconds, "speedup": ratio(seconds["loop"], seconds["fast"])}
        print(f"{name}: {shown(results[name]['speedup'])} times faster", flush=True)

    d = 2 * DIMS[0]
    compare(f"forward, a map of {side} x {side}, {d} ch", forward_works(side**2, d, device))
    compare(f"a step, a map of {side} x {side}, {d} ch", step_works(side**2, d, device))
    for stage, dim in enumerate(DIMS):
        length, d = max(1, side // 2 ** (stage + 2)) ** 2, 2 * dim
        name = f"a step, stage {stage + 1}, {length} positions, {d} ch"
        compare(name, step_works(length, d, device))
    compare("a step, the whole network", network_works(side, device))
    return results


def table(results: dict[str, Any]) -> PrettyTable:
    table = PrettyTable(["scan", "loop [s]", "fast [s]", "times faster"])
    table.align = "r"
    for name, result in results.items():
        seconds = [f"{median(result['seconds'][form]):.3f}" for form in ("loop", "fast")]
        table.add_row([name, *seconds, shown(result["speedup"])])
    return table


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    results = measure(args.side, args.rounds, args.device, args.clock)
    shape = f"image {args.side} x {args.side} px"
    print(f"{describe(args.device)}, {shape}, float32, {args.clock} clock")
    print(table(results))
    print("Ratios are medians with quartiles over the rounds.")
    write_results(args, {"scans": results})


if __name__ == "__main__":
    main()
