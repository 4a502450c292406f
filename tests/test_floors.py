"""The rooms stand on their floors: imports go down, at the top of the file, and the daemon stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "speciate"
# A room's floor: it may import from lower ones and from itself. The vocabulary's modules may use each other.
FLOORS = {
    "__init__": 0, "errors": 0, "refs": 0, "settings": 0, "environment": 0, "faults": 0, "vocabulary": 0,
    "sample_size": 0, "hosts": 0, "unix_sockets": 0, "foreign_files": 0, "finite": 0,
    "workspace": 1, "sandbox": 1, "secrets": 1, "hf_hub": 1,
    "jobs": 2,
    "modalities": 3, "use_cases": 3,
    "models": 4, "predictions": 4,
    "features": 5,
    "datasets": 6,
    "tasks": 7,
    "evaluation": 8,
    "training": 9, "governance": 9,
    "lineage": 10, "privacy": 10,
    "promotion": 11, "exports": 11,
    "serving": 12,
    "loop": 13,
    "server": 14,
    "cli": 15,
}  # fmt: skip
HEAVY = {
    "torch", "torchvision", "transformers", "tokenizers", "sklearn", "scipy", "peft", "trl", "accelerate",
    "safetensors", "diffusers",
    "PIL", "av", "pydicom", "trimesh", "Bio", "soundfile", "mlxtend", "modlamp", "pandas", "datasets", "timm",
}  # fmt: skip
# Modules that belong to a room though they lie beside it.
ANNEXES = {"worker": "jobs", "__main__": "cli"}
# Worker-side files that may import heavy libraries at their top, each with the reason.
HEAVY_AT_TOP = {
    "statistics.py": "is about nothing but SciPy's distributions, and only workers import it",
    "act_network.py": "is a network of torch, which acting.py alone loads, by its name",
    "diffusion_network.py": "is a network of torch, which acting.py alone loads, by its name",
}
# Everything that the daemon may come to import: its service, all tools, resources and kinds of jobs.
DAEMON = """
import speciate.resources, speciate.server.service, speciate.tools
from speciate.jobs.kinds import Kinds
from speciate.server.mcp.app import declarations
declarations(speciate.tools, "__tool__"), declarations(speciate.resources, "__resource__")
kinds = Kinds()
[kinds[name] for name in kinds.names()]
"""


_PARTS = ("body", "orelse", "handlers", "finalbody", "cases")
_STATEMENTS = (ast.stmt, ast.ExceptHandler, ast.match_case)


class Import(NamedTuple):
    path: Path
    line: int
    module: str
    inside: bool
    """In a function."""

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line} imports {self.module}"


def imports_of(path: Path) -> Iterator[Import]:
    """All but those that only type checkers see."""
    return _imports(ast.parse(path.read_text()), path, inside=False)


def _imports(node: ast.AST, path: Path, *, inside: bool) -> Iterator[Import]:
    for name in _named(node, path):
        yield Import(path, getattr(node, "lineno", 0), name, inside)
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        parts = node.orelse
    else:  # statements alone: no expression holds an import
        parts = [each for name in _PARTS for each in getattr(node, name, ()) if isinstance(each, _STATEMENTS)]
    function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    for part in parts:
        yield from _imports(part, path, inside=inside or function)


def _named(node: ast.AST, path: Path) -> list[str]:
    """The modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{path}:{node.lineno} imports relatively"
        return [_deepest(node.module or "", alias.name) for alias in node.names]
    return []


def _deepest(module: str, name: str) -> str:
    """`from package import module` names a module, where there is one of that name."""
    if module.partition(".")[0] != "speciate":
        return module
    base = SOURCE.joinpath(*module.split(".")[1:])
    return f"{module}.{name}" if (base / f"{name}.py").exists() or (base / name).is_dir() else module


def sources() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def room(module: str) -> str:
    """`speciate.jobs.engine` lies in `jobs`."""
    parts = module.split(".")
    first = parts[1] if len(parts) > 1 else "__init__"
    return ANNEXES.get(first, first)


def module_of(path: Path) -> str:
    return ".".join(("speciate", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")


@cache
def every_import() -> list[Import]:
    return [each for path in sources() for each in imports_of(path)]


def own_imports() -> list[Import]:
    return [each for each in every_import() if each.module.split(".")[0] == "speciate"]


def test_every_room_has_a_floor() -> None:
    assert {room(module_of(path)) for path in sources()} <= set(FLOORS)


def test_imports_go_down() -> None:
    wrong = [str(each) for each in own_imports() if not _goes_down(room(module_of(each.path)), room(each.module))]
    assert not wrong, "\n".join(wrong)


def _goes_down(importer: str, imported: str) -> bool:
    if imported in {"tools", "resources", "prompts"}:
        # found by the server, and by nobody else; `speciate install` copies the skill that lies in prompts/
        return importer == "server" or (importer, imported) == ("cli", "prompts")
    return importer == imported or FLOORS[imported] < FLOORS[importer] or FLOORS[imported] == FLOORS[importer] == 0


def test_our_own_imports_stand_at_the_top() -> None:
    hidden = [str(each) for each in own_imports() if each.inside]
    assert not hidden, "\n".join(hidden)


def test_modules_do_not_import_in_circles() -> None:
    graph: dict[str, set[str]] = {}
    for each in own_imports():
        graph.setdefault(module_of(each.path), set()).add(each.module)
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for target in sorted(graph.get(module, ())):
                visit(target, (*trail, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


def test_heavy_libraries_load_late() -> None:
    at_top = [
        str(each)
        for each in every_import()
        if each.module.split(".")[0] in HEAVY and not each.inside and each.path.name not in HEAVY_AT_TOP
    ]
    assert not at_top, "\n".join(at_top)


def test_tools_and_resources_hold_no_logic() -> None:
    for path in [*(ROOT / "tools").glob("*.py"), *(ROOT / "resources").glob("*.py")]:
        tree = ast.parse(path.read_text())
        tries = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Try)]
        assert not tries, f"{path.name} catches errors at lines {tries}"
        heavy = [str(each) for each in imports_of(path) if each.module.split(".")[0] in HEAVY | {"duckdb", "mcp"}]
        assert not heavy, "\n".join(heavy)


@pytest.mark.parametrize(
    ("program", "forbidden"),
    [
        pytest.param(DAEMON, HEAVY, id="daemon"),
        pytest.param("import speciate.cli", {"mcp", "pydantic", "duckdb", "numpy"}, id="cli"),
        pytest.param("import speciate.server.shim", {"mcp", "pydantic", "duckdb", "numpy"}, id="shim"),
        pytest.param("import speciate.jobs.supervisor", {"mcp", "pydantic", "duckdb", "numpy"}, id="supervisor"),
    ],
)
def test_what_a_process_imports_stays_light(program: str, forbidden: set[str]) -> None:
    shown = f"{program}\nimport sys; print(*sorted(set(sys.modules) & {forbidden!r}))"
    ran = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []
