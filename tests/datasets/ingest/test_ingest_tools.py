"""create_dataset and add_examples as an agent calls them: what is refused at the call, and what the report says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from speciate.datasets import version_rows
from speciate.datasets.versions import version
from speciate.errors import SpeciateError
from speciate.jobs.engine import Engine
from speciate.jobs.pool import Pool
from speciate.server.tool_api import IN_PROCESS, App, DryRun, JobStarted
from speciate.tools.datasets import add_examples, create_dataset
from speciate.tools.labels import Label, LabelResult, label_examples
from speciate.workspace.workspace import Workspace
from tests import data

pytestmark = pytest.mark.slow


@pytest.fixture
def app(workspace: Workspace, tmp_path: Path) -> Iterator[App]:
    engine, pool = Engine(workspace), Pool(workspace.folders, workspace.settings, size=1)
    engine.start()
    yield App(workspace, engine, pool, IN_PROCESS._replace(folder=tmp_path))
    pool.close()
    engine.stop()


def done(app: App, started: JobStarted | DryRun) -> dict[str, object]:
    assert isinstance(started, JobStarted)
    ended = app.engine.wait(started.job, timeout=120)
    assert ended.result is not None, ended.error
    return ended.result


def test_a_column_that_the_header_lacks_is_refused_at_the_call(app: App, tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b"], "label": ["x", "y"]})
    pq.write_table(table, tmp_path / "rows.parquet")
    data.review_csv(tmp_path / "rows.csv")
    for name in ("rows.parquet", "rows.csv"):
        with pytest.raises(SpeciateError, match="did you mean 'label'"):
            create_dataset(app, "set", name, label="lable")
        with pytest.raises(SpeciateError, match="inputs names 'words'"):
            create_dataset(app, "set", name, label="label", inputs=["text", "words"])
    (tmp_path / "messy.csv").write_text("a,b\n1,2\n3,4,5\n6,7\n")
    with pytest.raises(SpeciateError, match="label names 'nope'") as raised:
        create_dataset(app, "set", "messy.csv", label="nope")
    assert "_reason" not in raised.value.message
    with pytest.raises(SpeciateError, match="There is no reader"):
        create_dataset(app, "set", "rows.csv", reader="xml")
    (tmp_path / "folder").mkdir()
    for name in ("rows.parquet", "folder"):
        with pytest.raises(SpeciateError, match="no regular expression"):
            create_dataset(app, "set", name, group_by="(((")
    with pytest.raises(SpeciateError, match="has no group"):
        create_dataset(app, "set", "rows.csv", group_by="cinema")
    assert app.engine.list() == []


def test_rows_are_added_through_the_tools(app: App) -> None:
    rows = data.review_rows(40)
    made = done(app, create_dataset(app, "set", rows=rows[:30], label="label", group_by="film"))
    assert made["dataset"] == "set@v1"
    planned = add_examples(app, "set", rows=rows, dry_run=True)
    assert isinstance(planned, DryRun)
    assert planned.resolved["dataset"] == "set@v1"
    with pytest.raises(SpeciateError, match="names a split, and rows cannot be added to one by name"):
        add_examples(app, "set:train", rows=rows)
    added = done(app, add_examples(app, "set", rows=rows))
    assert added["dataset"] == "set@v2"
    assert version(app.workspace.database, "set").report["added"] == 10
    assert "story told" not in str([job.spec for job in app.engine.list()])


def test_unlearnable_labels_are_a_warning(workspace: Workspace, tmp_path: Path) -> None:
    folder = data.digit_folder(tmp_path / "digits", 20, classes=1)
    data.ingest(workspace, "bare", source=folder)
    data.ingest(workspace, "one", source=folder, label="folder")
    assert "No label was named" in version(workspace.database, "bare").report["warnings"][0]
    assert "one and the same label" in version(workspace.database, "one").report["warnings"][0]


def test_few_groups_fill_every_split_and_too_few_are_a_warning(workspace: Workspace) -> None:
    rows = [{"text": f"visit {i} of a person", "who": f"p{i // 10}", "y": "ab"[i % 2]} for i in range(40)]
    four = data.ingest(workspace, "four", rows=rows, label="y", group_by="who", inputs=("text",))
    assert four.splits == {"train": 20, "validation": 10, "test": 10}
    shares, units = sorted(version(workspace.database, "four").report["warnings"])
    assert "'train' has 20 (50%) instead of 70%" in shares
    assert "only 1 group(s)" in units
    one = data.ingest(workspace, "one", rows=rows[:10], label="y", group_by="who", inputs=("text",))
    assert one.splits == {"train": 10}
    assert "in 'validation' or 'test'" in version(workspace.database, "one").report["warnings"][0]
    halves = {"op": "split", "fractions": {"train": 0.5, "test": 0.5}}
    split = data.run_job(workspace, "curate", dataset="one", steps=[halves])
    assert "lies in 'test'" in split["report"]["warnings"][0]
    assert data.ingest(workspace, "one", rows=rows[10:30], add=True).splits == dict.fromkeys(four.splits, 10)
    (units,) = version(workspace.database, "one").report["warnings"]
    assert "group(s)" in units, "nothing of the shares any more"


def test_files_of_one_name_in_two_folders_are_two_examples(workspace: Workspace, tmp_path: Path) -> None:
    folder = data.digit_folder(tmp_path / "digits", 20, classes=2)
    first, other = next((folder / "0").iterdir()), next((folder / "1").iterdir())
    other.rename(folder / "1" / first.name)
    assert data.ingest(workspace, "set", source=folder, label="folder").rows == 20


def test_a_source_of_which_nothing_is_usable_says_why(workspace: Workspace) -> None:
    with pytest.raises(SpeciateError, match="None of the 4 items can be used") as raised:
        data.ingest(workspace, "set", rows=[{"text": "some words here", "kind": None}] * 4, label="kind")
    assert raised.value.foreign.startswith("The label is missing")
    with pytest.raises(SpeciateError, match="None of the 3 items can be used") as raised:
        data.ingest(workspace, "set", rows=[{"text": "\x01"}] * 3, modality="text", inputs=("text",))
    assert raised.value.foreign.startswith("Control characters: this is not text")


def test_a_column_called_label_is_the_label_and_never_an_input(workspace: Workspace) -> None:
    rows = [{"x": i, "y": i % 7, "Label": "ab"[i % 2]} for i in range(30)]
    manifest = data.ingest(workspace, "set", rows=rows)
    assert (manifest.label, manifest.inputs, manifest.labels) == ("Label", ("x", "y"), {"a": 15, "b": 15})
    assert "is the label" in version(workspace.database, "set").report["warnings"][0]
    grown = data.ingest(workspace, "set", rows=[{"x": 99, "y": 1, "Label": "b"}], add=True)
    assert (grown.rows, grown.labels["b"]) == (31, 16)
    chosen = data.ingest(workspace, "other", rows=rows, inputs=("x", "Label"), label="y")
    assert chosen.inputs == ("x", "user_Label")
    assert data.ingest(workspace, "empty", rows=[{"x": i, "label": None} for i in range(9)]).label is None


def test_folders_that_look_like_classes_are_a_hint(workspace: Workspace, tmp_path: Path) -> None:
    data.ingest(workspace, "bare", source=data.digit_folder(tmp_path / "digits", 20, classes=2))
    assert "label='folder'" in version(workspace.database, "bare").report["warnings"][0]
    flat = data.digit_folder(tmp_path / "flat", 6, classes=1)
    data.ingest(workspace, "flat", source=flat / "0")
    assert "folder" not in version(workspace.database, "flat").report["warnings"][0]


def test_labels_for_an_older_version_say_what_they_leave_out(app: App) -> None:
    rows = data.review_rows(30)
    done(app, create_dataset(app, "set", rows=rows[:20], label="label"))
    ids = version_rows.read(app.workspace.folders, version(app.workspace.database, "set").manifest, ["id"])[
        "id"
    ].to_pylist()
    done(app, add_examples(app, "set", rows=rows[20:]))
    late = label_examples(app, "set@v1", [Label(id=ids[0], label="new")], "human")
    assert isinstance(late, LabelResult)
    assert (late.version, late.parent) == ("set@v3", "set@v1")
    assert "up to set@v2" in late.warnings[0]
    newest = label_examples(app, "set", [Label(id=ids[0], label="newer")], "human")
    assert isinstance(newest, LabelResult)
    assert (newest.changed, newest.warnings) == (1, ())


def test_only_null_takes_a_label_away_and_the_answer_says_so(app: App) -> None:
    done(app, create_dataset(app, "set", rows=data.review_rows(20), label="label"))
    found = version(app.workspace.database, "set").manifest
    name = version_rows.read(app.workspace.folders, found, ["id"])["id"][0].as_py()
    with pytest.raises(ValidationError):
        Label.model_validate({"id": name})
    for empty in ("", " ", "\u200b"):
        with pytest.raises(SpeciateError, match="1 of the labels are empty"):
            label_examples(app, "set", [Label(id=name, label=empty)], "human")
    taken = label_examples(app, "set", [Label(id=name, label=None)], "human")
    assert isinstance(taken, LabelResult)
    assert (taken.version, taken.changed) == ("set@v2", 1)
    assert "1 examples lost their label" in taken.warnings[0]
    long = label_examples(app, "set", [Label(id=name, label="so " * 40)], "human")
    assert isinstance(long, LabelResult)
    assert "more than 64 characters" in long.warnings[0]
