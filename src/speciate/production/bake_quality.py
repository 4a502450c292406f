"""What feedback says of the version that bakes and the one before it, as the bake judges it.

Shares of right answers and mean scores between 0 and 1 count; of a mean score the missing part counts as wrong, which
the e-process allows (a function of a bounded value that is convex lies below its chord). Errors of numbers have no
bound and are left out. Answers that were drawn at random may be held to the use case's target; what people happen to
complain about only to what they complained about before.
"""

from __future__ import annotations

from collections.abc import Sequence

from speciate import usecases
from speciate.predictions import reading
from speciate.predictions.folder import log_folder
from speciate.production import feedback, labels
from speciate.production.bake import Quality
from speciate.production.tally import Counted
from speciate.usecases import UseCase
from speciate.workspace.workspace import Workspace

_SHARES = {"accuracy"}
"""Metrics whose target is a share of right answers."""


def quality_of(workspace: Workspace, use_case: str, model: str, before: str | None, since: float) -> Quality | None:
    """None where nothing was said since then. Reads the log: not for every second."""
    if not reading.feedback(log_folder(workspace.folders, use_case), since=since):
        return None
    found = labels.logged(workspace, use_case).quality
    return judged(found, usecases.get(workspace.database, use_case), model, before)


def judged(found: Sequence[feedback.Quality], use_case: UseCase, model: str, before: str | None) -> Quality | None:
    """Of the answers drawn at random where there are some, else of any."""
    for drawn in ("random", "any"):
        for measure in ("right", "score"):
            own = _counted(found, model, drawn, measure)
            if own is None:
                continue
            target = use_case.objective.target if use_case.objective.metric in _SHARES else None
            fair = drawn == "random" and measure == "right" and target is not None
            other = _counted(found, before, drawn, measure) if before else None
            return Quality(own, other, 1 - target if fair and target is not None else None)
    return None


def _counted(found: Sequence[feedback.Quality], model: str, drawn: str, measure: str) -> Counted | None:
    for each in found:
        if (each.model, each.drawn, each.measure) == (model, drawn, measure):
            return Counted(each.n, int(each.n * (1 - each.mean) + 1e-9))
    return None
