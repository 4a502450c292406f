"""Paths: only below the roots, and nothing is overwritten."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from speciate import secrets
from speciate.datasets.sources.listing import find_source_files, walk_folder
from speciate.errors import Code, SpeciateError
from speciate.sandbox import user_code
from speciate.server.roots import check_function, check_readable, check_refs, check_writable, roots
from speciate.server.tool_api import App, Caller
from speciate.serving import predict
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
    assert "start the client in the folder" in raised.value.recovery


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
    with pytest.raises(SpeciateError, match="outside the folders") as raised:
        check_readable(elsewhere, tmp_path / "home" / "x")
    assert "start the client" not in raised.value.recovery, "its folder does not count"


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
    assert walk_folder(folder).files == [folder / "data.csv"]
    for path in (".config", ".config/speciate/secrets.json"):
        with pytest.raises(SpeciateError):
            check_readable(app, path)


# What is never a root


def started_in(workspace: Workspace, folder: Path) -> App:
    return replace(make_app(workspace), caller=Caller(folder, "test", "stdio"))


@pytest.mark.parametrize("where", ["/", "~", "~/..", "/home/somebody", "workspace", "workspace/runs"])
def test_a_client_that_was_started_there_has_no_folder_and_is_told_what_to_do(
    workspace: Workspace, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home := tmp_path / "users" / "ada").mkdir(parents=True)
    (home / "notes.csv").write_text("a\n1\n")
    monkeypatch.setenv("HOME", str(home))
    folder = Path(where).expanduser() if where[0] in "/~" else tmp_path / where
    app = started_in(workspace, folder)
    assert roots(app) == [workspace.folders.exports]
    (workspace.folders.root / "http.token").write_text("secret")
    for path in ("/etc/passwd", home / "notes.csv", workspace.folders.root / "http.token", "settings.toml"):
        with pytest.raises(SpeciateError) as raised:
            check_readable(app, path)
        assert code_of(raised) is Code.REFUSED
        assert str(workspace.folders.exports) in str(raised.value)
    assert "roots = [" in raised.value.recovery
    assert check_writable(app, workspace.folders.exports / "new.csv")


def test_a_project_in_a_home_folder_with_its_workspace_inside_is_a_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "ada"))
    project = tmp_path / "ada" / "project"
    inside = Workspace(project / ".speciate", settings=Settings())
    beside = Workspace(tmp_path / "ada" / ".speciate", settings=Settings())
    (project / "data.csv").write_text("a\n1\n")
    for workspace in (inside, beside):
        app = started_in(workspace, project)
        assert check_readable(app, "data.csv") == project / "data.csv"
        assert check_readable(app, ".") == project  # walks pass hidden folders over
        for own in ("catalog.duckdb", "runs", "."):
            with pytest.raises(SpeciateError):
                check_readable(app, workspace.folders.root / own)
        workspace.close()


def test_a_folder_whose_walk_would_come_to_the_workspace_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    app = started_in(workspace, tmp_path)
    (tmp_path / "data.csv").write_text("a\n1\n")
    assert check_readable(app, "data.csv")
    with pytest.raises(SpeciateError, match="own files"):
        check_readable(app, ".")


def test_a_root_that_was_written_after_the_start_needs_a_restart(
    app: App, workspace: Workspace, tmp_path: Path
) -> None:
    (workspace.folders.root / "settings.toml").write_text(f'roots = ["{tmp_path / "more"}"]\n')
    with pytest.raises(SpeciateError, match="not in force yet") as raised:
        check_readable(app, tmp_path / "more" / "x.csv")
    assert "speciate stop" in raised.value.recovery


def test_settings_do_not_make_a_root_of_everything(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "open", settings=Settings(roots=[Path("/"), tmp_path / "allowed"]))
    assert roots(make_app(workspace)) == [tmp_path / "allowed", workspace.folders.exports]
    workspace.close()


def test_a_hard_link_to_a_key_or_a_token_is_what_it_links_to(
    app: App, folder: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / ".config"))
    secrets.put("openai", ["api.openai.com"], "sk-planted")
    (workspace.folders.root / "http.token").write_text("secret")
    (folder / "many").mkdir()
    for target, name in ((secrets.file(), "notes.txt"), (workspace.folders.root / "http.token", "more.txt")):
        (folder / name).hardlink_to(target)
        with pytest.raises(SpeciateError) as raised:
            check_readable(app, name)
        assert code_of(raised) is Code.REFUSED
    (folder / "many" / "row.txt").hardlink_to(secrets.file())
    walked = walk_folder(folder / "many")
    assert (walked.files, "keys" in walked.excluded[0].reason) == ([], True)
    with pytest.raises(SpeciateError, match="keys"):
        predict.read_caller_file(folder / "many", 1 << 20)


@pytest.mark.parametrize("own", ["http.token", "slots/reviews/token", "catalog.duckdb"])
def test_in_a_named_folder_a_hard_link_to_the_workspace_s_own_file_is_not_read(
    app: App, folder: Path, workspace: Workspace, own: str
) -> None:
    target, root = workspace.folders.root / own, workspace.folders.root
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        target.write_text("planted")
    (folder / "many").mkdir()
    (folder / "many" / "row.txt").hardlink_to(target)
    (folder / "many" / "good.txt").write_text("good")
    (folder / "again.txt").hardlink_to(folder / "many" / "good.txt")  # links of the caller's own are no matter
    found, aside, _ = find_source_files(check_readable(app, "many"), root)
    assert found == [folder / "many" / "good.txt"]
    assert [(each.name, "of the workspace" in each.reason) for each in aside] == [("row.txt", True)]
    with pytest.raises(SpeciateError, match="own files"):
        predict.read_caller_file(folder / "many", 1 << 30, root)
    assert predict.read_caller_file(folder / "again.txt", 1 << 20, root) == b"good"


@pytest.mark.parametrize("ref", ["code:{}:guess", "inspect:{}", "path:{}", "ensemble:mine@v1+code:{}:guess"])
def test_a_ref_leads_to_no_file_outside_whatever_its_name(app: App, folder: Path, tmp_path: Path, ref: str) -> None:
    (outside := tmp_path / "conf").write_text("def guess(): pass\n")
    with pytest.raises(SpeciateError, match="outside the folders"):
        check_refs(app, ref.format(outside))
    (folder / "mine.py").write_text("def guess(): pass\n")
    assert check_refs(app, [ref.format("mine.py")]) == [ref.format(folder / "mine.py")]


def test_a_scorer_is_a_file_of_python_below_a_root(app: App, folder: Path) -> None:
    with pytest.raises(SpeciateError, match="outside the folders"):
        check_function(app, "/etc/passwd:score")
    assert check_function(app, "code_passes") == "code_passes"
    with pytest.raises(SpeciateError, match=r"must end in \.py"):
        user_code.read_code(folder / "data.csv", "Call again.")
