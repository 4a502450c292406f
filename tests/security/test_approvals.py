"""Approvals with a person behind them, over the real socket of a real daemon, at a real terminal.

The attacker runs programs with the same account: it has the socket, the catalog's path, the sealed key and the enrolled
public key, and knows every message. It does not have the passphrase.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from speciate.cli import confirmation, sealed_keys
from speciate.cli.sealed_keys import StoredKey
from speciate.errors import Code, SpeciateError
from speciate.governance import approvals
from speciate.governance.approval_signatures import Key
from speciate.server.control.action import OpenAction, PersonAction
from speciate.server.control.dispatch import ACTIONS, ENDING
from speciate.workspace.workspace import Workspace
from tests import forks
from tests.governance.people import Signer
from tests.server.processes import CLI, Daemons
from tests.server.terminals import PHRASE, enroll, sign, type_at

DENIED = "Dr. Jane Doe, Chief Physician"


class World(NamedTuple):
    daemons: Daemons
    person: Signer
    """The enrolled key, opened with the passphrase: only the person has it."""
    waiting: list[str]
    """Approvals; each test takes some."""
    elsewhere: Daemons
    """Another workspace with the same key."""

    def ask(self, action: str, **request: Any) -> dict[str, Any]:
        return self.daemons.control("question", about={"action": action, **request})

    def send(self, action: str, signed: Any, **request: Any) -> dict[str, Any]:
        return self.daemons.control(action, signed=signed, **request)

    def take(self) -> dict[str, str]:
        """The id and hash of an approval that waits."""
        shown = self.daemons.control("approval", id=self.waiting.pop())
        return {"id": shown["id"], "hash": shown["hash"]}

    def state(self, id: str) -> str:  # noqa: A002
        return str(self.daemons.control("approval", id=id)["state"])


def _questions(root: Path, count: int) -> list[str]:
    """About use cases that are not there: it is enough to be asked."""
    workspace = Workspace(root)
    ids = [
        workspace.database.transact(
            lambda tx, number=number: approvals.request(  # type: ignore[misc]  # a lambda's default
                tx, "define_use_case", {"use_case": f"u{number}", "version": 1}, {"n": 1}, subject="x", hours=9
            )
        ).id
        for number in range(count)
    ]
    workspace.close()
    return ids


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("approvals")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        first, second = Daemons(folder / "first"), Daemons(folder / "second")
        for daemons in (first, second):
            daemons.workspace.mkdir()
        waiting = _questions(first.workspace, 25)
        enrolled = enroll(first.workspace, "--name", "jane")
        assert enrolled.status == 0, enrolled.text
        again = sign(second.workspace, "key", "enroll", "--name", "jane")
        assert again.status == 0, again.text
        person = Signer("jane")
        [stored] = sealed_keys.all_keys()
        person.private, person.key = sealed_keys.unseal(stored, PHRASE), stored.key
        yield World(first, person, waiting, second)
        first.close()
        second.close()


# The table


def test_every_action_says_whether_it_needs_a_person_and_why_not() -> None:
    for name, action in ACTIONS.items():
        assert isinstance(action, PersonAction) or (isinstance(action, OpenAction) and action.why), name
    assert {name for name, action in ACTIONS.items() if isinstance(action, PersonAction)} == set(REQUESTS), (
        "a new action of a person needs a request here, which is tried without a signature"
    )
    assert {name for name, action in ACTIONS.items() if isinstance(action, OpenAction)} == NOBODYS, (
        "an action that needs no person is added here by somebody who thought of it"
    )
    assert set(ACTIONS) >= ENDING


NOBODYS = {
    "status", "stop", "drain", "resume", "inventory", "question", "version", "backup", "refresh",
    "fingerprint", "approval", "consent", "open",
    "consents", "keys", "audit", "ledger", "trail", "promotion", "slot start", "slot stop", "slots", "labels", "trace",
    "watch", "watches", "why", "watch switch", "tokens", "token revoke",
}  # fmt: skip
EVE = Signer("eve")
REQUESTS: dict[str, dict[str, Any]] = {
    "policy": {"policy": "auto", "use_case": None},
    "settings": {},
    "host": {"add": True, "host": "127.0.0.1:9"},
    "signed": {"model": "m@v1"},
    "approve": {},
    "deny": {},
    "allow": {"dataset": "d", "host": "evil.example", "usd": 5.0, "days": None},
    "disallow": {"dataset": "d", "host": "evil.example"},
    "key enroll": EVE.enrollment,
    "key revoke": {"key": "jane"},
    "token create": {"name": "eve", "role": "admin", "id": "0" * 12, "digest": "0" * 64, "days": 9.0},
    "accept": {},
    "open decide": {},
    "override": {"use_case": "u", "model": "m@v1", "reason": "why not", "serving": None, "objections": []},
}  # fmt: skip


@pytest.mark.parametrize("action", REQUESTS)
def test_without_a_signature_nothing_that_needs_a_person_happens(here: World, action: str) -> None:
    request = REQUESTS[action] or (
        dict(zip(("id", "hash"), here.take().values(), strict=True)) if action in ("approve", "deny") else {}
    )
    before = _all(here)
    for signed in (None, {}, [], "yes", {"challenge": "", "key": "", "signature": ""}):
        with pytest.raises(SpeciateError) as caught:
            here.send(action, signed, by=DENIED, **request)
        if action not in ("signed", "allow", "override"):  # those name what is not there, and are refused before
            assert caught.value.code is Code.REFUSED
    assert _all(here) == before


def _all(here: World) -> tuple[Any, ...]:
    told = (here.daemons.control(what) for what in ("trail", "keys", "consents"))
    return (*told, here.daemons.control("status")["policy"])


# Forgeries


def _today(here: World, it: dict[str, str]) -> None:
    here.send("approve", None, by=DENIED, **it)


def _wrong_passphrase(here: World, it: dict[str, str]) -> None:
    [stored] = sealed_keys.all_keys()
    sealed_keys.unseal(stored, "correct horse battery stable")


def _own_key(here: World, it: dict[str, str]) -> None:
    here.send("approve", EVE.answer(here.ask("approve", **it)), **it)


def _own_key_under_the_persons_name(here: World, it: dict[str, str]) -> None:
    answer = EVE.answer(here.ask("approve", **it)) | {"key": here.person.key.fingerprint}
    here.send("approve", answer, **it)


def _other_arguments(here: World, it: dict[str, str]) -> None:
    asked = here.ask("approve", **it)
    question = asked["question"] | {"arguments": {"use_case": "other", "version": 1}}
    here.send("approve", here.person.answer(asked, question=question), **it)


def _other_evidence(here: World, it: dict[str, str]) -> None:
    asked = here.ask("approve", **it)
    shown = asked["question"]["shown"] | {"evidence": {"n": 2}}
    here.send("approve", here.person.answer(asked, question=asked["question"] | {"shown": shown}), **it)


def _another_approval(here: World, it: dict[str, str]) -> None:
    other = here.take()
    here.send("approve", here.person.answer(here.ask("approve", **other)), **it)


def _a_denial_as_an_approval(here: World, it: dict[str, str]) -> None:
    here.send("approve", here.person.answer(here.ask("deny", **it)), **it)


def _a_policy_as_an_approval(here: World, it: dict[str, str]) -> None:
    here.send("approve", here.person.answer(here.ask("policy", policy="auto", use_case=None)), **it)


def _stretched_time(here: World, it: dict[str, str]) -> None:
    asked = here.ask("approve", **it)
    here.send("approve", here.person.answer(asked, until=asked["until"] + 9999), **it)


def _own_challenge(here: World, it: dict[str, str]) -> None:
    here.send("approve", here.person.answer(here.ask("approve", **it), challenge="0" * 32), **it)


def _another_head(here: World, it: dict[str, str]) -> None:
    here.send("approve", here.person.answer(here.ask("approve", **it), head=f"0:{'0' * 64}"), **it)


def _from_another_workspace(here: World, it: dict[str, str]) -> None:
    """Signed for a question of the other workspace, word for word, and with the challenge of this one."""
    asked, there = here.ask("approve", **it), here.elsewhere.control("status")["identity"]
    here.send("approve", here.person.answer(asked, workspace=there), **it)


def _asked_in_another_workspace(here: World, it: dict[str, str]) -> None:
    about = {"action": "policy", "policy": "auto", "use_case": None}
    answer = here.person.answer(here.elsewhere.control("question", about=about))
    here.send("policy", answer, policy="auto", use_case=None)


def _twice_after_a_failure(here: World, it: dict[str, str]) -> None:
    """A question is open for one attempt: nobody tries signatures against it."""
    asked = here.ask("approve", **it)
    with pytest.raises(SpeciateError):
        here.send("approve", EVE.answer(asked) | {"key": here.person.key.fingerprint}, **it)
    here.send("approve", here.person.answer(asked), **it)


FORGERIES: dict[Callable[[World, dict[str, str]], None], str] = {
    _today: "needs the signature",
    _wrong_passphrase: "does not open the key",
    _own_key: "is not enrolled here",
    _own_key_under_the_persons_name: "is not of what would be done",
    _other_arguments: "is not of what would be done",
    _other_evidence: "is not of what would be done",
    _another_approval: "What was shown is not what would be decided",
    _a_denial_as_an_approval: "What was shown is not what would be decided",
    _a_policy_as_an_approval: "What was shown is not what would be decided",
    _stretched_time: "is not of what would be done",
    _own_challenge: "answers no open question",
    _another_head: "is not of what would be done",
    _from_another_workspace: "is not of what would be done",
    _asked_in_another_workspace: "answers no open question",
    _twice_after_a_failure: "answers no open question",
}


@pytest.mark.parametrize("forgery", FORGERIES, ids=lambda forgery: forgery.__name__.strip("_"))
def test_a_forged_answer_decides_nothing(here: World, forgery: Callable[[World, dict[str, str]], None]) -> None:
    it = here.take()
    with pytest.raises(SpeciateError, match=FORGERIES[forgery]):
        forgery(here, it)
    assert here.state(it["id"]) == "pending"


def test_the_persons_answer_counts_once(here: World) -> None:
    it = here.take()
    answer = here.person.answer(here.ask("deny", **it))
    assert here.send("deny", answer, by=DENIED, **it)["state"] == "denied"
    with pytest.raises(SpeciateError, match="answers no open question"):
        here.send("deny", answer, **it)
    row = here.daemons.control("trail")["rows"][-1]
    assert (row["actor"], row["action"], row["evidence"]["claimed"]) == ("root", "deny", DENIED)
    assert row["evidence"]["signed"]["name"] == "jane"


def test_of_two_answers_at_once_one_counts_and_two_approvals_at_once_do_not_disturb_each_other(here: World) -> None:
    same, other = here.take(), here.take()
    jobs = [(same, here.person.answer(here.ask("deny", **same))) for _ in range(2)]
    jobs.append((other, here.person.answer(here.ask("deny", **other))))
    ended: list[str] = []

    def answer(it: dict[str, str], signed: dict[str, str]) -> None:
        try:
            ended.append(here.send("deny", signed, **it)["state"])
        except SpeciateError as error:
            ended.append(error.code)

    threads = [threading.Thread(target=answer, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ended) == ["conflict", "denied", "denied"]


def test_a_daemon_that_is_killed_takes_its_questions_along(here: World) -> None:
    it = here.take()
    asked = here.ask("approve", **it)
    here.daemons.kill()
    run("call", "get_status", workspace=here.daemons.workspace)
    with pytest.raises(SpeciateError, match="answers no open question"):
        here.send("approve", here.person.answer(asked), **it)
    assert here.state(it["id"]) == "pending"
    assert here.send("deny", here.person.answer(here.ask("deny", **it)), **it)["state"] == "denied"


def test_tools_say_what_an_approval_is_worth_and_grant_none(here: World) -> None:
    told = json.loads(run("call", "list_approvals", workspace=here.daemons.workspace).stdout)
    assert "no program can" in told["note"]
    assert (
        "no program can" in json.loads(run("call", "get_status", workspace=here.daemons.workspace).stdout)["approvals"]
    )


# At a terminal


def run(*arguments: str, workspace: Path) -> subprocess.CompletedProcess[str]:
    return forks.run([*CLI, *arguments, "--workspace", str(workspace)], timeout=90)


def test_a_person_approves_with_the_passphrase_alone(here: World) -> None:
    it, root = here.take(), here.daemons.workspace
    wrong = sign(root, "deny", it["id"], phrase="correct horse battery stable")
    assert (wrong.status, "does not open the key 'jane'" in wrong.text) == (1, True)
    nothing = sign(root, "deny", it["id"], phrase="")
    assert (nothing.status, "Nothing was changed" in nothing.text) == (1, True)
    piped = run("deny", it["id"], workspace=root)
    assert (piped.returncode, "no terminal" in piped.stderr) == (1, True)
    assert here.state(it["id"]) == "pending"
    right = sign(root, "deny", it["id"])
    assert right.status == 0, right.text
    assert PHRASE not in right.text, "it is not shown"
    assert '"n": 1' in right.text, "the evidence is"
    assert here.state(it["id"]) == "denied"
    verified = run("audit", "verify", workspace=root)
    assert verified.returncode == 0, verified.stdout
    listed = run("audit", "list", workspace=root).stdout.splitlines()[-1]
    assert "root  deny" in listed
    assert "signed by: jane" in listed


def test_what_was_typed_before_the_question_is_thrown_away(here: World) -> None:
    """An agent that fills the terminal's input ahead does not answer for the person."""
    it = here.take()
    shown = type_at(
        ["deny", it["id"], "--workspace", str(here.daemons.workspace)], [("(nothing: no): ", "")], ahead=PHRASE + "\n"
    )
    assert (shown.status, "Nothing was changed" in shown.text) == (1, True), shown.text
    assert here.state(it["id"]) == "pending"


def test_what_is_signed_is_seen_where_one_output_goes_to_a_file_and_nothing_is_signed_where_both_do(
    here: World, tmp_path: Path
) -> None:
    it, typed = here.take(), [("(nothing: no): ", PHRASE)]
    command = ["deny", it["id"], "--workspace", str(here.daemons.workspace)]
    with (tmp_path / "both").open("w+") as both:
        unseen = type_at(command, typed, output=both.fileno(), errors=both.fileno())
        both.seek(0)
        refused = "neither standard output nor standard error is a terminal" in both.read()
        assert (unseen.status, unseen.text, refused, here.state(it["id"])) == (1, "", True, "pending")
    with (tmp_path / "one").open("w+") as one:
        seen = type_at(command, typed, output=one.fileno())
        one.seek(0)
        written = one.read()
    assert (seen.status, '"n": 1' in seen.text, '"n": 1' in written) == (0, True, False), seen.text
    assert here.state(it["id"]) == "denied"


@pytest.mark.parametrize("redirected", ["output", "errors"])
@pytest.mark.parametrize("command", ["open --decide --no-browser", "doctor --fix", "key enroll --ssh"])
def test_a_question_is_seen_where_one_output_goes_to_a_file(
    here: World, command: str, redirected: str, tmp_path: Path
) -> None:
    arguments = [*command.split(), "--workspace", str(here.daemons.workspace)]
    if command == "doctor --fix":
        shutil.rmtree(here.daemons.workspace / "exports", ignore_errors=True)
    elif command == "key enroll --ssh":
        if shutil.which("ssh-keygen") is None:
            pytest.skip("ssh-keygen is not installed")
        key = tmp_path / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        arguments[3:3] = [f"{key}.pub"]
    asked = ("(nothing: no): ", "") if command.startswith("open") else ("Type yes: ", "no")
    with (tmp_path / "output").open("w+") as file:
        seen = type_at(arguments, [asked], **{redirected: file.fileno()})  # type: ignore[arg-type]
        file.seek(0)
        assert (seen.status, "Nothing was changed" in seen.text, file.read()) == (1, True, ""), seen.text


def test_a_process_without_a_terminal_has_no_passphrase() -> None:
    code = "from speciate.cli.confirmation import passphrase; passphrase('? ')"
    ran = subprocess.run(
        [CLI[0], "-c", code], input=PHRASE, capture_output=True, text=True, start_new_session=True, check=False
    )
    assert "this process has none" in ran.stderr


def test_a_person_is_told_when_to_touch_a_hardware_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`ssh-keygen` says so too, on what is captured for the case that it fails."""
    program = tmp_path / "ssh-keygen"
    program.write_text("#!/bin/sh\necho 'Confirm user presence' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(confirmation, "ssh_keygen", lambda: str(program))
    told = {"sk-ssh-ed25519@openssh.com": "Touch the key now.\n", "ssh-ed25519": ""}
    for kind, said in told.items():
        stored = StoredKey(tmp_path / "k.json", Key("f" * 64, "token", "ssh", f"{kind} AAAA"), {}, None)
        with pytest.raises(SpeciateError, match="did not sign"):
            confirmation._signed_by_ssh(stored, b"message")
        assert capsys.readouterr().out == said


# The file of the key


def test_a_key_file_that_is_not_its_owners_alone_is_left_out_and_the_others_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert sealed_keys._COST["n"] >= 1 << 17, "guesses of a passphrase are dear"
    monkeypatch.setitem(sealed_keys._COST, "n", forks.KEY_COST)
    stored, private = sealed_keys.create("jane", PHRASE)
    assert stored.path.stat().st_mode & 0o777 == 0o600
    assert private.private_bytes_raw().hex() not in stored.path.read_text()
    assert PHRASE not in stored.path.read_text()
    assert sealed_keys.unseal(stored, PHRASE).private_bytes_raw() == private.private_bytes_raw()
    with pytest.raises(SpeciateError, match="already"):
        sealed_keys.create("jane", PHRASE)
    with pytest.raises(SpeciateError, match="fewer than 12"):
        sealed_keys.create("short", "secret")
    data = stored.path.read_text()
    told = json.loads(data)

    spare, _ = sealed_keys.create("spare", PHRASE)

    def refused(said: str) -> None:
        assert list(sealed_keys.all_keys()) == [spare], "one file takes no other key along"
        told = capsys.readouterr().err
        assert said in told
        assert str(stored.path) in told

    stored.path.chmod(0o640)
    refused("must belong to you alone")
    stored.path.chmod(0o600)
    stored.path.parent.chmod(0o755)
    with pytest.raises(SpeciateError, match="must belong to you alone"):
        list(sealed_keys.all_keys())
    stored.path.parent.chmod(0o700)
    os.link(stored.path, tmp_path / "second name")
    refused("has 2 names")
    (tmp_path / "second name").unlink()
    stored.path.rename(tmp_path / "elsewhere.json")
    stored.path.symlink_to(tmp_path / "elsewhere.json")
    refused("cannot be opened as a key")
    stored.path.unlink()
    os.mkfifo(stored.path, 0o600)
    refused("is no file of its own")
    stored.path.unlink()
    for damaged in (
        "",
        "[]",
        data[:50],
        data.replace('"version": 1', '"version": 9'),
        json.dumps(told | {"public": "00"}),
    ):
        stored.path.write_text(damaged)
        stored.path.chmod(0o600)
        refused("is not as it was written")
    greedy = stored._replace(sealed=stored.sealed | {"n": 1 << 30})
    with pytest.raises(SpeciateError, match="its cost is none of ours"):
        sealed_keys.unseal(greedy, PHRASE)
    swapped = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
    with pytest.raises(SpeciateError, match="does not open"):
        sealed_keys.unseal(stored._replace(key=stored.key._replace(public=swapped)), PHRASE)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_a_second_key_is_enrolled_by_the_first_and_signs_through_ssh_keygen(
    here: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, config = here.elsewhere.workspace, tmp_path / "config"
    shutil.copytree(Path(os.environ["XDG_CONFIG_HOME"]), config)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
    key = tmp_path / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    enrolling = ["key", "enroll", "--name", "token", "--ssh", str(key.with_suffix(".pub")), "--workspace", str(root)]
    unwanted = type_at(enrolling, [("Type yes:", "no")])
    assert (unwanted.status, "as much as that key file or its agent" in unwanted.text) == (1, True), unwanted.text
    assert "token" not in run("key", "list", workspace=root).stdout
    made = type_at(enrolling, [("Type yes:", "yes"), ("(nothing: no): ", PHRASE)])
    assert (made.status, "One of them signs this" in made.text) == (0, True), made.text
    for told in (
        run("key", "list", workspace=root).stdout, run("doctor", workspace=root).stdout,
        run("call", "get_status", workspace=root).stdout, run("call", "list_approvals", workspace=root).stdout,
    ):  # fmt: skip
        assert "as much as that key file or its agent" in told
        assert "no program can" not in told
    done = type_at(["hosts", "add", "127.0.0.1:9", "--workspace", str(root)], [("Type yes:", "yes")])
    assert done.status == 0, done.text
    assert "signed by: token" in run("audit", "list", workspace=root).stdout.splitlines()[-1]
    key.unlink()
    fell_back = type_at(
        ["hosts", "remove", "127.0.0.1:9", "--workspace", str(root)],
        [("Type yes:", "yes"), ("(nothing: no): ", PHRASE)],
    )
    assert (fell_back.status, "ssh-keygen did not sign" in fell_back.text) == (0, True), fell_back.text
    assert run("audit", "verify", workspace=root).returncode == 0
    revoked = type_at(
        ["key", "revoke", "token", "--workspace", str(root)], [("Type yes:", "yes"), ("(nothing: no): ", PHRASE)]
    )
    assert (revoked.status, "no program can" in revoked.text) == (0, True), revoked.text
    listed = run("key", "list", workspace=root)
    assert "revoked" in listed.stdout
    assert run("doctor", workspace=root).stdout.count("no program can") == 1
