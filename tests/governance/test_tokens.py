"""Tokens of a team: issued by a person, kept as a hash, in force by the trail alone, and over when they are over."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate import use_cases
from speciate.errors import SpeciateError
from speciate.governance import approval_keys, audit, authorization, tokens
from speciate.governance.authorization import Authority
from speciate.governance.tokens import NewToken
from speciate.use_cases import Definition, Objective
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.governance.people import Signer, ask, do, enroll, forget, perform

ANN = Signer("ann")
DAY = 86_400.0


def wanted(name: str = "bob", role: str = "viewer", days: float = 30.0) -> tuple[NewToken, dict[str, object]]:
    made = tokens.make()
    return made, {"name": name, "role": role, "days": days, "id": made.id, "digest": made.digest}


def authority(workspace: Workspace) -> Authority:
    return authorization.authority_of(workspace)


def test_a_token_is_found_by_its_secret_alone_and_nothing_has_the_secret(workspace: Workspace) -> None:
    made, request = wanted(role="labeller")
    perform(workspace, "token create", **request)
    found = authority(workspace).find_token(made.secret)
    assert found is not None
    assert (found.id, found.name, found.role) == (made.id, "bob", "labeller")
    for near in (made.secret[:-1], made.secret + "x", made.secret.upper(), made.digest, made.id, "", "speciate_"):
        assert authority(workspace).find_token(near) is None
    told = json.dumps([perform(workspace, "tokens"), [row._asdict() for row in audit.all_rows(workspace.database)]])
    assert made.secret not in told
    assert made.secret[-43:] not in told
    assert audit.verify(workspace.database).problems == ()


@given(st.text(max_size=200))
def test_whatever_is_sent_as_a_token_is_no_error(text: str) -> None:
    made = tokens.make()
    known = {made.id: tokens.Token(made.id, "bob", "viewer", made.digest, 0.0, 1.0)}
    assert tokens.find(known, text) is None
    assert tokens.find(known, f"speciate_{made.id}_{text}") is None


def test_it_ends_with_its_days_and_a_clock_that_goes_back_does_not_revive_it(
    workspace: Workspace, clock: ManualClock
) -> None:
    made, request = wanted(days=2.0)
    perform(workspace, "token create", **request)
    clock.advance(2 * DAY - 60)
    assert authority(workspace).find_token(made.secret) is not None
    clock.advance(61)
    assert authority(workspace).find_token(made.secret) is None
    assert authority(workspace).tokens() == []
    clock.jump(-DAY)
    assert authority(workspace).find_token(made.secret) is None


def test_a_revoked_token_is_over_also_for_the_next_daemon(workspace: Workspace) -> None:
    made, request = wanted()
    perform(workspace, "token create", **request)
    perform(workspace, "token revoke", name="bob")
    assert authority(workspace).find_token(made.secret) is None
    forget(workspace)
    assert authority(workspace).find_token(made.secret) is None
    with pytest.raises(SpeciateError, match="There is no token 'bob'"):
        perform(workspace, "token revoke", name="bob")
    again, request = wanted()
    perform(workspace, "token create", **request)
    assert authority(workspace).find_token(again.secret) is not None
    assert authority(workspace).find_token(made.secret) is None


@pytest.mark.parametrize(
    "changed",
    [{"role": "root"}, {"days": 0}, {"days": 400}, {"name": "<b>bob"}, {"name": "bob (web)"}, {"digest": "x"},
     {"id": "1"}, {"name": "../x"}],
)  # fmt: skip
def test_what_is_no_token_is_refused(workspace: Workspace, changed: dict[str, object]) -> None:
    with pytest.raises(SpeciateError):
        perform(workspace, "token create", **(wanted()[1] | changed))
    assert authority(workspace).tokens() == []


def test_where_a_key_is_enrolled_a_person_signs_each_token(workspace: Workspace) -> None:
    enroll(workspace, ANN)
    made, request = wanted(role="admin")
    with pytest.raises(SpeciateError, match="signature"):
        perform(workspace, "token create", **request)
    asked = ask(workspace, "token create", **request)
    with pytest.raises(SpeciateError, match="not what would be decided"):
        perform(workspace, "token create", **(request | {"role": "viewer"}), signed=ANN.answer(asked))
    do(workspace, ANN, "token create", **request)
    forget(workspace)
    assert authority(workspace).find_token(made.secret) is not None
    assert authority(workspace).problems == ()
    forget(workspace)


def scoped(workspace: Workspace, *names: str, role: str = "approver") -> tuple[NewToken, dict[str, object]]:
    for name in ("digits", "films"):
        definition = Definition(name=name, task="image-classification", objective=Objective(metric="accuracy"))
        workspace.database.transact(lambda tx, told=definition: use_cases.define(tx, told, policy="auto"))
    made, request = wanted(role=role)
    return made, {**request, "use_cases": list(names)}


def test_a_token_may_be_for_some_use_cases_alone_and_a_person_signs_which(workspace: Workspace) -> None:
    enroll(workspace, ANN)
    made, request = scoped(workspace, "digits")
    asked = ask(workspace, "token create", **request)
    assert asked["question"]["arguments"]["use_cases"] == ["digits"]
    for wider in ([], ["digits", "films"]):
        asked = ask(workspace, "token create", **request)
        with pytest.raises(SpeciateError, match="not what would be decided"):
            perform(workspace, "token create", **(request | {"use_cases": wider}), signed=ANN.answer(asked))
    do(workspace, ANN, "token create", **request)
    forget(workspace)  # what is in force follows from the rows
    found = authority(workspace).find_token(made.secret)
    assert found is not None
    assert (found.covers("digits"), found.covers("films"), found.covers(None)) == (True, False, False)
    assert authority(workspace).problems == ()
    forget(workspace)


@pytest.mark.parametrize("role", ["viewer", "admin"])
def test_a_role_of_the_whole_workspace_is_not_for_some_use_cases(workspace: Workspace, role: str) -> None:
    _, request = scoped(workspace, "digits", role=role)
    with pytest.raises(SpeciateError, match="is for the whole workspace"):
        perform(workspace, "token create", **request)


def test_a_token_is_for_use_cases_that_there_are(workspace: Workspace) -> None:
    _, request = scoped(workspace, "digitz")
    with pytest.raises(SpeciateError, match="digitz"):
        perform(workspace, "token create", **request)


@pytest.mark.parametrize("use_cases", [[], "digits", [1], ["../x"], {"digits": 1}])
def test_a_row_with_an_odd_scope_issues_no_token(workspace: Workspace, use_cases: object) -> None:
    """Rather than one for the whole workspace."""
    _, request = scoped(workspace, "digits")
    row = tokens.create(workspace, request | {"use_cases": use_cases}, "ann", {})
    with pytest.raises((ValueError, SpeciateError)):
        tokens.of_row(row, approval_keys.evidence_of(row))


def test_tokens_from_before_the_first_key_end_with_it(workspace: Workspace) -> None:
    """A program could have issued them."""
    made, request = wanted(role="admin")
    perform(workspace, "token create", **request)
    enroll(workspace, ANN)
    assert authority(workspace).find_token(made.secret) is None
    forget(workspace)
    assert authority(workspace).find_token(made.secret) is None
    forget(workspace)


def test_a_row_that_somebody_wrote_issues_nothing(workspace: Workspace) -> None:
    enroll(workspace, ANN)
    made, request = wanted(role="admin")
    tokens.create(workspace, request, "ann", {})
    forget(workspace)
    assert authority(workspace).find_token(made.secret) is None
    assert any("token_create" in each and "no person signed" in each for each in authority(workspace).problems)
    forget(workspace)


def test_a_signature_for_one_token_is_not_one_for_another(workspace: Workspace) -> None:
    """Written into the catalog with a true signature beside it."""
    enroll(workspace, ANN)
    _, request = wanted(name="bob", role="viewer")
    asked = ask(workspace, "token create", **request)
    signed = authority(workspace).check(_question(asked), ANN.answer(asked))
    assert signed is not None
    other, forged = wanted(name="eve", role="admin")
    tokens.create(workspace, forged, "ann", {"signed": signed.model_dump()})
    forget(workspace)
    assert authority(workspace).find_token(other.secret) is None
    assert any("does not say what was signed" in each for each in authority(workspace).problems)
    forget(workspace)


def _question(asked: dict[str, object]) -> authorization.Question:
    told = asked["question"]
    assert isinstance(told, dict)
    return authorization.Question(**told)
