"""The files of the pages: what others wrote is what they published, and nothing of ours needs a looser policy."""

from __future__ import annotations

import ast
import hashlib
import re
import sys
import tomllib
import zlib
from pathlib import Path

import speciate.server.web.site as site
from tests import forks

STATIC = site.STATIC
TEMPLATES = STATIC.parent / "templates"
VENDOR = STATIC / "vendor"
_OWN_BYTES = 45_000


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


_NAMED = re.compile(r"[\w-]+\.(?:js|css)")


def _with_imports(names: set[str], pattern: str = r'from "\./([\w-]+\.js)"') -> set[str]:
    """Files, and those that they import."""
    found, left = set[str](), names
    while left:
        found |= left
        left = {each for name in left for each in re.findall(pattern, (STATIC / name).read_text())} - found
    return found


def _ways_to_load(template: str) -> list[set[str]]:
    """Our own files that a page loads: each way in which an `if` of its scripts, or an import of theirs, may go."""
    text = (TEMPLATES / template).read_text()
    begins = {each for each in _NAMED.findall(text.partition("{% block scripts %}")[0]) if (STATIC / each).exists()}
    always, _, chosen = text.partition("{% block scripts %}")[2].partition("{% endblock %}")[0].partition("{% if")
    begins |= set(_NAMED.findall(always))
    if "extends" in text:
        begins |= {"page.css", "page.js"}
    ways = [_with_imports(begins | {each}) for each in _NAMED.findall(chosen)] or [_with_imports(begins)]
    later = r'import\("\./([\w-]+\.js)"\)'
    return ways + [
        way | _with_imports({each})
        for way in ways
        for name in way
        for each in re.findall(later, (STATIC / name).read_text())
    ]


def test_our_own_styles_and_scripts_stay_small() -> None:
    """Of any page. Every file is one of a page."""
    pages = {
        path.name: _ways_to_load(path.name)
        for path in TEMPLATES.glob("*.html")
        if "<link" in path.read_text() or "extends" in path.read_text()
    }
    sizes = {
        page: max(sum((STATIC / each).stat().st_size for each in way) for way in ways) for page, ways in pages.items()
    }
    assert max(sizes.values()) <= _OWN_BYTES, sizes
    files = {each for ways in pages.values() for way in ways for each in way}
    assert files == {path.name for path in STATIC.iterdir() if path.suffix in (".js", ".css")}


def test_the_package_brings_templates_and_static_files() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["speciate.server.web"]
    root = STATIC.parent
    brought = {path for pattern in patterns for path in root.glob(pattern) if path.is_file()}
    assert brought >= {path for folder in (STATIC, TEMPLATES) for path in folder.rglob("*") if path.is_file()}


def test_a_daemon_loads_nothing_of_the_pages_before_somebody_opens_them() -> None:
    said = forks.run([sys.executable, "-m", "tests.server.loaded"])
    assert (said.returncode, said.stdout.strip()) == (0, "[]"), said.stderr


def test_all_that_pages_bring_stays_small() -> None:
    """Editors, viewers and signing have 37 kB of it, and are loaded where they are used (docs/design/pages.md)."""
    own = [path for path in STATIC.iterdir() if path.suffix in (".js", ".css")]
    assert sum(path.stat().st_size for path in own) <= 82_000
    assert sum(path.stat().st_size for path in VENDOR.iterdir()) <= 60_000
    brought = [path for folder in (STATIC, TEMPLATES) for path in folder.rglob("*") if path.is_file()]
    assert sum(len(zlib.compress(path.read_bytes())) for path in brought) < 150_000, "packed, as a wheel is"


def test_functions_of_the_pages_are_short() -> None:
    for path in STATIC.parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 40, f"{path.name}: {node.name}"


def test_pictures_of_the_pages_are_there_in_both_themes_and_narrow() -> None:
    folder = Path(__file__).parents[3] / "docs/pages"
    shown = {path.stem.rpartition("-")[0] for path in folder.glob("*-narrow.png")}
    assert len(shown) >= 18
    for path in folder.glob("*.png"):
        assert path.stat().st_size <= 150_000, path.name
    assert all((folder / f"{name}-{theme}.png").exists() for name in shown for theme in ("light", "dark"))
