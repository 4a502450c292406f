"""Each family of tasks is learned by the classical recipe, saved, and judged by an evaluation."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from speciate.datasets import versions
from speciate.datasets.loading.loader import load_examples
from speciate.errors import SpeciateError
from speciate.evaluation import evaluate
from speciate.evaluation.evaluate import EvaluateSpec
from speciate.evaluation.evaluate import plan as plan_evaluation
from speciate.evaluation.payload import EvaluationPayload
from speciate.evaluation.reports import error_analysis
from speciate.tasks import predictor
from speciate.tasks.families.segmentation import Segmentation
from speciate.tasks.task import TaskTerms
from speciate.training import held_out
from speciate.training.train_spec import Objective
from speciate.workspace.workspace import Workspace
from tests.evaluation.world import perform
from tests.tasks.world import examples
from tests.training.world import define, make_dataset, model_path, thirds, train_now

NAMES, PLACES, VERBS = ("Ada", "Grace", "Alan"), ("Paris", "Oslo", "Lima"), ("likes", "sees", "leaves")
WORDS = {"sport": "ball goal team", "money": "bank loan coin", "food": "bread soup rice"}
HOW = {"small": "tiny", "middle": "usual", "large": "huge"}


def _learn(workspace: Workspace, task: str, **more: Any) -> dict[str, Any]:
    result = train_now(workspace, name="model", dataset="data", method="classical", task=task, **more)
    report = result["report"]
    assert sum(candidate["chosen"] for candidate in report["candidates"]) == 1
    return dict(report)


def _evaluated(workspace: Workspace, **more: Any) -> dict[str, Any]:
    """Value of the model and of the constant answer, and the model's worst answers."""
    spec = {"models": ["constant:", "model"], "dataset": "data", "latency": False}
    result = perform(workspace, evaluate.KIND, spec | more)
    report = result["report"]
    folder = workspace.folders.evaluations / result["evaluation"]
    asked = {"folder": str(folder), "candidate": "model@v1", "count": 5, "metric": report["metric"]}
    values = {row["model"]: row["value"] for row in report["leaderboard"]}
    return {"model": values["model@v1"], "constant": values["constant:"], "worst": error_analysis.worst_examples(asked)}


def _texts(workspace: Workspace, texts: list[str], cells: list[Any], label: list[str] | None = None) -> None:
    count = len(texts)
    make_dataset(
        workspace, "data", "text", {"text": texts, "truth": cells}, labels=label or ["x", "y"] * (count // 2),
        splits=thirds(count), inputs=["text"],
    )  # fmt: skip


def _tagged(random: np.random.Generator) -> tuple[str, list[str]]:
    name, verb, place = (str(random.choice(words)) for words in (NAMES, VERBS, PLACES))
    return f"{name} {verb} {place} today", ["B-PER", "O", "B-LOC", "O"]


def test_several_labels_are_learned_from_lists(workspace: Workspace) -> None:
    random = np.random.default_rng(0)
    sets = [sorted(random.choice(list(WORDS), random.integers(0, 3), replace=False).tolist()) for _ in range(120)]
    texts = ["they say " + " and ".join(str(random.choice(WORDS[kind].split())) for kind in kinds) for kinds in sets]
    _texts(workspace, [f"{text} {i}" for i, text in enumerate(texts)], sets)
    report = _learn(workspace, "text-multi-label-classification", target="truth")
    assert report["validation"]["value"] > 0.9
    assert report["labels"] == sorted(WORDS)
    found = _evaluated(workspace)
    assert found["model"] > max(0.9, found["constant"])
    assert all(json.loads(one["truth"]) != json.loads(one["output"]) for one in found["worst"]["examples"])


@pytest.mark.parametrize(
    "splits", [("train", "validation", "test"), pytest.param(("train", "test"), marks=pytest.mark.slow)]
)
def test_ranks_are_learned_in_their_order(workspace: Workspace, splits: tuple[str, ...]) -> None:
    labels = [list(HOW)[i % 3] for i in range(120)]
    texts = [f"a {HOW[label]} thing number {i}" for i, label in enumerate(labels)]
    make_dataset(workspace, "data", "text", {"text": texts}, labels=labels, splits=thirds(120, splits), inputs=["text"])
    order = {"order": list(HOW)}
    report = _learn(workspace, "text-ordinal-classification", hyperparameters=order)
    assert report["labels"] == list(HOW)
    assert report["validation"]["value"] < 0.1
    found = _evaluated(workspace)
    assert found["model"] < 0.1 < found["constant"]


def test_models_of_different_orders_are_not_compared(workspace: Workspace) -> None:
    labels = [list(HOW)[i % 3] for i in range(60)]
    texts = [f"a {HOW[label]} thing number {i}" for i, label in enumerate(labels)]
    make_dataset(workspace, "data", "text", {"text": texts}, labels=labels, splits=thirds(60), inputs=["text"])
    for order in (list(HOW), sorted(HOW)):
        train_now(
            workspace, f"job-{order[0]}", name="model", dataset="data", method="classical",
            task="text-ordinal-classification", hyperparameters={"order": order},
        )  # fmt: skip
    ask = {"dataset": "data", "latency": False}
    with pytest.raises(SpeciateError, match="rank the labels differently"):
        plan_evaluation(EvaluateSpec.model_validate(ask | {"models": ["model@v1", "model@v2"]}), workspace)
    for version, order in (("v1", list(HOW)), ("v2", sorted(HOW))):
        spec = EvaluateSpec.model_validate(ask | {"models": ["constant:", f"model@{version}"]})
        payload = EvaluationPayload.model_validate(plan_evaluation(spec, workspace).payload_json())
        assert list(payload.terms.order) == order


def test_tags_of_words_are_learned(workspace: Workspace) -> None:
    random = np.random.default_rng(0)
    made = [_tagged(random) for _ in range(90)]
    _texts(workspace, [text for text, _ in made], [tags for _, tags in made])
    report = _learn(workspace, "token-classification", target="truth")
    assert report["validation"]["value"] > 0.95
    found = _evaluated(workspace)
    assert found["model"] > 0.95 > found["constant"]
    manifest = versions.resolve(workspace.database, "data")
    asked = load_examples(workspace.folders, manifest, ("test",))[:1]
    (served,) = predictor.load(model_path(workspace, "model")).predict(asked)
    assert served.output == ["B-PER", "O", "B-LOC", "O"]


def test_the_worst_answers_are_those_with_the_most_errors(workspace: Workspace) -> None:
    """A system in use whose tags are wrong in the first, the second, ... half of the words."""
    texts, truth = [f"one two three four {i}" for i in range(12)], [["A", "B", "A", "B", "C"]] * 12
    said = [[*["-"] * (i // 2), *tags[i // 2 :]] for i, tags in enumerate(truth)]
    columns = {"text": texts, "truth": truth, "said": said}
    make_dataset(
        workspace, "data", "text", columns, labels=["x", "y"] * 6, splits=["test"] * 12, inputs=["text"]
    )  # fmt: skip
    define(workspace, "tagging", "token-classification", metric="token_accuracy", target_column="truth",
           incumbent="column:said")  # fmt: skip
    spec = {"models": ["column:said"], "dataset": "data", "use_case": "tagging", "latency": False}
    made = perform(workspace, evaluate.KIND, spec)
    folder = workspace.folders.evaluations / made["evaluation"]
    asked = {"folder": str(folder), "candidate": "column:said", "count": 3, "metric": "token_accuracy"}
    found = error_analysis.worst_examples(asked)
    assert found["wrong"] == 10
    assert [json.loads(one["output"]).count("-") for one in found["examples"]] == [5, 5, 4]


def test_tags_of_residues_are_learned(workspace: Workspace) -> None:
    random = np.random.default_rng(0)
    sequences = ["".join(random.choice(list("KRDEAG"), 30)) for _ in range(60)]
    tags = ["".join("+" if residue in "KR" else "-" if residue in "DE" else "o" for residue in s) for s in sequences]
    make_dataset(
        workspace, "data", "protein", {"sequence": sequences, "truth": tags}, labels=["x", "y"] * 30,
        splits=thirds(60), inputs=["sequence"],
    )  # fmt: skip
    assert _learn(workspace, "token-classification", target="truth")["validation"]["value"] > 0.95


@pytest.mark.parametrize(
    "splits", [("train", "validation", "test"), pytest.param(("train", "test"), marks=pytest.mark.slow)]
)
def test_neighbours_are_learned_from_labels(workspace: Workspace, splits: tuple[str, ...]) -> None:
    random = np.random.default_rng(0)
    kinds = [list(WORDS)[i % 3] for i in range(120)]
    noise = [" ".join(random.choice(list("abcdefgh"), 6)) for _ in kinds]
    texts = [f"{noise[i]} {random.choice(WORDS[kind].split())} {i}" for i, kind in enumerate(kinds)]
    make_dataset(workspace, "data", "text", {"text": texts}, labels=kinds, splits=thirds(120, splits), inputs=["text"])
    report = _learn(workspace, "feature-extraction")
    assert {candidate["name"] for candidate in report["candidates"]} == {
        "text features: as-they-are", "text features: discriminant",
    }  # fmt: skip
    found = _evaluated(workspace)
    assert found["model"] > 0.6 > found["constant"]


def test_scores_between_0_and_1_have_the_interval_that_an_evaluation_gives_them() -> None:
    outline = json.dumps([[10, 5, 30, 5, 30, 15, 10, 15]])
    pictures = examples(*[np.zeros((20, 40, 3), np.uint8)] * 4)
    cell = [{"category": "dog", "segmentation": outline}]
    posed = [Segmentation.evaluation_example(each, cell, TaskTerms()) for each in pictures]
    labels = [one.target for one in posed if one]
    context: Any = SimpleNamespace(
        payload=SimpleNamespace(objective=Objective(metric="dice")), labels=lambda held: labels
    )
    maps = [np.stack([np.zeros((4, 4)), np.tri(4, k=place) - 0.5]) for place in range(4)]
    found = held_out.measure(context, Segmentation.fit(labels, {}), pictures, maps)
    assert 0 < found.value < 1
    assert found.method == "clustered_t"
