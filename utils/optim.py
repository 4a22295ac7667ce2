"""Parameter groups to AdamW, and the learning rate of every step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch.optim import AdamW, Optimizer

from utils.schema import Config, Scheduler


class Grouped(Protocol):
    """A model that knows which of its parameters decay."""

    def parameter_groups(self, learning_rate: float, weight_decay: float) -> list[dict]: ...


def build_optimizer(model: Grouped, config: Config) -> AdamW:
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101) over the model's own groups."""
    return AdamW(model.parameter_groups(config.learning_rate, config.weight_decay))


class Schedule:
    """Linear warm-up per step, then a cosine per step or a plateau rule per evaluation.

    `step()` is called after every optimiser step, `evaluated()` after every evaluation. The peak
    rate of a group is the one it was made with.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        settings: Scheduler,
        *,
        warm_up_steps: int,
        steps_per_epoch: int,
        epochs: int,
        max_steps: int | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.settings = settings
        self.warm_up_steps = warm_up_steps
        horizon = settings.CosineAnnealingLR_params.T_max
        total_steps = (horizon or epochs) * steps_per_epoch
        if max_steps is not None and horizon is None:
            total_steps = max_steps
        self.cosine_steps = max(1, total_steps - warm_up_steps)
        self.share_gone: float | None = None  # of a budget of time, see `spend`
        self.peaks: Sequence[float] = [group["lr"] for group in optimizer.param_groups]
        self.steps = 0
        self.factor = 1.0  # what the plateau rule has left of the peak rate
        self.best: float | None = None
        self.bad_evaluations = 0
        self._apply()

    def step(self) -> None:
        """The rate of the next optimiser step."""
        self.steps += 1
        self._apply()

    def spend(self, share: float) -> None:
        """For a training that time ends: the share that is gone, which the cosine follows."""
        self.share_gone = share
        self._apply()

    def evaluated(self, f1: float, loss: float) -> None:
        """Tell the plateau rule a val score; cosine and warm-up do not look at it."""
        if self.settings.active_scheduler != "ReduceLROnPlateau" or self._warming_up:
            return
        params = self.settings.ReduceLROnPlateau_params
        score = f1 if params.mode == "max" else -loss
        if self.best is None or score > self.best:
            self.best, self.bad_evaluations = score, 0
        else:
            self.bad_evaluations += 1
        if self.bad_evaluations > params.patience:
            self.factor, self.bad_evaluations = self.factor * params.factor, 0
        self._apply()

    @property
    def rate(self) -> float:
        """The learning rate of the first group."""
        return self.optimizer.param_groups[0]["lr"]

    @property
    def _warming_up(self) -> bool:
        return self.steps < self.warm_up_steps

    def _apply(self) -> None:
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = self._rate(peak)

    def _rate(self, peak: float) -> float:
        if self._warming_up:
            return peak * (self.steps + 1) / self.warm_up_steps
        if self.settings.active_scheduler == "ReduceLROnPlateau":
            floor = min(peak, self.settings.ReduceLROnPlateau_params.min_lr)
            return max(floor, peak * self.factor)
        floor = min(peak, self.settings.CosineAnnealingLR_params.eta_min)
        done = min(1.0, (self.steps - self.warm_up_steps) / self.cosine_steps)
        if self.share_gone is not None:
            done = self.share_gone
        return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * done))

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self._STATE:
            setattr(self, name, state[name])
        self._apply()

    _STATE = ("steps", "factor", "best", "bad_evaluations")


class AveragedWeights:
    """Exponential moving average of a model's weights (Polyak averaging), with its warm-up.

    Floating-point entries of the state dict are averaged, the others copied. The decay grows with
    the number of updates as (1 + n) / (10 + n), so that the random start is soon forgotten.
    """

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        self.reset(model)

    def reset(self, model: torch.nn.Module) -> None:
        """Start from the model's present weights."""
        self.updates = 0
        self.weights = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: torch.nn.Module) -> None:
        """Move the average towards the model's present weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value, 1 - decay)
            else:
                self.weights[name].copy_(value)

    @contextmanager
    def applied_to(self, model: torch.nn.Module) -> Iterator[None]:
        """Within the block the model carries the averaged weights, after it its own again."""
        own = {name: value.detach().clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.weights)
        try:
            yield
        finally:
            model.load_state_dict(own)
