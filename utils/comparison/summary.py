"""All that a comparison found: the one source of its tables, sheets and pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.comparison.bootstrap import (
    CONFIDENCE,
    COUNTS,
    RESAMPLES,
    metrics_of_draws,
    paired_differences,
)
from utils.metric_names import METRICS, WITHOUT_DATA, main_value
from utils.metrics import PixelCounts

#: Of the metrics that a report may hold, whether more is better.
DIRECTION = {main_value(name).key: main_value(name).more_is_better for name in METRICS}
#: What the pictures that show one metric take, the first that there is.
HEADLINE = ("iou", "f1")
DIGITS = 12


@dataclass(frozen=True)
class Scored:
    """A model and seed with what inference.py wrote of it."""

    model: str
    seed: int
    classname: str
    report: dict[str, Any]  # metrics.json
    folder: Path

    @classmethod
    def read(cls, model: str, seed: int, classname: str, folder: Path) -> Scored:
        report = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        return cls(model, seed, classname, report, folder)


def summarise(
    scored: Sequence[Scored],
    costs: Mapping[str, Mapping[str, Any]],
    failures: Mapping[str, str],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of comparison.json; `costs` are the models' rows as in profile.json.

    Raises ValueError when runs were scored on different images.
    """
    by_model: dict[str, list[Scored]] = {}
    for run in scored:
        by_model.setdefault(run.model, []).append(run)
    _refuse_other_images(scored)
    metrics = _shared_metrics(scored)
    models = [_model(name, runs, metrics, costs[name]) for name, runs in by_model.items()]
    _add_ranks(models, metrics)
    images = {name: [run.report["images"] for run in runs] for name, runs in by_model.items()}
    differences = paired_differences(images, metrics) if len(images) > 1 else []
    content = {
        "about": dict(about) | _numbers_of_images(scored[0].report["images"]),
        "scoring": _same_in_all([run.report for run in scored]),
        "metrics": [{"key": key, "more_is_better": DIRECTION[key]} for key in metrics],
        "models": models,
        "significance": {
            "baseline": next(iter(images)),
            "resamples": RESAMPLES,
            "confidence": CONFIDENCE,
            "differences": [entry._asdict() for entry in differences],
        },
        "failures": dict(failures),
    }
    return _rounded(content)


def headline(summary: Mapping[str, Any]) -> str:
    """The metric that a picture of one metric shows."""
    keys = [metric["key"] for metric in summary["metrics"]]
    return next((key for key in HEADLINE if key in keys), keys[0])


def _numbers_of_images(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    without_data = sum(not any(row[key] for key in COUNTS) for row in rows)
    return {"num_images": len(rows), WITHOUT_DATA: without_data}


def _rounded(value: Any) -> Any:
    """Floats to the digits that every kind of file keeps: a sheet's 16 are one too few."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


def _model(
    name: str, runs: Sequence[Scored], metrics: Sequence[str], cost: Mapping[str, Any]
) -> dict[str, Any]:
    weight = cost["weight"] or {}
    return {
        "name": name,
        "classname": runs[0].classname,
        "seeds": [run.seed for run in runs],
        "scores": {key: _spread([run.report["overall"][key] for run in runs]) for key in metrics},
        "all_scores": [{"seed": run.seed} | run.report["overall"] for run in runs],
        "curve": _curve(runs),
        "parameters": weight.get("parameters"),
        "flops": weight.get("flops"),
        "latency": cost["forward"],
        "cost_problems": list(cost["problems"]),
    }


def _spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean and sample standard deviation; of one value there is none."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": math.fsum(values) / len(values), "std": std, "values": list(values)}


def _add_ranks(models: Sequence[dict[str, Any]], metrics: Sequence[str]) -> None:
    """Rank 1 is the best mean; equal ones share the better rank. Best and second by rank."""
    for key in metrics:
        means = {model["name"]: model["scores"][key]["mean"] for model in models}
        order = sorted(set(means.values()), reverse=DIRECTION[key])
        for model in models:
            own = means[model["name"]]
            better = sum(1 for mean in means.values() if order.index(mean) < order.index(own))
            model["scores"][key]["rank"] = better + 1
    for model in models:
        ranks = [model["scores"][key]["rank"] for key in metrics]
        model["mean_rank"] = sum(ranks) / len(ranks)


def _curve(runs: Sequence[Scored]) -> list[dict[str, float]]:
    """Precision and recall at each threshold that some pixel reaches, from all seeds' counts."""
    curves = [run.report.get("curve") for run in runs]
    if not all(curves):
        return []
    points = []
    for entries in zip(*curves, strict=True):
        counts = sum((PixelCounts(*entry["counts"]) for entry in entries), PixelCounts())
        if not counts.tp + counts.fp:
            continue  # of no prediction there is no precision
        values = counts.metrics()
        point = {key: values[key] for key in ("precision", "recall")}
        points.append({"threshold": entries[0]["threshold"], **point})
    return points


def _shared_metrics(scored: Sequence[Scored]) -> list[str]:
    """The metrics that every run has, as far as they say what is better.

    Raises ValueError where the values of a split do not follow from those of its images.
    """
    keys = [key for key in DIRECTION if all(key in run.report["overall"] for run in scored)]
    for run in scored:
        images = run.report["images"]
        again = metrics_of_draws(images, keys, np.ones((1, len(images)), np.int64))
        for key in keys:
            overall = run.report["overall"][key]
            if not math.isclose(again[key][0], overall, rel_tol=1e-9, abs_tol=1e-9):
                raise ValueError(
                    f"{run.folder}/metrics.json: {key} is {overall}, its images give "
                    f"{again[key][0]}: let inference.py write it anew"
                )
    return keys


def _refuse_other_images(scored: Sequence[Scored]) -> None:
    names = [[row["name"] for row in run.report["images"]] for run in scored]
    if not names[0]:
        raise ValueError(f"{scored[0].folder}/metrics.json: no image was scored")
    for run, own in zip(scored, names, strict=True):
        if own != names[0]:
            raise ValueError(f"{run.folder} and {scored[0].folder} are scores of different images")


def _same_in_all(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The conditions of scoring; what differs between runs is left to their own files."""
    own = ("images", "overall", "curve", "checkpoint", "epoch", "weights_sha256")
    return {
        key: value
        for key, value in reports[0].items()
        if key not in own and all(report.get(key) == value for report in reports)
    }
