"""Rows that somebody else has sealed already, and may not have lived to see on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest

from speciate.datasets.content_hash import seal_rows


def test_the_folder_of_rows_that_are_there_is_on_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, synced = pa.table({"id": ["a", "b"]}), list[str]()
    file = seal_rows(table, tmp_path)
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.path.realpath(f"/proc/self/fd/{number}")))
    assert seal_rows(table, tmp_path) == file
    assert [each for each in synced if each.startswith(str(tmp_path))] == [str(tmp_path)]
