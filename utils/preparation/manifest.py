"""What a prepared dataset was made from, and how far a run has come.

ROOT/DATASET/manifest.json   the settings, and whether the dataset is complete
ROOT/DATASET/manifest.csv    a row for each pair, once it is complete
ROOT/DATASET/.manifest.jsonl a line for each source that is done, while it is not
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from utils.files import atomic_path, room_for, write_json
from utils.pairing import SPLITS

SETTINGS_FILE = "manifest.json"
ROWS_FILE = "manifest.csv"
JOURNAL_FILE = ".manifest.jsonl"


class Row(NamedTuple):
    """A pair of the dataset."""

    split: str
    name: str
    source: str  # the image, relative to --src
    source_label: str
    source_sha256: str  # of the image
    source_label_sha256: str
    stretch: str  # LOW-HIGH of each band, where 16 bits became 8
    top: int  # of the tile in the source, pixels
    left: int
    width: int  # pixels
    height: int
    road_share: float  # of the pixels with data
    image: str  # in SPLIT/image
    image_sha256: str
    label: str  # in SPLIT/label
    label_sha256: str

    def is_of(self, origin: dict[str, str]) -> bool:
        """Whether it was made from these sources, in this way (`Conversion.origin`)."""
        return self._asdict() | origin == self._asdict()


class Manifest:
    """The records in the folder of a dataset of these settings."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.settings = settings

    def begin(self) -> None:
        """Take the folder, which may already hold a part of the dataset.

        Raises ValueError when it holds something else.
        """
        found = self._settings_found()
        if found is None:
            if self.folder.is_dir() and any(self.folder.iterdir()):
                raise ValueError(f"{self.folder}: holds other things, name another --dst")
            self._write_settings(complete=False)
            return
        differing = [key for key in self.settings if found.get(key) != self.settings[key]]
        if differing:
            had = ", ".join(f"{key} {found.get(key)}" for key in differing)
            raise ValueError(
                f"{self.folder}: was prepared with another setting ({had}): "
                "name another --dst, or delete the folder"
            )
        self._remove_leftovers()

    def done(self) -> dict[str, list[Row]]:
        """The rows of the sources whose files are all there, by the source's image."""
        grouped: dict[str, list[Row]] = {}
        for row in self._rows():
            grouped.setdefault(row.source, []).append(row)
        grouped |= self._journal()  # is younger than the table
        whole = [name for name, rows in grouped.items() if rows and all(map(self._exists, rows))]
        return {name: grouped[name] for name in whole}

    def withdraw(self, rows: Iterable[Row]) -> None:
        """Delete the files of these rows: their sources are not what they were."""
        self._write_settings(complete=False)
        for row in rows:
            for path in self._paths(row):
                path.unlink()

    def add(self, source: str, rows: list[Row]) -> None:
        """Note that a source is done. One write a line: a kill leaves whole lines."""
        line = json.dumps({"source": source, "rows": rows}) + "\n"
        mode = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        handle = os.open(self.folder / JOURNAL_FILE, mode, 0o644)
        try:
            with room_for(self.folder / JOURNAL_FILE):
                os.write(handle, line.encode())
        finally:
            os.close(handle)

    def finish(self, rows: Iterable[Row]) -> None:
        """Write the table, and say that the dataset is complete."""
        with (
            atomic_path(self.folder / ROWS_FILE) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(Row._fields)
            writer.writerows(sorted(rows, key=lambda row: (SPLITS.index(row.split), row.name)))
        self._write_settings(complete=True)
        (self.folder / JOURNAL_FILE).unlink(missing_ok=True)

    def strangers(self, rows: Iterable[Row]) -> list[str]:
        """Images and labels in the folder that no row names."""
        known = {path for row in rows for path in self._paths(row)}
        found = {p for s in SPLITS for kind in ("image", "label") for p in self._files(s, kind)}
        return sorted(path.relative_to(self.folder).as_posix() for path in found - known)

    def _files(self, split: str, kind: str) -> list[Path]:
        folder = self.folder / split / kind
        return list(folder.iterdir()) if folder.is_dir() else []

    def _paths(self, row: Row) -> tuple[Path, Path]:
        split = self.folder / row.split
        return split / "image" / row.image, split / "label" / row.label

    def _exists(self, row: Row) -> bool:
        return all(path.is_file() for path in self._paths(row))

    def _write_settings(self, *, complete: bool) -> None:
        write_json(self.folder / SETTINGS_FILE, self.settings | {"complete": complete})

    def _settings_found(self) -> dict[str, Any] | None:
        try:
            found = json.loads((self.folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
            return None
        return found if isinstance(found, dict) and "complete" in found else None

    def _rows(self) -> list[Row]:
        if not (self.folder / ROWS_FILE).is_file():
            return []
        with open(self.folder / ROWS_FILE, newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            if tuple(table.fieldnames or ()) != Row._fields:  # of another version
                return []
            return [_typed(values) for values in table]

    def _journal(self) -> dict[str, list[Row]]:
        path = self.folder / JOURNAL_FILE
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        entries = []
        for line in lines:
            try:
                entries.append(json.loads(line))
            except json.JSONDecodeError:  # a machine that lost power may leave part of a line
                continue
        return {entry["source"]: [Row(*row) for row in entry["rows"]] for entry in entries}

    def _remove_leftovers(self) -> None:
        """Delete what a killed run had begun to write, which has a hidden name."""
        for path in [*self.folder.glob(".manifest.*"), *self.folder.glob("*/*/.*")]:
            if path.name != JOURNAL_FILE:
                path.unlink()


def _typed(values: dict[str, str]) -> Row:
    numbers = {key: int(values[key]) for key in ("top", "left", "width", "height")}
    return Row(**values | numbers | {"road_share": float(values["road_share"])})
