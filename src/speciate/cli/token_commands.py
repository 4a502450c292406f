"""`speciate token`: who may come over the network, and as what. A person issues; the secret is shown once."""

from __future__ import annotations

import argparse
import time
from functools import partial

from speciate.cli import confirmation
from speciate.cli.confirmation import ActionRequest, DaemonQuestion
from speciate.cli.daemon_commands import ask_daemon
from speciate.cli.output import format_table, say
from speciate.errors import Code, SpeciateError
from speciate.governance import tokens
from speciate.governance.roles import ACTS


def token(arguments: argparse.Namespace) -> int:
    return {"create": _create, "list": _list, "revoke": _revoke}[arguments.action](arguments)


def _create(arguments: argparse.Namespace) -> int:
    """The daemon gets the hash alone, and the terminal gets the secret once the token is in force."""
    made = tokens.make()
    request = {
        "name": arguments.name, "role": arguments.role, "days": arguments.days, "id": made.id, "digest": made.digest,
        "use_cases": arguments.use_cases,
    }  # fmt: skip
    wanted = ActionRequest("token create", request, f"Issue the token {arguments.name}?")
    issued = confirmation.confirm_and_run(arguments, wanted, partial(_show, wanted=list(arguments.use_cases or ())))
    if issued is None:
        return 1
    say(f"{issued['name']}: {issued['role']}, until {_day(issued['expires'])}. Shown here once, and stored nowhere:")
    say(made.secret)
    return 0


def _show(question: DaemonQuestion, wanted: list[str]) -> None:
    asked, shown = question.arguments, question.shown
    if sorted(asked.get("use_cases") or ()) != sorted(set(wanted)):
        raise SpeciateError(
            Code.INTERNAL,
            "The daemon asks about a token for other use cases than you named: it is of an earlier version.",
            "speciate stop, then this again.",
        )
    acts = sorted(ACTS[asked["role"]])
    say(f"Token {asked['name']}, role {asked['role']}, for {asked['days']:g} days.")
    say(f"Whoever has it may: {'; '.join(acts)}.")
    if scope := asked.get("use_cases"):
        say(f"It changes {', '.join(scope)} alone, and sees everything.")
    if shown["tokens"]:
        say(f"In force already: {', '.join(shown['tokens'])}.")
    if not shown["address"]:
        say("The pages are for this machine alone until `address` stands below [team] in settings.toml.")


def _list(arguments: argparse.Namespace) -> int:
    answer = ask_daemon(arguments, "tokens", start=True)
    rows = [
        [each["name"], each["role"], ", ".join(each["use_cases"]) or "all", each["id"],
         f"until {_day(each['expires'])}"]
        for each in answer["tokens"]
    ]  # fmt: skip
    say(format_table(rows) if rows else "No token is in force: speciate token create NAME --role viewer issues one.")
    say(f"People sign in at {answer['address']}/login." if answer["address"] else "No [team] address in settings.toml.")
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    ended = ask_daemon(arguments, "token revoke", start=True, name=arguments.name)
    say(f"{ended['name']} ({ended['role']}) is revoked, and what it opened ends with it.")
    return 0


def _day(stamp: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(stamp))
