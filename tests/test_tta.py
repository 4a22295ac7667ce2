"""Each view is the rearrangement that its name says, and is undone exactly."""

from __future__ import annotations

import typing

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from utils.schema import TTAOp
from utils.tta import SYMMETRIES, average_over

NAMES = typing.get_args(TTAOp)

#: Where pixel (i, j) of the view comes from, in an image of H x W.
SOURCES = {
    "identity": lambda i, j, H, W: (i, j),
    "hflip": lambda i, j, H, W: (i, W - 1 - j),
    "vflip": lambda i, j, H, W: (H - 1 - i, j),
    "rot90": lambda i, j, H, W: (H - 1 - j, i),
    "rot180": lambda i, j, H, W: (H - 1 - i, W - 1 - j),
    "rot270": lambda i, j, H, W: (j, W - 1 - i),
    "transpose": lambda i, j, H, W: (j, i),
}


def test_the_schema_lists_the_same_names() -> None:
    assert set(SYMMETRIES) == set(NAMES) == set(SOURCES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("H", "W"), [(5, 8), (7, 7), (1, 4)])
def test_view_and_inverse(name: str, H: int, W: int) -> None:
    image = torch.arange(2 * 3 * H * W).reshape(2, 3, H, W)
    view = SYMMETRIES[name].apply(image)
    for i in range(view.shape[2]):
        for j in range(view.shape[3]):
            row, column = SOURCES[name](i, j, H, W)
            assert torch.equal(view[:, :, i, j], image[:, :, row, column])
    assert torch.equal(SYMMETRIES[name].invert(view), image)


def test_rot90_is_clockwise() -> None:
    image = torch.tensor([[[[1, 2, 3], [4, 5, 6]]]])
    expected = torch.tensor([[[[4, 1], [5, 2], [6, 3]]]])
    assert torch.equal(SYMMETRIES["rot90"].apply(image), expected)


def test_an_equivariant_function_is_not_changed() -> None:
    """A symmetric filter commutes with every symmetry, so that all views agree."""
    kernel = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16
    weight = kernel.expand(1, 3, 3, 3) / 3

    def probability(image: Tensor) -> Tensor:
        return F.conv2d(image, weight, padding=1)

    image = torch.rand(2, 3, 9, 14)
    torch.testing.assert_close(
        average_over(NAMES, probability, image), probability(image), rtol=1e-6, atol=1e-7
    )


def test_the_mean_is_that_of_probabilities_turned_back() -> None:
    """A function that knows only the column tells which views were seen."""

    def probability(image: Tensor) -> Tensor:
        W = image.shape[-1]
        return (torch.arange(W) / W).expand(image.shape[0], 1, image.shape[-2], W)

    image = torch.rand(1, 3, 4, 6)
    ramp = (torch.arange(6) / 6).expand(1, 1, 4, 6)
    both = average_over(["identity", "hflip"], probability, image)
    torch.testing.assert_close(both, (ramp + ramp.flip(-1)) / 2)
    # Seen transposed, the columns are the image's rows.
    rows = (torch.arange(4) / 4)[:, None].expand(1, 1, 4, 6)
    torch.testing.assert_close(average_over(["transpose"], probability, image), rows)


def test_identity_alone_changes_no_bit() -> None:
    image = torch.rand(2, 1, 5, 7)
    assert torch.equal(average_over(["identity"], lambda x: x, image), image)


@pytest.mark.parametrize("ops", [[], ["rot45"], ["identity", "mirror"]])
def test_unknown_operations_are_refused(ops: list[str]) -> None:
    with pytest.raises(ValueError, match="transpose"):
        average_over(ops, lambda x: x, torch.zeros(1, 3, 4, 4))
