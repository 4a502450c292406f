"""A consent is given and taken back with a row in the audit, and survives what a workspace survives."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest

from speciate.datasets import consent
from speciate.errors import Code, SpeciateError
from speciate.governance import audit, consents
from speciate.jobs import allowances
from speciate.jobs.egress import Departure, NotAllowed
from speciate.privacy import deletion
from speciate.settings import Settings
from speciate.workspace.backup import back_up, save_catalog
from speciate.workspace.rebuild import rebuild_catalog
from speciate.workspace.schema import VERSION, migrate
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock

HOST = "api.openai.com"
_DATASET = "INSERT INTO dataset_versions VALUES ('lesions', 1, 'id', '', ?, '[]', '{\"op\": \"x\"}', '{}', NULL, 0)"
_MANIFEST = '{"name": "lesions", "version": 1, "id": "id", "modality": "image", "parts": [], "columns": {}, "rows": 7}'


@pytest.fixture(autouse=True)
def lesions(workspace: Workspace) -> None:
    workspace.database.transact(lambda tx: tx.execute(_DATASET, [_MANIFEST]))


def allow(workspace: Workspace, usd: float = 5.0, days: float | None = None) -> None:
    consents.allow(workspace, "lesions", HOST, usd=usd, days=days, by="grace")


def test_each_change_leaves_a_row_in_the_audit(workspace: Workspace, clock: ManualClock) -> None:
    allow(workspace)
    allow(workspace, 9.0, days=2)
    assert consents.disallow(workspace, "lesions", HOST, "ada").usd_cap == 9.0
    rows = audit.of_use_case(workspace.database, audit.WORKSPACE)
    assert [(row.actor, row.action, row.before, row.after) for row in rows] == [
        ("grace", "allow", None, "lesions to api.openai.com, 5 USD"),
        ("grace", "allow", "lesions to api.openai.com, 5 USD", "lesions to api.openai.com, 9 USD"),
        ("ada", "disallow", "lesions to api.openai.com, 9 USD", None),
    ]
    assert audit.verify(workspace.database).problems == ()
    with pytest.raises(SpeciateError):
        consent.check(workspace.database, "lesions", HOST)


def test_a_row_and_its_event_say_what_was_allowed_until_when_by_whom_and_what_was_spent(
    workspace: Workspace, clock: ManualClock
) -> None:
    consents.allow(workspace, "lesions", HOST, usd=5.0, days=2, by="grace", proof={"claimed": "Grace"})
    workspace.database.transact(lambda tx: allowances.record(tx, "lesions", HOST, 1.5, "job-a"))
    consents.disallow(workspace, "lesions", HOST, "ada", {"claimed": "Ada"})
    rows = audit.of_use_case(workspace.database, audit.WORKSPACE)
    about = {"dataset": "lesions", "host": HOST}
    given = {**about, "usd_cap": 5.0, "expires": clock.now() + 2 * 24 * 3600, "spent_usd": 0.0}
    taken = {**about, "usd_cap": None, "expires": None, "spent_usd": 1.5}
    assert [json.loads(row.evidence) for row in rows] == [{**given, "claimed": "Grace"}, {**taken, "claimed": "Ada"}]
    events = [each for each in workspace.database.events_after(0) if each.type == "consent.changed"]
    assert [(each.subject, each.data) for each in events] == [
        ("dataset:lesions", {"action": "allow", "by": "grace", **given, "audit": rows[0].hash}),
        ("dataset:lesions", {"action": "disallow", "by": "ada", **taken, "audit": rows[1].hash}),
    ]


def test_a_row_of_the_audit_that_no_event_tells_of_is_found(workspace: Workspace) -> None:
    allow(workspace)
    workspace.database.transact(lambda tx: tx.execute("DELETE FROM events WHERE type = 'consent.changed'"))
    assert audit.verify(workspace.database).problems


def test_a_new_consent_counts_money_anew(workspace: Workspace, clock: ManualClock) -> None:
    allow(workspace)
    workspace.database.transact(lambda tx: allowances.record(tx, "lesions", HOST, 4.0, "job-a"))
    clock.advance(1)
    allow(workspace, days=1)
    found = consent.check(workspace.database, "lesions", HOST)
    assert (found.spent_usd, found.expires) == (0.0, clock.now() + 24 * 3600)


def test_what_is_shown_before_is_what_there_is(workspace: Workspace) -> None:
    shown = consents.consent_request(workspace, "lesions", "API.OpenAI.com")
    assert shown == ("lesions@v1", 7, "image", HOST, None, None)
    allow(workspace)
    assert consents.consent_request(workspace, "lesions", HOST).before == consent.find(
        workspace.database, "lesions", HOST
    )


@pytest.mark.parametrize(
    ("dataset", "host", "usd", "days", "code"),
    [
        ("lesion", HOST, 1.0, None, Code.NOT_FOUND),
        ("lesions@v1", HOST, 1.0, None, Code.NOT_FOUND),
        ("lesions", "https://api.openai.com/v1", 1.0, None, Code.INVALID),
        ("lesions", "127.0.0.1:8000", 1.0, None, Code.INVALID),
        ("lesions", "::1:8000", 1.0, None, Code.INVALID),
        ("lesions", "localhost", 1.0, None, Code.INVALID),
        ("lesions", HOST, 0.0, None, Code.INVALID),
        ("lesions", HOST, float("nan"), None, Code.INVALID),
        ("lesions", HOST, float("inf"), None, Code.INVALID),
        ("lesions", HOST, 1.0, 0.0, Code.INVALID),
    ],
)
def test_what_makes_no_sense_is_refused(
    workspace: Workspace, dataset: str, host: str, usd: float, days: float | None, code: Code
) -> None:
    with pytest.raises(SpeciateError) as caught:
        consents.allow(workspace, dataset, host, usd=usd, days=days, by="grace")
    assert caught.value.code is code
    assert consent.list_consents(workspace.database) == []
    assert audit.verify(workspace.database).rows == 0


PLACES = {
    "lab": {"kind": "slurm", "depot": "/shared/depot", "python": "/bin/python"},
    "cloud": {
        "kind": "ray", "depot": "s3://scans/ada", "python": "/bin/python", "address": "http://127.0.0.1:8265",
        "endpoint": "http://127.0.0.1:9000",
    },
}  # fmt: skip
DEPOT = "/shared/depot"


@pytest.fixture
def placed(workspace: Workspace) -> Workspace:
    workspace.settings = Settings.model_validate({"executors": PLACES})
    return workspace


@pytest.mark.parametrize("usd", [None, 0.0])
def test_a_place_is_allowed_by_its_name_and_for_no_sum(placed: Workspace, usd: float | None) -> None:
    request = consents.consent_request(placed, "lesions", "lab")
    assert request == ("lesions@v1", 7, "image", DEPOT, None, "lab")
    made = consents.allow(placed, "lesions", "lab", usd=usd, by="grace")
    assert (made.host, made.usd_cap, made.expires) == (DEPOT, 0.0, None)
    assert consent.check_place(placed, ["lesions@v1"], "lab") == (
        Departure(dataset="lesions", host=DEPOT, place="lab"),
    )
    assert consents.consent_request(placed, "lesions", DEPOT).place == "lab"
    assert consents.consent_request(placed, "lesions", DEPOT).before == made
    assert consents.disallow(placed, "lesions", "lab", "ada") == made
    rows = audit.of_use_case(placed.database, audit.WORKSPACE)
    assert [(row.action, row.before, row.after) for row in rows] == [
        ("allow", None, "lesions to /shared/depot"), ("disallow", "lesions to /shared/depot", None),
    ]  # fmt: skip
    with pytest.raises(NotAllowed, match=r"sent to lab: no person allowed it"):
        consent.check_place(placed, ["lesions"], "lab")


def test_another_depot_is_another_host_and_what_was_allowed_is_taken_back_by_it(placed: Workspace) -> None:
    consents.allow(placed, "lesions", "lab", by="grace", days=2)
    moved = {**PLACES, "lab": {**PLACES["lab"], "depot": "/elsewhere"}}
    placed.settings = Settings.model_validate({"executors": moved})
    with pytest.raises(NotAllowed, match="sent to lab: no person allowed it"):
        consent.check_place(placed, ["lesions"], "lab")
    with pytest.raises(SpeciateError, match=r"lesions --host /shared/depot"):
        consents.disallow(placed, "lesions", "lab", "ada")
    assert consents.disallow(placed, "lesions", DEPOT, "ada").host == DEPOT


def test_a_place_is_never_this_machine(placed: Workspace) -> None:
    """A loopback address is how a tunnel looks."""
    consents.allow(placed, "lesions", "cloud", by="grace")
    assert [each.host for each in consent.list_consents(placed.database)] == ["127.0.0.1:9000/scans"]


def test_a_dataset_that_is_still_to_be_made_at_a_place_is_allowed_by_its_name(placed: Workspace) -> None:
    assert consents.consent_request(placed, "scans", "lab") == ("scans", 0, "", DEPOT, None, "lab")
    made = consents.allow(placed, "scans", "lab", by="grace")
    assert consents.consent_request(placed, "scans", "lab").before == made
    assert consent.check_place(placed, ["scans"], "lab") == (Departure(dataset="scans", host=DEPOT, place="lab"),)


@pytest.mark.parametrize(
    ("dataset", "host", "usd", "code", "said"),
    [
        ("lesions", HOST, 0.0, Code.INVALID, "usd is 0; it must be more than 0. Write --usd NUMBER"),
        ("lesions", "lab", 1.0, Code.INVALID, "Leave --usd out: speciate allow lesions --host lab"),
        ("lesions", HOST, None, Code.INVALID, f"Write: speciate allow lesions --host {HOST} --usd CAP"),
        ("scans", HOST, 1.0, Code.NOT_FOUND, "There is no dataset 'scans'"),
        ("scans@v1", "lab", None, Code.NOT_FOUND, "without a version"),
        ("scans:test", "lab", None, Code.NOT_FOUND, "without a version"),
        ("no name", "lab", None, Code.INVALID, "cannot name a dataset"),
        ("lesions", "/shared/other", None, Code.INVALID, "is no host"),
        ("lesions", "lab", float("nan"), Code.INVALID, "Leave --usd out"),
        ("lesions", "lab", -1.0, Code.INVALID, "Leave --usd out"),
    ],
)
def test_what_makes_no_sense_of_a_place_is_refused(
    placed: Workspace, dataset: str, host: str, usd: float | None, code: Code, said: str
) -> None:
    with pytest.raises(SpeciateError) as caught:
        consents.allow(placed, dataset, host, usd=usd, by="grace")
    assert caught.value.code is code
    assert said in str(caught.value)
    assert consent.list_consents(placed.database) == []


def test_a_time_that_is_none_is_named(workspace: Workspace) -> None:
    with pytest.raises(SpeciateError, match=r"days is 0; it must be more than 0\. Write --days NUMBER"):
        consents.allow(workspace, "lesions", HOST, usd=1.0, days=0.0, by="grace")


def test_what_was_never_allowed_cannot_be_taken_back(workspace: Workspace) -> None:
    allow(workspace)
    said = r"There is no consent 'lesions --host api\.openai\.co'; .*lesions --host api\.openai\.com"
    with pytest.raises(SpeciateError, match=said) as caught:
        consents.disallow(workspace, "lesions", "api.openai.co", "ada")
    assert caught.value.code is Code.NOT_FOUND


def test_a_deleted_datasets_name_is_allowed_nothing(workspace: Workspace) -> None:
    second = _MANIFEST.replace('"version": 1', '"version": 2')
    workspace.database.transact(lambda tx: tx.execute(_DATASET.replace("'lesions', 1", "'lesions', 2"), [second]))
    allow(workspace)
    for number, left in ((1, 1), (2, 0)):
        doomed = {"noun": "dataset", "name": "lesions", "versions": [number]}
        workspace.database.transact(lambda tx, doomed=doomed: deletion.apply_approved(tx, doomed, "ada"))
        assert len(consent.list_consents(workspace.database)) == left
    assert audit.verify(workspace.database) == (2, audit.verify(workspace.database).head, ())


def test_a_copy_and_a_rebuilt_catalog_know_what_was_allowed(workspace: Workspace, tmp_path: Path) -> None:
    allow(workspace)
    workspace.database.transact(lambda tx: allowances.record(tx, "lesions", HOST, 4.0, "job-a"))
    expected = consent.list_consents(workspace.database)
    back_up(workspace, tmp_path / "copy")
    save_catalog(workspace.database, workspace.folders.backups, 0)
    copy = Workspace(tmp_path / "copy")
    assert consent.list_consents(copy.database) == expected
    copy.close()
    root = workspace.folders.root
    workspace.close()
    (root / "catalog.duckdb").write_bytes(b"garbage" * 1000)
    (root / "catalog.duckdb.wal").unlink(missing_ok=True)
    assert rebuild_catalog(root).rows["consents"] == 1
    again = Workspace(root)
    assert consent.list_consents(again.database) == expected
    again.close()


def test_a_catalog_from_before_there_were_consents_gets_their_tables(tmp_path: Path) -> None:
    path = tmp_path / "catalog.duckdb"
    migrate(path)
    new = _schema(path)
    with duckdb.connect(str(path)) as connection:
        connection.execute("DROP TABLE consents; DROP TABLE spending; DROP TABLE tool_calls; DROP TABLE approval_keys")
        connection.execute("DROP TABLE suites; DROP TABLE judged_suites; DROP TABLE judged_models")
        for later in ("es", "_states", "_ticks", "_triggers", "_outbox"):
            connection.execute(f"DROP TABLE watch{later}")
        connection.execute("DROP TABLE episodes; DROP TABLE label_requests")
        connection.execute("ALTER TABLE aliases DROP COLUMN percent")
        connection.execute("UPDATE meta SET value = '2' WHERE key = 'schema'")
    assert migrate(path) == 2
    assert _schema(path) == new
    assert VERSION >= 3


def _schema(path: Path) -> list[tuple[object, ...]]:
    with duckdb.connect(str(path)) as connection:
        return connection.execute(
            "SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns() ORDER BY ALL"
        ).fetchall()
