"""The rows that evaluations judged and the models that were scored on them, as the catalog keeps them.

From that follow what a new evaluation has to account for (`looks`) and whether a use case still stands on the same
suite (`suite_change`): its core decisions form a line that begins with the first one, or with the last promotion that
a person approved, and goes on with each decision that holds every row of the line so far.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from pydantic import ValidationError

from speciate import use_cases
from speciate.datasets import version_rows, versions
from speciate.datasets.versions import Manifest
from speciate.errors import SpeciateError
from speciate.evaluation import judged_rows
from speciate.evaluation.holdout_reuse import LooksOnRows
from speciate.evaluation.judged_rows import ROWS, JudgedSuite, Packed
from speciate.evaluation.reports.report import Report, Role, Suite, SuiteChange
from speciate.evaluation.scorers import sandboxed_scorers
from speciate.refs import DatasetRef, dataset_ref
from speciate.tasks.example_targets import TARGET_IN_MEDIA, TARGET_OPTIONAL, is_label, usual_target
from speciate.tasks.families import preference
from speciate.tasks.families.control import ENVIRONMENT, SEED
from speciate.use_cases import COLUMN, CONSTANT, NEAREST, UseCase
from speciate.vocabulary import Family, find_metric, find_task
from speciate.workspace.database import Database, Transaction
from speciate.workspace.workspace import Folders, Workspace

Reader = Database | Transaction

_KEEP_SUITE = "INSERT INTO suites VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_KEEP_FACET = "INSERT INTO judged_suites VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_KEEP_MODEL = "INSERT INTO judged_models VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_UNRECORDED = """
SELECT evaluations.id, evaluations.dataset, evaluations.report FROM evaluations
LEFT JOIN judged_suites ON judged_suites.evaluation = evaluations.id
WHERE judged_suites.evaluation IS NULL AND starts_with(evaluations.dataset, ?)
ORDER BY evaluations.created DESC LIMIT 200
"""
_SUITES = "SELECT id, packed FROM suites"
_MOVE_FACETS = "UPDATE judged_suites SET suite = ? WHERE suite = ?"
_DROP_SUITE = "DELETE FROM suites WHERE id = ?"
_PACKED = "SELECT packed FROM suites WHERE id = ?"
_SIZE = "SELECT size FROM suites WHERE id = ?"
_FACETS = "SELECT facet, suite, target FROM judged_suites WHERE evaluation = ?"
_LOOKS = """
SELECT judged_suites.evaluation, judged_models.model, judged_models.role, judged_suites.suite, model_versions.id
FROM judged_suites LEFT JOIN judged_models ON judged_models.evaluation = judged_suites.evaluation
LEFT JOIN model_versions ON concat(model_versions.name, '@v', model_versions.version) = judged_models.model
LEFT JOIN evaluations ON evaluations.id = judged_suites.evaluation LEFT JOIN jobs ON jobs.id = evaluations.job
WHERE judged_suites.facet = ''
"""
_LOOKS_BEFORE = f"""{_LOOKS}
AND (coalesce(jobs.created, evaluations.created, 0) <= ? OR list_contains(?::VARCHAR[], evaluations.id))
"""
_LATER = """
SELECT evaluations.id, job_plans.plan FROM evaluations JOIN jobs ON jobs.id = evaluations.job
LEFT JOIN job_plans ON job_plans.job = jobs.id WHERE jobs.created > ? AND jobs.id <> ?
"""
_WEIGHTS = "SELECT id FROM model_versions WHERE concat(name, '@v', version) = ?"
_UNDER_WAY = """
SELECT jobs.id, job_plans.plan FROM jobs JOIN job_plans ON job_plans.job = jobs.id
WHERE jobs.kind = 'evaluate' AND jobs.ended IS NULL
"""
_LINE = """
SELECT decisions.evaluation, evaluations.dataset, min(decisions.created) AS decided
FROM decisions JOIN evaluations ON evaluations.id = decisions.evaluation
WHERE decisions.use_case = ? AND coalesce(decisions.evidence ->> 'suite', 'core') = ?
GROUP BY decisions.evaluation, evaluations.dataset ORDER BY decided, decisions.evaluation
"""
_APPROVED = """
SELECT coalesce(audit.evidence ->> 'evaluation', decisions.evaluation), audit.stamp FROM audit
LEFT JOIN decisions ON decisions.id = audit.evidence ->> 'decision'
WHERE audit.use_case = ? AND audit.action = 'promote' AND audit.evidence ->> 'approved_by' IS NOT NULL
AND coalesce(audit.evidence ->> 'evaluation', decisions.evaluation) IS NOT NULL ORDER BY audit.seq
"""
_PROMOTED = """
SELECT DISTINCT audit.seq, coalesce(audit.evidence ->> 'evaluation', decisions.evaluation) FROM audit
LEFT JOIN decisions ON decisions.id = audit.evidence ->> 'decision' WHERE audit.action = 'promote'
"""
_ELSEWHERE = """
SELECT evaluations.id, evaluations.dataset FROM evaluations
WHERE evaluations.created <= ? AND evaluations.created > ? AND evaluations.id <> ?
AND evaluations.use_case IS DISTINCT FROM ?
AND (evaluations.use_case IS NULL OR evaluations.id IN (
    SELECT judged_models.evaluation FROM judged_models
    LEFT JOIN model_versions AS scored ON concat(scored.name, '@v', scored.version) = judged_models.model
    WHERE regexp_replace(judged_models.model, '@v[0-9]+', '', 'g') = regexp_replace(?, '@v[0-9]+', '', 'g')
    OR scored.id IN (SELECT id FROM model_versions WHERE concat(name, '@v', version) = ?)
)) ORDER BY evaluations.created, evaluations.id
"""
_CREATED = "SELECT created FROM evaluations WHERE id = ?"


class Line(NamedTuple):
    """The suite that a use case stands on. `dataset`: the version that its newest decision judged."""

    dataset: str
    facets: Mapping[str, str]
    """Facet -> id of the suite."""
    target: str | None = None
    """The column of references."""


# Reading rows


def read_suite(
    folders: Folders,
    manifest: Manifest,
    split: str | None,
    family: Family,
    column: str | None,
    answers: Collection[str],
    read: Collection[str] = (),
) -> JudgedSuite:
    """The rows of a split that an evaluation judges. `column`: of `reference_column`. `answers`: models such as
    `column:rules`, whose answers lie in the rows. `read`: of `columns_read`."""
    there = version_rows.stored_columns(folders, manifest)
    column = column if column in there else None
    facets = {name: name.removeprefix(COLUMN) for name in judged_rows.column_facets(sorted(answers))}
    facets |= {judged_rows.READ + name: name for name in sorted(read)}
    facets = {facet: name for facet, name in facets.items() if name in there}
    wanted = judged_rows.columns_of(there, column, *facets.values())
    table = version_rows.read(folders, manifest, wanted, splits=None if split is None else {split}, usable=True)
    rows = judged_rows.pack(table, column, optional=family in TARGET_OPTIONAL)
    cells = {facet: judged_rows.pack_cells(table, name) for facet, name in facets.items()}
    return JudgedSuite({ROWS: rows, **cells}, column)


def columns_read(manifest: Manifest, task: str, use_case: UseCase | None, role: str, scorer: str | None) -> set[str]:
    """The columns beside reference and group that a judgement needs: gates slice by them, or scores read them. A
    scorer of the user's may read all but the input."""
    gates = use_case.gates_on(role) if use_case else ()
    found = {gate.column for gate in gates if gate.column is not None and gate.rule != "consent"} - {"label"}
    if task == preference.PREFERENCE:
        found.add(preference.REJECTED)
    if find_task(task).family == "control":
        found |= {ENVIRONMENT, SEED}
    if scorer is not None:
        column = sandboxed_scorers.COLUMN_READ.get(scorer)
        found |= {column} if column else set(manifest.columns) - set(manifest.inputs)
    return found & set(manifest.columns)


def reference_column(manifest: Manifest, family: Family, target: str | None) -> str | None:
    """The stored column that an evaluation scores answers against; None where references lie in the media."""
    if family in TARGET_IN_MEDIA or (family == "generation" and target is None):
        return None
    return "label" if is_label(manifest, target) else target


# Keeping


def store(tx: Transaction, evaluation: str, suite: JudgedSuite, roles: Mapping[str, Role]) -> None:
    """What an evaluation judged, and whom. Doing it again changes nothing."""
    for facet, rows in suite.facets.items():
        name = judged_rows.suite_id(rows)
        tx.execute(_KEEP_SUITE, [name, len(rows), judged_rows.to_bytes(rows)])
        tx.execute(_KEEP_FACET, [evaluation, facet, name, suite.target])
    for model, role in roles.items():
        tx.execute(_KEEP_MODEL, [evaluation, model, role])


def forget(tx: Transaction, media: Collection[str]) -> None:
    """Take purged media out of every suite. A person approved the purge, so the suite goes on without their rows."""
    for suite, packed in tx.execute(_SUITES):
        rows = judged_rows.from_bytes(bytes(packed))
        left = judged_rows.without(rows, media)
        if len(left) == len(rows):
            continue
        name = judged_rows.suite_id(left)
        tx.execute(_KEEP_SUITE, [name, len(left), judged_rows.to_bytes(left)])
        tx.execute(_MOVE_FACETS, [name, suite])
        tx.execute(_DROP_SUITE, [suite])


def suite_of(reader: Reader, evaluation: str) -> JudgedSuite | None:
    """What an evaluation judged; None for one from before rows were kept."""
    found = reader.read(_FACETS, [evaluation])
    if not any(facet == ROWS for facet, _, _ in found):
        return None
    return JudgedSuite({facet: packed(reader, suite) for facet, suite, _ in found}, found[0][2])


def record_missing(workspace: Workspace, dataset: str) -> None:
    """Keep the rows of evaluations on a dataset that are from before rows were kept, as far as its versions are there.
    Otherwise an upgrade would forget on what decisions rest."""
    for evaluation, ref, text in workspace.database.read(_UNRECORDED, [f"{dataset}@v"]):
        try:
            report = Report.model_validate_json(text)
            found = _judged_by(workspace, dataset_ref(ref), report)
        except (SpeciateError, ValidationError):
            continue  # deleted, or nothing that tells
        roles: dict[str, Role] = {row.model: _former_role(row.model, report) for row in report.leaderboard}
        workspace.database.transact(partial(store, evaluation=evaluation, suite=found, roles=roles))


def _judged_by(workspace: Workspace, ref: DatasetRef, report: Report) -> JudgedSuite:
    manifest = versions.resolve(workspace.database, ref)
    family, target = find_metric(report.metric).families[0], None
    read = set[str]()
    if report.use_case:
        use_case = use_cases.get(workspace.database, report.use_case, report.use_case_version)
        family = find_task(use_case.task).family
        target = use_case.target_column or usual_target(manifest, use_case.task)
        role = report.decision.suite if report.decision else "core"
        read = columns_read(manifest, use_case.task, use_case, role, None)
    column = reference_column(manifest, family, target or manifest.label)
    answers = [row.model for row in report.leaderboard]
    return read_suite(workspace.folders, manifest, ref.split, family, column, answers, read)


def _former_role(model: str, report: Report) -> Role:
    if model == report.baseline and report.use_case:
        return "incumbent"
    return "baseline" if model.startswith((COLUMN, CONSTANT, NEAREST)) else "candidate"


# Looks


class Scored(NamedTuple):
    """A model in an evaluation, or in a job, that looked at the rows."""

    evaluation: str
    model: str | None
    role: str | None
    suite: str = ""
    """Id of the rows as they were then."""
    weights: str | None = None
    """Content hash of a registered model."""


def looks(reader: Reader, rows: Packed, judged_now: Collection[str], waiting: Collection[Scored] = ()) -> LooksOnRows:
    """What these rows were asked before: by anybody, for any use case or none. `waiting`: of `under_way`."""
    return _count(reader, rows, judged_now, _LOOKS, [], waiting)


def looks_at_split(workspace: Workspace, use_case: UseCase, manifest: Manifest, split: str) -> LooksOnRows:
    """What the rows of a split were asked before, as the verdict of a use case's candidates will account for it."""
    family = find_task(use_case.task).family
    target = use_case.target_column or usual_target(manifest, use_case.task) or manifest.label
    column = reference_column(manifest, family, target)
    rows = read_suite(workspace.folders, manifest, split, family, column, ()).rows
    return looks(workspace.database, rows, ()) if len(rows) else LooksOnRows()


def looks_before(reader: Reader, rows: Packed, judged_now: Collection[str], job: str, asked: float) -> LooksOnRows:
    """What these rows were asked before, counted at the end of a job that was asked for at `asked`: by evaluations that
    were asked for before it, and those after it which did not know of it. So of two that were planned together each
    counts the other, or is counted."""
    unaware = [name for name, text in reader.read(_LATER, [asked, job]) if job not in _known_jobs(text)]
    return _count(reader, rows, judged_now, _LOOKS_BEFORE, [asked, unaware], ())


def all_looks(reader: Reader) -> list[Scored]:
    """Every model in every evaluation whose rows are known."""
    return [Scored(*row) for row in reader.read(_LOOKS, [])]


def promotions(reader: Reader) -> list[tuple[int, str]]:
    """(row of the audit, evaluation that it rested on) of every promotion."""
    return [(int(seq), str(evaluation)) for seq, evaluation in reader.read(_PROMOTED, [])]


def _known_jobs(plan: str | None) -> Collection[str]:
    """Evaluations under way that a job's plan accounts for."""
    payload = json.loads(plan or "{}").get("payload") or {}
    return payload.get("known_jobs") or ()


def _count(
    reader: Reader, rows: Packed, judged_now: Collection[str], sql: str, parameters: list[object],
    waiting: Collection[Scored],
) -> LooksOnRows:  # fmt: skip
    by_suite: dict[str, list[Scored]] = {}
    for row in reader.read(sql, parameters):
        each = Scored(*row)
        by_suite.setdefault(each.suite, []).append(each)
    mine = judged_rows.suite_id(rows)
    scored = [
        each
        for suite, entries in by_suite.items()
        if suite == mine or judged_rows.overlaps(packed(reader, suite), rows)
        for each in entries
    ]
    evaluations = {each.evaluation for each in scored}
    promoted = {seq for seq, evaluation in reader.read(_PROMOTED, []) if evaluation in evaluations}
    weights = {str(found) for model in judged_now for (found,) in reader.read(_WEIGHTS, [model])}
    candidates = len(count_candidates([*scored, *waiting], judged_now, mine, weights))
    return LooksOnRows(candidates=candidates, evaluations=len(evaluations), promotions=len(promoted))


def count_candidates(
    scored: Collection[Scored], judged_now: Collection[str], suite: str = "", weights: Collection[str] = ()
) -> set[tuple[str, str]]:
    """Candidates before, each once for every state of the suite that it was judged on: who judges one model again and
    again while rows join may stop at a lucky moment. Judging the same models on the same suite again is no further
    look. Pure. `judged_now`: the candidates on `suite`, with these `weights`.

    Named baselines and what was in use are none. But where one of `judged_now`, a version of it or its weights under
    another name was scored as a baseline before, that was how it was chosen, so whatever was a baseline on these rows
    counts, too.
    """
    names = {_versionless(model) for model in judged_now}
    models = [
        each for each in scored if each.model is not None and not each.model.startswith((COLUMN, CONSTANT, NEAREST))
    ]
    chosen_so = any(
        each.role == "baseline" and (_versionless(str(each.model)) in names or each.weights in weights)
        for each in models
    )
    counted = {"candidate", "baseline"} if chosen_so else {"candidate"}
    found = {(str(each.model), each.suite) for each in models if each.role in counted}
    return found - {(model, suite) for model in judged_now}


def _versionless(model: str) -> str:
    """`points@v3` as `points`; of an ensemble so with each member."""
    return re.sub(r"@v\d+", "", model)


def under_way(reader: Reader, manifest: Manifest, split: str | None, rows: Packed) -> list[Scored]:
    """Models of evaluations on these rows, or on this dataset's split, that were asked for and have not ended: asked
    all at once, each would count none of the others."""
    scored, mine = [], judged_rows.suite_id(rows)
    for job, text in reader.read(_UNDER_WAY, []):
        payload = json.loads(text).get("payload") or {}
        suite = payload.get("suite_id") or ""
        same_split = (payload.get("dataset") or {}).get("name") == manifest.name and payload.get("split") == split
        if suite == mine or same_split:
            scored += [Scored(job, model, role, suite) for model, role in (payload.get("roles") or {}).items()]
    return scored


# The suite that a use case stands on


def line(reader: Reader, use_case: str, role: Suite = "core", before: str | None = None) -> Line | None:
    """The suite that a use case stands on in this role, by its decisions until the evaluation `before`, which is left
    out. None where no rows are known, or where a person looked at `before` when they approved a promotion.
    """
    evaluations = [_Judged(*row) for row in reader.read(_LINE, [use_case, role])]
    names = [each.evaluation for each in evaluations]
    if before in names:
        evaluations = evaluations[: names.index(before) + 1]
    start = _approved_place(reader, use_case, role, evaluations)
    if start is not None and before in names and start == len(evaluations) - 1:
        return None
    if before in names:
        evaluations = evaluations[:-1]
    if start is not None:
        evaluations = evaluations[start:]
    found: Line | None = None
    for evaluation, dataset, _ in evaluations:
        rows = reader.read(_FACETS, [evaluation])
        facets = {str(facet): str(suite) for facet, suite, _ in rows}
        if ROWS not in facets:
            continue
        if found is None:
            found = Line(dataset, facets, rows[0][2])
        elif not _change(reader, found, facets, partial(_packed_facet, reader, facets)).is_another:
            found = Line(dataset, {**found.facets, **facets}, rows[0][2])
    return found


class _Judged(NamedTuple):
    evaluation: str
    dataset: str
    decided: float


def _approved_place(reader: Reader, use_case: str, role: Suite, evaluations: Sequence[_Judged]) -> int | None:
    """Which of these evaluations the line begins with, since a person approved a promotion that rested on it. On a
    further suite that was the newest one at that moment."""
    approved = [(str(evaluation), stamp) for evaluation, stamp in reader.read(_APPROVED, [use_case])]
    if role != "core":
        stamp = approved[-1][1] if approved else float("-inf")
        return max((place for place, each in enumerate(evaluations) if each.decided <= stamp), default=None)
    names = {each.evaluation: place for place, each in enumerate(evaluations)}
    return next((names[evaluation] for evaluation, _ in reversed(approved) if evaluation in names), None)


def suite_change(reader: Reader, stands_on: Line, suite: JudgedSuite) -> SuiteChange:
    """What became of the rows that a use case stands on, in a suite that shall judge for it."""
    ids = {facet: judged_rows.suite_id(rows) for facet, rows in suite.facets.items()}
    return _change(reader, stands_on, ids, suite.facets.__getitem__)


def change_since_elsewhere(reader: Reader, use_case: str, evaluation: str, candidate: str) -> SuiteChange | None:
    """How the suite changed since evaluations that were none of this use case's decisions: without a use case, or of
    this candidate, a version of it, or its weights under another name, for another one. Their authors saw on which rows
    it errs. None where no row was lost since any of them.

    Counted are evaluations since the last promotion of the use case that a person approved.
    """
    suite = suite_of(reader, evaluation)
    created = reader.read(_CREATED, [evaluation])
    if suite is None or not created:
        return None
    approved = [str(row[0]) for row in reader.read(_APPROVED, [use_case])]
    if evaluation in approved:
        return None
    since = max((row[0] for each in approved for row in reader.read(_CREATED, [each])), default=float("-inf"))
    asked = [created[0][0], since, evaluation, use_case, candidate, candidate]
    for other, dataset in reader.read(_ELSEWHERE, asked):
        before = suite_of(reader, other)
        if before is None or not judged_rows.overlaps(before.rows, suite.rows):
            continue
        if before.target != suite.target and not judged_rows.share_a_row(before.rows, suite.rows):
            continue  # the same media with references of another kind
        if (change := judged_rows.compare(before.rows, suite.rows, str(dataset))).is_another:
            return change
    return None


def _change(reader: Reader, stands_on: Line, ids: Mapping[str, str], rows_of: Callable[[str], Packed]) -> SuiteChange:
    """`ids` of the suites that stand against it, by facet; rows are compared only where these differ."""

    def compare(facet: str) -> SuiteChange:
        before = stands_on.facets[facet]
        if before == ids[facet]:
            return SuiteChange(judged=reader.read(_SIZE, [before])[0][0], since=stands_on.dataset)
        return judged_rows.compare(packed(reader, before), rows_of(facet), stands_on.dataset)

    changed = {facet: compare(facet) for facet in stands_on.facets if facet in ids}
    return changed[ROWS].model_copy(
        update={
            "answers_changed": sum(each.changed for facet, each in changed.items() if facet.startswith(COLUMN)),
            "columns_changed": sum(
                each.changed for facet, each in changed.items() if facet.startswith(judged_rows.READ)
            ),
        }
    )


def _packed_facet(reader: Reader, ids: Mapping[str, str], facet: str) -> Packed:
    return packed(reader, ids[facet])


def packed(reader: Reader, suite: str) -> Packed:
    return judged_rows.from_bytes(bytes(reader.read(_PACKED, [suite])[0][0]))
