"""How right what serves was on the randomly drawn answers of an episode: on all of them, as it learned from none.

Candidates are judged on half of these, as the others teach them. Whether anything need be done is a question about what
serves alone, so it may use both halves.
"""

from __future__ import annotations

from typing import NamedTuple

from speciate.predictions import reading
from speciate.predictions.feedback import correctness, latest_by_source
from speciate.predictions.log_files import log_folder
from speciate.predictions.quality import wilson_interval
from speciate.sample_size import LEVEL
from speciate.workspace.workspace import Workspace

_DRAWN = """
SELECT prediction FROM label_requests WHERE use_case = ? AND episode = ? AND drawn = 'random' ORDER BY prediction
"""


class ServingShare(NamedTuple):
    """Share of right answers, with its 95 % interval (Wilson)."""

    n: int
    share: float
    low: float
    high: float


def of_episode(workspace: Workspace, use_case: str, episode: int, model: str) -> ServingShare | None:
    """None where nothing of what serves was labelled yet, or where an answer is right by more than yes or no."""
    drawn = [row[0] for row in workspace.database.read(_DRAWN, [use_case, episode])]
    log = log_folder(workspace.folders, use_case)
    if not drawn or not log.path.exists():
        return None
    wanted = set(drawn)
    given = latest_by_source(each for each in reading.feedback(log) if each.prediction in wanted)
    answers = reading.find_many(log, list(given))
    judged = [
        verdict for name, answer in answers.items()
        if answer.model == model and (verdict := correctness(answer.output, given[name])) is not None
    ]  # fmt: skip
    if not judged or any(each.measure != "right" for each in judged):
        return None
    share = sum(each.value for each in judged) / len(judged)
    return ServingShare(len(judged), share, *wilson_interval(share, len(judged), LEVEL))
