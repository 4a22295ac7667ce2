"""torch.compile where its compiler is and where it is not."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn
from torch._inductor import config

from utils.compiling import compile_network

CPU = torch.device("cpu")


def test_a_cpu_without_a_cpp_compiler_is_told_of_before_the_first_image():
    without = config.patch({"cpp.cxx": (None, "no-such-cpp")})
    with (
        without,
        pytest.raises(ValueError, match=r"C\+\+ compiler .*no-such-cpp.*without `compile`"),
    ):
        compile_network(nn.Identity(), CPU)
    with without:
        compile_network(nn.Identity(), torch.device("cuda"))  # which needs none


def test_a_compiler_that_answers_is_enough():
    network = nn.Linear(2, 2)
    with config.patch({"cpp.cxx": (sys.executable,)}):  # it is asked for its version alone
        assert compile_network(network, CPU)._orig_mod is network
