from __future__ import annotations

from speciate.datasets.columns import SKETCH
from speciate.evaluation.contamination import find_nearly_seen, find_seen
from speciate.evaluation.reports import report
from speciate.modalities import find
from speciate.workspace.workspace import Workspace
from tests.evaluation import world
from tests.training.world import define, make_dataset, train_now

WORDS = "the quick brown fox jumps over a lazy dog while seven bright stars watch from far above old quiet hills"


def text(number: int, kind: str) -> str:
    """Twenty words and more of its own, so that only a copy is near it."""
    own = " ".join(f"{word}{number}" for word in WORDS.split())
    return f"{own} it was {kind} indeed"


def test_a_suite_with_near_duplicates_of_training_data_promotes_nothing(workspace: Workspace) -> None:
    kinds = ["good" if number % 2 else "bad" for number in range(160)]
    texts = [text(number, kind) for number, kind in enumerate(kinds)]
    for place, original in ((100, 0), (101, 1), (102, 2)):  # test examples that retell a training example
        texts[place], kinds[place] = texts[original] + " so they say", kinds[original]
    sketches = [find("text").sketch(each) for each in texts]
    assert None not in sketches
    make_dataset(
        workspace, "tales", "text", {"text": texts, SKETCH: sketches}, labels=kinds,
        splits=["train"] * 80 + ["validation"] * 20 + ["test"] * 60, inputs=["text"],
    )  # fmt: skip
    define(workspace, "telling", "text-classification", 0.6)
    made = train_now(workspace, name="teller", dataset="tales", method="classical", use_case="telling")
    result = world.evaluate_models(
        workspace, dataset="tales", models=[made["model"]], use_case="telling", latency=False
    )
    row = report.find_report(workspace.database, result["evaluation"]).row("teller")
    assert (row.seen, row.nearly_seen) == (0, 3)
    assert result["decision"]["verdict"] == "hold"
    assert any("3 of these examples have a near-duplicate" in reason for reason in result["decision"]["reasons"])


def test_what_is_near_is_told_apart_from_what_is_identical(workspace: Workspace) -> None:
    texts = [text(0, "good"), text(1, "bad"), text(0, "good"), text(1, "bad") + " so they say", text(3, "bad")]
    sketches = [find("text").sketch(each) for each in texts]
    manifest = make_dataset(
        workspace, "tales", "text", {"text": texts, SKETCH: sketches, "_key": [str(hash(each)) for each in texts]},
        labels=["good", "bad", "good", "bad", "bad"], splits=["train"] * 2 + ["test"] * 3, inputs=["text"],
    )  # fmt: skip
    ids = [f"tales-{place:06d}" for place in (2, 3, 4)]
    asked = (workspace.folders, manifest, ids, [manifest], ("train",))
    assert find_seen(*asked) == {ids[0]}
    assert find_nearly_seen(*asked) == {ids[0], ids[1]}


def test_where_nothing_can_be_compared_it_says_so_and_not_zero(workspace: Workspace) -> None:
    """These rows have no sketches, as those of a dataset from before there were any."""
    world.make_dataset(workspace)
    world.define(workspace)
    world.train_model(workspace)
    result = world.evaluate_models(workspace, models=["points"], use_case="flowering", latency=False)
    found = report.find_report(workspace.database, result["evaluation"])
    assert (found.row("points").seen, found.row("points").nearly_seen) == (0, None)
    assert found.row("column:rules").nearly_seen == 0  # it has learned from nothing
    assert any("training data of points@v1: not_checked" in note for note in found.notes)
    assert found.decision is not None
    assert any("near-duplicates: not_checked" in gate.reason for gate in found.decision.gates)
