"""What a caller meant that guessed a tool or an argument: by letters, by words that other tools use, and by what an
argument of that name belongs to. Asking to approve is answered with who does."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence

from speciate.errors import Call, Code, SpeciateError, unknown
from speciate.server.tool_api import DECLARED

BY_A_PERSON = "No tool and no argument approves: a person runs `speciate approve ID` on a terminal."
_WORDS: dict[str, tuple[str, ...]] = {
    "approve approval approvals authorize authorise confirm grant deny decide": ("list_approvals",),
    "delete remove drop erase forget purge gc tag": ("manage_data",),
    "upload ingest import load read new": ("create_dataset", "add_examples"),
    "clean filter split deduplicate dedupe balance sample": ("curate_dataset",),
    "sql select rows query": ("query_dataset",),
    "finetune tune fit train learn": ("train_model", "specialize"),
    "deploy serve release ship promote publish": ("promote_model",),
    "undo revert rollback": ("rollback_model",),
    "compare benchmark evaluate eval score test judge": ("evaluate_models", "describe_evaluation"),
    "infer inference classify generate answer ask predict": ("predict",),
    "cancel stop kill abort pause resume retry": ("control_job",),
    "wait poll await": ("wait_for_job",),
    "logs log progress job jobs run runs": ("get_job", "list_jobs"),
    "find hub browse search": ("search_models",),
    "schema methods metrics tasks options": ("list_options",),
    "status overview dashboard begin start help": ("get_status", "list_options"),
    "monitor watch schedule drift": ("watch_use_case",),
    "feedback correct": ("record_feedback",),
    "label annotate": ("label_examples",),
    "preview show view see image images": ("preview_dataset",),
    "neighbours neighbors similar nearest": ("find_similar",),
    "export download save": ("export_model", "export_dataset"),
    "datasets": ("describe_dataset",),
    "models": ("search_models", "describe_model"),
}
"""Words that tools are looked for by -> the tools that do it."""
_SHOWN = 3
_BUT_FOR_A_LETTER = 0.9
"""Similarity of a name that is a tool's with a letter or two wrong."""


def unknown_tool(name: str, known: Collection[str]) -> SpeciateError:
    """NOT_FOUND with the tools that are meant: near by letters, by a word of `_WORDS`, or with a word in common."""
    words = set(name.lower().replace("-", "_").split("_"))
    near = difflib.get_close_matches(name[:80], known, _SHOWN)
    misspelt = any(difflib.SequenceMatcher(None, name[:80], each).ratio() > _BUT_FOR_A_LETTER for each in near)
    if not misspelt and not words.isdisjoint(_by_person()):
        return SpeciateError(
            Code.NOT_FOUND, f"There is no tool {name[:80]!r}. {BY_A_PERSON}", next=[Call("list_approvals")]
        )
    meant = [tool for key, tools in _WORDS.items() if not words.isdisjoint(key.split()) for tool in tools]
    near = near if misspelt else [*meant, *near]
    shown = list(dict.fromkeys(tool for tool in near or _alike(words, known) if tool in known))[:_SHOWN]
    if not shown:
        return unknown("tool", name[:80], known, "Call one of the tools that tools/list names.")
    listed = ", ".join(map(repr, shown))
    return SpeciateError(
        Code.NOT_FOUND,
        f"There is no tool {name[:80]!r}; did you mean {listed}?",
        "Call one of the tools that tools/list names.",
    )


def owners(argument: str, tool: str) -> str:
    """`; curate_dataset takes it` for an argument of one or two other tools; else empty."""
    if "approv" in argument.lower():
        return f". {BY_A_PERSON.rstrip('.')}"
    others = [
        name for name, each in sorted(DECLARED.items()) if name != tool and argument in each.arguments.model_fields
    ]
    return f"; {' and '.join(others)} take{'s' * (len(others) == 1)} it" if 0 < len(others) < _SHOWN else ""


def _by_person() -> Sequence[str]:
    return next(iter(_WORDS)).split()


def _alike(words: Collection[str], known: Collection[str]) -> list[str]:
    """Tools that share a word, the plural too."""
    singular = {word.rstrip("s") for word in words}
    return [tool for tool in sorted(known) if singular & {part.rstrip("s") for part in tool.split("_")}]
