"""A person's answer to the daemon's question, at the terminal: a typed yes, or where keys are enrolled a signature.

What is signed is what was shown here, hashed here. The passphrase comes from the controlling terminal alone, never from
standard input, an argument or the environment, and what was typed before the question is thrown away.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from speciate import unix_sockets
from speciate.cli import sealed_keys
from speciate.cli.daemon_commands import DaemonResult, ask_daemon
from speciate.cli.output import ask, say
from speciate.cli.sealed_keys import StoredKey
from speciate.environment import workspace_path
from speciate.errors import Code, SpeciateError
from speciate.governance import audit_heads
from speciate.governance.approval_signatures import NAMESPACE, Key, Question, public_key, ssh_keygen, statement
from speciate.governance.audit_heads import Head
from speciate.server.untrusted import clean_text

_SSH_SECONDS = 120
_LONGEST = 1024  # bytes of a passphrase


class DaemonQuestion(NamedTuple):
    """The daemon's question."""

    shown: Mapping[str, Any]
    arguments: Mapping[str, Any]
    action: str
    message: bytes
    """The bytes that are signed."""
    challenge: str
    workspace: str
    """Identity of the workspace."""
    keys: tuple[Key, ...]
    """Empty where a typed yes is enough."""


class ActionRequest(NamedTuple):
    """What is asked of the daemon."""

    action: str
    request: Mapping[str, Any]
    question: str
    """For the person: `Approve exactly this?`"""
    ask_yes: bool = True
    """Where nobody signs: whether a typed yes is wanted."""


def account_name() -> str:
    return unix_sockets.own_account().name


def require_terminal() -> None:
    if not sys.stdin.isatty():
        raise SpeciateError(
            Code.REFUSED, "Only a person decides this, and standard input is no terminal.", "Run it in a terminal."
        )


def ask_question(arguments: argparse.Namespace, action: str, request: Mapping[str, Any]) -> DaemonQuestion:
    """What the daemon would do."""
    answer = ask_daemon(arguments, "question", start=True, about={"action": action, **request})
    question = Question(**answer["question"])
    message = statement(answer["workspace"], question, answer["head"], answer["challenge"], answer["until"])
    keys = tuple(public_key(each["name"], each["kind"], each["public"]) for each in answer["keys"])
    return DaemonQuestion(
        question.shown, question.arguments, question.action, message, answer["challenge"], answer["workspace"], keys
    )


def confirm_and_run(
    arguments: argparse.Namespace,
    wanted: ActionRequest,
    show: Callable[[DaemonQuestion], Mapping[str, Any] | None],
    unsealed: tuple[StoredKey, Ed25519PrivateKey] | None = None,
) -> DaemonResult | None:
    """Ask the daemon what would be done, show it, get the person's answer, and have it done. None where the person did
    not want it.

    `show` may return more arguments for the action. `unsealed`: a key that was opened a moment ago.
    """
    require_terminal()
    daemon_question = ask_question(arguments, wanted.action, wanted.request)
    with shown_to_the_person():
        more = show(daemon_question) or {}
        if daemon_question.keys:
            answer = _sign_answer(daemon_question, wanted.question, unsealed)
            if answer is None:
                return None
            more = {**more, "signed": answer}
        elif wanted.ask_yes and not ask_yes(wanted.question, UNSIGNED.format(account_name())):
            return None
    made = ask_daemon(arguments, wanted.action, start=True, by=account_name(), **{**wanted.request, **more})
    if daemon_question.keys and workspace_path(arguments.workspace).stat().st_uid != os.getuid():
        keep_head(arguments, accepted=wanted.action == "accept")  # else the daemon keeps it in the same folder
    return made


@contextlib.contextmanager
def shown_to_the_person() -> Iterator[None]:
    """On standard error where standard output goes to a file or a program: a question must be seen, and no result."""
    with contextlib.nullcontext() if sys.stdout.isatty() else contextlib.redirect_stdout(sys.stderr):
        yield


UNSIGNED = "No key is enrolled here: anybody who runs programs as {} could give this answer (speciate key enroll)."


def keep_head(arguments: argparse.Namespace, *, accepted: bool = False) -> None:
    """Keeps the trail's head in this person's config folder, where the daemon may be another user's; only along a trail
    that fits what was kept, or that this person `accepted` a moment ago."""
    before = read_kept_head(arguments)
    verdict = ask_daemon(arguments, "audit", start=True, kept=before._asdict() if before and not accepted else None)
    if verdict["problems"] or not verdict["rows"]:
        return
    root = str(Path(ask_daemon(arguments, "status")["workspace"]).resolve())
    head = Head(int(verdict["rows"]), str(verdict["head"]), tuple(verdict["keys"]), root)
    with contextlib.suppress(OSError, ValueError):
        audit_heads.write_outside_head(str(verdict["identity"]), head, before)


def read_kept_head(arguments: argparse.Namespace) -> Head | None:
    """This person's own head of the workspace. Raises INVALID for one that cannot be read."""
    status = ask_daemon(arguments, "status", start=True)
    try:
        found = audit_heads.read_outside_head(str(status["identity"]), Path(status["workspace"]))
    except ValueError as error:
        raise SpeciateError(
            Code.INVALID, str(error), "Find out who wrote to it; without the file, verify compares less."
        ) from None
    return found


# Answers


def ask_yes(question: str, shown: str = "") -> bool:
    """Whether a person types yes. `shown`: what the question is about."""
    with shown_to_the_person():
        if shown:
            say(shown)
        if ask(f"{question} Type yes: ") == "yes":
            return True
        say("Nothing was changed.")
        return False


def _sign_answer(
    daemon_question: DaemonQuestion, question: str, unsealed: tuple[StoredKey, Ed25519PrivateKey] | None
) -> dict[str, str] | None:
    """The answer with its signature; None where the person did not want it. The keys of OpenSSH first, for they may be
    hardware; where one does not sign, a sealed one."""
    if not sys.stdout.isatty():
        raise SpeciateError(
            Code.REFUSED,
            "What is signed must have been shown, and neither standard output nor standard error is a terminal.",
            "Redirect one of them at most.",
        )
    sys.stdout.flush()
    keys = {key.fingerprint: key for key in daemon_question.keys}
    if unsealed is not None and unsealed[0].key.fingerprint in keys:
        return _answer_fields(daemon_question, unsealed[0].key, unsealed[1].sign(daemon_question.message).hex())
    mine = [stored for stored in sealed_keys.all_keys() if stored.key.fingerprint in keys]
    if not mine:
        names = ", ".join(f"{key.name} ({key.fingerprint[:16]})" for key in daemon_question.keys)
        raise SpeciateError(
            Code.REFUSED,
            f"This needs the signature of an enrolled key, and none of them is in {sealed_keys.folder()}: {names}.",
            "Let its owner run the command, or enroll yours with it: speciate key enroll",
        )
    failed = ""
    for stored in sorted(mine, key=lambda each: each.key.kind != "ssh"):
        if stored.key.kind == "ssh":
            if not ask_yes(f"{question} The key {stored.key.name} signs it."):
                return None
            try:
                return _answer_fields(daemon_question, stored.key, _signed_by_ssh(stored, daemon_question.message))
            except SpeciateError as error:
                failed = str(error)
                say(failed)
                continue
        phrase = passphrase(f"{question} Passphrase of the key {stored.key.name} (nothing: no): ")
        if not phrase:
            say("Nothing was changed.")
            return None
        return _answer_fields(
            daemon_question, stored.key, sealed_keys.unseal(stored, phrase).sign(daemon_question.message).hex()
        )
    raise SpeciateError(Code.UNAVAILABLE, f"No key signed. {failed}", "Repeat the command with the key at hand.")


def _answer_fields(daemon_question: DaemonQuestion, key: Key, signature: str) -> dict[str, str]:
    return {"challenge": daemon_question.challenge, "key": key.fingerprint, "signature": signature}


def _signed_by_ssh(stored: StoredKey, message: bytes) -> str:
    """A signature by `ssh-keygen -Y sign`, which asks for a passphrase or a touch itself; without the private half's
    file, by the agent that has it."""
    private = stored.ssh.with_suffix("") if stored.ssh and stored.ssh.suffix == ".pub" else stored.ssh
    with tempfile.TemporaryDirectory(prefix="speciate-sign-") as folder:
        public = Path(folder, "key.pub")
        public.write_text(f"{stored.key.public}\n")
        file = private if private and private.is_file() else public
        if stored.key.hardware:  # what ssh-keygen says of it is captured with its errors
            say("Touch the key now.")
        command = [ssh_keygen(), "-Y", "sign", "-n", NAMESPACE, "-f", str(file)]
        try:
            ran = subprocess.run(command, input=message, capture_output=True, timeout=_SSH_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise SpeciateError(
                Code.UNAVAILABLE, f"ssh-keygen did not sign within {_SSH_SECONDS} s.", "Repeat the command."
            ) from None
    if ran.returncode != 0:
        said = clean_text(ran.stderr.decode(errors="replace")).strip()[-300:]
        raise SpeciateError(
            Code.UNAVAILABLE, f"ssh-keygen did not sign with {file}: {said}", "Repeat it with the key at hand."
        )
    return ran.stdout.decode()


def passphrase(prompt: str) -> str:
    """Asks for a passphrase on the controlling terminal, without echo. Raises REFUSED where there is none."""
    with _terminal() as terminal:
        before = termios.tcgetattr(terminal)
        silent = list(before)
        silent[3] = int(silent[3]) & ~termios.ECHO | termios.ICANON
        try:
            termios.tcsetattr(terminal, termios.TCSAFLUSH, silent)  # drops what was typed ahead of the question
            os.write(terminal, prompt.encode())
            line = os.read(terminal, _LONGEST)
        finally:
            termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
            os.write(terminal, b"\n")
    try:
        return line.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise SpeciateError(Code.INVALID, "The passphrase is no UTF-8 text.", "Type it again.") from None


@contextlib.contextmanager
def _terminal() -> Iterator[int]:
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        raise SpeciateError(
            Code.REFUSED, "A passphrase is typed on a terminal, and this process has none.", "Run it in a terminal."
        ) from None
    try:
        yield terminal
    finally:
        os.close(terminal)
