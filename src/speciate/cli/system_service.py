"""`speciate serve --install --system`: the daemon under a user of its own, for all members of a group. Linux, as root.

A person's shell, and an agent in it, can then neither write to the catalog, nor replace the daemon's program, nor
signal or trace it; the kernel tells the daemon who called. The daemon reads only what its own user may: files for it
belong below a folder that `roots` in its settings.toml names and that this user can read. Standard library only.
"""

from __future__ import annotations

import argparse
import grp
import os
import pwd
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from speciate.cli.output import say
from speciate.cli.user_service import escaped, quoted
from speciate.environment import SYSTEM_SOCKETS, SYSTEM_UNITS, clean_environment, system_unit
from speciate.errors import Code, SpeciateError
from speciate.jobs.folder import write_whole

_CALL_SECONDS = 60
_AGAIN_SECONDS = 1
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 40
_KEPT = ("PATH", "LANG", "LC_ALL", "HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE")


class System(NamedTuple):
    """Where it is set up, and for whom."""

    user: str = "speciate"
    group: str = "speciate-users"
    state: Path = Path("/var/lib/speciate")
    units: Path = SYSTEM_UNITS

    @property
    def workspace(self) -> Path:
        return self.state / "workspace"


def install(arguments: argparse.Namespace) -> int:
    """Repeating it changes nothing. Raises REFUSED for anybody but root."""
    system = System()
    workspace = Path(arguments.workspace).absolute() if arguments.workspace else system.workspace
    unit = set_up(system, workspace)
    started = _run("systemctl", "daemon-reload") and _run("systemctl", "enable", "--now", unit.name)
    say(f"Installed: {unit}. The daemon of {workspace} runs as {system.user}.")
    if not started:
        command = shlex.join(command_of(system, workspace))
        say(f"systemd does not run here. As {system.user}, with {SYSTEM_SOCKETS} made for it: {command}")
    say(f"Who may call it: usermod -aG {system.group} NAME, then a new login, and: --workspace {workspace}")
    say(f"It reads only what {system.user} may read, below `roots` in {workspace}/settings.toml.")
    say("Then a person enrolls a key: speciate key enroll. Until then each member of the group may approve.")
    return 0


def uninstall(arguments: argparse.Namespace) -> int:
    """The unit and the group go; the workspace and the user that owns it stay."""
    system = System()
    _require_root()
    workspace = Path(arguments.workspace).absolute() if arguments.workspace else system.workspace
    unit = take_back(system, workspace)
    say(f"Removed: {unit}." if unit else f"It was not installed for {workspace}.")
    say(f"{system.state} and the user {system.user} are still there; to remove them: userdel -r {system.user}")
    return 0


def set_up(system: System, workspace: Path) -> Path:
    """User, group, folders and unit. Returns the unit's file."""
    _require_root()
    _require_reachable(Path(sys.executable), system.user)
    if not _known(grp.getgrnam, system.group):
        _require("groupadd", "--system", system.group)
    if not _known(pwd.getpwnam, system.user):
        _require(
            "useradd", "--system", "--user-group", "--no-create-home", "--home-dir", str(system.state), "--shell",
            "/usr/sbin/nologin", system.user,
        )  # fmt: skip
    owner = pwd.getpwnam(system.user)
    for folder, mode in ((system.state, 0o711), (system.state / "config", 0o700), (workspace, 0o700)):
        _own_folder(folder, owner, mode)
    unit = system.units / system_unit(workspace).name
    write_whole(unit, text(system, workspace), mode=0o644)
    return unit


def _own_folder(folder: Path, owner: pwd.struct_passwd, mode: int) -> None:
    """Made where it is not there. Root gives nothing away by it: each step holds the folder before it open, and follows
    no link but root's. Raises REFUSED where another user owns the folder, or can rename what is on the way to it."""
    parent = _enter(folder, owner)
    try:
        made = True
        try:
            os.mkdir(folder.name, 0o700, dir_fd=parent)
        except FileExistsError:
            made = False
        try:
            descriptor = os.open(folder.name, _FOLDER, dir_fd=parent)
        except OSError as error:
            raise SpeciateError(
                Code.REFUSED, f"{folder} is a link, or no folder: {error.strerror}.", "Name the folder itself."
            ) from None
    finally:
        os.close(parent)
    try:
        info = os.fstat(descriptor)
        if info.st_uid != owner.pw_uid and not (made and info.st_uid == os.geteuid()):
            raise SpeciateError(
                Code.REFUSED,
                f"{folder} belongs to another user than {owner.pw_name}, who must own it.",
                f"Where it is to be this daemon's, run: chown -R {owner.pw_name}: {folder}",
            )
        os.fchown(descriptor, owner.pw_uid, owner.pw_gid)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _enter(folder: Path, owner: pwd.struct_passwd) -> int:
    """A descriptor of what `folder` lies in; what is missing on the way is made, as root's."""
    here, links = os.open("/", _FOLDER), 0
    left = list(reversed(folder.absolute().parts[1:-1]))
    try:
        while left:
            part = left.pop()
            try:
                info = os.stat(part, dir_fd=here, follow_symlinks=False)
            except FileNotFoundError:
                os.mkdir(part, 0o755, dir_fd=here)
                info = os.stat(part, dir_fd=here, follow_symlinks=False)
            if stat.S_ISLNK(info.st_mode):
                links += 1
                if info.st_uid != 0 or links > _MOST_LINKS:
                    raise _changeable(folder, part)
                target = Path(os.readlink(part, dir_fd=here))
                if target.is_absolute():
                    os.close(here)
                    here = os.open("/", _FOLDER)
                left.extend(reversed(target.parts[1:] if target.is_absolute() else target.parts))
                continue
            there = os.open(part, _FOLDER, dir_fd=here)
            os.close(here)
            here = there
            info = os.fstat(here)
            if info.st_uid not in {0, owner.pw_uid} or (info.st_mode & 0o022 and not info.st_mode & stat.S_ISVTX):
                raise _changeable(folder, part)
    except OSError as error:
        os.close(here)
        raise SpeciateError(
            Code.REFUSED, f"{folder} cannot be reached: {error.strerror}.", "Name another --workspace."
        ) from None
    except SpeciateError:
        os.close(here)
        raise
    return here


def _changeable(folder: Path, part: str) -> SpeciateError:
    return SpeciateError(
        Code.REFUSED,
        f"Others than root can change {part!r} on the way to {folder}, and put another folder in its place.",
        "Name a --workspace in a folder where only root can write, as /srv/speciate, or leave it out.",
    )


def take_back(system: System, workspace: Path) -> Path | None:
    """Returns the unit's file that was removed."""
    unit = system.units / system_unit(workspace).name
    if not unit.exists():
        return None
    _run("systemctl", "disable", "--now", unit.name)
    unit.unlink()
    _run("systemctl", "daemon-reload")
    if not list(system.units.glob("speciate-*.service")) and _known(grp.getgrnam, system.group):
        _require("groupdel", system.group)
    return unit


def command_of(system: System, workspace: Path) -> list[str]:
    served = ["--stay", "--workspace", str(workspace), "--group", system.group]
    return [sys.executable, "-P", "-m", "speciate.server.daemon", *served]


def variables(system: System) -> dict[str, str]:
    """The daemon's environment: nothing of whoever installs it but addresses and languages."""
    kept = {name: value for name, value in clean_environment().items() if name in _KEPT}
    return kept | {
        "HOME": str(system.state), "XDG_CONFIG_HOME": str(system.state / "config"),
        "XDG_RUNTIME_DIR": str(SYSTEM_SOCKETS),
    }  # fmt: skip


def text(system: System, workspace: Path) -> str:
    """A systemd unit. The first group is the one that is served, so that the sockets' folder is open to it."""
    told = sorted(variables(system).items())
    environment = "\n".join(f"Environment={quoted(f'{name}={value}')}" for name, value in told)
    return f"""\
[Unit]
Description=speciate: {escaped(str(workspace))}
StartLimitIntervalSec=0

[Service]
User={system.user}
Group={system.group}
ExecStart={" ".join(quoted(word).replace("$", "$$") for word in command_of(system, workspace))}
{environment}
Restart=always
RestartSec={_AGAIN_SECONDS}
SuccessExitStatus=75
KillMode=process
UMask=0077
LimitNOFILE=65536
StandardOutput=null
RuntimeDirectory={SYSTEM_SOCKETS.name}
RuntimeDirectoryMode=0750
RuntimeDirectoryPreserve=yes
ReadWritePaths={quoted(str(system.state))} {quoted(str(workspace))}
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
"""


def _require_root() -> None:
    if sys.platform != "linux":
        raise SpeciateError(Code.UNAVAILABLE, "--system is there on Linux alone.", "Leave it out: serve --install")
    if os.geteuid() != 0:
        raise SpeciateError(
            Code.REFUSED, "Only root sets up a user and a service of the system.", "Run it with sudo, by its full path."
        )


def _require_reachable(program: Path, user: str) -> None:
    """Each folder on the way to it, and what a link on the way names: one that is closed to others is closed to the
    daemon's user; one that others can change is a way around all of this."""
    for path in (program, Path(os.path.realpath(program)), Path(__file__)):
        for each in (path.absolute(), *path.absolute().parents):
            info = each.stat()
            mode = info.st_mode
            if info.st_uid != 0 or (mode & 0o022 and not mode & stat.S_ISVTX):
                raise SpeciateError(
                    Code.REFUSED,
                    f"Others than root can change {each}, and with it the daemon's program.",
                    "Install speciate as root where only root can write, as in a venv at /opt/speciate.",
                )
            if not mode & (stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH):
                raise SpeciateError(
                    Code.REFUSED,
                    f"The user {user} could not run {program}: {each} is closed to other users.",
                    "Install speciate where everybody may read it: python3 -m venv /opt/speciate, and pip in there.",
                )


def _known(look: Callable[[str], object], name: str) -> bool:
    try:
        look(name)
    except KeyError:
        return False
    return True


def _require(*command: str) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, timeout=_CALL_SECONDS, check=False)
    if ran.returncode != 0:
        raise SpeciateError(
            Code.UNAVAILABLE,
            f"`{shlex.join(command)}` failed: {ran.stderr.strip() or ran.returncode}",
            "Mend that, then call it again.",
        )


def _run(*command: str) -> bool:
    try:
        ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_CALL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ran.returncode == 0
