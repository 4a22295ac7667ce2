"""What each part of a network takes of something that grows while it runs: time, or FLOPs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from model.base import PARTS, RoadModel


def parameters_by_part(model: RoadModel) -> dict[str, int]:
    """Parameters of each of the parts that the model has."""
    found = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        found[model.part_of(name)] += parameter.numel()
    return {part: number for part, number in found.items() if number}


def part_meter(model: RoadModel, read: Callable[[], float]) -> Meter:
    """A `Meter` of the model's parts."""
    return Meter(model, lambda name, module: model.part_of(name), read)


class Meter:
    """Shares out what `read()` grows by among groups of modules, to the one that is at work.

    A context around forward passes; afterwards `total` holds the sums by group. `group_of` tells
    the group of a module and its name. What runs between two modules belongs to the one around.
    """

    def __init__(
        self,
        model: nn.Module,
        group_of: Callable[[str, nn.Module], str],
        read: Callable[[], float],
    ) -> None:
        self.total: dict[str, float] = {}
        self._model, self._group_of, self._read = model, group_of, read
        self._at_work: list[str] = []
        self._last = 0.0
        self._handles: list[Any] = []

    def __enter__(self) -> Meter:
        for name, module in self._model.named_modules():
            group = self._group_of(name, module)
            self._handles += [
                module.register_forward_pre_hook(self._entering(group)),
                module.register_forward_hook(self._leaving),
            ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _entering(self, group: str) -> Callable[[nn.Module, Any], None]:
        def enter(module: nn.Module, inputs: Any) -> None:
            if not self._at_work or self._at_work[-1] != group:
                self._settle()
            self._at_work.append(group)

        return enter

    def _leaving(self, module: nn.Module, inputs: Any, output: Any) -> None:
        group = self._at_work[-1]
        if len(self._at_work) < 2 or self._at_work[-2] != group:
            self._settle()
        self._at_work.pop()

    def _settle(self) -> None:
        """Put down what has grown since the last change of group to the group until now."""
        now = self._read()
        if self._at_work:
            group = self._at_work[-1]
            self.total[group] = self.total.get(group, 0.0) + now - self._last
        self._last = now
