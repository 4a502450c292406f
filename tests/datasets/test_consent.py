"""Examples leave only for hosts that a person allowed, for as long, and for as much money."""

from __future__ import annotations

import json

import pytest

from speciate.datasets import consent
from speciate.errors import Code, SpeciateError
from speciate.jobs import allowances
from speciate.jobs.egress import Departure, NotAllowed
from speciate.settings import Place, Settings
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock

HOST = "api.openai.com"
_DATASET = "INSERT INTO dataset_versions VALUES (?, ?, 'id', '', '{}', ?, ?, '{}', NULL, 0)"


def a_version(
    workspace: Workspace, name: str, number: int, *parents: str, deleted: dict[str, list[str]] | None = None
) -> None:
    left = {ref: {"parents": theirs, "manifest": {}, "operation": {}} for ref, theirs in (deleted or {}).items()}
    operation = {"op": "x"} | ({"deleted": left} if left else {})
    workspace.database.transact(
        lambda tx: tx.execute(_DATASET, [name, number, json.dumps(parents), json.dumps(operation)])
    )


def a_grant(
    workspace: Workspace, dataset: str, usd: float = 5.0, expires: float | None = None, host: str = HOST
) -> None:
    row = [dataset, host, usd, workspace.clock.now(), expires, "grace"]
    workspace.database.transact(lambda tx: tx.execute("INSERT OR REPLACE INTO consents VALUES (?, ?, ?, ?, ?, ?)", row))


def spend(workspace: Workspace, usd: float, job: str, host: str = HOST) -> None:
    workspace.database.transact(lambda tx: allowances.record(tx, "lesions", host, usd, job))


def refusal(workspace: Workspace, dataset: str = "lesions", host: str = HOST) -> SpeciateError:
    with pytest.raises(SpeciateError) as caught:
        consent.check(workspace.database, dataset, host)
    assert caught.value.code is Code.REFUSED
    return caught.value


def test_without_a_persons_word_nothing_leaves(workspace: Workspace) -> None:
    a_grant(workspace, "other")
    a_grant(workspace, "lesions", host="api.mistral.ai")
    message = refusal(workspace)
    assert message.message == "No example of 'lesions' may be sent to api.openai.com: no person allowed it."
    assert message.recovery.endswith("speciate allow lesions --host api.openai.com --usd CAP")


def test_later_spending_counts_once_for_each_job(workspace: Workspace, clock: ManualClock) -> None:
    spend(workspace, 100.0, "job-before")
    clock.advance(1)
    a_grant(workspace, "lesions")
    for usd, job in ((1.0, "job-a"), (1.5, "job-a"), (1.0, "job-a"), (2.0, "job-b")):
        spend(workspace, usd, job)
    spend(workspace, 70.0, "job-c", "api.mistral.ai")
    found = consent.check(workspace.database, "lesions@v3", HOST)
    assert (found.usd_cap, found.spent_usd, found.left_usd, found.by) == (5.0, 3.5, 1.5, "grace")
    spend(workspace, 1.5, "job-d")
    assert "the 5 USD allowed for it are spent (5.00)" in refusal(workspace).message


def test_what_is_left_is_never_below_nothing_and_a_spent_sum_names_the_command(workspace: Workspace) -> None:
    a_grant(workspace, "lesions", 2.0)
    spend(workspace, 1.5, "job-a")
    assert consent.check(workspace.database, "lesions", HOST).left_usd == 0.5
    spend(workspace, 2.5, "job-a")
    found = consent.find(workspace.database, "lesions", HOST)
    assert found is not None
    assert (found.spent_usd, found.left_usd) == (2.5, 0.0)
    assert refusal(workspace).recovery == (
        "A person decides, on a terminal: speciate allow lesions --host api.openai.com --usd CAP"
    )
    assert consent.find(workspace.database, "lesions", "api.mistral.ai") is None


def test_a_consent_ends_when_its_time_is_over(workspace: Workspace, clock: ManualClock) -> None:
    a_grant(workspace, "lesions", expires=clock.now() + 10)
    assert consent.check(workspace.database, "lesions", HOST).expires == clock.now() + 10
    clock.advance(10)
    assert "the time for which grace allowed it is over" in refusal(workspace).message
    assert [each.dataset for each in consent.list_consents(workspace.database)] == ["lesions"]


def test_a_transaction_may_ask_too(workspace: Workspace) -> None:
    a_grant(workspace, "lesions")
    found = workspace.database.transact(lambda tx: consent.check(tx, "lesions", HOST))
    assert found == consent.check(workspace.database, "lesions", HOST)


def test_rows_of_another_dataset_leave_only_where_that_one_may(workspace: Workspace) -> None:
    a_version(workspace, "private", 1)
    a_version(workspace, "public", 1)
    a_version(workspace, "public", 2, "public@v1", "private@v1")
    a_version(workspace, "public", 3, "public@v2")
    a_grant(workspace, "public")
    for ref in ("public", "public@v2", "public@v3"):
        message = refusal(workspace, ref)
        assert message.message == (
            "No example of 'private' may be sent to api.openai.com: "
            "no person allowed it (rows of 'public' came from it)."
        )
    assert consent.check(workspace.database, "public@v1", HOST).dataset == "public"
    a_grant(workspace, "private")
    assert consent.check(workspace.database, "public", HOST).dataset == "public"


def test_rows_of_a_deleted_version_are_remembered(workspace: Workspace) -> None:
    gone = {"public@v1": ["private@v7"], "private@v7": []}
    a_version(workspace, "public", 2, "public@v1", deleted=gone)
    a_grant(workspace, "public")
    assert "'private'" in refusal(workspace, "public@v2").message


def test_every_branch_of_where_rows_came_from_counts_and_nothing_beside(workspace: Workspace) -> None:
    for name in ("first", "second", "third", "fourth", "secret"):
        a_version(workspace, name, 1)
    a_version(workspace, "left", 1, "first@v1", "second@v1")
    a_version(workspace, "right", 1, "third@v1")
    a_version(workspace, "beside", 1, "secret@v1")
    a_version(workspace, "all", 1)
    a_version(workspace, "all", 2, "left@v1", "fourth@v1", "right@v1")
    sources = ["first", "fourth", "left", "right", "second", "third"]
    for ref in ("all", "all@v2"):
        found = consent.departures(workspace.database, [ref], HOST)
        assert [(each.dataset, each.of) for each in found] == [("all", None), *((name, "all") for name in sources)]
        assert {(each.host, each.place) for each in found} == {(HOST, None)}
    assert [each.dataset for each in consent.departures(workspace.database, ["all@v1"], HOST)] == ["all"]


def test_datasets_that_leave_together_are_each_named_once(workspace: Workspace) -> None:
    a_version(workspace, "private", 1)
    a_version(workspace, "public", 1, "private@v1")
    a_version(workspace, "other", 1, "private@v1", "public@v1")
    found = consent.departures(workspace.database, ["public@v1", "other", "public"], "/depot", "lab")
    assert found == (
        Departure(dataset="public", host="/depot", place="lab"),
        Departure(dataset="other", host="/depot", place="lab"),
        Departure(dataset="private", host="/depot", place="lab", of="public"),
    )


def test_a_place_gets_what_was_allowed_for_its_depot(workspace: Workspace) -> None:
    place = Place(kind="slurm", depot="/shared/depot", python="/bin/python")
    workspace.settings = Settings(executors={"lab": place})
    a_version(workspace, "private", 1)
    a_version(workspace, "public", 1, "private@v1")
    a_grant(workspace, "public", 0.0, host="/shared/depot")
    with pytest.raises(NotAllowed) as caught:
        consent.check_place(workspace, ["public@v1"], "lab")
    assert caught.value.message == (
        "No example of 'private' may be sent to lab: no person allowed it (rows of 'public' came from it)."
    )
    assert caught.value.recovery == "A person decides, on a terminal: speciate allow private --host lab"
    a_grant(workspace, "private", 0.0, host="/shared/depot")
    assert consent.check_place(workspace, ["public@v1"], "lab") == (
        Departure(dataset="public", host="/shared/depot", place="lab"),
        Departure(dataset="private", host="/shared/depot", place="lab", of="public"),
    )
    with pytest.raises(SpeciateError, match="no place 'elsewhere'"):
        consent.check_place(workspace, ["public"], "elsewhere")


def ends(workspace: Workspace) -> dict[str, float | None]:
    return {each.dataset: each.expires for each in consent.list_consents(workspace.database)}


def test_what_is_over_by_the_clock_or_by_the_time_that_passed_ends_for_good(
    workspace: Workspace, clock: ManualClock
) -> None:
    began = clock.now()
    a_grant(workspace, "open")
    a_grant(workspace, "short", expires=began + 10)
    a_grant(workspace, "long", expires=began + 100)
    a_grant(workspace, "over", expires=began)
    as_given = {"open": None, "short": began + 10, "long": began + 100, "over": began}

    def passed(at: float) -> float:
        assert at == began
        return seconds

    clock.advance(9)
    seconds = 9.0
    commits = workspace.database.commits
    consent.end_those_over(workspace.database, passed)
    assert (ends(workspace), workspace.database.commits) == (as_given, commits), "nothing is written for nothing"
    seconds = 10.0  # the clock was set back by a second
    consent.end_those_over(workspace.database, passed)
    assert ends(workspace) == {**as_given, "short": began}
    commits = workspace.database.commits
    consent.end_those_over(workspace.database, passed)
    assert workspace.database.commits == commits, "it has ended already"
    clock.advance(91)
    seconds = 20.0  # this process knows of fewer
    consent.end_those_over(workspace.database, passed)
    assert ends(workspace) == {**as_given, "short": began, "long": began}
