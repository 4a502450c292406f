"""What a person does about promotions on a terminal: overrides, policies of use cases, and the trail that is read."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from speciate.governance import audit
from speciate.governance.audit_heads import NAME
from speciate.workspace.lock import is_held
from speciate.workspace.workspace import Workspace
from tests.cli.test_cli import run, type_into
from tests.promotion import world
from tests.server.processes import Daemons
from tests.serving.test_deployment import until
from tests.serving.world import trained

pytestmark = pytest.mark.slow


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    daemons = Daemons(tmp_path / "workspace")
    daemons.workspace.mkdir()
    yield daemons
    daemons.close()


def test_a_person_overrides_what_stands_against_a_promotion_and_the_trail_says_so(daemons: Daemons) -> None:
    workspace = Workspace(daemons.workspace)
    model = trained(workspace).ref
    workspace.close()
    command = ("promote", "reviews", model, "--override", "the customer asks for it")
    assert "no terminal" in run(daemons, *command).stderr
    shown, status = type_into(daemons, *command, answer="no")
    assert (status, "Nothing was changed" in shown, "No decision of reviews on" in shown) == (1, True, True)
    shown, status = type_into(daemons, *command, answer="yes")
    assert status == 0, shown
    [row] = run(daemons, "audit", "list", "--use-case", "reviews").stdout.splitlines()
    assert f"promote  reviews  nothing -> {model}  override: the customer asks for it" in row
    verified = run(daemons, "audit", "verify")
    assert (verified.returncode, verified.stdout.split(",")[0]) == (0, "1 rows")
    head = verified.stdout.split()[-1]
    assert run(daemons, "audit", "verify", "--head", head).returncode == 0
    assert (daemons.workspace / NAME).read_text() == f"1 {head}\n"
    other = run(daemons, "audit", "verify", "--head", "f" * 64)
    assert (other.returncode, "no row has the hash" in other.stdout) == (1, True)


def test_verify_names_the_first_broken_row_and_fails(daemons: Daemons) -> None:
    workspace = Workspace(daemons.workspace)
    world.define(workspace)
    for number in (1, 2, 3):
        world.judge(workspace, f"m@v{number}", baseline=f"m@v{number - 1}" if number > 1 else "constant:")
        world.ask_promotion(workspace, f"m@v{number}")
    workspace.database.transact(lambda tx: tx.execute("UPDATE audit SET actor = 'eve' WHERE seq = 2"))
    assert audit.verify(workspace.database).problems
    workspace.close()
    done = run(daemons, "audit", "verify")
    assert done.returncode == 1
    assert done.stdout.splitlines()[1] == "row 2 was changed after it was written"


def test_a_use_case_has_a_policy_of_its_own(daemons: Daemons) -> None:
    workspace = Workspace(daemons.workspace)
    world.define(workspace)
    workspace.close()
    shown, status = type_into(daemons, "policy", "auto", "--use-case", "digits", answer="yes")
    assert status == 0, shown
    settings = tomllib.loads((daemons.workspace / "settings.toml").read_text())
    assert settings == {"policies": {"digits": "auto"}}
    assert run(daemons, "policy").stdout == "person\ndigits: auto\n"
    assert run(daemons, "policy", "--use-case", "digits").stdout == "auto\n"
    [row] = run(daemons, "audit", "list").stdout.splitlines()
    assert "policies  *  digits: person -> digits: auto" in row


def test_settings_that_were_confirmed_are_printed(daemons: Daemons) -> None:
    (daemons.workspace / "settings.toml").write_text('private_hosts = ["127.0.0.1:9"]\n')
    shown, status = type_into(daemons, "policy", "--confirm", answer="yes")
    assert status == 0, shown
    told = shown.replace("\r", "").rpartition("Confirmed:\n")[2]
    assert 'policy = "person"\n' in told, shown
    assert 'private_hosts = ["127.0.0.1:9"]\n' in told, shown


def test_a_failing_hook_is_said_in_get_status(daemons: Daemons) -> None:
    (daemons.workspace / "settings.toml").write_text('policy = "person"\n[notify]\ncommand = ["/nonexistent/hook"]\n')
    run(daemons, "call", "get_status")
    daemons.control("stop")
    until(lambda: not is_held(daemons.workspace / "daemon.lock"))
    workspace = Workspace(daemons.workspace)
    world.define(workspace)
    world.judge(workspace, "m@v1")
    world.ask_promotion(workspace, "m@v1", policy="person")
    workspace.close()

    def alerted() -> bool:
        alerts = json.loads(run(daemons, "call", "get_status").stdout).get("alerts", [])
        return any("Notifications by command do not arrive" in alert for alert in alerts)

    until(alerted, 40)
