"""A model goes on with new versions: what is replayed, what its head keeps, and what it forgot of those before."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import pytest

from speciate.datasets import version_rows, versions
from speciate.errors import Code, SpeciateError
from speciate.evaluation.contamination import learned_from
from speciate.models import registry
from speciate.models.model_card import ModelCard
from speciate.privacy import deletion
from speciate.privacy.purge_datasets import Target, find_rows, purge_keys, sealed_files
from speciate.tasks.predictor import load
from speciate.training import train
from speciate.training.recipes import continual
from speciate.training.recipes.replay_buffer import REPLAYED_FROM
from speciate.training.train_spec import TrainSpec
from speciate.workspace.workspace import Workspace
from tests.data import ingest
from tests.training.world import model_path, train_now

pytest.importorskip("torch")
LEARN: dict[str, Any] = {
    "num_train_epochs": 12,
    "early_stopping_patience": 12,
    "learning_rate": [3e-3],
    "batch_size": 16,
}
GO_ON: dict[str, Any] = LEARN | {"keep": "last"}


def points(labels: str, number: int = 60, seed: int = 0) -> list[dict[str, Any]]:
    """Around a corner of a cube for each label; half learns, a quarter validates, a quarter judges."""
    chance = np.random.default_rng([seed, *map(ord, labels)])
    names = [labels[i % len(labels)] for i in range(number)]
    corners = np.array([[ord(each) >> bit & 1 for bit in range(3)] for each in names])
    drawn = 2 * corners + chance.normal(0, 0.25, (number, 3))
    splits = ("train", "train", "validation", "test")
    return [
        dict(zip("xyz", map(float, point), strict=True)) | {"label": each, "split": splits[i // len(labels) % 4]}
        for i, (each, point) in enumerate(zip(names, drawn, strict=True))
    ]


def register(workspace: Workspace, name: str, rows: list[dict[str, Any]]) -> str:
    return str(ingest(workspace, name, rows=rows, label="label", inputs=list("xyz")).ref)


class Begun(NamedTuple):
    workspace: Workspace
    jobs: Iterator[int]

    def go_on(self, method: str, dataset: str, base: str = "net@v1", name: str = "", **more: Any) -> dict[str, Any]:
        return train_now(
            self.workspace, f"job-{next(self.jobs)}", name=name or method, dataset=dataset, method=method,
            continue_from=base, hyperparameters=({} if method == "slda" else GO_ON) | more,
        )  # fmt: skip

    def card(self, ref: str) -> ModelCard:
        return registry.resolve(self.workspace.database, self.workspace.folders, ref).card


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Begun]:
    """`net@v1` knows a and b; the versions after them have c and d, then e and f."""
    workspace = Workspace(tmp_path_factory.mktemp("continual") / "workspace")
    for labels in ("ab", "cd", "ef"):
        register(workspace, f"points-{labels}", points(labels))
    train_now(
        workspace, "job-net", name="net", dataset="points-ab", method="full", base_model="new:tab-resnet",
        hyperparameters=LEARN,
    )  # fmt: skip
    yield Begun(workspace, count())
    workspace.close()


@pytest.mark.parametrize(
    ("method", "keeps"),
    [
        ("replay", True), ("lwf", False),
        *(pytest.param(*more, marks=pytest.mark.slow) for more in (("der", True), ("ewc", False))),
    ],
)  # fmt: skip
def test_a_network_goes_on_with_new_labels_and_says_what_it_forgot(begun: Begun, method: str, keeps: bool) -> None:
    result = begun.go_on(method, "points-cd")
    report, (old,) = result["report"], result["report"]["forgetting"]["slices"]
    assert report["labels"] == ["a", "b", "c", "d"]
    assert (old["dataset"], old["split"], old["before"]) == ("points-ab@v1", "validation", 1.0)
    assert report["forgetting"]["backward_transfer"] == old["change"] == pytest.approx(old["after"] - 1)
    assert (old["after"] > 0.9) == keeps
    model = load(model_path(begun.workspace, result["model"]))
    new = versions.resolve(begun.workspace.database, "points-cd")
    assert model.labels == ("a", "b", "c", "d")
    assert ("replay" in report) == keeps
    assert new.ref == report["dataset"]


@pytest.mark.slow
def test_without_a_buffer_it_is_plain_fine_tuning(begun: Begun) -> None:
    report = begun.go_on("replay", "points-cd", name="naive", mem_size=0)["report"]
    assert report["forgetting"]["forgetting"] > 0.9
    assert "replay" not in report
    assert any("Nothing is replayed" in note for note in report["notes"])


@pytest.mark.slow
def test_what_is_replayed_is_a_dataset_with_lineage(begun: Begun) -> None:
    begun.go_on("replay", "points-cd", name="traced", mem_size=9)
    result = begun.go_on("replay", "points-ef", "traced@v1", name="traced", mem_size=12)
    told, database, folders = result["report"]["replay"], begun.workspace.database, begun.workspace.folders
    assert told["dataset"] == "traced-replay@v2"
    assert (told["examples"], told["times"]) == (12, 3)  # half of each epoch, beside 32 new ones
    assert told["labels"] == {"a": 3, "b": 3, "c": 3, "d": 3}
    assert told["from"] == {"points-ab@v1": 6, "points-cd@v1": 6}
    version = versions.version(database, told["dataset"])
    assert version.parents == ["points-ab@v1", "points-cd@v1"]
    assert version.operation["model"] == "traced@v1"
    rows = version_rows.read(folders, version.manifest).to_pylist()
    for row in rows:
        origin = versions.resolve(database, row[REPLAYED_FROM])
        (same,) = version_rows.read(folders, origin, ids=[row["id"]]).to_pylist()
        assert (same["split"], same["label"], same["x"]) == ("train", row["label"], row["x"])
    card = begun.card(result["model"])
    assert card.beside == ("traced-replay@v2",)
    learned = learned_from(database, folders, card)
    assert learned is not None
    assert {each.ref for each in learned} >= {"points-ab@v1", "points-cd@v1", "points-ef@v1", "traced-replay@v1"}
    assert [each["dataset"] for each in result["report"]["forgetting"]["slices"]] == ["points-ab@v1", "points-cd@v1"]


@pytest.mark.slow
def test_a_purge_finds_what_was_replayed_and_a_deletion_is_refused(begun: Begun) -> None:
    begun.go_on("replay", "points-cd", name="kept", mem_size=9)
    database, folders = begun.workspace.database, begun.workspace.folders
    buffer, origin = versions.resolve(database, "kept-replay"), versions.resolve(database, "points-ab")
    row = version_rows.read(folders, buffer).to_pylist()[0]
    known = purge_keys(
        folders, sealed_files(folders).files, [origin, buffer], Target(dataset="points-ab", example=row["id"])
    )
    cut = find_rows(folders, buffer.parts[0].file, known)
    assert cut is not None
    assert cut.rows["id"].to_pylist() == [row["id"]]
    needs = database.transact(
        lambda tx: deletion.blockers(tx, deletion.VersionsToDelete("dataset", "kept-replay", (1,)))
    )
    assert any("kept@v1 was trained on kept-replay@v1" in need.what for need in needs)


@pytest.mark.slow
@pytest.mark.slow
def test_the_same_call_draws_the_same_rows(begun: Begun) -> None:
    made = [begun.go_on("replay", "points-cd", name="twin", mem_size=6)["report"]["replay"] for _ in range(2)]
    assert made[0] == made[1]


@pytest.mark.slow
@pytest.mark.slow
def test_earlier_examples_that_the_new_version_has_are_not_replayed(begun: Begun) -> None:
    """A version that has all earlier rows needs none again, and no validation row judges twice."""
    register(begun.workspace, "points-abcd", [*points("ab"), *points("cd")])
    result = begun.go_on("replay", "points-abcd", name="whole")
    assert "replay" not in result["report"]
    assert result["report"]["validation"]["n"] == len([row for row in points("ab") if row["split"] == "validation"]) * 2
    assert result["report"]["forgetting"]["slices"][0]["n"] == 14


def test_streaming_lda_goes_on_without_the_old_data(begun: Begun) -> None:
    train_now(begun.workspace, "job-eyes", name="eyes", dataset="points-ab", method="slda", base_model="net@v1")
    result = train_now(begun.workspace, "job-eyes-2", name="eyes", dataset="points-cd", continue_from="eyes@v1")
    assert result["model"] == "eyes@v2"
    report, card = result["report"], begun.card("eyes@v2")
    assert (card.method, card.base_model, card.labels) == ("slda", "eyes@v1", ("a", "b", "c", "d"))
    assert report["validation"]["value"] > 0.85
    assert report["forgetting"]["slices"][0]["after"] > 0.85
    whole = train_now(
        begun.workspace, "job-eyes-3", name="at-once", dataset=register(
            begun.workspace, "points-both", [*points("ab"), *points("cd")]
        ), method="slda", base_model="net@v1",
    )  # fmt: skip
    ours, other = (load(model_path(begun.workspace, ref)).estimator for ref in ("eyes@v2", whole["model"]))  # type: ignore[attr-defined]
    np.testing.assert_allclose(ours.means, other.means, rtol=1e-6)
    np.testing.assert_allclose(ours.scatter, other.scatter, rtol=1e-6, atol=1e-9)


# What cannot be


@pytest.mark.parametrize(
    ("asked", "code", "words"),
    [
        pytest.param({"base_model": "new:tab-resnet"}, Code.INVALID, "it has learned nothing here", id="fresh"),
        pytest.param({"continue_from": "probed@v1"}, Code.INVALID, "there is no network to train on", id="probe"),
        pytest.param({"dataset": "unjudged", "continue_from": "net@v1"}, Code.INVALID, "no validation", id="unjudged"),
        pytest.param({"name": "taken", "continue_from": "net@v1"}, Code.CONFLICT, "'taken-replay'", id="name"),
        pytest.param({"teacher": "net@v1", "method": "full", "base_model": "new:tab-resnet"}, Code.INVALID,
                     "learns from the labels alone", id="teacher"),
        pytest.param({"continue_from": "net@v1", "task": "tabular-ordinal-classification",
                      "hyperparameters": {"order": ["c", "d"]}}, Code.INVALID,
                     "net@v1 is a model for tabular-classification", id="task"),
    ],
)  # fmt: skip
def test_what_cannot_go_on_is_refused_before_there_is_a_job(
    begun: Begun, asked: dict[str, Any], code: Code, words: str
) -> None:
    if asked.get("name") == "taken":
        register(begun.workspace, "taken-replay", points("gh"))
    if asked.get("dataset") == "unjudged":
        register(begun.workspace, "unjudged", [row for row in points("cd") if row["split"] != "validation"])
    if asked.get("continue_from") == "probed@v1":
        train_now(begun.workspace, "job-c", name="probed", dataset="points-ab", method="classical")
    spec = {"name": "next", "dataset": "points-cd", "method": "replay", **asked}
    with pytest.raises(SpeciateError, match=words) as error:
        train.plan(TrainSpec.model_validate(spec), begun.workspace)
    assert error.value.code is code


@pytest.mark.slow
@pytest.mark.slow
def test_a_continued_training_is_in_its_record_and_can_be_repeated(begun: Begun) -> None:
    made = begun.go_on("der", "points-cd", name="once")
    again = train_now(begun.workspace, "job-again", name="once", like=made["model"])
    assert again["report"]["repetition"]["same_model"]


def test_what_a_version_is_tested_on_chooses_nothing(begun: Begun) -> None:
    """A validation example of the earlier version stands among the test examples of the new one."""
    rows = points("gh")
    moved = next(row for row in points("ab") if row["split"] == "validation")
    register(begun.workspace, "points-gh", [*rows, moved | {"split": "test"}])
    database, folders = begun.workspace.database, begun.workspace.folders
    now, earlier = (versions.resolve(database, name) for name in ("points-gh@v1", "points-ab@v1"))
    ((one, judging),) = continual.read_slices(folders, now, [earlier], seed=0)
    assert len(one.examples) - len(judging) == 1
