"""The models, by class name. Importing this package imports no torch; building a model does."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.base import RoadModel

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


def canonical_name(model_classname: str) -> str:
    """The class name behind an alias; names that are none come back as they are."""
    return ALIASES.get(model_classname, model_classname)


def model_class(model_classname: str) -> type[RoadModel]:
    """The class of this name. Raises ValueError for a name outside `list_models()`."""
    name = canonical_name(model_classname)
    if name not in MODELS:
        raise ValueError(f"unknown model {model_classname!r}, one of: {', '.join(list_models())}")
    return getattr(importlib.import_module(MODELS[name]), name)


def build_model(
    model_classname: str, model_args: dict[str, Any], *, load_pretrained: bool = True
) -> RoadModel:
    """The model of a config. With `load_pretrained=False` its weight files are not touched:
    for a checkpoint that brings every weight itself."""
    cls = model_class(model_classname)
    if not load_pretrained:
        accepted = cls.__init__.__annotations__
        model_args = model_args | {k: v for k, v in PRETRAINED_ARGS.items() if k in accepted}
    return cls(**model_args)
