"""The mutants of one module: mutmut's operators (3.8), two of our own, and what is left out, by kind.

Two are ours, for mutmut has neither: a condition that is a bare name, attribute or call is negated, and a call that is
a statement is dropped. Constants of the module are mutated, too: numbers, strings, operators.

Left out, for no decision rests on it:
- texts that only a person reads: a string with a space in it, unless it is SQL; all inside an f-string that has one; a
  choice between two such texts; what a function returns that `modules.toml` lists under `words`, and names under
  `texts`; a name that a function gives such texts alone; arguments and assignments that are nothing but such a text;
  calls of `_log` and `warnings`.
- `strict=` of a zip: a guard against our own slips, which no call of ours can set off.
- types: annotations, aliases, `cast`. Decorators, `len` and `isinstance`, as in mutmut. Defaults of fields of a class.
- a second mutant of a string (lower, upper case): a key is wrong either way. An argument by place that is dropped and
  is not the last: its call is a TypeError, or as wrong as with None in its place.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import libcst as cst
import libcst.matchers as m
from libcst.metadata import MetadataWrapper, PositionProvider, WhitespaceInclusivePositionProvider
from mutmut.mutation.mutators import mutation_operators, operator_arg_removal, operator_assignment, operator_string

_SQL = re.compile(
    r"\W*(SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|WITH|FROM|WHERE|AND|OR|ORDER|GROUP|SET|VALUES|ON|JOIN|IS|LIMIT)\b"
)
_LOGS = ("_log.", "warnings.warn")
_GUARDS = {"strict"}
_UNTOUCHED = {"len", "isinstance", "cast", "TypeVar"}
_BARE = cst.Name | cst.Attribute | cst.Call
_Scope = tuple[str, ...]


class Mutant(NamedTuple):
    function: str
    """Its qualified name; empty: a constant of the module."""
    was: str
    now: str
    """The lines of the source that differ, without their indentation."""
    source: str
    """Of the whole module."""
    lines: tuple[int, int]
    """Of the statement, the first and the last."""
    of_function: tuple[int, int]
    in_default: bool
    """Whether it is the default of a parameter."""


class Mutants(NamedTuple):
    found: list[Mutant]
    left_out: Counter[str]
    """Kind -> how many of mutmut's mutants."""


def mutants_of(source: str, words: Sequence[str] = (), texts: Sequence[str] = ()) -> Mutants:
    wrapper = MetadataWrapper(cst.parse_module(source))
    visitor = _Visitor(source, wrapper.module, frozenset(words), frozenset(texts))
    wrapper.visit(visitor)
    return Mutants(visitor.found, visitor.left_out)


class _Visitor(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider, WhitespaceInclusivePositionProvider)

    def __init__(self, source: str, module: cst.Module, words: frozenset[str], texts: frozenset[str]) -> None:
        super().__init__()
        self.found: list[Mutant] = []
        self.left_out: Counter[str] = Counter()
        self._source, self._module, self._words = source, module, words
        self._offsets = [0]
        for line in source.splitlines(keepends=True):
            self._offsets.append(self._offsets[-1] + len(line))
        self._texts = [texts]
        self._scope: list[cst.CSTNode] = []
        self._statements: list[cst.CSTNode] = []
        self._person = self._default = 0
        """How deep we are in what only a person reads, and in defaults."""
        self._seen: set[str] = set()

    # What is walked

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.Annotation | cst.Decorator) or self._is_untouched(node):
            return False
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self._scope.append(node)
            own = _names_of_texts(node, self._is_text) if isinstance(node, cst.FunctionDef) else set()
            self._texts.append(self._texts[-1] | own)
        self._person += self._is_for_a_person(node)
        self._default += isinstance(node, cst.Param)
        if isinstance(node, cst.SimpleStatementLine):
            self._statements.append(node)
        if self._reaches():
            for kind, mutated in self._mutations(node):
                self._add(node, kind, mutated)
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        node = original_node
        if isinstance(node, cst.Annotation | cst.Decorator) or self._is_untouched(node):
            return
        if isinstance(node, cst.SimpleStatementLine):
            self._statements.pop()
        self._default -= isinstance(node, cst.Param)
        self._person -= self._is_for_a_person(node)
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self._scope.pop()
            self._texts.pop()

    def _is_untouched(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.AnnAssign):
            return self._code(node.annotation.annotation) == "TypeAlias"
        if isinstance(node, cst.Arg):
            return node.keyword is not None and node.keyword.value in _GUARDS
        return isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value in _UNTOUCHED

    def _reaches(self) -> bool:
        """Within a function, or in a constant of the module."""
        if any(isinstance(each, cst.FunctionDef) for each in self._scope):
            return True
        return not self._scope and any(
            isinstance(each, cst.Assign | cst.AnnAssign)
            for line in self._statements
            for each in line.body  # type: ignore[attr-defined]
        )

    # What only a person reads

    def _is_for_a_person(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef):
            return node.name.value in self._words
        if isinstance(node, cst.Call):
            return self._code(node.func).startswith(_LOGS)
        if isinstance(node, cst.IfExp):
            return self._is_text(node.body) and self._is_text(node.orelse)
        return isinstance(node, cst.FormattedString | cst.ConcatenatedString) and self._is_text(node)

    def _is_text(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.SimpleString):
            return " " in node.raw_value.strip() and not _SQL.match(node.raw_value)
        if isinstance(node, cst.FormattedString):
            parts = [each.value for each in node.parts if isinstance(each, cst.FormattedStringText)]
            return any(" " in part for part in parts) and not _SQL.match(parts[0])
        if isinstance(node, cst.ConcatenatedString):
            return self._is_text(node.left) or self._is_text(node.right)
        if isinstance(node, cst.Name):
            return node.value in self._texts[-1]
        if isinstance(node, cst.Call):
            return isinstance(node.func, cst.Name) and node.func.value in self._words
        if isinstance(node, cst.BinaryOperation):
            return self._is_text(node.left) or self._is_text(node.right)
        if isinstance(node, cst.IfExp):
            return self._is_text(node.body) or self._is_text(node.orelse)
        return False

    # The mutants

    def _mutations(self, node: cst.CSTNode) -> Iterator[tuple[str, cst.CSTNode]]:
        """Each with why it is left out, or with an empty string."""
        person = "texts" if self._person else ""
        for kind, operator in mutation_operators:
            if not isinstance(node, kind):
                continue
            if not self._scope and operator in (operator_arg_removal, operator_assignment):
                continue  # of a constant
            for number, mutated in enumerate(operator(node)):
                why = person
                if operator is operator_string:
                    why = "texts" if person or self._is_text(node) else "case" if number else ""
                elif operator is operator_arg_removal and isinstance(node, cst.Call):
                    arguments = [each for each in node.args if each.star == "" and self._code(each.value) != "None"]
                    drops = number >= len(arguments)
                    at = node.args[number - len(arguments)] if drops else arguments[number]
                    why = person or ("texts" if self._is_text(at.value) else "")
                    if drops and not at.keyword and not at.star and at is not _last_by_place(node):
                        why = "dropped"
                    if at.keyword and at.keyword.value in _GUARDS:
                        why = "guards"
                elif operator is operator_assignment and getattr(node, "value", None) is not None:
                    why = person or ("texts" if self._is_text(node.value) else "")  # type: ignore[attr-defined]
                yield why, mutated
        if isinstance(node, cst.If | cst.While | cst.CompIf) and isinstance(node.test, _BARE):
            negated = cst.UnaryOperation(cst.Not(), node.test)
            yield person, node.with_changes(test=negated)
        if isinstance(node, cst.Expr) and isinstance(node.value, cst.Call) and self._scope:
            yield "texts" if self._code(node.value.func).startswith(_LOGS) else person, cst.Pass()

    def _add(self, node: cst.CSTNode, why: str, mutated: cst.CSTNode) -> None:
        if why:
            self.left_out[why] += 1
            return
        source, was, now = self._replaced(node, mutated)
        if was == now or source in self._seen:
            return
        self._seen.add(source)
        functions = [each for each in self._scope if isinstance(each, cst.FunctionDef)]
        outer = self._scope[: self._scope.index(functions[0]) + 1] if functions else []
        lines = self._lines(self._statements[-1] if self._statements else node)
        self.found.append(
            Mutant(
                ".".join(each.name.value for each in outer),  # type: ignore[attr-defined]
                was, now, source, lines, self._lines(functions[0]) if functions else lines, bool(self._default),
            )
        )  # fmt: skip

    def _replaced(self, node: cst.CSTNode, mutated: cst.CSTNode) -> tuple[str, str, str]:
        """The source with it, and the lines that differ, before and after."""
        span = self.get_metadata(WhitespaceInclusivePositionProvider, node)
        begin, end = (self._offsets[at.line - 1] + at.column for at in (span.start, span.end))
        text = self._code(mutated)
        if isinstance(node, cst.Match | cst.If | cst.While):  # their blocks want their indentation
            source = self._module.deep_replace(node, mutated).code  # type: ignore[union-attr]
            text = source[begin : len(source) - len(self._source) + end]
        first, last = self._offsets[span.start.line - 1], self._offsets[min(span.end.line, len(self._offsets) - 1)]
        was = self._source[first:last].splitlines()
        now = (self._source[first:begin] + text + self._source[end:last]).splitlines()
        return self._source[:begin] + text + self._source[end:], *_difference(was, now)

    def _code(self, node: cst.CSTNode) -> str:
        return self._module.code_for_node(node)

    def _lines(self, node: cst.CSTNode) -> tuple[int, int]:
        span: Any = self.get_metadata(PositionProvider, node)
        end = node.test if isinstance(node, cst.If | cst.While) else node
        return span.start.line, self.get_metadata(PositionProvider, end).end.line


def _names_of_texts(function: cst.FunctionDef, is_text: Any) -> set[str]:
    """Names to which the function gives texts and nothing else."""
    given: dict[str, list[bool]] = {}
    for node in m.findall(function, m.Assign() | m.NamedExpr() | m.For()):
        targets = [each.target for each in node.targets] if isinstance(node, cst.Assign) else [node.target]  # type: ignore[attr-defined]
        for target in targets:
            if isinstance(target, cst.Name):
                given.setdefault(target.value, []).append(isinstance(node, cst.Assign) and is_text(node.value))
    return {name for name, texts in given.items() if all(texts)}


def _last_by_place(call: cst.Call) -> cst.Arg | None:
    return next((each for each in reversed(call.args) if each.keyword is None), None)


def _difference(old: list[str], new: list[str]) -> tuple[str, str]:
    """Without the lines that are alike at either end, and in one line each."""
    while old and new and old[0] == new[0]:
        old, new = old[1:], new[1:]
    while old and new and old[-1] == new[-1]:
        old, new = old[:-1], new[:-1]
    was, now = (" ".join(" ".join(lines).split()) for lines in (old, new))
    return was, now
