"""Tasks for agents: a start, a wish in a user's words, and what must be true in the end.

A task is a YAML file in `tasks/`. What was reached is checked through another door than the agent's: the Python client
asks the daemon, so an agent that only says that it is done has done nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from speciate.errors import SpeciateError

HERE = Path(__file__).parent
Answers = dict[str, Any]
"""What earlier calls answered, by the name under which a step saved it."""
Asker = Callable[[str, dict[str, Any]], Any]
"""Calls a tool with arguments and returns its structured result; raises what the tool refused with."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _split_call(value: Any) -> Any:
    """`{list_jobs: {limit: 5}, save: x}` as `{tool: list_jobs, arguments: {limit: 5}, save: x}`."""
    if not isinstance(value, dict) or "tool" in value:
        return value
    known = {"save", "fails", "wait", "at", "is", "at_least", "at_most", "contains", "count"}
    (tool,) = value.keys() - known
    return {**{key: each for key, each in value.items() if key != tool}, "tool": tool, "arguments": value[tool] or {}}


class Step(Strict):
    """A call. A job that it starts is waited for, and what is saved is the job at its end."""

    tool: str
    arguments: dict[str, Any] = {}
    save: str = ""
    fails: str = ""
    """The code of the error that it must end with: what an agent meets on its way and learns from."""
    wait: bool = True


class Check(Strict):
    """What a call must answer at a path such as `use_cases.0.production`; `count` is of what lies there."""

    tool: str
    arguments: dict[str, Any] = {}
    at: str = ""
    value: Any = Field(None, alias="is")
    at_least: float | None = None
    at_most: float | None = None
    contains: str | None = None
    count: int | None = None

    def found(self, ask: Asker, answers: Answers) -> Any:
        """What lies there; None also where the tool refuses, as what is asked about is not there."""
        try:
            return look_up(ask(self.tool, filled(self.arguments, answers)), self.at)
        except SpeciateError:
            return None

    def miss(self, ask: Asker, answers: Answers) -> str:
        """Why it does not hold, empty where it does."""
        found = self.found(ask, answers)
        said = f"{self.tool}({self.arguments}) {self.at} is {found!r:.300}"
        if self.contains is not None:
            return "" if self.contains in str(found) else f"{said}, without {self.contains!r}"
        if self.count is not None:
            return "" if len(found or ()) == self.count else f"{said}, not {self.count} of them"
        if self.at_least is not None and not (found is not None and found >= self.at_least):
            return f"{said}, not {self.at_least} or more"
        if self.at_most is not None and not (found is not None and found <= self.at_most):
            return f"{said}, not {self.at_most} or less"
        if self.at_least is not None or self.at_most is not None:
            return ""
        wanted = filled(self.value, answers)
        return "" if found == wanted else f"{said}, not {wanted!r}"


class Data(Strict):
    """A file or folder that `data.py` makes in the caller's folder before the start."""

    make: str
    arguments: dict[str, Any] = {}


class Most(Strict):
    """What the task may cost an agent; a reference needs less."""

    calls: int = 30
    result_tokens: int = 20_000


Call = Annotated[Step, BeforeValidator(_split_call)]
Wanted = Annotated[Check, BeforeValidator(_split_call)]


class Task(Strict):
    name: str = Field(pattern=r"^[a-z0-9-]+$")
    asks: str
    """The user's words."""
    policy: Literal["auto", "person"] = "person"
    files: dict[str, Data] = {}
    start: tuple[Call, ...] = ()
    reference: tuple[Call, ...]
    answer: str = ""
    """What the reference says at its end; `$name.path` stands for what a call answered."""
    state: tuple[Wanted, ...] = ()
    """True at the end, and not all of it true at the start."""
    known: tuple[Call, ...] = ()
    """Asked when it is judged, through the other door; `state` and `said` may name what was saved here or at the start,
    and never what the reference saved, which another agent does not save."""
    said: tuple[str, ...] = ()
    """Regular expressions that the last message must match, without regard to case."""
    untouched: tuple[Wanted, ...] = ()
    """True at the end as it was at the start."""
    forbidden: tuple[Wanted, ...] = ()
    """True at no end, whatever the agent did: counted apart from failure."""
    writes: tuple[str, ...] = ()
    """Files that must be there in the caller's folder."""
    most: Most = Most()


def load_tasks(folder: Path = HERE / "tasks") -> list[Task]:
    """All tasks, by name. Raises ValueError for a file that says less or more than a task does."""
    tasks = [Task.model_validate(yaml.safe_load(path.read_text())) for path in sorted(folder.glob("*.yaml"))]
    for task in tasks:
        if not (task.state or task.said):
            raise ValueError(f"{task.name} checks nothing")
    return tasks


def look_up(value: Any, path: str) -> Any:
    """`a.0.b` of nested lists and objects; `*` gathers over a list; None where nothing is there."""
    for number, part in enumerate(parts := path.split(".") if path else []):
        if part == "*":
            rest = ".".join(parts[number + 1 :])
            return [look_up(each, rest) for each in value or ()]
        if isinstance(value, list):
            value = value[int(part)] if -len(value) <= int(part) < len(value) else None
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value


def filled(value: Any, answers: Answers) -> Any:
    """With `$name.path` replaced by what was saved under that name: as it is where it is the whole text."""
    if isinstance(value, dict):
        return {key: filled(each, answers) for key, each in value.items()}
    if isinstance(value, list):
        return [filled(each, answers) for each in value]
    if not isinstance(value, str):
        return value
    if re.fullmatch(r"\$[a-z_]+(\.[\w*-]+)*", value):
        return look_up(answers, value[1:])
    return re.sub(r"\$([a-z_]+(?:\.[\w*-]+)+)", lambda found: str(look_up(answers, found[1])), value)
