"""The topology metrics by name, as the scripts call them: on a prediction and a target."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict

import numpy as np

from utils.metric_names import TOPOLOGY_METRICS
from utils.metrics import IGNORE
from utils.topology.apls import APLSResult, apls
from utils.topology.betti import betti_errors
from utils.topology.buffer import buffer_counts
from utils.topology.cldice import cldice
from utils.topology.from_mask import mask_to_graph
from utils.topology.matching import MatchCounts
from utils.topology.relaxed import RelaxedCurve, relaxed_counts
from utils.topology.topo import TOPOResult, topo

#: (prediction, target, pixel_size_m, threshold) -> values; see `METRIC_FUNCTIONS`.
Metric = Callable[[np.ndarray, np.ndarray, float, float], dict[str, float]]


def binarise(
    prediction: np.ndarray, target: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and target as bool H x W; where the target is 255, both are no road.

    Float predictions are probabilities, road from `threshold` on; others are masks, non-zero
    road. Raises ValueError for different shapes.
    """
    if prediction.shape != target.shape or prediction.ndim != 2:
        raise ValueError(
            f"expected masks of one size H x W, got {prediction.shape} and {target.shape}"
        )
    floating = np.issubdtype(prediction.dtype, np.floating)
    road = prediction >= prediction.dtype.type(threshold) if floating else prediction != 0
    return road & (target != IGNORE), target == 1


def apls_values(result: APLSResult) -> dict[str, float]:
    """An APLS as values of a report; the flags tell which graph was empty."""
    return {
        "apls": result.apls,
        "apls_truth_to_proposal": result.truth_to_proposal.score,
        "apls_proposal_to_truth": result.proposal_to_truth.score,
        "apls_truth_empty": float(result.truth_empty),
        "apls_proposal_empty": float(result.proposal_empty),
    }


def topo_values(result: TOPOResult) -> dict[str, float]:
    """A TOPO as values of a report."""
    return {
        "topo_f1": result.f1,
        "topo_precision": result.precision,
        "topo_recall": result.recall,
        "topo_starts": float(result.num_starts),
    }


def relaxed_values(counts: MatchCounts) -> dict[str, float]:
    """Relaxed scores with the counts behind them, which add up over images."""
    values = {
        "relaxed_f1": counts.f1,
        "relaxed_precision": counts.precision,
        "relaxed_recall": counts.recall,
    }
    return values | _count_values("relaxed", counts)


def buffer_values(counts: MatchCounts) -> dict[str, float]:
    """Buffer scores with the counts behind them, which add up over images."""
    values = {
        "quality": counts.quality,
        "completeness": counts.recall,
        "correctness": counts.precision,
    }
    return values | _count_values("buffer", counts)


def relaxed_curve(probability: np.ndarray, target: np.ndarray) -> RelaxedCurve:
    """The curve of one image (H x W, float); where the target is 255, both are no road."""
    curve = RelaxedCurve()
    curve.update(np.where(target == IGNORE, 0, probability), target == 1)
    return curve


def break_even_values(curves: Iterable[RelaxedCurve | None]) -> dict[str, float]:
    """The break-even point of the images that have a curve, together; empty where none has."""
    known = [curve for curve in curves if curve is not None]
    if not known:
        return {}
    threshold, value = sum(known[1:], known[0]).break_even()
    return {"relaxed_break_even": value, "relaxed_break_even_threshold": threshold}


def summarise(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    """The values of a split from those of its images; None, where nothing is valid, is left out.

    Relaxed and buffer scores come from the summed counts. The rest are means over images; for
    APLS over those whose truth has roads, `apls_images_left_out` tells how many have none.
    """
    keys = dict.fromkeys(key for row in rows for key in row)
    rows = [{key: value for key, value in row.items() if value is not None} for row in rows]
    with_roads = [row for row in rows if not row.get("apls_truth_empty")]
    overall = {}
    for key in keys:
        counted = with_roads if key.startswith("apls") else rows
        values = [row[key] for row in counted if key in row]
        overall[key] = float(np.mean(values)) if values else 0.0
    for name, to_values in (("relaxed", relaxed_values), ("buffer", buffer_values)):
        if f"{name}_true_px" in keys:
            totals = [_counts_of(name, row) for row in rows if f"{name}_true_px" in row]
            overall |= to_values(sum(totals, MatchCounts()))
    if "apls" in keys:
        overall.pop("apls_truth_empty")
        overall["apls_images_left_out"] = float(len(rows) - len(with_roads))
    return overall


def _count_values(name: str, counts: MatchCounts) -> dict[str, float]:
    return {f"{name}_{key}_px": float(value) for key, value in asdict(counts).items()}


def _counts_of(name: str, row: Mapping[str, float]) -> MatchCounts:
    return MatchCounts(**{key: int(row[f"{name}_{key}_px"]) for key in asdict(MatchCounts())})


def _graphs(prediction, target, pixel_size_m, threshold):
    road, truth = binarise(prediction, target, threshold)
    return mask_to_graph(truth, pixel_size_m), mask_to_graph(road, pixel_size_m)


def _apls(prediction, target, pixel_size_m, threshold):
    return apls_values(apls(*_graphs(prediction, target, pixel_size_m, threshold)))


def _topo(prediction, target, pixel_size_m, threshold):
    return topo_values(topo(*_graphs(prediction, target, pixel_size_m, threshold)))


def _cldice(prediction, target, pixel_size_m, threshold):
    return cldice(*binarise(prediction, target, threshold))


def _betti(prediction, target, pixel_size_m, threshold):
    return betti_errors(*binarise(prediction, target, threshold))


def _relaxed(prediction, target, pixel_size_m, threshold):
    return relaxed_values(relaxed_counts(*binarise(prediction, target, threshold)))


def _buffer(prediction, target, pixel_size_m, threshold):
    road, truth = binarise(prediction, target, threshold)
    return buffer_values(buffer_counts(road, truth, pixel_size_m))


#: Each takes a prediction (H x W: probabilities, or a mask), a target (uint8 H x W: 0, 1, and 255
#: where there is no data), the pixel size in metres and the threshold; values by name result.
METRIC_FUNCTIONS: dict[str, Metric] = {
    "apls": _apls,
    "topo": _topo,
    "cldice": _cldice,
    "betti": _betti,
    "relaxed": _relaxed,
    "buffer": _buffer,
}
assert METRIC_FUNCTIONS.keys() == TOPOLOGY_METRICS.keys(), "a metric without a name or function"


def topology_values(
    metrics: Iterable[str],
    prediction: np.ndarray,
    target: np.ndarray,
    pixel_size_m: float,
    threshold: float,
) -> dict[str, float]:
    """The values of one image by all these topology metrics; arguments as `METRIC_FUNCTIONS`."""
    values: dict[str, float] = {}
    for name in metrics:
        values |= METRIC_FUNCTIONS[name](prediction, target, pixel_size_m, threshold)
    return values
