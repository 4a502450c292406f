"""Which of two versions people prefer: by the scores that they gave both for the same question."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from speciate import use_cases
from speciate.predictions.answer_lookup import logs_of
from speciate.predictions.feedback import make_feedback, store_feedback
from speciate.predictions.label_queue import next_labels, summarize_log
from speciate.predictions.log import AnsweringModel
from speciate.predictions.quality import AskedAnswer, estimate_preferences, wilson_interval
from speciate.predictions.reading import StoredFeedback
from speciate.use_cases import Definition
from speciate.workspace.workspace import Workspace
from tests.predictions.world import note, texts


def scored(**scores: float) -> dict[str, dict[str, StoredFeedback]]:
    return {
        name: {
            "human": StoredFeedback(
                prediction=name, at=1.0, label=None, score=score, source="human", by="", drawn=None
            )
        }
        for name, score in scores.items()
    }  # fmt: skip


def test_each_question_counts_once_and_only_where_both_were_scored() -> None:
    asked = [
        AskedAnswer(f"{version}{question}", version, question) for version in ("old", "new") for question in "abcde"
    ] + [AskedAnswer("newa2", "new", "a")]
    given = scored(
        olda=0.2, newa=1.0, newa2=0.8, oldb=0.1, newb=0.9, oldc=0.5, newc=0.5, oldd=1.0, newd=0.0, olde=1.0
    )  # fmt: skip
    [found] = estimate_preferences(asked, given)
    assert (found.model, found.over) == ("old", "new")  # by name
    assert (found.wins, found.losses, found.ties) == (1, 2, 1)
    assert found.share == pytest.approx(1 / 3)
    assert (found.low, found.high) == wilson_interval(1 / 3, 3, 0.95)
    assert estimate_preferences(reversed(asked), given) == [found]


def test_questions_that_decide_nothing_give_no_share() -> None:
    asked = [AskedAnswer("x", "old", "a"), AskedAnswer("y", "new", "a")]
    [found] = estimate_preferences(asked, scored(x=0.5, y=0.5))
    assert (found.share, found.low, found.ties) == (None, None, 1)
    assert estimate_preferences(asked, scored(x=0.5)) == []


def test_the_queue_names_the_other_versions_image_and_scores_of_both_say_which_is_preferred(
    workspace: Workspace,
) -> None:
    definition = Definition.model_validate(
        {"name": "drawing", "task": "text-to-image", "objective": {"metric": "frechet_distance"}}
    )
    workspace.database.transact(lambda tx: use_cases.define(tx, definition, policy="auto"))
    own = logs_of(workspace).of("drawing")

    def draw(version: str) -> list[str]:
        image = {"mime": "image/png", "data": base64.b64encode(version.encode()).decode(), "width": 8, "height": 8}
        return note(own, texts("a square", "a circle"), AnsweringModel(version, 1, "text"), output=image)

    first, second = draw("pen@v1"), draw("pen@v2")
    queue = next_labels(workspace, "drawing", strategy="random")
    assert {each.prediction: each.beside for each in queue.items} == {
        **{one: (other,) for one, other in zip(first, second, strict=True)},
        **{other: (one,) for one, other in zip(first, second, strict=True)},
    }

    def score(name: str, value: float) -> Any:
        given = make_feedback(prediction=name, score=value, source="human")
        return store_feedback(own, given, workspace.clock.now(), lambda *_: None)

    for one, other in zip(first, second, strict=True):
        score(one, 0.0)
        score(other, 1.0)
    [found] = summarize_log(workspace, "drawing").preferences
    assert (found.model, found.over, found.wins, found.losses) == ("pen@v2", "pen@v1", 2, 0)
