"""`speciate serve --install`: the daemon begins at login, and again whenever it ended, for unattended workspaces.

A systemd user unit on Linux, a launchd agent on macOS; one for each workspace. Whoever loses the election ends at once
with status 75 and is started again half a minute later, so a daemon that a client started first is only relieved. What
the daemon started lives on when it ends (`KillMode=process`). Standard library only.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from speciate.cli.output import say
from speciate.environment import clean_environment, config_folder, workspace_path
from speciate.errors import Code, SpeciateError
from speciate.jobs.folder import write_whole

_AGAIN_SECONDS = 30
_CALL_SECONDS = 30
_SYSTEMD, _LAUNCHD = "systemd", "launchd"
_LINGER = Path("/var/lib/systemd/linger")


class Unit(NamedTuple):
    """How the system is told of the daemon of one workspace."""

    manager: str
    name: str
    path: Path
    text: str
    command: tuple[str, ...]


class State(NamedTuple):
    installed: bool
    active: bool
    what: str


def install(arguments: argparse.Namespace) -> int:
    """Repeating it changes nothing. Raises UNAVAILABLE where no service manager of the user runs."""
    unit = unit_of(workspace_path(arguments.workspace))
    _require_manager(unit)
    known = unit.path.exists() and unit.path.read_text() == unit.text
    if not known:
        unit.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(unit.path, unit.text, mode=0o600)  # addresses of proxies may hold a password
    if unit.manager == _SYSTEMD:
        _call("systemctl", "--user", "daemon-reload")
        _call("systemctl", "--user", "enable", "--now", unit.name)
    else:
        if not known:
            _call("launchctl", "bootout", _domain(unit), required=False)
        _call("launchctl", "bootstrap", f"gui/{os.getuid()}", str(unit.path), required=False)
        _call("launchctl", "kickstart", _domain(unit))
    say(f"{'It was' if known else 'Now it is'} installed: {unit.path}")
    say("The daemon runs from login on, and begins again when it ends. To end that: speciate serve --uninstall")
    if unit.manager == _SYSTEMD and not _runs_after_logout():
        say("It ends at logout; to let it run without anybody logged in: loginctl enable-linger")
    return 0


def uninstall(arguments: argparse.Namespace) -> int:
    """Repeating it changes nothing. The daemon ends; its runs continue."""
    unit = unit_of(workspace_path(arguments.workspace))
    if not unit.path.exists():
        say(f"It was not installed: there is no {unit.path}")
        return 0
    if unit.manager == _SYSTEMD:
        _call("systemctl", "--user", "disable", "--now", unit.name, required=False)
    else:
        _call("launchctl", "bootout", _domain(unit), required=False)
    unit.path.unlink()
    if unit.manager == _SYSTEMD:
        _call("systemctl", "--user", "daemon-reload", required=False)
    say(f"Removed: {unit.path}. From now on the daemon begins when a client needs it, as everywhere else.")
    return 0


def state(workspace: Path) -> State:
    """For `speciate doctor`. Changes nothing."""
    unit = unit_of(workspace)
    if not unit.path.exists():
        why = _without_manager(unit)
        how = why or f"speciate serve --install --workspace {shlex.quote(str(workspace))} starts it at login"
        return State(False, False, f"not installed: the daemon begins when a client needs it ({how})")
    if unit.manager == _SYSTEMD:
        active = _call("systemctl", "--user", "is-active", unit.name, required=False) is not None
    else:
        active = _call("launchctl", "print", _domain(unit), required=False) is not None
    look = f"systemctl --user status {unit.name}" if unit.manager == _SYSTEMD else f"launchctl print {_domain(unit)}"
    return State(True, active, f"{unit.path}: {'active' if active else f'not active; see: {look}'}")


def unit_of(workspace: Path) -> Unit:
    """The service unit of a workspace, the same however the workspace's path is written."""
    root = Path(os.path.realpath(workspace))
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:8]
    short = re.sub(r"[^a-z0-9]+", "-", (root.parent.name if root.name == ".speciate" else root.name).lower()).strip("-")
    name = f"speciate-{short[:40] or 'workspace'}-{digest}"
    command = (sys.executable, "-P", "-m", "speciate.server.daemon", "--stay", "--workspace", str(root))
    variables = {name: value for name, value in clean_environment().items() if name != "SPECIATE_FAULT"}
    if sys.platform == "darwin":
        path = Path.home() / "Library" / "LaunchAgents" / f"{name}.plist"
        return Unit(_LAUNCHD, name, path, plist(name, command, variables), command)
    path = config_folder().parent / "systemd" / "user" / f"{name}.service"
    return Unit(_SYSTEMD, f"{name}.service", path, service(root, command, variables), command)


def service(workspace: Path, command: Sequence[str], variables: Mapping[str, str]) -> str:
    """A systemd unit. 75: another daemon owns the workspace, which is no failure."""
    environment = "\n".join(f"Environment={quoted(f'{name}={value}')}" for name, value in sorted(variables.items()))
    return f"""\
[Unit]
Description=speciate: {escaped(str(workspace))}
StartLimitIntervalSec=0

[Service]
ExecStart={" ".join(quoted(word).replace("$", "$$") for word in command)}
{environment}
Restart=always
RestartSec={_AGAIN_SECONDS}
SuccessExitStatus=75
KillMode=process
UMask=0077
StandardOutput=null

[Install]
WantedBy=default.target
"""


def plist(name: str, command: Sequence[str], variables: Mapping[str, str]) -> str:
    """A launchd agent: launchd.plist(5). By hand, for every `speciate serve` imports this file."""
    words = "".join(f"<string>{escape(word)}</string>" for word in command)
    environment = "".join(
        f"<key>{escape(name)}</key><string>{escape(value)}</string>" for name, value in sorted(variables.items())
    )
    return f"""\
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
<key>Label</key><string>{escape(name)}</string>
<key>ProgramArguments</key><array>{words}</array>
<key>EnvironmentVariables</key><dict>{environment}</dict>
<key>RunAtLoad</key><true/>
<key>KeepAlive</key><true/>
<key>ThrottleInterval</key><integer>{_AGAIN_SECONDS}</integer>
<key>AbandonProcessGroup</key><true/>
<key>Umask</key><integer>{0o077}</integer>
</dict>
</plist>
"""


def escaped(text: str) -> str:
    """systemd.unit(5): `%` begins a specifier; a value ends with its line."""
    return text.replace("%", "%%").replace("\n", " ")


def quoted(word: str) -> str:
    """systemd.syntax(7), quoting: in double quotes, with C escapes; in commands `$` must be doubled besides."""
    inside = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{inside}"'.replace("%", "%%")


def _require_manager(unit: Unit) -> None:
    why = _without_manager(unit)
    if why:
        raise SpeciateError(
            Code.UNAVAILABLE, "systemd runs no services for this user here, so nothing was installed.", why
        )


def _without_manager(unit: Unit) -> str:
    """What to do where there is none, as in most containers; empty where there is one."""
    if unit.manager == _LAUNCHD or _call("systemctl", "--user", "show-environment", required=False) is not None:
        return ""
    line = f"@reboot {shlex.join(unit.command)}".replace("%", "\\%")  # crontab(5): `%` would be a new line
    return f"Where systemd runs nothing for a user (a container, `su`), add this line with `crontab -e` instead: {line}"


def _runs_after_logout() -> bool:
    """Whether the user lingers: loginctl(1)."""
    return (_LINGER / pwd.getpwuid(os.getuid()).pw_name).exists()


def _domain(unit: Unit) -> str:
    return f"gui/{os.getuid()}/{unit.name}"


def _call(*command: str, required: bool = True) -> str | None:
    """What it says; None where it failed. Raises UNAVAILABLE where that matters."""
    program = shutil.which(command[0])
    problem = f"{command[0]} is not there"
    if program:
        try:
            ran = subprocess.run(
                [program, *command[1:]], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=_CALL_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            problem = f"{command[0]} did not answer within {_CALL_SECONDS} s"
        else:
            if ran.returncode == 0:
                return ran.stdout.strip()
            problem = ran.stderr.strip() or f"status {ran.returncode}"
    if required:
        raise SpeciateError(
            Code.UNAVAILABLE, f"`{shlex.join(command)}` failed: {problem}", "Mend that, then call it again."
        )
    return None
