"""Real slots on loopback: started, adopted, killed, in each other's way. Nothing is in production: no model loads."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from speciate import settings
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool
from speciate.serving import slots
from speciate.serving.folder import SlotFolder, slot_folder
from speciate.serving.keeper import Keeper
from speciate.serving.process import TAKEN
from speciate.serving.slots import SlotView
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests.serving.test_slot import until
from tests.serving.world import move
from tests.training.world import define

pytestmark = pytest.mark.slow

USE_CASE = "reviews"
Keep = Callable[[], Keeper]


@pytest.fixture
def workspace(tmp_path: Any) -> Iterator[Workspace]:
    """With a clock that goes: keepers wait between two starts."""
    workspace = Workspace(tmp_path / "workspace", settings=Settings(policy="auto"))
    define(workspace, USE_CASE, "text-classification")
    yield workspace
    workspace.close()


@pytest.fixture
def keep(workspace: Workspace) -> Iterator[Keep]:
    """Starts a keeper; the slots end with the test."""
    pool, kept = Pool(workspace.folders, workspace.settings), list[Keeper]()

    def start() -> Keeper:
        kept.append(Keeper(workspace, pool))
        kept[-1].start()
        return kept[-1]

    yield start
    for keeper in kept:
        keeper.stop()
    folder = slot_folder(workspace.folders, USE_CASE)
    if folder.path.exists():
        folder.stop()
        until(lambda: not folder.alive(), 30)
    pool.close()


def view(workspace: Workspace) -> SlotView:
    found = slots.of(workspace.folders, USE_CASE)
    assert found
    return found


def listening(workspace: Workspace) -> bool:
    """Whether it can be asked how it is."""
    url = view(workspace).url
    if url is None:
        return False
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    try:
        connection.request("GET", "/healthz")
        return json.loads(connection.getresponse().read()) == {"serving": None, "loading": None}
    except OSError:
        return False
    finally:
        connection.close()


def pid_of(folder: SlotFolder) -> int:
    return folder.state().pid


def events(workspace: Workspace, *kinds: str) -> list[str]:
    return [event.type for event in workspace.database.events_after(0) if event.type in kinds]


def test_a_killed_slot_comes_back_at_its_port_and_says_so(workspace: Workspace, keep: Keep) -> None:
    slots.start(workspace, USE_CASE)
    keep()
    until(lambda: listening(workspace), 60)
    folder, url = slot_folder(workspace.folders, USE_CASE), view(workspace).url
    first = pid_of(folder)
    os.kill(first, signal.SIGKILL)
    until(lambda: pid_of(folder) not in (0, first) and listening(workspace), 60)
    assert view(workspace).url == url
    until(lambda: events(workspace, "slot.started", "slot.died") == ["slot.started", "slot.died", "slot.started"])


def test_a_slot_outlives_its_keeper_and_is_adopted_by_the_next(workspace: Workspace, keep: Keep) -> None:
    slots.start(workspace, USE_CASE)
    keeper = keep()
    until(lambda: listening(workspace), 60)
    folder = slot_folder(workspace.folders, USE_CASE)
    pid = pid_of(folder)
    keeper.stop()
    assert listening(workspace)
    folder.note("slot.serving", 1.0, model="words@v1")  # what it does while no daemon lives
    keep()
    until(lambda: events(workspace, "slot.serving"))
    assert pid_of(folder) == pid
    assert events(workspace, "slot.started", "slot.died", "slot.serving") == ["slot.started", "slot.serving"]


def test_of_two_processes_of_a_slot_one_ends(workspace: Workspace, keep: Keep) -> None:
    slots.start(workspace, USE_CASE)
    keep()
    until(lambda: listening(workspace), 60)
    folder = slot_folder(workspace.folders, USE_CASE)
    pid = pid_of(folder)
    second = [sys.executable, "-m", "speciate.serving.process", str(folder.path)]
    assert subprocess.run(second, timeout=60, check=False).returncode == TAKEN
    assert pid_of(folder) == pid
    assert listening(workspace)


def test_a_port_in_use_is_told_and_the_slot_begins_once_it_is_free(workspace: Workspace, keep: Keep) -> None:
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        port = squatter.getsockname()[1]
        slots.start(workspace, USE_CASE, port=port)
        keep()
        until(lambda: view(workspace).state == "failed", 60)
        assert f"Port {port} cannot be used" in (view(workspace).problem or "")
        until(lambda: events(workspace, "slot.failed"))
    until(lambda: listening(workspace), 60)
    assert view(workspace).url == f"http://127.0.0.1:{port}"
    assert view(workspace).problem is None
    assert events(workspace, "slot.failed") == ["slot.failed"]


def test_a_stopped_slot_ends_in_order_and_stays_away(workspace: Workspace, keep: Keep) -> None:
    slots.start(workspace, USE_CASE)
    keeper = keep()
    until(lambda: listening(workspace), 60)
    process = psutil.Process(pid_of(slot_folder(workspace.folders, USE_CASE)))
    assert not keeper.idle
    slots.stop(workspace, USE_CASE)
    until(lambda: view(workspace).state == "stopped", 60)
    assert keeper.idle
    until(lambda: events(workspace, "slot.ended"))
    assert events(workspace, "slot.died") == []
    until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


def test_what_cannot_be_a_slot_is_refused(workspace: Workspace) -> None:
    with pytest.raises(SpeciateError) as error:
        slots.start(workspace, "revews")
    assert error.value.code is Code.NOT_FOUND
    with pytest.raises(SpeciateError, match="max_batch"):
        slots.start(workspace, USE_CASE, max_batch=0)
    with pytest.raises(SpeciateError, match="no slot"):
        slots.stop(workspace, USE_CASE)
    assert slots.listed(workspace) == []


def test_where_settings_say_so_the_first_promotion_brings_a_slot(workspace: Workspace, keep: Keep) -> None:
    promoted = settings.Settings.model_validate({"serving": {"start": "after_promotion", "max_batch": 4}})
    workspace.settings = promoted
    keeper = keep()
    assert slots.listed(workspace) == []
    move(workspace, "films-model@v1")
    until(lambda: slots.of(workspace.folders, USE_CASE))
    folder = slot_folder(workspace.folders, USE_CASE)
    wanted = folder.wanted()
    assert wanted
    assert wanted.options.max_batch == 4
    slots.stop(workspace, USE_CASE)
    move(workspace, "films-model@v2")
    keeper.look()
    assert folder.stopped, "a person stopped it"


def test_what_libraries_said_goes_when_something_is_forgotten(workspace: Workspace, keep: Keep) -> None:
    slots.start(workspace, USE_CASE)
    slots.stop(workspace, USE_CASE)
    log = slot_folder(workspace.folders, USE_CASE).path / "log"
    log.write_text("cannot decode 'Jane Roe'")
    keep()
    workspace.database.transact(lambda tx: tx.event("job-x", "data.forgotten"))
    until(lambda: log.read_text() == "")
