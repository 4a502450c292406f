"""A daemon whose files a disk changes under it: it says which, goes on, and `speciate verify --all` names them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import forks
from tests.server.processes import CLI, Daemons, Stdio, end
from tests.server.small_world import World, make, said

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("damage")
    daemons = Daemons(root / "workspace")
    daemons.workspace.mkdir()
    (root / "folder").mkdir()
    (daemons.workspace / "settings.toml").write_text(f'policy = "auto"\nroots = ["{root / "folder"}"]\n')
    daemons.start()
    shell = Stdio(daemons.workspace)
    shell.initialize()
    try:
        yield make(shell, daemons.workspace, root / "folder")
    finally:
        end(shell.process)
        daemons.close()


def verify(workspace: Path, *more: str) -> tuple[int, dict[str, Any]]:
    done = forks.run([*CLI, "verify", "--all", "--json", "--workspace", str(workspace), *more])
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, found


def flip(path: Path, share: float = 0.5) -> bytes:
    whole = path.read_bytes()
    place = int(share * len(whole))
    path.chmod(0o644)
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x11]) + whole[place + 1 :])
    return whole


def one(world: World, pattern: str) -> Path:
    return sorted(world.workspace.glob(pattern))[0]


def test_a_whole_workspace_is_whole(world: World) -> None:
    status, found = verify(world.workspace)
    assert (status, found["found"], found["catalog"]) == (0, [], [])
    assert found["files"] > 20


CALLS: dict[str, Callable[[World], tuple[str, dict[str, Any]]]] = {
    "datasets/points/*.parquet": lambda world: ("query_dataset", {"dataset": "points"}),
    "models/sorter/v1/estimator.safetensors": lambda world: (
        "predict", {"model": "sorter@v1", "inputs": [{"row": {"a": 3, "b": 0.5}}]},
    ),
    "evaluations/*/predictions.parquet": lambda world: (
        "describe_evaluation", {"evaluation": one(world, "evaluations/*").name, "errors": 3},
    ),
}  # fmt: skip


@pytest.mark.parametrize("pattern", CALLS)
def test_the_call_that_needs_the_file_names_it_and_the_others_go_on(world: World, pattern: str) -> None:
    path, (tool, arguments) = one(world, pattern), CALLS[pattern](world)
    whole = flip(path)
    forks.run([*CLI, "stop", "--workspace", str(world.workspace)]).check_returncode()
    world.shell.call("get_status", {})  # of the next daemon, whose processes have read nothing yet
    pid = json.loads((world.workspace / "daemon.json").read_text())["pid"]
    try:
        answer = world.shell.call(tool, arguments)
        text = said(answer)
        assert answer["isError"], text
        assert path.name in text, text
        assert "defect" not in text
        assert "Next:" in text
        status, found = verify(world.workspace)
        assert status == 1
        assert [each["path"] for each in found["found"] if path.name in each["path"] or path.name in each["why"]]
        for other in (("get_status", {}), ("predict", {"model": "second@v1", "inputs": [{"row": {"a": 3, "b": 0.5}}]})):
            assert not world.shell.call(*other)["isError"]
        assert json.loads((world.workspace / "daemon.json").read_text())["pid"] == pid
    finally:
        path.write_bytes(whole)
    assert not world.shell.call(tool, arguments)["isError"]


def test_a_damaged_catalog_is_named_and_the_way_back_leads_back(world: World, tmp_path: Path) -> None:
    """Last in this file: on a copy, which nobody has open."""
    copy = tmp_path / "workspace"
    forks.run([*CLI, "backup", str(copy), "--workspace", str(world.workspace)]).check_returncode()
    shutil.copytree(world.workspace / "backups", copy / "backups", dirs_exist_ok=True)
    catalog = copy / "catalog.duckdb"
    whole = catalog.read_bytes()
    for place in range(12_288, len(whole), 262_144):  # a byte of every block
        catalog.write_bytes(catalog.read_bytes()[:place] + b"\xff\x00" + catalog.read_bytes()[place + 2 :])
    status, found = verify(copy)
    assert status == 1
    assert any("damaged" in problem and "speciate rebuild" in problem for problem in found["catalog"]), found
    done = forks.run([*CLI, "rebuild", "--workspace", str(copy)])
    assert done.returncode == 0, done.stderr
