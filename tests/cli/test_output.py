"""What commands say: of images that cannot be written, progress, verdicts and misplaced words."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from speciate.cli import call_command, label_commands, ledger_commands, main
from speciate.cli.call_command import _progress_line, _show_verdict
from speciate.cli.output import Progress, check_image_path, write_image
from speciate.errors import Code, SpeciateError
from speciate.jobs.kinds import rounded
from speciate.server.job_view import JobLine, JobProgress, JobView


def _never(*_: Any, **__: Any) -> None:
    raise AssertionError("the daemon was asked")


@pytest.mark.parametrize(
    ("command", "named", "told"),
    [
        (ledger_commands.ledger, "ledger.png", "is not called .svg"),
        (ledger_commands.ledger, "nowhere/ledger.svg", "There is no folder"),
        (label_commands.trace, "trace.jpg", "is not called .svg or .png"),
        (label_commands.trace, "nowhere/trace.png", "There is no folder"),
    ],
)
def test_an_image_that_cannot_be_is_refused_before_anything_is_asked(
    command: Callable[[argparse.Namespace], int], named: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (ledger_commands, label_commands):
        monkeypatch.setattr(module, "ask_daemon", _never)
    with pytest.raises(SpeciateError, match=told) as caught:
        command(argparse.Namespace(image=str(tmp_path / named)))
    assert caught.value.code is Code.INVALID


def test_what_was_written_is_said_and_what_was_not_is_no_traceback(tmp_path: Path) -> None:
    there = check_image_path(str(tmp_path / "a.svg"), (".svg",))
    assert write_image(there, b"<svg/>") == f"wrote {there}"
    (tmp_path / "b.svg").mkdir()
    with pytest.raises(SpeciateError, match="cannot be written") as caught:
        write_image(tmp_path / "b.svg", b"<svg/>")
    assert caught.value.code is Code.UNAVAILABLE


def test_where_there_is_no_terminal_progress_is_a_line_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    progress = Progress(clock=lambda: now[0])
    for second in (0.0, 9.0, 11.0, 15.0, 22.0):
        now[0] = second
        progress.show(f"at {second:g}")
    assert capsys.readouterr().err == "at 11\nat 22\n"
    Progress(quiet=True, clock=lambda: 99.0).show("nothing")
    assert capsys.readouterr().err == ""


def test_progress_names_the_step_that_runs_and_no_bare_number() -> None:
    line = JobLine(
        job="job-2", kind="train", state="running", attempt=1, step="train/classical", created_at=0, run_seconds=1
    )
    ended = line.model_copy(update={"step": "screen", "state": "succeeded"})
    nothing = JobProgress(done=0, total=None, unit="")
    view = JobView(job="job-1", kind="specialize", state="running", attempt=1, progress=nothing, children=(ended, line))
    assert _progress_line(view) == "job-1 specialize running, train/classical"
    assert _progress_line(view.model_copy(update={"eta_seconds": 0.3})) == _progress_line(view)
    half = view.model_copy(update={"progress": JobProgress(done=3, total=6, unit="steps")})
    assert _progress_line(half) == "job-1 specialize running, train/classical, 3 of 6 steps"


def test_the_verdict_of_specialize_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    result: dict[str, Any] = {
        "decision": {"verdict": "promote"}, "model": "taste-model@v2", "promotion": {"state": "needs_approval"},
    }  # fmt: skip
    _show_verdict({"kind": "specialize", "result": result})
    assert capsys.readouterr().err == "verdict promote, model taste-model@v2, promotion needs_approval\n"
    _show_verdict({"kind": "specialize", "result": None})
    _show_verdict({"kind": "train", "result": result})
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--workspace", "ws", "init"), "--workspace stands after the command"),
        (("--workspace=ws", "init"), "--workspace stands after the command"),
        (("watch", "affair"), "did you mean `speciate watch show affair`?"),
        (("watch", "shwo"), "did you mean 'show'"),
    ],
)
def test_a_wrong_place_is_told_with_the_right_one(
    arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(list(arguments))
    assert told in capsys.readouterr().err


def test_help_of_a_tool_needs_no_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(call_command, "connect", _never)
    for workspace in (tmp_path, tmp_path / "nowhere"):
        assert main(["call", "list_jobs", "--help", "--workspace", str(workspace)]) == 0
        assert "Page size" in capsys.readouterr().out


def test_status_says_which_setting_keeps_the_daemon_from_starting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "settings.toml").write_text('polcy = "auto"\n')
    assert main(["status", "--workspace", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert "settings.toml cannot be used" in told
    assert "polcy" in told


@pytest.mark.parametrize(("value", "shown"), [(None, None), (0.123456, 0.123), (17.28391, 17.3), (1234.56, 1235.0)])
def test_estimates_are_no_more_exact_than_they_are(value: float | None, shown: float | None) -> None:
    assert rounded(value) == shown
