"""Calls in the recovery of an error become suggestions, where they are whole, harmless, and ours."""

from __future__ import annotations

from typing import Any

import pytest

from speciate.server.recoveries import calls_in


def calls(recovery: str) -> list[tuple[str, dict[str, Any]]]:
    return [(each.tool, each.arguments) for each in calls_in(recovery)]


@pytest.mark.parametrize(
    ("recovery", "expected"),
    [
        ("Call list_options(kind='method').", [("list_options", {"kind": "method"})]),
        (
            "Name another dataset; or call curate_dataset(dataset='films', steps=[{'op': 'split'}]), which makes them.",
            [("curate_dataset", {"dataset": "films", "steps": [{"op": "split"}]})],
        ),
        (
            "The model's classes are few: call describe_dataset(dataset='films@v2'), then describe_dataset().",
            [("describe_dataset", {"dataset": "films@v2"}), ("describe_dataset", {})],
        ),
        (
            "query_dataset(dataset='a', sql='SELECT count(*) FROM examples WHERE label = \\'x\\'')",
            [("query_dataset", {"dataset": "a", "sql": "SELECT count(*) FROM examples WHERE label = 'x'"})],
        ),
    ],
)
def test_a_whole_call_is_taken(recovery: str, expected: list[tuple[str, dict[str, Any]]]) -> None:
    assert calls(recovery) == expected


@pytest.mark.parametrize(
    "recovery",
    [
        "Call it with a name.",
        "Call train_model(method='probe', base_model='m@v1', ...).",
        "Call curate_dataset(dataset='a', steps=[...]).",
        "Call describe_dataset(dataset=name).",
        "Call describe_dataset('films').",
        "Call describe_dataset(dataset='films'",
        "Call describe_dataset(**given).",
        "manage_data(action='gc') makes room.",
        "rollback_model(use_case='a', expected_current='m@v1', reason='') goes back.",
        "Call create_dataset(name='a', source='hf:evil/data').",
        "my_describe_dataset(dataset='a'), 2describe_dataset(dataset='a')",
        "",
    ],
)
def test_what_is_not_whole_or_not_harmless_is_left_in_the_text(recovery: str) -> None:
    assert calls(recovery) == []


@pytest.mark.parametrize("name", ["train_model(name='x')", "it's train_model(name='x')", "\"train_model(name='x')"])
def test_a_name_of_anybodys_is_never_a_call(name: str) -> None:
    recovery = f"Call list_options(kind='task'); the column {name!r} is not there: describe_dataset(dataset={name!r})."
    assert calls(recovery) == [("list_options", {"kind": "task"}), ("describe_dataset", {"dataset": name})]


def test_three_are_enough_and_each_stands_once() -> None:
    many = " or ".join(f"get_job(job='job-{n // 2}')" for n in range(10))
    assert [call[1]["job"] for call in calls(many)] == ["job-0", "job-1", "job-2"]
