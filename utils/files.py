"""Writing files so that a killed program leaves no half file under its final name."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Read once: it cannot be read without being set, which no other thread must see.
_UMASK = os.umask(0)
os.umask(_UMASK)

#: What systems say where nothing more fits: on the disk, into the user's share of it, or a file.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PROBE_BYTES = 1 << 20


class DiskFull(Exception):
    """There is no room for a file; the message names it."""


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` to write to; renamed to `path` when the block succeeds.

    The suffix is kept, since image and spreadsheet writers choose their format by it. Raises
    DiskFull where there is no room; the file that was there stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        with room_for(path, temporary):
            yield temporary
            # mkstemp's 0600 would hide results from colleagues
            os.chmod(temporary, 0o666 & ~_UMASK)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def room_for(path: Path, written: Path | None = None) -> Iterator[None]:
    """Raise DiskFull, which names `path`, where the block fails because there is no room for it.

    Few writers say why they failed. What they have `written` so far, and is to be dropped, tells:
    is there room for a little more?
    """
    try:
        yield
    except Exception as error:
        if reason := _why_full(error, written):
            raise DiskFull(f"{path} could not be written ({reason})") from error
        raise


def _why_full(error: BaseException | None, written: Path | None) -> str | None:
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return error.strerror
        error = error.__cause__ or error.__context__
    try:
        if written:
            with open(written, "ab") as file:
                file.write(bytes(_PROBE_BYTES))
    except OSError as refusal:
        return refusal.strerror if refusal.errno in FULL else None
    return None


def make_results_folder(folder: Path) -> None:
    """Make it, before the work that would be lost without it. ValueError for a file in its way."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: a file is in the way of the results' folder")
    folder.mkdir(parents=True, exist_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed program left under `atomic_path`'s temporary names in a folder.

    Only where no other program writes at the same time.
    """
    for path in folder.glob(".*.????????.*"):  # .STEM.RANDOM.SUFFIX
        path.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON for people and programs: indented, and no NaN, which JSON does not know."""
    with atomic_path(path) as temporary:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def sha256(path: str | os.PathLike[str]) -> str:
    """The hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
