from __future__ import annotations

import numpy as np
import pytest

from speciate.evaluation.compare_models import Cost, ModelEntry, Question, build
from speciate.evaluation.evaluated_models import EvaluatedModel
from speciate.evaluation.metrics import label_answers
from speciate.evaluation.rare_labels import rare_label_warnings, unfound_labels
from speciate.use_cases import UseCase
from speciate.vocabulary import find_metric

ROWS = {"red": 100, "green": 80, "blue": 90, "odd": 1}


def test_a_label_with_one_test_row_is_told_with_its_weight() -> None:
    (warning,) = rare_label_warnings("f1_macro", ROWS)
    assert warning.startswith("'odd' has 1 test row and counts for a quarter of macro F1:")


@pytest.mark.parametrize("metric", ["accuracy", "mcc"])
def test_a_metric_that_counts_rows_has_no_rare_label(metric: str) -> None:
    assert rare_label_warnings(metric, ROWS) == []


def test_labels_that_all_have_few_rows_weigh_as_their_rows_do() -> None:
    assert rare_label_warnings("balanced_accuracy", {str(number): 4 for number in range(50)}) == []


def test_of_many_rare_labels_three_are_named() -> None:
    (warning,) = rare_label_warnings("balanced_accuracy", {"usual": 500, **{f"odd {n}": n + 1 for n in range(5)}})
    assert warning.startswith("'odd 0' has 1 test row, 'odd 1' has 2 test rows, 'odd 2' has 3 test rows and 2 further")
    assert "each counts for 1/6 of balanced accuracy" in warning


REFERENCES = ["red"] * 100 + ["blue"] * 100 + ["odd"] * 4
LABELS = ("red", "blue", "odd")


def _entry(name: str, given: list[str], source: str = "model") -> ModelEntry:
    model = EvaluatedModel.model_validate({"name": name, "source": source, "identity": name, "license": "MIT"})
    answers = label_answers(REFERENCES, given, [None] * len(given), LABELS)
    return ModelEntry(model, (answers,), 0, Cost(usd_per_1k=1.0), certain=True)


@pytest.mark.parametrize(("metric", "told"), [("f1_macro", True), ("accuracy", False)])
def test_the_verdict_tells_which_label_was_never_found(metric: str, told: bool) -> None:
    use_case = UseCase.model_validate(
        {"name": "colours", "task": "text-classification", "objective": {"metric": metric}, "version": 1, "created": 0}
    )
    question = Question("colours@v1:test", (find_metric(metric),), "constant:", None, use_case)
    entries = [
        _entry("constant:", ["red"] * 204, "constant"), _entry("words", [*REFERENCES[:200], *["red"] * 4]),
    ]  # fmt: skip
    decision = build(question, entries, np.arange(204)).decision
    assert decision is not None
    remarks = [reason for reason in decision.reasons if reason.startswith("'odd': 0 of 4 found")]
    assert len(remarks) == told
    assert all("the interval of macro F1 may be too narrow" in remark for remark in remarks)


def test_a_label_that_one_repeat_finds_is_found() -> None:
    none, once = ([*REFERENCES[:200], *odd] for odd in (["red"] * 4, ["red", "red", "odd", "red"]))
    repeats = [label_answers(REFERENCES, given, [None] * 204, LABELS) for given in (none, once)]
    assert unfound_labels(find_metric("f1_macro"), repeats[:1])
    assert unfound_labels(find_metric("f1_macro"), repeats) == []
