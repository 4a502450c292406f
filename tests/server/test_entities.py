"""Who asks, over real processes: a daemon, the next one, a deployment, the shell, a backup and a lost catalog."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from speciate.predictions import reading
from speciate.predictions.entities import EntityHashes
from speciate.predictions.log_files import log_folder
from speciate.serving.deployment_folder import deployment_folder
from speciate.settings import Settings
from speciate.workspace.workspace import Folders, Workspace
from tests import forks
from tests.server.processes import CLI, Daemons
from tests.serving.test_deployment import until
from tests.serving.test_logged import posted
from tests.serving.world import USE_CASE, move, trained

pytestmark = pytest.mark.slow

WHO = "ada.lovelace-1815"


def run(daemons: Daemons, *words: str) -> str:
    done = forks.run([*CLI, *words, "--workspace", str(daemons.workspace)])
    assert done.returncode == 0, done.stderr
    return done.stdout


def entity(root: Path, prediction: str) -> str:
    return reading.find_many(log_folder(Folders(root), USE_CASE), [prediction])[prediction].entity


def files_with(folder: Path, needle: str) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path.relative_to(folder).as_posix() for path in files if needle.encode() in path.read_bytes()]


def test_an_entity_is_the_same_in_every_process_and_its_name_is_nowhere(
    daemons: Daemons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    root = daemons.workspace
    workspace = Workspace(root, settings=Settings(policy="auto"))
    move(workspace, trained(workspace).ref)
    workspace.close()
    told = list[str]()

    def ask() -> str:
        said = daemons.connect().predict(inputs=[{"text": "a good film"}], use_case=USE_CASE, entity=WHO)
        [answer] = said.predictions
        told.append(repr(said))
        assert answer.prediction
        return answer.prediction

    daemons.start()
    by_daemon = ask()
    arguments = json.dumps({"use_case": USE_CASE, "inputs": [{"text": "a bad film"}], "entity": WHO})
    told.append(run(daemons, "call", "predict", "--args", arguments))
    by_shell = json.loads(told[-1])["predictions"][0]["prediction"]
    run(daemons, "deployment", "start", USE_CASE)
    folder = deployment_folder(Folders(root), USE_CASE)
    until(lambda: folder.state().serving, 120)
    by_deployment = posted(folder, {"inputs": [{"text": "a fine film"}], "entity": WHO})
    through_deployment = ask()
    daemons.kill()
    daemons.start()
    by_next = ask()
    [hashed] = {entity(root, each) for each in (by_daemon, by_shell, by_deployment, through_deployment, by_next)}
    assert len(hashed) == 32
    run(daemons, "deployment", "stop", USE_CASE)
    until(lambda: not folder.lives, 60)
    run(daemons, "backup", str(tmp_path / "copy"))
    daemons.close()
    (root / "catalog.duckdb").unlink()
    run(daemons, "rebuild")
    assert EntityHashes(root, USE_CASE).of(WHO) == hashed, "a rebuilt workspace keeps its identity"
    key = next((tmp_path / "config" / "speciate" / "entities").iterdir())
    assert files_with(tmp_path, WHO) == []
    assert files_with(tmp_path, key.read_text().strip()) == [key.relative_to(tmp_path).as_posix()]
    assert files_with(tmp_path / "copy", hashed), "the copy has the log with its hashes, and no key"
    assert not any(WHO in each for each in told)
