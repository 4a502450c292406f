from __future__ import annotations

import json
from typing import Any

import pytest

from speciate.errors import Code, SpeciateError
from speciate.sample_size import to_show_difference, to_show_target
from speciate.use_cases import (
    DefineResult,
    Definition,
    Gate,
    Objective,
    Suites,
    apply_approved,
    define,
    gates_in_force,
    get,
    incumbent_of,
    loosenings,
)
from speciate.vocabulary import find_metric
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock


def definition(**changes: Any) -> Definition:
    given = {
        "name": "triage", "task": "text-classification", "objective": {"metric": "accuracy", "target": 0.9},
        "incumbent": "column:rules",
    }  # fmt: skip
    return Definition.model_validate(given | changes)


def defined(workspace: Workspace, policy: Any = "person", **changes: Any) -> DefineResult:
    return workspace.database.transact(lambda tx: define(tx, definition(**changes), policy=policy))


def put_in_production(workspace: Workspace) -> None:
    workspace.database.transact(
        lambda tx: tx.execute("INSERT INTO aliases VALUES ('triage', 'production', 'probe@v1', 1, 0, NULL)")
    )


def refusal(workspace: Workspace, **changes: Any) -> SpeciateError:
    with pytest.raises(SpeciateError) as caught:
        defined(workspace, **changes)
    return caught.value


def test_the_first_definition_starts_the_clock(workspace: Workspace, clock: ManualClock) -> None:
    got = defined(workspace)
    assert (got.use_case.version, got.state, got.changed) == (1, "active", ())
    assert got.clock_started_at == clock.now()
    event = workspace.database.events_after(0)[-1]
    assert (event.subject, event.type) == ("use_case:triage", "use_case.created")
    assert get(workspace.database, "triage") == got.use_case


def test_the_same_content_is_the_same_version(workspace: Workspace, clock: ManualClock) -> None:
    first = defined(workspace)
    clock.advance(60)
    again = defined(workspace)
    assert again == first
    assert len(workspace.database.events_after(0)) == 1


def test_a_change_is_a_new_version_that_says_what_changed(workspace: Workspace, clock: ManualClock) -> None:
    defined(workspace)
    clock.advance(60)
    got = defined(workspace, objective={"metric": "accuracy", "target": 0.95}, limits={"p95_latency_ms": 50})
    assert got.use_case.version == 2
    assert got.changed == ("limits.p95_latency_ms: null -> 50.0", "objective.target: 0.9 -> 0.95")
    assert got.clock_started_at == clock.now() - 60
    assert get(workspace.database, "triage").objective.target == 0.95
    assert get(workspace.database, "triage", 1).objective.target == 0.9


def test_loosening_what_production_was_held_to_waits_for_a_person(workspace: Workspace) -> None:
    defined(workspace)
    put_in_production(workspace)
    got = defined(workspace, objective={"metric": "accuracy", "target": 0.8})
    assert got.state == "needs_approval"
    assert got.loosened == ("objective.target",)
    assert get(workspace.database, "triage").version == 1
    workspace.database.transact(lambda tx: apply_approved(tx, {"use_case": "triage", "version": 2}, "ada"))
    assert get(workspace.database, "triage").version == 2


def test_an_approval_of_a_version_that_was_overtaken_is_refused(workspace: Workspace) -> None:
    defined(workspace)
    put_in_production(workspace)
    defined(workspace, objective={"metric": "accuracy", "target": 0.8})
    defined(workspace, objective={"metric": "accuracy", "target": 0.95})
    with pytest.raises(SpeciateError) as caught:
        workspace.database.transact(lambda tx: apply_approved(tx, {"use_case": "triage", "version": 2}, "ada"))
    assert caught.value.code == Code.CONFLICT


@pytest.mark.parametrize(("policy", "serving"), [("auto", True), ("person", False)])
def test_loosening_is_free_without_production_or_where_policy_is_automatic(
    workspace: Workspace, policy: str, serving: bool
) -> None:
    defined(workspace)
    if serving:
        put_in_production(workspace)
    assert defined(workspace, policy=policy, objective={"metric": "accuracy", "target": 0.8}).state == "active"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"description": "x", "incumbent": None}, ()),
        ({"objective": {"metric": "accuracy", "target": 0.95}}, ()),
        ({"objective": {"metric": "accuracy", "target": 0.85}}, ("objective.target",)),
        ({"objective": {"metric": "accuracy"}}, ("objective.target",)),
        ({"objective": {"metric": "f1_macro", "target": 0.95}}, ("objective.metric",)),
        ({"limits": {"usd_per_1k": 1.0}}, ()),
        ({"limits": {"licenses": ["MIT"]}}, ()),
        ({"gates": [{"rule": "not_worse", "value": 0.5}]}, ("gates",)),
        ({"task": "image-classification"}, ("task",)),
    ],
)
def test_whatever_is_not_surely_as_strict_counts_as_loosening(
    changes: dict[str, Any], expected: tuple[str, ...]
) -> None:
    assert loosenings(definition(), definition(**changes)) == expected


def test_for_an_error_a_higher_target_is_looser() -> None:
    base = {"task": "tabular-regression"}
    tight = definition(**base, objective={"metric": "mae", "target": 2.0})
    loose = definition(**base, objective={"metric": "mae", "target": 3.0})
    assert loosenings(tight, loose) == ("objective.target",)
    assert loosenings(loose, tight) == ()


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"task": "text-clasification"}, Code.NOT_FOUND, "text-classification"),
        ({"objective": {"metric": "acuracy"}}, Code.NOT_FOUND, "accuracy"),
        ({"objective": {"metric": "mae"}}, Code.INVALID, "measures regression"),
        ({"objective": {"metric": "recall", "target": 0.9}}, Code.INVALID, "positive_label"),
        ({"objective": {"metric": "accuracy", "target": 95}}, Code.INVALID, "0.95, not 95"),
        ({"gates": [{"rule": "at_most", "metric": "p95", "value": 1}]}, Code.NOT_FOUND, "p95_latency_ms"),
        ({"gates": [{"rule": "reaches"}]}, Code.INVALID, "no value"),
        ({"incumbent": "what ever"}, Code.INVALID, "what ever"),
        ({"name": "-x"}, Code.INVALID, "-x"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    workspace: Workspace, changes: dict[str, Any], code: Code, said: str
) -> None:
    error = refusal(workspace, **changes)
    assert error.code == code
    assert said in str(error)
    assert workspace.database.last_seq == 0


def test_a_model_and_a_use_case_cannot_share_a_name(workspace: Workspace) -> None:
    workspace.database.transact(
        lambda tx: tx.execute("INSERT INTO model_versions VALUES ('triage', 1, 'id', '{}', NULL, 0)")
    )
    assert refusal(workspace).code == Code.CONFLICT


def test_an_unknown_use_case_is_refused_with_near_names(workspace: Workspace) -> None:
    defined(workspace)
    with pytest.raises(SpeciateError, match="did you mean 'triage'"):
        get(workspace.database, "triaje")


def test_objective_and_limits_become_gates_that_the_users_own_replace() -> None:
    got = gates_in_force(
        definition(limits={"p95_latency_ms": 50, "offline": True}, gates=[{"rule": "not_worse", "value": 0.01}])
    )
    assert [(gate.rule, gate.metric, gate.value) for gate in got] == [
        ("reaches", None, 0.9),
        ("unseen", None, None),
        ("better_if_dearer", None, None),
        ("at_most", "p95_latency_ms", 50),
        ("offline", None, None),
        ("not_worse", None, 0.01),
    ]
    assert Gate(rule="not_worse", value=0.01) in got


def test_the_incumbent_is_what_serves_else_what_was_named_else_the_constant(workspace: Workspace) -> None:
    named, nothing = defined(workspace).use_case, defined(workspace, name="other", incumbent=None).use_case
    assert incumbent_of(workspace.database, named) == "column:rules"
    assert incumbent_of(workspace.database, nothing) == "constant:"
    put_in_production(workspace)
    assert incumbent_of(workspace.database, named) == "probe@v1"


def test_who_types_a_name_of_scikit_learn_is_told_ours() -> None:
    with pytest.raises(SpeciateError, match="'roc_auc' of scikit-learn is 'auroc' here"):
        find_metric("roc_auc")


def test_a_higher_target_needs_more_test_examples(workspace: Workspace) -> None:
    accuracy = find_metric("accuracy")
    needed = [to_show_target(accuracy, target) or 0 for target in (0.8, 0.9, 0.95, 0.99)]
    assert needed == sorted(needed)
    assert needed[2] == pytest.approx(500, abs=30)
    assert defined(workspace).needed_test_examples == needed[1]
    assert to_show_target(find_metric("mae"), 2.0) is None
    assert to_show_target(accuracy, None) is None


def test_the_examples_for_a_difference_are_those_of_the_note() -> None:
    """sd 0.45 and an effect of 5.6 points: about 500 examples for 80 % power."""
    assert to_show_difference(0.056, discordant=0.45**2 + 0.056**2) == pytest.approx(507, abs=3)


def test_a_suite_that_only_grew_is_as_strict_and_one_that_lost_rows_is_not(workspace: Workspace) -> None:
    """Else every refresh of a suite would wait for a person."""
    parts = {1: [["a", None]], 2: [["a", None], ["b", None]], 3: [["a", "x"], ["b", None]], 4: [["c", None]]}
    for version, files in parts.items():
        listed = [{"file": file, "rows": 5, "removed": removed, "gone": int(bool(removed))} for file, removed in files]
        manifest = {"name": "fresh", "version": version, "id": f"i{version}", "modality": "text", "columns": {}}
        manifest |= {"parts": listed, "rows": 5 * len(files)}
        workspace.database.transact(
            lambda tx, version=version, manifest=manifest: tx.execute(  # type: ignore[misc]  # bound now
                "INSERT INTO dataset_versions VALUES ('fresh', ?, ?, ?, ?, '[]', '{}', '{}', NULL, 0)",
                [version, f"i{version}", b"", json.dumps(manifest)],
            )
        )
    wanted = Definition(name="t", task="text-classification", objective=Objective(metric="accuracy"))

    def loosened(old: str, new: str) -> tuple[str, ...]:
        before, after = (wanted.model_copy(update={"suites": Suites(heldout=each)}) for each in (old, new))
        return loosenings(before, after, workspace.database)

    assert loosened("fresh@v1:test", "fresh@v2:test") == ()
    for new in ("fresh@v3:test", "fresh@v4:test", "fresh@v2:train", "other@v2:test", "fresh:test"):
        assert loosened("fresh@v1:test", new) == ("suites.heldout",)
    assert loosened("fresh@v2:test", "fresh@v1:test") == ("suites.heldout",)
