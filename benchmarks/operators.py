#!/usr/bin/env python
"""The deformable operators against their references, in turns within one process.

python benchmarks/operators.py --output operators.json
python benchmarks/operators.py --device cuda --precision bfloat16

Times and memory are those of references that compute in float32; differences are from references
that compute in float64, which round nothing that counts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

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
    peak_bytes,
    positive,
    ratio,
    saved_bytes,
    shown,
    write_results,
)
from model.ops.dcnv3 import dcnv3, dcnv3_reference
from model.ops.deform_strip import deform_strip, deform_strip_reference
from model.ops.dysample import dysample, dysample_reference
from utils.arguments import ArgumentParser


class Case(NamedTuple):
    """Two forms of an operator, and what they take by name."""

    fast: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    operands: dict[str, Tensor]


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    add_settings(parser, rounds=9)
    parser.add_argument(
        "--precision",
        default="float32",
        choices=["float32", "bfloat16", "float16"],
        help="(default %(default)s)",
    )
    parser.add_argument(
        "--side", type=positive, default=128, help="of the map (default 128: level 1 of 512 px)"
    )
    return parsed(parser, argv)


def level_1(H: int, W: int, dtype: torch.dtype, device: str) -> dict[str, Case]:
    """The strips of the adapter and DCNv3 and DySample of the decoder, as at stride 4."""
    torch.manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=dtype, device=device)

    strip = {"value": random(1, H, W, 256), "offset": random(1, H, W, 4, 7)}
    square = {
        "value": random(1, H, W, 384),
        "offset": random(1, H, W, 24, 9, 2),
        "mask": random(1, H, W, 24, 9).softmax(-1),
    }
    image, moves = (
        random(1, channels, H, W).contiguous(memory_format=torch.channels_last)
        for channels in (64, 32)
    )
    subpixels = {"value": image, "offset": moves.unflatten(1, (2, 4, 4))}
    strips = {
        f"deform_strip {axis}, 256 ch": Case(
            partial(deform_strip, axis=axis), partial(deform_strip_reference, axis=axis), strip
        )
        for axis in ("w", "h")
    }
    return strips | {
        "dcnv3, 384 ch": Case(dcnv3, dcnv3_reference, square),
        "dysample, 64 ch": Case(dysample, dysample_reference, subpixels),
    }


def differences(case: Case) -> dict[str, float]:
    """The largest difference of the result from the reference's for the same operands in float64,
    and those of the gradients of the operands, by their names."""
    leaves = [operand.detach().requires_grad_() for operand in case.operands.values()]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    result, expected = case.fast(*leaves), case.reference(*exact)
    grad = torch.randn_like(result)
    actual = (result, *torch.autograd.grad(result, leaves, grad))
    expected = (expected, *torch.autograd.grad(expected, exact, grad.double()))
    return {
        name: (ours - theirs).abs().max().item()
        for name, ours, theirs in zip(("result", *case.operands), actual, expected, strict=True)
    }


def measure(case: Case, args: argparse.Namespace) -> dict[str, Any]:
    """Differences of the results; seconds, bytes saved for backward and peak bytes."""
    result: dict[str, Any] = {"differences": differences(case)}
    leaves = [operand.detach().requires_grad_() for operand in case.operands.values()]
    grad = torch.randn_like(case.fast(*leaves))

    def forward(operator: Callable[..., Tensor]) -> None:
        with torch.no_grad():
            operator(*leaves)

    def both(operator: Callable[..., Tensor]) -> None:
        torch.autograd.grad(operator(*leaves), leaves, grad)

    forms = {"fast": case.fast, "reference": partial(case.reference, dtype=torch.float32)}
    for name, step in (("forward", forward), ("forward_backward", both)):
        works: dict[str, Work] = {form: partial(step, op) for form, op in forms.items()}
        times = alternate(works, args.rounds, args.device, args.clock)
        result[name] = {"seconds": times, "speedup": ratio(times["reference"], times["fast"])}
    for form, operator in forms.items():
        result[f"saved_bytes_{form}"] = saved_bytes(partial(operator, *leaves))
        result[f"peak_bytes_{form}"] = peak_bytes(partial(both, operator), args.device)
    return result


def table_of_costs(results: dict[str, Any]) -> PrettyTable:
    """A row for every operator."""
    table = PrettyTable(
        ["operator", "forward [ms]", "times faster", "with backward [ms]", "times faster ",
         "saved [MB]", "of reference", "peak [MB]", "of reference "]
    )  # fmt: skip
    table.align = "r"
    for name, r in results.items():
        row = [name]
        for step in ("forward", "forward_backward"):
            seconds = median(r[step]["seconds"]["fast"])
            row += [f"{1e3 * seconds:.2f}", shown(r[step]["speedup"])]
        for kind in ("saved", "peak"):
            fast, reference = r[f"{kind}_bytes_fast"], r[f"{kind}_bytes_reference"]
            row.append("-" if fast is None else f"{fast / 1e6:.0f}")
            row.append(f"{fast / reference:.3f}" if reference else "-")
        table.add_row(row)
    return table


def table_of_differences(results: dict[str, Any]) -> PrettyTable:
    """A row for every operator: of its result, and of the gradient of each operand."""
    columns = ("result", "value", "offset", "mask")
    gradients = [f"gradient of {name}" for name in columns[1:]]
    table = PrettyTable(["largest difference", columns[0], *gradients])
    table.align = "r"
    for name, r in results.items():
        known = r["differences"]
        cells = [f"{known[column]:.1e}" if column in known else "" for column in columns]
        table.add_row([name, *cells])
    return table


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every operator against its reference; print and write the results."""
    args = parse_args(argv)
    dtype = getattr(torch, args.precision)
    cases = level_1(args.side, args.side, dtype, args.device)
    results = {name: measure(case, args) for name, case in cases.items()}
    shape = f"map {args.side} x {args.side}"
    print(f"{describe(args.device)}, {shape}, {args.precision}, {args.clock} clock")
    print(table_of_costs(results))
    print("Ratios are medians with quartiles over the rounds.")
    print(table_of_differences(results))
    write_results(args, {"operators": results})


if __name__ == "__main__":
    main()
