"""Every file of a finished comparison, from its summary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib

from utils.comparison.figures import draw_bars, draw_curves, draw_efficiency, theme
from utils.comparison.grid import draw_disagreement
from utils.comparison.report import write_report
from utils.comparison.sheets import write_workbook
from utils.comparison.tables import (
    latex_document,
    score_table,
    significance_table,
    to_csv,
    to_latex,
    to_markdown,
)
from utils.dataset import WholeImages
from utils.files import atomic_path, write_json

FIGURES = "figures"


def write_outputs(
    summary: Mapping[str, Any], images: WholeImages, masks: Mapping[str, Path], folder: Path
) -> list[str]:
    """Write tables, sheets, figures and the report; the names of the files.

    `masks` are the folders of each model's masks of `images`, for the grid.
    """
    write_json(folder / "comparison.json", summary)
    write_workbook(summary, folder / "comparison.xlsx")
    texts = {"comparison.csv": to_csv(summary)}
    tables = {"scores": score_table(summary)}
    if summary["significance"]["differences"]:
        tables["significance"] = significance_table(summary)
    texts["comparison.md"] = "\n".join(to_markdown(table) for table in tables.values())
    for name, table in tables.items():
        texts[f"{name}.tex"] = to_latex(table, name)
    texts["comparison.tex"] = latex_document([*tables])
    for name, text in texts.items():
        with atomic_path(folder / name) as path:
            path.write_text(text, encoding="utf-8")
    grid = folder / FIGURES / "disagreement.png"
    draw_disagreement(images, masks, grid)
    pictures = {"Where the models disagree most": grid}
    write_report(summary, _charts(summary, folder / FIGURES), pictures, folder / "report.html")
    return ["report.html", "comparison.json", "comparison.xlsx", *texts, f"{FIGURES}/"]


def _charts(summary: Mapping[str, Any], folder: Path) -> dict[str, dict[str, Path]]:
    """Title -> ground -> file of each chart that there are numbers for."""
    wanted: dict[str, tuple[str, Callable[[Mapping[str, Any], Path], None]]] = {
        "Metrics": ("bars", draw_bars)
    }
    models = summary["models"]
    if all(model["curve"] for model in models):
        wanted["Precision and recall"] = ("precision_recall", draw_curves)
    if any(model["flops"] for model in models):
        wanted["Accuracy and cost"] = ("efficiency", draw_efficiency)
    charts: dict[str, dict[str, Path]] = {}
    for title, (name, draw) in wanted.items():
        for ground, suffix in (("light", ""), ("dark", "_dark")):
            file = folder / f"{name}{suffix}.png"
            with matplotlib.rc_context(theme(ground)):
                draw(summary, file)
            charts.setdefault(title, {})[ground] = file
    return charts
