"""The scores of many images as one table, metrics.json and metrics.xlsx."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from openpyxl import Workbook
from prettytable import PrettyTable

from utils.files import atomic_path, write_json
from utils.metric_names import PIXEL_METRICS, left_out_lines, parameter_lines
from utils.metrics import PixelCounts, ThresholdCounts, images_without_data, iou_per_image
from utils.pairing import listed
from utils.topology.parameters import topology_parameters
from utils.topology.registry import break_even_values, summarise
from utils.topology.scoring import GRAPH_METRICS, METRICS, Request, Scored

#: What the table has room for; the files have every value.
SHOWN = (
    *("apls", "topo_f1", "iou", "f1", "cldice", "betti0_error", "betti1_error"),
    *("relaxed_f1", "relaxed_break_even", "completeness", "correctness", "quality"),
)


def build_report(scored: Sequence[Scored], request: Request) -> dict[str, Any]:
    """images, overall and parameters of the images that could be scored; with a sweep, that."""
    good = [image for image in scored if image.problem is None]
    report = {
        "images": [{"name": image.name, **image.values} for image in good],
        "overall": _overall(good),
        "parameters": _parameters(good, request),
    }
    if request.sweep and good:
        report["sweep"] = _sweep(good, request.sweep)
    return report


def conditions(parameters: dict[str, Any]) -> str:
    """What the numbers depend on, to be printed above them."""
    of_metrics = {key: value for key, value in parameters.items() if isinstance(value, dict)}
    first = f"threshold {parameters['threshold']:g}"
    if sizes_m := parameters["pixel_size_m"]:
        first += ", pixel size " + ", ".join(f"{size:g} m" for size in sizes_m)
    return "\n".join([first, *parameter_lines(of_metrics)])


def table(report: dict[str, Any]) -> str:
    """An image a row, and the whole in the last; the sweep's best thresholds below."""
    shown = [key for key in SHOWN if key in report["overall"]]
    grid = PrettyTable(["image", *shown])
    grid.align, grid.align["image"] = "r", "l"
    for row in report["images"]:
        grid.add_row([row["name"], *(_short(row.get(key)) for key in shown)])
    grid.add_divider()
    grid.add_row(["overall", *(_short(report["overall"][key]) for key in shown)])
    lines = [grid.get_string()]
    lines += left_out_lines(report["overall"])
    for name, best in report.get("sweep", {}).get("best", {}).items():
        lines.append(f"best {name}: {best['value']:.4f} at threshold {best['threshold']:g}")
    return "\n".join(lines)


def photo_warnings(scored: Sequence[Scored]) -> list[str]:
    """A line for each side of which files look like photos: most likely a wrong folder."""
    lines = []
    for option, side in (("--pred", "prediction"), ("--gt", "truth")):
        names = [image.name for image in scored if side in image.photos]
        if names:
            lines.append(
                f"{option}: {len(names)} of {len(scored)} look like photos, not masks "
                f"({listed(names)})"
            )
    return lines


def write_report(report: dict[str, Any], folder: Path) -> None:
    """Write metrics.json and metrics.xlsx."""
    write_json(folder / "metrics.json", report)
    book = Workbook()
    keys = ["name", *report["overall"]]
    sheet = book.active
    sheet.title = "images"
    sheet.append(keys)
    for row in report["images"]:
        sheet.append([row.get(key) for key in keys])
    sheet.append(["overall", *report["overall"].values()])
    if "sweep" in report:
        _sweep_sheet(book, report["sweep"])
    parameters = book.create_sheet("parameters")
    for key, value in report["parameters"].items():
        parameters.append([key, value if isinstance(value, int | float | str) else str(value)])
    with atomic_path(folder / "metrics.xlsx") as path:
        book.save(path)


def _sweep_sheet(book: Workbook, sweep: dict[str, Any]) -> None:
    sheet = book.create_sheet("sweep")
    keys = [key for key in sweep if key != "best"]
    sheet.append(keys)
    for row in zip(*(sweep[key] for key in keys), strict=True):
        sheet.append(row)


def _overall(images: Sequence[Scored]) -> dict[str, float]:
    overall = summarise([image.values for image in images])
    counts = [image.pixels for image in images if image.pixels is not None]
    of_pixels = sum(counts, PixelCounts()).metrics()
    overall |= {key: of_pixels[key] for key in PIXEL_METRICS if key in overall}
    if "iou" in overall:
        overall["iou_per_image"] = iou_per_image(counts)
    overall |= images_without_data(counts)
    return overall | break_even_values(image.relaxed_curve for image in images)


def _parameters(images: Sequence[Scored], request: Request) -> dict[str, Any]:
    of_masks = any(image.pixels is not None for image in images)
    metrics = request.metrics or (METRICS if of_masks else GRAPH_METRICS)
    sizes = {image.pixel_size_m for image in images if image.pixel_size_m is not None}
    return {
        "threshold": request.threshold,
        "pixel_size_m": sorted(round(size, 6) for size in sizes),
        "connect": asdict(request.join) if request.join else None,
        **topology_parameters(metrics, displace=request.displace),
    }


def _sweep(images: Sequence[Scored], thresholds: Sequence[float]) -> dict[str, Any]:
    """IoU and F1 of the summed counts and the mean APLS at each threshold, and their best."""
    sweep: dict[str, Any] = {"threshold": list(thresholds)}
    counts = [image.by_threshold for image in images if image.by_threshold is not None]
    if counts:
        by_threshold = sum(counts, ThresholdCounts(thresholds)).counts()
        for name in ("iou", "f1"):
            sweep[name] = [pixels.metrics()[name] for pixels in by_threshold]
    rows = [image.apls_by_threshold for image in images if image.apls_by_threshold is not None]
    if rows:
        sweep["apls"] = [sum(column) / len(column) for column in zip(*rows, strict=True)]
    best = {}
    for name in [name for name in sweep if name != "threshold"]:
        ranked = zip(sweep[name], thresholds, strict=True)
        value, threshold = max(ranked, key=lambda pair: (pair[0], -abs(pair[1] - 0.5)))
        best[name] = {"threshold": threshold, "value": value}
    return sweep | {"best": best}


def _short(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if value <= 1 else f"{value:.2f}"
