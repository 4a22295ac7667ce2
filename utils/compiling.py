"""torch.compile, whose compiler is looked for beforehand: at the first image it is late."""

from __future__ import annotations

import torch
from torch import nn


def compile_network(network: nn.Module, device: torch.device) -> nn.Module:
    """`network` by torch.compile. Raises ValueError where a CPU has no C++ compiler for it."""
    if device.type == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler

        try:
            get_cpp_compiler()
        except RuntimeError as error:
            raise ValueError(
                f"torch.compile wants a C++ compiler on a CPU: {error}. Install one (g++), name it "
                "in the environment variable CXX, or do without `compile`"
            ) from None
    return torch.compile(network)
