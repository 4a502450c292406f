"""MCP Apps: what a host may show beside a result, tried in a host of few lines in Chromium."""

from __future__ import annotations

import base64
import functools
import io
import json
import re
import shutil
from typing import Any

import anyio
import pytest
from mcp.server.apps import APP_MIME_TYPE
from PIL import Image

from speciate.server.mcp.app import VIEW, VIEWS, Server, offered_tools
from speciate.workspace.workspace import Workspace
from tests.server.apps import make_app
from tests.server.mcp.test_library import HELLO, READY, frames, talk

NASTY = "<img src=x onerror=alert(1)>\"'&"
_HOST = """
const frame = document.querySelector("iframe"), heard = window.heard = [];
addEventListener("message", ({ source, data }) => {
  if (source !== frame.contentWindow) return;
  heard.push(data.method);
  const answer = (result) => frame.contentWindow.postMessage({ jsonrpc: "2.0", id: data.id, result }, "*");
  if (data.method === "ui/initialize") answer({ protocolVersion: "2026-01-26", hostContext: { theme: "THEME" } });
  if (data.method === "ui/notifications/initialized")
    frame.contentWindow.postMessage({ jsonrpc: "2.0", method: "ui/notifications/tool-result", params: RESULT }, "*");
});
frame.srcdoc = PAGE;
"""
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
"""The specification's, where a view names no domain."""


def test_tools_name_views_that_are_there_and_reach_nothing(workspace: Workspace) -> None:
    named = {tool.name: (tool.meta or {}).get("ui", {}).get("resourceUri") for tool in offered_tools()}
    assert {name: uri for name, uri in named.items() if uri} == VIEWS
    server = Server(make_app(workspace)).mcp
    asked = [{"jsonrpc": "2.0", "id": 2, "method": "resources/list"}]
    asked += [{"jsonrpc": "2.0", "id": 3 + place, "method": "resources/read", "params": {"uri": uri}}
              for place, uri in enumerate(VIEWS.values())]  # fmt: skip
    answers = {each["id"]: each["result"] for each in anyio.run(talk, server, [frames(HELLO, READY, *asked)])}
    assert set(VIEWS.values()) <= {each["uri"] for each in answers[2]["resources"]}
    for number in range(3, 3 + len(VIEWS)):
        [page] = answers[number]["contents"]
        assert page["mimeType"] == APP_MIME_TYPE
        assert not re.search(r"innerHTML|outerHTML|insertAdj|document\.write|\beval\(|fetch\(|src=\"http", page["text"])


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_host_shows_each_view_with_names_as_text(theme: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="the extra `browser` is not installed")
    chromium = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)
    if chromium is None:
        pytest.skip("no Chromium is installed here (on Debian: apt install chromium)")
    row = {"model": NASTY, "value": 0.9, "interval": [0.8, 0.95], "p95_ms": 3.2}
    told = {"metric": "accuracy", "better": "higher", "n": 9, "dataset": "d@v1:test", "candidate": NASTY,
            "leaderboard": [row, {"model": "plain", "value": 0.5}],
            "decision": {"verdict": "promote", "reasons": [NASTY]}}  # fmt: skip
    sheet = {"columns": ["id", NASTY], "untrusted": {"rows": [["a", NASTY], ["b", None]]}}
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            shown = _shown(browser, theme, {"structuredContent": told, "content": []})
            assert shown.count(NASTY) == 2
            assert "promote" in shown
            assert "0.9" in shown
            shown = _shown(browser, theme, {"structuredContent": sheet, "content": [_image()]})
            assert shown.count(NASTY) == 2
            curves = {"columns": ["step", "loss", NASTY], "rows": [[0, 2.5, 1], [1, 1.25, None], [2, 0.5, 3]]}
            run = {
                "kind": "train", "job": "job-1", "state": "running", "learning": curves,
                "progress": {"done": 3, "total": 9, "unit": NASTY},
                "children": [{"kind": "evaluate", "job": NASTY, "state": "queued"}],
            }  # fmt: skip
            shown = _shown(browser, theme, {"structuredContent": run, "content": []})
            assert shown.count(NASTY) == 3
            for said in ("train job-1: running", "3 of 9", "loss", "2.5", "0.5"):
                assert said in shown
            moved = {"job": "job-2", "state": "needs_approval", "reasons": [NASTY], "from": "m@v1", "to": "m@v2",
                     "approval": {"id": "approval-1", "expires": 1e9, "how": "speciate approve"}}  # fmt: skip
            shown = _shown(browser, theme, {"structuredContent": moved, "content": []})
            assert shown.count(NASTY) == 1
            for said in ("A person decides", "m@v1 → m@v2", "approval-1"):
                assert said in shown
            assert "Nothing to show" in _shown(browser, theme, {"content": []})
        finally:
            browser.close()


def _image() -> dict[str, str]:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return {"type": "image", "mimeType": "image/png", "data": base64.b64encode(file.getvalue()).decode()}


def _shown(browser: Any, theme: str, result: dict[str, Any]) -> str:
    """What is read in the frame, once it has shown a result."""
    guarded = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    text = VIEW.read_text().replace("<head>", f"<head>{guarded}")
    given = {"THEME": theme, "RESULT": json.dumps(result), "PAGE": json.dumps(text).replace("</", "<\\/")}
    script = functools.reduce(lambda made, name: made.replace(name, given[name]), given, _HOST)
    page, problems = browser.new_page(), list[str]()
    page.on("console", lambda said: problems.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: problems.append(f"a name was run: {dialog.message}"))
    page.set_content(f'<iframe sandbox="allow-scripts"></iframe><script>{script}</script>')
    frame = page.frames[1]
    frame.wait_for_selector("#view > :not(p:first-child:last-child), #view p:has-text('Nothing')", timeout=10_000)
    words = str(frame.inner_text("#view"))
    assert frame.evaluate("document.documentElement.dataset.theme") == theme
    assert all(frame.eval_on_selector_all("img", "(all) => all.map((each) => each.complete && each.naturalWidth > 0)"))
    assert "ui/notifications/size-changed" in page.evaluate("window.heard")
    assert problems == []
    page.close()
    return words
