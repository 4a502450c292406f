"""The commands about deployments."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, cast

from speciate.cli.daemon_commands import DaemonResult, ask_daemon
from speciate.cli.output import say

if TYPE_CHECKING:
    from speciate.server.control.messages import DeploymentDocument

_PATIENCE_SECONDS = 300.0
_LOOK_SECONDS = 0.5


def deployment(arguments: argparse.Namespace) -> int:
    return _ACTIONS[arguments.action](arguments)


def _start(arguments: argparse.Namespace) -> int:
    """0 once it serves; 1 where it does not, with what is known of why."""
    options = {
        name: getattr(arguments, name) for name in ("port", "max_batch", "max_wait_ms", "per_second", "replicas")
    }
    shown = _parse(ask_daemon(arguments, "slot start", start=True, use_case=arguments.use_case, options=options))
    end = time.monotonic() + _PATIENCE_SECONDS
    while not arguments.no_wait and shown["state"] in ("starting", "loading", "stopped") and time.monotonic() < end:
        time.sleep(_LOOK_SECONDS)
        shown = next(each for each in _list_deployments(arguments) if each["use_case"] == arguments.use_case)
        if shown["url"] and shown["wanted"] is None:
            break  # it listens; nothing is in production yet
    say(_deployment_text(shown))
    return 0 if arguments.no_wait or shown["serving"] or shown["wanted"] is None else 1


def _stop(arguments: argparse.Namespace) -> int:
    """Waits until it has ended: a start right after it would show, and a client would ask, the one that is leaving."""
    shown = _parse(ask_daemon(arguments, "slot stop", start=True, use_case=arguments.use_case))
    end = time.monotonic() + _PATIENCE_SECONDS
    while shown["state"] != "stopped" and time.monotonic() < end:
        time.sleep(_LOOK_SECONDS)
        shown = next(each for each in _list_deployments(arguments) if each["use_case"] == arguments.use_case)
    ended = shown["state"] == "stopped"
    say(f"The deployment of {arguments.use_case} {'has ended.' if ended else 'ends, after the requests in flight.'}")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    found = "\n".join(map(_deployment_text, _list_deployments(arguments)))
    say(found or "Nothing is deployed: speciate deployment start USE_CASE serves its production version over HTTP.")
    return 0


_ACTIONS = {"start": _start, "stop": _stop, "list": _list}


def _list_deployments(arguments: argparse.Namespace) -> list[DeploymentDocument]:
    found: list[DeploymentDocument] = ask_daemon(arguments, "slots", start=True)["slots"]
    return found


def _parse(answer: DaemonResult) -> DeploymentDocument:
    return cast("DeploymentDocument", answer)


def _deployment_text(deployment: DeploymentDocument) -> str:
    """What people want to know, a fact on each line."""
    facts = [f"{deployment['use_case']}: {deployment['state']}"]
    if deployment["serving"]:
        facts.append(f"serves {deployment['serving']} at {deployment['url']}/predict")
    elif deployment["url"]:
        facts.append(f"listens at {deployment['url']}")
    if deployment["replicas"] > 1:
        facts.append(f"{deployment['live']} of {deployment['replicas']} replicas live")
    if deployment["canary"]:
        facts.append(f"canary {deployment['canary']}")
    if deployment["loading"]:
        facts.append(f"loads {deployment['loading']}")
    if deployment["refused"]:
        facts.append(f"refused {deployment['refused']}")
    if deployment["overloaded"]:
        facts.append(f"turned away {deployment['overloaded']} requests since the last promotion, as too many waited")
    if deployment["problem"]:
        facts.append(deployment["problem"])
    if deployment["wanted"] is None:
        facts.append("nothing is in production yet: promote_model or specialize puts a model there")
    facts.append(f"token in {deployment['token']}")
    return "\n  ".join(facts)
