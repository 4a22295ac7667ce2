"""pretrain_weight/download.bash against a server of our own on 127.0.0.1."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from model.weights import known_weights
from tests.conftest import ROOT

FILE = "sam2.1_hiera_tiny.pt"
CONTENT = bytes(range(256)) * 400
TOOLS = ("curl", "wget")


class Server(ThreadingHTTPServer):
    """Serves `files` by name, with ranges unless told otherwise, and keeps what was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.break_after: list[int] = []  # bytes after which the next answers break off
        self.stall = False  # send half of the next answer and wait
        self.stalled = threading.Event()
        self.refuse_with: list[int] = []  # statuses that the next answers have instead
        self.asked: list[tuple[str, str | None]] = []


class Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = 20

    def do_GET(self) -> None:
        name, span = self.path.strip("/"), self.headers["Range"]
        self.server.asked.append((name, span))
        if self.server.refuse_with:
            self.send_error(self.server.refuse_with.pop(0))
            return
        content = self.server.files.get(name)
        if content is None:
            self.send_error(404)
            return
        start = int(span.removeprefix("bytes=").rstrip("-")) if span and self.server.ranges else 0
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if self.server.break_after:
            body = body[: self.server.break_after.pop(0)]
        if self.server.stall:
            self.wfile.write(body[: len(body) // 2])
            self.server.stall = False
            self.server.stalled.set()
            self.connection.recv(1)  # returns when the client is gone
            return
        self.wfile.write(body)

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        server.files[FILE] = CONTENT
        yield server
        server.shutdown()


@pytest.fixture
def script(tmp_path) -> Path:
    """The script with a table in which FILE has the hash of CONTENT."""
    table = (ROOT / "pretrain_weight" / "SHA256SUMS").read_text()
    published = next(w.sha256 for w in known_weights() if w.file == FILE)
    home = tmp_path / "with a space"
    home.mkdir()
    (home / "SHA256SUMS").write_text(
        table.replace(published, hashlib.sha256(CONTENT).hexdigest()), encoding="utf-8"
    )
    shutil.copy(ROOT / "pretrain_weight" / "download.bash", home)
    return home / "download.bash"


@pytest.fixture(params=TOOLS)
def tool(request, tmp_path) -> dict[str, str]:
    """An environment whose PATH has one of curl and wget."""
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    programs = tmp_path / "bin"
    programs.mkdir()
    needed = "bash awk sha256sum mkdir mv rm tr cut dirname sleep"
    for program in [*needed.split(), request.param]:
        (programs / program).symlink_to(shutil.which(program))
    return {"PATH": str(programs)}


def download(script: Path, server: Server, env: dict[str, str], *names: str):
    url = f"http://127.0.0.1:{server.server_port}"
    env = {"ANCHOR_SAM_URL_SAM2": url, "ANCHOR_SAM_URL_RESNET": url, "no_proxy": "*"} | env
    command = ["bash", str(script), *names]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def errors(done: subprocess.CompletedProcess) -> list[str]:
    return done.stderr.splitlines()


def test_fetches_verifies_and_does_nothing_the_second_time(script, server, tool):
    for name in (FILE, FILE.removesuffix(".pt")):
        done = download(script, server, tool, name)
        assert done.returncode == 0, done.stderr
        assert (script.parent / FILE).read_bytes() == CONTENT
    assert "there already, verified" in done.stdout
    assert len(server.asked) == 1
    assert not list(script.parent.glob("*.part"))


def test_continues_a_partial_file(script, server, tool):
    (script.parent / f"{FILE}.part").write_bytes(CONTENT[:1000])
    done = download(script, server, tool, FILE)
    assert done.returncode == 0, done.stderr
    assert (script.parent / FILE).read_bytes() == CONTENT
    assert server.asked == [(FILE, "bytes=1000-")]


def test_a_broken_connection_is_continued(script, server, tool):
    server.break_after = [5000, 7000]
    done = download(script, server, tool, FILE)
    assert done.returncode == 0, done.stderr
    assert (script.parent / FILE).read_bytes() == CONTENT
    assert [span for _, span in server.asked] == [None, "bytes=5000-", "bytes=12000-"]


def test_a_connection_that_keeps_breaking_leaves_the_part(script, server, tool):
    server.break_after = [100] * 20
    done = download(script, server, tool, FILE)
    assert done.returncode == 1
    assert "broke off" in errors(done)[-1]
    assert not (script.parent / FILE).exists()
    assert CONTENT.startswith((script.parent / f"{FILE}.part").read_bytes())


def test_ctrl_c_keeps_the_part(script, server, tool):
    server.stall = True
    url = {"ANCHOR_SAM_URL_SAM2": f"http://127.0.0.1:{server.server_port}"}
    process = subprocess.Popen(
        ["bash", str(script), FILE],
        env=tool | url,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    part = script.parent / f"{FILE}.part"
    assert server.stalled.wait(30)
    while not part.exists() or part.stat().st_size < len(CONTENT) // 4:
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    _, message = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted, run it again" in message
    assert download(script, server, tool, FILE).returncode == 0
    assert (script.parent / FILE).read_bytes() == CONTENT
    assert server.asked[-1][1] is not None


@pytest.mark.parametrize("part", [b"x" * 1000, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 9)])
def test_a_part_of_something_else_is_thrown_away(script, server, tool, part):
    (script.parent / f"{FILE}.part").write_bytes(part)
    done = download(script, server, tool, FILE)
    assert done.returncode == 0, done.stderr
    assert (script.parent / FILE).read_bytes() == CONTENT


def test_a_server_without_ranges_sends_the_file_anew(script, server, tool):
    server.ranges = False
    (script.parent / f"{FILE}.part").write_bytes(CONTENT[:1000])
    done = download(script, server, tool, FILE)
    assert done.returncode == 0, done.stderr
    assert (script.parent / FILE).read_bytes() == CONTENT


def test_a_corrupted_file_is_refused(script, server, tool):
    server.files[FILE] = b"y" + CONTENT[1:]
    done = download(script, server, tool, FILE)
    assert done.returncode == 1
    assert "is not the published file" in errors(done)[-1]
    assert not list(script.parent.glob("sam*"))
    assert len(server.asked) == 1


def test_a_damaged_file_on_disk_is_reported_and_kept(script, server, tool):
    (script.parent / FILE).write_bytes(CONTENT[:-1])
    done = download(script, server, tool, FILE)
    assert done.returncode == 1
    assert "is damaged" in errors(done)[-1]
    assert "delete it" in errors(done)[-1]
    assert (script.parent / FILE).stat().st_size == len(CONTENT) - 1


def test_a_missing_file_does_not_stop_the_others(script, server, tool):
    done = download(script, server, tool, "resnet34", FILE)
    assert done.returncode == 1
    lines = [line for line in errors(done) if line.startswith("download: ")]
    assert len(lines) == 1
    assert lines[0].startswith("download: resnet34-b627a593.pth not fetched: the server answers 4")
    assert (script.parent / FILE).read_bytes() == CONTENT


@pytest.mark.parametrize("status", [408, 429, 503])
def test_a_busy_server_is_asked_again(script, server, tool, status):
    sleep = Path(tool["PATH"]) / "sleep"
    sleep.unlink()
    sleep.write_text('#!/bin/sh\necho "waited $1"\n')
    sleep.chmod(0o755)
    (script.parent / f"{FILE}.part").write_bytes(CONTENT[:1000])
    server.refuse_with = [status, status]
    done = download(script, server, tool, FILE)
    assert done.returncode == 0, done.stderr
    assert (script.parent / FILE).read_bytes() == CONTENT
    assert server.asked == [(FILE, "bytes=1000-")] * 3
    assert done.stdout.count("waited 10\n") == 2
    (script.parent / FILE).unlink()
    server.refuse_with = [status] * 4
    done = download(script, server, tool, FILE)
    assert done.returncode == 1
    assert f"not fetched: the server answers {status} for " in errors(done)[-1]


@pytest.mark.parametrize("status", [403, 410])
def test_a_refusal_is_final(script, server, tool, status):
    server.refuse_with = [status]
    done = download(script, server, tool, FILE)
    assert done.returncode == 1
    assert f"not fetched: the server answers {status} for " in errors(done)[-1]
    assert len(server.asked) == 1


def test_no_connection(script, server, tool):
    closed = {"ANCHOR_SAM_URL_SAM2": "http://127.0.0.1:9"}
    done = download(script, server, tool | closed, FILE)
    assert done.returncode == 1
    assert errors(done)[-1].endswith(f"no connection to http://127.0.0.1:9/{FILE}, or it broke off")


def test_writes_to_the_folder_of_the_environment(script, server, tool, tmp_path):
    folder = tmp_path / "else where" / "weights"
    done = download(script, server, tool | {"ANCHOR_SAM_WEIGHTS": str(folder)}, FILE)
    assert done.returncode == 0, done.stderr
    assert (folder / FILE).read_bytes() == CONTENT


def test_groups_choose_their_files(script, server, tool):
    for group in ("sam2", "resnet"):
        server.asked.clear()
        download(script, server, tool, group)
        expected = [w.file for w in known_weights() if w.group == group]
        assert list(dict.fromkeys(name for name, _ in server.asked)) == expected


def test_list_agrees_with_the_loader(script):
    done = subprocess.run(
        ["bash", str(script), "--list"], capture_output=True, text=True, timeout=60, check=True
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows == [[w.file, w.group, w.licence, "absent"] for w in known_weights()]


@pytest.mark.parametrize("argument", ["sam2.1_hiera_huge.pt", "--lits", "resnet3"])
def test_an_unknown_name_ends_before_any_work(script, argument):
    command = ["bash", str(script), FILE, argument]
    env = {"PATH": os.environ["PATH"], "ANCHOR_SAM_URL_SAM2": "http://127.0.0.1:9"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert f"unknown {'option' if argument.startswith('-') else 'file'} {argument}" in done.stderr
    assert not list(script.parent.glob("sam*"))
