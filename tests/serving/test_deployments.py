"""Real deployments on loopback: started, adopted, killed, in conflict. Nothing is in production: no model loads."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from speciate import __version__, settings
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool
from speciate.promotion import aliases
from speciate.serving import deployments
from speciate.serving.deployment_folder import DeploymentFolder, Target, Wanted, deployment_folder
from speciate.serving.deployments import DeploymentKeeper, DeploymentView, gather_examples
from speciate.serving.process import TAKEN
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests.serving.fakes import target
from tests.serving.test_deployment import until
from tests.serving.world import move
from tests.training.world import define, make_dataset, png

pytestmark = [pytest.mark.durable, pytest.mark.slow]

USE_CASE = "reviews"
Keep = Callable[[], DeploymentKeeper]


@pytest.fixture
def workspace(tmp_path: Any) -> Iterator[Workspace]:
    """With a clock that goes: keepers wait between two starts."""
    workspace = Workspace(tmp_path / "workspace", settings=Settings(policy="auto"))
    define(workspace, USE_CASE, "text-classification")
    yield workspace
    workspace.close()


@pytest.fixture
def keep(workspace: Workspace) -> Iterator[Keep]:
    """Starts a keeper; the deployments end with the test."""
    pool, kept = Pool(workspace.folders, workspace.settings), list[DeploymentKeeper]()

    def start() -> DeploymentKeeper:
        kept.append(DeploymentKeeper(workspace, pool))
        kept[-1].start()
        return kept[-1]

    yield start
    for keeper in kept:
        keeper.stop()
    folder = deployment_folder(workspace.folders, USE_CASE)
    if folder.path.exists():
        folder.stop()
        until(lambda: not folder.alive(), 30)
    pool.close()


def view(workspace: Workspace) -> DeploymentView:
    found = deployments.deployment_of(workspace.folders, USE_CASE)
    assert found
    return found


def listening(workspace: Workspace) -> bool:
    """Whether it can be asked how it is."""
    url = view(workspace).url
    if url is None:
        return False
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    try:
        connection.request("GET", "/healthz")
        return json.loads(connection.getresponse().read()) == {"serving": None, "loading": None}
    except OSError:
        return False
    finally:
        connection.close()


def pid_of(folder: DeploymentFolder) -> int:
    return folder.state().pid


def events(workspace: Workspace, *kinds: str) -> list[str]:
    return [event.type for event in workspace.database.events_after(0) if event.type in kinds]


def test_a_killed_deployment_comes_back_at_its_port_and_says_so(workspace: Workspace, keep: Keep) -> None:
    deployments.start_deployment(workspace, USE_CASE)
    keep()
    until(lambda: listening(workspace), 60)
    folder, url = deployment_folder(workspace.folders, USE_CASE), view(workspace).url
    first = pid_of(folder)
    os.kill(first, signal.SIGKILL)
    until(lambda: pid_of(folder) not in (0, first) and listening(workspace), 60)
    assert view(workspace).url == url
    until(lambda: events(workspace, "slot.started", "slot.died") == ["slot.started", "slot.died", "slot.started"])


def test_a_deployment_outlives_its_keeper_and_is_adopted_by_the_next(workspace: Workspace, keep: Keep) -> None:
    deployments.start_deployment(workspace, USE_CASE)
    keeper = keep()
    until(lambda: listening(workspace), 60)
    folder = deployment_folder(workspace.folders, USE_CASE)
    pid = pid_of(folder)
    keeper.stop()
    assert listening(workspace)
    folder.note("slot.serving", 1.0, model="words@v1")  # what it does while no daemon lives
    keep()
    until(lambda: events(workspace, "slot.serving"))
    assert pid_of(folder) == pid
    assert events(workspace, "slot.started", "slot.died", "slot.serving") == ["slot.started", "slot.serving"]


def test_a_deployment_of_another_version_of_the_package_is_restarted_at_its_port(
    workspace: Workspace, keep: Keep
) -> None:
    deployments.start_deployment(workspace, USE_CASE)
    keeper = keep()
    until(lambda: listening(workspace), 60)
    folder, url = deployment_folder(workspace.folders, USE_CASE), view(workspace).url
    keeper.stop()  # an upgrade: the daemon ends, the deployment serves on
    old = folder.state()
    assert old.version == __version__
    folder.tell(old.model_copy(update={"version": "0.1.0"}))
    keep()
    until(lambda: pid_of(folder) not in (0, old.pid) and listening(workspace), 60)
    assert (view(workspace).url, folder.state().version) == (url, __version__)
    kinds = ["slot.started", "slot.ended", "slot.died"]
    until(lambda: events(workspace, *kinds) == ["slot.started", "slot.ended", "slot.started"])


def test_of_two_processes_of_a_deployment_one_ends(workspace: Workspace, keep: Keep) -> None:
    deployments.start_deployment(workspace, USE_CASE)
    keep()
    until(lambda: listening(workspace), 60)
    folder = deployment_folder(workspace.folders, USE_CASE)
    pid = pid_of(folder)
    second = [sys.executable, "-m", "speciate.serving.process", str(folder.path)]
    assert subprocess.run(second, timeout=60, check=False).returncode == TAKEN
    assert pid_of(folder) == pid
    assert listening(workspace)


def test_a_port_in_use_is_told_and_the_deployment_begins_once_it_is_free(workspace: Workspace, keep: Keep) -> None:
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        port = squatter.getsockname()[1]
        deployments.start_deployment(workspace, USE_CASE, port=port)
        keep()
        until(lambda: view(workspace).state == "failed", 60)
        assert f"Port {port} cannot be used" in (view(workspace).problem or "")
        until(lambda: events(workspace, "slot.failed"))
    until(lambda: listening(workspace), 60)
    assert view(workspace).url == f"http://127.0.0.1:{port}"
    assert view(workspace).problem is None
    assert events(workspace, "slot.failed") == ["slot.failed"]


def test_a_stopped_deployment_ends_in_order_and_stays_away(workspace: Workspace, keep: Keep) -> None:
    deployments.start_deployment(workspace, USE_CASE)
    keeper = keep()
    until(lambda: listening(workspace), 60)
    process = psutil.Process(pid_of(deployment_folder(workspace.folders, USE_CASE)))
    assert not keeper.idle
    deployments.stop_deployment(workspace, USE_CASE)
    until(lambda: view(workspace).state == "stopped", 60)
    assert keeper.idle
    until(lambda: events(workspace, "slot.ended"))
    assert events(workspace, "slot.died") == []
    until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


def test_what_cannot_be_a_deployment_is_refused(workspace: Workspace) -> None:
    with pytest.raises(SpeciateError) as error:
        deployments.start_deployment(workspace, "revews")
    assert error.value.code is Code.NOT_FOUND
    with pytest.raises(SpeciateError, match="max_batch"):
        deployments.start_deployment(workspace, USE_CASE, max_batch=0)
    with pytest.raises(SpeciateError, match="no deployment"):
        deployments.stop_deployment(workspace, USE_CASE)
    assert deployments.list_deployments(workspace) == []


def test_where_settings_say_so_the_first_promotion_brings_a_deployment(workspace: Workspace, keep: Keep) -> None:
    promoted = settings.Settings.model_validate({"serving": {"start": "after_promotion", "max_batch": 4}})
    workspace.settings = promoted
    keeper = keep()
    assert deployments.list_deployments(workspace) == []
    move(workspace, "films-model@v1")
    until(lambda: deployments.deployment_of(workspace.folders, USE_CASE))
    folder = deployment_folder(workspace.folders, USE_CASE)
    wanted = folder.wanted()
    assert wanted
    assert wanted.options.max_batch == 4
    deployments.stop_deployment(workspace, USE_CASE)
    move(workspace, "films-model@v2")
    keeper.look()
    assert folder.stopped, "a person stopped it"


def test_what_libraries_said_goes_when_something_is_forgotten(workspace: Workspace, keep: Keep) -> None:
    deployments.start_deployment(workspace, USE_CASE)
    deployments.stop_deployment(workspace, USE_CASE)
    log = deployment_folder(workspace.folders, USE_CASE).path / "log"
    log.write_text("cannot decode 'Jane Roe'")
    keep()
    workspace.database.transact(lambda tx: tx.event("job-x", "data.forgotten"))
    until(lambda: log.read_text() == "")


# The keeper reads all aliases at one moment, at a cost that does not grow with the number of deployments.


USE_CASES = [f"case-{number}" for number in range(8)]


def promoted(workspace: Workspace, use_case: str, model: str) -> None:
    about: dict[str, Any] = {"use_case": use_case, "model": model, "actor": "ada", "evidence": {}, "expected": None}
    workspace.database.transact(lambda tx: aliases.move(tx, action="promote", **about))


def canary(workspace: Workspace, use_case: str, model: str) -> None:
    about: dict[str, Any] = {"use_case": use_case, "model": model, "actor": "ada", "evidence": {}, "expected": None}
    workspace.database.transact(lambda tx: aliases.set_canary(tx, percent=5, **about))


@pytest.fixture
def keeper(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> DeploymentKeeper:
    """Of deployments whose processes are not started."""
    keeper = DeploymentKeeper(workspace, None)  # type: ignore[arg-type]  # nobody gathers examples
    monkeypatch.setattr(keeper, "_keep_alive", lambda folder, watched: None)
    monkeypatch.setattr(keeper, "_target", lambda folder, alias, before: named(alias.model, alias.generation))
    for use_case in USE_CASES:
        folder = deployment_folder(workspace.folders, use_case)
        folder.create()
        folder.want(Wanted(use_case=use_case, options=workspace.settings.serving))
        promoted(workspace, use_case, "words@v1")
    return keeper


def named(model: str, generation: int) -> Target:
    return target(1).model_copy(update={"model": model, "generation": generation})


def wanted(workspace: Workspace, use_case: str = USE_CASES[0]) -> Wanted:
    found = deployment_folder(workspace.folders, use_case).wanted()
    assert found
    return found


def test_aliases_of_all_deployments_are_read_at_once(
    workspace: Workspace, keeper: DeploymentKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper.look()
    assert all((told := wanted(workspace, each).target) and told.model == "words@v1" for each in USE_CASES)
    asked: list[str] = []
    read = workspace.database.read
    monkeypatch.setattr(workspace.database, "read", lambda sql, *rest: (asked.append(sql), read(sql, *rest))[1])
    monkeypatch.setattr(keeper._baker, "look", lambda: None)
    keeper.look()
    assert asked == [], "nothing was committed"
    workspace.database.transact(lambda tx: tx.event("use_case:other", "note", {}))
    keeper.look()
    assert len(asked) == 1


def test_a_canary_that_comes_into_production_is_never_in_neither_place(
    workspace: Workspace, keeper: DeploymentKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary(workspace, USE_CASES[0], "words@v2")
    keeper.look()
    assert wanted(workspace).canary
    read, moved = workspace.database.read, list[str]()

    def then_promoted(sql: str, *rest: Any) -> Any:
        """It moves right after the keeper has read something of it."""
        rows = read(sql, *rest)
        if "aliases" in sql and not moved:
            moved.append("words@v2")
            promoted(workspace, USE_CASES[0], "words@v2")
        return rows

    monkeypatch.setattr(workspace.database, "read", then_promoted)
    workspace.database.transact(lambda tx: tx.event("use_case:other", "note", {}))  # so it reads again
    keeper.look()
    assert moved
    assert (model(wanted(workspace).target), model(wanted(workspace).canary)) == ("words@v1", "words@v2")
    keeper.look()
    assert (model(wanted(workspace).target), model(wanted(workspace).canary)) == ("words@v2", None)


def model(found: Target | None) -> str | None:
    return found.model if found else None


# Examples to try a version on: as clients would send them, few, and none where a client could not send them so.


def gathered(workspace: Workspace, manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(folder)
    answer = gather_examples({"root": str(workspace.folders.root), "manifest": manifest.model_dump(mode="json")})
    return json.loads((folder / answer["file"]).read_text())


def test_rows_are_given_column_by_column_spread_over_the_version(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = {"x1": [float(i) for i in range(80)], "x2": ["a", None] * 40, "note": ["private"] * 80}
    manifest = make_dataset(
        workspace, "rows", "tabular", columns, labels=["a"] * 80, splits=["train"] * 80, inputs=["x1", "x2"]
    )
    items = gathered(workspace, manifest, tmp_path, monkeypatch)
    assert [item["row"]["x1"] for item in items] == [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0]
    assert all(set(item["row"]) == {"x1", "x2"} for item in items)


def test_files_are_given_byte_by_byte(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    media = [png(np.full((4, 4), shade, np.uint8)) for shade in (1, 2, 3)]
    manifest = make_dataset(
        workspace, "pictures", "image", {}, labels=["a"] * 3, splits=["train"] * 3, media=media
    )  # fmt: skip
    items = gathered(workspace, manifest, tmp_path, monkeypatch)
    assert [base64.b64decode(item["data"]) for item in items] == media


def test_of_windows_there_are_none(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks sends a whole file, and a model of windows was not trained on those."""
    media = [png(np.full((4, 4), 1, np.uint8))]
    columns = {"_start": [0.0], "_stop": [1.0]}
    manifest = make_dataset(workspace, "clips", "image", columns, labels=["a"], splits=["train"], media=media)
    assert gathered(workspace, manifest, tmp_path, monkeypatch) == []


def test_a_promotion_that_found_a_full_disk_is_told_at_the_next_look(
    workspace: Workspace, keeper: DeploymentKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper.look()
    promoted_now, want, full = USE_CASES[0], DeploymentFolder.want, [True]

    def wants(folder: DeploymentFolder, given: Wanted) -> None:
        if full:
            full.clear()
            raise OSError(28, "No space left on device")
        want(folder, given)

    monkeypatch.setattr(DeploymentFolder, "want", wants)
    about: dict[str, Any] = {"use_case": promoted_now, "model": "words@v2", "actor": "ada", "evidence": {}}
    workspace.database.transact(lambda tx: aliases.move(tx, action="promote", expected="words@v1", **about))
    keeper.look()
    assert [each.model for each in [wanted(workspace, promoted_now).target] if each] == ["words@v1"]
    keeper.look()
    assert [each.model for each in [wanted(workspace, promoted_now).target] if each] == ["words@v2"]
