"""What was purged is nowhere below the workspace: real daemon, real files, and a search of every byte that is left."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pyarrow.parquet as pq
import pytest

from speciate.errors import SpeciateError
from speciate.server.client import Client, ToolError
from tests.data import review_rows
from tests.server.processes import Daemons

GROUP = "patient-Qzorvex"
"""Whoever must be forgotten."""
TEXT, REMARK, LABEL, FILE = "Wumblegrast", "Ystrandoquil", "Klavonimpt", "Gryphoteskal"
TOKENS = (GROUP, TEXT, REMARK, LABEL, FILE)


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    daemons = Daemons(tmp_path / "workspace")
    daemons.workspace.mkdir()
    roots = f'roots = ["{tmp_path}", "{daemons.workspace}/exports"]'
    (daemons.workspace / "settings.toml").write_text(f'policy = "auto"\nbackup_minutes = 0.01\n{roots}\n')
    yield daemons
    daemons.close()


def _rows() -> list[dict[str, Any]]:
    """Reviews of many people; those of one say words that nobody else says."""
    rows = [row | {"person": row.pop("film"), "remark": f"about {i % 5}"} for i, row in enumerate(review_rows(80))]
    for number in range(6):
        text = f"{TEXT} was {('good', 'bad')[number % 2]}, and {TEXT} said so {number} times in a small town."
        label = LABEL if number > 2 else ("good", "bad")[number % 2]
        rows.append({"text": text, "label": label, "person": GROUP, "remark": f"{REMARK} {number}"})
    return rows


def _files(folder: Path) -> Path:
    """Texts in files, a folder for each person, with a copy of one of the rows' texts."""
    chance = random.Random(3)
    for person in ("anna", "bert", "cleo", "dora", GROUP):
        (folder / person).mkdir(parents=True)
        for number in range(6):
            name, words = (FILE, TEXT) if person == GROUP else ("note", chance.choice(("rain", "sun", "wind")))
            (folder / person / f"{name}-{number}.txt").write_text(f"{words} {person} {number} {chance.random()}")
    return folder


def _finish(client: Client, job: str) -> dict[str, Any]:
    """The job at its end, whichever daemon says so."""
    for _ in range(20):
        seen = client.call("wait_for_job", job=job, timeout_seconds=20)
        if seen["state"] in ("succeeded", "failed", "cancelled", "dead"):
            break
    assert seen["state"] == "succeeded", seen
    return dict(seen["result"])


def _do(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    return _finish(client, client.call(tool, **arguments)["job"])


def _approve(daemons: Daemons, asked: dict[str, Any]) -> dict[str, Any]:
    """As a person on a terminal does."""
    assert asked["state"] == "needs_approval"
    shown = daemons.control("approval", id=asked["approval"]["id"])
    made = daemons.control("approve", id=shown["id"], hash=shown["hash"], by="grace")
    assert made["state"] == "approved", made
    return dict(made["result"])


def _purge(daemons: Daemons, client: Client, *, kills: int = 0, **arguments: Any) -> dict[str, Any]:
    """The report, once the daemon that forgot has let go of the catalog; kill -9 strikes the first few on the way."""
    job = _approve(daemons, client.call("manage_data", action="purge", **arguments))["job"]
    for _ in range(kills):
        daemons.kill()
        client.call("get_job", job=job)
    result = _finish(client, job)
    _stop(daemons)
    return dict(result["report"])


def _hits(root: Path, tokens: Iterable[str]) -> dict[str, set[str]]:
    """Token -> files below `root` that hold it in their bytes, their name, or their columns where they are Parquet."""
    found: dict[str, set[str]] = {}
    for path in sorted(root.rglob("*")):
        text = str(path.relative_to(root)).encode()
        if path.is_file() and not path.is_socket():
            text += path.read_bytes()
            if path.suffix == ".parquet":
                text += repr(pq.ParquetFile(path).read().to_pydict()).encode()
        for token in tokens:
            if token.encode() in text:
                found.setdefault(token, set()).add(str(path.relative_to(root)))
    return found


def _catalog(root: Path) -> str:
    """All cells of the catalog: in its file they may be compressed. Nobody may have it open."""
    with duckdb.connect(str(root / "catalog.duckdb"), read_only=True) as connection:
        tables = [name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        return repr([connection.execute(f'SELECT * FROM "{table}"').fetchall() for table in tables])


def _rooms(hits: dict[str, set[str]]) -> set[str]:
    return {path.partition("/")[0] for paths in hits.values() for path in paths}


@pytest.mark.slow
def test_a_purged_group_is_nowhere_and_what_saw_it_is_named(daemons: Daemons, tmp_path: Path) -> None:
    root, client = daemons.workspace, daemons.connect()
    roles = {"label": "label", "group_by": "person", "inputs": ["text"]}
    _do(client, "create_dataset", name="notes", rows=_rows(), **roles)
    source = _files(tmp_path / "source")
    _do(client, "create_dataset", name="files", source=str(source), modality="text", group_by="folder")
    kept_file = client.call("query_dataset", dataset="files", where="group_key = 'anna'", limit=1)["untrusted"]["rows"]
    step = {"op": "filter", "where": f"remark IS DISTINCT FROM '{REMARK} 0'"}
    _do(client, "curate_dataset", dataset="notes", steps=[step])
    mine = client.call("query_dataset", dataset="notes", sql=f"SELECT id FROM examples WHERE group_key = '{GROUP}'")
    theirs = client.call("query_dataset", dataset="files", sql=f"SELECT id FROM examples WHERE group_key = '{GROUP}'")
    ids = [row[0] for row in (*mine["untrusted"]["rows"], *theirs["untrusted"]["rows"])]
    contents = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((source / GROUP).iterdir())]
    everything = {*TOKENS, *ids, *contents}
    for dataset, id in (("notes@v1", ids[0]), ("files", ids[-1])):  # noqa: A001 - the argument
        client.call("find_similar", dataset=dataset, id=id, k=3)
    labels = [{"id": row[0], "label": LABEL} for row in mine["untrusted"]["rows"]]
    client.call("label_examples", dataset="notes", labels=labels, source="human")
    client.call("preview_dataset", dataset="notes", where=f"group_key = '{GROUP}'")
    model = _do(client, "train_model", name="reviewer", dataset="notes", method="classical")["model"]
    evaluation = _do(client, "evaluate_models", models=[model], dataset="notes:train", latency=False)["evaluation"]
    _do(client, "export_dataset", dataset="notes", format="csv", path=str(root / "exports" / "inside"))
    _do(client, "export_dataset", dataset="notes", format="csv", path=str(tmp_path / "outside"))
    client.call("manage_data", action="tag", ref="notes@v1", tag="first")

    before = _hits(root, everything)
    assert set(before) == everything
    rooms = {"features", "datasets", "packs", "blobs", "runs", "evaluations", "exports", "backups", "models"}
    assert rooms <= _rooms(before)
    assert any(room.startswith("catalog.duckdb") for room in _rooms(before))

    report = _purge(daemons, client, ref="notes", group=GROUP)
    assert [each["model"] for each in report["models"]] == [model]
    assert report["evaluations"] == [evaluation]
    assert [each["path"] for each in report["exports_outside"]] == [str(tmp_path / "outside")]
    assert set(report["versions"]) == {"notes@v1", "notes@v2", "notes@v3"}
    _purge(daemons, client, ref="files", group=GROUP, kills=3)

    described = client.call("describe_dataset", dataset="notes@v1")
    assert (described["version"], described["examples"], LABEL in described["labels"]) == ("notes@v1", 80, False)
    left = client.call("query_dataset", dataset="files", where="group_key = 'anna'", limit=1)["untrusted"]["rows"]
    assert left == kept_file
    assert client.call("preview_dataset", dataset="files@v1", count=4)
    assert client.call("describe_evaluation", evaluation=evaluation)
    with pytest.raises(ToolError, match="No version of 'notes' holds"):
        client.call("manage_data", action="purge", ref="notes", group=GROUP)

    _stop(daemons)
    assert "FileNotFoundError" not in (root / "daemon.log").read_text()
    traces = {path for paths in _hits(root, everything - {LABEL}).values() for path in paths}
    assert {path.partition("/")[0] for path in traces} <= {"models"}
    assert {token for token in everything if token in _catalog(root)} == {LABEL}  # a class that the model knows

    owner = _approve(daemons, client.call("manage_data", action="delete", ref=model))
    _finish(client, owner["job"])
    _stop(daemons)
    assert _hits(root, everything) == {}
    assert {token for token in everything if token in _catalog(root)} == set()


@pytest.mark.slow
def test_an_upload_that_cannot_be_read_stops_neither_collecting_nor_forgetting(
    daemons: Daemons, tmp_path: Path
) -> None:
    root, client = daemons.workspace, daemons.connect()
    rows = [{"text": f"{TEXT} {number}", "person": GROUP if number < 2 else "anna"} for number in range(4)]
    wanted = {"inputs": ["text"], "group_by": "person", "modality": "text"}
    _do(client, "create_dataset", name="notes", rows=rows, **wanted)
    client.call("create_dataset", name="never", rows=[rows[0] | {"remark": REMARK}], **wanted, dry_run=True)
    bad = tmp_path / "bad.parquet"
    bad.write_text("text,person\nsome,more\n")
    failed = client.call("create_dataset", name="bad", source=str(bad))["job"]
    assert client.call("wait_for_job", job=failed, timeout_seconds=30)["state"] == "failed"
    assert client.call("manage_data", action="gc", dry_run=True)["valid"]
    assert _hits(root, [REMARK])
    _purge(daemons, client, ref="notes", group=GROUP)
    assert _hits(root, [GROUP, REMARK]) == {}


def _stop(daemons: Daemons) -> None:
    """End whichever daemon there is, and wait until it has let go of the catalog."""
    with contextlib.suppress(SpeciateError):
        daemons.control("stop")
    for pid in daemons.pids():
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).wait(30)
