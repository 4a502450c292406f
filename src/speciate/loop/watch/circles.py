"""Loops of loops: use cases whose models lean on one another, so that each would take the other's promotions for news.

A use case leans on another one if that one's model is its incumbent, a teacher of what serves it, or the teacher of its
watch. A circle is refused when a watch is made, and keeps an episode from beginning where it came about later."""

from __future__ import annotations

import json
from collections.abc import Mapping

from speciate import use_cases
from speciate.use_cases import UseCase
from speciate.workspace.database import Database, Transaction

_TAUGHT = """
SELECT DISTINCT aliases.use_case, model_versions.card -> '$.teachers' FROM aliases
JOIN model_versions ON model_versions.name = split_part(aliases.model, '@v', 1)
    AND CAST(model_versions.version AS VARCHAR) = split_part(aliases.model, '@v', 2)
WHERE aliases.alias = 'production' AND json_array_length(model_versions.card, '$.teachers') > 0
"""
_MADE_FOR = "SELECT DISTINCT name, card ->> '$.use_case' FROM model_versions WHERE (card ->> '$.use_case') IS NOT NULL"
_OWN = "-model"
"""Ends the usual name of a use case's model."""


def leanings(
    reader: Database | Transaction, teachers: Mapping[str, str], definitions: Mapping[str, UseCase] | None = None
) -> dict[str, set[str]]:
    """Use case -> others whose models it leans on. `teachers`: of watches, by the settings. `definitions`: those in
    force, where the caller has read them."""
    known = use_cases.in_force(reader) if definitions is None else definitions
    named = [(name, definition.incumbent) for name, definition in known.items() if definition.incumbent]
    named += [(str(name), str(each)) for name, taught in reader.read(_TAUGHT) for each in json.loads(taught)]
    named += list(teachers.items())
    if not named:
        return {}
    made_for: dict[str, set[str]] = {}
    for name, use_case in reader.read(_MADE_FOR):
        made_for.setdefault(str(name), set()).add(str(use_case))
    found: dict[str, set[str]] = {}
    for name, ref in named:
        model = ref.partition("@")[0]
        others = (made_for.get(model, set()) | {model, model.removesuffix(_OWN)}) & known.keys()
        found.setdefault(name, set()).update(others - {name})
    return found


def circle(leans: Mapping[str, set[str]], use_case: str) -> list[str]:
    """Use cases on the way back to this one; empty where there is no way. Pure."""
    trail, left = [use_case], [use_case]
    while left:
        for other in sorted(leans.get(left.pop(), ())):
            if other == use_case:
                return trail
            if other not in trail:
                trail.append(other)
                left.append(other)
    return []
