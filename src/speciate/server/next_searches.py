"""What to search next: the family behind a row, or the same with less asked; and in words why nothing was found."""

from __future__ import annotations

from typing import Any

from speciate.models import known
from speciate.models.query import Query, not_published
from speciate.models.search import Found
from speciate.server.surface import NextAction
from speciate.workspace.workspace import Workspace


def unfolded(asked: Query, found: Found, use_case: str | None) -> tuple[NextAction, ...]:
    """The first row that stands for others, with them."""
    first = next((hit for hit in found.hits if hit.children), None)
    if first is None:
        return ()
    beside = {} if use_case is None else {"use_case": use_case}
    return (_again(asked.model_copy(update={"children_of": first.row["ref"]}), beside),)


def relaxed(asked: Query, found: Found) -> tuple[NextAction, ...]:
    """Where nothing is left: the same without the constraints that stand in the way, few of them."""
    if not found.lifted:
        return ()
    kept = tuple(each for each in asked.published if each.constraint not in found.lifted)
    lifted = {name: Query.model_fields[name].default for name in found.lifted if name in Query.model_fields}
    return (_again(asked.model_copy(update={**lifted, "published": kept}), {}),)


def in_words(workspace: Workspace, asked: Query, found: Found) -> tuple[str, ...]:
    """What of the constraints cannot hold of any model, and what was left out of the next call."""
    published = known.models(workspace).published() if asked.published and not found.total else set()
    wrong = {each.constraint: not_published(each, published) for each in asked.published} if published else {}
    notes = [said for said in wrong.values() if said]
    notes += [
        f"Of no model here it is known whether it holds {name!r}: it removes all."
        for name, each in found.dropped_by.items()
        if each.unknown == found.known and not wrong.get(name)
    ]
    if not found.total and found.lifted:
        notes.append(f"next_actions asks again without {', '.join(map(repr, found.lifted))}.")
    return tuple(notes)


def _again(asked: Query, beside: dict[str, Any]) -> NextAction:
    """The same call with what a use case had filled in, as far as there are arguments for it."""
    said = asked.model_dump(mode="json", exclude_defaults=True, exclude={"weights"})
    arguments = {"query" if key == "text" else key: value for key, value in said.items()}
    return NextAction(tool="search_models", arguments=arguments | beside)
