"""What completes in a shell, tried in a real one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from speciate.cli import _parser
from speciate.cli.completion_command import bash, fish, words_of, zsh

TOOLS = {
    "control_job": {"job": {"type": "string"}, "action": {"type": "string", "enum": ["cancel", "pause"]}},
    "predict": {"model": {"type": "string"}, "dry_run": {"type": "boolean"}},
}
_ASK = """
source {script} 2>/dev/null
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); compopt() {{ :; }}
_speciate; echo "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("speciate st", "status stop"),
        ("speciate --workspace=x sto", "stop"),
        ("speciate install cur", "cursor"),
        ("speciate deployment ''", "start stop list --help"),
        ("speciate call con", "control_job"),
        ("speciate call control_job ac", "action="),
        ("speciate call control_job action '=' p", "pause"),
        ("speciate call control_job action=p", "action=pause"),
        ("speciate call control_job job '=' job-1 action '=' c", "cancel"),
        ("speciate call predict --wait dry_run '=' t", "true"),
        ("speciate nonsense x", ""),
        ("speciate token create --role ''", "viewer labeller approver admin"),
        ("speciate token create ann --role app", "approver"),
        ("speciate token create ann --role '=' l", "labeller"),
        ("speciate token create ann --da", "--days"),
        ("speciate call --wait predict dry", "dry_run="),
        ("speciate slo", ""),
    ],
)
def test_bash_offers_what_may_come_next(tmp_path: Path, typed: str, offered: str) -> None:
    script = tmp_path / "speciate.bash"
    script.write_text(bash(words_of(_parser(), TOOLS)))
    asked = _ASK.format(script=script, words=typed)
    found = subprocess.run(["bash", "--norc", "-c", asked], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == offered


@pytest.mark.parametrize(("shell", "write"), [("bash", bash), ("zsh", zsh), ("fish", fish)])
def test_the_script_is_valid_where_its_shell_is_installed(tmp_path: Path, shell: str, write: object) -> None:
    script = tmp_path / "script"
    assert callable(write)
    script.write_text(write(words_of(_parser(), TOOLS)))
    assert "control_job" in script.read_text()
    if shutil.which(shell):
        subprocess.run([shell, "-n", str(script)], check=True)
