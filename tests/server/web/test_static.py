"""The files of the pages: what others wrote is what they published, and nothing of ours needs a looser policy."""

from __future__ import annotations

import hashlib
import re
import sys
import tomllib
from pathlib import Path

import speciate.server.web.site as site
from tests import forks

STATIC = site.STATIC
TEMPLATES = STATIC.parent / "templates"
VENDOR = STATIC / "vendor"
_OWN_BYTES = 40_000


def test_vendored_files_are_those_of_the_table() -> None:
    table = tomllib.loads((VENDOR / "table.toml").read_text())["file"]
    for each in table:
        data = (VENDOR / each["name"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == each["sha256"], each["name"]
        assert (VENDOR / each["licence_file"]).read_text().strip()
        assert each["licence"] in ("0BSD", "MIT", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "ISC")
    listed = {each["name"] for each in table} | {each["licence_file"] for each in table} | {"table.toml"}
    assert {path.name for path in VENDOR.iterdir()} == listed


def test_templates_hold_no_script_no_style_and_nothing_from_elsewhere() -> None:
    for path in TEMPLATES.glob("*.html"):
        text = path.read_text()
        assert not re.search(r"\sstyle\s*=|<style|javascript:|hx-on|\|\s*safe|autoescape false", text), path.name
        assert not re.search(r"\son\w+\s*=", text), path.name
        assert not re.search(r"(src|href)=\"(https?:)?//", text), path.name
        for script in re.findall(r"<script\b[^>]*>(.*?)</script>", text, re.DOTALL):
            assert script == "", path.name


def test_our_scripts_build_no_markup_and_evaluate_nothing() -> None:
    for path in STATIC.glob("*.js"):
        text = path.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            path
        )
    htmx = re.search(r"name=\"htmx-config\" content='([^']+)'", (TEMPLATES / "base.html").read_text())
    assert htmx
    assert '"allowEval": false' in htmx[1]
    assert '"includeIndicatorStyles": false' in htmx[1]


def test_our_own_styles_and_scripts_stay_small() -> None:
    """Of one page: what each loads, and the largest script that some load beside it."""
    sizes = {path.name: path.stat().st_size for path in STATIC.iterdir() if path.suffix in (".js", ".css")}
    everywhere = sum(sizes.pop(name) for name in ("page.css", "page.js", "theme.js"))
    assert everywhere + max(sizes.values()) <= _OWN_BYTES


def test_the_package_brings_templates_and_static_files() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["speciate.server.web"]
    root = STATIC.parent
    brought = {path for pattern in patterns for path in root.glob(pattern) if path.is_file()}
    assert brought >= {path for folder in (STATIC, TEMPLATES) for path in folder.rglob("*") if path.is_file()}


def test_a_daemon_loads_nothing_of_the_pages_before_somebody_opens_them() -> None:
    said = forks.run([sys.executable, "-m", "tests.server.loaded"])
    assert (said.returncode, said.stdout.strip()) == (0, "[]"), said.stderr
