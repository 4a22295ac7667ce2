"""What the compared models cost, measured once and kept in the comparison's folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from utils import distributed
from utils.files import write_json
from utils.profiling.profile import profile_model
from utils.profiling.timing import Conditions, device_name
from utils.schema import Config

logger = logging.getLogger(__name__)

COSTS_FILE = "costs.json"
WARM_UP, REPEATS, LIMIT_S = 2, 15, 30.0


def measure_costs(
    configs: Mapping[str, Config], folder: Path, *, latency: bool
) -> tuple[dict[str, dict[str, Any]], str]:
    """The profile of each model for one image of the configs' size in float32, as in profile.json,
    and the processor that they were timed on."""
    file = folder / COSTS_FILE
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    found = {}
    for name, config in configs.items():
        device = distributed.init(config.device).device
        conditions = Conditions(
            size=config.image_size,
            batch=1,
            device=config.device,
            dtype="fp32",
            compiled=False,
            warm_up=WARM_UP,
            repeats=REPEATS,
            limit_s=LIMIT_S,
        )
        depends_on = [config.model_classname, config.model_args, config.training_strategy.mode]
        key = json.dumps([*depends_on, conditions, device_name(device), latency], sort_keys=True)
        if key not in known:
            logger.info("%s: measuring what it costs", name)
            profile = profile_model(name, config, conditions, latency=latency, train=False)
            known[key] = asdict(profile)
            write_json(file, known)
        found[name] = known[key] | {"name": name}
    return found, device_name(device)
