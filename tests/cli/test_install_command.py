"""`speciate install`: real files of clients in a home folder, kept but for one entry; a fake `claude` on the path."""

from __future__ import annotations

import json
import os
import runpy
import stat
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.cli import main
from speciate.cli.install_command import CLIENTS, merge_json, merge_toml

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home, project = tmp_path / "home", tmp_path / "project"
    home.mkdir()
    project.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.chdir(project)
    return home


def entry_of(file: Path, key: str) -> dict[str, object]:
    text = file.read_text()
    found: dict[str, object] = (tomllib.loads(text) if file.suffix == ".toml" else json.loads(text))[key]["speciate"]
    return found


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_gets_one_entry_and_what_else_it_has_stays(
    name: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = CLIENTS[name]
    file = home / client.user
    file.parent.mkdir(parents=True, exist_ok=True)
    toml = file.suffix == ".toml"
    old = (
        '# mine\nmodel = "m"\n\n[mcp_servers.other]\ncommand = "x"\n'
        if toml
        else json.dumps({"kept": 1, client.key: {"other": {}}})
    )
    file.write_text(old)
    file.chmod(0o640)
    assert main(["install", name]) == 0
    entry = entry_of(file, client.key)
    command = entry["command"]
    assert isinstance(command, str)
    assert os.access(command, os.X_OK)
    assert entry["args"] in (["serve"], ["-m", "speciate", "serve"])
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert file.with_name(file.name + ".before-speciate").read_text() == old
    before = file.read_text()
    assert main(["install", name]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert file.read_text() == before
    assert main(["install", name, "--remove"]) == 0
    after = file.read_text()
    assert (tomllib.loads(after) if toml else json.loads(after)) == (tomllib.loads(old) if toml else json.loads(old))
    assert "# mine" in after or not toml


def test_the_skill_is_copied_whole_kept_up_to_date_and_removed(home: Path) -> None:
    assert main(["install", "claude"]) == 0
    skill = home / ".claude/skills/speciate"
    shipped = ROOT / "prompts/plugin/skills/speciate"
    assert {path.relative_to(skill) for path in skill.rglob("*.md")} == {
        path.relative_to(shipped) for path in shipped.rglob("*.md")
    }
    (skill / "SKILL.md").write_text("of an older version")
    (skill / "mine.md").write_text("mine")
    assert main(["install", "claude"]) == 0
    assert (skill / "SKILL.md").read_text() == (shipped / "SKILL.md").read_text()
    assert main(["install", "claude", "--remove"]) == 0
    assert [path.name for path in skill.rglob("*")] == ["mine.md"]


def test_a_project_gets_files_of_its_own_and_a_workspace(home: Path, tmp_path: Path) -> None:
    project = Path.cwd()
    assert main(["install", "vscode", "--project", "--workspace", "w"]) == 0
    entry = entry_of(project / ".vscode/mcp.json", "servers")
    assert entry["type"] == "stdio"
    assert isinstance(entry["args"], list)
    assert entry["args"][-2:] == ["--workspace", str(project / "w")]
    assert (project / ".github/skills/speciate/SKILL.md").exists()
    assert not list(home.iterdir())


@pytest.mark.parametrize(
    ("name", "old"),
    [
        ("cursor", "// mine\n{}"),
        ("cursor", "[]"),
        ("cursor", '{"mcpServers": []}'),
        ("codex", 'mcp_servers = {speciate = {command = "x"}}'),
        ("codex", '[mcp_servers]\nspeciate = {command = "x"}'),
        ("codex", "no toml"),
    ],
)
def test_what_cannot_be_merged_without_a_guess_is_left_and_the_lines_are_shown(
    name: str, old: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = home / CLIENTS[name].user
    file.parent.mkdir(parents=True)
    file.write_text(old)
    assert main(["install", name]) == 1
    assert file.read_text() == old
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    said = capsys.readouterr().err
    assert "by hand" in said
    assert "serve" in said


def test_a_link_stays_a_link(home: Path) -> None:
    kept = home / "dotfiles.json"
    kept.write_text("{}")
    (home / ".cursor").mkdir()
    (home / ".cursor/mcp.json").symlink_to(kept)
    assert main(["install", "cursor"]) == 0
    assert (home / ".cursor/mcp.json").is_symlink()
    assert "speciate" in kept.read_text()


def test_claude_itself_is_asked_where_it_is_there(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "bin/claude"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    program.chmod(0o755)
    (home / ".claude.json").write_text('{"mcpServers": {"speciate": {"command": "old"}}}')
    assert main(["install", "claude"]) == 0
    first, second = (tmp_path / "asked").read_text().splitlines()
    assert first == "mcp remove --scope user speciate"
    assert second.startswith("mcp add --scope user speciate -- /")
    program.write_text("#!/bin/sh\necho locked >&2\nexit 3\n")
    assert main(["install", "claude"]) == 1
    assert "locked" in capsys.readouterr().err


def test_print_changes_nothing_and_the_table_says_who_knows(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPECIATE_HOME", raising=False)
    assert main(["install", "cursor", "--print"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["mcpServers"]["speciate"]["args"]
    assert printed.err == f"Cursor reads it in {home / '.cursor' / 'mcp.json'}.\n"
    monkeypatch.setenv("SPECIATE_HOME", "/data/a workspace")
    assert main(["install", "cursor", "--print"]) == 0
    assert "--workspace '/data/a workspace' does" in capsys.readouterr().err
    assert main(["install", "cursor", "--print", "--workspace", "/data/a workspace"]) == 0
    assert "SPECIATE_HOME" not in capsys.readouterr().err
    assert not list(home.iterdir())
    assert main(["install", "cursor"]) == 0
    capsys.readouterr()
    assert main(["install"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "installed" in rows["cursor"]
    assert "installed" not in rows["codex"]


NAMES = st.text("ab-_", min_size=1, max_size=4)
VALUES = st.recursive(
    st.integers() | st.text(max_size=5) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


TABLES = st.dictionaries(NAMES, VALUES, max_size=3)


@given(TABLES, st.dictionaries(NAMES, TABLES, max_size=3))
def test_only_our_entry_changes_in_any_json(rest: dict[str, object], servers: dict[str, object]) -> None:
    old = {**rest, "mcpServers": servers}
    with_it = json.loads(merge_json(json.dumps(old), "mcpServers", {"command": "c"}))
    assert with_it == {**rest, "mcpServers": {**servers, "speciate": {"command": "c"}}}
    assert json.loads(merge_json(json.dumps(with_it), "mcpServers", None)) == old


@given(
    st.lists(
        st.sampled_from(
            [
                "# c",
                "a = 1",
                "",
                '[mcp_servers.x]\nb = "]"',
                "[t]\nk = [1,\n2]",
                "[mcp_servers.speciate]\ncommand = 'o'",
                "[mcp_servers.speciate.env]\nA = 'b'",
                "[[l]]\nq = 1",
            ]
        ),
        max_size=7,
    )
)
def test_only_our_entry_changes_in_any_toml(lines: list[str]) -> None:
    text = "\n".join(lines)
    try:
        old = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    block = '[mcp_servers.speciate]\ncommand = "c"\nargs = []\n'
    new = tomllib.loads(merge_toml(text, "mcp_servers", block))
    others = {name: value for name, value in old.get("mcp_servers", {}).items() if name != "speciate"}
    assert new == {**old, "mcp_servers": {**others, "speciate": {"command": "c", "args": []}}}


def test_what_follows_from_the_playbooks_is_as_they_say() -> None:
    """Written by `make docs`."""
    for path, text in runpy.run_path(str(ROOT / "docs/plugin.py"))["plugin_files"]().items():
        assert path.read_text() == text, f"{path}: make docs"


def test_the_skill_keeps_to_the_format() -> None:
    """agentskills.io: the name is the folder's, the description at most 1,024 characters, the body under 500 lines."""
    file = ROOT / "prompts/plugin/skills/speciate/SKILL.md"
    head, _, body = file.read_text().removeprefix("---\n").partition("\n---\n")
    fields = dict(line.split(": ", 1) for line in head.splitlines())
    assert fields["name"] == file.parent.name
    assert 0 < len(fields["description"]) <= 1024
    assert fields.keys() <= {"name", "description", "license", "compatibility", "metadata", "allowed-tools"}
    assert len(body.splitlines()) < 500
    plugin = ROOT / "prompts/plugin"
    market = json.loads((ROOT / ".claude-plugin/marketplace.json").read_text())
    assert (ROOT / market["plugins"][0]["source"]) == plugin
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert json.loads((plugin / ".claude-plugin/plugin.json").read_text())["version"] == project["version"]
