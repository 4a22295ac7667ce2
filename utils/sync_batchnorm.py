"""Batch normalisation over the joint batch of all ranks.

`torch.nn.SyncBatchNorm` refuses CPU tensors; on gloo the layer below does the same, so that a run
on several CPU ranks equals one on a single rank with the joint batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from utils.distributed import sum_over_ranks, world_size


def synchronise_batchnorm(model: nn.Module, device_type: str) -> nn.Module:
    """`model` with every BatchNorm computing over all ranks; parameter names stay."""
    if world_size() == 1:
        return model
    if device_type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm) and not isinstance(child, RankBatchNorm):
                setattr(module, name, RankBatchNorm.from_batchnorm(child))
    return model


class RankBatchNorm(_BatchNorm):
    """BatchNorm whose training statistics are summed over ranks, in float32 at least."""

    @classmethod
    def from_batchnorm(cls, layer: _BatchNorm) -> RankBatchNorm:
        """A layer that takes over the parameters and buffers of `layer`."""
        new = cls(
            layer.num_features,
            layer.eps,
            layer.momentum,
            layer.affine,
            layer.track_running_stats,
        )
        new._parameters = layer._parameters
        new._buffers = layer._buffers
        new.training = layer.training
        return new

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim < 2:
            raise ValueError(f"expected at least (B, C), got {tuple(x.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) normalised by the statistics of all ranks' batches."""
        self._check_input_dim(x)
        if not self.training:
            return super().forward(x)
        dims = [0, *range(2, x.ndim)]
        shape = [1, -1] + [1] * (x.ndim - 2)
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        count = sum_over_ranks(values.new_tensor([values.numel() / values.shape[1]]))
        mean = sum_over_ranks(values.sum(dims)) / count
        # The second pass over deviations keeps the precision that E[x^2] - E[x]^2 loses.
        deviation = values - mean.view(shape)
        var = sum_over_ranks(deviation.square().sum(dims)) / count
        if self.track_running_stats:
            self._update_running(mean.detach(), var.detach(), float(count))
        y = deviation * (var + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)

    def _update_running(self, mean: Tensor, var: Tensor, count: float) -> None:
        self.num_batches_tracked.add_(1)
        momentum = self.momentum
        if momentum is None:
            momentum = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(var * (count / max(count - 1, 1)), momentum)
