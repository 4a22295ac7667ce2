"""Who tells the user of a mistake when many processes meet it."""

from __future__ import annotations

import logging

import pytest

from utils.command_line import set_up_logging, user_mistakes


@pytest.mark.parametrize(
    ("rank", "local_rank", "said"),
    [
        (None, None, "a.pth: no such file\n"),
        ("0", "0", "a.pth: no such file\n"),
        ("3", "3", ""),
        ("8", "0", "rank 8: a.pth: no such file\n"),  # the first of the second machine
        ("11", "3", ""),
    ],
)
def test_every_machine_tells_of_a_mistake_once(monkeypatch, capsys, rank, local_rank, said):
    for name, value in (("RANK", rank), ("LOCAL_RANK", local_rank)):
        monkeypatch.delenv(name, raising=False)
        if value:
            monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended, user_mistakes():
        raise ValueError("a.pth: no such file")
    assert ended.value.code == 2 and capsys.readouterr().err == said


@pytest.fixture
def levels():
    """Puts the loggers' levels back after the test."""
    loggers = [logging.getLogger(name) for name in ("", "utils.scenes", "model.ops")]
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


@pytest.mark.parametrize(
    ("rank", "local_rank", "said"),
    [
        ("0", "0", ["train", "model", "model.ops.sampling", "utils.scenes.run"]),
        ("3", "3", ["utils.scenes.run"]),  # whose inputs no other rank looks at
        ("8", "0", ["model.ops.sampling", "utils.scenes.run"]),  # the second machine's compiler
    ],
)
def test_what_all_ranks_know_is_said_once(monkeypatch, levels, rank, local_rank, said):
    names = ["train", "model", "model.ops.sampling", "utils.scenes.run"]
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    set_up_logging()
    for level, expected in ((logging.WARNING, said), (logging.ERROR, names)):
        assert [n for n in names if logging.getLogger(n).isEnabledFor(level)] == expected
