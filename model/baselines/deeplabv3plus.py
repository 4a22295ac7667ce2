"""DeepLabV3+ on a dilated ResNet-101.

Chen, Zhu, Papandreou, Schroff and Adam, "Encoder-Decoder with Atrous Separable Convolution for
Semantic Image Segmentation", ECCV 2018, arXiv:1802.02611. With ordinary convolutions where the
paper has separable ones and without its multi-grid, as in the published comparison.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import ASPP

from model.base import RoadModel
from model.blocks.conv import conv_bn_relu
from model.blocks.resnet import ResNetEncoder

#: For each output stride: which of stages 2, 3, 4 dilation keeps at size, and the ASPP's rates.
DILATION = {
    16: ((False, False, True), [6, 12, 18]),
    8: ((False, True, True), [12, 24, 36]),
}


class DeepLabV3Plus(RoadModel):
    """DeepLabV3+ with a decoder at stride 4.

    Args:
        n_channels: channels of the image.
        n_classes: channels of the logits.
        backbone: the encoder.
        output_stride: stride of the encoder's last stage. 8 costs three times as much as 16.
        pretrained: start the encoder from its ImageNet weights (resnet101 in pretrain_weight/).

    Raises ValueError for another output_stride, when the pretrained weights are missing or damaged,
    and in training for a single image, whose pooled branch has nothing to normalise over.
    """

    parts: ClassVar[dict[str, tuple[str, ...]]] = {"encoder": ("encoder",), "neck": ("aspp",)}

    def __init__(
        self,
        *,
        n_channels: PositiveInt = 3,
        n_classes: PositiveInt = 1,
        backbone: Literal["resnet101"] = "resnet101",
        output_stride: Literal[8, 16] = 16,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        if output_stride not in DILATION:
            raise ValueError(f"output_stride: {output_stride} is neither 16 nor 8")
        dilate, rates = DILATION[output_stride]
        self.encoder = ResNetEncoder(
            backbone, n_channels=n_channels, pretrained=pretrained, dilate=dilate
        )
        _, low, *_, high = self.encoder.channels
        self.aspp = ASPP(high, rates, 256)
        self.reduce_low = conv_bn_relu(low, 48, 1)
        self.decoder = nn.Sequential(
            *conv_bn_relu(256 + 48, 256, 3),
            nn.Dropout(0.5),
            *conv_bn_relu(256, 256, 3),
            nn.Dropout(0.1),
            nn.Conv2d(256, n_classes, 1),
        )
        for part in (self.aspp, self.reduce_low, self.decoder):
            for module in part.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight)

    def forward_padded(self, image: Tensor) -> Tensor:
        """(B, n_channels, H, W) to logits (B, n_classes, H, W), which are made at stride 4."""
        if self.aspp.training and len(image) == 1:
            raise ValueError("DeepLabV3Plus trains on two images at a time or more: batch_size: 2")
        _, e1, _, _, e4 = self.encoder(image)
        x = _resize(self.aspp(e4), e1)
        x = self.decoder(torch.cat([x, self.reduce_low(e1)], 1))
        return _resize(x, image)


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=True)
