"""`speciate serve --install`: the text of the units, and what is asked of a systemctl that notes it."""

from __future__ import annotations

import json
import os
import plistlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from speciate.cli import main, user_service
from speciate.cli.user_service import plist, service, unit_of
from tests.server.processes import Daemons
from tests.server.test_daemon import until

_FAKE = """#!{python}
import json, os, sys
with open({log!r}, "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
answers = json.load(open({answers!r}))
sys.exit(answers.get(sys.argv[2] if len(sys.argv) > 2 else "", 0))
"""


class Systemctl:
    """On PATH in place of the real one."""

    def __init__(self, folder: Path) -> None:
        self._log, self._answers = folder / "asked", folder / "answers"
        self._answers.write_text("{}")
        program = folder / "systemctl"
        program.write_text(_FAKE.format(python=sys.executable, log=str(self._log), answers=str(self._answers)))
        program.chmod(0o755)

    def fail(self, verb: str, status: int = 1) -> None:
        self._answers.write_text(json.dumps({verb: status}))

    def asked(self) -> list[list[str]]:
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        self._log.write_text("")
        return [json.loads(line) for line in lines]


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemctl:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return Systemctl(folder)


def _serve(*arguments: str, workspace: Path) -> int:
    return main(["serve", *arguments, "--workspace", str(workspace)])


def test_installing_enables_a_unit_and_repeating_it_changes_nothing(
    systemctl: Systemctl, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _serve("--install", workspace=tmp_path / "My Lab") == 0
    (unit,) = (tmp_path / "config" / "systemd" / "user").iterdir()
    assert re.fullmatch(r"speciate-my-lab-[0-9a-f]{8}\.service", unit.name)
    assert unit.stat().st_mode & 0o077 == 0
    enabled = [["--user", "show-environment"], ["--user", "daemon-reload"], ["--user", "enable", "--now", unit.name]]
    assert systemctl.asked() == enabled
    said = capsys.readouterr().out
    assert f"Now it is installed: {unit}" in said
    assert "loginctl enable-linger" in said
    text = unit.read_text()
    assert _serve("--install", workspace=tmp_path / "My Lab") == 0
    assert "It was installed" in capsys.readouterr().out
    assert unit.read_text() == text
    assert _serve("--install", workspace=tmp_path / "other") == 0
    assert len(list(unit.parent.iterdir())) == 2, "each workspace has its own"


def test_uninstalling_takes_it_back_and_repeating_it_changes_nothing(
    systemctl: Systemctl, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _serve("--install", workspace=tmp_path / "lab")
    unit = unit_of(tmp_path / "lab")
    assert _seen(tmp_path) == (True, True)
    systemctl.fail("is-active", 3)
    assert _seen(tmp_path) == (True, False)
    systemctl.asked()
    assert _serve("--uninstall", workspace=tmp_path / "lab") == 0
    assert systemctl.asked() == [["--user", "disable", "--now", unit.name], ["--user", "daemon-reload"]]
    assert not unit.path.exists()
    assert _serve("--uninstall", workspace=tmp_path / "lab") == 0
    assert "It was not installed" in capsys.readouterr().out
    assert systemctl.asked() == []


def _seen(tmp_path: Path) -> tuple[bool, bool]:
    found = user_service.state(tmp_path / "lab")
    return found.installed, found.active


def test_without_a_manager_nothing_is_written_and_a_line_for_cron_is_given(
    systemctl: Systemctl, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    systemctl.fail("show-environment")
    assert _serve("--install", workspace=tmp_path / "a 100% lab") == 1
    said = capsys.readouterr().err
    assert "so nothing was installed" in said
    assert f"@reboot {sys.executable} -P -m speciate.server.daemon --stay --workspace " in said
    assert "a 100\\% lab'" in said, "cron would end the line there"
    assert not (tmp_path / "config").exists()
    assert not user_service.state(tmp_path / "lab").installed


def test_what_systemctl_refuses_is_said(
    systemctl: Systemctl, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    systemctl.fail("enable", 5)
    assert _serve("--install", workspace=tmp_path / "lab") == 1
    assert "`systemctl --user enable --now speciate-lab-" in capsys.readouterr().err


def test_the_unit_restarts_what_ends_and_lets_its_runs_live(tmp_path: Path) -> None:
    text = unit_of(tmp_path / "lab").text
    lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("Env"))
    assert lines["Restart"] == "always"
    assert lines["KillMode"] == "process"
    assert lines["SuccessExitStatus"] == "75"
    assert lines["StartLimitIntervalSec"] == "0"
    assert lines["WantedBy"] == "default.target"
    assert 'Environment="PATH=' in text
    assert "SPECIATE_FAULT" not in text


def test_foreign_characters_mean_nothing_to_systemd() -> None:
    text = service(Path('/a %h "b" $HOME'), ["python", "--workspace", '/a %h "b" $HOME \\x'], {"X": "50% $A"})
    assert 'ExecStart="python" "--workspace" "/a %%h \\"b\\" $$HOME \\\\x"' in text
    assert 'Environment="X=50%% $A"' in text
    assert 'Description=speciate: /a %%h "b" $HOME' in text


@pytest.mark.skipif(not Path("/usr/bin/systemd-analyze").exists(), reason="systemd is not installed")
def test_systemd_itself_finds_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "speciate-test.service"
    path.write_text(unit_of(tmp_path / 'my "lab" 50%').text)
    ran = subprocess.run(
        ["systemd-analyze", "--user", "verify", str(path)], capture_output=True, text=True, check=False
    )
    assert path.name not in ran.stderr, ran.stderr


def test_the_agent_of_a_mac_is_what_launchd_reads() -> None:
    read = plistlib.loads(plist("speciate-lab", ["python", "--workspace", "/a <b> & c"], {"PATH": "/bin"}).encode())
    assert read["ProgramArguments"] == ["python", "--workspace", "/a <b> & c"]
    assert (read["KeepAlive"], read["RunAtLoad"], read["AbandonProcessGroup"]) == (True, True, True)
    assert (read["EnvironmentVariables"], read["Umask"]) == ({"PATH": "/bin"}, 0o077)


@pytest.mark.slow
def test_what_the_unit_starts_stays_although_nobody_needs_it(daemons: Daemons) -> None:
    daemons.workspace.mkdir()
    (daemons.workspace / "settings.toml").write_text("idle_exit_minutes = 0.005\n")
    command = list(unit_of(daemons.workspace).command)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        until(lambda: bool(daemons.pids()) and (daemons.workspace / "daemon.json").exists(), 60)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        assert daemons.pid() == process.pid
    finally:
        process.terminate()
        assert process.wait(30) == 0
