"""kill -9 of everything, at random and at named points, while MCP clients work over open connections."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import pytest

from tests.crash.world import ROLES, World

pytestmark = pytest.mark.durable

SOURCE = Path(__file__).resolve().parents[2] / "src" / "speciate"
CODE = "".join(file.read_text() for file in SOURCE.rglob("*.py") if file.name != "faults.py")
_ELSEWHERE = "export_|place_|predict_|promotion_|rebuild_|slot_|watch_"
POINTS = sorted(set(re.findall(rf'\bfault\("(?!{_ELSEWHERE})(\w+)"\)', CODE)))
"""Those that the clients' scripts pass. An export's are struck in tests/datasets/exports, a place's in
tests/jobs/places, a promotion's in test_promotion_kills.py, a rebuild's in tests/workspace/test_catalog_identity.py, a
watch's in tests/loop/watch/test_year.py; batches and deployments are killed at random moments, by
test_predict_kills.py and test_soak.py."""


def soak(world: World, kills: int, clients: int, jobs: int, chance: random.Random) -> None:
    """Kill until `kills` processes have died and every client has finished; daemons race after each daemon's death."""
    world.race_daemons(3)
    world.start_clients(clients, jobs)
    deadline = time.monotonic() + 30 + 3 * kills
    while world.clients_at_work() and time.monotonic() < deadline:
        if world.kills.total() < kills:
            role = chance.choice(["daemon", "supervisor", "supervisor", "worker", "worker", "zygote", "service"])
            if world.kill(role, chance) and role == "daemon":
                world.race_daemons(3)
        time.sleep(chance.uniform(0.02, 0.5))


@pytest.mark.parametrize(
    ("kills", "clients", "jobs"),
    [pytest.param(4, 2, 3, id="brief"), pytest.param(300, 4, 120, id="long", marks=pytest.mark.slow)],
)
def test_random_kills_lose_nothing_and_run_nothing_twice(tmp_path: Path, kills: int, clients: int, jobs: int) -> None:
    world = World(tmp_path)
    try:
        soak(world, kills, clients, jobs, chance=random.Random(20))
        reports = world.client_reports()
    finally:
        world.stop()
    print(f"kills {dict(world.kills)}")
    verdict = world.verdict()
    print(verdict)
    assert reports == ["done"] * clients, "\n\n".join(reports)
    assert verdict.acknowledged == clients * jobs
    assert verdict.wrong() == []
    assert world.kills.total() >= kills / 2
    assert set(world.kills) <= set(ROLES.values())


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_a_named_point_costs_nothing(tmp_path: Path, point: str) -> None:
    struck = tmp_path / "struck"
    world = World(tmp_path, fault=f"{point}:kill:{struck}")
    try:
        world.race_daemons(1)
        world.start_clients(1, 6)
        while world.clients_at_work() and not world.kill_run():
            time.sleep(0.02)  # so that the points of a lost run are passed too
        reports = world.client_reports()
    finally:
        world.stop()
    assert struck.exists(), f"the point {point} was never reached"
    assert reports == ["done"], reports
    assert world.verdict().wrong() == []


@pytest.mark.slow
@pytest.mark.parametrize("broken", [True, False], ids=["control", "whole"])
def test_a_run_that_lost_its_supervisor_keeps_the_next_attempt_out(tmp_path: Path, broken: bool) -> None:
    """The control: where the worker does not inherit the claim, the next attempt begins while the first still lives,
    and the suite must say so every time. One run lasts far longer than a daemon takes to start another."""
    world = World(tmp_path, fault="claim_inherited:break" if broken else "")
    try:
        world.race_daemons(1)
        world.start_clients(1, 1, shortest=20, longest=20)
        world.until(lambda: len(world.began()) == 1)
        assert world.kill("supervisor", random.Random(3))
        world.until(lambda: len(world.began()) == 2 or not world.clients_at_work())
    finally:
        world.stop()
    said = " ".join(world.verdict().wrong())
    assert ("two lives at once" in said) is broken
