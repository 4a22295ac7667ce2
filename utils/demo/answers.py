"""What the page answers: to an image, a choice of models, a click, a wish for a file."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import gradio as gr

from utils.demo import texts, views
from utils.demo.anchors import draw_gate, draw_points
from utils.demo.checks import Limits
from utils.demo.models import Models, has_anchors, is_synthetic
from utils.demo.picture import Picture, read_picture, read_truth
from utils.demo.scenes import scene
from utils.demo.session import Session, Sessions, Settings

if TYPE_CHECKING:
    from utils.demo.page import Page

NO_OTHER = "nothing"
NO_IMAGE = "Choose an image: upload one, or take one of the scenes."
#: Gradio puts its bar in place of this default.
PROGRESS = gr.Progress()

Answer = dict[Any, Any]


class Look(NamedTuple):
    """The values of the controls that say how a result is looked at."""

    model: str | None
    other: str | None
    view: str
    threshold: float
    opacity: float
    pixel_size_m: float | None

    @property
    def names(self) -> list[str]:
        """The models that are compared, or the one."""
        return _names(self.model, self.other)

    @property
    def settings(self) -> Settings:
        """Raises ValueError for numbers that no control gives."""
        if not (0 < self.threshold < 1 and 0 <= self.opacity <= 1):
            raise ValueError("The threshold must lie between 0 and 1, and so must the opacity.")
        return Settings(self.view, self.threshold, self.opacity, self.pixel_size_m or None)


class Answers:
    """New values by control, for each thing that somebody can do on the page.

    Raises ValueError with a sentence for the person.
    """

    def __init__(self, page: Page, models: Models, sessions: Sessions, limits: Limits) -> None:
        self.page, self.models, self.sessions, self.limits = page, models, sessions, limits

    # The person comes, chooses models, and goes

    def open(self) -> Answer:
        """The page was loaded: list the runs that there are now."""
        page, names = self.page, list(self.models.paths())
        return {
            page.model: gr.update(choices=names, value=self.models.default()),
            page.other: gr.update(choices=[NO_OTHER, *names], value=NO_OTHER),
        }

    def leave(self, request: gr.Request) -> None:
        self.sessions.close(request.session_hash)

    def adopt(self, model: str | None, other: str | None) -> Answer:
        """A model was chosen: take over its threshold, and say where it comes from."""
        page = self.page
        if not model:
            return {page.notice: texts.NO_MODEL, page.anchors: gr.update(visible=False)}
        predictor = self.models.get(model)
        return {
            page.threshold: round(predictor.threshold, 2),
            page.anchors: gr.update(visible=has_anchors(predictor.model)),
            **self._no_anchors(),
            **self.note(model, other),
        }

    def note(self, model: str | None, other: str | None) -> Answer:
        """Say which of the chosen models know synthetic scenes only."""
        names = [name for name in _names(model, other) if is_synthetic(self.models.get(name))]
        return {self.page.notice: texts.synthetic_notice(names)}

    def _no_anchors(self) -> Answer:
        """The anchors of another image or model are no longer shown."""
        page = self.page
        hidden = {p: gr.update(value=None, visible=False) for p in (page.points, page.gate)}
        return hidden | {page.anchor_facts: ""}

    # An image is taken

    def take_upload(self, request: gr.Request, path: str | None) -> Answer:
        """An image was sent."""
        session = self.sessions.of(request.session_hash)
        with session.claimed(path) as claimed:
            picture = read_picture(claimed, Path(path).name, self.limits)
        session.load(picture)
        return self._loaded(picture, has_truth=False)

    def scene_taker(self, title: str) -> Callable[[gr.Request], Answer]:
        """The answer to a scene's button."""

        def take(request: gr.Request) -> Answer:
            picture, truth = scene(title)
            self.sessions.of(request.session_hash).load(picture, truth)
            return self._loaded(picture, has_truth=True)

        return take

    def take_truth(self, request: gr.Request, path: str | None) -> Answer:
        """A mask was sent: from now on there are scores and errors."""
        page, session = self.page, self.sessions.of(request.session_hash)
        picture = session.picture
        with session.claimed(path) as claimed:
            session.truth = read_truth(claimed, Path(path).name, picture, self.limits)
        return {
            page.status: texts.said(f"The true roads of {picture.name} are loaded: see Errors."),
            page.truth: None,
            page.view: gr.update(choices=_views(has_truth=True)),
        }

    def _loaded(self, picture: Picture, *, has_truth: bool) -> Answer:
        page, size_m = self.page, picture.pixel_size_m
        scale = f", {size_m:.3g} m a pixel" if size_m else ""
        return {
            page.status: texts.said(f"{picture.name}: {picture.size_text}{scale}. {picture.note}"),
            page.upload: None,
            page.truth: None,
            page.view: gr.update(choices=_views(has_truth), value=views.OVERLAY),
            page.pixel_size: gr.update(
                value=round(size_m, 4) if size_m else None, interactive=picture.place is None
            ),
            **self._no_anchors(),
        }

    # The models look at it

    def find(self, request: gr.Request, progress: gr.Progress = PROGRESS, *values: Any) -> Answer:
        """Let the chosen models look at the image; `redraw` then shows what they found.

        Apart, because the controls that say how it is shown may be moved meanwhile.
        """
        look, session = Look(*values), self.sessions.of(request.session_hash)
        if not session.has_picture:
            return {self.page.status: texts.said(NO_IMAGE)}
        if not look.names:
            raise ValueError("There is no model to find roads with: see the note beside.")
        begin = time.monotonic()
        for name in look.names:

            def after_tiles(done: int, total: int, name: str = name) -> None:
                progress((done, total), desc=f"{name} looks at the image", unit="tiles")

            session.find_roads(self.models, name, after_tiles)
        if not session.has_looked(look.names):
            return {self.page.status: gr.skip()}  # another image was taken meanwhile
        spent = f"{' and '.join(look.names)}: {time.monotonic() - begin:.1f} s"
        picture = session.picture
        sentence = f"{picture.name}, {picture.size_text}. {spent}. {picture.note}"
        return {self.page.status: texts.said(sentence)}

    def find_new(
        self, request: gr.Request, progress: gr.Progress = PROGRESS, *values: Any
    ) -> Answer:
        """`find`, unless the image was refused and the one before is still there."""
        session = self.sessions.of(request.session_hash)
        if not session.has_picture or session.has_looked(Look(*values).names):
            return {self.page.status: gr.skip()}
        return self.find(request, progress, *values)

    def redraw(self, request: gr.Request, *values: Any) -> Answer:
        """The view of what was found, as the controls say now."""
        session = self.sessions.of(request.session_hash)
        look, turn = Look(*values), session.next_turn()
        if not session.has_picture or not session.has_looked(look.names):
            return {self.page.status: gr.skip()}
        answer = self._display(session, look)
        # An older answer that took longer must not stand over a newer one.
        return answer if session.is_newest(turn) else {self.page.status: gr.skip()}

    def count(self, request: gr.Request, *values: Any) -> Answer:
        """The facts about the roads of each model."""
        session, look = self.sessions.of(request.session_hash), Look(*values)
        if not session.has_picture or not session.has_looked(look.names):
            return {self.page.facts: ""}
        columns = {name: session.facts(name, look.settings) for name in look.names}
        return {self.page.facts: texts.facts_table(columns)}

    def _display(self, session: Session, look: Look) -> Answer:
        page, settings = self.page, look.settings
        if settings.view == views.SLIDER:
            return self._before_after(session, look)
        shown = [session.show(session.draw(name, settings)) for name in look.names]
        answer = {
            page.picture: _picture(look.names[0], shown[0]),
            page.other_picture: gr.update(visible=False),
            page.before_after: gr.update(visible=False),
            page.legend: texts.legend(settings.view),
        }
        if len(shown) > 1:
            answer[page.other_picture] = _picture(look.names[1], shown[1])
        return answer

    def _before_after(self, session: Session, look: Look) -> Answer:
        """The image and its roads over each other; of two models, the roads of both."""
        page, settings = self.page, look.settings
        roads = {name: session.draw(name, settings) for name in look.names}
        sides = {"the image": views.Canvas(session.picture).image} | roads
        titles = list(sides)[-2:]
        before, after = (_url(session.show(sides[title])) for title in titles)
        slider = texts.before_after(before, after, *titles)
        return {
            page.picture: gr.update(visible=False),
            page.other_picture: gr.update(visible=False),
            page.before_after: gr.update(value=slider, visible=True),
            page.legend: texts.legend(settings.view),
        }

    # A pixel is asked for, a file is wanted

    def click(self, request: gr.Request, event: gr.SelectData) -> Answer:
        """A place on the picture, as a pixel of the image."""
        session = self.sessions.of(request.session_hash)
        x, y = views.Canvas(session.picture).to_picture(*event.index)
        return {self.page.x: x, self.page.y: y}

    def mine(
        self, request: gr.Request, model: str | None, x: float | None, y: float | None, level: int
    ) -> Answer:
        """The latent anchors of a pixel at a level (0: the finest)."""
        page, session = self.page, self.sessions.of(request.session_hash)
        if not model or not has_anchors(self.models.get(model).model):
            return {page.status: gr.skip()}
        if x is None or y is None:
            raise ValueError("Type both numbers of the pixel, x and y.")
        spot, levels = session.anchors(self.models, model, int(x), int(y))
        chosen = levels[level]
        return {
            page.points: _picture("Sampling points", session.show(draw_points(spot, chosen))),
            page.gate: _picture("Gate: bright is open", session.show(draw_gate(spot, chosen))),
            page.anchor_facts: texts.anchor_facts(levels),
        }

    def file_writer(self, kind: str) -> Callable[..., Answer]:
        """The answer to the button that takes home a file of this kind."""

        def write(request: gr.Request, *values: Any) -> Answer:
            session, look = self.sessions.of(request.session_hash), Look(*values)
            if not session.has_picture or not session.has_looked(look.names):
                raise ValueError("There is nothing to save yet. " + NO_IMAGE)
            path = session.take_home(kind, look.names[0], look.settings)
            return {
                self.page.status: texts.said(f"{path.name} is written."),
                self.page.link: _url(path),
            }

        return write


def _names(model: str | None, other: str | None) -> list[str]:
    first = [model] if model else []
    return first + ([other] if other and other not in (NO_OTHER, model) else [])


def _views(has_truth: bool) -> list[str]:
    kinds = [views.OVERLAY, views.SLIDER, views.HEAT, views.GRAPH]
    return [*kinds, views.ERRORS] if has_truth else kinds


def _picture(label: str, path: Path) -> dict[str, Any]:
    return gr.update(value=str(path), label=label, visible=True)


def _url(path: Path) -> str:
    return f"gradio_api/file={path}"
