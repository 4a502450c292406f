"""Scratch folders are removed with their process, and never while one uses them."""

from __future__ import annotations

import fcntl
import tempfile
from pathlib import Path
from typing import Any

import pytest

from speciate.workspace.scratch import remove_abandoned, scratch_folder

pytestmark = pytest.mark.durable


@pytest.mark.parametrize("moment", [(tempfile, "mkdtemp"), (fcntl, "flock")])
def test_a_folder_that_is_not_locked_yet_may_go_and_another_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: tuple[Any, str]
) -> None:
    module, name = moment
    real, times = getattr(module, name), iter([True])

    def then_a_daemon_starts(*given: Any, **more: Any) -> Any:
        made = real(*given, **more) if name == "mkdtemp" else None
        if next(times, False):
            remove_abandoned(tmp_path)
        return made if name == "mkdtemp" else real(*given, **more)

    monkeypatch.setattr(module, name, then_a_daemon_starts)
    with scratch_folder(tmp_path) as place:
        remove_abandoned(tmp_path)
        (place / "rows").write_text("kept")
    assert not list(tmp_path.iterdir())


def test_what_a_kill_left_half_removed_goes(tmp_path: Path) -> None:
    (tmp_path / "scratch-a").mkdir()
    (tmp_path / "scratch-a" / "rows").touch()
    (tmp_path / "scratch-file").touch()
    remove_abandoned(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["scratch-file"]
