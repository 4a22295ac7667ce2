"""What the page shows of an image, as files and lines of text, without a browser."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from prettytable import PrettyTable
from tqdm import tqdm

from utils.demo import files, views
from utils.demo.anchors import COLUMNS, draw_gate, draw_points
from utils.demo.checks import Limits
from utils.demo.models import Models, has_anchors, is_synthetic
from utils.demo.picture import read_picture, read_truth
from utils.demo.session import Session, Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """An image and what to do with it; None stands for what is not given.

    `threshold` None takes each model's own. `pixel` is (x, y), whose anchors are shown.
    """

    image: Path
    output: Path
    limits: Limits
    truth: Path | None = None
    threshold: float | None = None
    pixel_size_m: float | None = None
    pixel: Sequence[int] | None = None


def show(task: Task, models: Models, names: Sequence[str]) -> None:
    """Let the named models look at the image; of several each writes to a folder of its own.

    Raises ValueError for an image, a truth or a pixel that cannot be used.
    """
    picture = read_picture(task.image, task.image.name, task.limits)
    if picture.note:
        print(picture.note)
    if task.pixel_size_m is not None and picture.place:
        logger.warning(
            "--pixel-size has no effect: by the georeference of %s it is %.4g m",
            task.image,
            picture.place.pixel_size_m,
        )
    truth = None
    if task.truth:
        truth = read_truth(task.truth, task.truth.name, picture, task.limits)
    facts = {}
    for name in names:
        path = models.paths()[name]
        own = f"{path.resolve().parent.name}_{path.stem}" if len(names) > 1 else ""
        session = Session(task.output / own)
        session.load(picture, truth)
        with tqdm(desc=name, unit="tile", disable=None) as bar:
            session.find_roads(models, name, partial(_show_progress, bar))
        predictor = models.get(name)
        settings = Settings(
            threshold=predictor.threshold if task.threshold is None else task.threshold,
            pixel_size_m=task.pixel_size_m,
        )
        if is_synthetic(predictor):
            print(f"{name} was trained on synthetic scenes only: on real imagery expect mistakes")
        facts[f"{name} at {settings.threshold:g}"] = session.facts(name, settings)
        written = _write_files(session, name, settings)
        if task.pixel is not None:
            written += _write_anchors(session, models, name, task.pixel)
        print(f"{session.folder}/: {', '.join(path.name for path in written)}")
    _print_facts(picture.name, facts)


def _print_facts(title: str, facts: dict[str, dict[str, str]]) -> None:
    """A table with a column for each model."""
    table = PrettyTable([title, *facts])
    for row in next(iter(facts.values())):
        table.add_row([row, *(values[row] for values in facts.values())])
    print(table)


def _show_progress(bar: tqdm, done: int, total: int) -> None:
    bar.total = total
    bar.update(done - bar.n)


def _write_files(session: Session, name: str, settings: Settings) -> list[Path]:
    kinds = [views.OVERLAY, views.HEAT, views.GRAPH]
    if session.truth is not None:
        kinds.append(views.ERRORS)
    return [
        *(session.take_home(kind, name, settings) for kind in files.DATA),
        *(session.take_home(files.VIEW, name, replace(settings, view=view)) for view in kinds),
    ]


def _write_anchors(session: Session, models: Models, name: str, pixel: Sequence[int]) -> list[Path]:
    """The sampling points and the gate of every level, and a line about each."""
    if not has_anchors(models.get(name).model):
        print(f"{name} is no Anchor-SAM: it has no anchors to show")
        return []
    spot, levels = session.anchors(models, name, *pixel)
    table = PrettyTable(COLUMNS)
    table.add_rows([level.row() for level in levels])
    print(f"{name}, latent anchors of pixel ({pixel[0]}, {pixel[1]}):\n{table}")
    title = session.picture.name
    return [
        files.write_picture(
            draw(spot, level), session.folder / f"{title}_{word}_{level.stride}.png"
        )
        for level in levels
        for word, draw in (("points", draw_points), ("gate", draw_gate))
    ]
