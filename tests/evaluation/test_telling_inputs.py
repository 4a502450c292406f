"""Columns that give the answer away are named, and columns that only help are not."""

from __future__ import annotations

import numpy as np

from speciate.evaluation.telling_inputs import repeating_inputs, telling_inputs
from speciate.workspace.workspace import Workspace
from tests.evaluation import world

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


def test_copies_codes_and_scores_of_the_label_tell_it() -> None:
    assert telling_inputs(list(ROWS[0]), ROWS, TARGETS) == ["copy", "flag", "code", "score"]
    assert repeating_inputs(list(ROWS[0]), ROWS, RULES) == ["rules"]


def test_few_rows_and_one_answer_tell_nothing() -> None:
    assert telling_inputs(["copy"], ROWS[:10], TARGETS[:10]) == []
    assert telling_inputs(["copy"], ROWS, ["yes"] * len(ROWS)) == []


def test_a_number_on_a_line_with_the_target_tells_it() -> None:
    targets = [float(each) for each in RANDOM.normal(size=50)]
    rows = [{"cents": 100 * each, "near": each + float(RANDOM.normal() / 4)} for each in targets]
    assert telling_inputs(["cents", "near"], rows, targets) == ["cents"]


def test_an_evaluation_says_which_inputs_tell_the_answer(flowers: Workspace) -> None:
    manifest = world.make_dataset(flowers, "told", inputs=("x", "y", "site"))
    position = {"yes": "s", "no": "n"}
    world.make_version(
        flowers,
        lambda table: table.set_column(
            table.column_names.index("site"), "site", [[position[label] for label in table["label"].to_pylist()]]
        ),
        manifest.name,
    )
    world.train_model(flowers, "teller", dataset="told")
    asked = {"dataset": "told", "models": ["column:rules", "teller"], "metrics": ["accuracy"], "latency": False}
    notes = world.evaluate_models(flowers, **asked)["report"]["notes"]
    assert any(note.startswith("teller@v1 reads 'site'") for note in notes)
