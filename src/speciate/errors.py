"""The one error of the package: what failed, why, and the next call to make.

Every refusal that a user can cause is a `SpeciateError`; anything else that escapes is a defect and is shown as one.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple, NotRequired, TypedDict

_LONGEST_NAME = 64
_LONGEST_COMPARED = 1000
"""Characters: a paste of megabytes would be compared for seconds, and no name is so long."""


class Code(StrEnum):
    """What kind of refusal. Programs branch on this, never on the text."""

    NOT_FOUND = "not_found"
    """The thing that was named does not exist."""
    INVALID = "invalid"
    """An argument or an input is wrong; the same call will fail again."""
    CONFLICT = "conflict"
    """Someone else changed it first, or a key was used with other arguments."""
    REFUSED = "refused"
    """Allowed by form, forbidden by policy or a promise (roots, licence, a gate)."""
    MISSING_EXTRA = "missing_extra"
    """A library that this needs is not installed."""
    UNAVAILABLE = "unavailable"
    """Cannot be done now (full disk, locked workspace); the same call may succeed later."""
    NEWER_SCHEMA = "newer_schema"
    """The workspace was written by a newer version."""
    DAMAGED = "damaged"
    """A file is not what was written; what does not need it is usable."""
    INTERNAL = "internal"
    """A defect in speciate; the daemon's log has the traceback."""


class CallDocument(TypedDict):
    """A `Call` as JSON; with `again` a `CallAgain`, whose arguments are the changes alone."""

    tool: str
    arguments: Mapping[str, Any]
    again: NotRequired[bool]


class Call(NamedTuple):
    """A call of a tool that comes next, with all of its arguments. `purpose` ends the sentence: `for its tags`."""

    tool: str
    arguments: Mapping[str, Any] = MappingProxyType({})
    purpose: str = ""

    def __str__(self) -> str:
        """The call as a sentence: `Call describe_dataset(dataset='lesions') for its tags.`"""
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        gap = " " if self.purpose[:1].isalnum() else ""
        return f"Call {self.tool}({arguments}){gap}{self.purpose}."

    def document(self) -> CallDocument:
        """The call as JSON; what is no JSON is its text."""
        return {"tool": self.tool, "arguments": json.loads(json.dumps(dict(self.arguments), default=str))}


class CallAgain(NamedTuple):
    """The call that was refused, with some arguments changed: who raises the error need not know the others.

    `tool` is empty where the change suits any. None leaves an argument out; a mapping changes keys of the mapping that
    was given, and None among its values takes a key away.
    """

    tool: str
    changes: Mapping[str, Any]
    purpose: str = ""

    def __str__(self) -> str:
        """The call as a sentence: `Call train_model again with resources={'gpu': 1} and without teacher.`"""
        given, dropped = list[str](), list[str]()
        for name, change in self.changes.items():
            kept = _without_none(change) if isinstance(change, Mapping) else change
            given += [f"{name}={kept!r}"] if kept not in (None, {}) else []
            dropped += [name] if change is None else []
            dropped += [f"{name}.{key}" for key, value in change.items() if value is None] if kept is not change else []
        said = [f"with {', '.join(given)}"] * bool(given) + [f"without {', '.join(dropped)}"] * bool(dropped)
        gap = " " if self.purpose[:1].isalnum() else ""
        return f"Call {self.tool + ' ' if self.tool else ''}again {' and '.join(said)}{gap}{self.purpose}."

    def document(self) -> CallDocument:
        """The call as JSON, still without the arguments that stay."""
        return {**Call(self.tool, self.changes).document(), "again": True}


def complete(document: Mapping[str, Any], tool: str, arguments: Mapping[str, Any] | None) -> CallDocument | None:
    """The whole call that a document of `next_documents` stands for, where `tool(**arguments)` was refused; None where
    another call was, or where it is not known."""
    if not document.get("again"):
        return {"tool": document["tool"], "arguments": document["arguments"]}
    if document["tool"] not in {"", tool} or arguments is None:
        return None
    merged = dict(arguments)
    for name, change in document["arguments"].items():
        before = merged.get(name)
        if isinstance(change, Mapping):
            kept = before if isinstance(before, Mapping) else {}
            merged[name] = _without_none({**kept, **change}) or None
        else:
            merged[name] = change
    merged.pop("idempotency_key", None)  # it stands for the call that was refused
    return {"tool": tool, "arguments": _without_none(merged)}


def _without_none(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


class SpeciateError(Exception):
    """`message` says what failed and why and quotes the value. `advice` says in words what to do about it, `next` which
    calls, as data. `foreign` is what a library said of it, or what else may quote data: shown below `untrusted`, and in
    no `str`."""

    def __init__(
        self,
        code: Code,
        message: str,
        advice: str = "",
        foreign: str = "",
        next: Sequence[Call | CallAgain] = (),  # noqa: A002 - what comes next
    ) -> None:
        super().__init__(code, message, advice, foreign, tuple(next))  # all in args, so that it pickles
        self.code, self.message, self.advice, self.foreign, self.next = code, message, advice, foreign, tuple(next)

    @property
    def recovery(self) -> str:
        """What to do now, as text: the advice and the calls."""
        return " ".join([self.advice, *map(str, self.next)]).strip()

    def next_documents(self) -> tuple[CallDocument, ...]:
        """The calls as JSON; `complete` makes whole calls of them."""
        return tuple(each.document() for each in self.next)

    def __str__(self) -> str:
        return f"{self.message} {self.recovery}".strip()

    @property
    def whole(self) -> str:
        """The message with what a library said: for places that are below `untrusted` themselves."""
        return f"{self.message} {self.foreign}".strip()


def near_names(value: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The names that look most like `value`, which may be any paste; the nearest first."""
    return difflib.get_close_matches(value[:_LONGEST_COMPARED], list(known), count)


def closest(value: str, known: Iterable[str], count: int = 3) -> str:
    """`"did you mean 'a', 'b'?"`, or the first known names where nothing is near, or an empty string."""
    known = sorted(known)
    near = near_names(value, known, count)
    if near:
        return "did you mean " + ", ".join(map(quote_name, near)) + "?"
    if known:
        shown = ", ".join(map(quote_name, known[:10]))
        return f"known: {shown}" + (f" and {len(known) - 10} more." if len(known) > 10 else ".")
    return "there are none yet."


def quote_name(name: str) -> str:
    """The name as Python writes it, so without characters that hide or turn text; cut, for it may be a column of
    anybody's."""
    return repr(name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…")


def unknown(
    noun: str,
    value: str,
    known: Iterable[str],
    advice: str = "",
    next: Sequence[Call | CallAgain] = (),  # noqa: A002 - what comes next
) -> SpeciateError:
    """A name that does not exist: `unknown("dataset", "lesion", names, next=[Call("describe_dataset")])`."""
    return SpeciateError(Code.NOT_FOUND, f"There is no {noun} {value!r}; {closest(value, known)}", advice, "", next)
