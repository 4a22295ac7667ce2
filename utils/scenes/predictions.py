"""predictions.json: what lies in an output folder, by this run and earlier ones, and how made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from utils.files import write_json
from utils.reports import Conditions

FILE = "predictions.json"
#: What an input's files may be called: by folder the suffixes.
SUFFIXES = {
    "mask": (".tif", ".png"),
    "prob": (".tif", ".png", ".npy"),
    "roads": (".gpkg", ".geojson"),
}


@dataclass(frozen=True)
class Predictions:
    """The content of a predictions.json."""

    conditions: dict[str, Any]
    entries: dict[str, dict[str, Any]]  # by the inputs' names


def read_predictions(folder: Path) -> Predictions:
    """What is in the folder's file: nothing without one, nor when it is damaged."""
    report = read_object(folder / FILE) or {}
    images = report.pop("images", None)
    entries = {
        entry["name"]: entry
        for entry in (images if isinstance(images, list) else [])
        if isinstance(entry, dict) and isinstance(entry.get("name"), str)
    }
    return Predictions(report, entries)


def write_predictions(
    folder: Path, conditions: Conditions, entries: Sequence[dict[str, Any]]
) -> int:
    """Add entries to the folder's file; the number of earlier ones that are left out.

    Earlier entries stay where all their files are there, and the conditions are the same. Without
    new ones the file keeps its conditions.
    """
    earlier = read_predictions(folder)
    new = {entry["name"]: entry for entry in entries}
    known = json.loads(json.dumps(asdict(conditions))) if new else earlier.conditions
    others = {
        name: entry
        for name, entry in earlier.entries.items()
        if name not in new and _is_complete(folder, entry)
    }
    kept = others if known == earlier.conditions else {}
    images = sorted([*kept.values(), *new.values()], key=lambda entry: entry["name"])
    if known:
        write_json(folder / FILE, known | {"images": images})
    return len(others) - len(kept)


def _is_complete(folder: Path, entry: dict[str, Any]) -> bool:
    files = entry.get("files") or []
    return bool(files) and all((folder / file).exists() for file in files)


def remove_results(folder: Path, name: str) -> None:
    """Delete whatever was written of an input."""
    for kind, suffixes in SUFFIXES.items():
        for suffix in suffixes:
            (folder / kind / f"{name}{suffix}").unlink(missing_ok=True)


def read_object(path: Path) -> dict[str, Any] | None:
    """What a JSON file holds; None without one, and when it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) else None
