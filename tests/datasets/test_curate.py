"""The job kind `curate`: checked whole, applied in order, sealed once."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from speciate.datasets.curate import KIND, CurateSpec, run
from speciate.datasets.operations import sample_balance
from speciate.datasets.operations.context import Context
from speciate.datasets.operations.operation import Outcome
from speciate.datasets.versions import resolve, version
from speciate.errors import Code, SpeciateError
from speciate.jobs.folder import RunFolder, write_whole
from speciate.jobs.job import Job, State
from speciate.jobs.run import Run, Stopped
from speciate.refs import JobId
from speciate.server.client import Client
from speciate.workspace.workspace import Workspace
from tests import data
from tests.conftest import ManualClock
from tests.datasets.operations.world import Curated, curate, read
from tests.server.processes import Daemons

CHAIN = (
    {"op": "derive", "column": "size", "sql": "length(text)"},
    {"op": "filter", "where": "size > 20 AND film <> 'film-3'"},
    {"op": "deduplicate", "by": "perceptual"},
    {"op": "find_label_errors"},
    {"op": "drop_outliers", "share": 0.05},
    {"op": "relabel", "mapping": {"good": "yes", "bad": "no"}},
    {"op": "balance", "column": "label"},
    {"op": "sample", "n": 40, "strategy": "diverse"},
    {"op": "split", "fractions": {"train": 0.5, "validation": 0.25, "test": 0.25}, "seed": 4},
)


@pytest.fixture(scope="module")
def chained(shared: Workspace) -> dict[str, Any]:
    """The result of the job that made `one@v2` of a hundred reviews."""
    data.ingest(shared, "one", rows=tuple(data.review_rows(100)), label="label", group_by="film")
    return data.run_job(shared, "curate", dataset="one", steps=CHAIN)


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed workspace with twenty reviews, to be copied."""
    return data.seeded(
        tmp_path_factory.mktemp("twenty") / "workspace", "set", rows=tuple(data.review_rows(20)), label="label"
    )


@pytest.fixture
def twenty(ingested: Path, tmp_path: Path, clock: ManualClock) -> Iterator[Workspace]:
    with data.copied(ingested, tmp_path / "workspace", clock) as workspace:
        yield workspace


def test_one_version_of_many_steps_and_the_same_from_any_order_of_the_source(
    shared: Workspace, chained: dict[str, Any]
) -> None:
    rows = data.review_rows(100)
    mixed = random.Random(1).sample(rows, len(rows))
    data.ingest(shared, "two", rows=tuple(mixed), label="label", group_by="film")
    made = resolve(shared.database, chained["dataset"])
    one, two = Curated(made, read(shared, made.ref), chained["steps"]), curate(shared, "two", *CHAIN)
    assert one.manifest.id == two.manifest.id
    assert one.rows.equals(two.rows.set_column(6, "source", one.rows["source"]))
    assert (one.manifest.ref, one.rows.num_rows) == ("one@v2", 40)
    assert [step["op"] for step in one.steps] == [step["op"] for step in CHAIN]
    assert all(a["after"] == b["before"] for a, b in itertools.pairwise(one.steps))
    found = version(shared.database, "one")
    assert found.parents == ["one@v1"]
    assert found.operation["op"] == "curate"
    assert found.operation["steps"][1] == CHAIN[1]
    assert found.report["ok"] == 40
    assert found.report["split"]["groups_across"] == 0
    again = curate(shared, "one@v1", *found.operation["steps"])  # as it is recorded
    assert again.manifest.ref == "one@v2"


def test_all_steps_are_done_in_the_end(twenty: Workspace) -> None:
    data.run_job(twenty, "curate", dataset="set", steps=CHAIN[:1])
    [folder] = twenty.folders.runs.glob("job-curate-*")
    progress = RunFolder(folder).progress()
    assert progress is not None
    assert (progress.done, progress.total) == (1, 1)


def test_results_are_short_json(chained: dict[str, Any]) -> None:
    assert chained.keys() == {"dataset", "steps", "report"}
    assert len(json.dumps(chained)) < 4 * 4000
    assert chained["report"].keys() == {"ok", "partial", "refused", "error", "split", "warnings"}


def test_a_dry_run_shows_the_resolved_steps(twenty: Workspace) -> None:
    data.ingest(twenty, "more", rows=tuple(data.review_rows(40)), label="label")
    steps = ({"op": "merge", "dataset": "more"}, {"op": "sample", "n": 30})
    plan = KIND.plan(CurateSpec(dataset="set", steps=steps), twenty)
    assert plan.resolved == {
        "dataset": "set@v1",
        "rows": 20,
        "steps": [
            {"op": "merge", "dataset": "more@v1", "ungrouped": "leave_out"},
            {"op": "sample", "n": 30, "strategy": "random", "seed": 0},
        ],
    }


@pytest.mark.parametrize(
    ("steps", "code", "message"),
    [
        ([{"op": "fliter", "where": "true"}], Code.NOT_FOUND, "no operation 'fliter'; did you mean 'filter'"),
        ([{"where": "true"}], Code.INVALID, "Step 1 has no op"),
        ([{"op": "filter"}], Code.INVALID, r"Step 1 (filter): where: Field required"),
        ([{"op": "filter", "were": "x"}], Code.INVALID, "did you mean 'where'"),
        ([{"op": "balance", "column": "flim"}], Code.NOT_FOUND, "did you mean 'film'"),
        (
            [{"op": "derive", "column": "a", "sql": "1"}, {"op": "filter", "where": "b > 1"}],
            Code.NOT_FOUND,
            "Step 2 (filter)",
        ),
        ([{"op": "sample", "n": 5}, {"op": "merge", "dataset": "nothing"}], Code.NOT_FOUND, "Step 2 (merge)"),
    ],
)
def test_wrong_steps_are_refused_before_a_job_exists(
    twenty: Workspace, steps: list[dict[str, Any]], code: Code, message: str
) -> None:
    with pytest.raises(SpeciateError) as raised:
        KIND.plan(CurateSpec(dataset="set", steps=tuple(steps)), twenty)
    assert raised.value.code is code
    assert message in raised.value.message
    assert raised.value.recovery


def test_a_split_is_no_dataset_to_change(twenty: Workspace) -> None:
    with pytest.raises(SpeciateError, match="names a split") as raised:
        KIND.plan(CurateSpec(dataset="set:train", steps=({"op": "sample", "n": 3},)), twenty)
    assert "split = 'train'" in raised.value.recovery


def test_nothing_is_made_where_a_step_would_leave_nothing(twenty: Workspace) -> None:
    files = sorted(path.name for path in twenty.folders.datasets.rglob("*"))
    steps = ({"op": "sample", "n": 10}, {"op": "filter", "where": "film = 'no such film'"})
    with pytest.raises(SpeciateError) as raised:
        curate(twenty, "set", *steps)
    assert raised.value.message == "Step 2 (filter) would leave no usable example: it saw 10 rows, 10 of them usable."
    assert resolve(twenty.database, "set").version == 1
    assert sorted(path.name for path in twenty.folders.datasets.rglob("*")) == files


def test_an_operation_that_gives_two_rows_one_id_makes_nothing(
    twenty: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(rows: pa.Table, parameters: Any, context: Context) -> Outcome:
        return Outcome(pa.concat_tables([rows, rows.slice(3, 1)]))

    monkeypatch.setattr(sample_balance, "SAMPLE", dataclasses.replace(sample_balance.SAMPLE, apply=twice))
    with pytest.raises(SpeciateError) as raised:
        curate(twenty, "set", {"op": "sample", "n": 5})
    assert raised.value.message.startswith("Step 1 (sample) gave several rows the id 'ex-")
    assert resolve(twenty.database, "set").version == 1


def test_a_change_meant_for_the_newest_is_refused_where_another_came_first(twenty: Workspace) -> None:
    plan = KIND.plan(CurateSpec(dataset="set", steps=({"op": "sample", "n": 5},)), twenty)
    named = KIND.plan(CurateSpec(dataset="set@v1", steps=({"op": "sample", "n": 5},)), twenty)
    assert (plan.payload_json()["onto"], named.payload_json()["onto"]) == (1, None)
    folder = RunFolder(twenty.folders.runs / "job-late.1")
    folder.create({"payload": plan.payload_json(), "job": "job-late", "workspace": str(twenty.folders.root)})
    write_whole(folder.outputs / "result.json", json.dumps(run(Run(folder))))
    curate(twenty, "set", {"op": "sample", "n": 10})
    late = Job(id=JobId("job-late"), kind="curate", spec={}, fingerprint="", state=State.RUNNING, created=0, changed=0)
    with pytest.raises(SpeciateError, match="no longer the newest") as raised:
        twenty.database.transact(lambda tx: KIND.commit(tx, late, KIND.collect(folder)))
    assert raised.value.code is Code.CONFLICT
    older = curate(twenty, "set@v1", {"op": "sample", "n": 7})
    assert older.manifest.ref == "set@v3"
    assert version(twenty.database, "set").parents == ["set@v1"]


def test_a_small_change_costs_little(workspace: Workspace) -> None:
    data.ingest(workspace, "set", rows=tuple(data.review_rows(80)), label="label")
    made = curate(workspace, "set", {"op": "filter", "where": "text NOT LIKE '%number 7.'"})
    assert [part.gone for part in made.manifest.parts] == [1]
    assert made.manifest.parts[0].file == resolve(workspace.database, "set@v1").parts[0].file
    assert read(workspace, "set@v2").num_rows == 79


def test_a_missing_library_is_named_with_its_install_command(
    twenty: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cleanlab" else found(name))
    with pytest.raises(SpeciateError) as raised:
        KIND.plan(CurateSpec(dataset="set", steps=({"op": "find_label_errors"},)), twenty)
    assert raised.value.code is Code.MISSING_EXTRA
    assert raised.value.recovery == "Run: pip install 'speciate[curate]'"


def test_a_stopped_run_ends_between_steps(twenty: Workspace) -> None:
    plan = KIND.plan(CurateSpec(dataset="set", steps=({"op": "sample", "n": 5},)), twenty)
    folder = RunFolder(twenty.folders.runs / "job-stop.1")
    folder.create({"payload": plan.payload_json(), "job": "job-stop", "workspace": str(twenty.folders.root)})
    (folder.path / "cancel").touch()
    with pytest.raises(Stopped):
        run(Run(folder))


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """Of a daemon of its own, called from the folder that holds the sources."""
    monkeypatch.chdir(tmp_path)
    daemons = Daemons(tmp_path / "workspace")
    yield daemons.connect()
    daemons.close()


def finished(client: Client, started: dict[str, Any]) -> dict[str, Any]:
    job: dict[str, Any] = client.call("wait_for_job", job=started["job"], timeout_seconds=45)
    return job


def test_a_chain_through_the_real_tool(client: Client, tmp_path: Path) -> None:
    source = data.digit_folder(tmp_path / "digits", 120)
    finished(client, client.call("create_dataset", name="digits", source=str(source), label="folder"))
    steps: list[dict[str, Any]] = [
        {"op": "filter", "where": "label IN ('0', '1', '2', '3', '4')"},
        {"op": "deduplicate", "by": "embedding", "threshold": 0.999},
        {"op": "find_label_errors"},
        {"op": "balance", "column": "label"},
        {"op": "split", "fractions": {"train": 0.6, "validation": 0.2, "test": 0.2}, "seed": 7},
    ]
    dry = client.call("curate_dataset", dataset="digits", steps=steps, dry_run=True)
    assert dry["resolved"]["dataset"] == "digits@v1"
    started = client.call("curate_dataset", dataset="digits", steps=steps, idempotency_key="k")
    assert started["next_actions"][0] == {"tool": "wait_for_job", "arguments": {"job": started["job"]}}
    assert started["next_actions"][1] == {"tool": "describe_dataset", "arguments": {"dataset": "digits"}}
    ended = finished(client, started)
    assert ended["state"] == "succeeded", ended
    result = ended["result"]
    assert result["dataset"] == "digits@v2"
    assert [step["op"] for step in result["steps"]] == [step["op"] for step in steps]
    assert result["steps"][2]["flagged_column"] == "label_issue"
    view = client.call("describe_dataset", dataset="digits")
    assert view["version"] == "digits@v2"
    assert set(view["labels"]) == {"0", "1", "2", "3", "4"}
    assert client.call("curate_dataset", dataset="digits", steps=steps, idempotency_key="k")["job"] == started["job"]
    with pytest.raises(SpeciateError, match="did you mean 'label'"):
        client.call("curate_dataset", dataset="digits", steps=[{"op": "filter", "where": "lable = '1'"}])
    left = finished(
        client, client.call("curate_dataset", dataset="digits", steps=[{"op": "filter", "where": "label = 'x'"}])
    )
    assert left["state"] == "failed"
    assert "Step 1 (filter) would leave no usable example" in json.dumps(left["error"])
