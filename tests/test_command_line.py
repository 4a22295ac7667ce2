"""Who tells the user of a mistake when many processes meet it."""

from __future__ import annotations

import pytest

from utils.command_line import user_mistakes


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
