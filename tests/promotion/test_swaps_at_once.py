"""Promotions, rollbacks and canaries of one use case at the same time: each generation has one winner, and pointer,
trail and events tell the same story. The long test does it over MCP, with kills and under traffic."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speciate.errors import Code, SpeciateError
from speciate.governance import audit
from speciate.promotion import aliases
from speciate.promotion.rollback import roll_back
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace
from tests.crash.test_promotion_kills import Production
from tests.promotion import world
from tests.server.processes import Stdio, end
from tests.serving.test_deployment import until
from tests.serving.test_traffic import Client
from tests.serving.world import USE_CASE, scaled

MODELS = [f"m@v{number}" for number in range(1, 5)]
CALLERS, EACH = 8, 12
_EVENTS = "SELECT data FROM events WHERE type = 'alias.moved' ORDER BY seq"


def _turn(workspace: Workspace, chance: random.Random) -> bool | None:
    """One caller's move from what it believes to serve; whether it won. None: there was nothing to be moved."""
    serving = aliases.read(workspace.database, "digits")
    believed = serving.model if serving else aliases.NOTHING
    wanted, action = chance.choice(MODELS), chance.choice(("promote", "promote", "canary", "back"))
    if wanted == believed:
        return None
    what = {"use_case": "digits", "model": wanted, "expected": believed, "actor": "ada"}

    def move(tx: Transaction) -> Any:
        if action == "back":
            return roll_back(tx, "digits", expected=believed, to=None, reason="worse", actor="ada")
        if action == "canary":
            return aliases.set_canary(tx, **what, percent=10.0, evidence={})
        return aliases.move(tx, **what, action="promote", evidence={})

    try:
        workspace.database.transact(move)
    except SpeciateError as error:
        return False if error.code is Code.CONFLICT else None
    return True


def test_of_moves_at_once_each_generation_has_one_winner(workspace: Workspace) -> None:
    world.define(workspace)
    together, told, failures = threading.Barrier(CALLERS), list[bool | None](), list[BaseException]()

    def caller(number: int) -> None:
        chance = random.Random(number)
        try:
            for _ in range(EACH):
                together.wait(30)
                told.append(_turn(workspace, chance))
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)
            together.abort()

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(CALLERS)]
    [thread.start() for thread in threads]
    [thread.join(60) for thread in threads]
    assert failures == []
    assert told.count(False) > 0, "else nothing was at once"
    trail = audit.of_use_case(workspace.database, "digits")
    assert audit.verify(workspace.database).problems == ()
    assert told.count(True) == len(trail), "who was told so moved it, and nobody else"
    moves = [json.loads(data) for (data,) in workspace.database.read(_EVENTS)]
    into = [move for move in moves if move["alias"] == "production"]
    assert [move["generation"] for move in into] == list(range(1, len(into) + 1)), "none twice, none left out"
    assert [move["before"] for move in into] == [None, *(move["after"] for move in into[:-1])]
    now = aliases.read(workspace.database, "digits")
    assert now is not None
    assert (now.model, now.generation) == (into[-1]["after"], len(into))
    assert {row.hash for row in trail} >= {move["audit"] for move in into}


@pytest.fixture
def production(tmp_path: Path) -> Iterator[Production]:
    made = Production(tmp_path, scaled(0.5))
    yield made
    made.close()


@pytest.mark.slow
def test_clients_that_swap_at_once_while_the_daemon_dies_drop_no_request(production: Production) -> None:
    """Four clients over MCP, two kills of the daemon, connections that keep asking the deployment."""
    production.begin("never_reached")
    enough, stop = threading.Event(), threading.Event()
    state = production.state()
    assert state.port is not None
    traffic = [Client(state.port, production.folder.token(), stop) for _ in range(4)]
    [each.start() for each in traffic]
    shells = [Stdio(production.root) for _ in range(4)]
    won: list[int] = []

    def swap(shell: Stdio, number: int) -> None:
        shell.initialize()
        for turn in range(30):
            if enough.is_set():
                return
            model = production.first if (turn + number) % 2 else production.second
            with contextlib.suppress(KeyError):  # the call of a daemon that died
                answer = shell.call("move_alias", {"use_case": USE_CASE, "model": model})
                if not answer.get("isError"):
                    won.append(json.loads(answer["content"][0]["text"])["generation"])
            time.sleep(0.05)

    swappers = [threading.Thread(target=swap, args=(shell, number)) for number, shell in enumerate(shells)]
    [each.start() for each in swappers]
    kills = 0
    while kills < 2:
        time.sleep(2)
        with contextlib.suppress(SpeciateError):  # one that is just being started
            production.daemons.kill()
            kills += 1
    [each.join(120) for each in swappers]
    enough.set()
    for shell in shells:
        end(shell.process)
    assert len(won) == len(set(won)), "a generation has one winner"
    production.call("get_status", {})
    until(lambda: production.state().loading is None and production.state().serving is not None, 60)
    time.sleep(1)
    stop.set()
    [each.join(60) for each in traffic]
    served = production.state().serving
    catalog = production.end()
    assert catalog.pointers["production"] == served
    assert catalog.problems == ()
    assert [row.before for row in catalog.trail] == [None, *(row.after for row in catalog.trail[:-1])]
    assert [failure for each in traffic for failure in each.failures] == []
    assert sum(len(each.answers) for each in traffic) > 100
