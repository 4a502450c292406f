"""What monitoring found of a use case, and where its model fails."""

from __future__ import annotations

from speciate import use_cases
from speciate.loop.gaps import Gaps, gaps_of_use_case, write_gap_page
from speciate.loop.monitor import MonitorOutcome, Signal, outcomes
from speciate.promotion import aliases
from speciate.server.tool_api import App, NextAction, Result, resource


class GapsView(Gaps, Result):
    page: str | None = None
    next_actions: tuple[NextAction, ...] = ()


class WindowView(Result):
    number: int
    window: tuple[float, float]
    n: int
    use: str
    signals: tuple[Signal, ...]
    novel: tuple[str, ...]
    plot: str | None = None
    sheet: str | None = None
    notes: tuple[str, ...] = ()
    not_promised: str | None = None
    """What its alarms do not promise, and what mends that."""


class DriftView(Result):
    use_case: str
    model: str | None = None
    generation: int
    windows: int
    alarms: tuple[str, ...]
    """Signals of the newest window that alarmed."""
    newest: WindowView | None = None


@resource("speciate://use-cases/{name}/gaps{?page}")
def gaps(app: App, name: str, page: bool = False) -> GapsView:
    """Where what serves fails more than elsewhere, and what would help most; page: also as a file for people."""
    found = gaps_of_use_case(app.workspace, app.pool, name)
    asked = next((each for each in found.untrusted if each.answers), None)
    return GapsView(
        **dict(found),
        page=str(write_gap_page(app.workspace, app.pool, found)) if page else None,
        next_actions=() if asked is None else (
            NextAction(tool="record_feedback", arguments={"prediction": asked.answers[0], "source": "agent"}),
        ),
    )  # fmt: skip


@resource("speciate://use-cases/{name}/watch/drift")
def drift(app: App, name: str) -> DriftView:
    """What monitoring found of what serves: each detector of the newest window, its plot and its contact sheet."""
    use_cases.get(app.workspace.database, name)
    alias = aliases.read(app.workspace.database, name)
    generation = alias.generation if alias else 0
    found = outcomes(app.workspace, name, generation)
    newest = found[-1] if found else None
    return DriftView(
        use_case=name, model=alias.model if alias else None, generation=generation, windows=len(found),
        alarms=tuple(each.name for each in newest.signals if each.alarm) if newest else (),
        newest=_window(newest) if newest else None,
    )  # fmt: skip


def _window(found: MonitorOutcome) -> WindowView:
    return WindowView(
        number=found.number, window=found.window, n=found.n, use=found.use, signals=found.signals, novel=found.novel,
        plot=found.plot, sheet=found.sheet, notes=found.notes,
        not_promised=found.not_promised,
    )  # fmt: skip
