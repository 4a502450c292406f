"""`speciate`: one visible table of commands. Each loads only what it needs, so that `--help` and `serve` are quick."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from speciate import __version__
from speciate.errors import SpeciateError, closest, near_names
from speciate.governance.roles import ROLES
from speciate.promotion.verify_evidence import add_arguments
from speciate.workspace import filesystem

COMMANDS = {
    "init": "speciate.cli.workspace_commands:init",
    "install": "speciate.cli.install_command:install",
    "serve": "speciate.cli.daemon_commands:serve",
    "call": "speciate.cli.call_command:call",
    "completion": "speciate.cli.completion_command:completion",
    "open": "speciate.cli.page_commands:open_pages",
    "status": "speciate.cli.workspace_commands:status",
    "stop": "speciate.cli.daemon_commands:stop",
    "doctor": "speciate.cli.doctor:doctor",
    "backup": "speciate.cli.verify_commands:backup",
    "resume": "speciate.cli.daemon_commands:resume",
    "refresh": "speciate.cli.daemon_commands:refresh",
    "fingerprint": "speciate.cli.daemon_commands:fingerprint",
    "rebuild": "speciate.cli.workspace_commands:rebuild",
    "approve": "speciate.cli.approval_commands:approve",
    "deny": "speciate.cli.approval_commands:deny",
    "promote": "speciate.cli.approval_commands:promote",
    "policy": "speciate.cli.approval_commands:policy",
    "hosts": "speciate.cli.approval_commands:hosts",
    "sign": "speciate.cli.signing_commands:sign",
    "verify": "speciate.cli.verify_commands:verify",
    "allow": "speciate.cli.approval_commands:allow",
    "disallow": "speciate.cli.approval_commands:disallow",
    "secret": "speciate.cli.key_commands:secret",
    "key": "speciate.cli.key_commands:key",
    "token": "speciate.cli.token_commands:token",
    "audit": "speciate.cli.approval_commands:audit",
    "evidence": "speciate.cli.evidence_commands:evidence",
    "ledger": "speciate.cli.ledger_commands:ledger",
    "deployment": "speciate.cli.deployment_commands:deployment",
    "slot": "speciate.cli.deployment_commands:deployment",  # its former name
    "labels": "speciate.cli.label_commands:labels",
    "trace": "speciate.cli.label_commands:trace",
    "watch": "speciate.cli.watch_commands:watch",
    "places": "speciate.cli.place_commands:places",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command. 0: done; 1: refused, with the reason on stderr; 2: wrong usage."""
    parser = _parser()
    if (given := sys.argv[1:] if argv is None else argv) and given[0].partition("=")[0] == "--workspace":
        parser.error("--workspace stands after the command: speciate COMMAND --workspace DIR")
    arguments, left = parser.parse_known_args(argv)
    if left and (arguments.command != "call" or any(each.startswith("-") for each in left)):
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    if left:
        arguments.pairs += left  # NAME=VALUE behind an option, which argparse leaves over
    module, _, function = COMMANDS[arguments.command].partition(":")
    try:
        return int(getattr(importlib.import_module(module), function)(arguments))
    except SpeciateError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # who reads has seen enough
        sys.stdout = None  # lest the interpreter flushes into the closed pipe
        return 0
    except OSError as error:
        if (refusal := filesystem.explain(error)) is None:
            raise
        print(refusal, file=sys.stderr)
        return 1


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exits as argparse does, but tells what a misspelt command was meant to be, instead of all there are."""
        if wrong := re.match(r"argument [A-Za-z]+: invalid choice: '(.*?)' \(choose from (.*)\)$", message):
            known = re.findall(r"'([^']+)'", wrong[2])
            near = closest(wrong[1], known)
            if "show" in known and not near_names(wrong[1], known):
                near = f"did you mean `{self.prog} show {wrong[1]}`?"
            message = f"there is no {wrong[1]!r}; {near} `{self.prog} --help` lists all."
        super().error(message)


_WHOLE_ANSWER = "tell what was done as JSON, all of it"


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--workspace",
        metavar="DIR",
        help="the workspace (default: $SPECIATE_HOME, else ./.speciate where it exists, else ~/.speciate)",
    )
    parser: argparse.ArgumentParser = _Parser(
        prog="speciate",
        description="General models know a little of everything; speciate turns them into special ones.",
    )
    parser.add_argument("--version", action="version", version=f"speciate {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, what: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=what, description=what, parents=[shared])

    init = command("init", "make a new workspace")
    init.add_argument("--policy", choices=("auto", "person"), default="person", help="who lets models into production")
    _add_install(command)
    _add_serve(command)
    _add_call(commands, shared)
    command("status", "what the daemon of the workspace does").add_argument(
        "--json", action="store_true", help="also on a terminal; elsewhere always"
    )
    command("stop", "end the daemon; runs continue and are adopted by the next one")
    _add_doctor_and_places(command)
    _add_completion(command, parser)
    backup = command("backup", "copy the workspace into a new folder, which is a workspace itself")
    backup.add_argument("target", metavar="DIR")
    command("resume", "resume the jobs that are paused because the workspace is a copy of another one")
    refresh = command("refresh", "ask for the world's models again: installed packages and the hub")
    refresh.add_argument("sources", metavar="SOURCE", nargs="*", help="timm, mteb, prices, hub ...; default: all")
    refresh.add_argument("--vectors", action="store_true", help="embed what they are for, too: takes minutes")
    pinned = command("fingerprint", "ask endpoints pinned questions: do they still serve what they served?")
    pinned.add_argument("model", metavar="MODEL", nargs="?", help="default: every registered endpoint")
    pinned.add_argument("--dataset", help="whose consent pays; default: the one with most left for the host")
    pinned.add_argument("--usd", type=float, metavar="CAP", help="what it may cost at most, each (default: 0.25)")
    command("rebuild", "make the catalog again, from the newest automatic backup and the run folders")
    for name, what in (("approve", "let a waiting action happen"), ("deny", "refuse a waiting action")):
        decision = command(name, f"{what} (asks on the terminal)")
        decision.add_argument("id", metavar="APPROVAL")
        decision.add_argument("--json", action="store_true", help=_WHOLE_ANSWER)
    _add_person_commands(command)
    _add_key(commands, shared)
    _add_token(commands, shared)
    secret = commands.add_parser("secret", help="keys of services: set, list, remove", description="Keys of services.")
    actions = secret.add_subparsers(dest="action", required=True, metavar="ACTION")
    put = actions.add_parser("set", help="store a key: asked for on a terminal, else read from standard input")
    put.add_argument("name", metavar="NAME")
    put.add_argument("--host", required=True, action="append", help="the only host that it may be sent to; repeatable")
    actions.add_parser("list", help="names, hosts and when each was set; never the keys")
    actions.add_parser("remove", help="forget a key").add_argument("name", metavar="NAME")
    audit = command("audit", "check the trail of alias moves, policy and consents")
    audit.add_argument("action", choices=("verify", "list", "accept"))
    audit.add_argument("--head", metavar="HASH", help="verify: the hash of a row, as it was kept elsewhere")
    audit.add_argument("--use-case", metavar="NAME", help="list: of this one alone; '*': of the workspace")
    audit.add_argument("--last", type=int, default=50, metavar="N", help="list: so many rows (default: 50)")
    _add_evidence(commands, shared)
    _add_ledger(command)
    _add_deployment(commands, shared)
    _add_answer_commands(command)
    _add_watch(command)
    return parser


def _add_doctor_and_places(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    doctor = command("doctor", "check this machine, the installation and the workspace's disk")
    doctor.add_argument("--fix", action="store_true", help="mend what can be mended; says what, then asks")
    doctor.add_argument("--yes", action="store_true", help="with --fix: without asking")
    places = command("places", "clusters of settings.toml where runs may go; with --probe a small job tries each")
    places.add_argument("place", metavar="NAME", nargs="?", help="this one alone")
    places.add_argument("--probe", action="store_true", help="run a job of one core there, and tell what it finds")
    places.add_argument("--seconds", type=float, default=60, metavar="N", help="for its answer (default: 60)")
    places.add_argument("--json", action="store_true", help="for programs")


def _add_completion(command: Callable[[str, str], argparse.ArgumentParser], parser: argparse.ArgumentParser) -> None:
    shell = command("completion", "print what completes commands, tools and arguments in a shell")
    shell.add_argument("shell", choices=("bash", "zsh", "fish"))
    shell.set_defaults(commands=parser)


def _add_install(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    install = command("install", "make this server known to an agent or editor, with its skill; alone: which know it")
    install.add_argument(
        "client", nargs="?", choices=("claude", "claude-desktop", "vscode", "cursor", "codex", "gemini")
    )
    install.add_argument("--project", action="store_true", help="for this folder, to share, instead of for you")
    install.add_argument("--tools", choices=("all", "core"), default="all", help="core: show the client fewer tools")
    what = install.add_mutually_exclusive_group()
    what.add_argument("--print", action="store_true", help="only print what to add, change nothing")
    what.add_argument("--remove", action="store_true", help="take it back")


def _add_serve(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    serve = command("serve", "speak MCP on standard input and output (for agents and IDEs)")
    how = serve.add_mutually_exclusive_group()
    how.add_argument("--http", type=_port, metavar="PORT", help="serve streamable HTTP on 127.0.0.1 instead; 0: any")
    how.add_argument("--install", action="store_true", help="let the system start the daemon at login")
    how.add_argument("--uninstall", action="store_true", help="take that back")
    serve.add_argument("--tools", choices=("all", "core"), default="all", help="core: the usual way in fewer tools")
    serve.add_argument("--system", action="store_true", help="as root: with --install, under a user of its own")
    serve.add_argument("--fixture", action="append", default=[], help=argparse.SUPPRESS)


def _add_ledger(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    ledger = command("ledger", "how long models take from the use case to production, what they cost, how they hold")
    ledger.add_argument("--json", action="store_true", help="all of it, for programs")
    ledger.add_argument("--image", "--picture", metavar="FILE.svg", help="draw the stages, too")


def _add_watch(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    watch = command("watch", "what is watched, what came of it, and why nothing did")
    watch.add_argument("action", choices=("list", "show", "pause", "resume", "why"))
    watch.add_argument("use_case", metavar="USE_CASE", nargs="?")
    watch.add_argument("--days", type=float, default=7, metavar="N", help="why: so many days back (default: 7)")
    watch.add_argument("--json", action="store_true", help="for programs")


def _add_evidence(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser
) -> None:
    evidence = commands.add_parser(
        "evidence",
        help="signed bundles of what a decision rests on: export, verify, key",
        description="Bundles that somebody outside checks offline.",
    )
    actions = evidence.add_subparsers(dest="action", required=True, metavar="ACTION")
    export = actions.add_parser("export", help="write one, with the script that checks it", parents=[shared])
    export.add_argument("use_case", metavar="USE_CASE")
    export.add_argument("path", metavar="DIR", help="a new folder")
    export.add_argument("--evaluation", metavar="ID", help="default: the one that production rests on")
    export.add_argument(
        "--rows", action="store_true", help="also ids, references and groups of the judged rows, in a file"
    )
    actions.add_parser("key", help="fingerprint of the key that signs, for whoever checks", parents=[shared])
    verify = actions.add_parser("verify", help="check one, as the script does: needs no workspace")
    add_arguments(verify)


def _add_call(commands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser) -> None:
    what = "call one tool; its result goes to standard output as JSON"
    call = commands.add_parser("call", help=what, description=what, parents=[shared], add_help=False)
    call.add_argument("-h", "--help", action="store_true", help="show this, or the arguments of TOOL")
    call.add_argument("tool", metavar="TOOL", nargs="?", help="without it, the tools are listed")
    call.add_argument("pairs", metavar="NAME=VALUE", nargs="*", help="its arguments; lists and objects as JSON")
    call.add_argument("--args", default="{}", metavar="JSON", help="the same as one JSON object")
    call.add_argument("--wait", action="store_true", help="until the job that it starts has ended, showing progress")
    call.add_argument("--image", metavar="FILE.png", help="write the image beside the result, if there is one")
    call.set_defaults(usage=call.format_help)


def _add_key(commands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser) -> None:
    key = commands.add_parser(
        "key", help="keys that sign what a person decides: enroll, list, revoke", description="Keys of people."
    )
    actions = key.add_subparsers(dest="action", required=True, metavar="ACTION")
    enroll = actions.add_parser("enroll", help="from then on decisions are signed", parents=[shared])
    enroll.add_argument("--name", metavar="NAME", help="of the key (default: your account)")
    enroll.add_argument("--ssh", metavar="PUBLIC_KEY", help="a key of OpenSSH, such as a hardware key's .pub file")
    enroll.add_argument("--passkey", metavar="TEXT", help="a passkey that a browser made: what its page shows")
    actions.add_parser("list", help="which are enrolled", parents=[shared])
    revoke = actions.add_parser("revoke", help="a key signs nothing any more", parents=[shared])
    revoke.add_argument("key", metavar="KEY", help="its name, or how its fingerprint begins")


def _add_token(commands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser) -> None:
    token = commands.add_parser(
        "token", help="who may come over the network: create, list, revoke", description="Tokens of a team."
    )
    actions = token.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="issue one (asks on the terminal)", parents=[shared])
    create.add_argument("name", metavar="NAME", help="whose it is; the audit names it so")
    create.add_argument("--role", required=True, choices=ROLES)
    create.add_argument("--days", type=float, default=90, metavar="N", help="how long it lasts (default: 90)")
    create.add_argument(
        "--use-case", dest="use_cases", action="append", default=[], metavar="USE_CASE",
        help="change this one alone; repeat it for more (default: all)",
    )  # fmt: skip
    actions.add_parser("list", help="which are in force", parents=[shared])
    actions.add_parser("revoke", help="end one, with its sessions", parents=[shared]).add_argument(
        "name", metavar="NAME"
    )


def _add_deployment(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser
) -> None:
    deployment = commands.add_parser(
        "deployment",
        aliases=["slot"],
        help="serving over HTTP: start, stop, list",
        description="A process that serves a use case over HTTP.",
    )
    actions = deployment.add_subparsers(dest="action", required=True, metavar="ACTION")
    begin = actions.add_parser("start", help="serve what is in production for a use case", parents=[shared])
    begin.add_argument("use_case", metavar="USE_CASE")
    begin.add_argument("--port", type=_port, metavar="PORT", help="on 127.0.0.1; default: one that is free, kept")
    begin.add_argument("--max-batch", type=int, metavar="N", help="inputs that are answered together at most")
    begin.add_argument("--max-wait-ms", type=float, metavar="MS", help="how long an input waits for others")
    begin.add_argument("--per-second", type=float, metavar="N", help="requests that are let through on average")
    begin.add_argument("--replicas", type=int, metavar="N", help="processes on its port; where one dies, others answer")
    begin.add_argument("--no-wait", action="store_true", help="do not wait until it serves")
    actions.add_parser("stop", help="end it, after the requests in flight", parents=[shared]).add_argument(
        "use_case", metavar="USE_CASE"
    )
    actions.add_parser("list", help="what serves where, and what was not let serve", parents=[shared])


def _add_answer_commands(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    labels = command("labels", "which answers of a use case to label next, and how good the labelled ones are")
    labels.add_argument("use_case", metavar="USE_CASE")
    labels.add_argument("--strategy", choices=("mixed", "random", "uncertain", "disagreement"), default="mixed")
    labels.add_argument("--count", type=int, default=10, metavar="N")
    labels.add_argument("--ask", action="store_true", help="ask for each label on the terminal")
    trace = command("trace", "all that an answer rests on; or what came of a dataset, an example of it or a model")
    trace.add_argument("ref", metavar="REF", help="pred-..., DATASET, DATASET@v3, MODEL@v3, a base model")
    trace.add_argument("--example", metavar="ID", help="of the dataset: which models read it, and what they answered")
    trace.add_argument("--group", metavar="KEY", help="of the dataset, likewise")
    trace.add_argument("--image", "--picture", metavar="FILE", help="write it as .svg or .png, too")


def _add_person_commands(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    pages = command("open", "pages for people in a browser: look, compare, decide, label")
    pages.add_argument("--decide", action="store_true", help="also to decide (asks on the terminal)")
    pages.add_argument("--no-browser", action="store_true", help="only print the link")
    policy = command("policy", "show or change who lets models into production (asks on the terminal)")
    policy.add_argument("policy", nargs="?", choices=("auto", "person"))
    policy.add_argument("--use-case", metavar="NAME", help="of this one alone")
    policy.add_argument("--confirm", action="store_true", help="what was changed in settings.toml by hand is wanted")
    promote = command("promote", "let a model serve although its evidence does not (asks on the terminal)")
    promote.add_argument("use_case", metavar="USE_CASE")
    promote.add_argument("model", metavar="MODEL")
    promote.add_argument("--override", metavar="REASON", required=True, help="why; it goes into the audit")
    promote.add_argument("--canary-percent", type=float, metavar="N", help="for so many percent of the requests")
    promote.add_argument("--json", action="store_true", help=_WHOLE_ANSWER)
    hosts = command("hosts", "show or change which hosts at private addresses may be asked (asks on the terminal)")
    hosts.add_argument("action", choices=("list", "add", "remove"))
    hosts.add_argument("host", metavar="HOST", nargs="?", help="as in 127.0.0.1:8000, or without a port for all")
    allow = command(
        "allow", "let a dataset's examples be sent to a host, up to a sum, or to a place (asks on the terminal)"
    )
    allow.add_argument("dataset", metavar="DATASET", nargs="?")
    allow.add_argument("--list", action="store_true", help="show what is allowed and what was spent")
    allow.add_argument("--host", help="as in api.openai.com, or the name of a place")
    allow.add_argument("--usd", type=float, metavar="CAP", help="what may be spent there in all; not for a place")
    allow.add_argument("--days", type=float, help="for how long; without it, until it is taken back")
    disallow = command("disallow", "take back what was allowed")
    disallow.add_argument("dataset", metavar="DATASET")
    disallow.add_argument("--host", required=True)
    sign = command("sign", "put a signature beside a model version's files (asks on the terminal)")
    sign.add_argument("model", metavar="MODEL")
    sign.add_argument("--key", metavar="PRIVATE.pem", required=True)
    verify = command("verify", "read files again: a model version's signature, or with --all everything that is kept")
    verify.add_argument("model", metavar="MODEL", nargs="?", help="compare its files with its signature")
    verify.add_argument("--key", metavar="PUBLIC.pem", help="default: those of the settings")
    verify.add_argument("--all", action="store_true", help="every file of the workspace: damaged and missing ones")
    verify.add_argument("--quarantine", action="store_true", help="move damaged parts of logs and caches away")
    verify.add_argument("--json", action="store_true", help="what was found, for programs")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65_535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: write a number from 0 (any) to 65535")
    return int(text)
