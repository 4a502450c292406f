"""`speciate install CLIENT`: makes this server known to an agent or editor, and gives it the skill.

One entry is merged into the client's configuration and everything else there stays: the file is written whole, keeps
its mode and its place behind a link, and a copy of what it was lies beside it. What cannot be merged without a guess
(JSON with comments, TOML that would change otherwise) is refused, with the lines to add by hand.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import speciate.prompts
from speciate.cli.output import format_table, say
from speciate.environment import workspace_path
from speciate.errors import Code, SpeciateError
from speciate.jobs.folder import write_whole

NAME = "speciate"
_BACKUP = ".before-speciate"
_CALL_SECONDS = 60
_START_SECONDS = 30
"""Codex waits 10 s by default, and a busy machine may take longer for a first daemon."""


class Client(NamedTuple):
    """Where a client keeps its servers and skills; paths are relative to the home folder, or to the project's."""

    title: str
    user: str
    key: str = "mcpServers"
    project: str = ""
    """Empty: it has no configuration for one project."""
    kind: Mapping[str, str] = {}
    """What an entry says beside the command."""
    skills: str = ""
    project_skills: str = ""
    command: str = ""
    """The client's own program: it rewrites `user` while it runs, so it is asked where it is on the path."""
    then: str = ""
    """What to do next."""


_MAC = sys.platform == "darwin"
_CONFIG = "Library/Application Support" if _MAC else ".config"
CLIENTS = {
    "claude": Client(
        "Claude Code",
        ".claude.json",
        project=".mcp.json",
        kind={"type": "stdio"},
        skills=".claude/skills",
        project_skills=".claude/skills",
        command="claude",
        then="In Claude Code: /mcp shows it, /mcp__speciate__specialize begins; it asks once about a folder's file",
    ),
    "claude-desktop": Client(
        "Claude Desktop", f"{_CONFIG}/Claude/claude_desktop_config.json", then="Start Claude Desktop again"
    ),
    "vscode": Client(
        "VS Code",
        f"{_CONFIG}/Code/User/mcp.json",
        "servers",
        ".vscode/mcp.json",
        {"type": "stdio"},
        project_skills=".github/skills",
        then="In VS Code: MCP: List Servers shows it, /mcp.speciate.specialize in the chat begins",
    ),
    "cursor": Client(
        "Cursor",
        ".cursor/mcp.json",
        project=".cursor/mcp.json",
        skills=".cursor/skills",
        project_skills=".cursor/skills",
        then="In Cursor: Settings, MCP shows it",
    ),
    "codex": Client(
        "Codex",
        ".codex/config.toml",
        "mcp_servers",
        project=".codex/config.toml",
        skills=".agents/skills",
        project_skills=".agents/skills",
        then="In Codex: /mcp shows it; a folder's file counts where Codex trusts the folder",
    ),
    "gemini": Client(
        "Gemini CLI",
        ".gemini/settings.json",
        project=".gemini/settings.json",
        skills=".gemini/skills",
        project_skills=".gemini/skills",
        then="In Gemini CLI: /mcp shows it, in folders that Gemini trusts",
    ),
}


class Entry(NamedTuple):
    """How a client starts the server."""

    command: str
    arguments: tuple[str, ...]

    def document(self, client: Client) -> dict[str, Any]:
        return {**client.kind, "command": self.command, "args": list(self.arguments)}


def install(arguments: argparse.Namespace) -> int:
    """Installs the server in a client; without a client it shows a table of them. Repeating a call changes nothing."""
    home, here = Path.home(), Path.cwd()
    if arguments.client is None:
        say(format_table(_table(home, here), ("client", "", "for you", "for this folder")))
        return 0
    client = CLIENTS[arguments.client]
    if arguments.project and not client.project:
        raise SpeciateError(
            Code.INVALID, f"{client.title} has no configuration for one folder.", f"speciate install {arguments.client}"
        )
    entry = _entry(arguments.workspace, arguments.tools)
    base = here if arguments.project else home
    file = base / (client.project if arguments.project else client.user)
    if arguments.print:
        say(snippet(client, entry))
        sys.stderr.write(f"{client.title} reads it in {file}.{_unsaid_workspace(arguments.workspace)}\n")
        return 0
    if arguments.remove:
        say(_write(file, client, None, own=not arguments.project))
    else:
        say(_write(file, client, entry, own=not arguments.project))
    if skills := client.project_skills if arguments.project else client.skills:
        say(_remove_skill(base / skills) if arguments.remove else _copy_skill(base / skills))
    if not arguments.remove:
        say(f"{client.then}.{_unsaid_workspace(arguments.workspace)}")
    return 0


def _unsaid_workspace(given: str | None) -> str:
    """Clients start servers with an environment of their own."""
    named = os.environ.get("SPECIATE_HOME")
    if given or not named:
        return ""
    return f" It does not name $SPECIATE_HOME, which clients may lack: --workspace {shlex.quote(named)} does."


def state(home: Path) -> dict[str, bool]:
    """Client -> whether it knows this server, for those that are on this machine. For `speciate doctor`."""
    found = {}
    for name, client in CLIENTS.items():
        file = home / client.user
        if file.exists() or (file.parent.is_dir() and file.parent != home):
            found[name] = _known(file, client)
    return found


# The entry


def _entry(workspace: str | None, tools: str = "all") -> Entry:
    """The client's entry for this server, by its absolute path: clients start servers with another PATH than a terminal
    has."""
    if "archive-v0" in Path(sys.prefix).parts:
        raise SpeciateError(
            Code.CONFLICT,
            "This speciate lies in a cache that uv empties, so a client would lose it.",
            "Install it where it stays (uv tool install speciate, or pip install), then repeat this.",
        )
    program = Path(sys.executable).parent / NAME
    serve: tuple[str, ...] = (
        "serve",
        *(("--workspace", str(workspace_path(workspace).resolve())) if workspace else ()),
    )
    if tools != "all":
        serve += ("--tools", tools)
    if program.exists():
        return Entry(str(program), serve)
    return Entry(sys.executable, ("-m", NAME, *serve))


def snippet(client: Client, entry: Entry) -> str:
    """What to add by hand."""
    if _is_toml(client):
        return _toml(client, entry)
    return json.dumps({client.key: {NAME: entry.document(client)}}, indent=2, ensure_ascii=False)


# Merging, pure


def merge_json(text: str, key: str, entry: Mapping[str, Any] | None) -> str:
    """The file with the entry (None: without it), everything else as it was. Raises ValueError for what is no JSON
    object, as with comments."""
    found = json.loads(text) if text.strip() else {}
    servers = found.setdefault(key, {}) if isinstance(found, dict) else None
    if not isinstance(servers, dict):
        raise ValueError(f"{key} is not an object")
    if entry is None:
        servers.pop(NAME, None)
    else:
        servers[NAME] = dict(entry)
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def merge_toml(text: str, key: str, block: str | None) -> str:
    """Likewise, by lines, so that comments stay. Raises ValueError where anything but the entry would change."""
    lines, kept, ours = text.splitlines(), [], False
    for line in lines:
        if line.lstrip().startswith("["):
            header = line.strip().strip("[]").replace('"', "").replace(" ", "")
            ours = header == f"{key}.{NAME}" or header.startswith(f"{key}.{NAME}.")
        if not ours:
            kept.append(line)
    made = "\n".join(kept).rstrip("\n")
    made = "\n\n".join(part for part in (made, (block or "").rstrip("\n")) if part) + "\n"
    wanted = tomllib.loads(block)[key][NAME] if block else None
    if _apart(tomllib.loads(made), key) != (wanted, *_apart(tomllib.loads(text), key)[1:]):
        raise ValueError("the entry is written in a form that cannot be replaced")
    return made


def _apart(document: Mapping[str, Any], key: str) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Our entry, the other servers, everything else."""
    rest = dict(document)
    servers = dict(rest.pop(key, {}))
    return servers.pop(NAME, None), servers, rest


def _toml(client: Client, entry: Entry) -> str:
    # a JSON string of printable text is a TOML string
    values = ", ".join(json.dumps(each, ensure_ascii=False) for each in entry.arguments)
    command = json.dumps(entry.command, ensure_ascii=False)
    start = f"startup_timeout_sec = {_START_SECONDS}\n"
    return f"[{client.key}.{NAME}]\ncommand = {command}\nargs = [{values}]\n{start}"


# Writing


def _write(file: Path, client: Client, entry: Entry | None, *, own: bool) -> str:
    file = file.resolve()  # of a link, what it points at
    try:
        old = file.read_text() if file.exists() else ""
        if entry is None and not _in(old, client):
            return f"{file}: {NAME} was not there"
        if _is_toml(client):
            text = merge_toml(old, client.key, _toml(client, entry) if entry else None)
        else:
            text = merge_json(old, client.key, entry.document(client) if entry else None)
    except (ValueError, AttributeError) as error:
        raise SpeciateError(
            Code.CONFLICT,
            f"{file} cannot be changed without a guess: {error}.",
            f"Add this by hand:\n{snippet(client, entry)}" if entry else f"Take {NAME} out by hand.",
        ) from error
    if _same(old, text, client):
        return f"{file}: nothing to do, {NAME} is there"
    if own and client.command and (program := shutil.which(client.command)):
        return _ask_client(program, entry, known=_in(old, client))
    file.parent.mkdir(parents=True, exist_ok=True)
    kept = ""
    if old:
        backup = file.with_name(file.name + _BACKUP)
        write_whole(backup, old, mode=0o600)
        kept = f" (as it was: {backup.name})"
    write_whole(file, text, mode=file.stat().st_mode & 0o777 if old else 0o600)
    return f"{file}: {'removed' if entry is None else 'added'} {NAME}{kept}"


def _ask_client(program: str, entry: Entry | None, *, known: bool) -> str:
    """`claude mcp add`, which knows how it keeps its own file."""
    calls: list[tuple[str, ...]] = [("remove", "--scope", "user", NAME)] if known else []
    if entry:
        calls.append(("add", "--scope", "user", NAME, "--", entry.command, *entry.arguments))
    for call in calls:
        done = subprocess.run(
            [program, "mcp", *call], capture_output=True, text=True, timeout=_CALL_SECONDS, check=False
        )
        if done.returncode:
            raise SpeciateError(
                Code.UNAVAILABLE, f"{program} mcp {call[0]} failed: {(done.stderr or done.stdout).strip()}",
                "Mend that, or use --project, which writes .mcp.json.",
            )  # fmt: skip
    return f"{program} mcp {calls[-1][0]}: done"


def _is_toml(client: Client) -> bool:
    return client.user.endswith(".toml")


def _servers(text: str, client: Client) -> Mapping[str, Any]:
    found = (tomllib.loads(text) if _is_toml(client) else json.loads(text or "{}")).get(client.key, {})
    return found if isinstance(found, dict) else {}


def _in(text: str, client: Client) -> bool:
    return NAME in _servers(text, client)


def _same(old: str, new: str, client: Client) -> bool:
    return bool(old) and _servers(old, client).get(NAME) == _servers(new, client).get(NAME)


def _known(file: Path, client: Client) -> bool:
    try:
        return file.exists() and _in(file.read_text(), client)
    except (OSError, ValueError, AttributeError):
        return False


def _table(home: Path, here: Path) -> list[tuple[str, str, str, str]]:
    def said(file: Path, client: Client) -> str:
        return "installed" if _known(file, client) else "-"

    return [
        (
            name,
            client.title,
            said(home / client.user, client),
            said(here / client.project, client) if client.project else "",
        )
        for name, client in CLIENTS.items()
    ]


# The skill


def _skill() -> Path:
    return Path(next(iter(speciate.prompts.__path__))) / "plugin" / "skills" / NAME


def _copy_skill(skills: Path) -> str:
    """Files of an older version are replaced; others in the folder stay."""
    target, changed = skills / NAME, 0
    for source in sorted(path for path in _skill().rglob("*.md")):
        file = target / source.relative_to(_skill())
        if not file.exists() or file.read_bytes() != source.read_bytes():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, source.read_text(), mode=0o644)
            changed += 1
    return f"{target}: {'the skill' if changed else 'nothing to do, the skill is there'}"


def _remove_skill(skills: Path) -> str:
    target = skills / NAME
    ours = [target / source.relative_to(_skill()) for source in _skill().rglob("*.md")]
    there = [file for file in ours if file.exists()]
    for file in there:
        file.unlink()
    for folder in sorted({file.parent for file in ours}, reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    return f"{target}: {'removed' if there else 'the skill was not there'}"
