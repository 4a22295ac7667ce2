"""benchmarks/model.py: the search for the largest batch, whatever the memory of a GPU."""

from __future__ import annotations

from argparse import Namespace

import pytest
import torch
from torch import nn

from benchmarks import model

ARGS = Namespace(image_size=1, device="cpu")


@pytest.fixture
def device_that_holds(monkeypatch):
    def held(limit: int) -> None:
        def train(net, image, args, optimiser) -> None:
            if len(image) > limit:
                raise torch.OutOfMemoryError("a batch too large")

        monkeypatch.setattr(model, "train", train)

    return held


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 13, 64, 100, 1023])
def test_the_largest_batch_is_found_to_an_eighth(device_that_holds, limit: int):
    device_that_holds(limit)
    optimiser = torch.optim.AdamW(nn.Linear(1, 1).parameters())
    found = model.largest_batch(ARGS, nn.Linear(1, 1), optimiser)
    assert limit * 7 / 8 <= found <= limit


def test_a_device_that_holds_no_image_ends_the_program(device_that_holds):
    device_that_holds(0)
    optimiser = torch.optim.AdamW(nn.Linear(1, 1).parameters())
    with pytest.raises(SystemExit, match="not one image of 1 px fits"):
        model.largest_batch(ARGS, nn.Linear(1, 1), optimiser)
