"""A batch as a job: the same answers as single questions give, for a dataset and a file, and nothing asked twice."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speciate.datasets import version_rows, versions
from speciate.datasets.loading.loader import iterate_examples, load_examples
from speciate.errors import Code, SpeciateError
from speciate.evaluation import answer_cache
from speciate.jobs.engine import Engine
from speciate.jobs.pool import Pool
from speciate.jobs.run import Run, Stopped
from speciate.models import registry
from speciate.server.tool_api import App, DryRun, JobStarted
from speciate.serving import batch_predict, batch_predict_run
from speciate.serving import predict as predicting
from speciate.serving.batch_predict import KIND
from speciate.serving.predict import Input, predict
from speciate.settings import Settings
from speciate.tools import predictions as tools
from speciate.workspace.workspace import Workspace
from tests.data import ingest, run_job
from tests.evaluation.predictors.answering import answering
from tests.evaluation.world import finish, perform, prepare
from tests.serving.world import USE_CASE, move, trained
from tests.training.world import make_dataset, thirds, train_now

MODEL = "films-model@v1"
TEXTS = [f"a {'good' if n % 3 else 'bad'} film {n}" for n in range(600)]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    made = Workspace(
        tmp_path_factory.mktemp("batch") / "workspace", settings=Settings(policy="auto", private_hosts=("127.0.0.1",))
    )
    trained(made)
    move(made, MODEL)
    splits = ["test" if n % 2 else "train" for n in range(len(TEXTS))]
    make_dataset(made, "asked", "text", {"text": TEXTS}, labels=["good"] * len(TEXTS), splits=splits, inputs=["text"])
    yield made
    made.close()


@pytest.fixture(scope="module")
def expected(workspace: Workspace) -> list[str]:
    pool = Pool(workspace.folders, workspace.settings, size=1)
    try:
        found = [
            predict(workspace, pool, MODEL, [Input(row={"text": text}) for text in TEXTS[start : start + 200]])
            for start in range(0, len(TEXTS), 200)
        ]
    finally:
        pool.close()
    return [each.output for answer in found for each in answer.predictions]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def asked(workspace: Workspace) -> int:
    """How many answers of models here are in the cache."""
    return sum(pq.read_table(path).num_rows for path in answer_cache.sealed(workspace.folders))


def test_a_dataset_is_answered_as_single_questions_are(
    workspace: Workspace, expected: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "answers.jsonl"
    result = perform(workspace, KIND, {"model": f"{USE_CASE}@production", "dataset": "asked", "path": path})
    assert result["path"] == str(path)
    assert result["report"] == {"model": MODEL, "rows": 600, "answered": 600, "failed": 0}
    found = lines(path)
    assert [each["output"] for each in found] == expected
    assert [each["id"] for each in found][:2] == ["asked-000000", "asked-000001"]
    before = asked(workspace)
    again = perform(workspace, KIND, {"model": MODEL, "dataset": "asked:test", "path": tmp_path / "test.csv"})
    assert (again["report"]["rows"], asked(workspace)) == (300, before), "what is known was asked again"
    with (tmp_path / "test.csv").open() as file:
        assert [row["output"] for row in csv.DictReader(file)] == expected[1::2]


def test_the_answers_become_a_dataset_or_columns_of_the_same(workspace: Workspace, expected: list[str]) -> None:
    made = perform(workspace, KIND, {"model": MODEL, "dataset": "asked:test", "save_as": "asked-answers"})
    assert made == {
        "dataset": "asked-answers@v1", "report": {"model": MODEL, "rows": 300, "answered": 300, "failed": 0},
    }  # fmt: skip
    version = versions.version(workspace.database, "asked-answers")
    assert version.parents == ["asked@v1"]
    assert version.operation == {"op": "predict", "model": MODEL, "task": "text-classification", "split": "test"}
    rows = version_rows.read(workspace.folders, version.manifest)
    assert rows["prediction"].to_pylist() == expected[1::2]
    assert set(rows["prediction_made_by"].to_pylist()) == {MODEL}
    assert None not in rows["prediction_confidence"].to_pylist()
    assert version.manifest.inputs == ("text",), "no answer is an input"
    beside = perform(workspace, KIND, {"model": MODEL, "dataset": "asked:test", "save_as": "asked"})
    assert beside["dataset"] == "asked@v2"
    rows = version_rows.read(workspace.folders, versions.resolve(workspace.database, "asked"))
    assert rows["prediction"].to_pylist() == [each if n % 2 else None for n, each in enumerate(expected)]
    with pytest.raises(SpeciateError, match="There is a dataset 'asked-answers' already"):
        perform(workspace, KIND, {"model": MODEL, "dataset": "asked@v1", "save_as": "asked-answers"})


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_file_is_answered_row_by_row(workspace: Workspace, expected: list[str], tmp_path: Path, suffix: str) -> None:
    source, path = tmp_path / f"films.{suffix}", tmp_path / f"answers.{suffix}"
    table = pa.table({"number": list(range(300)), "text": TEXTS[:300]})
    if suffix == "parquet":
        pq.write_table(table, source)
    elif suffix == "csv":
        source.write_text("number,text\n" + "".join(f"{n},{text}\n" for n, text in enumerate(TEXTS[:300])))
    else:
        source.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    result = perform(workspace, KIND, {"model": MODEL, "source": source, "path": path})
    assert result["report"] == {"model": MODEL, "rows": 300, "answered": 300, "failed": 0}
    match suffix:
        case "parquet":
            found = pq.read_table(path).to_pylist()
        case "csv":
            with path.open() as file:
                found = list(csv.DictReader(file))
        case _:
            found = lines(path)
    assert [each["output"] for each in found] == expected[:300]
    assert [str(each["id"]) for each in found] == [str(n + 1) for n in range(300)]


def test_the_files_of_a_folder_are_answered_and_what_is_unusable_says_why(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    (folder / "more").mkdir(parents=True)
    (folder / "a.txt").write_text("a good film 1")
    (folder / "more" / "b.txt").write_text("a bad film 2")
    (folder / "c.txt").write_text("   ")
    (folder / ".hidden").write_text("a bad film 2")
    (folder / "link.txt").symlink_to(folder / "a.txt")
    path = tmp_path / "answers.jsonl"
    columns = registry.resolve(workspace.database, workspace.folders, MODEL).card.inputs
    assert columns == ("text",)
    result = perform(workspace, KIND, {"model": MODEL, "source": folder, "path": path})
    found = {each["id"]: each for each in lines(path)}
    assert list(found) == ["a.txt", "c.txt", "more/b.txt"]
    assert (found["a.txt"]["output"], found["more/b.txt"]["output"]) == ("good", "bad")
    assert (result["report"]["answered"], result["report"]["failed"]) == (2, 1)
    assert found["c.txt"]["error"]


def test_a_run_that_was_stopped_goes_on_behind_its_last_chunk(
    workspace: Workspace, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, path = tmp_path / "films.jsonl", tmp_path / "answers.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    plan = KIND.plan(KIND.spec.model_validate({"model": MODEL, "source": source, "path": path}), workspace)
    first, _ = prepare(workspace, "predict", plan.payload_json())
    keep, chunks = batch_predict_run._keep_chunk, []

    def keep_and_stop(run: Run, start: int, chunk: Any) -> None:
        keep(run, start, chunk)
        chunks.append(start)
        (run.folder.path / "cancel").touch()

    monkeypatch.setattr(batch_predict_run, "_keep_chunk", keep_and_stop)
    with pytest.raises(Stopped):
        batch_predict_run.run(Run(first))
    assert chunks == [0]
    assert not path.exists()
    source.unlink()  # the rows were read
    second, job = prepare(workspace, "predict", plan.payload_json(), resume_from=[str(first.path)])
    monkeypatch.setattr(batch_predict_run, "_keep_chunk", lambda run, start, rows: chunks.append(start))
    assert finish(workspace, KIND, second, job)["report"]["answered"] == 600
    assert chunks == [0, 256, 512], "a chunk was asked twice"
    assert [each["output"] for each in lines(path)] == expected
    assert not list(first.path.parent.glob("*/checkpoints/*.parquet")), "a copy of the file is left"


def test_a_file_that_stands_already_is_never_replaced_but_our_own_is_known(
    workspace: Workspace, tmp_path: Path
) -> None:
    path = tmp_path / "answers.jsonl"
    spec = {"model": MODEL, "dataset": "asked@v1:test", "path": path}
    payload = KIND.plan(KIND.spec.model_validate(spec), workspace).payload_json()
    first, _ = prepare(workspace, "predict", payload)
    batch_predict_run.run(Run(first))  # and was killed before its end was known
    second, job = prepare(workspace, "predict", payload, resume_from=[str(first.path)])
    assert finish(workspace, KIND, second, job)["path"] == str(path)
    third, _ = prepare(workspace, "predict", payload)
    with pytest.raises(SpeciateError, match="never overwrite"):
        batch_predict_run.run(Run(third))
    assert len(lines(path)) == 300
    assert [each.name for each in tmp_path.iterdir()] == ["answers.jsonl"]


def test_a_hosted_model_is_asked_for_a_dataset_within_its_budget_and_not_for_a_file(
    workspace: Workspace, tmp_path: Path
) -> None:
    with answering() as server:
        server.answer = lambda text: text.upper()
        priced = server.endpoint(usd_per_1m_input=10.0, usd_per_1m_output=10.0)
        card = registry.served_card(workspace, "shouter", priced, task=None, license=None)
        ref = workspace.database.transact(lambda tx: registry.register(tx, workspace.folders, card, None)).ref
        spec = {"model": ref, "dataset": "asked@v1:test", "path": tmp_path / "answers.jsonl", "budget_usd": 0.05}
        plan = KIND.plan(KIND.spec.model_validate(spec), workspace)
        assert plan.usd
        assert plan.resolved["endpoints"][0]["calls"] == 300
        result = perform(workspace, KIND, spec)
        report, calls = result["report"], len(server.asked)
        assert 0 < report["answered"] == calls < 60, "the budget is a cap"
        assert report["untrusted"]["reasons"] == {"not asked: the budget is spent": 300 - calls}
        more = perform(workspace, KIND, spec | {"path": tmp_path / "more.jsonl", "budget_usd": 100.0})
        assert more["report"]["answered"] == 300
        assert len(server.asked) == 300, "what was paid was asked again"
        assert TEXTS[1].upper() in lines(tmp_path / "more.jsonl")[0]["output"]
        source = tmp_path / "films.jsonl"
        source.write_text(json.dumps({"text": "a"}))
        with pytest.raises(SpeciateError) as refusal:
            perform(workspace, KIND, {"model": ref, "source": source, "path": tmp_path / "out.jsonl"})
        assert refusal.value.code == Code.REFUSED
        assert [call.tool for call in refusal.value.next] == ["create_dataset"]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"dataset": "asked"}, "either at a path or into a dataset"),
        ({"path": "/a.csv"}, "either a dataset or a source"),
        ({"dataset": "asked", "path": "/a.docx"}, "no format of answers"),
        ({"dataset": "asked", "path": "/etc/passwd.csv", "save_as": "b"}, "either at a path"),
        ({"dataset": "nothing", "path": "/a.csv"}, "nothing"),
        ({"dataset": "asked", "path": "/a.csv", "model": "column:text"}, "no model that can be asked"),
        ({"source": "/etc/hostname", "path": "/a.csv"}, "no table"),
        ({"dataset": "asked", "path": "/etc/hostname/a.csv"}, "no folder"),
    ],
)
def test_what_does_not_fit_is_refused_before_there_is_a_job(
    workspace: Workspace, spec: dict[str, Any], told: str
) -> None:
    with pytest.raises(SpeciateError, match=told):
        KIND.plan(batch_predict.PredictSpec.model_validate({"model": MODEL, **spec}), workspace)


def test_the_tool_starts_a_job_or_only_checks(workspace: Workspace, tmp_path: Path) -> None:
    pool, engine = Pool(workspace.folders, workspace.settings, size=1), Engine(workspace)
    try:
        app = App(workspace, engine, pool)
        out = workspace.folders.exports / "tool.csv"
        checked = tools.predict(app, use_case=USE_CASE, dataset="asked@v1", path=str(out), dry_run=True)
        assert isinstance(checked, DryRun)
        assert (checked.resolved["rows"], checked.resolved["model"]) == (600, MODEL)
        started = tools.predict(app, use_case=USE_CASE, dataset="asked@v1", path=str(out), idempotency_key="once")
        again = tools.predict(app, use_case=USE_CASE, dataset="asked@v1", path=str(out), idempotency_key="once")
        assert isinstance(started, JobStarted)
        assert isinstance(again, JobStarted)
        assert started.job == again.job
        for wrong in (
            {},
            {"inputs": [Input(text="a")], "path": "a.csv"},
            {"inputs": [Input(text="a")], "dataset": "x"},
        ):
            with pytest.raises(SpeciateError):
                tools.predict(app, use_case=USE_CASE, **wrong)  # type: ignore[arg-type]
    finally:
        pool.close()


def test_examples_by_and_by_are_the_same(workspace: Workspace) -> None:
    manifest = versions.resolve(workspace.database, "asked@v1")
    pieces = list(iterate_examples(workspace.folders, manifest, ["test"], 7))
    assert [each for piece in pieces for each in piece] == load_examples(workspace.folders, manifest, ["test"])


def test_an_example_of_a_dataset_is_an_input(workspace: Workspace, expected: list[str], tmp_path: Path) -> None:
    pool = Pool(workspace.folders, workspace.settings, size=1)
    try:
        given = [Input(example=f"asked-{n:06d}", dataset="asked@v1") for n in range(3)]
        found = predict(workspace, pool, MODEL, [*given, Input(example="no-such", dataset="asked")]).predictions
        assert [each.output for each in found[:3]] == expected[:3]
        assert "no example 'no-such'" in str(found[3].error)
        assert "query_dataset" in str(found[3].error)
        with pytest.raises(SpeciateError, match=r"'films.csv' is a table") as refusal:
            predict(workspace, pool, f"{USE_CASE}@production", [Input(path="films.csv")])
        assert refusal.value.next[0].tool == "predict"
        assert dict(refusal.value.next[0].arguments) == {
            "use_case": USE_CASE, "source": "films.csv", "path": "films-answers.jsonl",
        }  # fmt: skip
    finally:
        pool.close()
    for wrong in ({"example": "a"}, {"dataset": "asked"}, {"example": "a", "dataset": "b", "text": "c"}):
        with pytest.raises(ValueError, match=r"example|exactly one"):
            Input.model_validate(wrong)


def test_an_example_is_given_as_its_medium_is_stored(workspace: Workspace) -> None:
    card = registry.resolve(workspace.database, workspace.folders, MODEL).card
    sees = card.model_copy(update={"inputs": (), "modality": "image"})
    make_dataset(workspace, "photos", "image", {}, labels=["a", "b"], splits=["test"] * 2, media=[b"one", b"two"])
    item = predicting._example_item(workspace, sees, Input(example="photos-000001", dataset="photos:test"))
    assert item == {"data": base64.b64encode(b"two").decode()}
    with pytest.raises(SpeciateError, match="reads the column 'text', which photos@v1 lacks"):
        predicting._example_item(workspace, card, Input(example="photos-000001", dataset="photos"))
    reads = card.model_copy(update={"inputs": ()})
    item = predicting._example_item(workspace, reads, Input(example="asked-000002", dataset="asked@v1"))
    assert item == {"text": TEXTS[2]}


def test_a_cell_that_is_no_number_is_the_error_of_its_row_and_an_empty_one_is_missing(
    workspace: Workspace, tmp_path: Path
) -> None:
    sizes = [None if n % 9 == 0 else float(n % 20) for n in range(120)]
    columns = {"size": sizes, "colour": [("red", "blue")[n % 2] for n in range(120)]}
    labels = ["large" if (size or 0.0) > 9 else "small" for size in sizes]
    make_dataset(workspace, "boxes", "tabular", columns, labels=labels, splits=thirds(120), inputs=list(columns))
    few = {"candidates": ["logistic"]}
    train_now(workspace, "job-boxes", name="sizes", dataset="boxes", method="classical", hyperparameters=few)
    cells = ["3", "", "17.5", "NA", " 18 ", "n/a", "0"]

    def answers(name: str, cells: list[str]) -> list[dict[str, Any]]:
        source, path = tmp_path / f"{name}.csv", tmp_path / f"{name}.jsonl"
        source.write_text("size,colour\n" + "".join(f"{cell},red\n" for cell in cells))
        result = perform(workspace, KIND, {"model": "sizes@v1", "source": source, "path": path})
        assert result["report"]["failed"] == cells.count("twelve")
        assert result["report"].get("untrusted", {}).get("ids", []) == ["4"] * cells.count("twelve")
        return lines(path)

    numbers = answers("numbers", cells)
    assert [each["error"] for each in numbers] == [None] * 7
    assert [each["output"] for each in numbers][::2] == ["small", "large", "large", "small"]
    mixed = answers("mixed", [*cells[:3], "twelve", *cells[3:]])
    assert [each["id"] for each in mixed] == [str(n) for n in range(1, 9)]
    error = mixed.pop(3)["error"]
    assert "'size' must be a number" in error
    assert "'twelve'" in error
    for one, other in zip(mixed, numbers, strict=True):
        assert one["output"] == other["output"]
        assert one["confidence"] == pytest.approx(other["confidence"], rel=1e-12)


def test_rows_far_from_what_training_saw_are_counted_and_named(workspace: Workspace, tmp_path: Path) -> None:
    columns = {"size": [float(n % 20) for n in range(120)], "colour": [("red", "blue")[n % 2] for n in range(120)]}
    labels = ["large" if size > 9 else "small" for size in columns["size"]]  # type: ignore[operator]
    make_dataset(workspace, "parcels", "tabular", columns, labels=labels, splits=thirds(120), inputs=list(columns))
    few = {"candidates": ["logistic"]}
    train_now(workspace, "job-parcels", name="weights", dataset="parcels", method="classical", hyperparameters=few)
    far = "'size' is far outside of what training saw: 0 to 18."
    new = "'colour' has a value that training never saw."
    wanted = {"remarks": {far: 2, new: 1}, "odd_ids": ["2", "3"]}

    source = tmp_path / "parcels.csv"
    source.write_text("size,colour\n5,red\n500,red\n900,green\n7,blue\n")
    answered = perform(workspace, KIND, {"model": "weights@v1", "source": source, "path": tmp_path / "out.csv"})
    report = answered["report"]
    assert (report["odd"], report["untrusted"]) == (2, wanted)

    odd = {"size": [5.0, 500.0, 900.0, 7.0], "colour": ["red", "red", "green", "blue"]}
    make_dataset(workspace, "arrived", "tabular", odd, labels=["small"] * 4, inputs=list(odd), splits=["test"] * 4)
    given = {"model": "weights@v1", "dataset": "arrived", "path": tmp_path / "arrived.csv"}
    report = perform(workspace, KIND, given)["report"]
    assert report["odd"] == 2
    assert report["untrusted"]["remarks"] == wanted["remarks"]
    usual = perform(workspace, KIND, given | {"dataset": "parcels", "path": tmp_path / "usual.csv"})["report"]
    assert "odd" not in usual
    assert "untrusted" not in usual


@pytest.mark.parametrize("named", [True, False])
def test_columns_that_were_joined_as_channels_are_joined_in_the_same_order(
    workspace: Workspace, tmp_path: Path, *, named: bool
) -> None:
    """Where nobody named them, their order in another file says nothing: that is refused."""

    def rows(count: int) -> list[dict[str, Any]]:
        flat, wave = [0.0] * 12, [float(step % 5) for step in range(12)]
        return [
            {"right": [flat, wave][i % 2], "left": [wave, flat][i % 2], "side": ("left", "right")[i % 2]}
            for i in range(count)
        ]

    (tmp_path / "waves.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(60)))
    inputs = {"inputs": ("left", "right")} if named else {}
    name = f"waves-{named}"  # other tests have others
    ingest(workspace, name, source=tmp_path / "waves.jsonl", label="side", modality="time-series", **inputs)
    quick = {"candidates": ["ridge"]}
    run_job(
        workspace, "train", name=f"{name}-model", dataset=name, method="classical", task="time-series-classification",
        hyperparameters=quick,
    )  # fmt: skip
    new = tmp_path / "new.jsonl"
    turned = [{column: row[column] for column in ("side", "left", "right")} for row in rows(6)]
    new.write_text("".join(json.dumps(row) + "\n" for row in turned))
    asked = {"model": f"{name}-model@v1", "source": new, "path": tmp_path / "answers.jsonl"}
    if not named:
        with pytest.raises(SpeciateError, match=r"reads the column 'series', which 'new\.jsonl' lacks"):
            perform(workspace, KIND, asked)
        return
    perform(workspace, KIND, asked)
    assert [each["output"] for each in lines(tmp_path / "answers.jsonl")] == ["left", "right"] * 3
    new.write_text(json.dumps({"left": [0.0] * 12}) + "\n")
    with pytest.raises(SpeciateError, match=r"reads the column 'right', which 'new\.jsonl' lacks"):
        perform(workspace, KIND, {**asked, "path": tmp_path / "others.jsonl"})


@pytest.mark.slow
def test_a_file_with_one_step_a_row_is_made_series_as_those_were_that_the_model_learned_from(
    workspace: Workspace, tmp_path: Path
) -> None:
    """What agents did by guessing: the refusal names the reader, in the call that works as it stands."""

    def steps(name: str, windows: int) -> Path:
        file = tmp_path / name
        rows = [f"{w},{t},{(w % 2) * 3 + t % 5}" for w in range(windows) for t in range(12)]
        file.write_text("window,tick,speed\n" + "\n".join(rows) + "\n")
        return file

    (tmp_path / "labels.csv").write_text(
        "window,pace\n" + "".join(f"{w},{('slow', 'fast')[w % 2]}\n" for w in range(60))
    )
    labels = {"path": tmp_path / "labels.csv", "key": "window", "column": "pace"}
    ingest(workspace, "paces", source=steps("steps.csv", 60), reader="long:window,tick", labels=labels)
    run_job(workspace, "train", name="pace", dataset="paces", method="classical", task="time-series-classification")
    new = steps("new.csv", 2)
    pool = Pool(workspace.folders, workspace.settings, size=1)
    with pytest.raises(SpeciateError, match="an input is one series") as refused:
        predict(workspace, pool, "pace@v1", [Input(path=str(new))])
    pool.close()
    with pytest.raises(SpeciateError, match=r"which 'new\.csv' lacks") as failed:
        perform(workspace, KIND, {"model": "pace@v1", "source": new, "path": tmp_path / "answers.jsonl"})
    made = failed.value.next[0]
    assert made == refused.value.next[0]
    assert (made.tool, made.arguments["reader"]) == ("create_dataset", "long:window,tick")
    assert refused.value.next[1].arguments == {"model": "pace@v1", "dataset": made.arguments["name"]}
    ingest(workspace, **{**made.arguments, "name": "new-paces", "source": new})  # other tests have the other name
    perform(workspace, KIND, {"model": "pace@v1", "dataset": "new-paces", "path": tmp_path / "answers.jsonl"})
    assert sorted(each["output"] for each in lines(tmp_path / "answers.jsonl")) == ["fast", "slow"]
