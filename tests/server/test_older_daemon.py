"""A package that was upgraded while a daemon of the version before runs."""

from __future__ import annotations

import argparse
import json
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import speciate
from speciate.cli import confirmation, doctor
from speciate.cli.daemon_commands import ask_daemon
from speciate.cli.workspace_commands import status
from speciate.environment import socket_path
from speciate.errors import Code, SpeciateError
from speciate.server import service

KNOWN = {"status": {"pid": 1, "version": "0.1.0", "jobs": {}}, "stop": {"pid": 1}}
"""What 0.1.0 answers, in part."""


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[argparse.Namespace]:
    """The arguments of a command for a workspace that such a daemon serves."""
    with tempfile.TemporaryDirectory(prefix="sock") as short:
        monkeypatch.setenv("XDG_RUNTIME_DIR", short)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(socket_path(tmp_path)))
            listener.listen()
            threading.Thread(target=_serve, args=(listener,), daemon=True).start()
            yield argparse.Namespace(workspace=str(tmp_path))
            listener.shutdown(socket.SHUT_RDWR)


def _serve(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, connection.makefile("rb") as lines:
            action = json.loads(lines.readline())["action"]
            no = {"ok": False, "code": "not_found", "message": f"There is no action {action!r}; see.", "recovery": "-"}
            answer = {"ok": True, "result": KNOWN[action]} if action in KNOWN else no
            connection.sendall(json.dumps(answer).encode() + b"\n")


def test_a_question_that_it_does_not_know_is_one_clear_error(older: argparse.Namespace) -> None:
    with pytest.raises(SpeciateError, match="older version") as raised:
        confirmation.ask_question(older, "approve", {"id": "appr_1"})
    assert raised.value.code is Code.UNAVAILABLE
    assert "speciate stop" in raised.value.recovery


def test_a_field_that_it_leaves_out_is_the_same_error(older: argparse.Namespace) -> None:
    with pytest.raises(SpeciateError, match="older version"):
        confirmation.read_kept_head(older)


def test_doctor_says_so(older: argparse.Namespace) -> None:
    (check,) = doctor.approvals(Path(older.workspace))
    assert not check.ok
    assert "older version" in check.what
    assert "speciate stop" in check.what


def test_what_it_knows_it_still_answers(older: argparse.Namespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(older) == 0
    assert json.loads(capsys.readouterr().out)["version"] == "0.1.0"
    assert ask_daemon(older, "stop")["pid"] == 1


def test_it_leaves_for_a_client_of_this_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "__version__", "0.1.0")
    assert service._newer(speciate.__version__)
