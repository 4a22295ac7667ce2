"""What torchrun needs, and nothing when it is absent: one process is rank 0 of 1."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as differentiable
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


class Ranks(NamedTuple):
    """This process's place: `rank` of `world`, working on `device`."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def init(device: str = "auto") -> Ranks:
    """Join the process group that torchrun announces, if any, and choose the device.

    `device` is 'auto' (CUDA when there is one), 'cpu' or 'cuda'. Raises ValueError for a CUDA that
    is not there.
    """
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise ValueError("device: 'cuda' was asked for, but torch sees no CUDA device")
    kind = "cuda" if device != "cpu" and has_cuda else "cpu"
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    if kind == "cuda":
        # by their number, not by local_rank: rank 0 has to see it too, for it does the talking
        local_world = int(os.environ.get("LOCAL_WORLD_SIZE", local_rank + 1))
        if local_world > torch.cuda.device_count():
            raise ValueError(
                f"{local_world} processes were started for {torch.cuda.device_count()} GPUs: "
                "lower --nproc-per-node, or set device=cpu"
            )
        torch.cuda.set_device(local_rank)
    if "RANK" in os.environ and not dist.is_initialized():
        dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    device = torch.device(kind, local_rank) if kind == "cuda" else torch.device("cpu")
    return Ranks(rank(), world_size(), device)


def shut_down(network: nn.Module | None = None) -> None:
    """Leave the process group, so that torchrun ends without complaint.

    `network` is what was trained in it, if anything; it cannot be trained after this.
    """
    if not dist.is_initialized():
        return
    for part in network.modules() if network is not None else ():
        if isinstance(part, DistributedDataParallel):
            # These hold the group. Were they the last, it would end while Python's lock is held,
            # and wait for its threads, of which some wait for this lock.
            part.reducer = part.logger = None
    dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    if world_size() > 1:
        dist.barrier()


def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum of `value` over all ranks, through which gradients flow back to every rank.

    A loss made of such sums is the same on every rank; DDP's mean of the gradients then is the
    gradient of that loss over the joint batch.
    """
    return differentiable.all_reduce(value) if world_size() > 1 else value


def any_rank(flag: bool, device: torch.device) -> bool:
    """True on every rank when `flag` is true on one."""
    if world_size() == 1:
        return flag
    votes = torch.tensor([int(flag)], device=device)
    dist.all_reduce(votes)
    return bool(votes.item())


def all_gather_objects(value: Any) -> list[Any]:
    """Every rank's value, in rank order, on every rank."""
    if world_size() == 1:
        return [value]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def gather_in_order(own: dict[int, Any]) -> list[Any]:
    """The values of all ranks, sorted by their keys, on every rank."""
    gathered = {key: value for part in all_gather_objects(own) for key, value in part.items()}
    return [gathered[key] for key in sorted(gathered)]


def broadcast_object(value: Any) -> Any:
    """Rank 0's value, on every rank."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
