"""Batches depend on seed, epoch and position alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.sampler import EpochBatches

sizes = st.integers(1, 40)


@given(
    length=sizes, batch_size=st.integers(1, 5), world=st.integers(1, 4), epoch=st.integers(1, 99)
)
def test_ranks_together_see_the_joint_batches_of_one_process(length, batch_size, world, epoch):
    single = EpochBatches(length, batch_size * world, seed=6)
    ranks = [EpochBatches(length, batch_size, seed=6, rank=r, world=world) for r in range(world)]
    for sampler in (single, *ranks):
        sampler.start_at(epoch)
    joint = [[key for part in parts for key in part] for parts in zip(*ranks, strict=True)]
    assert joint == list(single)
    assert len(single) == len(joint) == max(1, length // (batch_size * world))
    if length >= batch_size * world:
        seen = [index for batch in joint for _, index in batch]
        assert len(set(seen)) == len(seen)


@given(length=sizes, batch_size=st.integers(1, 5), first=st.integers(0, 8))
def test_a_later_start_gives_the_rest_of_the_same_epoch(length, batch_size, first):
    sampler = EpochBatches(length, batch_size, seed=1)
    sampler.start_at(3)
    whole = list(sampler)
    first = min(first, len(whole))
    sampler.start_at(3, first)
    assert list(sampler) == whole[first:]
    assert len(sampler) == len(whole) - first


def test_epochs_and_seeds_differ_and_an_empty_split_is_refused():
    orders = []
    for seed, epoch in ((1, 1), (1, 2), (2, 1)):
        sampler = EpochBatches(50, 5, seed=seed)
        sampler.start_at(epoch)
        orders.append([index for batch in sampler for _, index in batch])
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert sorted(orders[0]) == list(range(50))
    with pytest.raises(ValueError, match="empty"):
        EpochBatches(0, 5, seed=1)
