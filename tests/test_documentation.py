"""The guides name tools, arguments, files and headings that exist."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from speciate.datasets import operations
from tests.documentation import DOCS, TOOLS, calls_in

GUIDES = sorted(DOCS.glob("*.md"))
PAGES = [*GUIDES, *sorted((DOCS / "design").glob("*.md"))]
_SPAN = re.compile(r"`([a-z_]+\([^`]*\))`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def _declaration(tool: str) -> dict[str, Any]:
    declaration: dict[str, Any] = json.loads((Path(__file__).parent / "surface" / f"{tool}.json").read_text())
    declaration["inputSchema"]["properties"].update(declaration.get("deferred", {}))
    return declaration


def _parameters(tool: str) -> set[str]:
    return set(_declaration(tool)["inputSchema"]["properties"])


def _named_in(span: str) -> tuple[str, set[str]] | None:
    """The tool and the arguments of a call in the text, where `...` and bare words may stand for values."""
    try:
        call = ast.parse(span, mode="eval").body
    except SyntaxError:
        return None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id not in TOOLS:
        return None
    bare = {each.id for each in call.args if isinstance(each, ast.Name)}
    return call.func.id, bare | {str(each.arg) for each in call.keywords}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(DOCS)))
def test_calls_name_arguments_that_the_tool_has(path: Path) -> None:
    text = path.read_text()
    spans = filter(None, map(_named_in, _SPAN.findall(_FENCED.sub("", text))))
    shown = [*spans, *((call.tool, set(call.arguments)) for call in calls_in(text))]
    wrong = [f"{tool}: {sorted(names - _parameters(tool))}" for tool, names in shown if names - _parameters(tool)]
    assert wrong == []


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_calls_fit_the_schema_of_their_tool(path: Path) -> None:
    for call in calls_in(path.read_text()):
        jsonschema.validate(json.loads(json.dumps(call.arguments)), _declaration(call.tool)["inputSchema"])
        for step in call.arguments.get("steps", []):
            operation = operations.find(step["op"])
            operation.parameters.model_validate({name: value for name, value in step.items() if name != "op"})


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(DOCS)))
def test_links_lead_to_files_and_headings(path: Path) -> None:
    wrong = []
    for link in _LINK.findall(_FENCED.sub("", path.read_text())):
        file, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (path.parent / file).resolve() if file else path
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            wrong.append(link)
    assert wrong == []


def _anchors(path: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_a_json_block_is_a_result_and_never_a_call(path: Path) -> None:
    blocks = re.findall(r"^```json\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)
    assert [block for block in blocks if '"arguments"' in block or '"op"' in block] == []


def test_guides_name_the_version_that_specialize_put_forward() -> None:
    """The name alone is the candidate that was trained last."""
    texts = {path.name: path.read_text() for path in GUIDES}
    bare = [
        f"{page}: {found}"
        for page, text in texts.items()
        for use_case in set(re.findall(r'specialize\(\s*use_case="([\w-]+)"', text))
        for found in re.findall(rf'\bmodel="{use_case}-model"', text)
    ]
    assert bare == []


def test_the_index_lists_every_guide() -> None:
    listed = set(_LINK.findall((DOCS / "index.md").read_text()))
    assert {path.name for path in GUIDES} - {"index.md"} <= {link.partition("#")[0] for link in listed}


_FILE = re.compile(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|md|csv|toml|json))(?:::?\w+)?`")
_PLACES = (".", "src/speciate", "tests", "docs")


PAGES_WITH_FILES = [path for path in PAGES if path.name != "security.md"]  # security/test_claims.py reads that one


@pytest.mark.parametrize("path", PAGES_WITH_FILES, ids=lambda path: str(path.relative_to(DOCS)))
def test_source_files_that_a_page_names_exist(path: Path) -> None:
    named = {file for file in _FILE.findall(path.read_text()) if file.startswith(_ROOMS)}
    assert sorted(file for file in named if not any((DOCS.parent / place / file).exists() for place in _PLACES)) == []


_ROOMS = tuple(
    f"{path.name}/" for place in (".", "src/speciate") for path in (DOCS.parent / place).iterdir() if path.is_dir()
)


_UPSTREAM = {"compute_stats.py", "dataset_metadata.py", "dataset_writer.py"}
"""Of lerobot."""
_PLACEHOLDERS = {
    "path/to/file.py",
    "path/file.py",
    "path/to/env.py",
    "FILE.py",
    "_run.py",
    "_sandbox.py",
    "file.py",
    "env.py",
    "model.py",  # in the folder of an exported model
}
_MODULE = re.compile(r"\w[\w/]*\.py\b")


def test_docstrings_name_files_that_exist() -> None:
    root, folders = DOCS.parent, ("src", "tools", "resources", "tests", "evals")
    known = _UPSTREAM | {path.name for folder in folders for path in (root / folder).rglob("*.py")}

    def unknown(text: str) -> list[str]:
        return [each for each in _MODULE.findall(text) if Path(each).name not in known and each not in _PLACEHOLDERS]

    wrong = [
        f"{path.relative_to(root)}:{node.lineno}: {each}"
        for folder in folders[:3]
        for path in (root / folder).rglob("*.py")
        if unknown(path.read_text())  # parsing all of them takes seconds
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for each in unknown(node.value.value)
    ]
    assert wrong == []


def test_every_extra_that_a_person_chooses_is_named_in_a_guide() -> None:
    extras = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    guides = "".join(path.read_text() for path in (*DOCS.glob("*.md"), DOCS.parent / "README.md"))
    named = {name for group in re.findall(r"(?:speciate|\.)\[([a-z0-9,]+)\]", guides) for name in group.split(",")}
    assert set(extras) - named - {"all", "browser", "demo", "dev"} == set()


def test_the_first_screen_of_the_readme_shows_what_it_is() -> None:
    """A picture, what the commands cost, and what to take instead."""
    text = (DOCS.parent / "README.md").read_text()
    first = text[: text.index("\n## Use it")]
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+\.png)\)", first)
    assert shown
    assert all((DOCS.parent / path).is_file() for path in shown)
    for command in ("make demo ", "make demo SMALL=1", "make test "):
        assert re.search(rf"^{re.escape(command)}.*# .*(minutes|GB)", first, re.MULTILINE), command
    compared = re.findall(r"^\| ([A-Z]\S+)", first[first.index("## Why not something else") :], re.MULTILINE)
    assert len(compared) >= 5
