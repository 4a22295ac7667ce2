"""Networks without memory for their weights: to count, or to take weights from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from unittest import mock

import torch


@contextmanager
def on_meta() -> Iterator[None]:
    """Build modules on the meta device; Hiera reads its drop path rates off a tensor, which is
    given values."""
    linspace = partial(torch.linspace, device="cpu")
    with mock.patch("torch.linspace", linspace), torch.device("meta"):
        yield
