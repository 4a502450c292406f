"""The steps by which published models are tried as they are: what comes next, and what is told of each."""

from __future__ import annotations

from typing import Any

from speciate.jobs.kinds import Child, ChildRequest
from speciate.training.cascade.candidates import SpecializeSpec
from speciate.training.planning.published_steps import next_published, published_report, race_survivors
from speciate.training.specialize import next_step

MODELS = ("hf:org/one", "hf:org/two", "kept@v1")
SCREENED = {
    "candidates": [
        {"ref": "hf:org/one", "name": "org--one", "version": None, "bytes": 9, "ceiling": 1.0, "downloads": 1},
        {"ref": "hf:org/two", "name": "org--two", "version": None, "bytes": 9, "ceiling": 1.0, "downloads": 1},
        {"ref": "kept@v1", "name": "kept", "version": "kept@v1", "bytes": 0, "ceiling": 1.0, "downloads": 0},
    ],
    "dropped": [{"ref": "hf:org/closed", "why": "Its licence."}],
}  # fmt: skip
RACED = {
    "rows": [{"model": "kept@v1", "value": 0.9, "interval": [0.8, 0.95], "n": 50, "seconds": 1.0}],
    "survivors": ["kept@v1"],
    "out": [{"model": "org--one@v1", "why": "Surely worse than kept@v1 on 50 examples."}],
}  # fmt: skip


def child(step: str, result: dict[str, Any] | None, seconds: float = 1.0, **more: Any) -> Child:
    state = "succeeded" if result is not None else "failed"
    kind = step.partition("/")[0]
    return Child(
        id=f"job-{step}", step=step, kind=kind, spec=more.pop("spec", {}), state=state, result=result,
        run_seconds=seconds, **more,
    )  # fmt: skip


def asked(*children: Child, left: float = 300.0) -> list[ChildRequest]:
    return next_published(
        children, MODELS, use_case="triage", dataset="reviews", max_bytes=None, seed=0, seconds_left=left, grace=30.0
    )


SCREEN = child("screen", SCREENED)
ONE = child("fetch/org--one", {"model": "org--one@v1"}, spec={"source": "hf:org/one"})
LOST = child("fetch/org--two", None, spec={"source": "hf:org/two"}, error={"message": "The hub is shut."})


def test_screened_then_all_fetched_then_raced_then_nothing_more() -> None:
    assert [each.step for each in asked()] == ["screen"]
    assert [each.step for each in asked(SCREEN)] == ["fetch/org--one", "fetch/org--two"]
    (race,) = asked(SCREEN, ONE, LOST)
    assert race.spec["models"] == ["org--one@v1", "kept@v1"]
    assert race.spec["budget_minutes"] * 60 == 100.0
    assert asked(SCREEN, ONE, LOST, child("race", RACED)) == []


def test_where_screening_fails_or_leaves_none_the_trainings_go_on() -> None:
    assert asked(child("screen", None)) == []
    assert asked(child("screen", {"candidates": [], "dropped": []})) == []


def test_the_report_says_why_each_left() -> None:
    found = published_report([SCREEN, ONE, LOST, child("race", RACED)])
    assert found is not None
    assert found["survivors"] == ["kept@v1"]
    assert {each["model"]: each["why"] for each in found["dropped"]} == {  # type: ignore[attr-defined]
        "hf:org/closed": "Its licence.", "hf:org/two": "The hub is shut.",
        "org--one@v1": "Surely worse than kept@v1 on 50 examples.",
    }  # fmt: skip
    assert published_report([]) is None


def test_survivors_stand_beside_own_candidates_or_alone_in_the_one_evaluation() -> None:
    spec = SpecializeSpec(
        use_case="triage", dataset="reviews", budget_minutes=5, published=MODELS, methods=("classical",)
    )
    children = [SCREEN, ONE, LOST, child("race", RACED)]
    (training,) = next_step(spec, children, 0.0)  # type: ignore[misc]
    assert training.step == "train/classical"
    failed = child("train/classical", None)
    (evaluation,) = next_step(spec, [*children, failed], 0.0)  # type: ignore[misc]
    assert evaluation.spec["models"] == ["kept@v1"]
    assert race_survivors(children) == ["kept@v1"]
