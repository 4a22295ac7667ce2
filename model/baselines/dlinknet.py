"""D-LinkNet: LinkNet with a pretrained ResNet-34 and a dilated centre.

Zhou, Zhang and Wu, "D-LinkNet: LinkNet with Pretrained Encoder and Dilated Convolution for High
Resolution Satellite Imagery Road Extraction", CVPR Workshops 2018, doi 10.1109/CVPRW.2018.00034.
The authors' network ends in a sigmoid; this one returns logits.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import PositiveInt
from torch import Tensor

from model.base import RoadModel
from model.blocks.linknet import DilatedCascade, LinkNetBlock, LinkNetHead
from model.blocks.resnet import ResNetEncoder


class DLinkNet(RoadModel):
    """D-LinkNet34.

    Args:
        n_channels: channels of the image.
        n_classes: channels of the logits.
        pretrained: start the encoder from its ImageNet weights (resnet34 in pretrain_weight/).

    Raises ValueError when the pretrained weights are missing or damaged.
    """

    stride: ClassVar[int] = 32
    parts: ClassVar[dict[str, tuple[str, ...]]] = {"encoder": ("encoder",), "neck": ("centre",)}

    def __init__(
        self, *, n_channels: PositiveInt = 3, n_classes: PositiveInt = 1, pretrained: bool = True
    ) -> None:
        super().__init__()
        self.encoder = ResNetEncoder("resnet34", n_channels=n_channels, pretrained=pretrained)
        self.centre = DilatedCascade(512)
        self.up4 = LinkNetBlock(512, 256)
        self.up3 = LinkNetBlock(256, 128)
        self.up2 = LinkNetBlock(128, 64)
        self.up1 = LinkNetBlock(64, 64)
        self.head = LinkNetHead(n_classes)

    def forward_padded(self, image: Tensor) -> Tensor:
        """(B, n_channels, H, W) to logits (B, n_classes, H, W)."""
        _, e1, e2, e3, e4 = self.encoder(image)
        x = self.up4(self.centre(e4)) + e3
        x = self.up3(x) + e2
        x = self.up2(x) + e1
        return self.head(self.up1(x))
