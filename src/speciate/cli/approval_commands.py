"""The commands that only a person gives: they want a terminal, show what is decided, and ask for a signature, or for a
typed yes where no key is enrolled.

No tool reaches these. A program that runs as the same user can imitate a typed yes on a pseudo-terminal; a signature
wants the passphrase or the touch, too (`confirmation.py`).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from speciate.cli import confirmation
from speciate.cli.confirmation import (
    ActionRequest,
    DaemonQuestion,
    account_name,
    ask_question,
    confirm_and_run,
    require_terminal,
)
from speciate.cli.daemon_commands import ask_daemon, format_audit_row
from speciate.cli.output import say_clean
from speciate.environment import workspace_path
from speciate.errors import Code, SpeciateError
from speciate.hosts import check_host
from speciate.server.dial import NoDaemon
from speciate.settings import PLACE, load

if TYPE_CHECKING:
    from speciate.server.control.messages import ConsentDocument


def approve(arguments: argparse.Namespace) -> int:
    return _decide(arguments, "approve")


def deny(arguments: argparse.Namespace) -> int:
    return _decide(arguments, "deny")


def policy(arguments: argparse.Namespace) -> int:
    """Shows or sets the policy of the workspace or of one use case. `--confirm` confirms all of settings.toml that
    decides what needs a person."""
    if arguments.confirm:
        return _confirm(arguments)
    workspace, use_case = workspace_path(arguments.workspace), arguments.use_case
    if arguments.policy is None:
        current, policies = _policies(arguments)
        say_clean(policies.get(use_case, current) if use_case else current)
        for name, own in policies.items() if use_case is None else ():
            say_clean(f"{name}: {own}")
        return 0
    request = {"policy": arguments.policy, "use_case": use_case}

    def show(question: DaemonQuestion) -> None:
        say_clean(f"Workspace {workspace}" + (f", use case {use_case}" if use_case else ""))
        say_clean(f"Now: {_MEANING[question.shown['now']]}\nThen: {_MEANING[arguments.policy]}")

    require_terminal()
    if ask_question(arguments, "policy", request).shown["now"] == arguments.policy:
        say_clean(arguments.policy)
        return 0
    made = confirm_and_run(
        arguments, ActionRequest("policy", request, f"Change the policy to {arguments.policy}?"), show
    )
    return 1 if made is None else 0


def _policies(arguments: argparse.Namespace) -> tuple[str, dict[str, str]]:
    """The policies from the daemon, where one runs: it may hold to stricter ones than the file. Starts none."""
    try:
        status = ask_daemon(arguments, "status")
    except NoDaemon:
        settings = load(workspace_path(arguments.workspace))
        return settings.policy, dict(settings.policies)
    return status["policy"], status["policies"]


def _confirm(arguments: argparse.Namespace) -> int:
    confirmed = list[str]()

    def show(question: DaemonQuestion) -> None:
        before, now = question.shown["before"], question.shown["settings"]
        for name, value in now.items():
            confirmed.append(f"{name} = {json.dumps(value)}")
            changed = "" if value == before.get(name) else f"  (confirmed: {json.dumps(before.get(name))})"
            say_clean(f"{name} = {json.dumps(value)}{changed}")

    made = confirm_and_run(arguments, ActionRequest("settings", {}, "Confirm these settings?"), show)
    if made is None:
        return 1
    say_clean("\n".join(["Confirmed:", *confirmed]))
    say_clean("The daemon ends now; the next call starts one that does it.")
    return 0


def promote(arguments: argparse.Namespace) -> int:
    """Overrides what stands against a promotion. What nothing stands against needs none: promote_model does it."""
    require_terminal()
    wanted = {"use_case": arguments.use_case, "model": arguments.model, "canary_percent": arguments.canary_percent}
    if not ask_daemon(arguments, "promotion", start=True, **wanted)["objections"]:
        say_clean("Nothing stands against it, so there is nothing to override: call promote_model.")
        return 1

    def show(question: DaemonQuestion) -> Mapping[str, object]:
        shown = question.shown
        say_clean(
            f"{shown['model']} would serve {arguments.use_case}, where {shown['serving'] or 'nothing'} serves now."
        )
        say_clean("Against it stands:\n" + "\n".join(f"  - {each}" for each in shown["objections"]))
        say_clean(f"Your name ({account_name()}) and your reason go into the audit: {arguments.override}")
        return {"serving": shown["serving"], "objections": shown["objections"]}

    request = {**wanted, "reason": arguments.override}
    made = confirm_and_run(arguments, ActionRequest("override", request, "Let it serve all the same?"), show)
    if made is None:
        return 1
    told = f"Overridden by {account_name()}: {_promoted(arguments.use_case, made)}"
    say_clean(json.dumps(made, indent=2) if arguments.json else told)
    return 0


def hosts(arguments: argparse.Namespace) -> int:
    """Lists, adds or removes hosts at private addresses that may be asked. Taking one away needs no typed yes."""
    if arguments.action == "list":
        found = _private_hosts(arguments)
        say_clean("\n".join(found) if found else "No private host is allowed: speciate hosts add HOST allows one.")
        return 0
    host, add = check_host(arguments.host or ""), arguments.action == "add"

    def show(question: DaemonQuestion) -> None:
        if add:
            say_clean(
                f"Models at {host} may then be asked, also where that is this machine or leads into a private network."
            )
            say_clean(
                "What listens there may pass on what it is sent; what leaves this machine needs speciate allow, too."
            )

    sentence = f"List {host}?" if add else f"Take {host} away?"
    made = confirm_and_run(arguments, ActionRequest("host", {"add": add, "host": host}, sentence, ask_yes=add), show)
    return 1 if made is None else 0


def _private_hosts(arguments: argparse.Namespace) -> list[str]:
    try:
        return list(ask_daemon(arguments, "status")["private_hosts"])
    except NoDaemon:
        return list(load(workspace_path(arguments.workspace)).private_hosts)


def allow(arguments: argparse.Namespace) -> int:
    if arguments.list:
        for each in ask_daemon(arguments, "consents", start=True)["consents"]:
            say_clean(_consent(each))
        return 0
    may_be_place = PLACE.fullmatch(arguments.host or "") or "/" in (arguments.host or "")
    if None in (arguments.dataset, arguments.host) or (arguments.usd is None and not may_be_place):
        raise SpeciateError(
            Code.INVALID,
            "Which dataset, which host, and for how much money?",
            "speciate allow DATASET --host HOST --usd CAP [--days N], for a place without --usd; speciate allow --list",
        )
    days = arguments.days

    def show(question: DaemonQuestion) -> None:
        shown = question.shown
        if shown["modality"]:
            say_clean(f"{shown['rows']} examples of {shown['dataset']} ({shown['modality']}),")
        else:
            say_clean(f"There is no dataset {shown['dataset']} yet. What it is made of, once it is,")
        if shown["place"]:
            say_clean(f"and all later versions of it, may then be moved to {shown['place']}: into {shown['host']},")
            say_clean("where every node of that cluster can read it,")
        else:
            say_clean(f"and all later versions of it, may then be sent to {shown['host']},")
            say_clean(f"for up to {arguments.usd:g} USD in all,")
        say_clean("until it is taken back (speciate disallow)." if days is None else f"for {days:g} days.")
        if shown["before"]:
            say_clean(f"Now: {_consent(shown['before'])}")

    request = {"dataset": arguments.dataset, "host": arguments.host, "usd": arguments.usd, "days": days}
    made = confirm_and_run(arguments, ActionRequest("allow", request, "Allow exactly this?"), show)
    if made is None:
        return 1
    say_clean(_consent(cast("ConsentDocument", made)))
    return 0


def disallow(arguments: argparse.Namespace) -> int:
    """Takes a consent away, without a typed yes: it allows nothing."""
    request = {"dataset": arguments.dataset, "host": arguments.host}

    def show(question: DaemonQuestion) -> None:
        if question.shown["before"]:
            say_clean(_consent(question.shown["before"]))

    ended = confirm_and_run(arguments, ActionRequest("disallow", request, "Take this back?", ask_yes=False), show)
    if ended is None:
        return 1
    say_clean("Taken back: " + _consent(cast("ConsentDocument", ended)))
    say_clean("Running jobs continue; control_job(action='cancel') stops one.")
    return 0


def _consent(given: ConsentDocument) -> str:
    end = "" if given["expires"] is None else f", until {time.ctime(given['expires'])}"
    if given["usd_cap"]:
        spent = f": {given['spent_usd']:.2f} of {given['usd_cap']:g} USD spent"
        return f"{given['dataset']} to {given['host']}{spent}{end}, by {given['by']}"
    where = f"{given['place']} ({given['host']})" if given.get("place") else given["host"]
    return f"{given['dataset']} to {where}{end}, by {given['by']}"


_MEANING = {
    "auto": "auto: a passing decision alone moves a model into production",
    "person": "person: a model moves into production after a passing decision and a person's approval",
}


def _decide(arguments: argparse.Namespace, action: str) -> int:
    require_terminal()
    approval = ask_daemon(arguments, "approval", start=True, id=arguments.id)
    if approval["state"] != "pending":
        raise SpeciateError(
            Code.CONFLICT,
            f"Approval {approval['id']!r} is {approval['state']}: each is answered once, before it expires.",
            "See list_approvals for what waits.",
        )

    def show(question: DaemonQuestion) -> Mapping[str, object]:
        say_clean(f"{question.shown['id']} ({approval['state']}, expires {time.ctime(question.shown['expires'])})")
        say_clean(f"Action: {question.action}")
        say_clean("Arguments: " + json.dumps(question.arguments, indent=2))
        say_clean("Evidence: " + json.dumps(question.shown["evidence"], indent=2))
        return {"hash": question.shown["hash"]}

    made = confirm_and_run(
        arguments, ActionRequest(action, {"id": arguments.id}, f"{action.capitalize()} exactly this?"), show
    )
    if made is None:
        return 1
    told = format_answer(approval["action"], approval["arguments"], made, account_name())
    say_clean(json.dumps(made, indent=2) if arguments.json else told)
    return 0 if made["state"] == ("approved" if action == "approve" else "denied") else 1


_NEXT_STATUS = "\nNext: speciate call get_status use_case={}"


def format_answer(action: str, asked: Mapping[str, Any], made: Mapping[str, Any], by: str) -> str:
    """What came of a person's answer to `action` with the arguments `asked`, and the next step.

    `made`: the daemon's `state`, `result` and `reason`.
    """
    if made["state"] == "denied":
        return f"Denied by {by}: nothing was changed."
    if made["result"] is None:
        return f"Nothing was done, and the question is closed: {made['reason']}"
    result, job = made["result"], made["result"].get("job")
    match action:
        case "promote":
            effect = _promoted(asked["use_case"], result)
        case "define_use_case":
            name = result["use_case"]
            effect = (
                f"version {result['version']} of {name} is in force.\nNext: speciate call get_status use_case={name}"
            )
        case "delete":
            effect = f"{', '.join(result['deleted'])} deleted; {job} removes the files."
        case "purge":
            effect = f"{job} purges {asked['dataset']}."
        case _:
            effect = f"{job} converts the weights of {result['model']}."
    after = f"\nNext: speciate call wait_for_job job={job} --wait" if job else ""
    return f"Approved by {by}: {effect}{after}"


def _promoted(use_case: str, result: Mapping[str, Any]) -> str:
    model, before = result["to"], result["from"] or "nothing"
    if share := result.get("canary_percent"):
        effect = f"{model} answers {share:g} % of the requests to {use_case}."
    elif model == before:
        effect = str(result["reasons"][0])  # it was there already
    else:
        effect = f"{model} serves {use_case}, where {before} served before."
    return effect + _NEXT_STATUS.format(use_case)


def audit(arguments: argparse.Namespace) -> int:
    """Read the audit trail, check it, or accept one that is not the known one (after a restore)."""
    return {"verify": _verify, "list": _list, "accept": _accept}[arguments.action](arguments)


def _list(arguments: argparse.Namespace) -> int:
    rows = ask_daemon(arguments, "trail", start=True, use_case=arguments.use_case, most=arguments.last)["rows"]
    say_clean("\n".join(map(format_audit_row, rows)) if rows else "Nothing stands in the trail yet.")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    """1 where something is wrong with the trail, which the first line after the head names."""
    head = confirmation.read_kept_head(arguments)
    kept = head._asdict() if head else None
    verdict = ask_daemon(arguments, "audit", start=True, head=arguments.head, kept=kept)
    signed = f", {verdict['signed']} signed" if verdict["signed"] else ""
    say_clean("\n".join([f"{verdict['rows']} rows{signed}, head {verdict['head']}", *verdict["problems"]]))
    return 1 if verdict["problems"] else 0


def _accept(arguments: argparse.Namespace) -> int:
    """Accepts the trail as it is, after a backup was restored, say: what is missing stays missing, and the trail
    continues."""
    made = confirmation.confirm_and_run(arguments, ActionRequest("accept", {}, "Continue from this trail?"), _show)
    if made is None:
        return 1
    say_clean(f"Accepted, with row {made['audit'][:16]}.")
    return 0


def _show(question: DaemonQuestion) -> None:
    for problem in question.shown["problems"] or ["Nothing is wrong with the trail."]:
        say_clean(problem)
