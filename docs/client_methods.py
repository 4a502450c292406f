"""Writes `src/speciate/server/client_methods.py`, a method for each tool, and the types of its asynchronous twin.

`make docs` runs it; with `--check` it says whether the file is stale.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import speciate.tools
from speciate.server.mcp.app import declarations
from speciate.server.mcp.arguments import Schema, input_schema
from speciate.server.tool_api import Declaration

SERVER = Path(__file__).parent.parent / "src" / "speciate" / "server"
TARGET, ASYNC_TARGET = SERVER / "client_methods.py", SERVER / "async_client.pyi"
_HEAD = '''"""A method for each tool, with its arguments and its result. Made by docs/client_methods.py: `make docs`."""

# mypy: disable-error-code=no-any-return
# An answer is read as what its tool declares, or refused, in client_results.py.
from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
{imports}


SHOWS_IMAGES = {shown}


class ToolMethods:
    """The tools. What is None is left out. Raises ToolError for what a tool refuses."""

    @abstractmethod
    def _call_typed(self, module: str, tool: str, names: Mapping[str, Any]) -> Any:
        """`names`: the locals of a method that has just begun."""
'''
_ASYNC_HEAD = """# Types of async_client.py. Made by docs/client_methods.py: `make docs`.
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

{imports}

class AsyncClient:
    sync: Client
    def __init__(self, sync: Client) -> None: ...
    async def call(self, tool: str, /, **arguments: Any) -> ToolResult: ...
    async def call_with_images(self, tool: str, /, **arguments: Any) -> tuple[ToolResult, tuple[bytes, ...]]: ...
    async def wait(self, job: object, progress: Callable[[JobView], None] | None = None) -> JobView: ...
    async def table(self, dataset: str, *, sql: str | None = None, where: str | None = None) -> pa.Table: ...
    async def tools(self) -> list[ToolDeclaration]: ...
{methods}

def connect_async(workspace: str | Path | None = None) -> AsyncClient: ...
"""
_CLIENT = {"speciate.server.client": ["Client", "ToolDeclaration", "ToolResult"]}
_PLAIN = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "object": "Mapping[str, Any]"}
_WIDTH = 116


def client_methods() -> str:
    """The text of the module, formatted by ruff."""
    tools: list[Declaration] = declarations(speciate.tools, "__tool__")
    imports = "\n".join(f"    {line}" for line in _imports(tools))
    shown = [each.name for each in tools if _shows_images(each)]
    text = _HEAD.replace("{imports}", imports).replace("{shown}", f"frozenset({shown})") + "".join(
        _method(each) for each in tools
    )
    return _formatted(text, TARGET)


def async_types() -> str:
    """The text of the stub, formatted by ruff."""
    tools: list[Declaration] = declarations(speciate.tools, "__tool__")
    methods = "\n".join(f"    async def {each.name}({_signature(each)}) -> {_result(each)}: ..." for each in tools)
    text = _ASYNC_HEAD.replace("{imports}", "\n".join(_imports(tools, _CLIENT))).replace("{methods}", methods)
    return _formatted(text, ASYNC_TARGET)


def _imports(tools: Sequence[Declaration], more: Mapping[str, Sequence[str]] = {}) -> list[str]:
    types = {kind for each in tools for kind in _choices(each.result)}
    modules = {"speciate.server.client_results": ["Shown"], **{name: list(kinds) for name, kinds in more.items()}}
    for kind in types:
        modules.setdefault(kind.__module__, []).append(kind.__qualname__)
    return [f"from {name} import {', '.join(sorted(kinds))}" for name, kinds in sorted(modules.items())]


def _formatted(text: str, target: Path) -> str:
    formatted = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(target), "-"],
        input=text, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return formatted.stdout


def _method(tool: Declaration) -> str:
    return (
        f"\n    def {tool.name}({_signature(tool)}) -> {_result(tool)}:\n"
        f'        """{_doc(tool, input_schema(tool.arguments)["properties"])}"""\n'
        f'        return self._call_typed("{tool.function.__module__}", "{tool.name}", locals())\n'
    )


def _signature(tool: Declaration) -> str:
    schema = input_schema(tool.arguments)
    needed = schema.get("required", [])
    fields = schema["properties"]
    order = [*needed, *(name for name in fields if name not in needed)]
    given = [f"{name}: {_python(fields[name])}" for name in needed]
    given += [f"{name}: {_python(fields[name])} | None = None" for name in order if name not in needed]
    return ", ".join(["self", *(["*"] if given else []), *given])


def _doc(tool: Declaration, fields: dict[str, Schema]) -> str:
    """The tool's own description, and what its arguments mean."""
    said = [
        f"{name}: {' '.join(each['description'].split())}" for name, each in fields.items() if "description" in each
    ]
    lines = [*tool.description.splitlines(), *(["", *said] if said else [])]
    wrapped = [piece for line in lines for piece in _wrap(line)]
    joined = "\n        ".join(wrapped).replace("\n        \n", "\n\n").replace("\\", "\\\\")
    return f"{joined}\n        " if len(wrapped) > 1 else joined


def _wrap(line: str) -> list[str]:
    return textwrap.wrap(line, _WIDTH - 8, subsequent_indent="    ", break_on_hyphens=False) or [""]


def _result(tool: Declaration) -> str:
    named = " | ".join(kind.__qualname__ for kind in _choices(tool.result))
    return f"Shown[{named}]" if _shows_images(tool) else named


def _shows_images(tool: Declaration) -> bool:
    return get_origin(get_type_hints(tool.function)["return"]) is tuple


def _choices(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)


def _python(schema: Schema) -> str:
    """The type that a caller writes, by the argument's JSON schema."""
    if "enum" in schema or "const" in schema:
        return f"Literal[{', '.join(map(repr, schema.get('enum', [schema.get('const')])))}]"
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " | ".join(dict.fromkeys(map(_python, choices)))
    if schema.get("type") == "array":
        return f"Sequence[{_python(schema.get('items', {}))}]"
    return _PLAIN.get(schema.get("type", ""), "Any")


def main() -> int:
    texts = {TARGET: client_methods(), ASYNC_TARGET: async_types()}
    if "--check" in sys.argv:
        stale = [path for path, text in texts.items() if not path.exists() or path.read_text() != text]
        sys.stdout.write("".join(f"{path} is stale: make docs\n" for path in stale))
        return int(bool(stale))
    for path, text in texts.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
