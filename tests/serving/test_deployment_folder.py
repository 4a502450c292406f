"""The folder of a deployment: one process at a time, and a journal that survives a torn line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from speciate.serving import deployment_folder as folders
from speciate.serving.deployment_folder import AlreadyClaimed, DeploymentFolder, Refused, State, Wanted
from speciate.settings import Serving
from tests.serving.fakes import target


@pytest.fixture
def folder(tmp_path: Path) -> DeploymentFolder:
    folder = DeploymentFolder(tmp_path / "slots" / "reviews")
    folder.create()
    return folder


def test_a_claim_is_held_by_one_and_free_at_its_end(folder: DeploymentFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_CLAIM_SECONDS", 0.1)
    assert not folder.alive()
    held = folder.claim()
    assert folder.alive()
    with pytest.raises(AlreadyClaimed):
        DeploymentFolder(folder.path).claim()
    os.close(held)
    assert not folder.alive()
    os.close(folder.claim())


def test_each_line_of_the_journal_is_heard_once(folder: DeploymentFolder) -> None:
    folder.note("slot.started", 1.0, pid=7)
    folder.note("slot.serving", 2.0, model="words@v1")
    entries, end = folder.unheard()
    assert [(entry.type, entry.at) for entry in entries] == [("slot.started", 1.0), ("slot.serving", 2.0)]
    folder.heard(end)
    assert folder.unheard() == ([], end)
    folder.note("slot.ended", 3.0)
    assert [entry.type for entry in folder.unheard()[0]] == ["slot.ended"]


def test_a_line_that_a_crash_tore_costs_no_other(folder: DeploymentFolder) -> None:
    folder.note("slot.started", 1.0)
    with (folder.path / "journal.jsonl").open("ab") as file:
        file.write(b'{"id": "x", "at": 2')
    assert [entry.type for entry in folder.unheard()[0]] == ["slot.started"]
    os.close(folder.claim())  # the next process mends it
    folder.note("slot.serving", 3.0)
    assert [entry.type for entry in folder.unheard()[0]] == ["slot.started", "slot.serving"]


def test_what_is_wanted_comes_back_as_it_was_and_its_stamp_changes(folder: DeploymentFolder) -> None:
    assert folder.wanted() is None
    stamps = {folder.wanted_stamp()}
    for version in (1, 2):
        wanted = Wanted(use_case="reviews", options=Serving(port=8001), target=target(version))
        folder.want(wanted)
        assert folder.wanted() == wanted
        stamps.add(folder.wanted_stamp())
    assert len(stamps) == 3


def test_a_file_of_another_version_of_the_package_is_as_none(folder: DeploymentFolder) -> None:
    (folder.path / "state.json").write_text('{"colour": "green"}')
    assert folder.state() == State()


def test_the_token_is_made_once_and_for_its_owner_alone(folder: DeploymentFolder) -> None:
    token = folder.token()
    assert folder.token() == token
    assert len(token) >= 32
    assert (folder.path / "token").stat().st_mode & 0o077 == 0


def test_a_long_log_begins_anew_under_who_writes_it_and_goes_whole_when_something_is_forgotten(
    folder: DeploymentFolder,
) -> None:
    with (folder.path / "log").open("ab", buffering=0) as writer:
        writer.write(b"x" * 100)
        folder.trim_log(100)
        assert not (folder.path / "log.1").exists()
        writer.write(b"y")
        folder.trim_log(100)
        writer.write(b"z")
        assert (folder.path / "log").read_bytes() == b"z"
        assert (folder.path / "log.1").stat().st_size == 101
        folder.empty_log()
        writer.write(b"a")
    assert (folder.path / "log").read_bytes() == b"a"
    assert not (folder.path / "log.1").exists()


def test_a_reason_from_before_is_forgotten_with_purged_data_once_its_deployment_has_ended(
    folder: DeploymentFolder,
) -> None:
    refused = Refused(generation=2, model="words@v2", why="it cannot answer: cannot read 'Jane Roe'", at=1.0)
    folder.tell(State(serving="words@v1", refused=refused))
    claim = folder.claim()
    folder.forget_reasons()
    assert folder.state().refused == refused, "its process writes what it knows"
    os.close(claim)
    folder.forget_reasons()
    state = folder.state()
    assert state.refused is not None
    assert (state.serving, state.refused.key) == ("words@v1", refused.key)
    assert "Jane Roe" not in (folder.path / "state.json").read_text()
