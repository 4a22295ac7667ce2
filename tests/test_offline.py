"""No script touches the network unless asked: the quick start in a world without sockets."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT

BLOCK = """
import runpy, socket, sys
def refuse(*args, **kwargs):
    with open("touched.txt", "a") as log:
        log.write(repr(args[1:]) + "\\n")
    raise OSError("no network here")
for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse)
socket.getaddrinfo = socket.create_connection = refuse
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_blocked(cwd, script: str, *args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", BLOCK, str(ROOT / script), *args],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_training_and_inference_open_no_socket(tmp_path, tiny_roads):
    settings = (
        "-c",
        str(ROOT / "config" / "quickstart.yaml"),
        f"root_dir={tiny_roads}",
        "dataset_name=tiny",
        "image_size=64",
        "epochs=1",
        "comet_ml.enable=true",
    )
    run_blocked(tmp_path, "train.py", *settings)
    archives = list((tmp_path / "comet_logs").glob("*.zip"))
    assert len(archives) == 1
    text = run_blocked(tmp_path, "inference.py", *settings)
    assert "test" in text
    assert (tmp_path / "results" / "quickstart" / "overview.png").is_file()
    assert not (tmp_path / "touched.txt").exists()
