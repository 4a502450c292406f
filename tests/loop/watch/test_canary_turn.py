"""Two turns of the loop beside a real deployment on loopback: its first candidate cannot be served and is taken back,
the next one serves a share of the requests, survives, serves all, and survives again."""

from __future__ import annotations

import http.client
import json
from pathlib import Path

import pytest

from speciate.loop.watch import rows
from speciate.loop.watch.definition import Policy, Trigger
from speciate.loop.watch.facts import Decision
from speciate.promotion import aliases
from speciate.serving import deployments
from speciate.serving.deployment_folder import DeploymentFolder, deployment_folder
from speciate.serving.deployments import DeploymentKeeper
from speciate.settings import Bake
from speciate.tools.watches import watch_use_case
from tests.loop.watch import digits
from tests.loop.watch.digits import USE_CASE, Loop, Source
from tests.serving.test_deployment import until
from tests.serving.world import spoil

pytestmark = pytest.mark.slow
PATIENCE = 120.0
_CANARIES = "SELECT action, before, after, actor FROM audit WHERE action LIKE 'canary%' ORDER BY seq"


def ask(loop: Loop, source: Source, count: int) -> dict[str, int]:
    """Requests of one row each, over HTTP: version -> how many it answered."""
    view = deployments.deployment_of(loop.app.workspace.folders, USE_CASE)
    assert view is not None
    assert view.url is not None
    connection = http.client.HTTPConnection(view.url.removeprefix("http://"), timeout=60)
    headers = {"authorization": f"Bearer {view.token.read_text()}", "content-type": "application/json"}
    answered: dict[str, int] = {}
    for row, label in source.ask(count):
        connection.request("POST", "/predict", json.dumps({"inputs": [{"row": row}]}), headers)
        response = connection.getresponse()
        said = json.loads(response.read())
        assert response.status == 200, said
        loop.right[said["predictions"][0]["prediction"]] = label
        answered[said["model"]] = answered.get(said["model"], 0) + 1
    connection.close()
    return answered


def survives(loop: Loop, source: Source, event: str) -> None:
    """Asks until the bake says so."""

    def over() -> bool:
        ask(loop, source, 20)
        loop.bakes.look(now=True)
        return bool(loop.app.workspace.database.read("SELECT 1 FROM events WHERE type = ? LIMIT 1", [event]))

    until(over, PATIENCE)


def label_until_it_serves_a_share(loop: Loop, source: Source) -> Decision:
    """An episode that somebody asks for, until its candidate is a canary."""
    watch_use_case(loop.app, USE_CASE, [Trigger(on="now")], Policy(action="auto", labels=500, cooldown_hours=0))
    for _ in range(12):
        decision = loop.look()
        if decision.memory.state == "labelling":
            loop.label(100)
        if decision.memory.state == "baking" or decision.ended is not None:
            return decision
        ask(loop, source, 30)
    raise AssertionError(decision.because)


def test_a_candidate_that_cannot_be_served_is_taken_back_and_the_next_one_comes_by_its_share(tmp_path: Path) -> None:
    bake = Bake(hours=0, requests=15)
    with digits.loop(tmp_path, [], clock=digits.GoingClock(), bake=bake) as loop:
        workspace, new = loop.app.workspace, digits.other()
        assert loop.app.pool is not None
        loop.start(tmp_path, digits.own())
        keeper = DeploymentKeeper(workspace, loop.app.pool)
        keeper.start()
        folder = deployment_folder(workspace.folders, USE_CASE)
        try:
            deployments.start_deployment(workspace, USE_CASE)
            until(lambda: folder.state().serving == "digits-model@v1", PATIENCE)
            survives(loop, new, "promotion.survived")
            ask(loop, new, 250)

            keeper.stop()  # the deployment serves on, and hears of no canary
            decision = label_until_it_serves_a_share(loop, new)
            broken = decision.memory.model_found
            assert decision.memory.canary, decision.because
            assert broken is not None
            spoil(workspace, broken)
            keeper = DeploymentKeeper(workspace, loop.app.pool)
            keeper.start()
            until(lambda: aliases.read(workspace.database, USE_CASE, "canary") is None, PATIENCE)
            until(lambda: outcome_of_first(loop) is not None, PATIENCE)
            assert outcome_of_first(loop) == "taken_back"
            assert set(ask(loop, new, 20)) == {"digits-model@v1"}, "nobody was answered by it"

            by_share, better = _turn(loop, folder, new)
        finally:
            keeper.stop()
            folder.stop()
            until(lambda: not folder.alive(), PATIENCE)
        first, second = reversed(rows.episodes(workspace.database, USE_CASE))
        assert (first.outcome, second.outcome) == ("taken_back", "promoted")
        assert (first.model, second.model) == (broken, better)
        told = workspace.database.read(_CANARIES)
        assert [(action, after or before, actor) for action, before, after, actor in told][:3] == [
            ("canary", broken, "watch"), ("canary_end", broken, "bake"), ("canary", by_share, "watch"),
        ], told  # fmt: skip


def outcome_of_first(loop: Loop) -> str | None:
    """Of the first episode, as a look leaves it: the look that ends it need not be the test's next one."""
    loop.look()
    return rows.episodes(loop.app.workspace.database, USE_CASE)[-1].outcome


def _turn(loop: Loop, folder: DeploymentFolder, source: Source) -> tuple[str, str]:
    """From a person's call to a version that survived with a share, and then with all; that one, and the one that
    serves once the episode is over: a second round may bring another."""
    decision = label_until_it_serves_a_share(loop, source)
    model = decision.memory.model_found
    assert decision.memory.canary, decision.because
    assert model is not None
    until(lambda: folder.state().canary == model, PATIENCE)
    answered = ask(loop, source, 150)
    assert 3 <= answered[model] <= 40, "a tenth"
    survives(loop, source, "canary.survived")
    seen = [loop.look().because for _ in range(3)]
    assert f"{model} survived with its share: all requests are asked for" in seen
    until(lambda: folder.state().serving == model and folder.state().canary is None, PATIENCE)
    assert set(ask(loop, source, 60)) == {model}
    looks: list[Decision] = []

    def baked() -> bool:
        """Its log may reach the disk after the answers."""
        loop.bakes.look(now=True)
        looks.append(loop.look())
        return looks[-1].ended is not None or looks[-1].memory.state != "baking"

    until(baked, PATIENCE)
    decision = looks[-1]
    for _ in range(60):
        if decision.ended is not None:
            break
        assert decision.memory.round == 2, "short of the target"
        if decision.memory.state == "labelling":
            loop.label(100)
        ask(loop, source, 100 if decision.memory.state == "baking" else 30)
        decision = loop.look()
    assert decision.ended is not None, decision.because
    return model, str(decision.ended.model)
