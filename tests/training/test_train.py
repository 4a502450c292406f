from __future__ import annotations

import json
import os
import sys
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from speciate.datasets.loading.loader import load_examples
from speciate.datasets.versions import Manifest
from speciate.environment import cores
from speciate.errors import Code, SpeciateError
from speciate.jobs.run import Run, Stopped
from speciate.models import registry
from speciate.tasks import predictor
from speciate.training import train, train_run
from speciate.training.selection.learners import signed_standing
from speciate.training.train_spec import RequestedResources, TrainSpec
from speciate.workspace.workspace import Workspace
from tests.training.world import define, make_dataset, model_path, png, run_folder, thirds, train_now

GOOD, BAD = ("a fine film", "lovely and warm", "great fun"), ("a dull film", "cold and awful", "great bore")


def _texts(workspace: Workspace, splits: tuple[str, ...] = ("train", "validation", "test")) -> Manifest:
    texts = [f"{(GOOD if i % 4 < 2 else BAD)[i % 3]} number {i}" for i in range(120)]
    labels = ["good" if i % 4 < 2 else "bad" for i in range(120)]
    return make_dataset(
        workspace, "reviews", "text", {"text": texts}, labels=labels, splits=thirds(120, splits), inputs=["text"]
    )


def _digits(workspace: Workspace) -> Manifest:
    from sklearn.datasets import load_digits

    digits = load_digits()
    media = [png(np.kron(image, np.ones((2, 2))).astype(np.uint8) * 15) for image in digits.images[:400]]
    labels = [str(target) for target in digits.target[:400]]
    return make_dataset(workspace, "digits", "image", {}, labels=labels, splits=thirds(400), media=media)


def _pair(workspace: Workspace, labels: list[str], splits: list[str]) -> None:
    make_dataset(workspace, "pair", "text", {"text": ["a", "b"]}, labels=labels, splits=splits, inputs=["text"])


def _accuracy(workspace: Workspace, manifest: Manifest, ref: str, split: str = "test") -> float:
    examples = load_examples(workspace.folders, manifest, (split,))
    predictions = predictor.load(model_path(workspace, ref)).predict(examples)
    return float(np.mean([one.output == example.label for one, example in zip(predictions, examples, strict=True)]))


def test_a_text_classifier_is_trained_registered_and_served(workspace: Workspace) -> None:
    manifest = _texts(workspace)
    result = train_now(workspace, name="reviews-model", dataset="reviews", method="classical")
    assert result["model"] == "reviews-model@v1"
    report = result["report"]
    assert report["validation"]["how"] == "validation"
    assert sum(candidate["chosen"] for candidate in report["candidates"]) == 1
    assert all(candidate["seconds"] > 0 for candidate in report["candidates"])
    assert _accuracy(workspace, manifest, "reviews-model") > 0.95
    card = registry.resolve(workspace.database, workspace.folders, "reviews-model@v1").card
    assert (card.dataset, card.labels, card.task) == ("reviews@v1", ("bad", "good"), "text-classification")


def test_images_are_learned_from_their_pixels(workspace: Workspace) -> None:
    manifest = _digits(workspace)
    few = {"candidates": ["neighbours", "svm"]}
    result = train_now(workspace, name="digits-model", dataset="digits", method="classical", hyperparameters=few)
    assert result["report"]["validation"]["value"] > 0.9
    assert _accuracy(workspace, manifest, "digits-model") > 0.9


def test_without_a_validation_split_whole_groups_are_held_out(workspace: Workspace) -> None:
    _texts(workspace, ("train", "test"))
    result = train_now(workspace, name="reviews-model", dataset="reviews", method="classical")
    assert result["report"]["validation"]["how"] == "out-of-fold"
    assert result["report"]["validation"]["n"] == 60


def test_table_rows_with_gaps_and_words_are_learned(workspace: Workspace) -> None:
    rng = np.random.default_rng(0)
    size = [None if i % 7 == 0 else float(x) for i, x in enumerate(rng.normal(size=200))]
    colour = ["red" if x > 0 else "blue" for x in rng.normal(size=200)]
    labels = ["yes" if (s or 0.0) > 0.3 or c == "red" else "no" for s, c in zip(size, colour, strict=True)]
    columns: dict[str, Any] = {"size": size, "colour": colour}
    manifest = make_dataset(
        workspace, "shapes", "tabular", columns, labels=labels, splits=thirds(200), inputs=["size", "colour"]
    )
    train_now(workspace, name="shapes-model", dataset="shapes", method="classical")
    assert _accuracy(workspace, manifest, "shapes-model") > 0.9


def test_neither_the_answer_nor_the_incumbents_answers_are_inputs(workspace: Workspace) -> None:
    columns = {"x": [1.0, 2.0] * 2, "truth": ["a", "b"] * 2, "old_system": ["a", "a"] * 2}
    make_dataset(
        workspace, "cases", "tabular", columns, labels=["a", "b"] * 2, splits=["train"] * 4, inputs=list(columns)
    )
    define(workspace, "sorting", "tabular-classification", incumbent="column:old_system")
    spec = _spec(dataset="cases", use_case="sorting", target="truth")
    assert train.plan(spec, workspace).payload_json()["manifest"]["inputs"] == ["x"]


def test_numbers_are_learned_by_regression(workspace: Workspace) -> None:
    x = np.random.default_rng(1).normal(size=200)
    manifest = make_dataset(
        workspace, "line", "tabular", {"x": x.tolist()}, labels=[float(3 * v + 100) for v in x],
        splits=thirds(200), inputs=["x"],
    )  # fmt: skip
    result = train_now(workspace, name="line-model", dataset="line", method="classical")
    assert result["report"]["metric"] == "mae"
    examples = load_examples(workspace.folders, manifest, ("test",))
    given = predictor.load(model_path(workspace, "line-model")).predict(examples)
    errors = [abs(float(one.output) - example.label) for one, example in zip(given, examples, strict=True)]
    assert np.mean(errors) < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("numeric", [False, True])
def test_what_differs_at_one_step_of_series_that_line_up_is_learned_from_the_steps(
    workspace: Workspace, numeric: bool
) -> None:
    """Spectra: of 300 steps, few say what it is."""
    chance = np.random.default_rng(0)
    amounts = [float(i % 2) for i in range(160)]
    spectra = chance.normal(0, 1, (160, 300)).cumsum(axis=1) / 5 + chance.normal(0, 0.3, (160, 300))
    spectra[:, 140:144] += 2 * np.array(amounts)[:, None] - np.array([0.5, 1.5, 1.5, 0.5])
    labels: list[Any] = amounts if numeric else [("clean", "tainted")[int(each)] for each in amounts]
    make_dataset(
        workspace, "spectra", "time-series", {"values": spectra.tolist()}, labels=labels, inputs=["values"],
        splits=["train"] * 100 + ["validation"] * 30 + ["test"] * 30,
    )  # fmt: skip
    task = "time-series-regression" if numeric else None
    result = train_now(workspace, name="scanner", dataset="spectra", method="classical", task=task)
    assert "steps: linear" in next(each["name"] for each in result["report"]["candidates"] if each["chosen"])
    alone = {"candidates": ["linear"]}
    again = train_now(
        workspace, "job-y", name="scanner", dataset="spectra", method="classical", task=task, hyperparameters=alone
    )
    assert [each["name"] for each in again["report"]["candidates"]] == ["steps: linear"]


def test_proteins_are_learned_from_their_k_mers(workspace: Workspace) -> None:
    rng = np.random.default_rng(2)
    sequences = ["".join(rng.choice(list("KRLA" if i % 4 < 2 else "DEGS"), 20)) for i in range(80)]
    labels = ["active" if i % 4 < 2 else "inert" for i in range(80)]
    manifest = make_dataset(
        workspace, "peptides", "protein", {"sequence": sequences}, labels=labels, splits=thirds(80), inputs=["sequence"]
    )
    train_now(workspace, name="peptide-model", dataset="peptides", method="classical")
    assert _accuracy(workspace, manifest, "peptide-model") > 0.95


def test_the_same_job_committed_twice_makes_one_version(workspace: Workspace) -> None:
    _texts(workspace)
    first = train_now(workspace, name="reviews-model", dataset="reviews", method="classical")
    folder = run_folder(workspace, "job-x", train.plan(_spec(), workspace).payload_json())
    collected = train.collect(folder)
    from speciate.jobs.job import Job, State
    from speciate.refs import JobId

    job = Job(id=JobId("job-x"), kind="train", spec={}, fingerprint="", state=State.RUNNING, created=0.0, changed=0.0)
    assert workspace.database.transact(lambda tx: train.commit(tx, job, collected))["model"] == first["model"]
    assert len(registry.versions(workspace.database, "reviews-model")) == 1


def test_a_changed_weight_is_refused_at_load(workspace: Workspace) -> None:
    _texts(workspace)
    train_now(workspace, name="reviews-model", dataset="reviews", method="classical")
    path = model_path(workspace, "reviews-model") / "estimator.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()
    path.write_bytes(bytes(data))
    with pytest.raises(SpeciateError) as refusal:
        predictor.load(path.parent)
    assert refusal.value.code is Code.REFUSED
    assert "sha256" in refusal.value.message


def test_a_stopped_run_ends_between_candidates(workspace: Workspace) -> None:
    _texts(workspace)
    folder = run_folder(workspace, "job-x", train.plan(_spec(), workspace).payload_json())
    (folder.path / "cancel").touch()
    with pytest.raises(Stopped):
        train_run.run(Run(folder))


def test_when_the_budget_ends_the_rest_is_reported_as_not_tried(workspace: Workspace) -> None:
    _texts(workspace)
    result = train_now(workspace, name="reviews-model", dataset="reviews", method="classical", budget_minutes=1e-9)
    first, *rest = result["report"]["candidates"]
    assert first["chosen"]
    assert {one["reason"] for one in rest} == {"the budget had ended"}


@pytest.mark.parametrize("budget", [None, 1.0])
def test_attempts_share_the_budget_and_their_costs_add_up(workspace: Workspace, budget: float | None) -> None:
    _texts(workspace)
    payload = train.plan(_spec(budget_minutes=budget), workspace).payload_json()
    first = run_folder(workspace, "job-x", payload)
    (first.path / "cancel").touch()
    with pytest.raises(Stopped):
        train_run.run(Run(first))
    spent = json.loads((first.checkpoints / "spent.json").read_text())
    assert 0 <= spent["budgeted"] < spent["spent"][0] < 100
    spent["budgeted"], spent["spent"][0] = spent["budgeted"] + 120, spent["spent"][0] + 120
    (first.checkpoints / "spent.json").write_text(json.dumps(spent))  # as if it had worked two minutes
    second = run_folder(workspace, "job-y", payload)
    again = Run(second)
    again.resume_from = [first]
    result = train_run.run(again)
    assert 120 < result["card"]["seconds"] == pytest.approx(result["report"]["cost"]["seconds"], abs=5)
    over = {one.get("reason") == "the budget had ended" for one in result["report"]["candidates"][1:]}
    assert over == {budget is not None}


def test_no_classical_training_imports_torch() -> None:
    import subprocess

    program = "import sys, speciate.training.train_run as _; print(sorted({'torch', 'transformers'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_plan_says_what_words_came_to_mean(workspace: Workspace) -> None:
    _texts(workspace)
    plan = train.plan(_spec(), workspace)
    assert plan.resolved["dataset"] == "reviews@v1"
    assert plan.resolved["metric"] == "accuracy"
    assert plan.preload == "classical"
    assert plan.known_from == ("shipped",)  # nothing recorded yet


@pytest.mark.parametrize(
    ("method", "base_model", "expected"),
    [("probe", "pkg:minilm", "networks"), ("full", "new:bert", "optimizer"), ("classical", None, "classical")],
)
def test_a_training_is_forked_from_a_process_with_no_more_imports_than_it_needs(
    workspace: Workspace, method: str, base_model: str | None, expected: str
) -> None:
    _texts(workspace)
    assert train.plan(_spec(method=method, base_model=base_model), workspace).preload == expected


def _spec(**changes: Any) -> TrainSpec:
    return TrainSpec(**{"name": "reviews-model", "dataset": "reviews", "method": "classical", **changes})


@pytest.mark.parametrize(
    ("changes", "code", "quoted"),
    [
        ({"dataset": "revews"}, Code.NOT_FOUND, "reviews"),
        ({"name": "no/slash"}, Code.INVALID, "no/slash"),
        ({"name": "taste"}, Code.CONFLICT, "taste"),
        ({"task": "image-classification"}, Code.INVALID, "text"),
        ({"task": "text-regression"}, Code.INVALID, "bad"),
        ({"task": "text-generation"}, Code.INVALID, "cannot be trained on text for generation"),
        ({"target": "stars"}, Code.INVALID, "stars"),
        ({"use_case": "tast"}, Code.NOT_FOUND, "taste"),
        ({"base_model": "pkg:minilm"}, Code.INVALID, "classical"),
        ({"method": "probe", "base_model": "hf:org/name"}, Code.INVALID, "hf:org/name"),
        ({"method": "probe", "base_model": "pkg:minilmm"}, Code.NOT_FOUND, "minilm"),
        ({"hyperparameters": {"folds": 1}}, Code.INVALID, "folds"),
        ({"hyperparameters": {"flods": 3}}, Code.INVALID, "flods"),
    ],
)
def test_what_cannot_work_is_refused_before_there_is_a_job(
    workspace: Workspace, changes: dict[str, Any], code: Code, quoted: str
) -> None:
    _texts(workspace)
    define(workspace, "taste", "text-classification")
    with pytest.raises(SpeciateError) as refusal:
        train.plan(_spec(**changes), workspace)
    assert refusal.value.code is code
    assert quoted in str(refusal.value)
    assert refusal.value.recovery


def test_a_label_with_one_value_is_refused(workspace: Workspace) -> None:
    _pair(workspace, labels=["x", "x"], splits=["train", "test"])
    with pytest.raises(SpeciateError, match="at least two"):
        train.plan(_spec(dataset="pair"), workspace)


def test_a_dataset_without_training_split_is_refused(workspace: Workspace) -> None:
    _pair(workspace, labels=["x", "y"], splits=["test", "test"])
    with pytest.raises(SpeciateError, match="no split 'train'"):
        train.plan(_spec(dataset="pair"), workspace)


def test_a_process_that_may_use_one_core_plans_for_one(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    _texts(workspace)
    with monkeypatch.context() as patched:
        patched.setattr(os, "sched_getaffinity", lambda pid: {3})
        cores.cache_clear()  # what was asked first holds for a process's life
        assert train.plan(_spec(), workspace).resources.cpu == 1
    cores.cache_clear()


def test_a_model_without_a_validation_value_can_be_read(workspace: Workspace) -> None:
    """No positive example is held out, so recall has no value there."""
    labels = ["rare" if i % 4 == 0 else "common" for i in range(80)]
    splits = ["validation" if i % 4 == 1 else "train" for i in range(80)]
    texts = [f"{label} text number {i}" for i, label in enumerate(labels)]
    make_dataset(workspace, "reviews", "text", {"text": texts}, labels=labels, splits=splits, inputs=["text"])
    define(workspace, "taste", "text-classification", metric="recall", positive_label="rare")
    result = train_now(
        workspace, name="taste-model", dataset="reviews", method="classical", use_case="taste",
        hyperparameters={"candidates": ["logistic", "svm"]},
    )  # fmt: skip
    assert result["report"]["validation"]["value"] is None
    json.dumps(result, allow_nan=False)
    card = registry.resolve(workspace.database, workspace.folders, "taste-model@v1").card
    assert card.metrics == {}


def test_an_undefined_value_is_the_worst() -> None:
    values = [signed_standing(-1, value) for value in (float("nan"), 9.0, 1.0)]
    assert values == sorted(values)


def test_an_empty_cell_is_no_class(workspace: Workspace) -> None:
    columns = {"x": [float(i % 4) for i in range(80)], "mood": [("up", "down", "", None)[i % 4] for i in range(80)]}
    make_dataset(workspace, "cases", "tabular", columns, labels=["a", "b"] * 40, splits=["train"] * 80, inputs=["x"])
    result = train_now(
        workspace, name="mood-model", dataset="cases", method="classical", target="mood",
        hyperparameters={"candidates": ["logistic"]},
    )  # fmt: skip
    assert result["report"]["labels"] == ["down", "up"]
    assert "40 examples without 'mood'" in result["report"]["notes"][0]


def test_too_few_examples_of_a_label_are_refused_by_the_plan(workspace: Workspace) -> None:
    _pair(workspace, labels=["x", "y"], splits=["train", "train"])
    with pytest.raises(SpeciateError, match="needs at least 2 examples of each label"):
        train.plan(_spec(dataset="pair"), workspace)


@pytest.mark.parametrize("labels", ["xyxy", "xxyyxxyy"])
def test_a_handful_of_examples_is_learned(workspace: Workspace, labels: str) -> None:
    texts, splits = {"text": [f"text {i}" for i in range(len(labels))]}, ["train"] * len(labels)
    make_dataset(workspace, "few", "text", texts, labels=list(labels), splits=splits, inputs=["text"])
    result = train_now(workspace, name="few-model", dataset="few", method="classical")
    assert result["report"]["validation"]["n"] == len(labels)


def test_too_few_examples_that_a_plan_cannot_see_are_refused_by_the_run(workspace: Workspace) -> None:
    """Counts by label are of all splits: in `train` each label has one example."""
    texts, splits = {"text": list("abcdefgh")}, ["train"] * 2 + ["test"] * 6
    manifest = make_dataset(workspace, "few", "text", texts, labels=["x", "y"] * 4, splits=splits, inputs=["text"])
    _texts(workspace, ("train", "test"))
    payload = train.plan(_spec(), workspace).payload_json() | {"manifest": manifest.model_dump(mode="json")}
    with pytest.raises(SpeciateError, match="too few groups per label"):
        train_run.run(Run(run_folder(workspace, "job-few", payload)))


def test_a_training_says_which_candidate_it_is_at_and_logs_what_each_gave(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    _texts(workspace)
    folder = run_folder(workspace, "job-told", train.plan(_spec(), workspace).payload_json())
    with caplog.at_level("INFO", "speciate.training.selection.model_selection"):
        report = train_run.run(Run(folder))["report"]
    names = [candidate["name"] for candidate in report["candidates"]]
    told = [json.loads(line) for line in (folder.path / "progress.jsonl").read_text().splitlines()]
    assert [line["message"] for line in told if line["message"] in names] == names
    assert {line["total"] for line in told if line["message"] in names} == {len(names)}
    last = folder.progress()
    assert last is not None
    assert last.done == last.total == len(names)
    assert all(any(line.startswith(f"{name}: accuracy ") for line in caplog.messages) for name in names)


def _chinese(workspace: Workspace, texts: list[str], splits: list[str]) -> None:
    labels = ["hao" if i % 4 < 2 else "huai" for i in range(len(texts))]
    make_dataset(workspace, "reviews", "text", {"text": texts}, labels=labels, splits=splits, inputs=["text"])


@pytest.mark.parametrize(("count", "splits"), [(240, ("train", "validation", "test")), (110, ("train",))])
def test_texts_without_spaces_are_learned_from_their_characters(
    workspace: Workspace, count: int, splits: tuple[str, ...]
) -> None:
    """No whole text occurs twice; of 110, four fifths are few enough to count those of one text, and all are not."""
    odd = [chr(0x4E00 + i) for i in range(count)]
    texts = [f"{'这部电影很好看' if i % 4 < 2 else '那本小说太糟糕'}{odd[i]}" for i in range(count)]
    _chinese(workspace, texts, thirds(count) if len(splits) > 1 else ["train"] * count)
    report = train_now(workspace, name="reviews-model", dataset="reviews", method="classical")["report"]
    assert report["validation"]["value"] > 0.95
    skipped = [one for one in report["candidates"] if one["value"] is None]
    assert {one["name"].partition(":")[0] for one in skipped} == {"word 1-2", "words and parts"}
    assert all("texts" in one["reason"] for one in skipped)


def test_texts_in_which_nothing_can_be_counted_are_refused_with_the_reason(workspace: Workspace) -> None:
    _chinese(workspace, [chr(0x4E00 + i) for i in range(240)], thirds(240))
    with pytest.raises(
        SpeciateError, match=r"No candidate could be tried: word 1-2.*nothing that is counted"
    ) as refusal:
        train_now(workspace, name="reviews-model", dataset="reviews", method="classical")
    assert refusal.value.code is Code.INVALID


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"seed": 2**32}, {"method": "probe", "hyperparameters": {"C": [0]}}])
def test_numbers_that_no_learner_takes_are_refused_by_the_plan(workspace: Workspace, wrong: dict[str, Any]) -> None:
    _texts(workspace)
    spec = {"name": "m", "dataset": "reviews", "method": "classical", **wrong}
    with pytest.raises((SpeciateError, ValidationError), match=r"seed|hyperparameters.C"):
        train.plan(TrainSpec.model_validate(spec), workspace)


@pytest.mark.parametrize(
    ("target", "said"),
    [("size", "tabular-regression"), ("kind", "tabular-classification"), ("count", "whole numbers"), ("tags", "lists")],
)
def test_the_task_is_that_of_the_column_that_is_learned(workspace: Workspace, target: str, said: str) -> None:
    columns = {
        "size": [float(i) for i in range(60)], "kind": ["ab"[i % 2] for i in range(60)], "count": list(range(60)),
        "tags": [["a"] for _ in range(60)], "x": [0.5 * i for i in range(60)],
    }  # fmt: skip
    labels = ["good" if i % 4 < 2 else "bad" for i in range(60)]
    manifest = make_dataset(
        workspace, "rows", "tabular", columns, labels=labels, splits=thirds(60), inputs=["x"]
    ).model_copy(update={"columns": {"size": "DOUBLE", "kind": "VARCHAR", "count": "BIGINT", "tags": "VARCHAR[]"}})
    spec = TrainSpec(name="m", dataset="rows", method="classical", target=target)
    if said.startswith("tabular"):
        assert train._usual_task(spec, manifest) == said
    else:
        with pytest.raises(SpeciateError, match=said):
            train._usual_task(spec, manifest)


def test_a_split_is_not_a_dataset_to_train_on(workspace: Workspace) -> None:
    _texts(workspace)
    with pytest.raises(SpeciateError, match="names 'test'"):
        train.plan(_spec(dataset="reviews@v1:test"), workspace)


def test_candidates_that_do_not_do_the_task_are_named_with_those_that_do(workspace: Workspace) -> None:
    _texts(workspace)
    with pytest.raises(SpeciateError, match="None of the candidates ridge does this task; what does: neighbours"):
        train_now(workspace, name="m", dataset="reviews", method="classical", hyperparameters={"candidates": ["ridge"]})


def test_a_sum_of_money_is_a_budget_of_this_machines_time(workspace: Workspace) -> None:
    _texts(workspace)
    spec = {"name": "taste", "dataset": "reviews", "method": "classical"}

    def minutes(**budget: float) -> float | None:
        payload = train.plan(TrainSpec(**spec, resources=RequestedResources(cpu=2), **budget), workspace).payload_json()
        return payload["spec"]["budget_minutes"]  # type: ignore[no-any-return]  # JSON

    assert minutes() is None
    assert minutes(budget_usd=0.05) == pytest.approx(30)  # two cores at 0.05 an hour
    assert minutes(budget_usd=0.05, budget_minutes=10) == 10


def test_what_a_training_cost_is_on_its_card_and_in_its_report(workspace: Workspace) -> None:
    _texts(workspace)
    made = train_now(workspace, name="taste", dataset="reviews", method="classical")
    card = registry.resolve(workspace.database, workspace.folders, made["model"]).card
    assert 0 < card.usd == made["report"]["usd"]
