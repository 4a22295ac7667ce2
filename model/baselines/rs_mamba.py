"""RS-Mamba for semantic segmentation (RSM_SS): a U-Net of omnidirectional state-space blocks.

Zhao, Chen, Zhang, Xiao, Bai, Ouyang: RS-Mamba for Large Remote Sensing Image Dense Prediction.
IEEE TGRS 62, 2024, DOI 10.1109/TGRS.2024.3425540, arXiv:2404.02668. Blocks after VMamba,
arXiv:2401.10166. Trained from scratch. Cost is linear in the number of pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, BeforeValidator, Field, PositiveFloat, PositiveInt
from timm.layers import DropPath, LayerNorm2d, Mlp, trunc_normal_
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.base import RoadModel
from model.ops.omni_scan import NUM_SCANS, omni_merge, omni_scan
from model.ops.selective_scan import selective_scan

ACTIVATIONS = {"silu": nn.SiLU, "gelu": nn.GELU, "relu": nn.ReLU}
Activation = Literal["silu", "gelu", "relu"]
Rate = Annotated[float, Field(ge=0, lt=1)]


def one_a_stage(values: Sequence[int]) -> Sequence[int]:
    if len(values) != 4:
        raise ValueError(f"four entries, one a stage, got {list(values)}")
    return values


def stage_widths(dims: Any) -> Any:
    """A single number becomes that of the first stage, and doubles from stage to stage."""
    if not isinstance(dims, int):
        return dims
    if dims < 1:
        raise ValueError(f"should be greater than 0, got {dims}")
    return [dims * 2**i for i in range(4)]


def known_rank(rank: Any) -> Any:
    if rank != "auto" and not (isinstance(rank, int) and rank > 0):
        raise ValueError(f"should be 'auto' or an integer greater than 0, got {rank!r}")
    return rank


def odd_side(side: int) -> int:
    if side % 2 == 0:
        raise ValueError(f"{side} is even, a size-preserving kernel is odd")
    return side


Depths = Annotated[Sequence[PositiveInt], AfterValidator(one_a_stage)]
Widths = Annotated[Depths, BeforeValidator(stage_widths)]
Rank = Annotated[PositiveInt | Literal["auto"], BeforeValidator(known_rank)]
Side = Annotated[PositiveInt, AfterValidator(odd_side)]


class OmniStateSpace(nn.Module):
    """The gated selective state-space layer over eight scans, on channels-last maps (B, H, W, C).

    `d_state` states per channel, `ratio` times the channels inside, step sizes Δ of rank `dt_rank`
    ("auto": C / 16, rounded up), a depthwise convolution of side `conv` before the scans.
    """

    def __init__(
        self,
        dim: int,
        *,
        d_state: int,
        ratio: float,
        dt_rank: int | Literal["auto"],
        activation: Activation,
        conv: int,
        conv_bias: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        inner = int(ratio * dim)
        rank = math.ceil(dim / 16) if dt_rank == "auto" else dt_rank
        self.splits = [rank, d_state, d_state]
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv = nn.Conv2d(inner, inner, conv, padding=conv // 2, groups=inner, bias=conv_bias)
        self.activation = ACTIVATIONS[activation]()
        self.x_proj = nn.Parameter(torch.empty(NUM_SCANS, sum(self.splits), inner))
        self.dt_weight = nn.Parameter(torch.empty(NUM_SCANS, inner, rank))
        self.dt_bias = nn.Parameter(torch.empty(NUM_SCANS, inner))
        self.A_log = nn.Parameter(torch.empty(NUM_SCANS, inner, d_state))
        self.D = nn.Parameter(torch.ones(NUM_SCANS, inner))
        for parameter in (self.dt_bias, self.A_log, self.D):
            parameter.no_weight_decay = True
        self.norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self.dropout = nn.Dropout(dropout)
        self._init_state_space()

    @torch.no_grad()
    def _init_state_space(self) -> None:
        """Mamba's start: Δ log-uniform in 0.001..0.1, and A = -1, -2, ..., -N in every channel."""
        nn.init.uniform_(self.x_proj, -(self.x_proj.shape[2] ** -0.5), self.x_proj.shape[2] ** -0.5)
        bound = self.dt_weight.shape[2] ** -0.5
        nn.init.uniform_(self.dt_weight, -bound, bound)
        dt = torch.empty_like(self.dt_bias).uniform_(math.log(1e-3), math.log(0.1)).exp_()
        dt.clamp_(min=1e-4)
        self.dt_bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus(dt_bias) = dt
        self.A_log.copy_(torch.arange(1, self.A_log.shape[2] + 1).log().expand_as(self.A_log))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H, W, C)."""
        _, H, W, _ = x.shape
        u, gate = self.in_proj(x).chunk(2, dim=-1)
        u = u.permute(0, 3, 1, 2)  # BHWC -> BCHW
        u = self.activation(self.conv(u)).permute(0, 2, 3, 1)  # BCHW -> BHWC
        sequences = omni_scan(u)  # (B, 8, H * W, C)
        delta, b, c = (sequences @ self.x_proj.mT).split(self.splits, dim=-1)
        y = selective_scan(
            sequences,
            delta @ self.dt_weight.mT,
            -torch.exp(self.A_log.float()),
            b,
            c,
            self.D,
            self.dt_bias,
        )
        y = self.norm(omni_merge(y, H, W))
        return self.dropout(self.out_proj(y * self.activation(gate)))


class OSSBlock(nn.Module):
    """Pre-norm residual block: the state-space layer, then an MLP; maps are (B, H, W, C)."""

    def __init__(
        self, dim: int, state_space: dict, mlp: dict, mlp_ratio: float, drop_path: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.state_space = OmniStateSpace(dim, **state_space)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(mlp_ratio * dim), **mlp)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) to the same shape."""
        x = x + self.drop_path(self.state_space(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class UpFuse(nn.Module):
    """Twice the size, joined with the encoder's map and projected."""

    def __init__(self, below: int, skip: int) -> None:
        super().__init__()
        self.project = nn.Sequential(
            nn.Conv2d(below + skip, skip, 1, bias=False), nn.BatchNorm2d(skip), nn.ReLU()
        )

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        """(B, below, H, W) and (B, skip, 2H, 2W) to (B, skip, 2H, 2W)."""
        below = F.interpolate(below, scale_factor=2, mode="nearest")
        return self.project(torch.cat([below, skip], dim=1))


class RSM_SS(RoadModel):
    """RS-Mamba. Arguments are those of the authors' release.

    `dims` are the widths of the four stages (a single number doubles from stage to stage),
    `depths` their blocks. `use_checkpoint` recomputes blocks in the backward pass. The arguments
    with a single allowed value are switches of ablations that this network does not include.

    Raises ValueError for other values of these, for `dims` or `depths` that are not four, for an
    even `ssm_conv`, and for `dims` and ratios that leave a layer without channels.
    """

    stride: ClassVar[int] = 32
    parts: ClassVar[dict[str, tuple[str, ...]]] = {
        "encoder": ("patch_embed", "downsamples", "stages")
    }

    def __init__(
        self,
        *,
        patch_size: Literal[4] = 4,
        in_chans: PositiveInt = 3,
        num_classes: PositiveInt = 1,
        depths: Depths = (2, 2, 9, 2),
        dims: Widths = (96, 192, 384, 768),
        ssm_d_state: PositiveInt = 16,
        ssm_ratio: PositiveFloat = 2.0,
        ssm_dt_rank: Rank = "auto",
        ssm_act_layer: Activation = "silu",
        ssm_conv: Side = 3,
        ssm_conv_bias: bool = True,
        ssm_drop_rate: Rate = 0.0,
        ssm_init: Literal["v0"] = "v0",
        forward_type: Literal["v2"] = "v2",
        mlp_ratio: PositiveFloat = 4.0,
        mlp_act_layer: Activation = "gelu",
        mlp_drop_rate: Rate = 0.0,
        drop_path_rate: Rate = 0.1,
        patch_norm: bool = True,
        norm_layer: Literal["LN"] = "LN",
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        _check_only(patch_size=(patch_size, 4), ssm_init=(ssm_init, "v0"))
        _check_only(forward_type=(forward_type, "v2"), norm_layer=(norm_layer, "LN"))
        dims = _checked("dims", one_a_stage, _checked("dims", stage_widths, dims))
        _checked("depths", one_a_stage, depths)
        _checked("ssm_conv", odd_side, ssm_conv)
        _checked("ssm_dt_rank", known_rank, ssm_dt_rank)
        _check_widths(dims, ssm_ratio=ssm_ratio, mlp_ratio=mlp_ratio)
        state_space = {
            "d_state": ssm_d_state,
            "ratio": ssm_ratio,
            "dt_rank": ssm_dt_rank,
            "activation": ssm_act_layer,
            "conv": ssm_conv,
            "conv_bias": ssm_conv_bias,
            "dropout": ssm_drop_rate,
        }
        mlp = {"act_layer": ACTIVATIONS[mlp_act_layer], "drop": mlp_drop_rate}
        last = max(1, sum(depths) - 1)
        rates = iter([drop_path_rate * i / last for i in range(sum(depths))])
        self.use_checkpoint = use_checkpoint
        self.patch_embed = _patch_embed(in_chans, dims[0], patch_norm)
        self.downsamples = nn.ModuleList(_downsample(a, b) for a, b in pairwise(dims))
        self.stages = nn.ModuleList(
            nn.ModuleList(
                OSSBlock(dim, state_space, mlp, mlp_ratio, next(rates)) for _ in range(depth)
            )
            for dim, depth in zip(dims, depths, strict=True)
        )
        self.ups = nn.ModuleList(UpFuse(b, a) for a, b in reversed(list(pairwise(dims))))
        self.head = _head(dims[0], num_classes)
        self.stages.apply(_init_linear)

    def enable_gradient_checkpointing(self) -> None:
        self.use_checkpoint = True

    def forward_padded(self, image: Tensor) -> Tensor:
        """(B, in_chans, H, W) to logits (B, num_classes, H, W)."""
        skips = self._encode(image)
        x = skips.pop()
        for up in self.ups:
            x = up(x, skips.pop())
        return self.head(x)

    def _encode(self, image: Tensor) -> list[Tensor]:
        """The four stages' maps, strides 4 to 32."""
        x = self.patch_embed(image)
        maps = []
        for i, blocks in enumerate(self.stages):
            x = self.downsamples[i - 1](x) if i else x
            x = x.permute(0, 2, 3, 1)  # BCHW -> BHWC
            for block in blocks:
                if self.use_checkpoint and self.training:
                    x = checkpoint(block, x, use_reentrant=False)
                else:
                    x = block(x)
            x = x.permute(0, 3, 1, 2)  # BHWC -> BCHW
            maps.append(x)
        return maps


def _check_only(**given_and_allowed: tuple[object, object]) -> None:
    for name, (given, allowed) in given_and_allowed.items():
        if given != allowed:
            raise ValueError(f"{name}: {given!r} is not offered, only {allowed!r}")


def _checked(name: str, check: Callable[[Any], Any], value: Any) -> Any:
    """What `check` makes of the argument; its mistakes begin with the name."""
    try:
        return check(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _check_widths(dims: Sequence[int], **ratios: float) -> None:
    problems = ["dims: the first stage has two channels or more, got 1"] if dims[0] < 2 else []
    problems += [
        f"{name}: {ratio:g} times the {min(dims)} channels of a stage leaves none"
        for name, ratio in ratios.items()
        if int(ratio * min(dims)) < 1
    ]
    if problems:
        raise ValueError("\n".join(problems))


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _patch_embed(in_channels: int, dim: int, norm: bool) -> nn.Sequential:
    """Two strided convolutions to a quarter of the size."""
    return nn.Sequential(
        nn.Conv2d(in_channels, dim // 2, 3, stride=2, padding=1),
        LayerNorm2d(dim // 2, eps=1e-5) if norm else nn.Identity(),
        nn.GELU(),
        nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1),
        LayerNorm2d(dim, eps=1e-5) if norm else nn.Identity(),
    )


def _downsample(dim: int, out_dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(dim, out_dim, 3, stride=2, padding=1), LayerNorm2d(out_dim, eps=1e-5)
    )


def _head(dim: int, num_classes: int) -> nn.Sequential:
    """From a quarter of the size to logits at full size."""

    def double(in_channels: int, out_channels: int) -> list[nn.Module]:
        return [
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        ]

    return nn.Sequential(*double(dim, 48), *double(48, 8), nn.Conv2d(8, num_classes, 7, padding=3))
