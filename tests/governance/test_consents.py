"""A consent is given and taken back with a row in the audit, and survives what a workspace survives."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from speciate.datasets import consent
from speciate.errors import Code, SpeciateError
from speciate.governance import audit, consents
from speciate.jobs import allowances
from speciate.privacy import deletion
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
    assert consents.consent_request(workspace, "lesions", "API.OpenAI.com") == ("lesions@v1", 7, "image", HOST, None)
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


def test_what_was_never_allowed_cannot_be_taken_back(workspace: Workspace) -> None:
    allow(workspace)
    with pytest.raises(SpeciateError, match=r"lesions --host api\.openai\.com") as caught:
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
