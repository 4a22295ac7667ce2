"""Which maps of a results folder are a scored split's, so that the next one leaves none of them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath

from utils.files import write_json
from utils.results import map_files
from utils.scenes.predictions import read_object, read_predictions
from utils.schema import Inference

FILE = ".maps.json"
OVERVIEW = "overview.png"
_KINDS = ("mask", "prob", "error_map")


def replace_maps(folder: Path, names: Iterable[str], settings: Inference) -> None:
    """Delete the pictures of the split that was scored here before, and list those to come.

    To be called before the first is written, so that a run that is killed has listed its own.
    Files that no such run has written stay, and so do those that predictions.json lists. Raises
    OSError where the folder cannot be written.
    """
    listed = (read_object(folder / FILE) or {}).get("files")
    earlier = [file for file in listed if _is_map(file)] if isinstance(listed, list) else []
    inputs = read_predictions(folder).entries.values()
    kept = {file for entry in inputs for file in entry.get("files") or []}
    for file in earlier:
        if file not in kept:
            (folder / file).unlink(missing_ok=True)
    for kind in {PurePosixPath(file).parts[0] for file in earlier} - {OVERVIEW}:
        with suppress(OSError):  # not empty
            (folder / kind).rmdir()
    paths = [path for name in names for path in map_files(folder, name, settings).values()]
    files = [path.relative_to(folder).as_posix() for path in paths]
    if settings.save_outputs:
        write_json(folder / FILE, {"files": [*files, OVERVIEW]})
    else:
        (folder / FILE).unlink(missing_ok=True)


def _is_map(file: object) -> bool:
    """Whether a list that somebody may have changed names what a scored split writes."""
    path = PurePosixPath(file if isinstance(file, str) else "")
    in_a_folder = len(path.parts) == 2 and path.parts[0] in _KINDS
    return file == OVERVIEW or (in_a_folder and path.suffix in (".png", ".npy"))
