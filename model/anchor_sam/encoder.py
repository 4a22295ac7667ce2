"""The image encoder of SAM 2.1: Hiera trunk and feature pyramid neck.

Ravi et al., "SAM 2: Segment Anything in Images and Videos", arXiv:2408.00714; Ryali et al., "Hiera:
A Hierarchical Vision Transformer without the Bells-and-Whistles", arXiv:2306.00989. The layers
are those of the `sam2` package, their sizes those of the configuration files that it ships.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from importlib import resources
from typing import Any, Literal, get_args

import torch
import yaml
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.backbones.image_encoder import FpnNeck
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.weights import load_weights

ModelSize = Literal["nano", "tiny", "small", "base", "base_plus", "large"]
#: The configuration file of each published size in sam2/configs/sam2.1/.
CONFIG_FILES = {
    "tiny": "sam2.1_hiera_t.yaml",
    "small": "sam2.1_hiera_s.yaml",
    "base_plus": "sam2.1_hiera_b+.yaml",
    "large": "sam2.1_hiera_l.yaml",
}
ALIASES = {"base": "base_plus"}
#: A size of our own for tests, teaching and quick starts on a CPU. It has no published weights.
NANO = {
    "trunk": {
        "embed_dim": 24,
        "num_heads": 1,
        "stages": [1, 1, 2, 1],
        "global_att_blocks": [3],
        "window_pos_embed_bkg_spatial_size": [7, 7],
    },
    "neck": {
        "d_model": 64,
        "backbone_channel_list": [192, 96, 48, 24],
        "fpn_interp_model": "nearest",
    },
}
#: Strides of the four levels, finest first.
LEVEL_STRIDES = (4, 8, 16, 32)
#: Where the encoder's tensors stand in a checkpoint of the whole SAM 2.1.
CHECKPOINT_PREFIX = "image_encoder."


def canonical_size(model_size: str) -> str:
    """The size behind an alias. Raises ValueError for a name outside the closed list."""
    if model_size not in get_args(ModelSize):
        raise ValueError(
            f"unknown model_size {model_size!r}, one of: {', '.join(get_args(ModelSize))}"
        )
    return ALIASES.get(model_size, model_size)


def encoder_settings(model_size: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Constructor arguments of trunk and neck, as SAM 2.1 publishes them for this size."""
    size = canonical_size(model_size)
    if size == "nano":
        settings = NANO
    else:
        file = resources.files("sam2") / "configs" / "sam2.1" / CONFIG_FILES[size]
        settings = yaml.safe_load(file.read_text())["model"]["image_encoder"]
    trunk = {k: v for k, v in settings["trunk"].items() if k != "_target_"}
    # The pyramid's top-down levels are the model's own choice, its position encoding has no reader.
    left_out = ("_target_", "position_encoding", "fpn_top_down_levels")
    neck = {k: v for k, v in settings["neck"].items() if k not in left_out}
    return trunk, neck


class HieraEncoder(nn.Module):
    """Features of an image at strides 4, 8, 16 and 32.

    Args:
        model_size: one of `ModelSize`; 'base' is 'base_plus'.
        fpn_top_down_levels: levels (0 = stride 4 to 3 = stride 32) that receive the sum of the
            coarser ones; None: all four, the published method; SAM 2.1 itself uses [2, 3].

    Raises ValueError for an unknown size or level.
    """

    def __init__(self, model_size: str, fpn_top_down_levels: Sequence[int] | None = None) -> None:
        super().__init__()
        num_levels = len(LEVEL_STRIDES)
        if not set(fpn_top_down_levels or ()) <= set(range(num_levels)):
            raise ValueError(
                f"fpn_top_down_levels: {list(fpn_top_down_levels)} has a level outside "
                f"0 (stride 4) to {num_levels - 1} (stride 32)"
            )
        self.model_size = canonical_size(model_size)
        trunk, neck = encoder_settings(model_size)
        self.trunk = Hiera(**trunk)
        self.neck = FpnNeck(nn.Identity(), fpn_top_down_levels=fpn_top_down_levels, **neck)
        for embedding in (self.trunk.pos_embed, self.trunk.pos_embed_window):
            embedding.no_weight_decay = True

    @property
    def trunk_channels(self) -> int:
        """Channels of the last trunk stage."""
        return self.trunk.channel_list[0]

    @property
    def neck_channels(self) -> int:
        """Channels of every neck level."""
        return self.neck.d_model

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The last trunk stage (stride 32) and the four neck levels, finest first.

        `image` is (B, 3, H, W) with sides that are multiples of 32.
        """
        # The trunk keeps the layout of its input, and what follows wants channels last.
        image = image.contiguous(memory_format=torch.channels_last)
        frozen = not any(parameter.requires_grad for parameter in self.trunk.parameters())
        with torch.no_grad() if frozen and not image.requires_grad else nullcontext():
            stages = self.trunk(image)
        levels, _ = self.neck(stages)
        return stages[-1], levels

    def load_pretrained(self, source: str) -> None:
        """Take trunk and neck from an official checkpoint of the whole SAM 2.1.

        Raises ValueError for a file that is missing, damaged or foreign, and when a tensor is
        missing, unknown or of another shape.
        """
        if self.model_size == "nano":
            raise ValueError(
                "pretrained_weights_path: model_size 'nano' has no published weights, leave it null"
            )
        try:
            load_weights(self, source, prefix=CHECKPOINT_PREFIX)
        except ValueError as error:
            file = f"sam2.1_hiera_{self.model_size}.pt"
            command = f"`bash pretrain_weight/download.bash {file}`"
            hint = "" if command in str(error) else f"; this size takes {file}, from {command}"
            raise ValueError(
                f"model_size {self.model_size!r}: {error}{hint}, or set "
                "pretrained_weights_path: null"
            ) from None


def checkpoint_blocks(trunk: Hiera) -> None:
    """Recompute every block in the backward pass instead of keeping its activations."""
    for block in trunk.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
