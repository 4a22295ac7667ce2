"""The anchor mining adapter: deformable spatial attention with Bayesian fusion, one a level.

A prior from the pixel's surroundings steers a horizontal strip; what that strip finds, the
evidence, is fused with the prior to a posterior, which steers a vertical strip. The points that the
two strips read are the latent anchors.

Source: IEEE TGRS 2026, doi 10.1109/TGRS.2026.3684896; strips: Yu et al., "DSAN: Exploring the
Relationship between Deformable Convolution and Spatial Attention", TechRxiv 2024.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from model.ops.deform_strip import Axis, deform_strip
from model.ops.pointwise import Pointwise


class LatentAnchors(NamedTuple):
    """What the two strips of a level read and found."""

    #: (B, H, W, G, K) offsets along w in pixels of the level, from each tap's regular place.
    horizontal: Tensor
    #: (B, H, W, G, K) offsets along h.
    vertical: Tensor
    #: (B, C, H, W), the result of both strips, which gates the features.
    gate: Tensor


class AnchorMining(nn.Module):
    """Adds to the features of one level what lies along the strips through each pixel.

    Args:
        channels: C of input and output.
        taps: K points a strip, odd.
        groups: G channel groups with offsets of their own.
    """

    def __init__(self, channels: int, taps: int, groups: int) -> None:
        super().__init__()
        self.input_projection = nn.Conv2d(channels, channels, 1)
        self.prior = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.value_projection = Pointwise(channels, channels)
        self.horizontal_offsets = StripOffsets(channels, taps, groups, axis="w")
        self.vertical_offsets = StripOffsets(channels, taps, groups, axis="h")
        self.fusion = BayesianFusion(channels)
        self.gate_projection = nn.Conv2d(channels, channels, 1)
        self.output_projection = nn.Conv2d(channels, channels, 1)
        nn.init.xavier_uniform_(self.value_projection.weight)
        nn.init.zeros_(self.value_projection.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        y = self._guide(x)
        anchors = self._mine(y)
        return x + self.output_projection(y * self.gate_projection(anchors.gate))

    def anchors(self, x: Tensor) -> LatentAnchors:
        """The latent anchors of the features (B, C, H, W) that `forward` sees."""
        return self._mine(self._guide(x))

    def _guide(self, x: Tensor) -> Tensor:
        return F.gelu(self.input_projection(x))

    def _mine(self, y: Tensor) -> LatentAnchors:
        prior = self.prior(y)
        horizontal = self.horizontal_offsets(prior)
        value = self.value_projection(prior.permute(0, 2, 3, 1))  # BCHW -> BHWC
        evidence = deform_strip(value, horizontal, "w")
        posterior = self.fusion(prior, evidence.permute(0, 3, 1, 2))  # BHWC -> BCHW
        vertical = self.vertical_offsets(posterior)
        gate = deform_strip(evidence, vertical, "h").permute(0, 3, 1, 2)  # BHWC -> BCHW
        return LatentAnchors(horizontal, vertical, gate)


class StripOffsets(nn.Module):
    """The offsets of a strip from its guidance: (B, C, H, W) to (B, H, W, G, K), zero at first."""

    def __init__(self, channels: int, taps: int, groups: int, axis: Axis) -> None:
        super().__init__()
        kernel, padding = (
            ((1, taps), (0, taps // 2)) if axis == "w" else ((taps, 1), (taps // 2, 0))
        )
        self.groups = groups
        self.depthwise = nn.Conv2d(channels, channels, kernel, padding=padding, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.head = Pointwise(channels, groups * taps)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, guidance: Tensor) -> Tensor:
        x = self.depthwise(guidance).permute(0, 2, 3, 1)  # BCHW -> BHWC
        return self.head(F.gelu(self.norm(x))).unflatten(-1, (self.groups, -1))


class BayesianFusion(nn.Module):
    """Bayesian fusion bottleneck: prior and evidence (B, C, H, W) to the posterior guidance."""

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        width = channels // reduction
        self.prior_path = _bottleneck(channels, width, 1)
        self.evidence_path = nn.Sequential(
            _bottleneck(channels, width, 3), _bottleneck(channels, width, 3)
        )
        self.posterior_path = _bottleneck(channels, width, 1)

    def forward(self, prior: Tensor, evidence: Tensor) -> Tensor:
        likelihood = self.evidence_path(evidence)
        return prior + self.posterior_path(self.prior_path(prior) * likelihood)


def _bottleneck(channels: int, width: int, kernel_size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 1),
        nn.Conv2d(width, width, kernel_size, padding=kernel_size // 2, groups=width, bias=False),
        nn.Conv2d(width, channels, 1, bias=False),
        _group_norm(channels),
        nn.ReLU(inplace=True),
    )


def _group_norm(channels: int) -> nn.GroupNorm:
    groups = next(groups for groups in (16, 8, 4, 2, 1) if channels % groups == 0)
    return nn.GroupNorm(groups, channels)
