"""Runs with random nano weights, for demo.py to show."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

import model
from model.base import normalise
from utils.checkpoint import save_checkpoint
from utils.config import check_config
from utils.synthetic.scene import draw_scene

ARGS = {"model_size": "nano", "pretrained_weights_path": None}


def save_run(folder: Path, *, seed: int = 0, dataset: str = "sample", threshold: float = 0.5):
    """A folder as train.py leaves it: best_f1score.pth of an Anchor-SAM, tiles of 64 px."""
    values = {
        "model_classname": "AnchorSAM",
        "model_args": ARGS,
        "dataset_name": dataset,
        "image_size": 64,
        "amp": False,
    }
    config = check_config(
        values, "test", model_names=model.list_models(), model_class=model.model_class, warn=print
    )
    network = nano(seed)
    checkpoint = {
        "model_classname": "AnchorSAM",
        "config": config.model_dump(mode="json"),
        "epoch": 3,
        "model": network.state_dict(),
        "ema": None,
        "threshold": threshold,
        "scores": {},
    }
    save_checkpoint(folder / "best_f1score.pth", checkpoint)
    return network


@cache
@torch.no_grad()
def nano(seed: int):
    """Random weights, of which half of a scene is road, so that thresholds make a difference."""
    torch.manual_seed(seed)
    network = model.build_model("AnchorSAM", ARGS, load_pretrained=False)
    image = torch.from_numpy(draw_scene(3, 0, 128).image).permute(2, 0, 1)[None]  # HWC -> BCHW
    logits = network.eval()(normalise(image, network.normalisation))
    head = network.decoder.head
    head.bias.sub_(logits.median()).div_(logits.std())
    head.weight.div_(logits.std())
    return network
