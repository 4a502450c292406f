"""An image that cannot be written is told in words, before the daemon is asked."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from speciate.cli import label_commands, ledger_commands
from speciate.cli.output import check_image_path, write_image
from speciate.errors import Code, SpeciateError


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
