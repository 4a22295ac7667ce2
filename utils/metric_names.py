"""The metrics by the names that a config uses, and the one value that each is judged by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class MainValue(NamedTuple):
    """The value of a metric by which checkpoints are compared."""

    key: str
    more_is_better: bool


#: From the pixel counts: they cost nothing, every report holds all of them.
PIXEL_METRICS = ("f1", "iou", "iou_per_image", "precision", "recall", "accuracy", "mean_iou")
#: From skeletons and road graphs (`utils.topology`): computed where they are asked for.
TOPOLOGY_METRICS = {
    "apls": MainValue("apls", True),
    "topo": MainValue("topo_f1", True),
    "cldice": MainValue("cldice", True),
    "betti": MainValue("betti0_error", False),
    "relaxed": MainValue("relaxed_f1", True),
    "buffer": MainValue("quality", True),
}
METRICS = (*PIXEL_METRICS, *TOPOLOGY_METRICS)
#: In the values of a split: how many of its images no mean counts, having no valid pixel.
WITHOUT_DATA = "images_without_data"


def main_value(metric: str) -> MainValue:
    """What a metric is judged by: a pixel metric by itself."""
    return TOPOLOGY_METRICS.get(metric) or MainValue(metric, True)


def topology_among(metrics: Iterable[str]) -> tuple[str, ...]:
    """Those of the metrics that need skeletons or graphs, each once."""
    return tuple(name for name in dict.fromkeys(metrics) if name in TOPOLOGY_METRICS)


def parameter_lines(parameters: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What each metric depends on besides the images, a line each: 'relaxed: rho_px 3'."""
    return [
        f"{name}: " + ", ".join(f"{key} {_short(value)}" for key, value in values.items())
        for name, values in parameters.items()
    ]


def left_out_lines(overall: Mapping[str, float]) -> list[str]:
    """What the means of a split leave out, a line for each reason that there is."""
    reasons = {
        WITHOUT_DATA: "Images: {} without a valid pixel left out of the means",
        "apls_images_left_out": "APLS: {} without a road in the truth left out of the mean",
    }
    return [text.format(int(overall[key])) for key, text in reasons.items() if overall.get(key)]


def _short(value: float | bool) -> str:
    return str(value) if isinstance(value, bool) else f"{value:g}"
