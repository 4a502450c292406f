"""Columns that give the answer away are named, and columns that only help are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine

from speciate.datasets.leaks import leaks_of_report
from speciate.datasets.telling_inputs import coarse_copies, repeating_inputs, telling_inputs
from speciate.datasets.versions import version
from speciate.workspace.workspace import Workspace
from tests import data

RANDOM = np.random.default_rng(8)
TARGETS = ["yes" if each else "no" for each in RANDOM.integers(0, 2, 120)]
RULES = [target if RANDOM.random() < 0.8 else "no" for target in TARGETS]
ROWS = [
    {
        "helps": float(RANDOM.normal() + (target == "yes")),
        "copy": target.upper(),
        "flag": int(target == "yes"),
        "code": f"{target[0]}{place % 9}",
        "score": float(RANDOM.random() / 2 + (target == "yes") / 2),
        "number": place,
        "identifier": f"row {place}",
        "rules": rule.title(),
    }
    for place, (target, rule) in enumerate(zip(TARGETS, RULES, strict=True))
]


def told(rows: Sequence[Mapping[str, Any]], targets: Sequence[Any], groups: Sequence[str] = ()) -> list[str]:
    columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    return [each.column for each in telling_inputs(columns, targets, groups)]


def test_copies_codes_and_scores_of_the_label_tell_it() -> None:
    assert told(ROWS, TARGETS) == ["copy", "flag", "code", "score"]
    assert repeating_inputs(list(ROWS[0]), ROWS, RULES) == ["rules"]


def test_few_rows_and_one_answer_tell_nothing() -> None:
    assert told(ROWS[:10], TARGETS[:10]) == []
    assert told(ROWS, ["yes"] * len(ROWS)) == []


def test_empty_cells_hide_no_copy() -> None:
    chance = np.random.default_rng(5)
    cost = [float(chance.gamma(2)) if each == "yes" else 0.0 for each in TARGETS]
    holes = chance.random(len(cost)) < 0.1
    rows = [
        {
            "cost": None if hole else each,
            "nan": float("nan") if hole else each,
            "rare": each if place % 3 == 0 else None,
        }
        for place, (each, hole) in enumerate(zip(cost, holes, strict=True))
    ]
    found = telling_inputs({name: [row[name] for row in rows] for name in rows[0]}, TARGETS)
    assert [each.column for each in found] == ["cost", "nan"], "a column with a third of its cells tells too little"
    assert found[0].examples == len(cost) - int(holes.sum())
    numbers = [float(each) for each in chance.normal(size=80)]
    assert told([{"cents": None if place % 9 == 0 else 100 * each} for place, each in enumerate(numbers)], numbers)


def test_a_number_on_a_line_with_the_target_tells_it() -> None:
    targets = [float(each) for each in RANDOM.normal(size=50)]
    rows = [{"cents": 100 * each, "near": each + float(RANDOM.normal() / 4)} for each in targets]
    assert told(rows, targets) == ["cents"]


@pytest.mark.parametrize(("wrong", "found"), [(0.002, True), (0.008, True), (0.03, False), (0.1, False)])
def test_a_copy_with_a_few_errors_tells_it_too(wrong: float, found: bool) -> None:
    chance = np.random.default_rng(3)
    targets = chance.choice(["a", "b", "c"], 2000).tolist()
    copied = [str(chance.choice(["a", "b", "c"])) if chance.random() < wrong else target for target in targets]
    assert (told([{"copy": each} for each in copied], targets) == ["copy"]) == found


def test_who_somebody_is_tells_nothing_of_others() -> None:
    """Rows of one person have one label; without groups the name would tell it by heart."""
    targets = [TARGETS[place // 6] for place in range(600)]
    rows = [{"person": f"p{place // 6}"} for place in range(600)]
    people = [row["person"] for row in rows]
    assert told(rows, targets) == ["person"]
    assert told(rows, targets, people) == []


@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer, load_diabetes, load_digits])
def test_no_column_of_an_ordinary_table_tells_the_answer(load: Callable[[], Any]) -> None:
    found = load()
    targets = [f"class {each}" for each in found.target] if load is not load_diabetes else found.target.tolist()
    assert told([{f"x{at}": float(x) for at, x in enumerate(row)} for row in found.data], targets) == []


@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(30, 300))
def test_columns_of_chance_tell_nothing(seed: int, classes: int, count: int) -> None:
    chance = np.random.default_rng(seed)
    targets = [f"c{each}" for each in chance.integers(0, classes, count)]
    rows = [
        {"kind": f"k{chance.integers(4)}", "number": float(chance.normal()), "id": place, "gap": None}
        for place in range(count)
    ]
    assert told(rows, targets) == []


def coarse(columns: Mapping[str, Sequence[Any]], targets: Sequence[Any], groups: Sequence[str] = ()) -> list[str]:
    return [each.column for each in coarse_copies(columns, targets, groups)]


def smokers(count: int = 1500) -> tuple[dict[str, list[Any]], list[str]]:
    """As in `cataneo2` of statsmodels: how much mothers smoked, `mbsmoke` whether, and what predicts it well."""
    chance = np.random.default_rng(2)
    labels = chance.choice(["0 daily", "1-5 daily", "6-10 daily", "11+ daily"], count, p=[0.81, 0.05, 0.08, 0.06])
    smokes = labels != "0 daily"
    columns = {
        "mbsmoke": smokes.astype(int).tolist(),
        "word": np.where(smokes, "smoker", "other").tolist(),
        "few errors": (smokes ^ (chance.random(count) < 0.001)).astype(int).tolist(),
        "well": (smokes ^ (chance.random(count) < 0.02)).astype(int).tolist(),
        "one way": (smokes & (chance.random(count) < 0.8)).astype(int).tolist(),
        "cotinine": np.where(smokes, chance.gamma(5, size=count) + 1, 0).round(3).tolist(),
        "rare": (chance.random(count) < 0.002).astype(int).tolist(),
        "empty": [None] * count,
    }
    return columns, labels.tolist()


def test_a_coarser_form_of_the_label_is_named_and_a_good_predictor_is_not() -> None:
    columns, labels = smokers()
    assert telling_inputs({"mbsmoke": columns["mbsmoke"]}, labels) == [], "it gives away one label of four"
    assert coarse(columns, labels) == ["mbsmoke", "word", "few errors"]
    (found,) = coarse_copies({"mbsmoke": columns["mbsmoke"]}, labels)
    assert (found.labels, found.values, found.agreeing, found.examples) == (4, 2, 1500, 1500)
    numbers = [sorted(set(labels)).index(each) for each in labels]
    assert coarse(columns, numbers) == ["mbsmoke", "word", "few errors"], "numbers may be labels"
    assert coarse(columns, [float(each) for each in numbers]) == []
    assert coarse(columns, [each == "0 daily" for each in labels]) == [], "of two labels it is the whole"


def test_a_value_that_names_one_label_while_others_mix_is_no_copy() -> None:
    """As `health` in the nursery data, whose `not_recom` is the label of the same name."""
    chance = np.random.default_rng(3)
    health = chance.choice(["recommended", "priority", "not_recom"], 900)
    labels = [
        each if each == "not_recom" else str(chance.choice(["priority", "spec_prior", "other"])) for each in health
    ]
    assert coarse({"health": health.tolist()}, labels) == []


def test_many_labels_of_few_rows_say_nothing_by_heart() -> None:
    people = [f"p{place // 6}" for place in range(600)]
    sex = [("f", "m")[place // 6 % 2] for place in range(600)]
    assert coarse({"sex": sex}, people) == ["sex"]
    assert coarse({"sex": sex}, people, people) == [], "a group is in one fold"
    assert coarse({"sex": sex[::6]}, people[::6]) == []


@pytest.mark.parametrize("load", [load_iris, load_wine, load_digits])
def test_no_column_of_an_ordinary_table_is_a_coarser_label(load: Callable[[], Any]) -> None:
    found = load()
    columns = {f"x{at}": found.data[:, at].tolist() for at in range(found.data.shape[1])}
    assert coarse(columns, [f"class {each}" for each in found.target]) == []


@given(st.integers(0, 2**32 - 1), st.integers(3, 8), st.integers(30, 300))
def test_columns_of_chance_are_no_coarser_label(seed: int, classes: int, count: int) -> None:
    chance = np.random.default_rng(seed)
    targets = [f"c{each}" for each in chance.integers(0, classes, count)]
    columns = {f"of {n}": chance.integers(0, n, count).tolist() for n in (2, 3, 5)}
    columns["rare"] = (chance.random(count) < 0.03).astype(int).tolist()
    assert coarse(columns, targets) == []


def test_whoever_makes_the_dataset_is_told_of_a_coarser_label(workspace: Workspace) -> None:
    columns, labels = smokers(400)
    inputs = ("mbsmoke", "well", "cotinine")
    rows = tuple({**{name: columns[name][at] for name in inputs}, "label": label} for at, label in enumerate(labels))
    data.ingest(workspace, "births", rows=rows, modality="tabular", inputs=inputs, label="label")
    made = version(workspace.database, "births")
    assert [each["column"] for each in made.report["split"]["coarse_copies"]] == ["mbsmoke"]
    (said,) = (each for each in leaks_of_report(made.report) if "coarser" in each)
    assert "'mbsmoke' (4 labels, 2 values: the label alone gives the value in" in said
    assert said in made.report["warnings"]


def test_whoever_makes_the_dataset_is_told(workspace: Workspace) -> None:
    rows = tuple({**row, "label": target} for row, target in zip(ROWS, TARGETS, strict=True))
    data.ingest(workspace, "told", rows=rows, inputs=("helps", "code", "number"), label="label")
    report = version(workspace.database, "told").report
    assert [each["column"] for each in report["split"]["telling_inputs"]] == ["code"]
    assert any("An input alone tells the label: 'code' (accuracy alone 1.000" in each for each in report["warnings"])
    data.ingest(workspace, "untold", rows=rows, inputs=("helps", "number"), label="label")
    assert "telling_inputs" not in version(workspace.database, "untold").report["split"]
