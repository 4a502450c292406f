"""preferences: pairs of a better and a worse answer, by metric, scores, a person's choice or an evaluation."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.datasets.operations.preferences import EQUAL, LACKING, TIED, CandidateAnswer, Pair, choose_pair
from speciate.errors import SpeciateError
from speciate.evaluation import preference_pairs
from speciate.jobs.kinds import Kinds
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests import data
from tests.conftest import ManualClock
from tests.datasets.operations.world import curate
from tests.drawn import drawn
from tests.evaluation import world

ANSWERS = st.lists(
    st.builds(
        CandidateAnswer,
        st.sampled_from(["yes", "no", " yes", "maybe", None]),
        st.sampled_from([0.0, 0.5, 1.0, None, math.nan]),
        st.sampled_from("abc"),
    ),
    max_size=5,
)


@given(ANSWERS, st.sampled_from([0.0, 0.5]))
@settings(max_examples=drawn(200), deadline=None)
def test_a_pair_is_of_different_answers_of_which_one_is_surely_better(
    answers: list[CandidateAnswer], margin: float
) -> None:
    found = choose_pair(answers, margin)
    if isinstance(found, Pair):
        best, worst = found
        assert best.text is not None
        assert worst.text is not None
        assert best.text.strip() != worst.text.strip()
        assert (best.score or 0) - (worst.score or 0) > margin
        known = [each.score for each in answers if each.text and each.score is not None and not math.isnan(each.score)]
        assert (best.score, worst.score) == (max(known), min(known))
    else:
        assert found in (EQUAL, TIED, LACKING)


ROWS: list[dict[str, Any]] = [
    {"text": "2+2", "label": "4", "a": "4", "b": "5", "liked": "b", "sa": 1.0, "sb": 3.0},
    {"text": "2+3", "label": "5", "a": "6", "b": "5", "liked": "a", "sa": 2.0, "sb": 1.0},
    {"text": "2+4", "label": "6", "a": "6", "b": " 6 ", "liked": "a", "sa": 9.0, "sb": 1.0},  # equal
    {"text": "2+5", "label": "7", "a": "1", "b": "2", "liked": None, "sa": 4.0, "sb": 4.0},  # both wrong
    {"text": "2+6", "label": "8", "a": "8", "b": None, "liked": "a", "sa": 1.0, "sb": 0.0},  # one lacks
]


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed workspace with the dataset `sums`, to be copied."""
    return data.seeded(
        tmp_path_factory.mktemp("sums") / "workspace",
        "sums",
        rows=[{**row, "split": "train"} for row in ROWS],
        label="label",
        inputs=["text"],
    )


@pytest.fixture
def sums(ingested: Path, tmp_path: Path, clock: ManualClock) -> Iterator[Workspace]:
    with data.copied(ingested, tmp_path / "workspace", clock) as workspace:
        yield workspace


def test_a_metric_says_which_of_two_columns_is_better_and_equal_ones_are_counted(sums: Workspace) -> None:
    made = curate(sums, "sums", {"op": "preferences", "answers": ["a", "b"], "metric": "exact_match"})
    assert made.rows.num_rows == 2
    chosen, rejected = made.column("chosen", "text"), made.column("rejected", "text")
    assert (chosen, rejected) == ({"2+2": "4", "2+3": "5"}, {"2+2": "5", "2+3": "6"})
    assert made.steps[0]["audit"] == {
        "pairs": 2, "left_out": {EQUAL: 1, TIED: 1, LACKING: 1}, "chosen_of": {"a": 1, "b": 1},
    }  # fmt: skip
    assert made.column("made_by", "text")["2+2"] == "a over b"
    assert made.column("made_from") == {name: name for name in made.rows["id"].to_pylist()}
    assert made.column("how", "text")["2+2"] == "exact_match: 1 over 0"
    assert made.manifest.inputs == ("text",)


def test_numbers_in_columns_and_a_persons_choice_do_as_well(sums: Workspace) -> None:
    by_scores = curate(sums, "sums@v1", {"op": "preferences", "answers": ["a", "b"], "scores": ["sa", "sb"]})
    assert by_scores.column("chosen", "text") == {"2+2": "5", "2+3": "6"}
    assert by_scores.steps[0]["audit"]["left_out"] == {EQUAL: 1, TIED: 1, LACKING: 1}
    by_choice = curate(sums, "sums@v1", {"op": "preferences", "answers": ["a", "b"], "better": "liked"})
    assert by_choice.column("chosen", "text") == {"2+2": "5", "2+3": "6"}
    wide = {"op": "preferences", "answers": ["a", "b"], "scores": ["sa", "sb"], "margin": 1.5}
    assert curate(sums, "sums@v1", wide).column("chosen", "text") == {"2+2": "5"}


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"answers": ["a"], "metric": "exact_match"}, "two different columns"),
        ({"answers": ["a", "a"], "metric": "exact_match"}, "two different columns"),
        ({"answers": ["a", "c"], "metric": "exact_match"}, "'c'"),
        ({"answers": ["a", "b"]}, "one of metric, scores and better"),
        ({"answers": ["a", "b"], "metric": "exact_match", "better": "liked"}, "one of metric, scores and better"),
        ({"answers": ["a", "b"], "metric": "exact_mach"}, "exact_match"),
        ({"answers": ["a", "b"], "metric": "f1_macro"}, "single examples"),
        ({"answers": ["a", "b"], "scores": ["sa"]}, "2 columns of answers and 1 of scores"),
        ({"answers": ["a", "b"], "scores": ["sa", "liked"]}, "scores are numbers"),
        ({"evaluation": "nothing"}, "nothing"),
        ({}, "either answers"),
    ],
)
def test_a_step_without_pairs_is_refused_before_there_is_a_job(
    sums: Workspace, step: dict[str, Any], message: str
) -> None:
    kind = Kinds()["curate"]
    with pytest.raises(SpeciateError) as caught:
        kind.plan(kind.spec(dataset="sums", steps=[{"op": "preferences", **step}]), sums)
    assert message in caught.value.message
    assert caught.value.recovery


def test_where_no_answer_is_better_the_run_says_so(sums: Workspace) -> None:
    data.ingest(
        sums, "same", rows=[{"text": str(i), "label": "x", "a": "y", "b": "y"} for i in range(4)], label="label",
        inputs=["text"],
    )  # fmt: skip
    with pytest.raises(SpeciateError, match="None of the 4 examples has a better and a worse answer"):
        curate(sums, "same", {"op": "preferences", "answers": ["a", "b"], "metric": "exact_match"})


def test_an_evaluation_says_which_model_answered_better(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace", settings=Settings(policy="auto"))
    world.make_dataset(workspace)
    result = world.evaluate_models(workspace, models=["column:rules", "constant:"], latency=False)
    step = {"op": "preferences", "evaluation": result["evaluation"]}
    name = result["report"]["dataset"].partition("@")[0]
    made = curate(workspace, name, step)
    labels, chosen = made.column("label"), made.column("chosen")
    assert made.rows.num_rows > 10
    assert all(chosen[example] == labels[example] for example in chosen)
    assert all(made.column("rejected")[example] != labels[example] for example in chosen)
    assert set(made.column("made_by").values()) <= {"column:rules over constant:", "constant: over column:rules"}
    assert made.steps[0]["audit"]["left_out"].keys() <= {EQUAL, TIED, LACKING}
    workspace.close()
    shutil.rmtree(tmp_path / "workspace")


def test_other_scores_of_an_evaluation_count_a_judges_among_them(tmp_path: Path) -> None:
    """Of an evaluation whose main metric is an error: less of it is better, more of what a judge says is."""
    answers = [
        {"model": model, "example": "ex-1", "output": text, "number": None, "confidence": None, "error": None,
         "score": error, "repeat": 0, "probabilities": None}
        for model, text, error in (("a@v1", "long", 3.0), ("b@v1", "short", 1.0))
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(answers), tmp_path / "predictions.parquet")
    scored = [
        {"model": model, "example": "ex-1", "metric": "helpful", "value": value}
        for model, value in (("a@v1", 0.9), ("b@v1", 0.2))
    ]
    pq.write_table(pa.Table.from_pylist(scored), tmp_path / "scores.parquet")
    payload: dict[str, Any] = {"folder": str(tmp_path), "models": ["a@v1", "b@v1"]}
    by_error = preference_pairs.read(payload | {"metric": "wer", "main": True, "sign": -1})
    by_judge = preference_pairs.read(payload | {"metric": "helpful", "main": False, "sign": 1})
    chosen = [choose_pair([CandidateAnswer(*each) for each in known.answers["ex-1"]]) for known in (by_error, by_judge)]
    assert [each.chosen.text for each in chosen if isinstance(each, Pair)] == ["short", "long"]
    with pytest.raises(SpeciateError, match="no score 'kind'"):
        preference_pairs.read(payload | {"metric": "kind", "main": False, "sign": 1})
