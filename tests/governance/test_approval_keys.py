"""A workspace whose people sign: honest decisions have no problems, and each way to forge the catalog is found."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from speciate.cli import confirmation
from speciate.errors import SpeciateError
from speciate.governance import approvals, audit, audit_heads, audit_verification, authorization
from speciate.governance.approval_signatures import Question
from speciate.loop.verification import inventory
from speciate.server.roots import check_readable
from speciate.settings import load
from speciate.workspace.backup import back_up, save_catalog
from speciate.workspace.database import Transaction
from speciate.workspace.rebuild import rebuild_catalog
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.governance.people import Signer, ask, do, enroll, forget, perform
from tests.promotion import world
from tests.server.apps import make_app

ANN, BOB, EVE = Signer("ann"), Signer("bob"), Signer("eve")
HOST = "127.0.0.1:8000"


@pytest.fixture(autouse=True)
def _config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def head_of(workspace: Workspace) -> Path:
    return audit_heads.outside_head_path(workspace.identity, workspace.folders.root)


def problems(workspace: Workspace) -> list[str]:
    """As `speciate audit verify` of the next daemon finds them."""
    forget(workspace)
    return list(perform(workspace, "audit")["problems"])


def asked(workspace: Workspace, model: str, version: int = 1) -> str:
    """A promotion that waits for a person; its id."""
    world.judge(workspace, model, version=version)
    world.ask_promotion(workspace, model, policy="person")
    now = workspace.clock.now()
    return next(
        each.id for each in approvals.list_approvals(workspace.database, now) if each.arguments["model"] == model
    )


def decide(workspace: Workspace, signer: Signer, action: str, id: str) -> dict[str, Any]:  # noqa: A002
    shown = ask(workspace, action, id=id)
    signed = signer.answer(shown)
    return perform(workspace, action, id=id, hash=shown["question"]["shown"]["hash"], signed=signed)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a workspace and the config folder beside it, made once and copied for each test: two keys, a host,
    a promotion, a denial and a policy."""
    folder = tmp_path_factory.mktemp("signed")
    root = folder / "workspace"
    root.mkdir()
    (root / "settings.toml").write_text('policy = "auto"\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        workspace = Workspace(root, clock=ManualClock())
        authorization.authority_of(workspace).listen()
        audit_heads.keep_heads(workspace)
        enroll(workspace, ANN)
        enroll(workspace, BOB, by=ANN)
        do(workspace, BOB, "host", add=True, host=HOST)
        workspace.settings = load(root)  # as the next daemon would read it
        world.define(workspace)
        assert decide(workspace, ANN, "approve", asked(workspace, "m@v1"))["state"] == "approved"
        world.judge(workspace, "m@v2", baseline="m@v1")
        world.ask_promotion(workspace, "m@v2", policy="person")
        pending = approvals.list_approvals(workspace.database, workspace.clock.now(), "pending")[0].id
        assert decide(workspace, BOB, "deny", pending)["state"] == "denied"
        do(workspace, ANN, "policy", policy="person", use_case="digits")
        head = head_of(workspace)
        workspace.close()
        head.rename(folder / "head")
    return folder


@pytest.fixture
def trail(built: Path, tmp_path: Path, clock: ManualClock) -> Iterator[Workspace]:
    for name in ("workspace", "config"):
        shutil.copytree(built / name, tmp_path / name, dirs_exist_ok=True)
    workspace = Workspace(tmp_path / "workspace", clock=clock)
    head = json.loads((built / "head").read_text()) | {"workspace": str(workspace.folders.root.resolve())}
    head_of(workspace).write_text(json.dumps(head))
    authorization.authority_of(workspace).listen()
    audit_heads.keep_heads(workspace)
    yield workspace
    if not workspace.database.closed:
        workspace.close()


def test_what_people_signed_has_no_problems(trail: Workspace) -> None:
    told = perform(trail, "audit")
    assert told["problems"] == ()
    rows = audit.all_rows(trail.database)
    assert [row.action for row in rows] == [
        "key_enroll", "key_enroll", "private_hosts", "promote", "approve", "deny", "policies",
    ]  # fmt: skip
    assert told["signed"] == 6, "all but the promotion, which the approval after it vouches for"
    assert problems(trail) == []


def test_a_row_says_who_by_the_kernel_and_keeps_a_claimed_name_as_a_note(trail: Workspace) -> None:
    perform(
        trail, "host", add=False, host=HOST, by="The Board", signed=ANN.answer(ask(trail, "host", add=False, host=HOST))
    )
    row = audit.newest(trail.database, most=1)[0]
    evidence = json.loads(row.evidence)
    assert (row.actor, evidence["claimed"], evidence["signed"]["name"]) == ("root", "The Board", "ann")


def rehash(tx: Transaction) -> None:
    """As somebody would who may write to the catalog: every hash, and what the events say of them, is computed anew."""
    previous, renamed = audit.GENESIS, {}
    for row in [audit.Row(*each) for each in tx.execute("SELECT * FROM audit ORDER BY seq")]:
        made = row._replace(previous_hash=previous, hash="")
        previous = audit.digest(made)
        renamed[row.hash] = previous
        tx.execute(
            "UPDATE audit SET previous_hash = ?, hash = ? WHERE seq = ?", [made.previous_hash, previous, row.seq]
        )
    for seq, data in tx.execute("SELECT seq, data FROM events"):
        text = data
        for old, new in renamed.items():
            text = text.replace(old, new)
        tx.execute("UPDATE events SET data = ? WHERE seq = ?", [text, seq])


def edit(sql: str) -> Callable[[Transaction], None]:
    def change(tx: Transaction) -> None:
        tx.execute(sql)
        rehash(tx)

    return change


def replace_a_key(tx: Transaction) -> None:
    """In the table and in the row that enrolled it, where it signs itself: whole again, but for the heads outside."""
    tx.execute(
        "UPDATE approval_keys SET public = ?, fingerprint = ? WHERE name = 'ann'", [EVE.key.public, EVE.key.fingerprint]
    )


def enter_a_key(tx: Transaction) -> None:
    tx.execute(
        "INSERT INTO approval_keys VALUES (?, 'eve', 'sealed', ?, 1.0, NULL)", [EVE.key.fingerprint, EVE.key.public]
    )


def enter_a_row(action: str, after: str, evidence: dict[str, Any]) -> Callable[[Transaction], None]:
    def add(tx: Transaction) -> None:
        row = audit.append_row(
            tx, actor="root", action=action, use_case="*", before=None, after=after, evidence=evidence
        )
        tx.event("workspace:policy", "policy.changed", {"audit": row.hash})

    return add


def repeat_a_row(tx: Transaction) -> None:
    """The signed row of the host once more, at the end."""
    (evidence,) = tx.execute("SELECT evidence FROM audit WHERE action = 'private_hosts'")[0]
    enter_a_row("private_hosts", HOST, json.loads(evidence))(tx)


def cut(tx: Transaction) -> None:
    tx.execute("DELETE FROM events WHERE data LIKE '%' || (SELECT hash FROM audit ORDER BY seq DESC LIMIT 1) || '%'")
    tx.execute("DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)")


def cut_the_row(tx: Transaction) -> None:
    """The event stays, so that the catalog can be opened."""
    tx.execute("DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)")


def approve_in_the_table(tx: Transaction) -> None:
    tx.execute("UPDATE approvals SET state = 'approved', decided_by = 'ann' WHERE state = 'denied'")
    tx.execute(
        "INSERT INTO approvals SELECT 'approval-slipped', * EXCLUDE (id) FROM approvals "
        "WHERE state = 'approved' LIMIT 1"
    )


_OTHER = "does not say what was signed"
FORGERIES: dict[str, tuple[Callable[[Transaction], None], str]] = {
    "another policy": (edit("UPDATE audit SET after = 'digits: auto' WHERE action = 'policies'"), _OTHER),
    "another model in an approved promotion": (
        edit("UPDATE audit SET after = 'evil@v9' WHERE action = 'promote'"), "is not what was approved",
    ),
    "a share that is no number": (
        edit("UPDATE audit SET evidence = json_merge_patch(evidence, '{\"percent\": \"x\"}') WHERE action = 'promote'"),
        "row 4 is not what was approved",
    ),
    "evidence that no reader can follow": (
        edit(f"UPDATE audit SET evidence = '{'[' * 100_000}' WHERE action = 'policies'"), "no person signed this",
    ),
    "evidence that is no JSON": (edit("UPDATE audit SET evidence = 'x' WHERE action = 'deny'"), "row 6 (deny)"),
    "a key that is none": (
        edit("UPDATE audit SET evidence = json_merge_patch(evidence, '{\"public\": 7}') WHERE seq = 2"),
        "row 2 (key_enroll): ",
    ),
    "a consent that names no dataset": (
        enter_a_row("allow", "x", {"dataset": [], "host": {}, "signed": [1]}), "row 8 (allow): its signature",
    ),
    "another host": (edit("UPDATE audit SET after = 'evil.example' WHERE action = 'private_hosts'"), _OTHER),
    "a denial turned into an approval": (
        edit("UPDATE audit SET action = 'approve', after = 'approved' WHERE action = 'deny'"), _OTHER,
    ),
    "a signature of something else": (
        edit("UPDATE audit SET evidence = replace(evidence, 'digits', 'x') WHERE action = 'policies'"), "does not hold",
    ),
    "no signature any more": (
        edit("UPDATE audit SET evidence = '{}' WHERE action = 'policies'"), "no person signed this",
    ),
    "another actor, before what was signed": (
        edit("UPDATE audit SET actor = 'eve' WHERE action = 'promote'"), "the rows before it are not those",
    ),
    "a key replaced in the table": (replace_a_key, "is in the catalog, and no row enrolled it"),
    "a key entered in the table": (enter_a_key, "is in the catalog, and no row enrolled it"),
    "an unsigned row": (enter_a_row("policy", "auto", {}), "no person signed this"),
    "an unsigned override": (enter_a_row("promote", "m@v3", {"override": "why not"}), "no person signed this"),
    "a signed row once more": (repeat_a_row, "its signature was used before"),
    "an unsigned enrollment": (
        enter_a_row("key_enroll", EVE.key.fingerprint, EVE.enrollment), "no person signed this",
    ),
    "the end cut off": (cut, "were known outside the workspace"),
    "an approval answered in its table": (approve_in_the_table, "approval-slipped is approved in the catalog"),
    "a consent entered in its table": (
        lambda tx: tx.execute("INSERT INTO consents VALUES ('d', 'evil.example', 9.0, 1.0, NULL, 'ann')") and None,
        "the consent for d to evil.example is not what the trail says",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
def test_whoever_writes_to_the_catalog_is_found(trail: Workspace, name: str) -> None:
    forge, said = FORGERIES[name]
    (trail.folders.root / audit_heads.NAME).unlink()  # the head inside the workspace is as easy to forge
    trail.database.transact(forge)
    found = problems(trail)
    assert any(said in problem for problem in found), found


@pytest.mark.parametrize("percent", [5.0, "x", [], None, pytest.param(10**400, id="huge")])
def test_a_signed_row_whose_share_is_no_number_is_named_and_the_daemon_starts(trail: Workspace, percent: Any) -> None:
    arguments = {"use_case": "digits", "model": "m@v4", "canary_percent": 5, "reason": "why not"}
    question = Question("override", "override", arguments, {"model": "m@v4", "serving": "m@v1", "objections": ["x"]})
    held = authorization.authority_of(trail)
    signed = held.check(question, ANN.answer(held.ask(question).document()))
    assert signed is not None
    told = {"percent": percent, "override": "why not", "overridden": ["x"], "signed": signed.model_dump()}

    def add(tx: Transaction) -> None:
        row = audit.append_row(
            tx, actor="root", action=audit.CANARY, use_case="digits", before=None, after="m@v4", evidence=told
        )
        tx.event("workspace:policy", "policy.changed", {"audit": row.hash})

    trail.database.transact(add)
    found = problems(trail)
    said = any("row 8 (canary): it does not say what was signed" in each for each in found)
    assert said is (percent != 5.0), found


def test_a_trail_that_was_made_anew_with_another_key_is_found_and_nobody_signs_in_it(trail: Workspace) -> None:
    """All of it is honest but for one thing: it is not the trail that was."""

    def begin(tx: Transaction) -> None:
        for table in ("audit", "events", "approval_keys", "approvals"):
            tx.execute(f"DELETE FROM {table}")

    kept = head_of(trail).read_bytes()
    (trail.folders.root / audit_heads.NAME).unlink()
    trail.database.transact(begin)
    head_of(trail).unlink()
    forget(trail)
    for signer in (EVE, BOB, ANN):
        enroll(trail, signer, by=EVE)
    trail.database.transact(lambda tx: tx.execute("DELETE FROM aliases"))
    head_of(trail).write_bytes(kept)
    found = problems(trail)
    assert any("known outside the workspace" in problem for problem in found), found
    with pytest.raises(Exception, match="is not enrolled here"):
        do(trail, EVE, "policy", policy="auto", use_case=None)


def test_a_catalog_without_its_keys_lets_nobody_approve(trail: Workspace) -> None:
    def begin(tx: Transaction) -> None:
        for table in ("audit", "events", "approval_keys"):
            tx.execute(f"DELETE FROM {table}")

    trail.database.transact(begin)
    forget(trail)
    with pytest.raises(Exception, match="nobody can approve anything") as caught:
        perform(trail, "policy", policy="auto", by="ann")
    assert "audit verify" in str(caught.value)


def test_an_older_catalog_that_was_put_back_is_found_until_a_person_goes_on_from_it(trail: Workspace) -> None:
    """A backup brings keys and trail back; what came after it is missing, and that is said."""
    root, clock = trail.folders.root, trail.clock
    save_catalog(trail.database, trail.folders.backups, clock.now())
    do(trail, ANN, "host", add=True, host="127.0.0.1:9")
    do(trail, ANN, "host", add=True, host="127.0.0.1:10")
    trail.close()
    (root / "catalog.duckdb").write_bytes(b"garbage" * 1000)
    (root / "catalog.duckdb.wal").unlink(missing_ok=True)
    assert rebuild_catalog(root).rows["approval_keys"] == 2
    again = Workspace(root, clock=clock)
    found = problems(again)
    assert any("the trail ends at row 7, and 2 more were known outside the workspace" in each for each in found), found
    authorization.authority_of(again).listen()
    do(again, BOB, "host", add=False, host=HOST)
    assert any("known outside the workspace" in each for each in problems(again)), "new rows do not hide it"
    authorization.authority_of(again).listen()
    do(again, BOB, "accept")
    assert [each for each in problems(again) if "outside the workspace" in each] == []
    assert "accept" in [row.action for row in audit.all_rows(again.database)]
    again.close()


def without_its_last_row(trail: Workspace) -> tuple[Workspace, audit.Row]:
    """The catalog rebuilt from a backup that is one row older, and that row."""
    root, clock = trail.folders.root, trail.clock
    save_catalog(trail.database, trail.folders.backups, clock.now())
    enroll(trail, EVE, by=ANN)
    lost = audit.newest(trail.database, most=1)[0]
    trail.close()
    (root / "catalog.duckdb").write_bytes(b"garbage" * 1000)
    (root / "catalog.duckdb.wal").unlink(missing_ok=True)
    rebuild_catalog(root)
    again = Workspace(root, clock=clock)
    audit_heads.keep_heads(again)
    return again, lost


@pytest.mark.parametrize("rows_since", [0, 1])
def test_heads_in_the_workspace_are_settled_by_who_accepts(trail: Workspace, rows_since: int) -> None:
    """A lost row's number is given out again; its line stays in the file, as a comment, and later losses are found."""
    again, lost = without_its_last_row(trail)
    path = again.folders.root / audit_heads.NAME
    before = path.read_text().splitlines()
    assert f"{lost.seq} {lost.hash}" in before
    found = problems(again)
    assert any(f"row {lost.seq} is missing" in each and "speciate audit accept" in each for each in found), found
    for _ in range(rows_since):
        do(again, BOB, "host", add=False, host=HOST)
        again.settings = load(again.folders.root)
    do(again, ANN, "accept")
    told = json.loads(audit.newest(again.database, most=1)[0].evidence)["problems"]
    assert any(f"row {lost.seq} is" in each for each in told), "what was accepted is in the row"
    again.database.checkpoint()
    assert problems(again) == []
    assert inventory(again).catalog == ()
    kept = path.read_text()
    assert f"was accepted: {lost.seq} {lost.hash}\n" in kept
    assert {*before} - {*kept.splitlines()} == {f"{lost.seq} {lost.hash}"}, "the other lines are as they were"
    again.database.transact(cut_the_row)
    assert any("longer once" in each for each in problems(again))
    again.close()


def test_heads_that_could_not_be_settled_are_settled_by_accepting_again(
    trail: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    again, _ = without_its_last_row(trail)

    def full(*given: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(audit_heads, "write_whole", full)
        with pytest.raises((OSError, SpeciateError)):
            do(again, ANN, "accept")
    assert problems(again) != []
    do(again, ANN, "accept")
    assert problems(again) == []
    again.close()


@pytest.mark.parametrize("accepted", [True, False])
def test_the_head_of_who_accepts_goes_along_where_the_daemon_is_another_users(
    trail: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, accepted: bool
) -> None:
    """Each has a config folder of their own. Without the acceptance a head that does not fit stays: it is evidence."""
    root = trail.folders.root
    told = {"status": {"identity": trail.identity, "workspace": str(root)}}

    def control(arguments: argparse.Namespace, action: str, *, start: bool = False, **request: Any) -> dict[str, Any]:
        return told.get(action) or perform(trail, action, **request)

    monkeypatch.setattr(confirmation, "ask_daemon", control)
    forget(trail)
    authorization.authority_of(trail)  # with the daemon's head; its folder is no more looked at below
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "ann"))
    audit_heads.write_outside_head(
        trail.identity, audit_heads.Head(99, "f" * 64, (ANN.key.fingerprint,), str(root.resolve()))
    )
    real, calls = audit_heads.read_outside_head, list[Path]()

    def read(identity: str, workspace: Path) -> audit_heads.Head | None:
        calls.append(workspace)
        return real(identity, workspace) if len(calls) == 1 else None  # the second one is the daemon's

    monkeypatch.setattr(audit_heads, "read_outside_head", read)
    confirmation.keep_head(argparse.Namespace(), accepted=accepted)
    assert len(calls) == 2
    head = real(trail.identity, root)
    assert head is not None
    assert head.row == (7 if accepted else 99)


def test_settings_that_were_changed_by_hand_say_who_confirms_them(trail: Workspace, tmp_path: Path) -> None:
    """Of a root in the file the refusal says that a person must confirm it, and not to write it there."""
    (tmp_path / "data").mkdir()
    file = trail.folders.root / "settings.toml"
    file.write_text(f'roots = ["{tmp_path / "data"}"]\n' + (file.read_text() if file.exists() else ""))
    for restarted in (False, True):
        if restarted:
            forget(trail)
            trail.settings = load(trail.folders.root)
            [problem] = [
                each for each in authorization.authority_of(trail).problems if each.startswith("roots in settings.toml")
            ]
            assert "speciate policy --confirm" in problem
            assert "speciate stop" in problem
            trail.settings = authorization.authority_of(trail).settings()
        with pytest.raises(SpeciateError, match="was not confirmed") as caught:
            check_readable(make_app(trail), tmp_path / "data")
        assert "speciate policy --confirm" in caught.value.recovery
    do(trail, ANN, "settings")
    forget(trail)
    trail.settings = load(trail.folders.root)
    trail.settings = authorization.authority_of(trail).settings()
    assert check_readable(make_app(trail), tmp_path / "data") == tmp_path / "data"


def test_a_copy_of_the_workspace_has_its_keys_and_asks_for_their_signature(trail: Workspace, tmp_path: Path) -> None:
    back_up(trail, tmp_path / "copy")
    copy = Workspace(tmp_path / "copy", clock=trail.clock)
    assert problems(copy) == []
    with pytest.raises(Exception, match="needs the signature"):
        perform(copy, "policy", policy="auto")
    copy.close()


def test_a_copy_and_its_original_have_heads_of_their_own(trail: Workspace, tmp_path: Path) -> None:
    """A drill: the copy's decisions are no news to the original, and the original's none to the copy."""
    back_up(trail, tmp_path / "copy")
    do(trail, ANN, "host", add=True, host="127.0.0.1:9")
    copy = Workspace(tmp_path / "copy", clock=trail.clock)
    assert authorization.authority_of(copy).problems == (), "the original went on after the backup"
    authorization.authority_of(copy).listen()
    for host in ("127.0.0.1:10", "127.0.0.1:11"):
        do(copy, BOB, "host", add=True, host=host)
    copy.close()
    assert [each for each in problems(trail) if "outside" in each] == []
    do(trail, ANN, "host", add=True, host="127.0.0.1:12")
    again = Workspace(tmp_path / "copy", clock=trail.clock)
    assert [each for each in problems(again) if "outside" in each] == []
    trail.database.transact(cut_the_row)
    again.database.transact(cut_the_row)
    for each in (trail, again):
        assert any("known outside the workspace" in problem for problem in problems(each))
    again.close()


def test_a_workspace_that_was_moved_and_moved_back_is_compared_with_what_was_known_elsewhere(
    trail: Workspace, tmp_path: Path
) -> None:
    root, moved, clock = trail.folders.root, tmp_path / "moved", trail.clock
    trail.database.transact(cut_the_row)
    trail.close()
    root.rename(moved)
    there = Workspace(moved, clock=clock)
    assert any("the trail ends at row 6, and 1 more were known" in each for each in problems(there))
    authorization.authority_of(there).listen()
    do(there, ANN, "accept")
    assert [head.workspace for head in audit_heads.outside_heads_at(moved)] == [str(moved)]
    assert not audit_heads.outside_heads_at(root), "the head moved along"
    there.database.transact(cut_the_row)
    there.close()
    moved.rename(root)
    back = Workspace(root, clock=clock)
    assert any("known outside the workspace" in each for each in problems(back))
    back.close()


def test_the_last_key_may_be_revoked_and_then_anybody_decides_again(trail: Workspace) -> None:
    do(trail, ANN, "key revoke", key="bob")
    with pytest.raises(Exception, match="is not enrolled here"):
        do(trail, BOB, "policy", policy="auto")
    shown = ask(trail, "key revoke", key=ANN.key.fingerprint[:12])
    assert shown["question"]["shown"]["left"] == []
    made = do(trail, ANN, "key revoke", key="ann")
    assert (made["left"], "anybody who runs programs" in made["worth"]) == (0, True)
    perform(trail, "policy", policy="auto", by="root")
    assert problems(trail) == [], "after the last key nothing needs a signature"


def test_a_key_is_enrolled_once_and_by_one_that_is(trail: Workspace) -> None:
    with pytest.raises(Exception, match="is enrolled already"):
        enroll(trail, ANN, by=BOB)
    with pytest.raises(Exception, match="is not enrolled here"):
        enroll(trail, EVE)
    other = Signer("ann")
    with pytest.raises(Exception, match="Choose another --name"):
        enroll(trail, other, by=ANN)


def test_a_workspace_without_keys_needs_no_signature_and_keeps_no_head(workspace: Workspace) -> None:
    authorization.authority_of(workspace).listen()
    perform(workspace, "policy", policy="person", by="root")
    [row] = audit.all_rows(workspace.database)
    assert (row.actor, json.loads(row.evidence)) == ("root", {})
    assert not head_of(workspace).exists()
    assert "anybody who runs programs with this account" in perform(workspace, "keys")["worth"]


def test_settings_edited_by_hand_are_told_and_the_stricter_hold_until_confirmed(
    trail: Workspace, clock: ManualClock
) -> None:
    path = trail.folders.root / "settings.toml"
    path.write_text(f'policy = "auto"\ncage = "where_possible"\nprivate_hosts = ["{HOST}", "evil.example"]\n')
    trail.close()
    again = Workspace(trail.folders.root, clock=clock)
    held = authorization.authority_of(again)
    again.settings = held.settings()
    assert any('private_hosts in settings.toml is ["127.0.0.1:8000", "evil.example"]' in each for each in held.problems)
    assert any("policies in settings.toml is {}" in each for each in held.problems)
    assert (again.settings.private_hosts, again.settings.cage) == ((HOST,), "required")
    assert again.settings.policy_of("digits") == "person"
    again.settings = load(again.folders.root)
    assert any("cage in settings.toml" in each for each in problems(again))
    do(again, ANN, "settings")
    again.close()
    third = Workspace(trail.folders.root, clock=clock)
    assert authorization.authority_of(third).problems == ()
    assert authorization.authority_of(third).settings().private_hosts == (HOST, "evil.example")
    third.close()


def test_settings_edited_by_hand_are_told_while_the_daemon_runs(trail: Workspace) -> None:
    path, held = trail.folders.root / "settings.toml", authorization.authority_of(trail)
    before = path.read_text()
    assert held.problems == ()
    path.write_text(before + 'cage = "where_possible"\n')
    [problem] = held.problems
    assert 'cage in settings.toml is "where_possible", and "required" was confirmed' in problem
    assert "speciate policy --confirm" in problem
    assert trail.settings.cage == "required"
    path.write_text("cage = ")
    assert any("could not start with it" in each for each in held.problems)
    path.write_text(before)
    assert held.problems == ()
    path.write_text(before + 'cage = "where_possible"\n')
    assert held.problems
    do(trail, ANN, "settings")
    assert held.problems == ()


def test_a_settings_file_that_nobody_wrote_to_is_not_read_again(
    trail: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, read = authorization.authority_of(trail), list[Path]()
    monkeypatch.setattr(authorization, "load", lambda root: read.append(root) or load(root))
    (trail.folders.root / "settings.toml").touch()
    for _ in range(5):
        assert held.problems == ()
    assert len(read) == 1


def test_a_damaged_head_is_a_problem_and_not_a_crash(trail: Workspace) -> None:
    head_of(trail).write_text("{")
    assert any("cannot be read" in each for each in problems(trail))


def test_a_head_that_a_person_brings_is_compared_too(trail: Workspace, tmp_path: Path) -> None:
    rows = audit.all_rows(trail.database)
    head = {"row": 3, "hash": rows[2].hash, "keys": [ANN.key.fingerprint, BOB.key.fingerprint], "workspace": ""}
    assert audit_verification.check_audit(trail, rows, head).problems == ()
    for wrong in ({"hash": "f" * 64}, {"row": 99}, {"keys": [EVE.key.fingerprint]}, {"row": None}):
        assert audit_verification.check_audit(trail, rows, head | wrong).problems, wrong
    shutil.rmtree(tmp_path / "config")
    assert audit_verification.check_audit(trail, rows, None).problems == ()
