"""Model versions beyond those that a person said to keep (`retention.keep_versions`), which nothing needs.

What deletes them is the same as what deletes at a person's word (deletion.py), with the same refusals: what serves or
ever served, what another version was made from, and incumbents stay. So do versions that a decision lets into
production, those that a question to a person is about, those that a job that has not ended names, and what a composite
made that goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from speciate.errors import SpeciateError
from speciate.production import deletion, tidy
from speciate.production.deletion import Doomed
from speciate.workspace import garbage
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace

ACTOR = "retention"
_VERSIONS = "SELECT name, version FROM model_versions ORDER BY name, version"
_WANTED = """
SELECT candidate FROM decisions WHERE verdict = 'promote'
UNION SELECT arguments ->> 'model' FROM approvals WHERE state = 'pending' AND arguments ->> 'model' IS NOT NULL
UNION SELECT made.name || '@v' || made.version
FROM model_versions made JOIN jobs ON jobs.id = made.job JOIN jobs whole ON whole.id = jobs.parent
WHERE whole.state NOT IN ('succeeded', 'failed', 'cancelled', 'dead')
"""
_UNFINISHED = """
SELECT spec || coalesce(plan, '') FROM jobs LEFT JOIN job_plans ON job_plans.job = jobs.id
WHERE state NOT IN ('succeeded', 'failed', 'cancelled', 'dead')
"""


def surplus(tx: Transaction, keep: int | None) -> list[Doomed]:
    """Versions that may go now, by name. What speaks for versions is read once for all of them: there may be
    thousands, and this stands in the way of whoever writes."""
    if keep is None:
        return []
    numbers: dict[str, list[int]] = {}
    for name, version in tx.execute(_VERSIONS):
        numbers.setdefault(name, []).append(version)
    if not any(len(found) > keep for found in numbers.values()):
        return []
    needed: dict[str, set[str | None]] = {ref: {None} for (ref,) in tx.execute(_WANTED)}
    for each in deletion.needed_models(tx):
        needed.setdefault(each.ref, set()).add(each.by)
    unfinished = "\n".join(text for (text,) in tx.execute(_UNFINISHED))
    found = []
    for name, known in numbers.items():
        may = (n for n in known[:-keep] if _may_go(f"{name}@v{n}", name, needed, unfinished))
        doomed = Doomed("model", name, tuple(may))
        if doomed.numbers and _is_free(tx, doomed):
            found.append(doomed)
    return found


def drop(tx: Transaction, keep: int | None) -> list[str]:
    """Delete them; their files follow by a job `gc` for each name. Their refs."""
    dropped = []
    for doomed in surplus(tx, keep):
        arguments = {"noun": doomed.noun, "name": doomed.name, "versions": doomed.numbers}
        deletion.apply_approved(tx, arguments, ACTOR, surplus=True)
        dropped += doomed.refs
    return dropped


def survey(workspace: Workspace) -> dict[str, Any]:
    """What housekeeping would delete now: as `tidy.survey`, and `versions`."""
    keep = workspace.settings.retention.keep_versions
    found = workspace.database.transact(lambda tx: surplus(tx, keep))
    folders = workspace.folders.models
    sizes = [garbage.size(folders / doomed.name / f"v{number}") for doomed in found for number in doomed.numbers]
    shown = tidy.survey(workspace)
    if found:
        shown["versions"] = {"refs": [ref for doomed in found for ref in doomed.refs], "bytes": sum(sizes)}
    return shown


def _may_go(ref: str, name: str, needed: Mapping[str, Set[str | None]], unfinished: str) -> bool:
    """`needed`: version, or name for all of its versions -> who needs it. What a version says of itself is no need."""
    return ref not in unfinished and not {*needed.get(ref, ()), *needed.get(name, ())} - {ref}


def _is_free(tx: Transaction, doomed: Doomed) -> bool:
    """By the same word as where a person asks."""
    try:
        deletion.check(tx, doomed)
    except SpeciateError:
        return False
    return True
