"""The Inspector's web page against our daemon, driven in a Chromium: it lists tools, calls one, reads a resource and
gets a prompt. Needs `pip install 'speciate[browser]'` and a Chromium; `run.py` calls it where both are there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE_MS = 60_000


def is_possible() -> bool:
    return CHROMIUM is not None and find_spec("playwright") is not None


def drive(inspector: Path, serve: Sequence[str], era: str, environment: Mapping[str, str]) -> str:
    """What was seen. Raises AssertionError, or playwright's TimeoutError, for what was not."""
    from playwright.sync_api import expect, sync_playwright

    with _running(inspector, serve, era, environment) as url, sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1500, "height": 1300})
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        page.goto(url)
        page.get_by_label(re.compile("Connect or disconnect")).click(force=True)
        page.get_by_text(re.compile(r"^Connected \(")).first.wait_for()
        page.get_by_text("Tools", exact=True).first.click()
        heading = page.get_by_text(re.compile(r"^Tools \(\d+\)$")).first.inner_text()
        page.get_by_text("list_jobs", exact=True).first.click()
        page.get_by_role("button", name="Execute").first.click()
        _wait_for(page, '"jobs"')
        page.get_by_text("Resources", exact=True).first.click()
        page.get_by_text("status", exact=True).first.click()
        _wait_for(page, '"models_deployed_30d"')
        page.get_by_text("Prompts", exact=True).first.click()
        page.get_by_text("Make a dataset that can be trusted", exact=True).first.click()
        page.get_by_placeholder("Enter data...").fill("letters.csv")
        page.get_by_role("button", name="Get Prompt").click()
        _wait_for(page, "create_dataset")
        browser.close()
    return f"{heading}, list_jobs called, status read, a prompt shown"


def _wait_for(page: Any, words: str) -> None:
    page.wait_for_function("words => document.body.innerText.includes(words)", arg=words)


@contextmanager
def _running(inspector: Path, serve: Sequence[str], era: str, environment: Mapping[str, str]) -> Iterator[str]:
    """The address of the page, with its token. Its home is a folder of its own: it keeps a catalog there."""
    with tempfile.TemporaryDirectory() as home:
        more = {
            "HOME": home,
            "MCP_INSPECTOR_SECRET_STORE": "memory",
            "BROWSER": "none",
            "MCP_AUTO_OPEN_ENABLED": "false",
        }
        command = ["node", str(inspector), "--web", "--transport", "stdio", "--protocol-era", era, "--", *serve]
        process = subprocess.Popen(
            command, env={**environment, **more}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            found = next((each for line in process.stdout if (each := re.search(r"http://\S+TOKEN=\w+", line))), None)
            assert found is not None, "the Inspector printed no address"
            yield found[0]
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
