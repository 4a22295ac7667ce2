"""What demo.py's page answers when the person does not wait for it."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from tests.demo_runs import save_run
from utils.demo import views
from utils.demo.answers import NO_OTHER, Answers
from utils.demo.checks import Limits
from utils.demo.files import write_picture
from utils.demo.models import Models
from utils.demo.page import Page
from utils.demo.scenes import SCENES, scene
from utils.demo.session import Session, Sessions

PERSON = SimpleNamespace(session_hash="person")
SCENE = "Town"


@pytest.fixture
def answers(tmp_path, monkeypatch):
    """The answers of a page where a scene was taken, with one model."""
    monkeypatch.chdir(tmp_path)
    save_run(tmp_path / "logs_weights" / "first")
    models, limits = Models(), Limits()
    icons = dict.fromkeys(SCENES, tmp_path / "icon.jpg")
    write_picture(scene(SCENE)[0].image, icons[SCENE])
    page = Page(models, limits, icons)
    answers = Answers(page, models, Sessions(tmp_path / "sessions"), limits)
    answers.scene_taker(SCENE)(PERSON)
    return answers


def look(answers: Answers, view: str) -> list:
    return [answers.models.default(), NO_OTHER, view, 0.5, 0.6, None]


def no_bar(*_, **__) -> None:
    """A progress bar that nobody sees."""


def test_a_view_chosen_while_the_model_looks_is_the_one_that_is_shown(answers):
    page = answers.page
    found = answers.find(PERSON, no_bar, *look(answers, views.OVERLAY))
    assert list(found) == [page.status] and "town" in found[page.status]
    shown = answers.redraw(PERSON, *look(answers, views.HEAT))
    assert "probability of road" in shown[page.legend]


def test_a_slow_answer_does_not_stand_over_a_newer_one(answers, monkeypatch):
    page = answers.page
    answers.find(PERSON, no_bar, *look(answers, views.OVERLAY))
    draw, drawing, go_on = Session.draw, threading.Event(), threading.Event()

    def draw_graphs_slowly(self, name, settings, *args):
        if settings.view == views.GRAPH:
            drawing.set()
            assert go_on.wait(60)
        return draw(self, name, settings, *args)

    monkeypatch.setattr(Session, "draw", draw_graphs_slowly)
    old = {}
    slow = threading.Thread(
        target=lambda: old.update(answers.redraw(PERSON, *look(answers, views.GRAPH)))
    )
    slow.start()
    assert drawing.wait(60)
    new = answers.redraw(PERSON, *look(answers, views.HEAT))
    go_on.set()
    slow.join(60)
    assert page.picture in new
    assert list(old) == [page.status]
