"""What one person has loaded and found: apart from everybody else's, and removed at the end."""

from __future__ import annotations

import itertools
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.demo import files, views
from utils.demo.anchors import Level, levels_at
from utils.demo.models import Models, Spot
from utils.demo.picture import Picture
from utils.demo.roads import Roads

#: A page may still be fetching the pictures before the last one.
KEPT_PICTURES = 8
#: The server keeps an upload in a folder named by the sum of its bytes, and nothing else in such.
_UPLOAD_FOLDER = re.compile("[0-9a-f]{40,128}")


@dataclass(frozen=True)
class Settings:
    """How a result is looked at; `pixel_size_m` is what a person says, None: nothing."""

    view: str = views.OVERLAY
    threshold: float = 0.5
    opacity: float = 0.6
    pixel_size_m: float | None = None


class Session:
    """An image, what the models make of it, and a folder for the files of it.

    Methods raise ValueError, a sentence for the person, when something is not there yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.used = time.monotonic()
        self.truth: np.ndarray | None = None
        self._picture: Picture | None = None
        self._probabilities: dict[str, np.ndarray] = {}
        self._roads: dict[str, Roads] = {}
        self._numbers = itertools.count(1)
        self._newest_turn = 0
        self._shown: list[Path] = []
        self._lock = threading.RLock()

    @property
    def has_picture(self) -> bool:
        return self._picture is not None

    @property
    def picture(self) -> Picture:
        if self._picture is None:
            raise ValueError("Choose an image first: upload one, or take one of the scenes.")
        return self._picture

    def load(self, picture: Picture, truth: np.ndarray | None = None) -> None:
        """Take another image; what was found in the one before is forgotten."""
        with self._lock:
            self._picture, self.truth = picture, truth
            self._probabilities, self._roads = {}, {}

    @contextmanager
    def claimed(self, upload: str | None) -> Iterator[Path]:
        """An uploaded file, taken into the session's folder and removed after use."""
        if upload is None or not _UPLOAD_FOLDER.fullmatch(Path(upload).parent.name):
            raise ValueError("No file has arrived.")
        path = self.folder / f"upload_{next(self._numbers)}"
        try:
            os.replace(upload, path)
        except OSError:  # somebody else sent the same file in the same moment
            raise ValueError("The file got lost on the way. Send it once more.") from None
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)
            with suppress(OSError):  # not empty
                Path(upload).parent.rmdir()

    def has_looked(self, names: Sequence[str]) -> bool:
        """Whether there is a model, and each of these has looked at the image."""
        return bool(names) and all(name in self._probabilities for name in names)

    def find_roads(
        self,
        models: Models,
        name: str,
        after_tiles: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Let a model look at the image, unless it has done so."""
        picture = self.picture
        if name in self._probabilities:
            return
        probability = models.probability(name, picture.image, after_tiles)
        with self._lock:
            if picture is self._picture:  # else the person has gone on meanwhile
                self._probabilities[name] = probability

    def roads(self, name: str, settings: Settings) -> Roads:
        """The roads that a model has found, at the threshold of the settings."""
        with self._lock:
            picture = self.picture
            if name not in self._probabilities:
                raise ValueError(f"{name} has not looked at this image yet.")
            place, threshold = picture.place, settings.threshold
            size_m = picture.pixel_size_m if place else settings.pixel_size_m
            roads = self._roads.get(name)
            if roads is None or (roads.threshold, roads.pixel_size_m) != (threshold, size_m):
                roads = Roads(self._probabilities[name], threshold, place, size_m)
                self._roads[name] = roads
            return roads

    def draw(self, name: str, settings: Settings, side_px: int = views.VIEW_PX) -> np.ndarray:
        """The view of a model's result, RGB uint8, with `side_px` along the longer side."""
        canvas = views.Canvas(self.picture, side_px)
        roads = self.roads(name, settings)
        return views.draw(settings.view, canvas, roads, settings.opacity, self.truth)

    def facts(self, name: str, settings: Settings) -> dict[str, str]:
        return self.roads(name, settings).facts(self.truth)

    def anchors(self, models: Models, name: str, x: int, y: int) -> tuple[Spot, list[Level]]:
        """The latent anchors of a model at a pixel of the image."""
        spot = models.spot(name, self.picture.image, x, y)
        return spot, levels_at(models.anchors(name, spot), spot)

    def next_turn(self) -> int:
        """The number of another wish for a view."""
        with self._lock:
            self._newest_turn += 1
            return self._newest_turn

    def is_newest(self, turn: int) -> bool:
        """Whether no other view was wished for after this one."""
        return turn == self._newest_turn

    def show(self, pixels: np.ndarray) -> Path:
        """A picture as a file of a new name, for the page; the oldest of them is removed."""
        path = self.folder / f"view_{next(self._numbers)}.jpg"
        files.write_picture(pixels, path)
        with self._lock:
            self._shown.append(path)
            while len(self._shown) > KEPT_PICTURES:
                self._shown.pop(0).unlink(missing_ok=True)
        return path

    def take_home(self, kind: str, name: str, settings: Settings) -> Path:
        """Write the mask, the graph or the view of a model's result; see `utils.demo.files`."""
        title, roads = self.picture.name, self.roads(name, settings)
        if kind == files.MASK:
            return files.write_mask(roads, self.folder, title)
        if kind == files.VIEW:
            word = settings.view.lower().replace(" / ", "_").replace(" ", "_")
            pixels = self.draw(name, settings, max(views.VIEW_PX, *self.picture.shape))
            return files.write_picture(pixels, self.folder / f"{title}_{word}.png")
        return files.write_roads(roads, self.folder, title, kind)

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class Sessions:
    """The sessions of everybody who has the page open, by the key that the server gave each.

    Those without a sign of life for `idle_s` are closed, and the idlest of more than `max_open`.
    """

    def __init__(self, root: Path, max_open: int = 16, idle_s: float = 3600.0) -> None:
        self.root, self.max_open, self.idle_s = root, max_open, idle_s
        self._open: dict[str, Session] = {}
        self._lock = threading.Lock()

    def of(self, key: str) -> Session:
        """The session of this key, opened when there is none."""
        with self._lock:
            session = self._open.get(key)
            if session is None:
                # Others cannot guess the name, and so not ask the server for what is in it.
                session = self._open[key] = Session(self.root / secrets.token_hex(16))
            session.used = time.monotonic()
            self._close_idle()
            return session

    def close(self, key: str) -> None:
        with self._lock:
            session = self._open.pop(key, None)
        if session:
            session.close()

    def close_all(self) -> None:
        for key in list(self._open):
            self.close(key)

    def __len__(self) -> int:
        return len(self._open)

    def _close_idle(self) -> None:
        by_use = sorted(self._open, key=lambda key: self._open[key].used)
        too_many = len(by_use) - self.max_open
        oldest = time.monotonic() - self.idle_s
        for rank, key in enumerate(by_use):
            if rank < too_many or self._open[key].used < oldest:
                self._open.pop(key).close()
