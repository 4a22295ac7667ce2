"""comparison.xlsx: the numbers of comparison.json, unrounded, on four sheets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openpyxl import Workbook
from openpyxl.styles import Font
from openpyxl.worksheet.worksheet import Worksheet

from utils.comparison.tables import flat_columns
from utils.files import atomic_path
from utils.reports import flat_items

_FONTS = {1: Font(bold=True), 2: Font(underline="single")}


def write_workbook(summary: Mapping[str, Any], path: Path) -> None:
    """Sheets scores (best bold, second underlined), seeds, significance and about."""
    book = Workbook()
    _scores(book.active, summary)
    _seeds(book.create_sheet("seeds"), summary)
    sheet = book.create_sheet("significance")
    entries = summary["significance"]["differences"]
    for row in [list(entries[0]), *(list(entry.values()) for entry in entries)] if entries else []:
        sheet.append(row)
    sheet = book.create_sheet("about")
    about = {key: summary[key] for key in ("about", "scoring", "failures")}
    for key, value in flat_items(about):
        sheet.append([key, value if isinstance(value, int | float | str) else json.dumps(value)])
    with atomic_path(path) as temporary:
        book.save(temporary)


def _scores(sheet: Worksheet, summary: Mapping[str, Any]) -> None:
    sheet.title = "scores"
    header, rows = flat_columns(summary)
    sheet.append(header)
    for row in rows:
        sheet.append(row)
    for metric in summary["metrics"]:
        column = header.index(f"{metric['key']}_mean") + 1
        for number, model in enumerate(summary["models"], start=2):
            rank = model["scores"][metric["key"]]["rank"]
            if rank in _FONTS:
                sheet.cell(number, column).font = _FONTS[rank]
    sheet.freeze_panes = "B2"


def _seeds(sheet: Worksheet, summary: Mapping[str, Any]) -> None:
    rows = [{"model": m["name"]} | scores for m in summary["models"] for scores in m["all_scores"]]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    sheet.append(columns)
    for row in rows:
        sheet.append([row.get(column) for column in columns])
