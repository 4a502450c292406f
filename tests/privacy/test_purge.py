"""Forgetting as the engine does it: a person's yes, steps that may be repeated, and nothing that remembers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from speciate import use_cases
from speciate.datasets import version_rows, versions
from speciate.datasets.exports import card
from speciate.datasets.next_version import SealedVersion, seal_first
from speciate.datasets.version_rows import ancestors
from speciate.errors import Code, SpeciateError
from speciate.governance import approvals
from speciate.jobs import rows as job_rows
from speciate.jobs.folder import RunFolder, write_whole
from speciate.jobs.job import Job, State
from speciate.jobs.kinds import Child, ChildRequest, Finished, Kind
from speciate.jobs.pool import Pool
from speciate.jobs.run import Run
from speciate.models.model_card import ModelCard
from speciate.privacy import deletion, erase, gc, purge, purge_catalog, references
from speciate.privacy.purge_datasets import Target
from speciate.privacy.redaction import TextRedactor
from speciate.promotion import aliases
from speciate.refs import JobId
from speciate.settings import Settings
from speciate.use_cases import Definition, Objective, Suites
from speciate.worker import load
from speciate.workspace.backup import AutomaticBackups
from speciate.workspace.blobs import Blobs
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.datasets.sealed import blank, rows

NAME, GROUP = "notes", "patient-Qzorvex"


def _make(workspace: Workspace, name: str = NAME, count: int = 6) -> str:
    """The next version of a dataset of `count` notes; the first two are of GROUP. Its ref."""
    table = rows(
        {
            "id": [f"{name}{i}" for i in range(count)],
            "group_key": [GROUP, GROUP, *(f"other-{i}" for i in range(2, count))],
            "_content": [f"{name} content {i}" for i in range(count)],
            "source": [f"{name}-{i}.txt" for i in range(count)],
            "text": [f"note {i}" for i in range(count)],
        }
    )
    sealed = seal_first(workspace.folders, table, blank("text", ["text"]).model_copy(update={"name": name}))
    report = {"ok": count, "untrusted": {"reasons": {f"bad cell in {name}-0.txt": 1}}}
    return _register(workspace, sealed, report)


def _register(workspace: Workspace, sealed: SealedVersion, report: dict[str, Any]) -> str:
    return workspace.database.transact(
        lambda tx: (
            versions.register(tx, sealed.manifest, sealed.lanes, operation={"op": "test"}, report=report, job=None).ref
        )
    )


def _job(workspace: Workspace, kind: str, spec: dict[str, Any], state: State = State.SUCCEEDED, **more: Any) -> str:
    number = len(workspace.database.read("SELECT id FROM jobs"))
    given = {"id": JobId(f"job-{number}"), "attempt": 1, "created": workspace.clock.now(), "changed": 0.0} | more
    job = Job(kind=kind, spec=spec, fingerprint="", state=state, **given)
    workspace.database.transact(lambda tx: job_rows.insert(tx, [job]))
    if job.attempt:
        folder = workspace.folders.runs / job.run_id
        folder.mkdir()
        (folder / "log").write_text(f"a note of {GROUP}")
    return job.id


def _model(workspace: Workspace, name: str, version: int = 1, **card: Any) -> str:
    made = ModelCard(
        name=name, version=version, task="text-classification", modality="text", method="classical", **card
    )
    insert = "INSERT INTO model_versions VALUES (?, ?, ?, ?, NULL, ?)"
    values = [name, version, f"{name}{version}", made.model_dump_json(), float(version)]
    workspace.database.transact(lambda tx: tx.execute(insert, values))
    return made.ref


def _perform(workspace: Workspace, kind: Kind, spec: dict[str, Any], **more: Any) -> dict[str, Any]:
    """One job without an engine; its result. Its row and run folder are there as the engine would leave them."""
    name = _job(workspace, kind.name, spec, State.RUNNING, **more)
    folder = RunFolder(workspace.folders.runs / f"{name}.1")
    payload = kind.plan(kind.spec.model_validate(spec), workspace).payload_json()
    folder.create({"payload": payload, "job": name, "workspace": str(workspace.folders.root)})
    write_whole(folder.outputs / "result.json", json.dumps(load(kind.run)(Run(folder))))
    collected = kind.collect(folder)
    job = job_rows.by_id(workspace.database, [name])[name]
    result = workspace.database.transact(lambda tx: kind.commit(tx, job, collected))
    ended = job.model_copy(update={"state": State.SUCCEEDED, "result": result})
    workspace.database.transact(lambda tx: job_rows.update(tx, [ended]))
    return result


def _purge(workspace: Workspace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both steps of a purge of GROUP; the results of each."""
    spec = purge.ForgetSpec.of(Target(dataset=NAME, group=GROUP))
    parent = _job(workspace, "forget", spec.model_dump(), State.RUNNING, executor="composite", attempt=0)
    erased = _perform(workspace, erase.KIND, {"target": spec.target.model_dump()}, parent=parent)
    (sweep,) = purge.next_step(spec, [_child("erase-1", erased)], 0.0)
    swept = _perform(workspace, gc.KIND, sweep.spec, parent=parent)
    return erased, swept


def _everything(workspace: Workspace) -> str:
    tables = [name for (name,) in workspace.database.read("SELECT table_name FROM duckdb_tables()")]
    return repr([workspace.database.read(f'SELECT * FROM "{table}"') for table in tables])


# A purge


def test_a_version_keeps_its_number_and_says_what_was_purged(workspace: Workspace, clock: ManualClock) -> None:
    ref = _make(workspace)
    clock.advance(5)
    erased, _ = _purge(workspace)
    after = versions.version(workspace.database, ref)
    assert erased["versions"] == {ref: 2}
    assert after.manifest.ref == ref
    assert version_rows.read(workspace.folders, after.manifest)["id"].to_pylist() == [
        "notes2",
        "notes3",
        "notes4",
        "notes5",
    ]
    assert after.report["purged"] == {"rows": 2, "when": clock.now()}
    assert after.report["ok"] == 4


def test_nothing_in_the_catalog_or_the_run_folders_remembers_the_group(workspace: Workspace) -> None:
    ref = _make(workspace)
    _job(workspace, "curate", {"dataset": ref, "steps": [{"op": "filter", "where": f"group_key <> '{GROUP}'"}]})
    _job(workspace, "ingest", {"name": "elsewhere"}, State.FAILED, error={"message": f"{GROUP} has no label"})
    kept = _job(workspace, "train", {"name": "m", "dataset": "another"})
    assert GROUP in _everything(workspace)
    _, swept = _purge(workspace)
    assert swept["freed"]["forgotten"] > 0
    assert GROUP not in _everything(workspace)
    assert "notes-0.txt" not in _everything(workspace)
    left = {path.name for path in workspace.folders.runs.iterdir()}
    assert f"{kept}.1" in left
    logs = [path for path in workspace.folders.runs.rglob("log") if path.parent.name != f"{kept}.1"]
    assert [path.parent.name.partition(".")[0] for path in logs] == [_last(workspace, "gc")]  # goes with the rewriting


def _last(workspace: Workspace, kind: str) -> str:
    return str(workspace.database.read("SELECT max(id) FROM jobs WHERE kind = ?", [kind])[0][0])


def test_models_that_saw_it_are_named_with_those_that_were_made_from_them(workspace: Workspace) -> None:
    ref = _make(workspace)
    first = _model(workspace, "first", dataset=f"{ref}:train")
    second = _model(workspace, "second", 2, base_model=first, dataset="another@v1")
    _model(workspace, "third", 3, dataset="another@v1")
    workspace.database.transact(
        lambda tx: aliases.move(
            tx, use_case="u", model=second, expected="nothing", action="promote", actor="a", evidence={}
        )
    )
    erased, _ = _purge(workspace)
    assert erased["models"] == [
        {"model": first, "dataset": f"{ref}:train", "serves": []},
        {"model": second, "dataset": "another@v1", "serves": ["u@production"]},
    ]
    told = workspace.database.read("SELECT data FROM events WHERE type = 'model.recalled' ORDER BY seq")
    assert [json.loads(data)["model"] for (data,) in told] == [first, second]  # a watch replaces what serves


def test_exports_below_the_workspace_go_and_others_are_told_of(workspace: Workspace) -> None:
    ref = _make(workspace)
    inside = workspace.folders.exports / "notes"
    inside.mkdir()
    _job(workspace, "export", {"dataset": ref, "format": "csv", "path": str(inside)})
    away = _job(workspace, "export", {"dataset": ref, "format": "csv", "path": "/elsewhere/notes"})
    erased, _ = _purge(workspace)
    assert not inside.exists()
    assert erased["exports_outside"] == [{"job": away, "dataset": ref, "path": "/elsewhere/notes"}]


def test_inline_rows_and_labels_go_with_the_jobs_that_they_were_given_to(workspace: Workspace) -> None:
    _make(workspace)
    blobs = Blobs(workspace.folders.blobs)
    mine, other = blobs.put(b"rows of notes"), blobs.put(b"rows of another")
    _job(workspace, "ingest", {"name": NAME, "rows": mine})
    _job(workspace, "ingest", {"name": "another", "rows": other})
    _purge(workspace)
    assert (mine in blobs, other in blobs) == (False, True)


def test_a_blob_that_no_job_names_goes_too_where_it_is_from_before(workspace: Workspace, clock: ManualClock) -> None:
    _make(workspace)
    blobs = Blobs(workspace.folders.blobs)
    refused, young = blobs.put(b"rows of a call that was refused"), blobs.put(b"rows of a call that came since")
    now = clock.now()
    os.utime(blobs.path(refused), (now - 1, now - 1))
    os.utime(blobs.path(young), (now + 1, now + 1))
    _purge(workspace)
    assert (refused in blobs, young in blobs) == (False, True)


def test_a_file_that_a_version_has_again_before_the_sweep_stays(workspace: Workspace) -> None:
    _make(workspace)
    target = {"target": Target(dataset=NAME, group=GROUP).model_dump()}
    erased = _perform(workspace, erase.KIND, target)
    again = versions.version(workspace.database, _make(workspace)).manifest
    assert {part.file for part in again.parts} < set(erased["doomed"])
    _perform(workspace, gc.KIND, {"doomed": erased["doomed"]})
    assert version_rows.read(workspace.folders, again).num_rows == 6


def test_a_file_that_is_sealed_again_after_the_plan_stays(workspace: Workspace) -> None:
    ref = _make(workspace)
    (file,) = (part.file for part in versions.version(workspace.database, ref).manifest.parts)
    workspace.database.transact(lambda tx: tx.execute("DELETE FROM dataset_versions"))
    folder = RunFolder(workspace.folders.runs / "job-g.1")
    payload = gc.plan(gc.GcSpec(doomed=(file,)), workspace).payload_json()
    folder.create({"payload": payload, "job": "j", "workspace": str(workspace.folders.root)})
    os.utime(workspace.folders.root / file, (2e9, 2e9))  # as sealing does
    gc.run(Run(folder))
    assert (workspace.folders.root / file).exists()


def test_an_evaluation_that_is_damaged_is_named_and_stops_nothing(workspace: Workspace) -> None:
    _make(workspace)
    folder = workspace.folders.evaluations / "eval-1"
    folder.mkdir()
    (folder / "examples.parquet").write_text("torn")
    erased, _ = _purge(workspace)
    assert erased["unreadable"] == ["evaluations/eval-1"]


def test_a_version_that_came_meanwhile_makes_the_step_begin_again(workspace: Workspace) -> None:
    _make(workspace)
    folder = RunFolder(workspace.folders.runs / "job-e.1")
    spec = erase.EraseSpec(target=Target(dataset=NAME, group=GROUP))
    folder.create(
        {"payload": erase.plan(spec, workspace).payload_json(), "job": "j", "workspace": str(workspace.folders.root)}
    )
    erase.run(Run(folder))
    newer = _make(workspace, "another", 4)
    job = Job(id=JobId("j"), kind="erase", spec={}, fingerprint="", state=State.RUNNING, created=0, changed=0)
    result = workspace.database.transact(lambda tx: erase.commit(tx, job, erase.collect(folder)))
    assert list(result) == ["again"]
    assert versions.version(workspace.database, NAME).manifest.rows == 6
    assert versions.version(workspace.database, newer).manifest.rows == 4


def test_repeating_a_purge_that_was_killed_after_its_commit_completes_it(workspace: Workspace) -> None:
    ref = _make(workspace)
    erased = _perform(workspace, erase.KIND, {"target": {"dataset": NAME, "group": GROUP}})
    assert all((workspace.folders.root / name).exists() for name in erased["doomed"] if name.startswith("datasets"))
    _, swept = _purge(workspace)  # finds the rows in the file that no version names any more
    assert swept["bytes"] > 0
    assert not any((workspace.folders.root / name).exists() for name in erased["doomed"] if name.startswith("data"))
    assert versions.version(workspace.database, ref).manifest.rows == 4


def test_a_backup_from_before_is_replaced_by_one_from_now(workspace: Workspace) -> None:
    _make(workspace)
    backups = AutomaticBackups(workspace)
    before = backups.save()
    torn = workspace.folders.backups / "torn-1"
    torn.mkdir()
    _purge(workspace)
    after = AutomaticBackups(workspace).save()
    (workspace.folders.backups / "torn-2").mkdir()
    assert AutomaticBackups(workspace).save() is None  # nothing changed, but a kill came before the deleting
    assert [path.name for path in workspace.folders.backups.iterdir()] == [after and after.name]
    assert before != after


# Its steps


def _spec() -> purge.ForgetSpec:
    return purge.ForgetSpec.of(Target(dataset=NAME, group=GROUP))


def _child(step: str, result: dict[str, Any] | None, state: str = "succeeded", **more: Any) -> Child:
    return Child(id=step, step=step, kind="", spec={}, state=state, result=result, **more)


def _next(*children: Child) -> Any:
    return purge.next_step(_spec(), children, 0.0)


def test_the_steps_are_erase_until_nothing_came_between_then_sweep() -> None:
    target = {"dataset": NAME, "group": GROUP, "example": None}
    again, done = {"again": "jobs"}, {"since": 7.0, "doomed": ["a"], "models": []}
    assert _next() == [ChildRequest(step="erase-1", kind="erase", spec={"target": target})]
    assert _next(_child("erase-1", None, "running")) == []
    assert _next(_child("erase-1", again)) == [ChildRequest(step="erase-2", kind="erase", spec={"target": target})]
    sweep = ChildRequest(step="sweep", kind="gc", spec={"purge": True, "since": 7.0, "doomed": ["a"]})
    assert _next(_child("erase-1", again), _child("erase-2", done)) == [sweep]
    end = _next(_child("erase-1", done), _child("sweep", {"bytes": 5}))
    assert isinstance(end, Finished)
    assert (end.error, end.result["report"]["bytes_freed"], "doomed" in end.result["report"]) == (None, 5, False)


def test_what_cannot_be_done_ends_with_its_reason() -> None:
    failed = _next(_child("erase-1", None, "failed", error={"message": "no space"}))
    assert (failed.error, "retry" in failed.recovery) == ("erase-1: no space", True)
    given_up = _next(*(_child(f"erase-{i}", {"again": "job-x would suffer"}) for i in range(1, 9)))
    assert given_up.error == "Nothing was forgotten: job-x would suffer."


# The question


def _ask(workspace: Workspace) -> approvals.Approval:
    target = Target(dataset=NAME, group=GROUP)
    pool = Pool(workspace.folders, Settings(cage="where_possible"), size=1)
    try:
        evidence = purge.survey(workspace, pool, target)
    finally:
        pool.close()
    return workspace.database.transact(lambda tx: purge.request_purge(tx, target, evidence, 1.0))


def test_a_person_s_yes_begins_the_job_and_a_no_does_nothing(workspace: Workspace) -> None:
    _make(workspace)
    approvals.decide(workspace, _ask(workspace).id, False, "grace")
    assert workspace.database.read("SELECT id FROM jobs") == []
    made = approvals.decide(workspace, _ask(workspace).id, True, "grace")
    assert made.result is not None
    kinds = workspace.database.read("SELECT id, kind, state FROM jobs ORDER BY kind")
    assert kinds == [(kinds[0][0], "erase", "queued"), (made.result["job"], "forget", "running")]


def test_jobs_at_work_are_named_and_void_the_yes(workspace: Workspace) -> None:
    ref = _make(workspace)
    question = _ask(workspace)
    busy = _job(workspace, "train", {"name": "m", "dataset": ref}, State.PAUSED)
    decided = approvals.decide(workspace, question.id, True, "grace")
    assert decided.approval.state == "void"
    assert busy in decided.reason


def test_a_yes_to_what_was_shown_is_no_yes_to_versions_that_came_since(workspace: Workspace) -> None:
    _make(workspace)
    question = _ask(workspace)
    _make(workspace, count=7)
    decided = approvals.decide(workspace, question.id, True, "grace")
    assert decided.approval.state == "void"
    assert "made or deleted since this was shown" in decided.reason
    assert workspace.database.read("SELECT id FROM jobs") == []
    again = _ask(workspace)
    assert (again.evidence["versions"], again.id == question.id) == ({"notes@v1": 2, "notes@v2": 2}, False)
    assert approvals.decide(workspace, again.id, True, "grace").approval.state == "approved"


def test_the_question_forgets_too(workspace: Workspace) -> None:
    _make(workspace)
    question = _ask(workspace)
    _purge(workspace)
    kept = approvals.get(workspace.database, question.id).arguments
    assert kept == {"dataset": NAME, "sha256": _spec().sha256}


# Traces


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (GROUP, "[purged]"),
        (f"group_key = '{GROUP}' AND x", "group_key = '[purged]' AND x"),
        (f"{GROUP}s are kept", f"{GROUP}s are kept"),
        ("x = '7' OR y = 7", "x = '[purged]' OR y = 7"),
        ("7", "[purged]"),
        ("17 rows", "17 rows"),
        ({GROUP: [1, {"a": GROUP}]}, {"[purged]": [1, {"a": "[purged]"}]}),
    ],
)
def test_whole_words_are_replaced_wherever_they_stand(before: Any, after: Any) -> None:
    assert TextRedactor([GROUP, "7"]).document(before) == after


def test_a_question_that_quotes_what_went_is_void_and_not_called_forged(workspace: Workspace) -> None:
    def ask(tx: Transaction, about: str) -> str:
        return approvals.request(tx, "allow", {"about": about}, {}, subject="dataset:notes", hours=24).id

    quoting = workspace.database.transact(lambda tx: ask(tx, f"all of {GROUP}"))
    other = workspace.database.transact(lambda tx: ask(tx, "all of the others"))
    workspace.database.transact(lambda tx: purge_catalog.redact_catalog(tx, [GROUP]))
    asked = approvals.get(workspace.database, quoting)
    assert (asked.state, asked.arguments) == ("void", {"about": "all of [purged]"})
    assert approvals.get(workspace.database, other).state == "pending"


def test_what_a_use_case_works_by_is_not_renamed(workspace: Workspace) -> None:
    definition = Definition(
        name="acme-invoices", task="text-classification", objective=Objective(metric="accuracy", target=0.9),
        target_column="acme", description="Invoices of acme, sorted",
    )  # fmt: skip
    workspace.database.transact(lambda tx: use_cases.define(tx, definition, policy="auto"))
    waiting = workspace.database.transact(
        lambda tx: approvals.request(tx, "allow", {"use_case": "acme-invoices"}, {}, subject="x", hours=24).id
    )
    job = _job(workspace, "train", {"dataset": "acme-invoices", "note": "for acme"})
    workspace.database.transact(lambda tx: purge_catalog.redact_catalog(tx, ["acme", "invoices"]))
    found = use_cases.in_force(workspace.database)["acme-invoices"]
    assert (found.name, found.target_column) == ("acme-invoices", "acme")
    assert found.description == "Invoices of [purged], sorted"
    assert approvals.get(workspace.database, waiting).state == "pending"
    spec = job_rows.by_id(workspace.database, [job])[job].spec
    assert spec == {"dataset": "acme-invoices", "note": "for [purged]"}


KEPT = {
    "meta": "of the workspace, not of its data",
    "job_plans": "deleted",
    "dataset_tags": "names of versions",
    "model_versions": "what a model learned stays in it, its labels among that: docs/forgetting.md",
    "suites": "hashes; evaluation/suites.py forgets them",
    "judged_suites": "hashes and names of columns",
    "judged_models": "names of models",
    "aliases": "names",
    "audit": "a chain of hashes, which a changed row would break: docs/forgetting.md",
    "approval_keys": "of people who approve",
    "consents": "names of datasets and hosts",
    "spending": "the same",
    "tool_calls": "names of tools",
    "watch_states": "ids and numbers",
    "watches": "names, numbers and time zones by which it works",
    "label_requests": "ids of answers; those that went are deleted",
    "job_needs": "ids of jobs",
}
"""Tables that a purge leaves as they are, and why."""


def test_every_table_is_searched_or_there_is_a_reason(workspace: Workspace) -> None:
    tables = {name for (name,) in workspace.database.read("SELECT table_name FROM duckdb_tables() WHERE NOT internal")}
    assert tables == KEPT.keys() | purge_catalog.DOCUMENTS.keys()
    assert not KEPT.keys() & purge_catalog.DOCUMENTS.keys()


def test_names_of_datasets_are_no_traces(workspace: Workspace) -> None:
    _make(workspace)
    spec = {"dataset": NAME, "split": "train"}
    job = _job(workspace, "train", spec)
    workspace.database.transact(lambda tx: purge_catalog.redact_catalog(tx, [NAME, "train", "other"]))
    assert job_rows.by_id(workspace.database, [job])[job].spec == spec


# Deleting


def _delete(workspace: Workspace, ref: str) -> dict[str, Any]:
    doomed = deletion.resolve_versions(workspace, ref)
    question = workspace.database.transact(lambda tx: deletion.request_deletion(tx, doomed, 1.0))
    decided = approvals.decide(workspace, question.id, True, "grace")
    assert decided.result is not None, decided.reason
    return decided.result


def _refused(workspace: Workspace, ref: str) -> SpeciateError:
    with pytest.raises(SpeciateError) as caught:
        _delete(workspace, ref)
    assert caught.value.code is Code.REFUSED
    return caught.value


def test_a_parent_goes_and_its_number_is_never_used_again(workspace: Workspace) -> None:
    first, second = _make(workspace), _make(workspace, count=8)
    only_first = {part.file for part in versions.version(workspace.database, first).manifest.parts}
    done = _delete(workspace, first)
    assert done["deleted"] == [first]
    job = job_rows.by_id(workspace.database, [done["job"]])[done["job"]]
    assert only_first <= set(job.spec["doomed"])
    with pytest.raises(SpeciateError, match="has no version 1"):
        versions.resolve(workspace.database, first)
    assert _delete(workspace, NAME)["deleted"] == [second]
    assert _make(workspace) == f"{NAME}@v3"


def test_what_a_deleted_version_was_stays_known_to_those_that_came_from_it(workspace: Workspace) -> None:
    made = [_make(workspace, count=count) for count in (6, 7, 8, 9)]
    operations = [
        {"op": "ingest", "source": "/home/x/notes", "license": "mit", "label": "mood", "group_by": "who"},
        {"op": "curate", "steps": [{"op": "filter", "where": "true"}]},
        {"op": "label"},
        {"op": "curate", "steps": [{"op": "balance"}]},
    ]
    for number, operation in enumerate(operations, 1):
        cells = [json.dumps(operation), json.dumps(made[: number - 1][-1:]), number]
        update = "UPDATE dataset_versions SET operation = ?, parents = ? WHERE version = ?"
        workspace.database.transact(lambda tx, cells=cells, update=update: tx.execute(update, cells))
    whole = card.card(card.lineage(workspace.database, NAME))
    for ref in (made[1], made[0], made[2]):
        _delete(workspace, ref)
        assert card.card(card.lineage(workspace.database, NAME)) == whole
    newest = versions.version(workspace.database, NAME)
    assert [each.operation["op"] for each in ancestors(workspace.database, newest)] == ["label", "curate", "ingest"]
    assert list(ancestors(workspace.database, newest))[-1].operation["group_by"] == "who"


def test_files_that_another_version_needs_stay(workspace: Workspace) -> None:
    first = _make(workspace)
    manifest = versions.version(workspace.database, first).manifest
    row = workspace.database.read("SELECT lanes FROM dataset_versions")[0][0]
    insert = "INSERT INTO dataset_versions VALUES (?, 2, 'x', ?, ?, '[]', '{}', '{}', NULL, 0)"
    copy = manifest.model_copy(update={"version": 2}).model_dump_json()
    workspace.database.transact(lambda tx: tx.execute(insert, [NAME, row, copy]))
    done = _delete(workspace, first)
    assert job_rows.by_id(workspace.database, [done["job"]])[done["job"]].spec["doomed"] == []


def test_what_needs_a_dataset_version_is_listed_with_the_next_call(workspace: Workspace) -> None:
    ref = _make(workspace)
    _model(workspace, "m", dataset=ref)
    workspace.database.transact(lambda tx: tx.execute("INSERT INTO dataset_tags VALUES (?, 'gold', 1)", [NAME]))
    definition = Definition(
        name="u", task="text-classification", objective=Objective(metric="accuracy"), suites=Suites(core=f"{NAME}:test")
    )
    workspace.database.transact(lambda tx: use_cases.define(tx, definition))
    error = _refused(workspace, ref)
    for why in ("has the tag 'gold'", "m@v1 was trained on notes@v1", "it is the core suite of u"):
        assert why in error.message
    assert error.recovery == "Call manage_data(action='untag', ref='notes', tag='gold')."
    workspace.database.transact(
        lambda tx: aliases.move(
            tx, use_case="u", model="m@v1", expected="nothing", action="promote", actor="a", evidence={}
        )
    )
    error = _refused(workspace, ref)
    assert "m@v1 was trained on notes@v1 and served" in error.message
    assert error.recovery.startswith("It stays"), "the model cannot be deleted, so the tag is not in the way"


def test_a_model_that_ever_served_stays_and_so_does_what_others_were_made_from(workspace: Workspace) -> None:
    served, base = _model(workspace, "served"), _model(workspace, "base")
    _model(workspace, "child", base_model=base)

    def move(model: str, expected: str) -> None:
        workspace.database.transact(
            lambda tx: aliases.move(
                tx, use_case="u", model=model, expected=expected, action="promote", actor="a", evidence={}
            )
        )

    move(served, "nothing")
    refused = _refused(workspace, served)
    assert "served@v1 is u@production" in refused.message
    assert refused.recovery.startswith("It stays"), "another promotion would not free it"
    move("next@v1", served)
    move("later@v1", "next@v1")
    assert "served@v1 served u" in _refused(workspace, served).message
    assert "child@v1 was made from it" in _refused(workspace, "base").message
    assert _delete(workspace, "child")["deleted"] == ["child@v1"]
    assert _delete(workspace, "base")["deleted"] == ["base@v1"]


def test_a_name_of_both_must_say_which(workspace: Workspace) -> None:
    _make(workspace)
    _model(workspace, NAME)
    with pytest.raises(SpeciateError, match="is a dataset and a model"):
        deletion.resolve_versions(workspace, NAME)
    assert deletion.resolve_versions(workspace, f"model:{NAME}").noun == "model"
    with pytest.raises(SpeciateError, match="did you mean 'notes'"):
        deletion.resolve_versions(workspace, "nots")


# Garbage


def test_garbage_keeps_what_versions_and_unfinished_jobs_name(workspace: Workspace, clock: ManualClock) -> None:
    _make(workspace)
    orphan = workspace.folders.datasets / NAME / f"{'0' * 32}.parquet"
    kept = next(path for path in (workspace.folders.datasets / NAME).iterdir())
    orphan.write_bytes(kept.read_bytes())
    clock.advance(2 * gc.GRACE_SECONDS)
    begun = clock.now() - gc.GRACE_SECONDS - 60
    os.utime(orphan, (begun + 30, begun + 30))
    assert gc.survey(workspace).first == [], "no job was at work then: nobody knows whose it is"
    _job(workspace, "ingest", {"name": "failed"}, created=begun, changed=begun + 60)
    assert gc.survey(workspace).first == [], "and no backup has seen the catalog without a need for it"
    assert AutomaticBackups(workspace).save()
    assert gc.survey(workspace).first == [f"datasets/notes/{orphan.name}"]
    running = _job(workspace, "ingest", {"name": "slow"}, State.RUNNING, created=begun)
    assert gc.survey(workspace).first == []  # it may be this job's, which has run for longer than a day
    workspace.database.transact(lambda tx: _end(tx, running))
    assert _perform(workspace, gc.KIND, {})["freed"] == {}, "it was not said yet that it would go"
    gc.announce(workspace, gc.survey(workspace))
    assert _perform(workspace, gc.KIND, {})["freed"].keys() == {"datasets"}
    assert (orphan.exists(), kept.exists()) == (False, True)


def _end(tx: Transaction, job: str) -> None:
    tx.execute("UPDATE jobs SET state = 'succeeded', ended = ? WHERE id = ?", [tx.now, job])


def test_run_folders_go_when_their_job_ended_long_ago(workspace: Workspace, clock: ManualClock) -> None:
    old = _job(workspace, "train", {"name": "m"}, ended=clock.now())
    os.utime(workspace.folders.runs / f"{old}.1" / "log", (0, 0))
    os.utime(workspace.folders.runs / f"{old}.1", (0, 0))
    assert gc.survey(workspace).first == []
    clock.advance(86400 * (workspace.settings.retention.runs_days + 1))
    assert gc.survey(workspace).kinds.keys() == {"runs"}


def test_doomed_files_outside_the_workspace_are_a_defect(workspace: Workspace, tmp_path: Path) -> None:
    outside = tmp_path / "precious"
    outside.write_text("x")
    with pytest.raises(ValueError, match="outside the workspace"):
        _perform(workspace, gc.KIND, {"doomed": ["../precious"]})
    assert outside.exists()


def test_jobs_are_found_by_what_they_name_at_any_depth(workspace: Workspace) -> None:
    deep = _job(workspace, "curate", {"steps": [{"op": "merge", "dataset": "notes@v2"}]})
    _job(workspace, "train", {"dataset": "notes2@v1", "note": "not about notes"})
    assert [job.id for job in references.jobs_naming(workspace.database, ["notes"])] == [deep]


def test_what_is_only_called_like_a_dataset_is_no_mention(workspace: Workspace) -> None:
    """A purge of `species` would delete the export."""
    flowers = {"name": "flowers", "version": 1, "parts": [], "label": "species", "columns": {"dataset": "species"}}
    _job(workspace, "export", {"dataset": "flowers", "path": "x"}, result={"manifest": flowers, "columns": ["species"]})
    _job(workspace, "train", {"name": "species", "dataset": "flowers", "target": "species"})
    made = _job(workspace, "ingest", {"name": "species", "source": "x"})
    seen = _job(workspace, "evaluate", {"models": ["m"]}, result={"dataset": flowers | {"name": "species"}})
    child = _job(workspace, "label", {"dataset": "flowers"}, result={"parents": ["flowers@v1", "species@v2"]})
    suite = _job(workspace, "specialize", {"use_case": "u"}, result={"suites": {"core": "species@gold:test"}})
    found = [job.id for job in references.jobs_naming(workspace.database, ["species"])]
    assert found == [made, seen, child, suite]
