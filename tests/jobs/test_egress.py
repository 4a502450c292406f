"""What may leave, and what is written of it: consents in force, files by their datasets, rows of the audit."""

from __future__ import annotations

import json

import pytest

from speciate.errors import Code, SpeciateError
from speciate.governance import audit
from speciate.jobs import egress
from speciate.jobs.egress import Departure, NotAllowed, Permit
from speciate.jobs.kinds import Plan
from speciate.settings import Place, Settings
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.datasets.test_consent import HOST, a_grant

LESIONS = Departure(dataset="lesions", host=HOST)
NAMED = Departure(dataset="named", host=HOST, of="lesions")
THERE = Departure(dataset="lesions", host="/shared/depot", place="lab")


def refusal(workspace: Workspace, *departures: Departure, job: str | None = None) -> SpeciateError:
    with pytest.raises(NotAllowed) as caught:
        egress.check(egress.consents(workspace.database), departures, job=job)
    assert caught.value.code is Code.REFUSED
    return caught.value


def test_each_dataset_must_be_allowed_for_that_very_host(workspace: Workspace) -> None:
    a_grant(workspace, "lesions")
    egress.check(egress.consents(workspace.database), [LESIONS, LESIONS])
    said = refusal(workspace, LESIONS, NAMED, THERE)
    assert said.message == (
        f"No example of 'named' may be sent to {HOST}: no person allowed it (rows of 'lesions' came from it)."
    )
    assert said.recovery == (
        f"A person decides, on a terminal: speciate allow named --host {HOST} --usd CAP; "
        "speciate allow lesions --host lab"
    )
    assert refusal(workspace, THERE).message == ("No example of 'lesions' may be sent to lab: no person allowed it.")


def test_a_job_that_waited_is_told_what_to_do_then(workspace: Workspace) -> None:
    said = refusal(workspace, LESIONS, job="job-a")
    assert said.message.endswith(": no person allows it now.")
    assert said.recovery.endswith(" --usd CAP. Then call control_job(job='job-a', action='retry').")


def test_a_consent_ends_with_its_time_and_a_clock_that_goes_back_revives_none(
    workspace: Workspace, clock: ManualClock
) -> None:
    a_grant(workspace, "lesions", expires=clock.now() + 10)
    clock.advance(9)
    egress.check(egress.consents(workspace.database), [LESIONS])
    clock.advance(1)
    assert "the time for which grace allowed it is over" in refusal(workspace, LESIONS).message
    workspace.database.transact(lambda tx: tx.execute("UPDATE consents SET expires = granted"))
    clock.jump(-1e6)
    assert "is over" in refusal(workspace, LESIONS).message


def test_a_start_writes_a_row_of_the_audit_for_each_host_or_nothing(workspace: Workspace) -> None:
    a_grant(workspace, "lesions")
    leaving = [LESIONS, NAMED, THERE]
    with pytest.raises(NotAllowed, match="no person allows it now"):
        workspace.database.transact(lambda tx: egress.admit(tx, "job-a", 2, leaving))
    assert audit.all_rows(workspace.database) == []
    a_grant(workspace, "named")
    a_grant(workspace, "lesions", host=THERE.host)
    workspace.database.transact(lambda tx: egress.admit(tx, "job-a", 2, leaving))
    rows = audit.all_rows(workspace.database)
    assert [(row.actor, row.action, row.use_case, row.before, row.after) for row in rows] == [
        ("job-a", "send", "*", None, f"lesions, named to {HOST}"),
        ("job-a", "send", "*", None, "lesions to /shared/depot"),
    ]
    assert json.loads(rows[0].evidence) == {
        "job": "job-a", "attempt": 2, "host": HOST, "datasets": ["lesions", "named"],
    }  # fmt: skip
    assert audit.verify(workspace.database).problems == ()
    workspace.database.transact(lambda tx: tx.execute("DELETE FROM events WHERE type = 'data.sent'"))
    assert audit.verify(workspace.database).problems


def test_a_permit_is_for_one_host_and_what_a_run_was_started_with() -> None:
    spec = {"permits": egress.permits([LESIONS, NAMED, LESIONS, THERE])}
    assert spec == {"permits": {HOST: ["lesions", "named"], THERE.host: ["lesions"]}}
    assert egress.permit_of_run(spec, HOST) == Permit(HOST, frozenset({"lesions", "named"}))
    assert egress.permit_of_run(spec, "other.example") is None
    assert egress.permit_of_run({}, HOST) is None


def test_what_is_moved_has_a_permit_of_that_moment(workspace: Workspace) -> None:
    a_grant(workspace, "lesions", host=THERE.host)
    spec = {"job": "job-a", "permits": {THERE.host: ["lesions"]}}
    assert egress.permit_to_move(workspace.database, spec, "lab", THERE.host) == (THERE.host, {"lesions"})
    with pytest.raises(SpeciateError, match="sends files and does not say so"):
        egress.permit_to_move(workspace.database, spec, "lab", "/another/depot")
    assert egress.permit_to_move(workspace.database, {"job": "job-b"}, "lab", THERE.host).datasets == frozenset()
    workspace.database.transact(lambda tx: tx.execute("DELETE FROM consents"))
    with pytest.raises(NotAllowed, match=r"sent to lab: no person allows it now") as caught:
        egress.permit_to_move(workspace.database, spec, "lab", THERE.host)
    assert "Then call control_job(job='job-a', action='retry')" in caught.value.recovery


def test_a_file_tells_whose_rows_it_holds() -> None:
    names = ["datasets/lesions/a.part", "datasets/named.parquet", "packs/a.pack", "datasets/notes.txt", "models/m/x"]
    assert egress.datasets_of_files(names) == {"lesions", "named"}
    permit = Permit(THERE.host, frozenset({"lesions"}))
    permit.check_files(names[:1])
    with pytest.raises(SpeciateError, match="rows of 'named' and does not say so") as caught:
        permit.check_files(names)
    assert caught.value.code is Code.REFUSED


def lab(**keys: str) -> Settings:
    given = {"kind": "slurm", "depot": "/shared/depot", "python": "/bin/python", **keys}
    return Settings(executors={"lab": Place.model_validate(given)})


def leaving(*inputs: str, sources: tuple[str, ...] = (), declared: tuple[Departure, ...] = ()) -> set[Departure]:
    place = {"place": "lab"}
    plan = Plan.model_validate({"resources": place, "inputs": inputs, "sources": sources, "departures": declared})
    return set(plan.leaving(lab()))


def test_a_plan_for_a_place_says_whose_rows_it_sends_or_its_files_do() -> None:
    assert leaving() == set()
    assert leaving("models/m/x") == set()
    assert leaving("datasets/lesions/a.parquet", "packs/a.pack") == {THERE}
    assert leaving("datasets/lesions/a.parquet", declared=(THERE,)) == {THERE}
    made = Departure(dataset="made", host=THERE.host, place="lab")
    assert leaving(sources=("/home/ada/scans",), declared=(made,)) == {made}
    for given in ({"sources": ("/home/ada/scans",)}, {"sources": ("/home/ada/scans",), "declared": (LESIONS,)}):
        with pytest.raises(SpeciateError, match="sends files and does not say so"):
            leaving(**given)  # type: ignore[arg-type]
    with pytest.raises(SpeciateError, match="sends files"):
        leaving("packs/a.pack")


def test_money_that_a_plan_may_spend_is_for_rows_that_leave() -> None:
    """Plans of before name no departures."""
    plan = Plan.model_validate({"spends": [{"dataset": "lesions", "host": HOST}]})
    assert plan.leaving(Settings()) == (LESIONS,)
    assert Plan.model_validate({"resources": {"place": "gone"}, "inputs": ["datasets/a/b.parquet"]}).leaving(
        Settings()
    ) == ()  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "host"),
    [
        ({"depot": "/shared/ada/../depot/"}, "/shared/depot"),
        ({"depot": "s3://scans/a/b"}, "s3.us-east-1.amazonaws.com/scans"),
        ({"depot": "s3://scans", "region": "eu-central-1"}, "s3.eu-central-1.amazonaws.com/scans"),
        ({"depot": "s3://scans/a", "endpoint": "https://S3.Example.org:9000/"}, "s3.example.org:9000/scans"),
        ({"depot": "s3://scans", "endpoint": "http://127.0.0.1:9000"}, "127.0.0.1:9000/scans"),
    ],
)
def test_the_host_of_a_place_is_where_its_rows_go(keys: dict[str, str], host: str) -> None:
    assert lab(**keys).executors["lab"].host == host
    ray = {"kind": "ray", "address": "http://127.0.0.1:8265", **keys}
    assert lab(**ray).executors["lab"].host == host, "whoever reads the depot"
