"""The metrics by the names that a config uses, and the one value that each is judged by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


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


def main_value(metric: str) -> MainValue:
    """What a metric is judged by: a pixel metric by itself."""
    return TOPOLOGY_METRICS.get(metric) or MainValue(metric, True)


def topology_among(metrics: Iterable[str]) -> tuple[str, ...]:
    """Those of the metrics that need skeletons or graphs, each once."""
    return tuple(name for name in dict.fromkeys(metrics) if name in TOPOLOGY_METRICS)
