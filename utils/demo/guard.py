"""The server speaks with its visitors and with nobody else."""

from __future__ import annotations

import os
import re
from pathlib import Path

#: Gradio asks its makers for news, and hubs for models, unless it is told not to.
SILENCE = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_SHARE": "False",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
#: What a page of this server may load; Gradio's own scripts are in the page, and evaluate others.
POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
#: Routes of Gradio that fetch from elsewhere for whoever asks.
_FETCHING = re.compile(r"/(file=|file/)\w+:|/(proxy=|vibe|deep_link)")


def keep_silent(folder: Path) -> None:
    """Before Gradio is imported: no calls home, and its files in `folder`."""
    os.environ.update(SILENCE, GRADIO_TEMP_DIR=str(folder))


class OnlyHere:
    """ASGI middleware: pages may load from this server alone, and it fetches nothing for them."""

    def __init__(self, app) -> None:
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if _FETCHING.search(scope["path"]):
            await _refuse(send)
            return
        has_begun = False

        async def send_with_policy(message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                policy = (b"content-security-policy", POLICY.encode())
                message = message | {"headers": [*message.get("headers", ()), policy]}
            await send(message)

        try:
            await self.app(scope, receive, send_with_policy)
        except RuntimeError as error:
            # A page that is closed takes its pictures along, also those that it has just asked for.
            if has_begun or not isinstance(error.__context__, FileNotFoundError):
                raise
            await _refuse(send)


async def _refuse(send) -> None:
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": b"not here"})


async def refuse_links(path: str | Path | None) -> str | None:
    """In place of a component's own way to take a file, which would download a link."""
    if path is not None and not Path(path).is_absolute():
        raise ValueError("only files that were uploaded here are taken")
    return None if path is None else str(path)
