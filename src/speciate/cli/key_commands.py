"""`speciate key`: whose signature a decision in a workspace needs."""

from __future__ import annotations

import argparse
import getpass
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from speciate import secrets
from speciate.cli import confirmation, sealed_keys
from speciate.cli.confirmation import ActionRequest, DaemonQuestion
from speciate.cli.daemon_commands import ask_daemon
from speciate.cli.output import format_table, say
from speciate.cli.sealed_keys import StoredKey
from speciate.errors import Code, SpeciateError
from speciate.governance.approval_signatures import PASSKEY, Key, public_key, ssh_keygen
from speciate.secrets import LONGEST

_LONGEST = 4096
_BARE = (
    "This is a key of type {}, which wants no touch. Where its file has no passphrase, or an agent has it open, any "
    "program of your account can sign with it: an approval is then worth as much as that key file or its agent. "
    "Better: a hardware key (ssh-keygen -t ed25519-sk), or a key that speciate seals (leave out --ssh)."
)


def key(arguments: argparse.Namespace) -> int:
    return {"enroll": _enroll, "list": _list_keys, "revoke": _revoke}[arguments.action](arguments)


def _enroll(arguments: argparse.Namespace) -> int:
    confirmation.require_terminal()
    unsealed, mine = None, Path(arguments.ssh).expanduser().absolute() if arguments.ssh else None
    if arguments.passkey:
        public = public_key(arguments.name or confirmation.account_name().replace(" ", "-"), PASSKEY, arguments.passkey)
    elif mine:
        ssh_keygen()
        public = _read_ssh_key(mine, arguments.name or confirmation.account_name().replace(" ", "-"))
        bare = _BARE.format(public.public.split()[0])
        if public.bare and not confirmation.ask_yes("Enroll it all the same?", bare):
            return 1
        sealed_keys.remember(public, mine)
    else:
        unsealed, public = _open_or_make_key(arguments.name or confirmation.account_name().replace(" ", "-"))
    request = {"name": public.name, "kind": public.kind, "public": public.public}
    wanted = ActionRequest("key enroll", request, f"Enroll the key {public.name}?")
    if confirmation.confirm_and_run(arguments, wanted, _show_enrollment, unsealed) is None:
        return 1
    say(f"Enrolled: {public.name} ({public.fingerprint}). From now on what only a person may do is signed.")
    say("Keep this fingerprint elsewhere, and enroll a second key: with every key lost nobody can decide here.")
    return 0


def _show_enrollment(question: DaemonQuestion) -> None:
    shown = question.shown
    say(f"Key {question.arguments['name']}, fingerprint {shown['key']}, {question.arguments['kind']}.")
    if shown["enrolled"]:
        say(f"Enrolled already: {', '.join(shown['enrolled'])}. One of them signs this.")
    else:
        say("It is the first key of this workspace: it is trusted from now on, whoever enrolls it.")
    say(f"Confirmed with it: {_format_settings(shown['settings'])}")


def _format_settings(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{name} = {value!r}" for name, value in settings.items())


def _open_or_make_key(name: str) -> tuple[tuple[StoredKey, Ed25519PrivateKey] | None, Key]:
    """The key of that name in this person's folder, else a new one, with its private half."""
    if found := sealed_keys.find(name):
        if found.key.kind != "sealed":
            raise SpeciateError(
                Code.CONFLICT, f"{name!r} is the name of a key of OpenSSH.", f"Name it: --ssh {found.ssh}, or --name"
            )
        say(f"The key of {found.path} is enrolled.")
        return None, found.key
    first = confirmation.passphrase(f"A passphrase for the new key {name}, {sealed_keys.SHORTEST} characters or more: ")
    if len(first) >= sealed_keys.SHORTEST and confirmation.passphrase("The same again: ") != first:
        raise SpeciateError(Code.INVALID, "The two passphrases are not the same.", "Repeat the command.")
    made = sealed_keys.create(name, first)
    say(f"The key lies in {made[0].path}, sealed; the passphrase is stored nowhere.")
    return made, made[0].key


def _read_ssh_key(path: Path, name: str) -> Key:
    try:
        with path.open() as file:
            text = file.read(_LONGEST)
    except (OSError, UnicodeDecodeError) as error:
        raise SpeciateError(
            Code.NOT_FOUND, f"{path} cannot be read as a public key: {error}.", "Name a file such as id_ed25519_sk.pub"
        ) from None
    return public_key(name, "ssh", text)


def _list_keys(arguments: argparse.Namespace) -> int:
    answer = ask_daemon(arguments, "keys", start=True)
    rows = [
        [each["fingerprint"], each["name"], each["kind"], _minute(each["enrolled"]),
         "in force" if each["revoked"] is None else "revoked"]
        for each in answer["keys"]
    ]  # fmt: skip
    if rows:
        say(format_table(rows))
    say(answer["worth"])
    for problem in answer["problems"]:
        say(f"Not as it should be: {problem}")
    return 1 if answer["problems"] else 0


def _revoke(arguments: argparse.Namespace) -> int:
    wanted = ActionRequest("key revoke", {"key": arguments.key}, f"Revoke the key {arguments.key}?")
    made = confirmation.confirm_and_run(arguments, wanted, _show_revocation)
    if made is None:
        return 1
    say(f"Revoked. {made['worth']}")
    return 0


def _show_revocation(question: DaemonQuestion) -> None:
    shown = question.shown
    say(f"Key {shown['name']}, fingerprint {shown['key']}. What it signed before stays valid.")
    if not shown["left"]:
        say("It is the last one: from then on anybody who runs programs with this account can approve again.")


def secret(arguments: argparse.Namespace) -> int:
    """Keys of services. They concern a person, not a workspace, and no tool reaches them."""
    return {"set": _set_secret, "list": _list_secrets, "remove": _remove_secret}[arguments.action](arguments)


def _set_secret(arguments: argparse.Namespace) -> int:
    """The key comes from the terminal, without echo, or else from a pipe: an argument would be seen in the list of
    processes and stay in the shell's history."""
    if sys.stdin.isatty():
        value = getpass.getpass(f"Key {arguments.name} (not shown): ")
    else:
        value = sys.stdin.read(LONGEST + 2)
    made = secrets.put(arguments.name, arguments.host, value.strip())
    say(f"{made.name} is stored in {secrets.file()}, for {', '.join(made.hosts)} alone.")
    return 0


def _list_secrets(arguments: argparse.Namespace) -> int:
    rows = [[key.name, ", ".join(key.hosts), _minute(key.stamp)] for key in secrets.list_secrets()]
    say(format_table(rows) if rows else "No key is stored: speciate secret set NAME --host HOST stores one.")
    return 0


def _minute(stamp: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(stamp))


def _remove_secret(arguments: argparse.Namespace) -> int:
    secrets.remove(arguments.name)
    say(f"{arguments.name} is gone from {secrets.file()}. At its service it is still valid.")
    return 0
