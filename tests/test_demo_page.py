"""A visit to the page of demo.py, in a real browser, and what a server must survive.

Pictures of the page go to the folder that DEMO_SCREENSHOTS names, when it does.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file

from tests.bad_uploads import write_bad_uploads
from tests.conftest import ROOT
from tests.demo_runs import save_run
from utils.synthetic.scene import draw_scene

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
#: What is no upload, in place of one.
FORGED = ("http://192.0.2.1/private", "/etc/passwd", "../../etc/passwd")
#: Runs a script, and notes whom it tries to reach besides this computer.
WATCHED = """
import runpy, sys
def watch(event, args):
    if event == "socket.connect" and isinstance(args[1], tuple):
        host = args[1][0]
    elif event == "socket.getaddrinfo":
        host = args[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host not in (None, "", "localhost", "::1") and not host.startswith("127."):
        with open("reached.txt", "a") as log:
            log.write(f"{event} {host}\\n")
sys.addaudithook(watch)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
PATIENCE_MS = 120_000  # a busy machine


@contextmanager
def served(folder: Path):
    """demo.py as a person starts it, in this folder: its address, and its process."""
    log = folder / "server.log"
    with open(log, "w") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", WATCHED, str(ROOT / "demo.py"), "--max-mb", "2"],
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "TMPDIR": str(folder),
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": str(ROOT),
            },
        )
        try:
            deadline = time.monotonic() + PATIENCE_MS / 1000
            while "http://" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.2)
            yield re.search(r"http://\S+", log.read_text())[0], process, log
        finally:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_visit(tmp_path):
    """No run yet, then two; a scene, an upload, every control; and nothing is left at the end."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    sent = draw_scene(3, 0, 128)
    cv2.imwrite(str(tmp_path / "my photo.png"), sent.image[..., ::-1])
    cv2.imwrite(str(tmp_path / "truth.png"), sent.label)
    (tmp_path / "notes.txt").write_text("no image")
    with served(tmp_path) as (address, process, log):
        survive_bad_uploads(address, tmp_path)
        visit(address, tmp_path)
        temporary = list(tmp_path.glob("anchor-sam-demo-*"))
        assert len(temporary) == 1
        wait_for(lambda: not any((temporary[0] / "sessions").iterdir()))  # the page was closed
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
    # Gradio's own word on the forged requests is all; nothing of ours went wrong unforeseen.
    assert log.read_text().count("Traceback") <= len(FORGED)
    assert "the page could not answer" not in log.read_text()
    assert not temporary[0].exists()
    assert not (tmp_path / "reached.txt").exists(), (tmp_path / "reached.txt").read_text()


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def survive_bad_uploads(address: str, folder: Path) -> None:
    """Thirty bad files, and paths and links in place of files; each is answered."""
    bad = folder / "bad"
    bad.mkdir()
    client = Client(address, verbose=False, analytics_enabled=False)
    for path in write_bad_uploads(bad):
        status = client.predict(handle_file(str(path)), api_name="/load_image")[0]
        assert 'class="wrong"' in status and "<b>" not in status, (path.name, status)
        assert str(folder) not in status
    client.close()

    api = f"{address}gradio_api/"
    sent = httpx.post(f"{api}upload", files={"files": ("../../../evil.png", b"x")}).json()
    assert Path(sent[0]).is_relative_to(next(folder.glob("anchor-sam-demo-*")))
    large = httpx.post(f"{api}upload", files={"files": ("large.png", bytes(2_100_000))})
    assert large.status_code == 413
    for forbidden in ("/etc/passwd", str(folder / "notes.txt"), f"{sent[0]}/../../../notes.txt"):
        assert httpx.get(f"{api}file={forbidden}").status_code in (403, 404)
    assert httpx.get(f"{api}file={FORGED[0]}").text == "not here"
    for path in FORGED:
        data = [{"path": path, "meta": {"_type": "gradio.FileData"}}]
        event = httpx.post(f"{api}call/load_image", json={"data": data}).json()["event_id"]
        assert "event: error" in httpx.get(f"{api}call/load_image/{event}", timeout=60).text


class Visitor:
    """A person with a browser; `page` is Playwright's."""

    def __init__(self, page, address: str) -> None:
        self.page, self.requests, self.complaints = page, [], []
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(address)
        page.get_by_role("button", name="Town").wait_for()

    def says(self, text: str) -> None:
        self.page.locator("#status", has_text=text).wait_for()

    def picture(self, elem_id: str = "picture") -> str:
        return self.page.locator(f"#{elem_id} img").get_attribute("src")

    def changes_picture(self, act) -> None:
        before = self.picture()
        act()
        self.page.wait_for_function(
            "before => document.querySelector('#picture img')?.src &&"
            " !document.querySelector('#picture img').src.endsWith(before)",
            arg=before[-40:],
        )

    def chooses(self, label: str, option: str) -> None:
        self.page.get_by_label(label, exact=True).click()
        self.page.get_by_role("option", name=option, exact=True).click()

    def fact(self, title: str, column: int = 0) -> str:
        row = self.page.locator("#facts tr", has_text=title)
        return row.locator("td").nth(column).inner_text()

    def saves(self, kind: str, folder: Path) -> Path:
        with self.page.expect_download() as download:
            self.page.locator(f"#take_{kind}").click()
        path = folder / download.value.suggested_filename
        download.value.save_as(path)
        return path

    def shoots(self, name: str) -> None:
        folder = os.environ.get("DEMO_SCREENSHOTS")
        if folder:
            self.page.wait_for_timeout(800)
            self.page.screenshot(path=f"{folder}/{name}.png", full_page=True)

    def fits(self) -> bool:
        """Whether nothing sticks out of the window's side."""
        return self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def visit(address: str, folder: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        wide = {"width": 1280, "height": 900}
        desk = Visitor(browser.new_page(viewport=wide, color_scheme="light"), address)
        desk.page.get_by_text("There is no trained model").wait_for()
        save_run(folder / "logs_weights" / "first", threshold=0.52)
        save_run(folder / "logs_weights" / "second", seed=1, dataset="city")
        os.utime(folder / "logs_weights" / "second" / "best_f1score.pth", (1, 1))
        desk.page.reload()
        desk.page.get_by_text("synthetic scenes only").wait_for()
        upload_and_look(desk, folder)
        click_anchors(desk)
        compare(desk, folder)
        size = {"width": 390, "height": 844}
        phone = Visitor(browser.new_page(viewport=size, color_scheme="dark"), address)
        visit_by_keyboard(phone)
        for visitor in (desk, phone):
            hosts = {url.split("/")[2] for url in visitor.requests if url.startswith("http")}
            assert hosts == {address.split("/")[2]} and not visitor.complaints
        browser.close()


def upload_and_look(desk: Visitor, folder: Path) -> None:
    page = desk.page
    page.set_input_files("#upload input[type=file]", folder / "notes.txt")
    desk.says("notes.txt: is no JPEG, PNG or TIFF file")
    page.set_input_files("#upload input[type=file]", folder / "my photo.png")
    page.locator("#facts table").wait_for()
    desk.says("my photo, 128 x 128 px")
    assert desk.fact("Road length").endswith("px (unknown scale)")
    assert page.get_by_label("range slider for Threshold").input_value() == "0.52"
    share = desk.fact("Road share")
    slider = page.get_by_label("range slider for Threshold")
    desk.changes_picture(lambda: slider.fill("0.3"))
    page.locator("#facts").filter(has_not_text=share).wait_for()
    desk.changes_picture(lambda: page.get_by_label("range slider for Opacity").fill("0.9"))
    page.get_by_role("button", name="Scale and true roads").click()
    page.get_by_label("Pixel size in metres").fill("0.5")
    page.locator("#facts", has_text=" km").wait_for()
    page.set_input_files("#truth input[type=file]", folder / "truth.png")
    page.locator("#facts", has_text="IoU").wait_for()
    for view in ("Probability", "Road graph", "Errors"):
        desk.changes_picture(lambda view=view: page.get_by_label(view, exact=True).check())
        desk.shoots(f"desktop {view}")
    page.get_by_label("Before / after", exact=True).check()
    page.locator(".before_after input").fill("20")
    style = page.locator(".before_after").get_attribute("style")
    assert "--cut: 20%" in style
    width = "img => img.decode().then(() => img.naturalWidth)"  # it may still be on its way
    assert page.locator(".before_after img").nth(1).evaluate(width) == 512
    desk.shoots("desktop before and after")


def click_anchors(desk: Visitor) -> None:
    page = desk.page
    page.get_by_label("Roads", exact=True).check()
    page.wait_for_function("document.querySelector('#picture img')?.naturalWidth > 0")
    box = page.locator("#picture img").bounding_box()
    place = {"x": box["width"] * 0.25, "y": box["height"] * 0.75}
    page.locator("#picture img").click(position=place)
    page.locator("#anchor_facts table").wait_for()
    assert abs(int(page.get_by_label("x (px)").input_value()) - 32) <= 1
    assert abs(int(page.get_by_label("y (px)").input_value()) - 96) <= 1
    assert page.locator("#anchor_facts tr").count() == 1 + 4
    page.locator("#points img").wait_for()
    fine = desk.picture("points")
    page.get_by_label("32 px", exact=True).check()
    page.wait_for_function(f"!document.querySelector('#points img').src.endsWith('{fine[-40:]}')")
    page.get_by_label("x (px)").fill("500")
    page.get_by_role("button", name="Show").click()
    desk.says("outside the image of 128 x 128 px")
    desk.shoots("desktop anchors")


def compare(desk: Visitor, folder: Path) -> None:
    desk.chooses("Compare with", "second")
    desk.page.locator("#facts th", has_text="second").wait_for()
    desk.page.locator("#other_picture img").wait_for()
    assert desk.fact("Road share", 0) != desk.fact("Road share", 1)
    desk.shoots("desktop compare")
    threshold = float(desk.page.get_by_label("range slider for Threshold").input_value())
    mask = cv2.imread(str(desk.saves("mask", folder)), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (128, 128) and set(np.unique(mask)) <= {0, 255} and threshold < 1
    assert f"{100 * (mask > 0).mean():.1f} %" == desk.fact("Road share", 0)
    roads = json.loads(desk.saves("geojson", folder).read_text())
    assert roads["type"] == "FeatureCollection"
    assert desk.saves("gpkg", folder).read_bytes().startswith(b"SQLite format 3")
    assert cv2.imread(str(desk.saves("view", folder))).shape == (512, 512, 3)


def visit_by_keyboard(phone: Visitor) -> None:
    """Everything on a phone's width, without a pointer."""
    page = phone.page
    page.get_by_role("button", name="Country").focus()
    page.keyboard.press("Enter")
    page.locator("#facts table").wait_for()
    page.get_by_label("Roads", exact=True).focus()
    phone.changes_picture(lambda: page.keyboard.press("ArrowLeft"))  # round to Errors
    assert page.get_by_label("Errors", exact=True).is_checked()
    slider = page.get_by_label("range slider for Threshold")
    slider.focus()
    before = float(slider.input_value())
    phone.changes_picture(lambda: page.keyboard.press("ArrowRight"))
    assert float(slider.input_value()) == pytest.approx(before + 0.01)
    page.get_by_label("x (px)").fill("200")
    page.get_by_label("y (px)").press("Enter")
    page.locator("#anchor_facts table").wait_for()
    assert phone.fits()
    phone.shoots("phone")
