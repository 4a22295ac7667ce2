"""Anchor-SAM: SAM 2.1's image encoder, mined anchors, context fusion and a deformable decoder.

Source: IEEE TGRS 2026, doi 10.1109/TGRS.2026.3684896.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from model.anchor_sam.anchor_mining import AnchorMining
from model.anchor_sam.context_fusion import ContextFusion
from model.anchor_sam.decoder import Decoder
from model.anchor_sam.encoder import LEVEL_STRIDES, HieraEncoder, ModelSize, checkpoint_blocks
from model.base import IMAGENET, RoadModel
from model.ops.deform_strip import Axis, strip_positions

log = logging.getLogger(__name__)

#: Taps and groups of the strips at strides 4, 8, 16 and 32.
STRIPS = ((7, 4), (7, 4), (5, 8), (5, 8))


class Anchors(NamedTuple):
    """The latent anchors of one level, in pixels of the input image.

    (0, 0) is the centre of the first pixel; points may lie outside the image. H and W are the
    cells of the level that cover the image: its sides divided by `stride`, rounded up.
    """

    stride: int
    #: (B, H, W, G, K, 2) as (x, y): where the horizontal strip of each cell and group reads.
    horizontal: Tensor
    #: (B, H, W, G, K, 2) as (x, y): where the vertical strip reads.
    vertical: Tensor
    #: (B, C, H, W): the gate that the two strips yield.
    gate: Tensor


class AnchorSAM(RoadModel):
    """Road logits (B, n_classes, H, W) from an RGB image (B, 3, H, W) of any size.

    Args:
        model_size: of the encoder; 'base' is 'base_plus', 'nano' is a small one for tests and CPUs.
        pretrained_weights_path: an official SAM 2.1 checkpoint of this size; None starts from
            random weights.
        fpn_top_down_levels: levels (0 = stride 4 to 3 = stride 32) that receive the sum of the
            coarser ones; None: all four, the published method; SAM 2.1 itself uses [2, 3].
        n_classes: channels of the logits.

    Raises ValueError for an unknown size or level, and for a weight file that is missing, damaged
    or of another size.
    """

    stride = 32
    # Batch norm of a single image needs more than one value a channel at stride 32.
    min_size = 64
    normalisation = IMAGENET
    adapter_only_frozen = ("encoder.trunk",)
    parts: ClassVar[dict[str, tuple[str, ...]]] = {
        "encoder": ("encoder",),
        "neck": ("encoder.neck",),
        "adapter": ("adapter",),
    }

    def __init__(
        self,
        *,
        model_size: ModelSize = "large",
        pretrained_weights_path: str | None = None,
        fpn_top_down_levels: Sequence[int] | None = None,
        n_classes: PositiveInt = 1,
    ) -> None:
        super().__init__()
        self.encoder = HieraEncoder(model_size, fpn_top_down_levels)
        channels, width = self.encoder.trunk_channels, self.encoder.neck_channels
        self.adapter = nn.ModuleList(AnchorMining(width, *strip) for strip in STRIPS)
        self.context_fusion = ContextFusion(channels, attention_width=width)
        self.decoder = Decoder(channels, width, n_classes)
        if pretrained_weights_path is not None:
            self.encoder.load_pretrained(pretrained_weights_path)

    def forward_padded(self, image: Tensor) -> Tensor:
        last_stage, levels = self.encoder(image)
        mined = [adapter(level) for adapter, level in zip(self.adapter, levels, strict=True)]
        return self.decoder(self.context_fusion(last_stage), mined)

    @torch.no_grad()
    def anchors(self, image: Tensor) -> list[Anchors]:
        """The latent anchors that `forward` mines in an image (B, 3, H, W), finest level first."""
        _, levels = self.encoder(self.pad(image))
        H, W = image.shape[-2:]
        anchors = []
        for adapter, level, stride in zip(self.adapter, levels, LEVEL_STRIDES, strict=True):
            latent = adapter.anchors(level)
            maps = (
                _strip_points_px(latent.horizontal, "w", stride),
                _strip_points_px(latent.vertical, "h", stride),
            )
            rows, columns = -(-H // stride), -(-W // stride)
            horizontal, vertical = (points[:, :rows, :columns] for points in maps)
            anchors.append(Anchors(stride, horizontal, vertical, latent.gate[..., :rows, :columns]))
        return anchors

    def enable_gradient_checkpointing(self) -> None:
        if not any(p.requires_grad for p in self.encoder.trunk.parameters()):
            log.warning("gradient_checkpointing has no effect: the encoder's trunk is frozen")
        checkpoint_blocks(self.encoder.trunk)


def _strip_points_px(offset: Tensor, axis: Axis, stride: int) -> Tensor:
    """Offsets (B, H, W, G, K) of a level's strip to points (B, H, W, G, K, 2), (x, y) in pixels."""
    along = strip_positions(offset, axis)
    across = strip_positions(torch.zeros_like(offset[..., :1]), "h" if axis == "w" else "w")
    across = across.expand_as(along)
    x, y = (along, across) if axis == "w" else (across, along)
    # Cell i covers the pixels i * stride to (i + 1) * stride - 1: its centre lies between them.
    return (torch.stack((x, y), -1) + 0.5) * stride - 0.5
