"""Sentences about a split that leaks, when a version is made and in every plan on it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from speciate.datasets.leaks import (
    copy_reason,
    copy_warnings,
    find_possible_groups,
    group_warnings,
    leak_warnings,
    leaks_of_report,
    texts_across,
)
from speciate.datasets.versions import version
from speciate.training.planning.training_plan import plan_training
from speciate.workspace.workspace import Workspace
from tests import data


def test_each_kind_of_leak_is_counted() -> None:
    assert leak_warnings({"groups_across": 0, "near_duplicates_across": 0}) == leaks_of_report({}) == []
    (said,) = leak_warnings({"groups_across": 2, "near_duplicates_across": 3, "texts_across": {"text": 31}})
    assert "2 groups, 3 pairs of near-duplicates, 31 texts of the input 'text' lie in several splits" in said
    assert copy_warnings(pa.chunked_array([[None, "The text is empty."]])) == []
    copies = pa.chunked_array([[copy_reason("test"), None, copy_reason("train")]])
    assert copy_warnings(copies)[0].startswith("2 rows were refused")


def test_a_text_beside_other_inputs_counts_once_and_short_cells_do_not() -> None:
    texts = [f"a remark of some length about the number {i}" for i in range(8)]
    rows = pa.table(
        {
            "text": [*texts, texts[0].upper() + " ", texts[1]],
            "kind": ["a"] * 10,
            "other": [f"x{i}" for i in range(10)],
            "split": ["train"] * 8 + ["test"] * 2,
        }
    )
    assert texts_across(rows, ["text", "kind", "other"]) == {"text": 2}
    assert texts_across(rows, ["text"]) == {}
    assert texts_across(rows.slice(0, 8), ["text", "kind"]) == {}


def test_a_leak_is_told_at_creation_at_append_and_in_the_plan(workspace: Workspace) -> None:
    def rows(numbers: range, split: str, score: float) -> list[dict[str, Any]]:
        return [
            {
                "text": f"the remark that has the number {i} and an end",
                "score": score,
                "label": "ab"[i % 2],
                "split": split,
            }
            for i in numbers
        ]

    made = [*rows(range(30), "train", 0.5), *rows(range(30, 40), "validation", 0.5), *rows(range(26, 36), "test", 0.25)]
    data.ingest(workspace, "set", rows=tuple(made), label="label", modality="tabular", inputs=("text", "score"))
    assert "10 texts of the input 'text'" in str(version(workspace.database, "set").report["warnings"])
    assert "10 texts of the input 'text'" in str(plan_training(workspace, "set", method="classical").warnings)
    data.ingest(workspace, "set", rows=tuple(rows(range(3), "test", 0.125)), add=True)
    assert "13 texts of the input 'text'" in str(version(workspace.database, "set").report["warnings"])
    data.run_job(workspace, "curate", dataset="set", steps=[{"op": "filter", "where": "score > 0.2"}])
    assert "10 texts of the input 'text'" in str(version(workspace.database, "set").report["warnings"])


def test_a_column_whose_values_lie_in_several_splits_is_told_where_nobody_named_groups(workspace: Workspace) -> None:
    def rows(number: int) -> dict[str, Any]:
        return {
            "text": f"remark {number}", "author": f"a{number % 30}", "shop": "xyz"[number % 3], "number": number,
            "year": 1990 + number % 12, "label": "ab"[number * 7 % 11 % 2],
        }  # fmt: skip

    given = tuple(map(rows, range(120)))
    data.ingest(workspace, "set", rows=given, label="label", modality="text", inputs=("text",))
    report = version(workspace.database, "set").report
    assert report["split"]["possible_groups"].keys() == {"author"}
    (said,) = [each for each in report["warnings"] if "no groups were named" in each]
    assert "values of 'author'" in said
    assert "'group_by': 'author'" in said
    assert said in plan_training(workspace, "set", method="classical").warnings
    data.run_job(workspace, "curate", dataset="set", steps=[{"op": "split", "group_by": "author"}])
    assert "author" not in version(workspace.database, "set").report["split"].get("possible_groups", {})
    data.ingest(workspace, "named", rows=given, label="label", modality="text", inputs=("text",), group_by="author")
    assert "possible_groups" not in version(workspace.database, "named").report["split"]


def test_columns_of_few_or_single_values_are_no_groups() -> None:
    rows = pa.table(
        {
            "group_key": pa.array([None] * 40, pa.string()),
            "label": [f"kind{i % 12}" for i in range(40)],
            "species": [f"kind{i % 12}" for i in range(40)],
            "width": [i // 4 for i in range(40)],
            "patient_id": [i // 4 for i in range(40)],
            "split": ["train", "test"] * 20,
            "single": [f"id{i}" for i in range(40)],
            "few": [f"kind{i % 9}" for i in range(40)],
            "machine": [f"m{i // 4}" for i in range(40)],
            "input": [f"m{i // 4}" for i in range(40)],
            "share": [i / 4 for i in range(40)],
            "note": [f"{i // 4} was said to be right by everybody there" for i in range(40)],
        }
    )
    assert find_possible_groups(rows, ["input"]) == {"patient_id": 10, "machine": 10}
    inputs = [name for name in rows.column_names if name not in ("group_key", "label", "split")]
    found = find_possible_groups(rows, inputs)
    assert found == {"patient_id": 10, "machine": 10}, "an input is named only where its name says so"
    named = rows.set_column(0, "group_key", pa.array(["g", *[None] * 39], pa.string()))
    assert find_possible_groups(named, ["input"]) == {}
    assert group_warnings({}) == []
