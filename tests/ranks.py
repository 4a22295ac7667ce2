"""Processes that find each other as torchrun's do."""

from __future__ import annotations

import os
import socket
import subprocess
from typing import NamedTuple


class Ended(NamedTuple):
    """How a rank ended."""

    status: int
    stdout: str
    stderr: str


def run_two_ranks(command: list[str], timeout_s: float) -> list[Ended]:
    """Run a command as two ranks of one machine."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    torchrun = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    ranks = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | torchrun | {"RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in "01"
    ]
    said = [rank.communicate(timeout=timeout_s) for rank in ranks]
    return [Ended(rank.returncode, *texts) for rank, texts in zip(ranks, said, strict=True)]
