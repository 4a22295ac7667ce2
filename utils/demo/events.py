"""Which control of the page asks for which answer. Every mistake ends as a sentence on the page."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from utils.demo import texts
from utils.demo.answers import Answer, Answers
from utils.predict import NonFinitePrediction

if TYPE_CHECKING:
    from utils.demo.page import Page

logger = logging.getLogger(__name__)

#: One at a time uses a model; everybody else waits for the turn, and sees so.
MODEL_QUEUE = {"concurrency_id": "model", "concurrency_limit": 1}
QUIET = {"show_progress": "hidden"}
#: Follow a link to a file, which the browser then saves.
SAVE = """(url) => {
  if (!url) return;
  const link = document.createElement('a');
  link.href = url; link.download = decodeURIComponent(url.split('/').pop());
  document.body.append(link); link.click(); link.remove();
}"""


def connect(page: Page, answers: Answers) -> None:
    """Let the page's controls be answered; within the context of its blocks."""
    wiring = _Wiring(page, answers)
    wiring.connect_models()
    wiring.connect_images()
    wiring.connect_looks()
    wiring.connect_anchors()
    wiring.connect_files()


class _Wiring:
    def __init__(self, page: Page, answers: Answers) -> None:
        self.page, self.answers = page, answers
        #: The controls that say how a result is looked at, in the order of `answers.Look`.
        self.look = [
            page.model, page.other, page.view, page.threshold, page.opacity, page.pixel_size,
        ]  # fmt: skip
        self.shown = [page.picture, page.other_picture, page.before_after, page.legend]
        self.mined = [page.points, page.gate, page.anchor_facts]

    def connect_models(self) -> None:
        """What happens when another model is chosen."""
        page, answers = self.page, self.answers
        both, adopted = [page.model, page.other], [page.threshold, page.notice, page.anchors]
        adopted += self.mined
        opened = self._when(page.blocks.load, answers.open, [], both, **QUIET)
        self._when(opened.then, answers.adopt, both, adopted, **QUIET)
        page.blocks.unload(answers.leave)
        chosen = self._when(page.model.input, answers.adopt, both, adopted, **QUIET)
        self._then_find(chosen, answers.find)
        compared = self._when(page.other.input, answers.note, both, [page.notice], **QUIET)
        self._then_find(compared, answers.find)

    def connect_images(self) -> None:
        """What happens when an image or its truth comes in."""
        page, answers = self.page, self.answers
        loaded = [page.upload, page.truth, page.view, page.pixel_size, *self.mined]
        public = {"api_name": "load_image", "api_visibility": "public"}
        given = self._when(
            page.upload.upload, answers.take_upload, [page.upload], loaded,
            cleared=page.upload, **public,
        )  # fmt: skip
        self._then_find(given, answers.find_new)
        for title, button in page.scenes.items():
            given = self._when(button.click, answers.scene_taker(title), [], loaded)
            self._then_find(given, answers.find_new)
        taken = self._when(
            page.truth.upload, answers.take_truth, [page.truth], [page.truth, page.view],
            cleared=page.truth,
        )  # fmt: skip
        self._then_count(taken)

    def connect_looks(self) -> None:
        """What happens when the view, a slider or the scale is changed."""
        page = self.page
        how = {"trigger_mode": "always_last"} | QUIET
        for control in (page.threshold, page.opacity, page.view, page.pixel_size):
            drawn = self._when(control.input, self.answers.redraw, self.look, self.shown, **how)
            if control is not page.opacity:
                self._then_count(drawn)

    def connect_anchors(self) -> None:
        """What happens when a pixel is clicked or typed."""
        page, answers = self.page, self.answers
        place = [page.model, page.x, page.y, page.level]
        how = MODEL_QUEUE | {"show_progress_on": [page.points]}
        for picture in (page.picture, page.other_picture):
            clicked = self._when(picture.select, answers.click, [], [page.x, page.y], **QUIET)
            self._when(clicked.then, answers.mine, place, self.mined, **how)
        for trigger in (page.show_anchors.click, page.x.submit, page.y.submit, page.level.input):
            self._when(trigger, answers.mine, place, self.mined, **how)

    def connect_files(self) -> None:
        page = self.page
        for kind, button in page.take_home.items():
            write = self.answers.file_writer(kind)
            written = self._when(button.click, write, self.look, [page.link], **QUIET)
            written.then(None, page.link, None, js=SAVE)

    def _then_find(self, event: Any, find: Callable) -> None:
        how = MODEL_QUEUE | {"show_progress_on": [self.page.picture]}
        found = self._when(event.then, find, self.look, [], **how)
        drawn = self._when(found.then, self.answers.redraw, self.look, self.shown, **QUIET)
        self._then_count(drawn)

    def _then_count(self, event: Any) -> None:
        self._when(event.then, self.answers.count, self.look, [self.page.facts], **QUIET)

    def _when(
        self,
        trigger: Callable,
        handler: Callable,
        inputs: list,
        outputs: list,
        *,
        cleared: Any = None,
        **how: Any,
    ) -> Any:
        """Let a handler answer an event; it may always change the status.

        `cleared` is a control to be emptied when the answer is an error.
        """
        how = {"api_visibility": "private"} | how
        return trigger(
            self._answered(handler, cleared), inputs, [self.page.status, *outputs], **how
        )

    def _answered(self, handler: Callable[..., Answer], cleared: Any) -> Callable[..., Answer]:
        """The handler, whose errors become a sentence in the status."""

        @wraps(handler)
        def answer(*args: Any) -> Answer:
            try:
                return handler(*args)
            except (ValueError, NonFinitePrediction) as error:
                sentence = str(error)
            except MemoryError:
                sentence = "There is not enough memory for this image."
            except Exception:
                logger.exception("the page could not answer")
                sentence = "That did not work. It is not your fault; the server's log says why."
            emptied = {cleared: None} if cleared is not None else {}
            return {self.page.status: texts.wrong(sentence)} | emptied

        return answer
