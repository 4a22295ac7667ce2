"""torch.compile where its compiler is and where it is not."""

from __future__ import annotations

import shutil
import sys

import pytest
import torch
from torch import nn
from torch._inductor import config

from model.ops.dcnv3 import DCNv3
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


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="there is no g++")
def test_layers_over_maps_are_compiled(monkeypatch):
    """Linear layers, a custom operator and a softmax between them, as in Anchor-SAM's decoder."""
    torch.manual_seed(0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # the case that is not compiled
    layer, maps = DCNv3(8, groups=2).eval(), torch.randn(1, 8, 5, 6)
    with torch.no_grad():
        torch.testing.assert_close(compile_network(layer, CPU)(maps), layer(maps))
