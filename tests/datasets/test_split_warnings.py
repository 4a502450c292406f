"""Labels that a split lacks are named when the split is made, shown or measured on."""

from __future__ import annotations

from typing import Any

import pytest

from speciate.datasets.split_warnings import missing_label_warnings, uneven_split_warnings
from speciate.datasets.versions import version
from speciate.workspace.workspace import Workspace
from tests import data


def report(workspace: Workspace, name: str) -> dict[str, Any]:
    return dict(version(workspace.database, name).report)


def rows(*counts: tuple[str, int], who: str = "") -> list[dict[str, str]]:
    """`who`: the label whose examples are of one person; the others are each of their own."""
    return [
        {"text": f"the visit number {i} of {label}", "y": label, "who": "one" if label == who else f"{label} {i}"}
        for label, count in counts
        for i in range(count)
    ]


def test_a_class_of_one_group_is_named_with_the_splits_that_lack_it(workspace: Workspace) -> None:
    given = rows(("box", 20), ("cone", 20), ("sphere", 13), who="sphere")
    data.ingest(workspace, "set", rows=given, label="y", group_by="who", inputs=("text",))
    found = report(workspace, "set")
    assert found["split"]["missing_labels"] == [
        {"label": "sphere", "examples": 13, "splits": ["validation", "test"], "why": "its 13 examples are of one group"}
    ]
    (message,) = [each for each in found["warnings"] if "No example labelled" in each]
    assert message.startswith(
        "No example labelled 'sphere' lies in 'validation' or 'test', for its 13 examples are of one group: accuracy"
    )
    again = data.run_job(workspace, "curate", dataset="set", steps=[{"op": "split", "seed": 3}])
    assert message in again["report"]["warnings"]
    assert message in again["steps"][0]["audit"]["warnings"]
    assert message in report(workspace, "set")["warnings"]


def test_a_class_of_near_duplicates_is_named_as_such(workspace: Workspace) -> None:
    words = [f"{a} {b} went to the {c}" for a in ("she", "he") for b in ("soon", "late") for c in ("sea", "pub", "zoo")]
    same = " ".join(f"word{i}" for i in range(120))
    given = [{"text": text, "y": "apart"} for text in words] + [
        {"text": f"{same} and {i}", "y": "alike"} for i in range(12)
    ]
    data.ingest(workspace, "set", rows=given, label="y", inputs=("text",))
    (found,) = report(workspace, "set")["split"]["missing_labels"]
    assert (found["label"], found["examples"], len(found["splits"])) == ("alike", 12, 2)
    assert found["why"] == "its 12 examples are near-duplicates of one another and stay together"


def test_a_split_of_the_source_is_audited_too(workspace: Workspace) -> None:
    given = [
        row | {"split": "train" if i % 3 or row["y"] == "rare" else "test"}
        for i, row in enumerate(rows(("common", 30), ("rare", 6)))
    ]
    data.ingest(workspace, "set", rows=given, label="y", inputs=("text",))
    found = report(workspace, "set")
    assert found["split"]["missing_labels"][0]["why"] == "the source's own split has it so"
    assert any("labelled 'rare' lies in 'test'" in each for each in found["warnings"])


def test_few_examples_and_a_label_that_cannot_be_learned() -> None:
    few = {"label": "rare", "examples": 1, "splits": ["train", "test"], "why": "it is the only one"}
    (message,) = missing_label_warnings([few])
    assert "in 'train' or 'test', for it is the only one: no model can learn it, and accuracy" in message
    assert missing_label_warnings([few], ["validation"]) == []
    assert "labelled 'rare' lies in 'test', for" in missing_label_warnings([few], ["test"])[0]
    many = missing_label_warnings([few | {"label": f"rare {i}"} for i in range(9)])
    assert len(many) == 6
    assert "4 further labels" in many[-1]


def test_classes_that_every_split_has_and_labels_that_are_no_classes_are_not_named(workspace: Workspace) -> None:
    data.ingest(workspace, "both", rows=rows(("a", 20), ("b", 20)), label="y", inputs=("text",))
    data.ingest(
        workspace,
        "texts",
        rows=[{"text": f"q {i}", "y": f"answer {i}"} for i in range(20)],
        label="y",
        inputs=("text",),
    )
    data.ingest(
        workspace, "numbers", rows=[{"text": f"q {i}", "y": float(i)} for i in range(20)], label="y", inputs=("text",)
    )
    for name in ("both", "texts", "numbers"):
        found = report(workspace, name)
        assert (found["split"]["missing_labels"], found["warnings"]) == ([], []), name


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"train": 29, "validation": 6, "test": 4}, "'test' has 4 (10%) instead of 15%"),
        ({"train": 27, "validation": 6, "test": 6}, None),
        ({"train": 7, "validation": 2, "test": 1}, None),  # as near as whole examples come
        ({"train": 20, "validation": 10, "test": 10}, "'train' has 20 (50%) instead of 70%"),
        ({"train": 10}, None),  # an empty split is another warning
    ],
)
def test_fractions_that_are_missed_are_a_warning(sizes: dict[str, int], message: str | None) -> None:
    found = uneven_split_warnings(sizes, {"train": 0.7, "validation": 0.15, "test": 0.15})
    assert len(found) == (message is not None)
    assert message is None or message in found[0]
