"""kill -9 between decision, alias, audit and slot: afterwards all four agree, and the promotion happened once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from speciate.evaluation import decisions
from speciate.evaluation.reports.report import Decision
from speciate.governance import audit
from speciate.governance.audit import Row
from speciate.promotion import aliases
from speciate.serving import deployments
from speciate.serving.deployment_folder import State, deployment_folder
from speciate.workspace.lock import is_held
from speciate.workspace.workspace import Folders, Workspace
from tests.promotion import world as rows
from tests.server.processes import Daemons
from tests.serving.test_deployment import until
from tests.serving.world import USE_CASE, move, scaled, trained, version

pytestmark = pytest.mark.durable

PATIENCE = 120.0
IN_THE_CALL = ("submit_before_commit", "promotion_decided", "promotion_between_alias_and_audit", "submit_after_commit")
AFTER_IT = ("promotion_before_want", "promotion_wanted", "promotion_before_switch", "promotion_switched")
IN_THE_BAKE = ("promotion_bake_judged", "promotion_bake_acted")
QUIETLY = """
import sys
from pathlib import Path
from speciate.settings import Settings
from speciate.workspace.workspace import Folders, Workspace
from tests.promotion import world
workspace = Workspace(Path(sys.argv[1]), settings=Settings(policy="auto"))
print(world.ask_promotion(workspace, "m@v1")["state"])
workspace.close()
"""


def test_a_kill_inside_the_move_leaves_nothing_of_it(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    rows.define(workspace)
    rows.judge(workspace, "m@v1")
    workspace.close()

    def promote(fault: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", QUIETLY, str(tmp_path / "workspace")], env=os.environ | {"SPECIATE_FAULT": fault},
            capture_output=True, text=True, timeout=60, check=False, cwd=Path(__file__).parents[2],
        )  # fmt: skip

    assert promote("promotion_between_alias_and_audit:kill").returncode == -9
    assert found(tmp_path / "workspace").pointers == {}
    done = promote()
    assert done.stdout == "applied\n", done.stderr
    again = found(tmp_path / "workspace")
    assert (again.pointers, len(again.trail), again.problems) == ({"production": "m@v1"}, 1, ())


class Found(NamedTuple):
    """What the catalog says, read when nobody has it open."""

    pointers: dict[str, str]
    trail: list[Row]
    problems: tuple[str, ...]


def found(root: Path, use_case: str = "digits") -> Found:
    workspace = Workspace(root)
    try:
        database = workspace.database
        return Found(
            aliases.of_use_case(database, use_case), audit.of_use_case(database, use_case),
            audit.verify(database).problems,
        )  # fmt: skip
    finally:
        workspace.close()


class Production:
    """A use case whose first version serves through a slot, and a second one that has beaten it."""

    def __init__(self, root: Path, change: Callable[[Path], None]) -> None:
        self.root, self.struck = root / "workspace", root / "struck"
        self.daemons, self.folder = Daemons(self.root), deployment_folder(Folders(self.root), USE_CASE)
        workspace = Workspace(self.root)
        (self.root / "settings.toml").write_text('policy = "auto"\n')
        first = trained(workspace)
        self.first, self.second = first.ref, version(workspace, first, change, "second")
        move(workspace, self.first)
        _judged(workspace, self.second, self.first)
        deployments.start_deployment(workspace, USE_CASE)
        workspace.close()

    def begin(self, point: str) -> None:
        """The first version serves; the next process that comes to the point dies there, once."""
        self.struck.touch()
        self.daemons.start(fault=f"{point}:kill:{self.struck}")
        until(lambda: self.state().serving == self.first, PATIENCE)
        self.struck.unlink()

    def promote(self) -> None:
        """As a careful agent does it: again with the same key, where the call was interrupted."""
        arguments = {"use_case": USE_CASE, "model": self.second, "idempotency_key": "once"}
        until(lambda: self.call("promote_model", arguments), PATIENCE)

    def call(self, tool: str, arguments: dict[str, str]) -> bool:
        """Whether it was answered. Starts a daemon where none lives."""
        argv = [sys.executable, "-m", "speciate.cli", "call", tool, "--args", json.dumps(arguments)]
        done = subprocess.run(
            [*argv, "--workspace", str(self.root)], capture_output=True, text=True, timeout=120, check=False
        )  # fmt: skip
        assert done.returncode == 0 or "key was used" not in done.stderr, done.stderr
        return done.returncode == 0

    def settle(self, serving: str) -> None:
        """Until this version serves, whatever had to be started again for it."""
        end = time.monotonic() + PATIENCE
        while not (self.struck.exists() and self.agrees(serving)):
            assert time.monotonic() < end, (self.struck.exists(), self.state())
            self.call("get_status", {})
            time.sleep(0.2)

    def agrees(self, serving: str) -> bool:
        state, wanted = self.state(), self.folder.wanted()
        return bool(
            state.serving == serving and state.refused is None and state.loading is None
            and wanted and wanted.target and wanted.target.model == serving
        )  # fmt: skip

    def state(self) -> State:
        """Of the slot."""
        return self.folder.state()

    def end(self) -> Found:
        """What the catalog says once everything has ended."""
        self.folder.stop()
        until(lambda: not self.folder.alive(), 60)
        self.daemons.close()
        until(lambda: not is_held(self.root / "daemon.lock"), 60)
        return found(self.root, USE_CASE)

    def close(self) -> None:
        self.folder.stop()
        until(lambda: not self.folder.alive(), 60)
        self.daemons.close()


@pytest.fixture
def production(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Production]:
    made = Production(tmp_path, request.param)
    yield made
    made.close()


def _judged(workspace: Workspace, model: str, baseline: str) -> None:
    decision = Decision(
        id="decision-second", verdict="promote", reasons=("it is better",), candidate=model, baseline=baseline
    )  # fmt: skip
    workspace.database.transact(
        lambda tx: decisions.store(tx, decision, use_case=USE_CASE, version=1, evaluation="evaluation-1")
    )


@pytest.mark.slow
@pytest.mark.parametrize("production", [pytest.param(scaled(0.5), id="good")], indirect=True)
@pytest.mark.parametrize("point", [*IN_THE_CALL, *AFTER_IT])
def test_a_kill_on_the_way_of_a_promotion_costs_nothing(production: Production, point: str) -> None:
    production.begin(point)
    production.promote()
    production.settle(production.second)
    catalog = production.end()
    assert catalog.pointers == {"production": production.second, "previous": production.first}
    assert [(row.action, row.after) for row in catalog.trail] == [
        ("promote", production.first), ("promote", production.second),
    ]  # fmt: skip
    assert json.loads(catalog.trail[-1].evidence)["decision"] == "decision-second"
    assert catalog.problems == ()


@pytest.mark.slow
@pytest.mark.parametrize("production", [pytest.param(scaled(float("nan")), id="nan")], indirect=True)
@pytest.mark.parametrize("point", IN_THE_BAKE)
def test_a_kill_on_the_way_back_costs_nothing(production: Production, point: str) -> None:
    """The second version answers with NaN, so its slot refuses it and the bake takes it back."""
    production.begin(point)
    production.promote()
    production.settle(production.first)
    catalog = production.end()
    assert catalog.pointers == {"production": production.first, "previous": production.second}
    assert [(row.actor, row.action) for row in catalog.trail][-1] == ("bake", "rollback")
    assert len(catalog.trail) == 3
    assert catalog.problems == ()
