"""One prediction against its truth: the values that were asked for, or what is wrong, in a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.metric_names import PIXEL_METRICS, TOPOLOGY_METRICS, topology_among
from utils.metrics import PixelCounts, ThresholdCounts, none_without_data
from utils.topology.apls import APLSResult, apls
from utils.topology.connect import JoinRule
from utils.topology.figures import draw_comparison
from utils.topology.graph import RoadGraph
from utils.topology.inputs import Raster
from utils.topology.pairs import GivenPair, PairPaths
from utils.topology.registry import apls_values, relaxed_curve, topo_values, topology_values
from utils.topology.relaxed import RelaxedCurve
from utils.topology.topo import topo

GRAPH_METRICS = ("apls", "topo")
#: `iou_per_image` is a value of many images: a report's overall has it beside `iou`.
MASK_METRICS = (
    *(name for name in PIXEL_METRICS if name != "iou_per_image"),
    *(name for name in TOPOLOGY_METRICS if name not in GRAPH_METRICS),
)
METRICS = (*GRAPH_METRICS, *MASK_METRICS)
NUM_WORST = 8


@dataclass(frozen=True)
class Request:
    """What is asked for; `metrics` None: all that the files allow."""

    metrics: tuple[str, ...] | None = None
    threshold: float = 0.5
    pixel_size_m: float = 1.0
    displace: bool = True
    sweep: Sequence[float] = ()
    figures: Path | None = None
    join: JoinRule | None = None


@dataclass(frozen=True)
class Scored:
    """The values of an image, with what adds up over images; or `problem`, in one line."""

    name: str
    values: dict[str, float | None]  # None: no valid pixel
    pixel_size_m: float | None = None  # None: no raster on either side
    problem: str | None = None
    pixels: PixelCounts | None = None
    by_threshold: ThresholdCounts | None = None
    relaxed_curve: RelaxedCurve | None = None
    apls_by_threshold: tuple[float, ...] | None = None  # None: not swept, or no road in truth
    photos: tuple[str, ...] = ()  # sides, "prediction" and "truth", that look like no mask


def score_pair(paths: PairPaths, request: Request) -> Scored:
    """Score a pair; a mistake in its files becomes the `problem` of the result."""
    try:
        return _score(paths, request)
    except (ValueError, OSError) as error:
        return Scored(paths.name, {}, problem=f"{paths.name}: {_one_line(error)}")


def _score(paths: PairPaths, request: Request) -> Scored:
    pair = GivenPair.read(paths, request.pixel_size_m)
    names = request.metrics or (METRICS if pair.has_masks else GRAPH_METRICS)
    if not pair.has_masks and (unfit := [name for name in names if name in MASK_METRICS]):
        raise ValueError(f"{', '.join(unfit)}: need a raster on both sides")
    values = {}
    truth = pair.truth_graph() if set(names) & set(GRAPH_METRICS) or request.figures else None
    if truth is not None:
        values |= _graph_values(pair, truth, names, request, paths.name)
    pixels = curve = None
    if pair.has_masks:
        pixels = _pixel_counts(pair, request.threshold)
        values |= _mask_values(pair, names, pixels, request.threshold)
        if "relaxed" in names and pair.prediction.is_probability:
            curve = relaxed_curve(pair.probability(), pair.target())
            values["relaxed_break_even"] = curve.break_even()[1]
        values = none_without_data(pixels, values)
    by_threshold, apls_by_threshold = _sweep(pair, truth, request)
    return Scored(
        paths.name,
        values,
        pixel_size_m=pair.pixel_size_m if pair.has_raster else None,
        pixels=pixels,
        by_threshold=by_threshold,
        relaxed_curve=curve,
        apls_by_threshold=apls_by_threshold,
        photos=pair.photos(),
    )


def _graph_values(
    pair: GivenPair, truth: RoadGraph, names: Sequence[str], request: Request, name: str
) -> dict[str, float]:
    proposal = pair.predicted_graph(request.threshold, request.join)
    values = {}
    result: APLSResult | None = None
    if "apls" in names or request.figures:
        num_worst = NUM_WORST if request.figures else 0
        result = apls(truth, proposal, displace=request.displace, num_worst=num_worst)
    if "apls" in names:
        values |= apls_values(result)
    if "topo" in names:
        values |= topo_values(topo(truth, proposal))
    if request.figures:
        draw_comparison(truth, proposal, result, name, request.figures / f"{name}.png")
    return values


def _mask_values(
    pair: GivenPair, names: Sequence[str], pixels: PixelCounts, threshold: float
) -> dict[str, float]:
    of_pixels = pixels.metrics()
    values = {name: of_pixels[name] for name in names if name in of_pixels}
    of_masks = [name for name in topology_among(names) if name not in GRAPH_METRICS]
    prediction, target = pair.predicted_mask(threshold), pair.target()
    return values | topology_values(of_masks, prediction, target, pair.pixel_size_m, threshold)


def _pixel_counts(pair: GivenPair, threshold: float) -> PixelCounts:
    return PixelCounts.from_masks(pair.predicted_mask(threshold), pair.target())


def _sweep(
    pair: GivenPair, truth: RoadGraph | None, request: Request
) -> tuple[ThresholdCounts | None, tuple[float, ...] | None]:
    """Pixel counts and APLS at every threshold of the sweep."""
    if not request.sweep:
        return None, None
    if not isinstance(pair.prediction, Raster):
        raise ValueError("--sweep needs a probability map as prediction")
    counts = None
    if pair.has_masks:
        counts = ThresholdCounts(request.sweep)
        counts.update(pair.probability(), pair.target())
    truth = truth or pair.truth_graph()
    if truth.is_empty:
        return counts, None
    return counts, tuple(
        apls(truth, pair.predicted_graph(threshold, request.join), displace=request.displace).apls
        for threshold in request.sweep
    )


def _one_line(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())
