#!/usr/bin/env python
"""The deformable operators against their references, in turns within one process.

python benchmarks/operators.py --output operators.json
python benchmarks/operators.py --device cuda --precision bfloat16
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from prettytable import PrettyTable
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.alternating import (
    add_settings,
    alternate,
    describe,
    machine,
    peak_bytes,
    ratio,
    saved_bytes,
    shown,
    write_json,
)
from model.ops.dcnv3 import dcnv3, dcnv3_reference
from model.ops.deform_strip import deform_strip, deform_strip_reference
from model.ops.dysample import dysample, dysample_reference


class Case(NamedTuple):
    """Two forms of an operator and the shapes of what they take, by default those of level 1."""

    name: str
    fast: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    operands: tuple[Tensor, ...]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_settings(parser, rounds=9)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--side", type=int, default=128, help="of the map, 128: level 1 of 512 px")
    return parser.parse_args()


def cases(side: int, dtype: torch.dtype, device: str) -> list[Case]:
    """The strips of the adapter and DCNv3 and DySample of the decoder, at stride 4."""
    torch.manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=dtype, device=device)

    value, offset = random(1, side, side, 256), random(1, side, side, 4, 7)
    decoded, offsets = random(1, side, side, 384), random(1, side, side, 24, 9, 2)
    mask = random(1, side, side, 24, 9).softmax(-1)
    image = random(1, 64, side, side).contiguous(memory_format=torch.channels_last)
    moves = random(1, 32, side, side).contiguous(memory_format=torch.channels_last)
    moves = moves.unflatten(1, (2, 4, 4))
    strips = [
        Case(
            f"deform_strip {axis}, 256 ch",
            lambda v, o, axis=axis: deform_strip(v, o, axis),
            lambda v, o, axis=axis: deform_strip_reference(v, o, axis),
            (value, offset),
        )
        for axis in ("w", "h")
    ]
    return [
        *strips,
        Case("dcnv3, 384 ch", dcnv3, dcnv3_reference, (decoded, offsets, mask)),
        Case("dysample, 64 ch", dysample, dysample_reference, (image, moves)),
    ]


def measure(case: Case, args: argparse.Namespace) -> dict[str, Any]:
    leaves = [operand.requires_grad_() for operand in case.operands]
    fast, reference = case.fast(*leaves), case.reference(*leaves)
    grad = torch.randn_like(fast)
    difference = (fast - reference).abs().max().item()
    del fast, reference

    def forward(operator: Callable[..., Tensor]) -> None:
        with torch.no_grad():
            operator(*leaves)

    def both(operator: Callable[..., Tensor]) -> None:
        torch.autograd.grad(operator(*leaves), leaves, grad)

    forms = {"fast": case.fast, "reference": case.reference}
    result: dict[str, Any] = {"difference": difference}
    for name, step in (("forward", forward), ("forward_backward", both)):
        works = {form: lambda op=op, step=step: step(op) for form, op in forms.items()}
        times = alternate(works, args.rounds, args.device, args.clock)
        result[name] = {"seconds": times, "speedup": ratio(times["reference"], times["fast"])}
    for form, operator in forms.items():
        result[f"saved_bytes_{form}"] = saved_bytes(lambda op=operator: op(*leaves))
        result[f"peak_bytes_{form}"] = peak_bytes(lambda op=operator: both(op), args.device)
    return result


def table(results: dict[str, Any]) -> PrettyTable:
    table = PrettyTable(
        ["operator", "forward [ms]", "times faster", "with backward [ms]", "times faster ",
         "saved [MB]", "of reference", "peak [MB]", "of reference ", "difference"]
    )  # fmt: skip
    table.align = "r"
    for name, r in results.items():
        row = [name]
        for step in ("forward", "forward_backward"):
            times = sorted(r[step]["seconds"]["fast"])
            row += [f"{1e3 * times[len(times) // 2]:.1f}", shown(r[step]["speedup"])]
        for kind in ("saved", "peak"):
            fast, reference = r[f"{kind}_bytes_fast"], r[f"{kind}_bytes_reference"]
            known = fast is not None
            row += [
                f"{fast / 1e6:.0f}" if known else "-",
                f"{fast / reference:.3f}" if known else "-",
            ]
        table.add_row([*row, f"{r['difference']:.1e}"])
    return table


def main() -> None:
    args = parse_args()
    dtype = getattr(torch, args.precision)
    results = {case.name: measure(case, args) for case in cases(args.side, dtype, args.device)}
    print(f"{describe(args.device)}, map {args.side} x {args.side}, {args.precision}")
    print(table(results))
    print("Ratios are medians with quartiles over the rounds.")
    write_json(args.output, {"machine": machine(args.device), "operators": results})


if __name__ == "__main__":
    main()
