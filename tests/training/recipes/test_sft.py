from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from speciate.datasets.loading.loader import load_examples
from speciate.datasets.versions import Manifest
from speciate.errors import SpeciateError
from speciate.models import registry
from speciate.tasks import predictor
from speciate.training import train
from speciate.training.networks.training_log import read_metrics
from speciate.training.planning import training_plan as planning
from speciate.training.train_spec import TrainSpec
from speciate.workspace.workspace import Workspace
from tests.models.language.world import messages, sums, tiny_model
from tests.training.language.world import make_sums
from tests.training.world import make_dataset, model_path, train_now

QUICK: dict[str, Any] = {
    "changes": "full",
    "num_train_epochs": 12,
    "batch_size": 16,
    "learning_rate": 5e-3,
    "max_new_tokens": 4,
}


def _train(workspace: Workspace, folder: Path, dataset: str = "sums", **given: Any) -> dict[str, Any]:
    base, job = given.pop("base_model", None) or tiny_model(folder / "base"), given.pop("job", "job-x")
    asked = QUICK | given.pop("hyperparameters", {})
    report: dict[str, Any] = train_now(
        workspace, job, name="adder", dataset=dataset, method="sft", base_model=base, hyperparameters=asked, **given
    )["report"]
    return report


def _says(workspace: Workspace, manifest: Manifest, split: str = "train") -> list[str]:
    examples = load_examples(workspace.folders, manifest, (split,))
    return [one.output for one in predictor.load(model_path(workspace, "adder")).predict(examples)]


def _yes(workspace: Workspace, columns: dict[str, list[Any]], inputs: list[str], **given: Any) -> Manifest:
    count = len(next(iter(columns.values())))
    splits = ["validation" if at % 5 == 4 else "train" for at in range(count)]
    return make_dataset(workspace, "yes", "text", columns, labels=[""] * count, splits=splits, inputs=inputs, **given)


@pytest.mark.slow
def test_what_a_model_learned_it_says_and_its_card_tells_how(workspace: Workspace, tmp_path: Path) -> None:
    questions = [f"is {at} even?" for at in range(60)]
    manifest = _yes(
        workspace, {"prompt": questions, "completion": [("yes", "no")[at % 2] for at in range(60)]}, ["prompt"]
    )
    report = _train(workspace, tmp_path, "yes")
    assert report["training"]["ended"] == "finished"
    assert report["training"]["held_loss"] < 1.5  # nothing learned: ln(384), which is 5.95
    assert report["validation"]["how"] == "validation"
    said = _says(workspace, manifest)
    assert set(said) <= {"yes", "no"}
    card = registry.resolve(workspace.database, workspace.folders, "adder").card
    assert (card.task, card.method, card.modality) == ("text-generation", "sft", "text")
    assert card.recipe["parameters"]["learn"] == "completion"
    lines = read_metrics(workspace.folders.runs / "job-x.1" / "metrics.jsonl")
    assert lines[-1]["loss"] < lines[0]["loss"] / 3
    assert "mean_token_accuracy" in lines[-1]
    assert (workspace.folders.runs / "job-x.1" / "outputs" / "curves.png").stat().st_size > 1000


def test_conversations_teach_their_last_turn_without_a_column_for_it(workspace: Workspace, tmp_path: Path) -> None:
    said = [messages(f"is {at} even?", ("yes", "no")[at % 2]) for at in range(40)]
    manifest = _yes(workspace, {"messages": said}, ["messages"])
    manifest = manifest.model_copy(update={"label": None})
    workspace.database.transact(
        lambda tx: tx.execute("UPDATE dataset_versions SET manifest = ?", [manifest.model_dump_json()])
    )
    report = _train(workspace, tmp_path, "yes", hyperparameters={"num_train_epochs": 10})
    assert report["training"]["held_loss"] < 3


def test_weights_that_are_merged_answer_as_the_adapted_ones_did(workspace: Workspace, tmp_path: Path) -> None:
    make_sums(workspace)
    report = _train(workspace, tmp_path, hyperparameters={"changes": "lora", "num_train_epochs": 1})
    assert report["training"]["steps"] == 5
    path = model_path(workspace, "adder")
    assert not (path / "adapter_config.json").exists()
    names = json.loads((path / "files.json").read_text())
    assert {"predictor.json", "config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= set(names)


def test_a_training_that_changed_nothing_says_so(workspace: Workspace, tmp_path: Path) -> None:
    make_sums(workspace, count=20)
    base = tiny_model(tmp_path / "base")
    report = _train(workspace, tmp_path, base_model=base, hyperparameters={"max_steps": 1, "judged": 0})
    assert any("as they were before" in note and "`warmup_ratio`" in note for note in report["notes"])
    before = load_file(tmp_path / "base" / "model.safetensors")
    after = load_file(next(model_path(workspace, "adder").rglob("model.safetensors")))
    assert all(torch.equal(before[name], after[name]) for name in before)
    learned = _train(
        workspace,
        tmp_path,
        base_model=base,
        job="job-y",
        hyperparameters={"max_steps": 1, "judged": 0, "warmup_ratio": 0},
    )
    assert not any("as they were before" in note for note in learned["notes"])


@pytest.mark.slow
def test_packed_examples_are_learned_as_they_are_one_by_one(workspace: Workspace, tmp_path: Path) -> None:
    """One epoch in one step: the same tokens, the same mean, the same update."""
    make_sums(workspace)
    one = {
        "num_train_epochs": 1,
        "batch_size": 80,
        "judged": 0,
        "max_length": 256,
        "learning_rate": 1e-3,
        "warmup_ratio": 0,
    }
    base = tiny_model(tmp_path / "base")
    apart = _train(workspace, tmp_path, base_model=base, hyperparameters=one)
    together = _train(workspace, tmp_path, base_model=base, job="job-y", hyperparameters=one | {"packing": True})
    assert np.isclose(apart["training"]["held_loss"], together["training"]["held_loss"], atol=1e-4)


@pytest.mark.parametrize(
    ("columns", "given", "said"),
    [
        ({"prompt": ["a " * 100] * 4, "completion": ["yes", "no"] * 2}, {"max_length": 64}, "nothing is left to learn"),
        ({"prompt": ["a " * 900] * 4, "completion": ["yes", "no"] * 2}, {}, "nothing is left to learn"),
        ({"prompt": ["why?"] * 4, "completion": ["yes"] * 4}, {}, "nothing to learn"),
        ({"prompt": [messages("a", "b", "c")] * 4, "completion": ["x", "y"] * 2}, {"template": None}, "no chat templ"),
    ],
)  # fmt: skip
def test_examples_that_teach_nothing_are_refused_before_a_step(
    workspace: Workspace, tmp_path: Path, columns: dict[str, list[Any]], given: dict[str, Any], said: str
) -> None:
    template = {"template": None} if given.pop("template", "") is None else {}
    _yes(workspace, columns, ["prompt"])
    with pytest.raises(SpeciateError, match=said) as raised:
        _train(workspace, tmp_path, "yes", base_model=tiny_model(tmp_path / "base", **template), hyperparameters=given)
    if said == "nothing is left to learn":  # a larger max_length is a way out only up to what the base model sees
        sees_more = len(columns["prompt"][0]) < 500
        assert ("'max_length': " in raised.value.recovery) == sees_more
        assert ("a base model that sees" in raised.value.recovery) != sees_more


def test_a_model_that_writes_texts_goes_on_as_a_base_model(workspace: Workspace, tmp_path: Path) -> None:
    make_sums(workspace)
    _train(workspace, tmp_path, hyperparameters={"max_steps": 1, "judged": 0})
    for method in ("sft", "replay"):
        with pytest.raises(SpeciateError) as raised:
            train.plan(
                TrainSpec(name="adder", dataset="sums", method=method, continue_from="adder@v1"), workspace
            )  # fmt: skip
        assert "base_model='adder@v1'" in raised.value.recovery


def test_without_a_label_or_a_task_the_tasks_that_write_are_named(workspace: Workspace) -> None:
    said = {"prompt": ["why?", "who?"] * 5, "reaction": ["yes", "no"] * 5}
    manifest = _yes(workspace, said, ["prompt"]).model_copy(update={"label": None})
    workspace.database.transact(
        lambda tx: tx.execute("UPDATE dataset_versions SET manifest = ?", [manifest.model_dump_json()])
    )
    with pytest.raises(SpeciateError) as raised:
        planning.plan_training(workspace, "yes")
    assert "text-generation" in raised.value.recovery


def test_what_is_wrong_with_the_data_is_noted(workspace: Workspace, tmp_path: Path) -> None:
    pairs = sums(60)
    questions = [question for question, _ in pairs] + [pairs[0][0].upper(), pairs[1][0]]
    questions[7] = "<image> what is that?"
    answers = ["7"] * 40 + [answer for _, answer in pairs[40:]] + ["7", "7"]
    splits = ["train"] * 60 + ["test", "train"]
    make_dataset(
        workspace, "flawed", "text", {"prompt": questions, "completion": answers}, labels=answers, splits=splits,
        inputs=["prompt"],
    )  # fmt: skip
    report = _train(workspace, tmp_path, "flawed", hyperparameters={"max_steps": 1})
    notes = " ".join(report["notes"])
    assert "have the same answer, '7'" in notes
    assert "1 training examples repeat" in notes
    assert "1 training examples ask about an image" in notes
    assert "1 of 1 test examples stand in the training split" in notes
    assert "no validation split" in notes


@pytest.mark.slow
def test_a_base_model_without_a_template_learns_plain_text_or_one_that_is_given(
    workspace: Workspace, tmp_path: Path
) -> None:
    make_sums(workspace)
    base = tiny_model(tmp_path / "base", template=None)
    plain = _train(workspace, tmp_path, base_model=base, hyperparameters={"max_steps": 1, "judged": 0})
    assert any("no chat template" in note for note in plain["notes"])
    given = {"max_steps": 1, "judged": 0, "chat_template": "chatml"}
    _train(workspace, tmp_path, base_model=base, job="job-y", hyperparameters=given)
    assert "im_start" in (model_path(workspace, "adder@v2") / "chat_template.jinja").read_text()


def test_a_held_out_question_that_is_too_long_does_not_lose_a_finished_training(
    workspace: Workspace, tmp_path: Path
) -> None:
    questions = ["is 1 even?", "is 2 even?", "is 3 even?", "is 4 even?", "is 5 even? " * 60]
    _yes(workspace, {"prompt": questions, "completion": ["no", "yes", "no", "yes", "no"]}, ["prompt"])
    report = _train(workspace, tmp_path, "yes", hyperparameters={"max_steps": 1})
    assert "1 of 1 validation examples could not be asked" in " ".join(report["notes"])
    assert report["validation"]["n"] == 1
    assert report["validation"]["value"] == 0
