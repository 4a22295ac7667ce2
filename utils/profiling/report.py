"""What a profile leaves to read: the table on the console, profile.json and profile.xlsx."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from openpyxl import Workbook
from prettytable import PrettyTable

from model.base import PARTS
from utils.files import atomic_path, write_json
from utils.profiling.profile import ModelProfile
from utils.profiling.timing import Conditions

DASH = "-"
#: Column, unit and the way to its number in a row of profile.json; the unit divides the number.
COLUMNS: tuple[tuple[str, float, tuple[str, ...]], ...] = (
    ("params M", 1e6, ("weight", "parameters")),
    ("trainable M", 1e6, ("weight", "trainable")),
    *((f"{part} M", 1e6, ("weight", "parameters_by_part", part)) for part in PARTS),
    ("GFLOPs", 1e9, ("weight", "flops")),
    ("thop GMACs", 1e9, ("weight", "thop_macs")),
    ("median ms", 1e-3, ("forward", "median_s")),
    ("p90 ms", 1e-3, ("forward", "p90_s")),
    ("FPS", 1, ("forward", "fps")),
    ("peak MiB", 2**20, ("forward", "peak_bytes")),
    ("train ms", 1e-3, ("train", "median_s")),
    ("train p90 ms", 1e-3, ("train", "p90_s")),
    ("train MiB", 2**20, ("train", "peak_bytes")),
)


def describe(conditions: Conditions, device: str, *, timed: bool) -> str:
    """What the numbers hold for, in a line or two."""
    what = f"{conditions.batch} x 3 x {conditions.size} x {conditions.size}"
    if timed:
        compiled = ", compiled" if conditions.compiled else ""
        what += (
            f", {conditions.dtype}{compiled}, {device}; {conditions.warm_up} passes to warm up, "
            f"then {conditions.repeats} timed ones, fewer where they take over "
            f"{conditions.limit_s:g} s"
        )
    return (
        f"{what}\nFLOPs: of all operators with a formula, two a multiply-add. thop's MACs: of the "
        "modules it knows, norms, pooling and upsampling among them"
    )


def number_at(row: dict[str, Any], path: Sequence[str]) -> float | None:
    """The number at the end of a path of keys, None where the path breaks off."""
    value: Any = row
    for key in path:
        value = None if value is None else value.get(key)
    return value


def as_json(profiles: Sequence[ModelProfile], conditions: Conditions, device: str) -> dict:
    return {
        "conditions": conditions._asdict() | {"processor": device},
        "models": [asdict(profile) for profile in profiles],
    }


def console(report: dict[str, Any]) -> str:
    """The table, and below it what was not counted and what failed."""
    rows = report["models"]
    columns = [c for c in COLUMNS if any(number_at(row, c[2]) is not None for row in rows)]
    table = PrettyTable(["model", *(title for title, *_ in columns)])
    table.align, table.align["model"] = "r", "l"
    for row in rows:
        numbers = (number_at(row, path) for _, _, path in columns)
        units = (unit for _, unit, _ in columns)
        table.add_row([row["name"], *map(_short, numbers, units)])
    lines = [table.get_string()]
    for row in rows:
        if row["weight"]:
            lines.append(f"{row['name']}: {row['weight']['thop_note']}; without a formula: ")
            lines[-1] += uncounted_text(row["weight"]["uncounted"])
    lines += [f"{row['name']}: FAILED: {text}" for row in rows for text in row["problems"]]
    return "\n".join(lines)


def uncounted_text(uncounted: dict[str, dict[str, int]]) -> str:
    """The operators without a formula, with how often each is called."""
    kinds = (
        f"{kind} ({', '.join(f'{name} x{calls}' for name, calls in names.items())})"
        for kind, names in uncounted.items()
    )
    return ", ".join(kinds) or "none"


def write_files(report: dict[str, Any], folder: Path) -> None:
    """Write profile.json and profile.xlsx, whose numbers are the same and unrounded."""
    write_json(folder / "profile.json", report)
    book = Workbook()
    sheet = book.active
    sheet.title = "models"
    sheet.append(
        ["model", "class", *(title for title, *_ in COLUMNS), "thop", "not counted", "failed"]
    )
    for row in report["models"]:
        weight = row["weight"] or {"thop_note": None, "uncounted": {}}
        numbers = ((number_at(row, path), unit) for _, unit, path in COLUMNS)
        sheet.append(
            [
                row["name"],
                row["model"],
                *(None if number is None else number / unit for number, unit in numbers),
                weight["thop_note"],
                uncounted_text(weight["uncounted"]),
                "; ".join(row["problems"]) or None,
            ]
        )
    sheet.freeze_panes = "B2"
    sheet = book.create_sheet("by part")
    sheet.append(["model", "part", "parameters", "FLOPs", "forward s"])
    for row in report["models"]:
        for part in PARTS:
            paths = (("weight", "parameters_by_part"), ("weight", "flops_by_part"))
            numbers = [number_at(row, (*path, part)) for path in (*paths, ("forward", "by_part_s"))]
            if numbers[0] is not None:
                sheet.append([row["name"], part, *numbers])
    sheet = book.create_sheet("conditions")
    for key, value in report["conditions"].items():
        sheet.append([key, value])
    with atomic_path(folder / "profile.xlsx") as path:
        book.save(path)


def _short(number: float | None, unit: float) -> str:
    """Four digits or so: 0.0312, 3.125, 31.25, 3125."""
    if number is None:
        return DASH
    value = number / unit
    return f"{value:.2f}" if abs(value) < 1000 else f"{value:.0f}"
