"""The comparison's processes: what they say, how they fail, and that they end when it does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from utils.comparison import launch
from utils.comparison.launch import Interrupted, Launcher, ScriptFailed, only_one

SAVES = """
import signal, sys, time
def save(*_):
    open("saved", "w").close()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
open("started", "w").close()
time.sleep(60)
"""


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert path.exists()


@pytest.fixture
def launcher(tmp_path):
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with only_one(tmp_path) as lock:
        yield Launcher(tmp_path, ranks=1, lock=lock)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_output_is_shown_and_logged_and_the_last_line_is_the_reason(launcher, tmp_path, capsys):
    script = tmp_path / "script.py"
    script.write_text("import sys; print('one'); print('why', file=sys.stderr); sys.exit(3)")
    with pytest.raises(ScriptFailed, match=r"script\.py: why"):
        launcher.run(str(script), [], "task")
    assert (tmp_path / "logs" / "task.log").read_text() == "one\nwhy\n"
    assert "one" in capsys.readouterr().err
    script.write_text("open('here', 'w')")
    launcher.run(str(script), [], "task")
    assert (tmp_path / "here").exists()


def test_a_signal_reaches_the_script_which_saves_before_both_end(launcher, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SAVES)

    def interrupt():
        wait_for(tmp_path / "started")
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(Interrupted) as stop:
        launcher.run(str(script), [], "task")
    thread.join()
    assert stop.value.exit_status == 143
    assert (tmp_path / "saved").exists()
    with pytest.raises(Interrupted):
        launcher.run(str(script), [], "next")  # nothing more is begun


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells children on Linux alone")
def test_a_killed_comparison_takes_its_script_along_which_is_waited_for(tmp_path, monkeypatch):
    (tmp_path / "script.py").write_text(
        SAVES.replace('open("saved"', 'time.sleep(1); open("saved"')
    )
    parent = (
        "from pathlib import Path; from utils.comparison.launch import Launcher, only_one\n"
        f"with only_one(Path({str(tmp_path)!r})) as lock:\n"
        f"    launcher = Launcher(Path({str(tmp_path)!r}), ranks=1, lock=lock)\n"
        f"    launcher.run({str(tmp_path / 'script.py')!r}, [], 'task')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=ROOT)
    wait_for(tmp_path / "started")
    process.kill()
    process.wait()
    assert not (tmp_path / "saved").exists()
    with only_one(tmp_path):
        assert (tmp_path / "saved").exists()
    monkeypatch.setattr(launch, "ORPHAN_S", 0)
    with only_one(tmp_path):
        again = only_one(tmp_path)
        with pytest.raises(ValueError, match="another comparison"):
            again.__enter__()


def test_torchrun_ranks_start_each_script_over_as_many(monkeypatch, tmp_path):
    for key, value in {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(key, value)
    assert launch.leave_torchrun() == 4
    assert "RANK" not in os.environ and launch.leave_torchrun() == 1
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    command = Launcher(tmp_path, ranks=4, lock=0)._python()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert command[1:3] == ["-m", "torch.distributed.run"] and command[-1] == "4"
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="one machine"):
        launch.leave_torchrun()
