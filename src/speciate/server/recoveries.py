"""The calls that an error's recovery names with all of their arguments, as data: what comes next where a job failed.
Pure.

A recovery is our own sentence, but names of columns and files in it may be anybody's: what stands in quotes is never
read as a call, and only calls of tools that neither destroy nor reach outside are taken.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from speciate.server.surface import NextAction

_TAKEN = frozenset(
    {
        "curate_dataset", "define_use_case", "describe_dataset", "describe_evaluation", "describe_model",
        "evaluate_models", "get_job", "get_status", "list_jobs", "list_options", "plan_training", "preview_dataset",
        "query_dataset", "search_models", "train_model", "wait_for_job",
    }
)  # fmt: skip
_NAME = re.compile(r"[a-z]+(?:_[a-z]+)+(?=\()")
_MOST = 3


def calls_in(recovery: str) -> tuple[NextAction, ...]:
    """In their order, each once; one with a gap, such as `label=...`, is left out."""
    found: list[NextAction] = []
    for call in _calls(recovery):
        if call is not None and call not in found:
            found.append(call)
    return tuple(found[:_MOST])


def _calls(text: str) -> Iterator[NextAction | None]:
    place = 0
    while place < len(text):
        sign, before = text[place], text[place - 1 : place]
        if sign in "'\"" and not before.isalnum():  # an apostrophe follows a letter
            place = _after_quote(text, place)
        elif not (before.isalnum() or before == "_") and (named := _NAME.match(text, place)):
            end = _after_brackets(text, named.end())
            yield _call(named[0], text[place:end])
            place = end
        else:
            place += 1


def _after_quote(text: str, start: int) -> int:
    """The place behind what is quoted from `start` on, as `repr` quotes; the end where the quote is not closed."""
    place = start + 1
    while place < len(text) and text[place] != text[start]:
        place += 2 if text[place] == "\\" else 1
    return place + 1


def _after_brackets(text: str, start: int) -> int:
    depth, place = 0, start
    while place < len(text):
        if text[place] in "'\"":
            place = _after_quote(text, place)
            continue
        depth += (text[place] in "([{") - (text[place] in ")]}")
        place += 1
        if depth == 0:
            return place
    return place


def _call(name: str, source: str) -> NextAction | None:
    """None for another tool, and where not every argument is there as a literal."""
    if name not in _TAKEN:
        return None
    try:
        parsed = ast.parse(source, mode="eval").body
        assert isinstance(parsed, ast.Call)
        if parsed.args or any(keyword.arg is None for keyword in parsed.keywords):
            return None
        given = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in parsed.keywords}
    except (SyntaxError, ValueError):
        return None
    return None if _has_gap(given) else NextAction(tool=name, arguments=given)


def _has_gap(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_has_gap, value.values()))
    return any(map(_has_gap, value)) if isinstance(value, list | tuple) else value is ...
