"""`speciate key`: whose signature a decision in a workspace needs."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from speciate.errors import Code, SpeciateError
from speciate.production.statement import Key, public_key, ssh_keygen
from speciate.server import person, sealed_key
from speciate.server.online import control
from speciate.server.person import Asked, Wanted
from speciate.server.sealed_key import Stored

_LONGEST = 4096
_BARE = (
    "This is a key of type {}, which wants no touch. Where its file has no passphrase, or an agent has it open, any "
    "program of your account can sign with it: an approval is then worth as much as that key file or its agent. "
    "Better: a hardware key (ssh-keygen -t ed25519-sk), or a key that speciate seals (leave out --ssh)."
)


def key(arguments: argparse.Namespace) -> int:
    return {"enroll": _enroll, "list": _list, "revoke": _revoke}[arguments.action](arguments)


def _enroll(arguments: argparse.Namespace) -> int:
    person.need()
    unsealed, mine = None, Path(arguments.ssh).expanduser().absolute() if arguments.ssh else None
    if mine:
        ssh_keygen()
        public = _ssh(mine, arguments.name or person.who().replace(" ", "-"))
        if public.bare:
            _say(_BARE.format(public.public.split()[0]))
            if not person.yes("Enroll it all the same?"):
                return 1
        sealed_key.remember(public, mine)
    else:
        unsealed, public = _sealed(arguments.name or person.who().replace(" ", "-"))
    request = {"name": public.name, "kind": public.kind, "public": public.public}
    wanted = Wanted("key enroll", request, f"Enroll the key {public.name}?")
    if person.decide(arguments, wanted, _show_enrollment, unsealed) is None:
        return 1
    _say(f"Enrolled: {public.name} ({public.fingerprint}). From now on what only a person may do is signed.")
    _say("Keep this fingerprint elsewhere, and enroll a second key: with every key lost nobody can decide here.")
    return 0


def _show_enrollment(asked: Asked) -> None:
    shown = asked.shown
    _say(f"Key {asked.arguments['name']}, fingerprint {shown['key']}, {asked.arguments['kind']}.")
    if shown["enrolled"]:
        _say(f"Enrolled already: {', '.join(shown['enrolled'])}. One of them signs this.")
    else:
        _say("It is the first key of this workspace: it is trusted from now on, whoever enrolls it.")
    _say(f"Confirmed with it: {_settings(shown['settings'])}")


def _settings(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} = {value!r}" for name, value in settings.items())


def _sealed(name: str) -> tuple[tuple[Stored, Ed25519PrivateKey] | None, Key]:
    """The key of that name in this person's folder, else a new one, with its private half."""
    if found := sealed_key.find(name):
        if found.key.kind != "sealed":
            raise SpeciateError(
                Code.CONFLICT, f"{name!r} is the name of a key of OpenSSH.", f"Name it: --ssh {found.ssh}, or --name"
            )
        _say(f"The key of {found.path} is enrolled.")
        return None, found.key
    first = person.passphrase(f"A passphrase for the new key {name}, {sealed_key.SHORTEST} characters or more: ")
    if len(first) >= sealed_key.SHORTEST and person.passphrase("The same again: ") != first:
        raise SpeciateError(Code.INVALID, "The two passphrases are not the same.", "Repeat the command.")
    made = sealed_key.create(name, first)
    _say(f"The key lies in {made[0].path}, sealed; the passphrase is stored nowhere.")
    return made, made[0].key


def _ssh(path: Path, name: str) -> Key:
    try:
        with path.open() as file:
            text = file.read(_LONGEST)
    except (OSError, UnicodeDecodeError) as error:
        raise SpeciateError(
            Code.NOT_FOUND, f"{path} cannot be read as a public key: {error}.", "Name a file such as id_ed25519_sk.pub"
        ) from None
    return public_key(name, "ssh", text)


def _list(arguments: argparse.Namespace) -> int:
    told = control(arguments, "keys", start=True)
    for each in told["keys"]:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(each["enrolled"]))
        state = "in force" if each["revoked"] is None else "revoked"
        _say(f"{each['fingerprint']}  {each['name']:20}  {each['kind']:6}  {when}  {state}")
    _say(told["worth"])
    for problem in told["problems"]:
        _say(f"Not as it should be: {problem}")
    return 1 if told["problems"] else 0


def _revoke(arguments: argparse.Namespace) -> int:
    wanted = Wanted("key revoke", {"key": arguments.key}, f"Revoke the key {arguments.key}?")
    made = person.decide(arguments, wanted, _show_revocation)
    if made is None:
        return 1
    _say(f"Revoked. {made['worth']}")
    return 0


def _show_revocation(asked: Asked) -> None:
    shown = asked.shown
    _say(f"Key {shown['name']}, fingerprint {shown['key']}. What it signed before stays valid.")
    if not shown["left"]:
        _say("It is the last one: from then on anybody who runs programs with this account can approve again.")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
