"""ResNet encoders: torchvision's networks without their classifier."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor, nn

from model.weights import load_weights


class ResNetEncoder(nn.Module):
    """Features of a torchvision ResNet (He et al., CVPR 2016, arXiv:1512.03385).

    Args:
        network: 'resnet18', 'resnet34', 'resnet50', 'resnet101'.
        n_channels: channels of the image. Other numbers than 3 get a stem of their own: pretrained
            RGB kernels are repeated at the same overall gain, random ones are drawn anew.
        pretrained: load the ImageNet (V1) weights of pretrain_weight/; False touches no file.
        num_stages: how many of the four stages to keep.
        dilate: for stages 2, 3 and 4 whether dilation takes the place of their stride.

    `channels` lists those of e0 to e4. Raises ValueError when the weights are missing or damaged.
    """

    def __init__(
        self,
        network: str,
        *,
        n_channels: int = 3,
        pretrained: bool = False,
        num_stages: int = 4,
        dilate: tuple[bool, bool, bool] = (False, False, False),
    ) -> None:
        super().__init__()
        resnet = torchvision.models.get_model(
            network, weights=None, replace_stride_with_dilation=list(dilate)
        )
        resnet.fc = nn.Identity()
        if pretrained:
            _load_pretrained(resnet, network)
        if n_channels != 3:
            resnet.conv1 = _stem_for(n_channels, resnet.conv1 if pretrained else None)
        self.stem = nn.Sequential(resnet.conv1, resnet.bn1, resnet.relu)
        self.pool = resnet.maxpool
        stages = [resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4]
        self.stages = nn.ModuleList(stages[:num_stages])
        expansion = stages[0][0].expansion
        self.channels = [64, *(64 * 2**i * expansion for i in range(num_stages))]

    def forward(self, image: Tensor) -> list[Tensor]:
        """[e0, e1, ...]: the stem before its pooling (stride 2), then each stage (4, 8, 16, 32)."""
        features = [self.stem(image)]
        x = self.pool(features[0])
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


def _load_pretrained(resnet: nn.Module, network: str) -> None:
    try:
        load_weights(resnet, network, drop=("fc.",))
    except ValueError as error:
        raise ValueError(f"{error}, or set pretrained: false") from None


def _stem_for(n_channels: int, rgb: nn.Conv2d | None) -> nn.Conv2d:
    """The first convolution for `n_channels`: the RGB kernels in turn, scaled by 3 / n_channels;
    None: random, as torchvision draws its own."""
    stem = nn.Conv2d(n_channels, 64, 7, stride=2, padding=3, bias=False)
    if rgb is None:
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        return stem
    with torch.no_grad():
        turns = torch.arange(n_channels, device=rgb.weight.device) % 3
        stem.weight.copy_(rgb.weight[:, turns] * (3 / n_channels))
    return stem
