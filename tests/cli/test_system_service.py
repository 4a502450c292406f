"""The daemon under a user of its own, with real users: the unit's own command, started as the unit says.

systemd itself is not asked: it does not run where tests do. What it would do first (the folder for sockets, the user,
the group, the environment) is done here by hand, from the unit's text.
"""

from __future__ import annotations

import argparse
import grp
import json
import os
import pwd
import re
import secrets
import shlex
import shutil
import site
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from speciate import unix_sockets
from speciate.cli import system_service
from speciate.cli.system_service import System
from speciate.environment import SYSTEM_SOCKETS, system_socket, system_unit
from speciate.errors import Code, SpeciateError
from speciate.server.protocol import MCP

needs_root = pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="makes users of the system")


def test_the_unit_names_its_user_its_group_and_what_it_may_write(tmp_path: Path) -> None:
    system = System(units=tmp_path)
    text = system_service.text(system, Path("/srv/a 100% lab"))
    for line in (
        "User=speciate", "Group=speciate-users", "RuntimeDirectory=speciate", "RuntimeDirectoryMode=0750",
        'ReadWritePaths="/var/lib/speciate" "/srv/a 100%% lab"', "CapabilityBoundingSet=", "NoNewPrivileges=yes",
        'Environment="XDG_CONFIG_HOME=/var/lib/speciate/config"', "Restart=always",
    ):  # fmt: skip
        assert line in text.splitlines(), line
    assert text.count("--group") == 1
    if analyze := shutil.which("systemd-analyze"):
        unit = tmp_path / "speciate-test.service"
        unit.write_text(system_service.text(system._replace(user="root", group="root"), tmp_path))
        said = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, check=False).stderr
        assert [line for line in said.splitlines() if unit.name in line] == []


def test_whoever_is_not_root_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SpeciateError, match="Only root") as caught:
        system_service.install(argparse.Namespace(workspace=None))
    assert caught.value.code is Code.REFUSED


def test_a_program_that_others_cannot_reach_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "closed" / "python"
    program.parent.mkdir(mode=0o700)
    program.write_text("")
    program.chmod(0o755)
    said = "is closed to other users" if os.geteuid() == 0 else "Others than root can change"
    with pytest.raises(SpeciateError, match=said):
        system_service._require_reachable(program, "speciate")
    program.parent.chmod(0o777)
    with pytest.raises(SpeciateError, match="Others than root can change"):
        system_service._require_reachable(program, "speciate")


@needs_root
def test_a_workspace_that_others_can_swap_is_refused_and_no_link_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_service, "_require_reachable", lambda program, user: None)
    system, nobody = System("nobody", grp.getgrgid(0).gr_name, tmp_path / "state", tmp_path), pwd.getpwnam("nobody")
    for name in ("theirs", "open", "target", "mine"):
        (tmp_path / name).mkdir()
    os.chown(tmp_path / "theirs", 4242, -1)
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "their link").symlink_to(tmp_path / "mine")
    os.chown(tmp_path / "their link", 4242, -1, follow_symlinks=False)
    os.chown(tmp_path / "target", nobody.pw_uid, -1)
    (tmp_path / "target").chmod(0o755)
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "root's link").symlink_to("mine")
    refused = {
        "theirs/workspace": "Others than root", "theirs/a/workspace": "Others than root",
        "open/workspace": "Others than root", "their link/workspace": "Others than root",
        "link": "is a link", "mine": "belongs to another user",
    }  # fmt: skip
    for where, said in refused.items():
        with pytest.raises(SpeciateError, match=said) as caught:
            system_service.set_up(system, tmp_path / where)
        assert caught.value.code is Code.REFUSED, where
    assert ((tmp_path / "target").stat().st_mode & 0o777, (tmp_path / "mine").stat().st_uid) == (0o755, 0)
    for _ in range(2):
        system_service.set_up(system, tmp_path / "root's link" / "new" / "workspace")
    made = (tmp_path / "mine" / "new" / "workspace").stat()
    assert (made.st_uid, made.st_mode & 0o777) == (nobody.pw_uid, 0o700)
    assert (tmp_path / "mine" / "new").stat().st_uid == 0


def test_what_macos_says_of_a_peer_is_read() -> None:
    data = bytes.fromhex("00000000f501000003000000140000000c00000050000000") + bytes(13 * 4)
    assert unix_sockets.from_xucred(data) == unix_sockets.Account(501, frozenset({20, 12, 80}))


# With real users


class Setup(NamedTuple):
    system: System
    python: Path
    member: str
    outsider: str
    daemon: subprocess.Popen[bytes]

    def run(self, user: str, *arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
        """A command line, or code, as one of them would run it after a login."""
        home = Path(tempfile.gettempdir()) / f"home-{user}"
        command = [str(self.python), *(["-c", code] if code else ["-m", "speciate.cli"]), *arguments]
        return subprocess.run(
            command, user=user, group=user, extra_groups=_groups(user), cwd="/", capture_output=True, text=True,
            stdin=subprocess.DEVNULL, timeout=90, check=False,
            env={"PATH": os.environ["PATH"], "HOME": str(home), "W": str(self.system.workspace)},
        )  # fmt: skip


def _groups(user: str) -> list[int]:
    listed = subprocess.run(["id", "-G", user], capture_output=True, text=True, check=True).stdout
    return [int(number) for number in listed.split()]


def _interpreter(folder: Path) -> Path | None:
    """A Python of this version that every user may run, with this one's packages."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for found in (Path(sys.executable), Path("/usr/bin") / name):
        try:
            system_service._require_reachable(found, "others")
        except (SpeciateError, OSError):
            continue
        subprocess.run([found, "-m", "venv", "--without-pip", folder / "venv"], check=True, capture_output=True)
        packages = folder / "venv" / "lib" / name / "site-packages"
        lines = [f"import site; site.addsitedir({each!r})" for each in site.getsitepackages()]
        (packages / "tests.pth").write_text("\n".join(lines))
        return folder / "venv" / "bin" / "python"
    return None


@pytest.fixture(scope="module")
def setup() -> Iterator[Setup]:
    folder, mark = Path(tempfile.mkdtemp(prefix="speciate-system-")), secrets.token_hex(3)
    folder.chmod(0o755)
    python = _interpreter(folder)
    if python is None:
        pytest.skip("no interpreter of this version that other users may run")
    member, outsider = f"member-{mark}", f"outsider-{mark}"
    system = System(f"spec-{mark}", f"spec-users-{mark}", folder / "state", folder)
    made = not SYSTEM_SOCKETS.exists()
    daemon = None
    try:
        for user in (member, outsider):
            subprocess.run(["useradd", "--home-dir", folder / user, "--create-home", user], check=True)
        place = f"System({system.user!r}, {system.group!r}, Path({str(system.state)!r}), Path({str(folder)!r}))"
        code = f"from pathlib import Path; from speciate.cli.system_service import *; s = {place}; "
        code += "print(set_up(s, s.workspace))"
        for _ in range(2):  # repeating it changes nothing
            unit = Path(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip())
        subprocess.run(["usermod", "-aG", system.group, member], check=True)
        daemon = _start(system, unit.read_text())
        yield Setup(system, python, member, outsider, daemon)
    finally:
        if daemon:
            daemon.terminate()
            daemon.wait(30)
        system_socket(system.workspace).unlink(missing_ok=True)
        if made:
            shutil.rmtree(SYSTEM_SOCKETS, ignore_errors=True)
        for user in (member, outsider, system.user):
            subprocess.run(["userdel", user], capture_output=True, check=False)
        subprocess.run(["groupdel", system.group], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _start(system: System, text: str) -> subprocess.Popen[bytes]:
    """As systemd does it."""
    SYSTEM_SOCKETS.mkdir(exist_ok=True)
    shutil.chown(SYSTEM_SOCKETS, system.user, system.group)
    SYSTEM_SOCKETS.chmod(0o750)
    [line] = re.findall("(?m)^ExecStart=(.*)$", text)
    variables = dict(shlex.split(each)[0].split("=", 1) for each in re.findall("(?m)^Environment=(.*)$", text))
    daemon = subprocess.Popen(
        shlex.split(line), user=system.user, group=system.group, extra_groups=[], env=variables, cwd="/",
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, umask=0o077,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not system_socket(system.workspace).exists():
        assert daemon.poll() is None, (system.workspace / "daemon.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return daemon


def told(ran: subprocess.CompletedProcess[str]) -> Any:
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@needs_root
@pytest.mark.slow
def test_members_of_the_group_use_it_and_the_kernel_says_who(setup: Setup) -> None:
    where = ("--workspace", str(setup.system.workspace))
    assert told(setup.run(setup.member, "status", *where))["workspace"] == str(setup.system.workspace)
    assert "anybody who runs programs" in told(setup.run(setup.member, "call", "get_status", *where))["approvals"]
    code = (
        "import os; from pathlib import Path; from speciate.server.dial import dial\n"
        "dial(Path(os.environ['W']), 'control/1', action='host', add=True, host='127.0.0.1:9', by='The Board')"
    )
    assert setup.run(setup.member, code=code).returncode == 0
    assert setup.daemon.wait(30) == 0, "it leaves, and systemd starts it again"
    restarted = setup._replace(daemon=_start(setup.system, units_text(setup)))
    try:
        [row] = _control(restarted, setup.member, "trail")["rows"]
        assert (row["actor"], row["evidence"]) == (setup.member, {"claimed": "The Board"})
    finally:
        restarted.daemon.terminate()
        restarted.daemon.wait(30)


def units_text(setup: Setup) -> str:
    return (setup.system.units / system_unit(setup.system.workspace).name).read_text()


def _control(setup: Setup, user: str, action: str, **more: Any) -> Mapping[str, Any]:
    code = (
        "import os, json; from pathlib import Path; from speciate.server.dial import dial\n"
        f"print(json.dumps(dial(Path(os.environ['W']), 'control/1', action={action!r}, **{more!r}).answer['result']))"
    )
    found: dict[str, Any] = told(setup.run(user, code=code))
    return found


@pytest.fixture
def running(setup: Setup) -> Iterator[Setup]:
    """With a daemon, whatever the test before did to the last one."""
    alive = setup.daemon.poll() is None
    yield setup if alive else (again := setup._replace(daemon=_start(setup.system, units_text(setup))))
    if not alive:
        again.daemon.terminate()
        again.daemon.wait(30)


@needs_root
@pytest.mark.slow
def test_a_member_cannot_reach_behind_the_daemon(running: Setup) -> None:
    attempts = {
        "open(os.environ['W'] + '/catalog.duckdb', 'rb')": "PermissionError",
        "open(os.environ['W'] + '/settings.toml', 'a')": "PermissionError",
        "os.listdir(os.environ['W'])": "PermissionError",
        "os.listdir(os.environ['W'] + '/../config')": "PermissionError",
        f"os.kill({running.daemon.pid}, 9)": "PermissionError",
        f"open('/proc/{running.daemon.pid}/mem', 'rb')": "PermissionError",
        f"os.unlink('{system_socket(running.system.workspace)}')": "PermissionError",
    }
    for attempt, error in attempts.items():
        ran = running.run(running.member, code=f"import os; {attempt}")
        assert error in ran.stderr, (attempt, ran.stderr)
    code = f"import socket; s = socket.socket(1); s.connect('{system_socket(running.system.workspace)}'); "
    hello = json.dumps({"protocol": MCP, "version": "999.0"})
    ran = running.run(running.member, code=f"{code}s.sendall({hello!r}.encode() + b'\\n'); print(s.recv(999))")
    assert '"ok": true' in ran.stdout.replace('":true', '": true'), "a newer version of a member's ends no daemon"
    assert running.daemon.poll() is None


@needs_root
@pytest.mark.slow
def test_whoever_is_not_in_the_group_is_refused_by_modes_and_by_the_daemon(running: Setup) -> None:
    code = f"import socket; s = socket.socket(1); s.connect('{system_socket(running.system.workspace)}'); "
    ask = 's.sendall(b\'{"protocol": "control/1", "action": "status"}\\n\'); print(len(s.recv(9)))'
    assert "PermissionError" in running.run(running.outsider, code=code).stderr
    SYSTEM_SOCKETS.chmod(0o755)
    system_socket(running.system.workspace).chmod(0o666)  # as if somebody had been careless
    try:
        ran = running.run(running.outsider, code=f"{code}{ask}")
        assert ran.stdout.strip() in ("0", ""), "closed without a word"
        assert running.run(running.member, code=f"{code}{ask}").stdout.strip() == "9"
    finally:
        SYSTEM_SOCKETS.chmod(0o750)
        system_socket(running.system.workspace).chmod(0o660)


@needs_root
@pytest.mark.slow
def test_the_daemon_lends_nobody_its_eyes(running: Setup) -> None:
    """A member names the workspace as its folder: what the daemon's user may read there is not read for it."""
    where = ("--workspace", str(running.system.workspace))
    own = running.system.state.parent / running.member / "rows.csv"
    own.write_text("text,label\na,b\n")
    own.chmod(0o600)
    for path in (str(own), f"{running.system.workspace}/settings.toml", "rows.csv"):
        call = json.dumps({"name": "d", "source": path, "label": "label"})
        ran = running.run(running.member, "call", "create_dataset", "--args", call, *where)
        assert ran.returncode == 1
        assert "outside the folders that tools may use" in ran.stderr or "no folder to start from" in ran.stderr, (
            ran.stderr
        )
