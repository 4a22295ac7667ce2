"""SAM2-UNet: the Hiera encoder of SAM 2 with adapters, and a U-shaped decoder.

Xiong, Wu, Tan, Li, Tang, Chen, Li, Ma, Li: SAM2-UNet: Segment Anything 2 Makes Strong Encoder for
Natural and Medical Image Segmentation. arXiv:2408.08870, 2024. The receptive-field blocks are those
of PraNet, arXiv:2006.11392. The authors' release builds a fourth decoder block that it never calls;
it is left out here.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from model.anchor_sam.encoder import LEVEL_STRIDES, HieraEncoder, ModelSize, checkpoint_blocks
from model.base import RoadModel
from model.blocks.conv import conv_bn_relu

WIDTH = 64  # channels of every level after its receptive-field block
ADAPTER_WIDTH = 32


class SAM2UNet(RoadModel):
    """SAM2-UNet. `training_strategy.mode: adapter_only` is the paper's: SAM's trunk stays as it is.

    Args:
        model_size: of the encoder, as AnchorSAM's; the paper's is 'large'.
        pretrained_weights_path: an official SAM 2.1 checkpoint of this size; None starts from
            random weights.
        deep_supervision: train two side outputs, at strides 16 and 8, with the same loss.
        n_classes: channels of the logits.

    Raises ValueError for an unknown size, and for a weight file that is missing, damaged or of
    another size.
    """

    stride: ClassVar[int] = 32
    # Batch norm of a single image needs more than one value a channel at stride 32.
    min_size: ClassVar[int] = 64
    # The adapters stand beside the trunk, not in it, so that freezing one leaves the others.
    adapter_only_frozen: ClassVar[tuple[str, ...]] = ("trunk",)
    parts: ClassVar[dict[str, tuple[str, ...]]] = {
        "encoder": ("trunk",),
        "neck": ("receptive_fields",),
        "adapter": ("adapters",),
    }

    def __init__(
        self,
        *,
        model_size: ModelSize = "large",
        pretrained_weights_path: str | None = None,
        deep_supervision: bool = True,
        n_classes: PositiveInt = 1,
    ) -> None:
        super().__init__()
        encoder = HieraEncoder(model_size)
        if pretrained_weights_path is not None:
            encoder.load_pretrained(pretrained_weights_path)
        self.trunk = encoder.trunk  # the pyramid above it has no part in this network
        self.adapters = nn.ModuleList(Adapter(block.dim) for block in self.trunk.blocks)
        self.receptive_fields = nn.ModuleList(
            ReceptiveFieldBlock(channels, WIDTH) for channels in reversed(self.trunk.channel_list)
        )
        self.decoder = nn.ModuleList(_fuse(WIDTH) for _ in LEVEL_STRIDES[1:])
        heads = len(self.decoder) if deep_supervision else 1
        self.heads = nn.ModuleList(nn.Conv2d(WIDTH, n_classes, 1) for _ in range(heads))

    def forward_padded(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to logits (B, n_classes, H, W); in training it leaves the side outputs."""
        levels = [
            reduce(stage)
            for reduce, stage in zip(self.receptive_fields, self._encode(image), strict=True)
        ]
        x, maps = levels.pop(), []
        for fuse in self.decoder:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            x = fuse(torch.cat([levels.pop(), x], 1))
            maps.append(x)
        # The side outputs come first, the coarsest at the front; the last is the prediction.
        heads = self.heads if self.training else self.heads[-1:]
        *sides, logits = (
            F.interpolate(head(x), image.shape[-2:], mode="bilinear", align_corners=False)
            for head, x in zip(heads, maps[-len(heads) :], strict=True)
        )
        if self.training:
            self.leave_side_logits(sides)
        return logits

    def _encode(self, image: Tensor) -> list[Tensor]:
        """The trunk's four stages, strides 4 to 32: its own forward with an adapter a block."""
        trunk = self.trunk
        x = trunk.patch_embed(image)  # BHWC
        x = x + trunk._get_pos_embed(x.shape[1:3])
        stages = []
        for i, (adapter, block) in enumerate(zip(self.adapters, trunk.blocks, strict=True)):
            x = block(adapter(x))
            if i in trunk.stage_ends:
                stages.append(x.permute(0, 3, 1, 2))  # BHWC -> BCHW
        return stages

    def enable_gradient_checkpointing(self) -> None:
        checkpoint_blocks(self.trunk)


class Adapter(nn.Module):
    """What a block of the trunk gets to see: (B, H, W, C) plus what a narrow MLP makes of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(channels, ADAPTER_WIDTH),
            nn.GELU(),
            nn.Linear(ADAPTER_WIDTH, channels),
            nn.GELU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(x)


class ReceptiveFieldBlock(nn.Module):
    """Four branches of growing reach, joined and added to a projection of the input.

    (B, in_channels, H, W) to (B, channels, H, W). A branch of kernel k has a row and a column of k
    taps and ends in a 3x3 of dilation k; there is one ReLU, at the end.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList([_conv_bn(in_channels, channels, (1, 1))])
        for k in (3, 5, 7):
            self.branches.append(
                nn.Sequential(
                    _conv_bn(in_channels, channels, (1, 1)),
                    _conv_bn(channels, channels, (1, k)),
                    _conv_bn(channels, channels, (k, 1)),
                    _conv_bn(channels, channels, (3, 3), dilation=k),
                )
            )
        self.join = _conv_bn(len(self.branches) * channels, channels, (3, 3))
        self.shortcut = _conv_bn(in_channels, channels, (1, 1))

    def forward(self, x: Tensor) -> Tensor:
        joined = self.join(torch.cat([branch(x) for branch in self.branches], 1))
        return F.relu(joined + self.shortcut(x))


def _conv_bn(
    in_channels: int, out_channels: int, kernel_size: tuple[int, int], dilation: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(
            in_channels, out_channels, kernel_size, padding="same", dilation=dilation, bias=False
        ),
        nn.BatchNorm2d(out_channels),
    )


def _fuse(channels: int) -> nn.Sequential:
    """Two convolutions over the skip and what comes from below."""
    return nn.Sequential(
        *conv_bn_relu(2 * channels, channels, 3), *conv_bn_relu(channels, channels, 3)
    )
