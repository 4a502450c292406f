"""The program that goes with an exported model: of this package's own code, the part that the model needs to answer.

From a few names (a backbone, a task head, a reader of media) every function, class and constant that they refer to is
followed through the sources, method by method, and written into a folder of plain modules. What answers elsewhere is
so the code that answers here, not a copy that somebody keeps. Annotations are not followed, so that what is only named
by types stays out.

    Roots ("speciate.models.backbones.text:rebuild", ...) -> Program(modules, requires)

A method is kept where its name is used anywhere in what is kept. `REPLACED` names what would bring a heavy library or
a table of everything, and what stands in for it (standalone/).
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import speciate

_SOURCE = Path(speciate.__file__).parent
_PACKAGE = "speciate"
_ASKED = ("predict",)
"""Methods that are called from outside."""
_TABLES = "speciate.modalities"
"""Package whose `find` looks in a table of all modalities; the program gets one with those of the model."""
REPLACED: Mapping[str, str] = {
    "speciate.tasks.representations:Documents": "speciate.exports.standalone.word_counts:Documents",
    "pydantic:BaseModel": "speciate.exports.standalone.records:BaseModel",
    "pydantic:ConfigDict": "speciate.exports.standalone.records:ConfigDict",
    "pydantic:Field": "speciate.exports.standalone.records:Field",
}
"""MODULE:NAME -> what stands in for it."""
PROVIDES: Mapping[str, str] = {
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "Bio": "biopython",
    "cv2": "opencv-python",
}
"""Modules whose package has another name."""


class Symbol(NamedTuple):
    module: str
    name: str


class Program(NamedTuple):
    modules: Mapping[str, str]
    """File name -> source, of one flat folder."""
    requires: tuple[str, ...]
    """Packages that it imports, by the names by which they are installed."""


def file_of(module: str) -> str:
    """`speciate.models.backbones.text` -> `models_backbones_text`."""
    return "_".join(module.split(".")[1:])


class _Source(NamedTuple):
    text: str
    lines: list[str]
    symbols: Mapping[str, ast.stmt]
    imports: Mapping[str, tuple[str, str | None]]
    """Local name -> (module, name in it; None where the module itself is meant)."""


class _Uses(NamedTuple):
    names: set[str]
    attributes: set[str]
    of_modules: set[tuple[str, str]]
    """(local name, attribute): resolved where the name is a module."""
    imported: set[str]
    """Third-party modules imported inside."""


def extract(roots: Iterable[str], modalities: Mapping[str, str] | None = None) -> Program:
    """`modalities`: name -> "module:object" of those that the program's table has."""
    tables = dict(modalities or {})
    walk = _Walk(tables)
    for root in (*roots, *tables.values()):
        module, _, name = root.partition(":")
        walk.need(Symbol(module, name))
    walk.finish()
    made = {f"{file_of(module)}.py": walk.written(module) for module in sorted(walk.modules())}
    if walk.uses_table:
        made[f"{file_of(_TABLES)}.py"] = _table(tables)
    requires = {PROVIDES.get(name, name) for name in walk.third_party if name not in sys.stdlib_module_names}
    return Program(made, tuple(sorted(requires)))


class _Walk:
    def __init__(self, tables: Mapping[str, str]) -> None:
        self._tables = tables
        self._needed: dict[Symbol, None] = {}
        self._methods: set[tuple[Symbol, str]] = set()
        self._attributes: set[str] = set(_ASKED)
        self._left: list[Symbol] = []
        self._imports: dict[str, dict[str, str]] = {}
        """Module -> local name -> the line that imports it."""
        self.third_party: set[str] = set()
        self.uses_table = False

    def modules(self) -> set[str]:
        return {symbol.module for symbol in self._needed}

    def need(self, symbol: Symbol) -> Symbol:
        """Follow the symbol; returns where it is defined."""
        replaced = REPLACED.get(f"{symbol.module}:{symbol.name}")
        if replaced is not None:
            module, _, name = replaced.partition(":")
            symbol = Symbol(module, name)
        source = _source(symbol.module)
        if symbol.name not in source.symbols and symbol.name in source.imports:
            origin, original = source.imports[symbol.name]
            assert original is not None, f"{symbol} is a module"
            return self.need(Symbol(origin, original))
        if symbol.name not in source.symbols:
            raise LookupError(f"{symbol.module} has no {symbol.name}")
        if symbol not in self._needed:
            self._needed[symbol] = None
            self._left.append(symbol)
        return symbol

    def finish(self) -> None:
        """Collects until nothing new is needed: a method that is used by name may use others."""
        while True:
            while self._left:
                symbol = self._left.pop()
                statement = _source(symbol.module).symbols[symbol.name]
                if isinstance(statement, ast.ClassDef):
                    self._follow(symbol.module, _outside_methods(statement))
                else:
                    self._follow(symbol.module, [statement])
            for symbol in list(self._needed):
                statement = _source(symbol.module).symbols[symbol.name]
                for method in _methods(statement):
                    if (symbol, method.name) not in self._methods and self._kept(method.name):
                        self._methods.add((symbol, method.name))
                        same = [each for each in _methods(statement) if each.name == method.name]
                        self._follow(symbol.module, same)
            if not self._left:
                return

    def _kept(self, name: str) -> bool:
        return name in self._attributes or (name.startswith("__") and name.endswith("__"))

    def _follow(self, module: str, nodes: Iterable[ast.AST]) -> None:
        source, uses = _source(module), _uses(nodes)
        self._attributes |= uses.attributes
        self.third_party |= uses.imported
        for name in sorted(uses.names):
            if name in source.symbols:
                self.need(Symbol(module, name))
            elif name in source.imports:
                self._import(module, name, {each for local, each in uses.of_modules if local == name})

    def _import(self, module: str, local: str, attributes: set[str]) -> None:
        origin, name = _source(module).imports[local]
        lines = self._imports.setdefault(module, {})
        if not origin.startswith(_PACKAGE) and REPLACED.get(f"{origin}:{name}") is None:
            self.third_party.add(origin.partition(".")[0])
            lines[local] = _plain_import(origin, name, local)
        elif name is None or _is_module(f"{origin}.{name}"):
            whole = origin if name is None else f"{origin}.{name}"
            if whole == _TABLES:
                self.uses_table = True
            elif not attributes:
                return  # a local variable of the same name
            for attribute in attributes if whole != _TABLES else ():
                self.need(Symbol(whole, attribute))
            lines[local] = f"from . import {file_of(whole)} as {local}"
        elif (origin, name) == (_TABLES, "find"):
            self.uses_table = True
            lines[local] = f"from .{file_of(_TABLES)} import find" + ("" if local == name else f" as {local}")
        else:
            found = self.need(Symbol(origin, name))
            renamed = "" if found.name == local else f" as {local}"
            lines[local] = f"from .{file_of(found.module)} import {found.name}{renamed}"

    def written(self, module: str) -> str:
        source = _source(module)
        names = {symbol.name for symbol in self._needed if symbol.module == module}
        statements = {id(source.symbols[name]): source.symbols[name] for name in names}
        used = sorted(self._imports.get(module, {}).values(), key=lambda line: (line.startswith("from ."), line))
        parts = [f'"""From {module} of speciate {speciate.__version__} (Apache-2.0): what this model needs of it."""']
        parts += ["from __future__ import annotations", "\n".join(used)]
        parts += [
            self._text(module, each) for each in sorted(statements.values(), key=lambda each: each.lineno)
        ]  # fmt: skip
        return "\n\n".join(part for part in parts if part) + "\n"

    def _text(self, module: str, statement: ast.stmt) -> str:
        lines = _source(module).lines
        first = min([statement.lineno, *(each.lineno for each in getattr(statement, "decorator_list", []))])
        last = statement.end_lineno or first
        left_out = set[int]()
        if isinstance(statement, ast.ClassDef):
            symbol = Symbol(module, statement.name)
            kept = [each for each in statement.body if self._stays(symbol, each)]
            for each in statement.body:
                if not self._stays(symbol, each):
                    start = min([each.lineno, *(one.lineno for one in getattr(each, "decorator_list", []))])
                    left_out |= set(range(start, (each.end_lineno or start) + 1))
            text = "\n".join(lines[place - 1] for place in range(first, last + 1) if place not in left_out)
            text = re.sub(r"\n{3,}", "\n\n", text).rstrip()
            return text if kept else f"{text}\n    pass"
        return "\n".join(lines[first - 1 : last])

    def _stays(self, symbol: Symbol, each: ast.stmt) -> bool:
        return not isinstance(each, ast.FunctionDef) or (symbol, each.name) in self._methods


def _table(tables: Mapping[str, str]) -> str:
    """Looked up late: a modality may itself look others up."""
    entries = {}
    for name, target in tables.items():
        module, _, symbol = target.partition(":")
        entries[name] = (f".{file_of(module)}", symbol)
    return "\n".join(
        [
            '"""The modalities that this model reads, by name."""', "", "import importlib", "",
            f"_TABLE = {entries!r}", "", "", "def find(name):", "    module, symbol = _TABLE[name]",
            "    return getattr(importlib.import_module(module, __package__), symbol)", "",
        ]
    )  # fmt: skip


def _is_module(name: str) -> bool:
    place = _SOURCE.joinpath(*name.split(".")[1:])
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


@cache
def _source(module: str) -> _Source:
    place = _SOURCE.joinpath(*module.split(".")[1:])
    path = place.with_suffix(".py") if place.with_suffix(".py").is_file() else place / "__init__.py"
    text = path.read_text(encoding="utf-8")
    symbols: dict[str, ast.stmt] = {}
    imports: dict[str, tuple[str, str | None]] = {}
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                imports[alias.asname or alias.name] = (statement.module or "", alias.name)
        elif isinstance(statement, ast.Import):
            for alias in statement.names:
                local = alias.asname or alias.name.partition(".")[0]
                known = imports.get(local, ("", None))[0]  # `import a` and `import a.b` bind the same name
                imports[local] = (max(known, alias.name, key=len), None)
        else:
            for name in _bound(statement):
                symbols.setdefault(name, statement)
    return _Source(text, text.splitlines(), symbols, imports)


def _bound(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for target in targets:
            yield from (each.id for each in ast.walk(target) if isinstance(each, ast.Name))


def _methods(statement: ast.stmt) -> list[ast.FunctionDef]:
    if not isinstance(statement, ast.ClassDef):
        return []
    return [each for each in statement.body if isinstance(each, ast.FunctionDef)]


def _outside_methods(statement: ast.ClassDef) -> list[ast.AST]:
    inner = [each for each in statement.body if not isinstance(each, ast.FunctionDef)]
    return [*statement.decorator_list, *statement.bases, *statement.keywords, *inner]


def _plain_import(origin: str, name: str | None, local: str) -> str:
    if name is None:
        return f"import {origin}" if local == origin.partition(".")[0] else f"import {origin} as {local}"
    return f"from {origin} import {name}" + ("" if name == local else f" as {local}")


def _uses(nodes: Iterable[ast.AST]) -> _Uses:
    found = _Uses(set(), set(), set(), set())
    visitor = _Visitor(found)
    for node in nodes:
        visitor.visit(node)
    return found


class _Visitor(ast.NodeVisitor):
    def __init__(self, found: _Uses) -> None:
        self._found = found

    def visit_Name(self, node: ast.Name) -> None:
        self._found.names.add(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._found.attributes.add(node.attr)
        if isinstance(node.value, ast.Name):
            self._found.of_modules.add((node.value.id, node.attr))
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        defaults = [*node.args.defaults, *(each for each in node.args.kw_defaults if each is not None)]
        for each in (*node.decorator_list, *defaults, *node.body):
            self.visit(each)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(node.target)
        if node.value is not None:
            self.visit(node.value)

    def visit_Import(self, node: ast.Import) -> None:
        self._found.imported.update(alias.name.partition(".")[0] for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        assert not module.startswith(_PACKAGE), f"an import of {module} inside a function"
        self._found.imported.add(module.partition(".")[0])
