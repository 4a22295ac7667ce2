"""Networks without memory for their weights: to count, or to take weights from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


@contextmanager
def on_meta() -> Iterator[None]:
    """Build modules on the meta device, where a tensor has a shape and no numbers."""
    with torch.device("meta"), _WithNumbers():
        yield


class _WithNumbers(TorchFunctionMode):
    """Transformers read their drop path rates off `linspace`, which therefore keeps its numbers."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.linspace:
            kwargs = {"device": "cpu"} | kwargs
        return func(*args, **kwargs)
