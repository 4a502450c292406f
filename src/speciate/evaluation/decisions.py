"""Decisions as they are kept: the verdict on a candidate, with the evaluation that it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from speciate.datasets.telling_inputs import TellingInput
from speciate.errors import unknown
from speciate.evaluation.reports.report import Decision, Report, Row
from speciate.refs import id_from_key
from speciate.workspace.database import Database, Transaction
from speciate.workspace.database import Row as CatalogRow

_COLUMNS = "evidence, use_case, use_case_version, evaluation, created"
_INSERT = "INSERT INTO decisions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_NEWEST = "SELECT max(created) FROM decisions"
_STEP_SECONDS = 0.001
_GET = f"SELECT {_COLUMNS} FROM decisions WHERE id = ?"
_IDS = "SELECT id FROM decisions ORDER BY created DESC LIMIT 1000"
_OF = f"""
SELECT {_COLUMNS} FROM decisions
WHERE use_case = ? AND candidate = ? AND (? IS NULL OR evaluation = ?) AND coalesce(evidence ->> 'suite', 'core') = ?
ORDER BY created DESC, id LIMIT 1
"""


_OF_EVALUATION = f"SELECT {_COLUMNS} FROM decisions WHERE evaluation = ? ORDER BY created, id"
_ON_CANDIDATE = f"""
SELECT {_COLUMNS} FROM decisions
WHERE use_case = ? AND candidate = ? AND coalesce(evidence ->> 'suite', 'core') = 'core' ORDER BY created DESC, id
"""
_FIRST = """
SELECT evaluations.dataset FROM decisions JOIN evaluations ON evaluations.id = decisions.evaluation
WHERE decisions.use_case = ? AND coalesce(decisions.evidence ->> 'suite', 'core') = 'core'
ORDER BY decisions.created, decisions.id LIMIT 1
"""


_TO_WHAT_WAS_TOLD = (
    "SELECT job FROM evaluations WHERE id = ?", "SELECT parent FROM jobs WHERE id = ?",
    "SELECT result ->> '$.evaluation' FROM jobs WHERE id = ?",
)  # fmt: skip
"""From an evaluation by its job and its search, one after the other: a join would read every job."""
MOST_ERRORS = 0.02
"""Share of examples that a model may leave without a usable answer: what the bake allows of failed requests."""


class StoredDecision(NamedTuple):
    decision: Decision
    use_case: str
    use_case_version: int
    """Version of the use case whose gates were applied; a newer one may ask for something else."""
    evaluation: str
    created: float


def identify(decision: Decision, evaluation: str) -> Decision:
    """The decision with its id, which follows from the evaluation and the candidate."""
    return decision.model_copy(update={"id": id_from_key("decision", f"{evaluation}/{decision.candidate}")})


def store(tx: Transaction, decision: Decision, *, use_case: str, version: int, evaluation: str) -> None:
    """Keep a decision. Doing it again changes nothing. Its time is never before that of another, for the newest counts,
    also where the clock went back."""
    ((newest,),) = tx.execute(_NEWEST)
    created = tx.now if newest is None or newest <= tx.now else newest + _STEP_SECONDS
    tx.execute(
        _INSERT,
        [
            decision.id, use_case, version, evaluation, decision.candidate, decision.baseline, decision.verdict,
            decision.model_dump_json(), created,
        ],
    )  # fmt: skip


def get(reader: Database | Transaction, decision: str) -> StoredDecision:
    """The decision of this id. Raises NOT_FOUND with near ids."""
    rows = reader.read(_GET, [decision])
    if not rows:
        known = [name for (name,) in reader.read(_IDS, [])]
        raise unknown("decision", decision, known, "Call describe_evaluation: it names its decision.")
    return _stored_decision(rows[0])


def newest(
    reader: Database | Transaction, use_case: str, candidate: str, evaluation: str | None = None, suite: str = "core"
) -> StoredDecision | None:
    """The newest decision on a candidate (`name@v3`) on one of the use case's suites, of one evaluation if named."""
    rows = reader.read(_OF, [use_case, candidate, evaluation, evaluation, suite])
    return _stored_decision(rows[0]) if rows else None


def on_candidate(reader: Database | Transaction, use_case: str, candidate: str) -> list[StoredDecision]:
    """All decisions on a candidate on the core suite, newest first."""
    return [_stored_decision(row) for row in reader.read(_ON_CANDIDATE, [use_case, candidate])]


def of_evaluation(reader: Database | Transaction, evaluation: str) -> list[StoredDecision]:
    return [_stored_decision(row) for row in reader.read(_OF_EVALUATION, [evaluation])]


def first_dataset(reader: Database | Transaction, use_case: str) -> str | None:
    """`name@v3:test` that the first decision of the use case rests on."""
    rows = reader.read(_FIRST, [use_case])
    return str(rows[0][0]) if rows else None


def told_by_its_search(database: Database, evaluation: str) -> str | None:
    """The evaluation whose verdict the search told that this one is a step of: it may have looked twice. None where it
    is no step of one that has ended."""
    found = evaluation
    for query in _TO_WHAT_WAS_TOLD:
        row = database.read_one(query, [found])
        if row is None or row[0] is None:
            return None
        found = str(row[0])
    return found


def without_overtaken(report: Report, late: int) -> Report:
    """The report without verdicts to promote where `late` other candidates were judged on its rows by evaluations that
    were asked for earlier and were not known when this one was planned: no interval here accounts for them. Pure."""
    if late <= 0 or not report.decisions:
        return report
    decided = {each.candidate: _overtaken(each, late) for each in report.decisions}
    decision = decided.get(report.decision.candidate) if report.decision else None
    return report.model_copy(update={"decisions": tuple(decided.values()), "decision": decision})


def _overtaken(decision: Decision, late: int) -> Decision:
    if decision.verdict != "promote":
        return decision
    reason = (
        f"{late} other candidate(s) were judged on these rows meanwhile, for which the {100 * decision.level:.4g} % "
        "intervals do not account: call evaluate_models again, which asks no model twice"
    )
    return decision.model_copy(update={"verdict": "inconclusive", "reasons": (reason, *decision.reasons)})


def without_answers(decision: Decision, row: Row) -> Decision:
    """A verdict to promote becomes hold where the model left too many examples without a usable answer: a score of the
    others, or of worst cases in their place, says little about a system that would fail so often. Pure."""
    if decision.verdict != "promote" or row.coverage >= 1 - MOST_ERRORS:
        return decision
    asked = row.n * row.repeats
    reason = (
        f"{row.model} gave no usable answer to {row.errors} of {max(asked, row.errors)} examples, and at most "
        f"{MOST_ERRORS:.0%} may fail: describe_evaluation(errors=5) tells why"
    )
    return decision.model_copy(update={"verdict": "hold", "reasons": (reason, *decision.reasons)})


def without_copy(decision: Decision, identities: Mapping[str, str]) -> Decision:
    """Hold where the candidate is what it would replace, to the byte: its answers are the same, so that every gate of
    not being worse passes and nothing would change. Pure. `identities`: by model, of everything that it answers by."""
    mine, theirs = identities.get(decision.candidate), identities.get(decision.baseline)
    if mine is None or mine != theirs:
        return decision
    reason = f"{decision.candidate} is the same model as {decision.baseline}, file by file: nothing would change"
    return decision.model_copy(
        update={
            "verdict": "hold", "reasons": (reason, *decision.reasons), "needed_examples": None, "needed_groups": None,
            "same_model": decision.baseline,
        }
    )  # fmt: skip


def with_telling_inputs(report: Report, telling: Mapping[str, tuple[TellingInput, ...]]) -> Report:
    """The report whose decisions name the inputs that alone give the answer. Pure. `telling`: by model."""
    decided = {
        each.candidate: each.model_copy(update={"telling_inputs": telling.get(each.candidate, ())})
        for each in report.decisions
    }
    chosen = decided.get(report.decision.candidate) if report.decision else None
    return report.model_copy(update={"decisions": tuple(decided.values()), "decision": chosen})


def verdict_of(decision: Decision) -> Mapping[str, object]:
    """The verdict as a job's result has one of several."""
    shown = {"id", "candidate", "verdict", "needed_examples", "same_model"}
    return decision.model_dump(mode="json", include=shown, exclude_none=True)


def _stored_decision(row: CatalogRow) -> StoredDecision:
    return StoredDecision(Decision.model_validate_json(row[0]), row[1], row[2], row[3], row[4])
