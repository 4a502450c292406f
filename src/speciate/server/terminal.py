"""The commands that only a person gives: they want a terminal, show what is decided, and ask for a typed yes.

No tool reaches these. A program that runs as the same user could still imitate a person on a pseudo-terminal; that is
a boundary of the operating system, not of this file.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import sys
import time
from typing import Any

from speciate.environment import workspace_path
from speciate.errors import Code, SpeciateError
from speciate.hosts import check_host
from speciate.server.online import control
from speciate.settings import load


def approve(arguments: argparse.Namespace) -> int:
    return _decide(arguments, "approve")


def deny(arguments: argparse.Namespace) -> int:
    return _decide(arguments, "deny")


def policy(arguments: argparse.Namespace) -> int:
    """Of the workspace, or of one use case."""
    workspace, use_case = workspace_path(arguments.workspace), arguments.use_case
    settings = load(workspace)
    current = settings.policy_of(use_case) if use_case else settings.policy
    if arguments.policy is None or arguments.policy == current:
        _say(current)
        for name, own in settings.policies.items() if use_case is None else ():
            _say(f"{name}: {own}")
        return 0
    need()
    _say(f"Workspace {workspace}" + (f", use case {use_case}" if use_case else ""))
    _say(f"Now: {_MEANING[current]}\nThen: {_MEANING[arguments.policy]}")
    if not yes(f"Change the policy to {arguments.policy}?"):
        return 1
    control(arguments, "policy", start=True, policy=arguments.policy, use_case=use_case, by=who())
    return 0


def promote(arguments: argparse.Namespace) -> int:
    """Overrides what stands against a promotion. What nothing stands against needs none: promote_model does it."""
    need()
    wanted = {"use_case": arguments.use_case, "model": arguments.model, "canary_percent": arguments.canary_percent}
    shown = control(arguments, "promotion", start=True, **wanted)
    if not shown["objections"]:
        _say("Nothing stands against it, so there is nothing to override: call promote_model.")
        return 1
    _say(f"{shown['model']} would serve {arguments.use_case}, where {shown['serving'] or 'nothing'} serves now.")
    _say("Against it stands:\n" + "\n".join(f"  - {each}" for each in shown["objections"]))
    _say(f"Your name ({who()}) and your reason go into the audit: {arguments.override}")
    if not yes("Let it serve all the same?"):
        return 1
    about = {"reason": arguments.override, "serving": shown["serving"], "objections": shown["objections"]}
    made = control(arguments, "override", start=True, by=who(), **wanted, **about)
    _say(json.dumps(made, indent=2))
    return 0


def hosts(arguments: argparse.Namespace) -> int:
    """Those at private addresses that may be asked. Taking one away needs no typed yes."""
    workspace = workspace_path(arguments.workspace)
    if arguments.action == "list":
        for host in load(workspace).private_hosts:
            _say(host)
        return 0
    host = check_host(arguments.host or "")
    need()
    if arguments.action == "add":
        _say(f"Models at {host} may then be asked, also where that is this machine or leads into a private network.")
        _say("What listens there may pass on what it is sent. What leaves this machine needs `speciate allow` besides.")
        if not yes(f"List {host}?"):
            return 1
    control(arguments, "host", start=True, add=arguments.action == "add", host=host, by=who())
    return 0


def allow(arguments: argparse.Namespace) -> int:
    if arguments.list:
        for each in control(arguments, "consents", start=True)["consents"]:
            _say(_consent(each))
        return 0
    if None in (arguments.dataset, arguments.host, arguments.usd):
        raise SpeciateError(
            Code.INVALID,
            "Which dataset, which host, and for how much money?",
            "speciate allow DATASET --host HOST --usd CAP [--days N], or speciate allow --list",
        )
    need()
    asked = control(arguments, "consent", start=True, dataset=arguments.dataset, host=arguments.host)
    _say(f"{asked['rows']} examples of {asked['dataset']} ({asked['modality']}), and all later versions of it,")
    _say(f"may then be sent to {asked['host']}, for up to {arguments.usd:g} USD in all,")
    days = arguments.days
    _say("until it is taken back (speciate disallow)." if days is None else f"for {days:g} days.")
    if asked["before"]:
        _say(f"Now: {_consent(asked['before'])}")
    if not yes("Allow exactly this?"):
        return 1
    granted = {"dataset": arguments.dataset, "host": arguments.host, "usd": arguments.usd, "days": arguments.days}
    _say(_consent(control(arguments, "allow", start=True, by=who(), **granted)))
    return 0


def disallow(arguments: argparse.Namespace) -> int:
    """Without a typed yes: it only takes away."""
    need()
    ended = control(arguments, "disallow", start=True, dataset=arguments.dataset, host=arguments.host, by=who())
    _say(f"Taken back: {_consent(ended)}")
    _say("Jobs that run already go on; control_job(action='cancel') stops one.")
    return 0


def _consent(given: dict[str, Any]) -> str:
    end = "" if given["expires"] is None else f", until {time.ctime(given['expires'])}"
    spent = f"{given['spent_usd']:.2f} of {given['usd_cap']:g} USD spent"
    return f"{given['dataset']} to {given['host']}: {spent}{end}, by {given['by']}"


_MEANING = {
    "auto": "auto: a passing decision alone moves a model into production",
    "person": "person: a model moves into production after a passing decision and a person's approval",
}


def _decide(arguments: argparse.Namespace, action: str) -> int:
    need()
    approval = control(arguments, "approval", start=True, id=arguments.id)
    if approval["state"] != "pending":
        raise SpeciateError(
            Code.CONFLICT,
            f"Approval {approval['id']!r} is {approval['state']}: each is answered once, before it expires.",
            "See list_approvals for what waits.",
        )
    _say(f"{approval['id']} ({approval['state']}, expires {time.ctime(approval['expires'])})")
    _say(f"Action: {approval['action']}")
    _say("Arguments: " + json.dumps(approval["arguments"], indent=2))
    _say("Evidence: " + json.dumps(approval["evidence"], indent=2))
    if not yes(f"{action.capitalize()} exactly this?"):
        return 1
    made = control(arguments, action, start=True, id=arguments.id, hash=approval["hash"], by=who())
    _say(json.dumps(made, indent=2))
    return 0 if made["state"] == ("approved" if action == "approve" else "denied") else 1


def who() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def need() -> None:
    if not sys.stdin.isatty():
        raise SpeciateError(
            Code.REFUSED, "Only a person decides this, and standard input is no terminal.", "Run it in a terminal."
        )


def yes(question: str) -> bool:
    answer = input(f"{question} Type yes: ")
    if answer.strip() != "yes":
        _say("Nothing was changed.")
        return False
    return True


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
