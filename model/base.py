"""The contract that every model of the registry keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Normalisation(NamedTuple):
    """Mean and standard deviation of RGB in [0, 1], per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


#: What a network is made of, in the order that an image passes through it.
PARTS = ("encoder", "neck", "adapter", "decoder")
IMAGENET = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


class RoadModel(nn.Module):
    """A network from a normalised image (B, C, H, W) to logits (B, n_classes, H, W).

    A subclass writes `forward_padded`, which sees sides that are multiples of `stride` and at
    least `min_size`; this class pads (replicate, right and bottom), crops and returns float32.
    """

    stride: ClassVar[int] = 1
    min_size: ClassVar[int] = 1
    normalisation: ClassVar[Normalisation] = IMAGENET
    #: What `adapter_only` freezes, as parameter-name prefixes; empty: the model has no such mode.
    adapter_only_frozen: ClassVar[tuple[str, ...]] = ()
    #: Module-name prefixes of PARTS, of which the longest counts; the decoder is all the rest.
    parts: ClassVar[dict[str, tuple[str, ...]]] = {"encoder": ("encoder",)}

    def __init__(self) -> None:
        super().__init__()
        self._frozen_prefixes: tuple[str, ...] = ()
        self._side_logits: list[Tensor] = []

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, n_classes, H, W) in float32 for an image (B, C, H, W) of any H, W >= 1."""
        padded = self.pad(image)
        H, W = image.shape[-2:]
        logits = self.forward_padded(padded)[..., :H, :W].float()
        if self.training:
            self._side_logits = [side[..., :H, :W].float() for side in self._side_logits]
        return logits

    def leave_side_logits(self, sides: Sequence[Tensor]) -> None:
        """For `forward_padded` in training: logits of side outputs, of the sides of its image."""
        self._side_logits = list(sides)

    def take_side_logits(self) -> list[Tensor]:
        """What the last `forward` left to train with the same loss (deep supervision), once.

        Each is (B, n_classes, H, W), like the logits. They do not come with those, because a
        prediction is one tensor whatever the model.
        """
        sides, self._side_logits = self._side_logits, []
        return sides

    def pad(self, image: Tensor) -> Tensor:
        """`image` (B, C, H, W) with its last row and column repeated up to sides that the network
        takes. Raises ValueError for another number of axes."""
        if image.ndim != 4:
            raise ValueError(f"expected an image batch (B, C, H, W), got {tuple(image.shape)}")
        bottom, right = (self._padding(side) for side in image.shape[-2:])
        if bottom or right:
            image = F.pad(image, (0, right, 0, bottom), mode="replicate")
        return image

    def forward_padded(self, image: Tensor) -> Tensor:
        """Logits of the same sides as `image`, whose sides are multiples of `stride`."""
        raise AssertionError(f"{type(self).__name__} does not define forward_padded")

    def _padding(self, side: int) -> int:
        padded = max(side, self.min_size)
        return -(-padded // self.stride) * self.stride - side

    @classmethod
    def part_of(cls, name: str) -> str:
        """Which of PARTS the module or parameter of this name belongs to."""
        found = [
            (len(prefix), part)
            for part, prefixes in cls.parts.items()
            for prefix in prefixes
            if _under(name, prefix)
        ]
        return max(found, default=(0, "decoder"))[1]

    def parameter_groups(self, learning_rate: float, weight_decay: float) -> list[dict]:
        """Optimiser groups `decay` and `no_decay`: every trainable parameter exactly once.

        Norms, biases and parameters marked `no_weight_decay` are not decayed.
        """
        groups: dict[str, list[nn.Parameter]] = {"decay": [], "no_decay": []}
        for parameter in self.parameters():
            if parameter.requires_grad:
                exempt = parameter.ndim <= 1 or getattr(parameter, "no_weight_decay", False)
                groups["no_decay" if exempt else "decay"].append(parameter)
        decay = {"decay": weight_decay, "no_decay": 0.0}
        return [
            {"name": name, "params": params, "lr": learning_rate, "weight_decay": decay[name]}
            for name, params in groups.items()
            if params
        ]

    def freeze(self, *prefixes: str) -> None:
        """Exclude the parameters under these name prefixes from training.

        Modules under a prefix stay in eval mode when `.train()` is called, so that their norms and
        drop paths are frozen as well. Raises ValueError when a prefix matches no parameter.
        """
        names = [name for name, _ in self.named_parameters()]
        unmatched = [p for p in prefixes if not any(_under(name, p) for name in names)]
        if unmatched:
            raise ValueError(f"{type(self).__name__} has no parameters under {unmatched}")
        self._frozen_prefixes += prefixes
        for name, parameter in self.named_parameters():
            if self._is_frozen(name):
                parameter.requires_grad_(False)
        self.train(self.training)

    def set_training_mode(self, mode: str) -> None:
        """Apply `training_strategy.mode`: 'train_all' or 'adapter_only'."""
        if mode == "adapter_only":
            if not self.adapter_only_frozen:
                raise ValueError(
                    f"training_strategy.mode: {type(self).__name__} has no adapter, use 'train_all'"
                )
            self.freeze(*self.adapter_only_frozen)
        elif mode != "train_all":
            raise ValueError(f"unknown training mode {mode!r}: 'train_all' or 'adapter_only'")

    def enable_gradient_checkpointing(self) -> None:
        """Recompute the encoder's activations in the backward pass instead of keeping them."""
        raise ValueError(f"gradient_checkpointing: {type(self).__name__} does not offer it")

    def train(self, mode: bool = True) -> RoadModel:
        super().train(mode)
        for name, module in self.named_modules():
            if name and self._is_frozen(name):
                module.training = False
        return self

    def _is_frozen(self, name: str) -> bool:
        return any(_under(name, prefix) for prefix in self._frozen_prefixes)


def _under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix.rstrip(".") + ".")


def normalise(image: Tensor, normalisation: Normalisation) -> Tensor:
    """uint8 (B, C, H, W) in 0..255 to float32 with the model's mean and std."""
    mean = torch.tensor(normalisation.mean, device=image.device).view(-1, 1, 1) * 255
    std = torch.tensor(normalisation.std, device=image.device).view(-1, 1, 1) * 255
    return (image.float() - mean) / std
