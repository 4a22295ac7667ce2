"""The models, by class name. Importing this package imports no torch; building a model does."""

from __future__ import annotations

import importlib
import inspect
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.base import RoadModel

logger = logging.getLogger(__name__)

MODELS = {
    "AnchorSAM": "model.anchor_sam.net",
    "UNet": "model.baselines.unet",
    "DLinkNet": "model.baselines.dlinknet",
    "DeepLabV3Plus": "model.baselines.deeplabv3plus",
    "CGCNet": "model.baselines.cgcnet",
    "CCNet": "model.baselines.ccnet",
    "TransRoadNet": "model.baselines.transroadnet",
    "AFDANet": "model.baselines.afdanet",
    "CMTFNet": "model.baselines.cmtfnet",
    "RSM_SS": "model.baselines.rs_mamba",
    "StripUnet": "model.baselines.strip_unet",
}
#: Other names of the same class, as published configs spell them.
ALIASES = {"SAM2Point1Net": "AnchorSAM"}
#: Constructor arguments that load pretrained weights, and the value that loads none.
PRETRAINED_ARGS = {"pretrained": False, "pretrained_weights_path": None}


def list_models() -> list[str]:
    """Every name that `model_classname` accepts."""
    return [*MODELS, *ALIASES]


def model_class(model_classname: str) -> type[RoadModel]:
    """The class of this name. Raises ValueError for a name outside `list_models()`."""
    name = ALIASES.get(model_classname, model_classname)
    if name not in MODELS:
        raise ValueError(f"unknown model {model_classname!r}, one of: {', '.join(list_models())}")
    return getattr(importlib.import_module(MODELS[name]), name)


def build_model(
    model_classname: str, model_args: dict[str, Any], *, load_pretrained: bool = True
) -> RoadModel:
    """The model of a config; a start from random weights, where there are better, is said.

    With `load_pretrained=False` no weight file is touched: for a checkpoint that brings every
    weight itself.
    """
    cls = model_class(model_classname)
    parameters = inspect.signature(cls).parameters
    for name, nothing in PRETRAINED_ARGS.items():
        if name not in parameters:
            continue
        if not load_pretrained:
            model_args = model_args | {name: nothing}
        elif model_args.get(name, parameters[name].default) == nothing:
            logger.warning(
                "%s: %s is %s, the encoder starts at random", cls.__name__, name, nothing
            )
    return cls(**model_args)
