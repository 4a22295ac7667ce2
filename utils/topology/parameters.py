"""What the topology metrics depend on besides the images, as every report states it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from utils.topology.apls import apls
from utils.topology.betti import TILE_PX
from utils.topology.buffer import BUFFER_M
from utils.topology.from_mask import mask_to_graph
from utils.topology.relaxed import RHO_PX
from utils.topology.topo import TOPORule


def topology_parameters(metrics: Iterable[str], *, displace: bool = True) -> dict[str, Any]:
    """The parameters of those of `metrics` that have any, and of the graphs behind them."""
    distances = {k: v for k, v in apls.__kwdefaults__.items() if k.endswith("_m")}
    graph = {k: v for k, v in mask_to_graph.__kwdefaults__.items() if isinstance(v, float)}
    known = {
        "apls": {**distances, "displace": displace},
        "topo": asdict(TOPORule()),
        "relaxed": {"rho_px": RHO_PX},
        "buffer": {"buffer_m": BUFFER_M},
        "betti": {"tile_px": TILE_PX},
    }
    used = {name: known[name] for name in metrics if name in known}
    return used | ({"mask_to_graph": graph} if {"apls", "topo"} & used.keys() else {})
