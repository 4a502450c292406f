"""Free text in tables: which columns are text, what is made of them, and what a training gains."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from speciate.datasets import versions
from speciate.datasets.loading.loader import Example, load_examples
from speciate.tasks import predictor
from speciate.tasks.text_columns import TextColumns, text_columns
from speciate.workspace.workspace import Workspace
from tests.training.world import make_dataset, model_path, train_now

WORDS = {"leak": ["water", "drips", "wet", "pipe"], "noise": ["loud", "rattles", "hums", "bang"]}


def _notes(count: int) -> tuple[list[str], list[str], list[float]]:
    """Complaints; the label depends on a word of theirs and on a number beside."""
    rng = np.random.default_rng(0)
    kinds = [("leak", "noise")[int(rng.integers(2))] for _ in range(count)]
    texts = [f"the machine {rng.choice(WORDS[kind])} since {rng.integers(1000)} hours" for kind in kinds]
    hours = rng.normal(size=count)
    labels = [kind if hour > -0.5 else "worn" for kind, hour in zip(kinds, hours, strict=True)]
    return texts, labels, hours.tolist()


def _examples(texts: list[Any], hours: list[Any]) -> list[Example]:
    rows = zip(texts, hours, strict=True)
    return [Example(str(at), {"note": text, "x": x}, "a", str(at), "train", {}) for at, (text, x) in enumerate(rows)]


@pytest.mark.parametrize(
    ("cells", "is_text"),
    [
        ([f"a note about part {place}" for place in range(40)], True),
        ([f"a note about part {place}" for place in range(40)] + [None, math.nan], True),
        ([f"a note about part {place}" for place in range(15)], False),  # too few to be told from categories
        (["in very good condition", "in rather poor condition"] * 40, False),
        ([f"code-{place}" for place in range(40)], False),
        ([f"a note about part {place}" for place in range(40)] + [3.0], False),
        ([None] * 40, False),
    ],
)
def test_a_column_is_text_by_its_words_and_how_rarely_they_recur(cells: list[Any], is_text: bool) -> None:
    examples = _examples(cells, [1.0] * len(cells))
    assert text_columns(examples, ("note", "x")) == (("note",) if is_text else ())


@pytest.mark.parametrize("dense", [False, True])
def test_it_is_the_same_after_it_was_saved_and_takes_rows_without_a_text(dense: bool) -> None:
    texts, _, hours = _notes(200)
    learned = _examples(texts, hours)
    made = TextColumns.fit(learned, ("note", "x"), ("note",), dense=dense)
    asked = [*learned[:5], *_examples([None, "", math.nan, "words never seen"], [0.0, None, 1.0, 2.0])]
    rows = made.encode(asked)
    again = TextColumns.rebuild(json.loads(json.dumps(made.settings())), made.arrays())
    for found in (rows, again.encode(asked)):
        full = found if dense else found.toarray()
        assert full.shape[0] == 9
        assert np.isfinite(full).all()
    same = again.encode(asked)
    assert np.array_equal(rows if dense else rows.toarray(), same if dense else same.toarray())
    assert (rows.shape[1] <= 140) == dense or rows.shape[1] < 300


def test_a_table_is_learned_from_by_its_texts_and_its_numbers(workspace: Workspace) -> None:
    texts, labels, hours = _notes(400)
    make_dataset(
        workspace, "rows", "tabular", {"note": texts, "x": hours}, labels=labels, inputs=["note", "x"],
        splits=["train" if at < 200 else "validation" if at < 280 else "test" for at in range(400)],
    )  # fmt: skip
    asked = {"dataset": "rows", "method": "classical", "task": "tabular-classification"}
    report = train_now(workspace, name="sorter", **asked)["report"]
    chosen = next(each["name"] for each in report["candidates"] if each["chosen"])
    assert "texts" in chosen
    alone = next(each["value"] for each in report["candidates"] if each["name"] == "columns: boosting")
    assert report["validation"]["value"] > alone + 0.2
    examples = load_examples(workspace.folders, versions.resolve(workspace.database, "rows"), ("test",))
    answers = predictor.load(model_path(workspace, "sorter@v1")).predict(examples)
    right = np.mean([answer.output == each.label for answer, each in zip(answers, examples, strict=True)])
    assert right > 0.9
    without = [each._replace(media={"note": None, "x": each.media["x"]}) for each in examples[:3]]
    assert len(predictor.load(model_path(workspace, "sorter@v1")).predict(without)) == 3


@pytest.mark.slow
def test_a_table_of_texts_alone_is_learned_from(workspace: Workspace) -> None:
    texts, _, _ = _notes(200)
    make_dataset(
        workspace, "rows", "tabular", {"note": texts}, inputs=["note"],
        labels=["leak" if any(word in text for word in WORDS["leak"]) else "noise" for text in texts],
        splits=["train" if at < 120 else "validation" for at in range(200)],
    )  # fmt: skip
    asked = {"dataset": "rows", "method": "classical", "task": "tabular-classification"}
    report = train_now(workspace, name="sorter", **asked)["report"]
    assert report["validation"]["value"] > 0.95
    (chosen,) = [each["name"] for each in report["candidates"] if each["chosen"]]
    assert chosen.startswith(("texts", "mean"))
