"""`speciate watch`: what is watched, what came of it, why nothing did; and to pause and resume one.

The daemon knows it; this shows it.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, cast

from speciate.cli.daemon_commands import ask_daemon
from speciate.cli.output import format_table, say
from speciate.errors import Code, SpeciateError

if TYPE_CHECKING:
    from speciate.loop.watch.report import TickDocument, WatchDocument


def watch(arguments: argparse.Namespace) -> int:
    """Raises INVALID where a use case is to be named."""
    if arguments.action != "list" and not arguments.use_case:
        raise SpeciateError(
            Code.INVALID, f"watch {arguments.action} is about one use case.", "speciate watch list names them."
        )
    if arguments.action == "list":
        found = ask_daemon(arguments, "watches", start=True)
        shown = cast("list[WatchDocument]", found["watches"])
        say(json.dumps(found, indent=2) if arguments.json else format_list(shown))
    elif arguments.action == "why":
        found = ask_daemon(arguments, "why", start=True, use_case=arguments.use_case, days=arguments.days)
        looks = cast("list[TickDocument]", found["looks"])
        say(json.dumps(found, indent=2) if arguments.json else format_why(looks))
    else:
        more = {"enabled": arguments.action == "resume"} if arguments.action != "show" else {}
        action = "watch switch" if more else "watch"
        one = cast("WatchDocument", ask_daemon(arguments, action, start=True, use_case=arguments.use_case, **more))
        say(json.dumps(one, indent=2) if arguments.json else format_watch(one))
    return 0


def format_list(found: list[WatchDocument]) -> str:
    if not found:
        return "Nothing is watched: watch_use_case(use_case='NAME', triggers=[{'on': 'data_shift'}]) begins."
    rows = [[each["use_case"], each["state"], moment(each["since"]), each["because"]] for each in found]
    return format_table(rows, ["use case", "state", "since", "because"])


def format_watch(found: WatchDocument) -> str:
    lines = [
        f"{found['use_case']}: {found['state']} since {moment(found['since'])}",
        f"  because     {found['because']}",
        f"  triggers    {', '.join(found['triggers'])}",
        f"  next look   {moment(found['next_look']) if found['enabled'] else 'none while it is paused'}",
        f"  this month  {found['minutes_left']:.0f} minutes, ${found['usd_left']:.2f} and {found['labels_left']} "
        "labels are left",
    ]
    if limit := found.get("not_promised"):
        lines.append(f"  not promised  {limit}")
    if found["labels_asked"]:
        lines.append(f"  labels      {found['labels_answered']} of {found['labels_asked']} came")
    for each in found["episodes"]:
        outcome = each["outcome"] or "runs"
        causes = ", ".join(cast("list[str]", each["causes"]))
        lines.append(f"  episode {each['number']}   {moment(cast(float, each['begun']))}  {causes}: {outcome}")
        if each["because"]:
            lines.append(f"              {each['because']}")
    return "\n".join(lines)


def format_why(looks: list[TickDocument]) -> str:
    """Oldest first: a run of equal looks is one line."""
    if not looks:
        return "It was not looked at in that time."
    return "\n".join(
        f"{moment(each['first'])} to {moment(each['last'])}  {each['state']}: {each['because']} "
        f"({each['times']:,} look{'s' if each['times'] != 1 else ''})"
        for each in reversed(looks)
    )


def moment(at: float) -> str:
    """A time as the machine's clock shows it, such as `2026-03-01 14:05`."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
