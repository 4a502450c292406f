"""Labels that a split lacks are named when the split is made, shown or measured on."""

from __future__ import annotations

import ast
import random
import re
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


def notes(groups: int, *, short: float = 0.3, rows: int = 1200) -> list[dict[str, str]]:
    """Long notes of several authors, and short ones that many of them wrote."""
    drawn = random.Random(1)
    words = [f"word{number}" for number in range(900)]
    return [
        {
            "who": f"author {place % groups}",
            "note": drawn.choice(["ok", "n/a"])
            if drawn.random() < short
            else " ".join(drawn.choices(words, k=drawn.randint(9, 20))),
            "y": drawn.choice("ab"),
        }
        for place in range(rows)
    ]


def follow(workspace: Workspace, name: str, said: str) -> dict[str, Any]:
    """The report of the version that the steps named in a warning make."""
    return curated(workspace, name, *(ast.literal_eval(step) for step in re.findall(r"\{'op'[^}]*\}", said)))


def curated(workspace: Workspace, name: str, *steps: dict[str, Any]) -> dict[str, Any]:
    data.run_job(workspace, "curate", dataset=name, steps=list(steps))
    return report(workspace, name)


def test_where_equal_notes_tie_all_groups_the_warning_names_the_steps_that_part_them(workspace: Workspace) -> None:
    data.ingest(workspace, "notes", rows=notes(150, rows=3000), label="y", group_by="who", inputs=("note",))
    first = report(workspace, "notes")
    (said,) = [each for each in first["warnings"] if "No usable example lies in 'validation' or 'test'" in each]
    assert (first["split"]["units"], first["split"]["tied_groups"]) == (1, {"group_key": 150})
    found = follow(workspace, "notes", said)
    assert found["warnings"] == []
    assert (found["split"]["units"], found["split"]["test_units"] >= 20) == (150, True)
    assert first["ok"] - found["ok"] == first["split"]["copies"]


def test_where_a_column_that_may_be_the_group_is_tied_by_equal_notes_the_advice_parts_them(
    workspace: Workspace,
) -> None:
    data.ingest(workspace, "notes", rows=notes(200), label="y", inputs=("note",))
    (said,) = report(workspace, "notes")["warnings"]
    assert " values of 'who' lie in several splits" in said
    found = follow(workspace, "notes", said)
    assert found["warnings"] == []
    assert (found["split"]["groups_across"], found["split"]["test_units"] >= 20) == (0, True)


def test_a_split_anew_is_advised_only_where_it_parts_something(workspace: Workspace) -> None:
    """Made again with groups, rows keep their splits, and what lay in several goes to one."""
    for name, short in (("tied", 0.3), ("free", 0.0)):
        rows = notes(200, short=short)
        data.ingest(workspace, name, rows=rows, label="y", inputs=("note",))
        data.ingest(workspace, name, rows=rows, label="y", inputs=("note",), group_by="who")
        (said,) = [each for each in report(workspace, name)["warnings"] if "No usable example" in each]
        assert ("'deduplicate'" in said) == (name == "tied")
        found = follow(workspace, name, said)
        assert (found["split"]["test_units"] >= 20, found["warnings"]) == (True, [])


def test_where_equal_notes_tie_some_groups_the_few_that_are_left_to_test_on_are_told_so(workspace: Workspace) -> None:
    rows = [row for row in notes(60) if row["note"] not in ("ok", "n/a") or int(row["who"].split()[1]) < 50]
    data.ingest(workspace, "notes", rows=rows, label="y", group_by="who", inputs=("note",))
    first = report(workspace, "notes")
    (said,) = [each for each in first["warnings"] if "few verdicts" in each]
    assert "fractions" not in said
    found = follow(workspace, "notes", said)
    assert (first["split"]["units"], found["split"]["units"]) == (11, 60)
    (then,) = found["warnings"]
    fractions = ast.literal_eval(re.findall(r"fractions=(\{[^}]*\})", then)[0])
    last = curated(workspace, "notes", {"op": "split", "fractions": fractions})
    assert last["split"]["test_units"] >= 20
