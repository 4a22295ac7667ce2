"""How the scripts answer their user: mistakes in a line and status 2, signals with a clean stop."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from utils.files import FULL, DiskFull

_WRONG_PATHS = (
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
#: 128 + the number of SIGPIPE, which systems without that signal do not know.
_READER_LEFT = 141


@contextmanager
def user_mistakes() -> Iterator[None]:
    """Turn what a user got wrong (ValueError, a wrong path) into its message and status 2.

    Of torchrun's processes the first on each machine speaks: a file may be missing on one only.
    """
    try:
        yield
    except (ValueError, *_WRONG_PATHS) as error:
        if isinstance(error, OSError):
            message = f"{error.filename}: {error.strerror}"
        else:
            message = str(error)
        if os.environ.get("LOCAL_RANK", "0") == "0":
            rank = int(os.environ.get("RANK", "0"))
            print(f"rank {rank}: {message}" if rank else message, file=sys.stderr)
        raise SystemExit(2) from None


@contextmanager
def plain_end(after_full_disk: str = "give the same command again") -> Iterator[None]:
    """Around `main`, as a decorator: what is nobody's mistake ends it without a traceback.

    A full disk costs a line that names the file and says what to do, and status 1. A reader of
    the output that has left (`| head`) ends the program in silence, as it ends Unix's own tools.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_left():
            raise
        raise SystemExit(_READER_LEFT) from None
    except (DiskFull, OSError) as error:
        if isinstance(error, OSError) and error.errno not in FULL:
            raise
        print(f"{_no_room(error)}: free some space, then {after_full_disk}", file=sys.stderr)
        raise SystemExit(1) from None


def _reader_left() -> bool:
    """Whether nobody reads standard output any more, and not another pipe is broken."""
    try:
        print(flush=True)
    except BrokenPipeError:
        # or Python's own last flush would complain
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return True
    return False


def _no_room(error: BaseException) -> str:
    """The first file that had no room: others may have followed it while the program ended."""
    found, cause = error, error.__context__
    while cause is not None:
        found = cause if isinstance(cause, DiskFull) else found
        cause = cause.__context__
    if isinstance(found, OSError):
        return f"{found.filename or 'the output'} could not be written ({found.strerror})"
    return str(found)


def refuse(problems: Sequence[str]) -> None:
    """Raise ValueError with a line for every problem, if there is any."""
    if problems:
        raise ValueError("\n".join(problems))


class Mistakes:
    """Collects the ValueErrors of several `with` blocks, so that all are told at once."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> bool:
        if isinstance(error, ValueError):
            self._lines.append(str(error))
            return True
        return False

    def report(self) -> None:
        """Raise ValueError with every one of them, if there was any."""
        refuse(self._lines)


def set_up_logging() -> None:
    """Plain lines on stderr: what all ranks would say from rank 0, errors from every rank.

    Besides errors the others tell of what is their own: the scenes that fall to them, and the
    first on each machine what compiled operators lack there.
    """
    rank, local_rank = (os.environ.get(name, "0") for name in ("RANK", "LOCAL_RANK"))
    level = logging.INFO if rank == "0" else logging.ERROR
    logging.basicConfig(level=level, format="%(message)s", force=True)
    at_warnings = ["PIL", "matplotlib", "rasterio", "pyogrio", "fontTools", "httpx"]
    if rank != "0":
        at_warnings = ["utils.scenes", *(["model.ops"] if local_rank == "0" else [])]
    for name in at_warnings:
        logging.getLogger(name).setLevel(logging.WARNING)


def end_at_signals() -> None:
    """For work with nothing to save: Ctrl-C and SIGTERM end it at once, status 130 and 143."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


def leave_signals_to_parent() -> None:
    """For worker processes: a signal to the whole group is the parent's to answer."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class StopRequest:
    """Remembers SIGINT and SIGTERM, so that work can end at the next whole step.

    `asked` turns true with the first signal; a second one ends the program at once.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def asked(self) -> bool:
        return self.signal is not None

    @property
    def exit_status(self) -> int:
        """128 + the signal's number: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (self.signal if self.signal is not None else signal.SIGTERM)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise SystemExit(128 + number)
        self.signal = number
