"""Serving the page until somebody stops it; what visitors left behind goes with the server."""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import gradio as gr
from starlette.middleware import Middleware

from utils.demo.checks import Limits
from utils.demo.files import write_picture
from utils.demo.guard import OnlyHere
from utils.demo.models import Models
from utils.demo.page import CSS, build_page
from utils.demo.scenes import SCENES, scene
from utils.demo.session import Sessions

THUMBNAIL_PX = 160
LOOPBACK = ("127.0.0.1", "localhost", "::1")
#: Visitors who may wait for their turn.
MAX_WAITING = 64


def theme() -> gr.themes.Base:
    """Gradio's look with fonts that every system has, so that none is fetched."""
    return gr.themes.Default(
        primary_hue="teal",
        secondary_hue="teal",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )


def serve(models: Models, folder: Path, limits: Limits, host: str, port: int | None) -> None:
    """Open the page at `host`, on the first free port from 7860 when none is given, and stay.

    `folder` is where Gradio keeps its files; those of the sessions lie in it. Raises ValueError
    when the address cannot be had.
    """
    sessions = Sessions(folder / "sessions")
    thumbnails = {title: _thumbnail(title, folder / "scenes" / f"{title}.jpg") for title in SCENES}
    blocks = build_page(models, sessions, limits, thumbnails)
    blocks.queue(default_concurrency_limit=8, max_size=MAX_WAITING)
    try:
        _, address, _ = blocks.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            show_error=False,
            share=False,
            run_history=False,
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            footer_links=[],
            max_file_size=limits.max_bytes,
            theme=theme(),
            head=f"<style>{CSS.read_text()}</style>",  # css_paths would rewrite the selectors
            app_kwargs={"middleware": [Middleware(OnlyHere)]},
        )
    except OSError as error:
        raise ValueError(f"{host}:{port or ''}: {error}") from None
    if host not in LOOPBACK:
        print("everybody who can reach this computer can use the page")
    print(f"Open {address} in a browser. Ctrl-C ends the server.", flush=True)
    try:
        threading.Event().wait()
    finally:
        sessions.close_all()
        blocks.close(verbose=False)


def _thumbnail(title: str, path: Path) -> Path:
    picture, _ = scene(title)
    size = (THUMBNAIL_PX, THUMBNAIL_PX)
    return write_picture(cv2.resize(picture.image, size, interpolation=cv2.INTER_AREA), path)
