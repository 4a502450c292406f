"""Model versions beyond those that a person said to keep (`retention.keep_versions`), which nothing needs.

What deletes them is the same as what deletes at a person's word (deletion.py), with the same refusals: what serves or
ever served, what another version was made from, and incumbents stay. So do versions that a decision lets into
production, those that a question to a person is about, those that a job that has not ended names, and what a composite
made that goes on.
"""

from __future__ import annotations

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
SELECT 1 FROM decisions WHERE candidate = ? AND verdict = 'promote'
UNION ALL SELECT 1 FROM approvals WHERE state = 'pending' AND arguments ->> 'model' = ?
UNION ALL SELECT 1 FROM jobs LEFT JOIN job_plans ON job_plans.job = jobs.id
WHERE state NOT IN ('succeeded', 'failed', 'cancelled', 'dead')
AND (contains(spec, ?) OR contains(coalesce(plan, ''), ?))
"""
_OF_A_COMPOSITE = """
SELECT 1 FROM model_versions made JOIN jobs ON jobs.id = made.job JOIN jobs whole ON whole.id = jobs.parent
WHERE made.name = ? AND made.version = ? AND whole.state NOT IN ('succeeded', 'failed', 'cancelled', 'dead')
"""


def surplus(tx: Transaction, keep: int | None) -> list[Doomed]:
    """Versions that may go now, each by itself."""
    if keep is None:
        return []
    numbers: dict[str, list[int]] = {}
    for name, version in tx.execute(_VERSIONS):
        numbers.setdefault(name, []).append(version)
    beyond = [Doomed("model", name, (number,)) for name, found in numbers.items() for number in found[:-keep]]
    return [doomed for doomed in beyond if _may_go(tx, doomed)]


def drop(tx: Transaction, keep: int | None) -> list[str]:
    """Delete them; their files follow by a job `gc`. Their refs."""
    dropped = []
    for doomed in surplus(tx, keep):
        deletion.apply_approved(tx, {"noun": doomed.noun, "name": doomed.name, "versions": doomed.numbers}, ACTOR)
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


def _may_go(tx: Transaction, doomed: Doomed) -> bool:
    if any(tx.execute(_WANTED, [ref] * 4) for ref in doomed.refs):
        return False
    if any(tx.execute(_OF_A_COMPOSITE, [doomed.name, number]) for number in doomed.numbers):
        return False
    try:
        deletion.check(tx, doomed)
    except SpeciateError:
        return False
    return True
