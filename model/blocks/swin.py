"""A stage of two Swin blocks with one relative position table for all heads.

After Swin (Liu et al., ICCV 2021, arXiv:2103.14030) in the form of TransRoadNet and C2Net, which
differs from it: the position table is shared by the heads, queries, keys and values have no bias,
heads x head_dim need not equal the channels, and merging patches has no norm.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SwinStage(nn.Module):
    """(B, in_channels, H, W) to (B, channels, H / merge, W / merge).

    Args:
        merge: side of the patches whose pixels become one, by one linear layer.
        window: side of the attention windows. Maps of any size are padded to whole windows, and the
            padding is not attended to.
        relative: False learns a bias for every pair of places instead of every displacement.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        merge: int,
        heads: int,
        head_dim: int,
        window: int,
        relative: bool = True,
    ) -> None:
        super().__init__()
        self.merge = merge
        self.embed = nn.Linear(in_channels * merge**2, channels)
        self.blocks = nn.Sequential(
            *(
                SwinBlock(channels, heads, head_dim, window, shift, relative)
                for shift in (0, window // 2)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.pixel_unshuffle(x, self.merge)  # channel, then row, then column in the patch
        x = self.embed(x.permute(0, 2, 3, 1))  # BCHW -> BHWC
        return self.blocks(x).permute(0, 3, 1, 2).contiguous()  # BHWC -> BCHW


class SwinBlock(nn.Module):
    """Window attention and MLP, each added to its input; (B, H, W, C) to the same."""

    def __init__(
        self, channels: int, heads: int, head_dim: int, window: int, shift: int, relative: bool
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, heads, head_dim, window, shift, relative)
        self.mlp = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, 4 * channels),
            nn.GELU(),
            nn.Linear(4 * channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm(x))
        return x + self.mlp(x)


class WindowAttention(nn.Module):
    """Attention within windows, shifted by `shift` pixels on axes that have several of them."""

    def __init__(
        self, channels: int, heads: int, head_dim: int, window: int, shift: int, relative: bool
    ) -> None:
        super().__init__()
        self.heads, self.head_dim, self.window, self.shift = heads, head_dim, window, shift
        self.qkv = nn.Linear(channels, 3 * heads * head_dim, bias=False)
        self.project = nn.Linear(heads * head_dim, channels)
        side = 2 * window - 1 if relative else window**2
        self.table = nn.Parameter(torch.randn(side, side))
        self.table.no_weight_decay = True
        self.relative = relative

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H, W, C)."""
        B, H, W, _ = x.shape
        w = self.window
        bottom, right = -H % w, -W % w
        x = F.pad(x, (0, 0, 0, right, 0, bottom))
        shifts = tuple(self.shift if side > w else 0 for side in x.shape[1:3])
        mask = self._bias()
        if bottom or right or any(shifts):
            mask = mask + self._separation(H, W, x, shifts)  # (windows, 1, w*w, w*w)
            mask = mask.repeat(B, 1, 1, 1)
        windows = _partition(torch.roll(x, tuple(-s for s in shifts), (1, 2)), w)
        x = _join(self._attend(windows, mask), x.shape[1:3], w)
        return torch.roll(x, shifts, (1, 2))[:, :H, :W]

    def _attend(self, x: Tensor, mask: Tensor) -> Tensor:
        """Multi-head attention of (B * windows, w*w, C)."""
        N, L, _ = x.shape
        qkv = self.qkv(x).view(N, L, 3, self.heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # NL3hd -> 3NhLd
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.to(q.dtype))
        return self.project(x.transpose(1, 2).reshape(N, L, -1))

    def _bias(self) -> Tensor:
        """The learned bias (w*w, w*w) of query i and key j."""
        if not self.relative:
            return self.table
        place = torch.arange(self.window, device=self.table.device)
        rows, columns = torch.cartesian_prod(place, place).T
        rows = rows[None] - rows[:, None] + self.window - 1
        columns = columns[None] - columns[:, None] + self.window - 1
        return self.table[rows, columns]

    def _separation(self, H: int, W: int, padded: Tensor, shifts: tuple[int, ...]) -> Tensor:
        """Minus infinity (windows, 1, w*w, w*w) between pixels that the roll alone made neighbours,
        and between the map and its padding."""
        rows, columns = (torch.arange(side, device=padded.device) for side in padded.shape[1:3])
        region = 2 * (rows < shifts[0])[:, None] + (columns < shifts[1])[None].long()
        region[H:], region[:, W:] = 4, 4
        region = torch.roll(region, tuple(-s for s in shifts), (0, 1))
        region = _partition(region[None, :, :, None], self.window).squeeze(-1)
        apart = region[:, None, :, None] != region[:, None, None, :]
        return torch.zeros(apart.shape, device=apart.device).masked_fill(apart, -torch.inf)


def _partition(x: Tensor, w: int) -> Tensor:
    """(B, H, W, C) to windows (B * H/w * W/w, w*w, C), rows of windows first."""
    B, H, W, C = x.shape
    x = x.view(B, H // w, w, W // w, w, C).transpose(2, 3)  # B Hn w Wn w C -> B Hn Wn w w C
    return x.reshape(-1, w * w, C)


def _join(x: Tensor, size: tuple[int, int], w: int) -> Tensor:
    """The inverse of `_partition` for a map of `size`."""
    H, W = size
    x = x.view(-1, H // w, W // w, w, w, x.shape[-1]).transpose(2, 3)
    return x.reshape(-1, H, W, x.shape[-1])
