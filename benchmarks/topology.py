#!/usr/bin/env python
"""Time and memory of the road-graph metrics: python benchmarks/topology.py

The bounds: APLS of a pair with 140 control points in 50 ms; a 40 x 40 grid of 100 m links in 10 s
and 1 GB; cost that grows no worse than the square of the control points.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from prettytable import PrettyTable
from scipy.ndimage import gaussian_filter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import ArgumentParser
from utils.topology.apls import apls, control_points
from utils.topology.from_mask import mask_to_graph
from utils.topology.graph import RoadGraph, straight_graph
from utils.topology.registry import METRIC_FUNCTIONS
from utils.topology.topo import topo

SIDE_PX = 1500
GRIDS = ((7, 9), (10, 5), (20, 3), (40, 1))  # streets a side, and how often each is timed


def grid(num: int, link_m: float = 100.0) -> RoadGraph:
    """num x num nodes, `link_m` apart."""
    nodes = [(x * link_m, y * link_m) for y in range(num) for x in range(num)]
    across = [(i, i + 1) for i in range(num * num) if i % num < num - 1]
    down = [(i, i + num) for i in range(num * (num - 1))]
    return straight_graph(nodes, across + down)


def moved(graph: RoadGraph) -> RoadGraph:
    """A proposal: 1 m aside, one link in 20 lost."""
    links = [tuple(ends) for i, ends in enumerate(graph.ends.tolist()) if i % 20 != 7]
    return straight_graph(graph.nodes + 1.0, links)


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The median time of a call, after one that does not count."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def graph_table() -> PrettyTable:
    table = PrettyTable(["grid", "control points", "APLS [ms]", "per pair [ns]", "TOPO [ms]"])
    table.align = "r"
    for num, repeats in GRIDS:
        truth = grid(num)
        proposal = moved(truth)
        points = len(control_points(truth, 50.0)[0])
        apls_s = seconds(lambda t=truth, p=proposal: apls(t, p), repeats)
        topo_s = seconds(lambda t=truth, p=proposal: topo(t, p), repeats) if num <= 20 else None
        shown = "-" if topo_s is None else f"{1e3 * topo_s:.0f}"
        per_pair_ns = 1e9 * apls_s / points**2
        table.add_row(
            [f"{num} x {num}", points, f"{1e3 * apls_s:.1f}", f"{per_pair_ns:.0f}", shown]
        )
    return table


def mask_table() -> PrettyTable:
    """A street pattern of 1500 x 1500 pixels, and probabilities that waver around it."""
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    target = ((y % 130 < 8) | (x % 170 < 8)).astype(np.uint8)
    noise = gaussian_filter(np.random.default_rng(0).normal(size=target.shape), 8) * 20
    probability = gaussian_filter(target.astype(np.float32), 2) + 0.25 * noise
    probability = probability.clip(0, 1).astype(np.float32)
    table = PrettyTable([f"{SIDE_PX} x {SIDE_PX} px", "s"])
    table.align = "r"
    mask = probability >= 0.5
    table.add_row(["mask_to_graph", f"{seconds(lambda: mask_to_graph(mask), 3):.2f}"])
    for name, metric in METRIC_FUNCTIONS.items():
        spent = seconds(lambda metric=metric: metric(probability, target, 1.0, 0.5), 1)
        table.add_row([name, f"{spent:.2f}"])
    return table


def main(argv: Sequence[str] | None = None) -> None:
    """Measure grids and a mask, and print what they cost."""
    # Nothing from `alternating`, whose torch would take more memory than what is measured.
    ArgumentParser(__doc__).read(argv)
    print(graph_table())
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak_mb:.0f} MB")
    print(mask_table())


if __name__ == "__main__":
    main()
