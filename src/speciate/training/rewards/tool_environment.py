"""A user's environment with tools, `path/to/env.py:Class`, in a sandbox; in the trainer stands a proxy of it.

    class Shop:
        def reset(self, prompt, truth, **columns) -> str | None:   what is said after the question, or nothing
        def look_up(self, word: str) -> str:                       a tool: annotated, with a docstring in Google's way
        def get_reward(self) -> float | None:                      optional: what the answer was worth

The file is parsed here, never run: names, annotations, defaults and docstrings of the class's own methods are read from
its syntax tree, and a class of the same methods is made whose calls go to one sandboxed process. What a tool raises, or
a
process that is lost, is told to the model as an error of that tool, as trl does it.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import GenericAlias
from typing import Any, NamedTuple, TypedDict

from speciate.errors import Code, SpeciateError, unknown
from speciate.sandbox import SandboxPolicy, user_code
from speciate.sandbox.client import NoAnswer, RestartingClient, SandboxClient
from speciate.training.language.questions import Question
from speciate.training.language_hyperparameters import EnvironmentSpec

_SANDBOX = "speciate.training.rewards.tool_environment_sandbox"
_HOW = "Name a file that is there: hyperparameters={'environment': {'file': 'path/to/env.py:Class'}}."
_MOST_LOST = 3
"""Processes of a run; then it ends."""
_TYPES: Mapping[str, type[Any]] = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict}


class CallCounts(TypedDict):
    """Calls of an environment's tools in a run, and what failed."""

    calls: int
    failures: dict[str, int]
    """Why -> how many."""


class Tool(NamedTuple):
    name: str
    signature: inspect.Signature
    """Signature without self."""
    doc: str


class EnvironmentDescription(NamedTuple):
    file: Path
    name: str
    sha256: str
    source: str
    tools: list[Tool]
    rewards: bool
    """Whether it says itself what an answer was worth."""


class ToolFailed(Exception):
    """What the model is told in the place of a tool's answer."""


def bind_environment(spec: EnvironmentSpec) -> EnvironmentSpec:
    """With the file's absolute path and the sha256 of its bytes, for a plan. NOT_FOUND, INVALID, or CONFLICT where it
    was bound to other bytes before."""
    found = describe_environment(spec)
    return spec.model_copy(update={"file": f"{found.file}:{found.name}", "sha256": found.sha256})


def describe_environment(spec: EnvironmentSpec) -> EnvironmentDescription:
    path, _, name = spec.file.rpartition(":")
    if not path or not name.isidentifier():
        raise SpeciateError(Code.INVALID, f"{spec.file!r} names no class of a file.", _HOW)
    file = Path(path).absolute()
    content = user_code.read_code(file, _HOW)
    sha256 = hashlib.sha256(content).hexdigest()
    if spec.sha256 not in (None, sha256):
        raise SpeciateError(
            Code.CONFLICT, f"{file.name} has changed since the training was asked for.",
            "Call train_model again: it is another environment now.",
        )  # fmt: skip
    try:
        source = content.decode()
        classes = {each.name: each for each in ast.parse(source).body if isinstance(each, ast.ClassDef)}
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # the last two: nested too deep
        raise SpeciateError(
            Code.INVALID, f"{file.name} is no Python: {error}.", "Mend the file, then call again."
        ) from error
    if name not in classes:
        raise unknown("class", name, classes, f"Name one of {file.name}: 'path/to/{file.name}:Class'.")
    later = [each.name for each in classes[name].body if isinstance(each, ast.AsyncFunctionDef)]
    methods = {each.name: each for each in classes[name].body if isinstance(each, ast.FunctionDef)}
    own = [each for called, each in methods.items() if called not in ("reset", "get_reward") and called[0] != "_"]
    try:
        if later:
            raise ValueError(f"the method {later[0]} is async, and is called by nobody who would wait for it")
        if "reset" not in methods:
            raise ValueError("it has no method reset")
        if not own:
            raise ValueError("it has no method that could be a tool")
        tools = [read_tool(each) for each in own]
    except ValueError as error:
        raise SpeciateError(
            Code.INVALID, f"The environment {name} of {file.name} cannot be used: {error}.",
            "Mend the file, then call again; docs/language.md has an example.",
        ) from error  # fmt: skip
    return EnvironmentDescription(file, name, sha256, source, tools, "get_reward" in methods)


def read_tool(method: ast.FunctionDef) -> Tool:
    """ValueError for what cannot be told to a model."""
    given, doc = method.args, ast.get_docstring(method)
    if not doc:
        raise ValueError(f"the tool {method.name} has no docstring, which tells the model what it does")
    if given.posonlyargs or given.vararg or given.kwarg:
        raise ValueError(f"the tool {method.name} takes arguments without names")
    if method.decorator_list or not given.args:
        raise ValueError(f"the tool {method.name} is no plain method")
    named = [*given.args[1:], *given.kwonlyargs]
    defaults = [*[None] * (len(given.args) - len(given.defaults)), *given.defaults][1:]
    parameters = [
        inspect.Parameter(
            each.arg, inspect.Parameter.KEYWORD_ONLY, annotation=_type(each.annotation, f"{method.name}.{each.arg}"),
            default=inspect.Parameter.empty if default is None else _value(default, f"{method.name}.{each.arg}"),
        )
        for each, default in zip(named, [*defaults, *given.kw_defaults], strict=True)
    ]  # fmt: skip
    returned = _type(method.returns, f"{method.name}'s answer") if method.returns else str
    return Tool(method.name, inspect.Signature(parameters, return_annotation=returned), doc)


def _type(node: ast.expr | None, what: str) -> Any:
    if isinstance(node, ast.Name) and node.id in _TYPES:
        return _TYPES[node.id]
    if isinstance(node, ast.Constant) and node.value is None:
        return type(None)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _type(node.left, what) | _type(node.right, what)
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in ("list", "dict"):
        inside = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        kinds = tuple(_type(each, what) for each in inside)
        return GenericAlias(list if node.value.id == "list" else dict, kinds)
    raise ValueError(f"{what} is annotated with none of {', '.join(_TYPES)}, list[...], dict[...] or X | None")


def _value(node: ast.expr, what: str) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ValueError(f"the default of {what} is no plain value") from None


class EnvironmentHost:
    """The sandboxed process of a run's environments, and what came of it. Call `close` in the end."""

    def __init__(
        self,
        spec: EnvironmentSpec,
        described: EnvironmentDescription,
        questions: Sequence[Question],
        folder: Path,
        policy: SandboxPolicy,
    ) -> None:
        """`questions`: by their `place`."""
        loading = {"source": described.source, "function": described.name, "name": described.file.name}

        def load() -> SandboxClient:
            what = f"The environment {described.file.name}"
            return user_code.load_code(SandboxClient(_SANDBOX, folder, policy), loading, what)

        self.spec, self.described, self._questions = spec, described, questions
        self._kept, self._numbers = RestartingClient(load, "calls"), 0
        self.calls = 0
        self.failures: Counter[str] = Counter()
        self.kind = _make_proxy(self)

    def next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def reset(self, number: int, place: int) -> str | None:
        """INVALID where it cannot begin: a training without its environment means nothing."""
        question = self._questions[place]
        row = json.loads(json.dumps(dict(question.example.columns), default=str))
        row |= {"prompt": [each.shown() for each in question.prompt], "truth": question.reference}
        opening = self._kept.ask({"reset": number, "row": row}, self.spec.seconds, _MOST_LOST)
        if isinstance(opening, NoAnswer):
            raise SpeciateError(
                Code.INVALID,
                f"The environment {self.described.name} cannot be begun with the example {question.example.id}: "
                f"{opening.detail}.",
                "Mend the file, then call train_model again.",
            )
        return None if opening is None else str(opening)

    def call(self, number: int, name: str, arguments: Mapping[str, object]) -> str:
        """A text, whatever the tool gave: trl would load images from a list. Raises ToolFailed."""
        self.calls += 1
        question = {"call": number, "tool": name, "arguments": arguments}
        answer = self._kept.ask(question, self.spec.seconds, _MOST_LOST)
        if isinstance(answer, NoAnswer):
            self.failures[answer.why] += 1
            raise ToolFailed(answer.detail if answer.why == "raised" else f"{name}: {answer.detail}")
        return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)

    def reward(self, number: int) -> float | None:
        """None: it says nothing, or could not."""
        value = self._kept.ask({"reward": number}, self.spec.seconds, _MOST_LOST)
        if value is None:
            return None
        if isinstance(value, int | float) and math.isfinite(value):
            return float(value)
        self.failures["no_reward"] += 1
        return None

    def state(self) -> CallCounts:
        """What was counted, as JSON."""
        return {"calls": self.calls, "failures": dict(self.failures)}

    def restore(self, state: CallCounts) -> None:
        self.calls, self.failures = state["calls"], Counter(state["failures"])

    def report(self) -> CallCounts:
        return self.state()

    def close(self) -> None:
        self._kept.end()


def _make_proxy(host: EnvironmentHost) -> type[Any]:
    """A class of the environment's name whose public methods are its tools, as trl reads them."""

    def begin(self: Any) -> None:
        self._number = host.next_number()

    def reset(self: Any, place: int, **row: Any) -> str | None:
        return host.reset(self._number, place)

    def reward(self: Any) -> float | None:
        return host.reward(self._number)

    members = {each.name: _make_method(host, each) for each in host.described.tools}
    return type(host.described.name, (), {"__init__": begin, "reset": reset, "_reward": reward, **members})


def _make_method(host: EnvironmentHost, described: Tool) -> Any:
    def method(self: Any, **arguments: Any) -> Any:
        return host.call(self._number, described.name, arguments)

    kinds = {name: each.annotation for name, each in described.signature.parameters.items()}
    me = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    method.__name__ = method.__qualname__ = described.name
    method.__doc__ = described.doc
    method.__annotations__ = kinds | {"return": described.signature.return_annotation}
    method.__signature__ = described.signature.replace(parameters=[me, *described.signature.parameters.values()])  # type: ignore[attr-defined]  # inspect reads it
    return method
