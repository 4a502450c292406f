"""Paths: only below the roots, and nothing is overwritten."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from speciate import secrets
from speciate.datasets.sources.walk import walk
from speciate.errors import Code, SpeciateError
from speciate.server.roots import check_readable, check_writable, roots
from speciate.server.surface import App, Caller
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests.server.apps import make_app


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    made.mkdir()
    (made / "data.csv").write_text("a,b\n1,2\n")
    return made


@pytest.fixture
def app(workspace: Workspace, folder: Path) -> App:
    return replace(make_app(workspace), caller=Caller(folder, "test", "stdio"))


def code_of(raised: pytest.ExceptionInfo[SpeciateError]) -> Code:
    return raised.value.code


def test_a_relative_path_starts_at_the_callers_folder(app: App, folder: Path) -> None:
    assert check_readable(app, "data.csv") == folder / "data.csv"


def test_the_exports_of_the_workspace_are_always_a_root(app: App, workspace: Workspace) -> None:
    target = workspace.folders.exports / "new.csv"
    assert check_writable(app, target) == target


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "~/x", "sub/../../secret"])
def test_a_path_outside_is_refused(app: App, path: str) -> None:
    with pytest.raises(SpeciateError) as raised:
        check_readable(app, path)
    assert code_of(raised) is Code.REFUSED
    assert "roots" in raised.value.recovery


def test_a_link_does_not_lead_out(app: App, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(SpeciateError) as raised:
        check_readable(app, "link")
    assert code_of(raised) is Code.REFUSED


def test_what_does_not_exist_is_not_found(app: App) -> None:
    with pytest.raises(SpeciateError) as raised:
        check_readable(app, "nothing.csv")
    assert code_of(raised) is Code.NOT_FOUND


def test_writing_never_overwrites(app: App) -> None:
    with pytest.raises(SpeciateError) as raised:
        check_writable(app, "data.csv")
    assert code_of(raised) is Code.CONFLICT


def test_without_a_folder_only_absolute_paths_mean_something(app: App) -> None:
    with pytest.raises(SpeciateError) as raised:
        check_readable(replace(app, caller=Caller(None, "test", "http")), "data.csv")
    assert "absolute" in raised.value.recovery


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "~no_such_user_at_all/x"])
def test_a_path_that_is_none_is_refused_in_words(app: App, path: str) -> None:
    with pytest.raises(SpeciateError):
        check_readable(app, path)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[App]:
    workspace = Workspace(tmp_path / "other", settings=Settings(roots=[tmp_path / "allowed"]))
    yield replace(make_app(workspace), caller=Caller(tmp_path / "home", "test", "stdio"))
    workspace.close()


def test_roots_in_settings_replace_the_callers_folder(elsewhere: App, tmp_path: Path) -> None:
    assert roots(elsewhere) == [tmp_path / "allowed", tmp_path / "other" / "exports"]


@pytest.mark.parametrize("path", ["conf/speciate/secrets.json", "conf/speciate", "conf", ".", "link"])
def test_no_root_leads_to_a_persons_keys(app: App, folder: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "conf"))
    secrets.put("openai", ["api.openai.com"], "sk-planted")
    (folder / "link").symlink_to(secrets.file())
    with pytest.raises(SpeciateError) as raised:
        check_readable(app, path)
    assert (code_of(raised), "keys" in raised.value.message) == (Code.REFUSED, True)
    with pytest.raises(SpeciateError):
        check_writable(app, folder / "conf" / "speciate" / "more.json")


def test_a_folder_in_whose_hidden_parts_keys_lie_is_walked_past_them(
    app: App, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / ".config"))
    secrets.put("openai", ["api.openai.com"], "sk-planted")
    assert check_readable(app, ".") == folder
    assert walk(folder).files == [folder / "data.csv"]
    for path in (".config", ".config/speciate/secrets.json"):
        with pytest.raises(SpeciateError):
            check_readable(app, path)
