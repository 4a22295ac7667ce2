"""The scripts as processes of their own, one after another, that end when the comparison does."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
LOCK_FILE = ".lock"
#: How long to wait for a training that a killed comparison has left to end: it saves first.
ORPHAN_S = 120
#: What torchrun tells its processes, which is not true for processes that these start.
_OF_TORCHRUN = {
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"),
}
_PR_SET_PDEATHSIG = 1


class Interrupted(Exception):
    """SIGINT or SIGTERM came; the process at work has ended after saving what it had."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_status = 128 + number


class ScriptFailed(RuntimeError):
    """A script ended with an error; the message holds its last line."""


def leave_torchrun() -> int:
    """How many processes torchrun has started, this one among them; 1 without torchrun.

    What torchrun told this process is forgotten, so that the processes which it starts, and its
    own work, do not wait for the others. Raises ValueError on several machines.
    """
    world = int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    if local != world:
        raise ValueError("compare.py runs on one machine: use torchrun without --nnodes")
    for key in [k for k in os.environ if k in _OF_TORCHRUN or k.startswith("TORCHELASTIC_")]:
        del os.environ[key]
    return world


@contextmanager
def only_one(folder: Path) -> Iterator[int]:
    """Hold the folder for one comparison at a time; gives the lock, which processes may inherit.

    A training that a killed comparison has left behind is waited for. Raises ValueError when the
    folder stays in use.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK_FILE, "w") as file:
        deadline, told = time.monotonic() + ORPHAN_S, False
        while True:
            if _locked(file):
                break
            if time.monotonic() > deadline:
                raise ValueError(f"{folder}: another comparison is at work in it")
            if not told:
                logger.info("%s is in use, waiting up to %d s", folder, ORPHAN_S)
                told = True
            time.sleep(1)
        yield file.fileno()


def _locked(file: IO[str]) -> bool:
    """Whether nobody else holds the file, which is then held until it is closed."""
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        return False
    return True


class Launcher:
    """Starts the project's scripts in `folder`, over `ranks` processes each, logs to `logs`/."""

    def __init__(self, folder: Path, *, ranks: int, lock: int) -> None:
        self._folder, self._ranks, self._lock = folder, ranks, lock
        self._process: subprocess.Popen[str] | None = None
        self._signal: int | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._forward)

    def run(self, script: str, arguments: Sequence[str], log: str) -> None:
        """Run a script to its end; what it says is shown and added to the log of that name.

        Raises ScriptFailed, and Interrupted after a signal that this process got.
        """
        if self._signal is not None:
            raise Interrupted(self._signal)
        logs = self._folder / "logs"
        logs.mkdir(exist_ok=True)
        last_lines: deque[str] = deque(maxlen=1)
        with open(logs / f"{log}.log", "a", encoding="utf-8") as file:
            self._process = subprocess.Popen(
                [*self._python(), str(ROOT / script), *arguments],
                cwd=self._folder,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # a Ctrl-C reaches it once, through `_forward`
                pass_fds=(self._lock,) if fcntl else (),  # Windows knows no inherited locks
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )
            for line in self._process.stdout or ():
                sys.stderr.write(line)
                file.write(line)
                file.flush()
                if line.strip():
                    last_lines.append(line.strip())
            status = self._process.wait()
        self._process = None
        if self._signal is not None:
            raise Interrupted(self._signal)
        if status:
            reason = last_lines[0] if last_lines else f"status {status}"
            raise ScriptFailed(f"{script}: {reason}")

    def _python(self) -> list[str]:
        if self._ranks == 1:
            return [sys.executable]
        torchrun = ["-m", "torch.distributed.run", "--standalone"]
        return [sys.executable, *torchrun, "--nproc-per-node", str(self._ranks)]

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        if self._process is None:
            raise Interrupted(number)
        if sys.platform != "win32":  # there the script has got the Ctrl-C, too
            self._process.send_signal(number)


def _end_with_parent() -> None:
    """In a new process: let the kernel send it SIGTERM when its parent is gone, however it went."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
