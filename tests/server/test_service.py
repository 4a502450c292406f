"""The bearer token of HTTP."""

from __future__ import annotations

from pathlib import Path

from speciate.server.service import _token


def test_a_token_that_was_never_written_whole_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "http.token"
    path.touch(0o600)  # what a death between making and writing it would have left
    made = _token(path)
    assert len(made) > 30
    assert _token(path) == path.read_text() == made
    assert path.stat().st_mode & 0o777 == 0o600
