"""What `speciate ledger` shows, of a ledger as the daemon answers it."""

from __future__ import annotations

import argparse
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from speciate.cli import ledger_commands
from speciate.cli.ledger_commands import duration, format_ledger, ledger_svg
from speciate.server.control import dispatch
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.promotion import world


class _Service:
    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace


@pytest.fixture
def answer(workspace: Workspace, clock: ManualClock) -> dict[str, Any]:
    """One model that answers, 62 minutes after its use case was defined."""
    world.define(workspace)
    clock.advance(3_600)
    world.judge(workspace, "m@v1")
    world.ask_promotion(workspace, "m@v1")
    clock.advance(120)
    workspace.database.transact(lambda tx: tx.event("use_case:digits", "production.answered", {"model": "m@v1"}))
    found = dispatch.perform(_Service(workspace), {"action": "ledger"})  # type: ignore[arg-type]  # all that it needs
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def test_a_person_reads_times_stages_and_deliveries(answer: dict[str, Any]) -> None:
    text = format_ledger(answer)
    assert "Time to model over 1 use case: 1 provisional" in text
    assert "survived the bake            not known yet  not known yet" in text
    row = next(line for line in text.splitlines() if line.startswith("digits"))
    assert "provisional  1 h 2 min" in row
    assert row.endswith("m@v1")
    assert "0 models deployed that held, 1 still baking; 0% of the promotions failed" in text


def test_an_empty_workspace_says_how_to_begin(workspace: Workspace) -> None:
    found = dispatch.perform(_Service(workspace), {"action": "ledger"})  # type: ignore[arg-type]
    assert "define_use_case starts the clock" in format_ledger(found)
    ET.fromstring(ledger_svg(found))


def test_the_bars_of_the_chart_are_the_stages(answer: dict[str, Any]) -> None:
    answer["lines"][0]["use_case"] = "<digits> & others"
    root = ET.fromstring(ledger_svg(answer))
    bars = [each for each in root.iter("{http://www.w3.org/2000/svg}rect") if each.get("height") == "20"]
    stages = answer["lines"][0]["time_to_model"]["stages"]
    assert len(bars) == len(stages)
    assert sum(float(bar.get("width", 0)) for bar in bars) == pytest.approx(620, abs=0.1)


def test_json_is_all_of_it(
    answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(ledger_commands, "ask_daemon", lambda arguments, action, *, start: answer)
    image = tmp_path / "ledger.svg"
    assert ledger_commands.ledger(argparse.Namespace(json=True, image=str(image))) == 0
    assert json.loads(capsys.readouterr().out) == answer
    assert image.read_text().startswith("<svg")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "not known yet"), (0.0, "0.0 s"), (1.26, "1.3 s"), (59.6, "1 min"), (62, "1 min 2 s"),
        (3_600, "1 h"), (3_725, "1 h 2 min"), (86_400 * 3 + 5, "3 d"), (90_000, "1 d 1 h"),
    ],
)  # fmt: skip
def test_durations_have_two_units_at_most(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
