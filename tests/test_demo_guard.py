"""What the demo's server answers where an answer is not to be had."""

from __future__ import annotations

import pytest
from starlette.responses import FileResponse
from starlette.testclient import TestClient

from utils.demo.guard import POLICY, OnlyHere


@pytest.fixture
def client(tmp_path):
    (tmp_path / "view.jpg").write_bytes(b"picture")

    async def app(scope, receive, send) -> None:
        if scope["path"] == "/broken":
            raise RuntimeError("a mistake of ours")
        await FileResponse(tmp_path / scope["path"][1:])(scope, receive, send)

    return TestClient(OnlyHere(app))


def test_a_picture_whose_page_was_closed_is_not_there(client):
    found = client.get("/view.jpg")
    assert (found.status_code, found.content) == (200, b"picture")
    assert found.headers["content-security-policy"] == POLICY
    assert client.get("/view_4.jpg").status_code == 404


def test_other_errors_come_through(client):
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        client.get("/broken")


def test_nothing_is_fetched_from_elsewhere(client):
    assert client.get("/file=http://192.0.2.1/view.jpg").status_code == 404
