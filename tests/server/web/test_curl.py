"""What docs/pages.md says to a script, by curl itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.server.web.conftest import Served
from tests.server.web.team import HOST, ORIGIN, issue, serve

PAGE = Path(__file__).parents[3] / "docs" / "pages.md"
pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")


def lines_of_docs() -> list[str]:
    """Those that sign in."""
    section = PAGE.read_text().partition("## From a script")[2].partition("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("curl")]


def bash(command: str, folder: Path, **variables: str) -> str:
    ran = subprocess.run(
        ["bash", "-c", command], cwd=folder, env={"PATH": os.environ["PATH"], **variables}, text=True, timeout=60,
        capture_output=True, check=True,
    )  # fmt: skip
    return ran.stdout


def test_a_link_of_this_machine(served: Served, tmp_path: Path) -> None:
    line, *_ = lines_of_docs()
    shown = bash(line, tmp_path, link=served.link())
    assert "<h1>Runs</h1>" in shown


def test_a_token_of_a_team(served: Served, tmp_path: Path) -> None:
    """What the proxy adds is added here, and TLS left out: so the cookie, which is for HTTPS alone, is passed on."""
    port = serve(served)
    _, sign_in, look = lines_of_docs()
    proxied = f"-H 'Host: {HOST}' -H 'X-Forwarded-Proto: https'"
    sign_in, look = (
        re.sub(rf" {ORIGIN}/", f" {proxied} http://127.0.0.1:{port}/", line).replace("curl ", "curl -i ", 1)
        for line in (sign_in, look)
    )
    answer = bash(sign_in, tmp_path, TOKEN=issue(served, "viewer"))
    cookie = re.search(r"set-cookie: ([^;]+);", answer, re.IGNORECASE)
    assert answer.startswith("HTTP/1.1 303"), answer
    assert cookie is not None
    assert "<h1>Runs</h1>" in bash(look.replace("-b jar", f"-b '{cookie[1]}'"), tmp_path)
