"""Networks as models: trained, registered, served, built upon, and trained again from the record."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from speciate.datasets import version_rows
from speciate.datasets.loading.loader import load_examples
from speciate.datasets.similarity import embed, extractors
from speciate.datasets.versions import resolve
from speciate.errors import CallAgain, Code, SpeciateError
from speciate.evaluation.evaluate import EvaluateSpec
from speciate.evaluation.evaluate import plan as plan_evaluation
from speciate.jobs.run import Run
from speciate.models import model_folder, packaged
from speciate.settings import Capacity
from speciate.tasks import predictor
from speciate.training import train
from speciate.training.hyperparameters import FullParameters
from speciate.training.planning import measure_run
from speciate.training.planning.training_plan import plan_training
from speciate.training.train_spec import Payload, TrainSpec
from speciate.workspace.workspace import Workspace
from tests import data
from tests.training.world import make_dataset, model_path, png, run_folder, thirds, train_now

pytest.importorskip("torch")
QUICK = {"num_train_epochs": 12, "learning_rate": [2e-3], "batch_size": 16}


def flowers(workspace: Workspace, splits: tuple[str, ...] = ("train", "validation", "test")) -> None:
    """Two numbers and a colour, which tell three kinds apart."""
    chance = np.random.default_rng(0)
    kinds = [i % 3 for i in range(180)]
    columns: dict[str, list[Any]] = {
        "long": [float(kind + chance.normal(0, 0.15)) for kind in kinds],
        "wide": [float(kind % 2 + chance.normal(0, 0.15)) for kind in kinds],
        "colour": [("red", "blue", "blue")[kind] for kind in kinds],
    }
    labels = [("rose", "iris", "lily")[kind] for kind in kinds]
    make_dataset(
        workspace, "flowers", "tabular", columns, labels=labels, splits=thirds(180, splits), inputs=list(columns)
    )


def _train(workspace: Workspace, job: str = "job-x", **changes: Any) -> dict[str, Any]:
    spec = {"name": "net", "dataset": "flowers", "method": "full", "base_model": "new:tab-resnet"}
    return train_now(workspace, job, **{**spec, "hyperparameters": QUICK, **changes})


def _right(workspace: Workspace, ref: str) -> float:
    examples = load_examples(workspace.folders, resolve(workspace.database, "flowers"), ("test",))
    given = predictor.load(model_path(workspace, ref)).predict(examples)
    return float(np.mean([one.output == example.label for one, example in zip(given, examples, strict=True)]))


def test_a_network_learns_and_answers(workspace: Workspace) -> None:
    flowers(workspace)
    report = _train(workspace)["report"]
    assert report["validation"]["how"] == "validation"
    assert report["validation"]["value"] > 0.9
    assert _right(workspace, "net") > 0.9


@pytest.mark.slow
def test_without_a_validation_split_folds_judge_and_everything_is_learned(workspace: Workspace) -> None:
    flowers(workspace, ("train", "test"))
    report = _train(workspace, hyperparameters=QUICK | {"folds": 2})["report"]
    assert (report["validation"]["how"], report["validation"]["n"]) == ("out-of-fold", report["examples"])
    assert _right(workspace, "net") > 0.9


@pytest.mark.slow
def test_several_learning_rates_are_tried_and_the_losers_are_told(workspace: Workspace) -> None:
    flowers(workspace)
    tried = _train(workspace, hyperparameters=QUICK | {"learning_rate": [1e-6, 2e-3]})["report"]["candidates"]
    assert [one["chosen"] for one in tried] == [False, True]
    assert "after" in tried[0]["reason"]


@pytest.mark.slow
def test_like_alone_reproduces_a_version_to_the_byte(workspace: Workspace) -> None:
    flowers(workspace)
    _train(workspace)
    result = train_now(workspace, "job-y", like="net@v1")
    assert result["model"] == "net@v1"  # the same bytes are the same version
    assert result["report"]["repetition"] | {"environment": {}} == {
        "like": "net@v1", "same_model": True, "same_dataset": True, "metrics": {}, "environment": {},
    }  # fmt: skip


@pytest.mark.slow
def test_like_with_another_seed_tells_what_differs(workspace: Workspace) -> None:
    flowers(workspace)
    _train(workspace)
    result = train_now(workspace, "job-y", like="net@v1", name="other", seed=1)
    assert result["model"] == "other@v1"
    assert not result["report"]["repetition"]["same_model"]


@pytest.mark.slow
def test_a_network_goes_on_from_an_earlier_one_with_its_head(workspace: Workspace) -> None:
    flowers(workspace)
    _train(workspace)
    short = {"num_train_epochs": 1, "learning_rate": [1e-6]}
    again = train_now(workspace, "job-y", name="more", dataset="flowers", continue_from="net@v1", hyperparameters=short)
    assert again["report"]["base_model"] == "net@v1"
    assert again["report"]["validation"]["value"] > 0.9  # one step so small teaches nothing


@pytest.mark.slow
def test_the_vectors_of_a_trained_network_carry_a_probe_that_keeps_it(workspace: Workspace) -> None:
    flowers(workspace)
    _train(workspace)
    train_now(workspace, "job-y", name="probed", dataset="flowers", method="probe", base_model="net@v1")
    assert model_folder.has_backbone(model_path(workspace, "probed"))
    assert _right(workspace, "probed") > 0.9


@pytest.mark.slow
def test_what_takes_a_trained_network_is_planned_and_measured(workspace: Workspace) -> None:
    flowers(workspace)
    _train(workspace, hyperparameters=QUICK | {"num_train_epochs": 1})
    planned = plan_training(workspace, "flowers", base_model="net@v1").candidates
    assert [(one.method, one.base_model) for one in planned] == [(how, "net@v1") for how in ("probe", "lora", "full")]
    spec = TrainSpec(name="probed", dataset="flowers", method="probe", base_model="net@v1")
    payload = train.plan(spec, workspace).payload_json()
    run = Run(run_folder(workspace, "job-m", payload))
    assert measure_run.measure_cost(run, Payload.model_validate(payload), 1.0)["seconds"] > 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"base_model": "new:vit"}, "reads image"),
        ({"base_model": "new:nothing"}, "no architecture"),
        ({"method": "probe", "base_model": "new:tab-resnet"}, "fresh weights"),
        ({"hyperparameters": {"learning_rte": 1}}, "no hyperparameter 'learning_rte'; did you mean 'learning_rate'"),
        (
            {"method": "classical", "base_model": None, "hyperparameters": {"num_train_epochs": 1}},
            "'lora' and 'full' and 'sft'",
        ),
        ({"task": "object-detection"}, "about image"),
        ({"continue_from": "net@v1"}, "model 'net'"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_the_call(workspace: Workspace, wrong: dict[str, Any], said: str) -> None:
    flowers(workspace)
    spec = {"name": "net", "dataset": "flowers", "method": "full", "base_model": "new:tab-resnet", **wrong}
    with pytest.raises(SpeciateError, match=said) as error:
        train.plan(TrainSpec.model_validate(spec), workspace)
    assert error.value.code in (Code.INVALID, Code.NOT_FOUND)
    assert error.value.recovery


def test_a_refusal_names_the_way_that_is_nearest_and_it_can_be_gone(workspace: Workspace) -> None:
    flowers(workspace)
    spec = TrainSpec(name="net", dataset="flowers", method="full", base_model="new:vit")
    with pytest.raises(SpeciateError) as error:
        train.plan(spec, workspace)
    [again] = error.value.next
    assert again == CallAgain("train_model", {"method": "full", "base_model": "new:tab-resnet"})
    train.plan(spec.model_copy(update={"base_model": "new:tab-resnet"}), workspace)


def test_what_divides_batches_takes_a_network_that_can(workspace: Workspace) -> None:
    images = [png(np.full((16, 16, 3), 3 * place, np.uint8)) for place in range(40)]
    splits = ["train"] * 24 + ["validation"] * 8 + ["test"] * 8
    make_dataset(workspace, "shades", "image", {}, labels=["dark", "bright"] * 20, splits=splits, media=images)
    spec = TrainSpec(name="net", dataset="shades", method="full")
    taken = [
        train.plan(spec.model_copy(update={"hyperparameters": options}), workspace).resolved["base_model"]
        for options in ({}, {"per_device_train_batch_size": 4}, {"per_device_train_batch_size": 64})
    ]
    assert taken == ["new:resnet", "new:vit", "new:resnet"]
    with pytest.raises(SpeciateError, match="too coarse") as error:
        train.plan(spec.model_copy(update={"base_model": "new:resnet", "task": "object-detection"}), workspace)
    assert error.value.next == (CallAgain("train_model", {"method": "full", "base_model": "new:vit"}),)


def test_a_training_needs_its_name_data_and_method(workspace: Workspace) -> None:
    with pytest.raises(SpeciateError, match="needs dataset and method"):
        train.plan(TrainSpec(name="net"), workspace)


@pytest.mark.slow
def test_a_trained_network_tells_what_is_alike(workspace: Workspace) -> None:
    flowers(workspace)
    _train(workspace)
    assert extractors.resolve("net", "tabular", workspace) == "net@v1"
    manifest = resolve(workspace.database, "flowers")
    rows = version_rows.read(workspace.folders, manifest, usable=True)
    vectors = embed.row_vectors(workspace.folders, manifest, rows, "net@v1")
    labels = np.array(rows["label"].to_pylist())
    nearest = np.argmax(vectors @ vectors.T - 2 * np.eye(len(vectors)), axis=1)
    assert np.mean(labels[nearest] == labels) > 0.9
    with pytest.raises(SpeciateError, match="embeds tabular, and this is text"):
        extractors.resolve("net", "text", workspace)


def test_a_gpu_that_settings_promise_and_torch_lacks_is_said(workspace: Workspace) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    flowers(workspace)
    workspace.settings = workspace.settings.model_copy(update={"capacity": Capacity(gpu=1)})
    spec = TrainSpec(name="net", dataset="flowers", method="full", base_model="new:tab-resnet")
    assert train.plan(spec, workspace).resources.gpu == 1
    with pytest.raises(SpeciateError, match="torch finds none"):
        _train(workspace)


def _titles(workspace: Workspace) -> None:
    """What is written says nothing of the topic, which is a column that a model of the kind may see."""
    chance = np.random.default_rng(1)
    words = ("stone", "river", "cloud", "light", "winter", "garden")
    count = 90
    columns = {
        "title": [" ".join(chance.choice(words, 5)) for _ in range(count)],
        "topic": [str(chance.choice(["sports", "music"])) for _ in range(count)],
    }
    labels = [str(chance.choice(["long", "short"])) for _ in range(count)]
    make_dataset(workspace, "titles", "text", columns, labels=labels, splits=thirds(count), inputs=list(columns))


@pytest.mark.parametrize("method", ["classical", "probe"])
def test_a_model_never_sees_its_target_neither_cached_nor_when_it_is_judged(workspace: Workspace, method: str) -> None:
    if method == "probe" and not packaged.installed("minilm"):
        pytest.skip("pkg:minilm is not installed")
    _titles(workspace)
    train_now(workspace, "job-x", name="kinds", dataset="titles", method=method)  # sees both columns
    report = train_now(workspace, "job-y", name="topics", dataset="titles", method=method, target="topic")["report"]
    assert report["validation"]["value"] < 0.8
    found = data.run_job(workspace, "evaluate", models=["topics"], dataset="titles", use_case=None)["report"]
    assert found["leaderboard"][0]["value"] < 0.8


def test_a_model_is_not_judged_on_what_it_cannot_read(workspace: Workspace) -> None:
    flowers(workspace)
    train_now(workspace, "job-x", name="trees", dataset="flowers", method="classical")
    _titles(workspace)
    with pytest.raises(SpeciateError, match="trees@v1 reads tabular; titles@v1 holds text"):
        plan_evaluation(EvaluateSpec(models=("trees",), dataset="titles"), workspace)
    make_dataset(
        workspace, "stems", "tabular", {"stem": [float(i) for i in range(40)]},
        labels=["rose" if i % 4 < 2 else "iris" for i in range(40)], splits=thirds(40), inputs=["stem"],
    )  # fmt: skip
    with pytest.raises(SpeciateError, match="stems@v1 lacks long, wide, colour"):
        plan_evaluation(EvaluateSpec(models=("trees",), dataset="stems"), workspace)


def test_one_learning_rate_needs_no_list() -> None:
    assert FullParameters.model_validate({"learning_rate": 0.002}).learning_rate == (0.002,)
