"""Models that see learn answers to questions about pictures, and say them from their own folder."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from speciate.datasets.loading.loader import Example, load_examples
from speciate.datasets.versions import Manifest
from speciate.errors import SpeciateError
from speciate.evaluation.statistics import wilson
from speciate.jobs.run import Run
from speciate.models import fetch, registry
from speciate.models.fetch import FetchSpec
from speciate.models.language import vision_language
from speciate.models.model_card import ModelCard
from speciate.serving import predict_worker
from speciate.tasks import predictor
from speciate.tasks.vision_language_predictor import ImageSettings
from speciate.training import train
from speciate.training.language.vision_examples import VisionSplits, choose_image_prompt, tokenize_image_splits
from speciate.training.language_hyperparameters import VisionSftParameters
from speciate.training.networks.training_log import read_metrics
from speciate.training.train_spec import Payload, TrainSpec
from speciate.training.training_context import TrainingContext
from speciate.workspace.workspace import Workspace
from tests.models.language.vision_world import FAMILIES, coloured, tiny_qwen
from tests.models.language.world import tiny_model
from tests.training.language.images_world import NAMES, QUICK, make_colours, make_seen, row
from tests.training.world import make_dataset, model_path, png, run_folder, train_now

CHANCE = 1 / len(NAMES)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_qwen(tmp_path_factory.mktemp("base"))


def _train(workspace: Workspace, base: str, dataset: str = "seen", job: str = "job-x", **given: Any) -> dict[str, Any]:
    report: dict[str, Any] = train_now(
        workspace, job, name="looker", dataset=dataset, method="sft", base_model=base, hyperparameters=QUICK | given
    )["report"]
    return report


def _right(workspace: Workspace, manifest: Manifest, split: str = "test") -> list[bool]:
    examples = load_examples(workspace.folders, manifest, (split,), in_sandbox=True)
    said = predictor.load(model_path(workspace, "looker")).predict(examples)
    return [one.output == each.columns["answer"] for one, each in zip(said, examples, strict=True)]


def _low(right: list[bool]) -> float:
    """Of the 95 % interval of the share."""
    return wilson(sum(right), len(right), 1.96)[0]


@pytest.mark.slow
def test_what_a_model_learned_of_pictures_it_says_and_its_card_tells_how(workspace: Workspace, base: str) -> None:
    manifest = make_colours(workspace)
    report = _train(workspace, base)
    card = registry.resolve(workspace.database, workspace.folders, "looker").card
    assert (card.task, card.method, card.modality) == ("image-text-to-text", "sft", "multimodal")
    assert card.parts == ("image.image", "question.text")
    assert report["sights"] == {
        "examples": 48, "pictures": 48, "tokens": {"longest": 16, "of_100_hold_95": 16, "learned": 96},
    }  # fmt: skip
    assert report["notes"] == []
    lines = read_metrics(workspace.folders.runs / "job-x.1" / "metrics.jsonl")
    assert lines[-1]["loss"] < lines[0]["loss"] / 3
    right = _right(workspace, manifest)
    assert _low(right) > CHANCE
    _check_that_it_is_served(model_path(workspace, "looker"))


def _check_that_it_is_served(model: Path) -> None:
    """As predict and slots ask it, in the process that answers."""
    files = [base64.b64encode(png(coloured(name, 900))).decode() for name in NAMES]
    parts = [{"image.image": {"data": file}, "question.text": {"value": "which colour?"}} for file in files]
    parts += [{"question.text": {"value": "which colour?"}}, {"image.image": {"data": files[0]}}]
    items = [{"id": str(at), "parts": each} for at, each in enumerate(parts)]
    given = {"model": str(model), "modality": "multimodal", "inputs": [], "parts": ["image.image", "question.text"]}
    found = predict_worker.answer(given | {"items": items})["predictions"]
    assert [one["output"] for one in found[:3]] == list(NAMES)
    assert "has no image" in found[3]["error_text"]
    assert found[4]["error"] is None


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_models_of_every_family_learn_from_pictures_and_go_on_with_small_changes(
    workspace: Workspace, tmp_path: Path, family: str
) -> None:
    """First every weight learns, from nothing; then low-rank changes of that version call colours by other names."""
    manifest = make_colours(workspace, 144)
    _train(workspace, FAMILIES[family](tmp_path / "base"))
    assert _low(_right(workspace, manifest)) > CHANCE
    other = make_colours(workspace, 144, "other", names=(*NAMES[1:], NAMES[0]))
    assert sum(_right(workspace, other)) < len(_right(workspace, other)) / 3
    _train(workspace, "looker@v1", "other", "job-y", changes="lora", eyes="kept", rank=16, learning_rate=1e-2)
    assert _low(_right(workspace, other)) > CHANCE
    names = json.loads((model_path(workspace, "looker") / "files.json").read_text())
    kept = {"predictor.json", "config.json", "model.safetensors", "processor_config.json", "tokenizer.json"}
    assert kept <= set(names)
    assert "adapter_config.json" not in names


@pytest.mark.slow
def test_several_pictures_and_turns_are_learned_from_conversations_alone(workspace: Workspace, tmp_path: Path) -> None:
    """The answer is the last turn: the colour of the second picture, which is never that of the first."""
    rows = []
    for at in range(144):
        pair = NAMES[at % 3], NAMES[(at + 1 + at // 3 % 2) % 3]
        said = [
            {"role": "user", "content": "1 <image> 2 <image> which?"},
            {"role": "assistant", "content": pair[1]},
        ]
        rows.append(row(said, *(coloured(each, 2 * at + place) for place, each in enumerate(pair))))
    make_seen(workspace, rows, [""] * len(rows))
    report = _train(workspace, tiny_qwen(tmp_path / "base"), num_train_epochs=15)
    assert report["sights"]["pictures"] == 2 * report["sights"]["examples"]
    card = registry.resolve(workspace.database, workspace.folders, "looker").card
    assert card.parts == ("image.image", "image_2.image", "question.text")
    assert report["validation"]["interval"][0] > 1 / 2


def _looked_at(workspace: Workspace, base: str, **given: Any) -> tuple[TrainingContext, ImageSettings, VisionSplits]:
    """What happens to the examples before the first step."""
    spec = TrainSpec(name="looker", dataset="seen", method="sft", base_model=base, hyperparameters=QUICK | given)
    payload = Payload.model_validate(train.plan(spec, workspace).payload_json())
    examples = load_examples(workspace.folders, payload.manifest, ("train", "validation"), in_sandbox=True)
    context = TrainingContext(Run(run_folder(workspace, "job-x", payload.model_dump(mode="json"))), payload, examples)
    assert isinstance(payload.parameters, VisionSftParameters)
    processor = vision_language.load_processor(Path(payload.base_folder or ""), payload.parameters.chat_template)
    shown = choose_image_prompt(context, processor, payload.parameters)
    return context, shown, tokenize_image_splits(context, processor, shown, payload.parameters, 256)


def test_pictures_alone_are_described_and_a_column_that_asks_is_noted(workspace: Workspace, base: str) -> None:
    names = [NAMES[at % 3] for at in range(12)]
    pictures = [png(coloured(each, at, (60, 40))) for at, each in enumerate(names)]
    make_dataset(
        workspace, "seen", "image", {"answer": names, "question": ["which?"] * 12}, labels=[""] * 12,
        splits=["train"] * 12, media=pictures,
    )  # fmt: skip
    context, shown, found = _looked_at(workspace, base, side=30)
    assert any("'question' is not shown" in note for note in context.notes)
    assert (shown.side, shown.parts) == (30, ())
    assert {each.images[0].shape for each in found.train} == {(30, 20, 3)}


def test_what_is_wrong_with_the_data_is_noted(workspace: Workspace, base: str) -> None:
    names = [NAMES[at % 3] for at in range(24)]
    rows = [row("which colour?", coloured(each, at)) for at, each in enumerate(names)]
    rows[1:4] = [rows[0], row("which COLOUR?", coloured("red", 0)), row("which colour?")]
    rows[4] = row("which colour?" + " so" * 60, coloured("green", 4))
    rows += [rows[0], row("another?", coloured("red", 0)), row("new?", coloured("blue", 99))]
    splits = ["train"] * 24 + ["test", "validation", "validation"]
    names[1] = names[0]
    make_seen(workspace, rows, [*names, *("red", "red", "blue")], splits)
    context, _, found = _looked_at(workspace, base, max_length=40)
    notes = " ".join(context.notes)
    assert "1 of 24 training examples have no image" in notes
    assert "1 training examples repeat the images" in notes
    assert "1 questions about the same images have several answers" in notes
    assert "1 of 1 test examples ask the same about the same images" in notes
    assert "1 of 2 validation examples show an image of the training split with another question" in notes
    assert "1 of 23 training examples have more than 40 tokens with their images and are excluded" in notes
    assert (len(found.train), len(found.held)) == (22, 2)


@pytest.mark.parametrize(
    ("question", "given", "said"),
    [
        ("which?", {"max_length": 12}, "12 of 12 training examples have more than 12 tokens"),
        ("a" * 300, {}, "makes images smaller. A base model that sees"),
        ("<image> or <image>?", {}, "2 places for images (<image>) and 1 images"),
        ("which?", {"pictures": 0}, "12 of 12 training examples of seen@v1 have no image"),
        ("which?", {"chat_template": "{{ raise_exception('no') }}"}, "the chat template refuses it: no"),
    ],
)
def test_examples_that_cannot_be_learned_are_refused_before_a_step(
    workspace: Workspace, base: str, question: str, given: dict[str, Any], said: str
) -> None:
    pictures = given.get("pictures", 1)
    shown = [[coloured(NAMES[at % 3], at)][:pictures] for at in range(12)]
    make_seen(workspace, [row(question, *each) for each in shown], [NAMES[at % 3] for at in range(12)], ["train"] * 12)
    with pytest.raises(SpeciateError) as refused:
        _looked_at(workspace, base, **{name: value for name, value in given.items() if name != "pictures"})
    assert said in f"{refused.value} {refused.value.foreign}"


def test_what_cannot_be_trained_is_refused_before_there_is_a_job(
    workspace: Workspace, tmp_path: Path, base: str
) -> None:
    make_colours(workspace, 12)
    blind = tiny_model(tmp_path / "blind")
    asked: dict[str, Any] = {"name": "looker", "dataset": "seen", "task": "image-text-to-text", "method": "sft"}
    for wrong, said in (
        ({"base_model": blind}, "is no vision-language model"),
        ({}, "needs a base model"),
        ({"base_model": base, "method": "dpo"}, "'dpo' learns from texts"),
        ({"base_model": base, "method": "distill"}, "'distill' does not learn"),
        ({"base_model": base, "hyperparameters": {"packing": True}}, "no hyperparameter 'packing'"),
    ):
        with pytest.raises(SpeciateError, match=said):
            train.plan(TrainSpec(**asked | wrong), workspace)
    assert train.plan(TrainSpec(**asked, base_model=base), workspace).resolved["metric"] == "exact_match"


@pytest.mark.slow
def test_a_published_model_is_asked_by_the_names_of_its_parts(workspace: Workspace, base: str) -> None:
    folder = Path(base.removeprefix("path:"))
    spec = FetchSpec(name="seer", source=base, task="image-text-to-text")
    run = Run(run_folder(workspace, "job-fetch", fetch.plan(spec, workspace).payload_json()))
    result = fetch.run(run)
    card = ModelCard.model_validate(result["card"])
    assert (card.modality, card.parts) == ("multimodal", ("image.image", "question.text"))
    staged = run.folder.outputs / "model"
    assert (staged / "chat_template.jinja").read_text() == (folder / "chat_template.jinja").read_text()
    shown = {"image": coloured("red"), "question": "which colour?"}
    example = Example("a", {"image.image": shown["image"], "question.text": shown["question"]}, None, "a", "", {})
    alone = Example("b", shown["image"], None, "b", "", {})
    said = predictor.load(staged).predict([example, alone])
    assert said[0].output != said[1].output  # the question is read, too
