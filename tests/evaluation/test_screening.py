"""Which published models are worth fetching, by their lists of files, licences and configs alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("huggingface_hub")

from speciate.errors import SpeciateError
from speciate.evaluation import screening
from speciate.jobs.engine import Engine
from speciate.jobs.pool import Pool
from speciate.server.tool_api import App, DryRun
from speciate.tools.training import specialize
from speciate.workspace.workspace import Workspace
from tests.evaluation.world import perform
from tests.models.hub_server import Hub, serving
from tests.training.world import define, make_dataset, png, thirds

LABELS = ("bad", "good", "fine")
COUNT = 60


def config(architecture: str, labels: tuple[str, ...] | None = ("NEGATIVE", "POSITIVE"), **more: Any) -> bytes:
    named = {"id2label": {str(place): label for place, label in enumerate(labels)}} if labels else {}
    return json.dumps({"model_type": "bert", "architectures": [architecture]} | named | more).encode()


TAGGER = ("O", "B-PER", "I-PER")
FITS = config("BertForSequenceClassification", LABELS)
REPOSITORIES: dict[str, dict[str, bytes]] = {
    "fits": {"config.json": FITS},
    "partly": {"config.json": config("BertForSequenceClassification")},
    "tagger": {"config.json": config("BertForTokenClassification", TAGGER)},
    "encoder": {"config.json": config("BertModel", None)},
    "remote": {"config.json": config("BertForSequenceClassification", auto_map={"AutoModel": "code.Model"})},
    "unnamed": {"config.json": config("BertForSequenceClassification", ("LABEL_0", "LABEL_1"))},
    "one-label": {"config.json": config("BertForSequenceClassification", ("NEGATIVE", "tripod"))},
    "huge": {"config.json": config("BertForSequenceClassification", tuple(f"word {n}" for n in range(21_000)))},
    "no-words": {"config.json": FITS},
    "pickled": {"config.json": FITS},
    "closed": {"config.json": FITS},
}
"""Each is tagged `text-classification` by the hub."""
WEIGHTS = b"weights that no screening reads" * 1000


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    repositories = {}
    for name, files in REPOSITORIES.items():
        beside = {"pytorch_model.bin" if name == "pickled" else "model.safetensors": WEIGHTS}
        words = {} if name == "no-words" else {"tokenizer.json": b"{}"}
        repositories[f"org/{name}"] = files | beside | words
    with serving(repositories) as found:
        found.more = {"org/closed": {"cardData": {"license": "cc-by-nc-4.0"}}}
        monkeypatch.setenv("HF_ENDPOINT", found.endpoint)
        yield found


@pytest.fixture
def texts(workspace: Workspace) -> Workspace:
    labels = [LABELS[place % 3] for place in range(COUNT)]
    make_dataset(
        workspace, "reviews", "text", {"text": [f"text {n}" for n in range(COUNT)]}, labels=labels,
        splits=thirds(COUNT), inputs=["text"],
    )  # fmt: skip
    define(workspace, "triage", "text-classification", licenses=("Apache-2.0",))
    return workspace


def test_what_leaves_is_told_by_its_small_files_and_no_weights_are_read(texts: Workspace, hub: Hub) -> None:
    names = [f"hf:{name}" for name in hub.repositories]
    found = perform(texts, screening.KIND, {"use_case": "triage", "dataset": "reviews", "models": names})
    assert [each["ref"] for each in found["candidates"]] == ["hf:org/fits", "hf:org/partly"]
    assert [each["ceiling"] for each in found["candidates"]] == [1.0, pytest.approx(2 / 3)]
    why = {each["ref"].removeprefix("hf:org/"): each["why"] for each in found["dropped"]}
    for name, told in {
        "tagger": "is a model for 'token-classification', and the task is 'text-classification'",
        "encoder": "its architecture 'BertModel' has no head",
        "remote": "asks for code of its own (auto_map), which is never run here",
        "unnamed": "(LABEL_0, LABEL_1) is known to mean one of yours",
        "one-label": "labels for 33% of the examples; the commonest label alone is right for 33%",
        "huge": "has a head of 21,000 labels, more than 5,000",
        "no-words": "has no processor: tokenizer.json or vocab.txt is missing",
        "pickled": "its weights are pickles",
        "closed": "is CC-BY-NC-4.0; the use case allows Apache-2.0",
    }.items():
        assert told in why.pop(name), name
    assert not why
    assert not [each for each in hub.asked if "safetensors" in each or ".bin" in each]


@pytest.fixture
def app(workspace: Workspace) -> App:
    make_dataset(
        workspace, "photos", "image", {}, labels=[LABELS[place % 3] for place in range(COUNT)], splits=thirds(COUNT),
        media=[png(np.full((8, 8, 3), place, np.uint8)) for place in range(COUNT)],
    )  # fmt: skip
    define(workspace, "looks", "image-classification", licenses=("Apache-2.0",))
    define(workspace, "free", "image-classification", licenses=("WTFPL",))
    return App(workspace, Engine(workspace), Pool(workspace.folders, workspace.settings, size=0))


def try_published(app: App, use_case: str, *published: str) -> Sequence[str]:
    dry = specialize(
        app, use_case=use_case, dataset="photos", budget_minutes=5, methods=["classical"], published=list(published),
        dry_run=True,
    )  # fmt: skip
    assert isinstance(dry, DryRun)
    return dry.resolved["published"]


def test_a_search_fills_the_places_beside_the_models_that_are_named(app: App) -> None:
    found = try_published(app, "looks", "search", "hf:org/fits", "hf:org/partly")
    assert list(found[:2]) == ["hf:org/fits", "hf:org/partly"]
    assert len(found) == len(set(found)) == screening.MOST_CANDIDATES
    assert {each.partition(":")[0] for each in found[2:]} <= {"hf", "timm"}


def test_a_search_that_finds_none_is_told_unless_models_are_named(app: App) -> None:
    with pytest.raises(
        SpeciateError, match="finds no published model with weights within the limits of 'free'"
    ) as told:
        try_published(app, "free", "search")
    assert [(each.tool, each.arguments) for each in told.value.next] == [("search_models", {"use_case": "free"})]
    assert list(try_published(app, "free", "hf:org/fits", "search")) == ["hf:org/fits"]
