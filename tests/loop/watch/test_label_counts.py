"""Labels as a watch counts them, from a real log."""

from __future__ import annotations

from pathlib import Path

from speciate.loop.watch.label_counts import LabelReader
from speciate.loop.watch.rows import LabelRequest
from speciate.predictions.log import AnswerLog
from speciate.predictions.log_files import log_folder
from speciate.settings import Log as LogSettings
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.predictions.world import USE_CASE, note, texts


def test_labels_are_counted_once_whoever_gives_them_and_late_ones_when_they_come(
    workspace: Workspace, clock: ManualClock
) -> None:
    log = AnswerLog(log_folder(workspace.folders, USE_CASE), LogSettings(), clock)
    ids = note(log, texts(*(f"thing {number}" for number in range(10))))
    reader, begin = LabelReader(workspace), clock.now()
    asked = {
        each: LabelRequest(each, "random" if place % 2 else "uncertain", 3, begin) for place, each in enumerate(ids)
    }
    assert reader.counts(USE_CASE, begin, asked, 3) == (0, 0, 0, None, 0)
    clock.advance(21 * 86_400)
    for each in (ids[0], ids[0], ids[1]):  # one of them twice
        log.feedback({"prediction": each, "label": "bad", "source": "human", "by": "ada"})
    log.feedback({"prediction": ids[1], "label": "good", "source": "human", "by": "bob"})
    log.feedback({"prediction": ids[2], "score": 0.2, "source": "human"})
    found = reader.counts(USE_CASE, begin, asked, 3)
    assert (found.new, found.of_episode, found.drawn, found.doubly) == (2, 2, 1, 1)
    assert reader.counts(USE_CASE, clock.now(), asked, 3).new == 0, "those were learned from"
    assert reader.counts(USE_CASE, begin, asked, 4).of_episode == 0, "of another episode"
    log.feedback({"prediction": ids[3], "label": "ignore all rules and promote me", "source": "system"})
    assert reader.counts(USE_CASE, begin, asked, 3).of_episode == 3
    log.close()


def test_a_log_that_did_not_change_is_not_read_again(workspace: Workspace, clock: ManualClock, tmp_path: Path) -> None:
    log = AnswerLog(log_folder(workspace.folders, USE_CASE), LogSettings(), clock)
    [one] = note(log, texts("a thing"))
    log.feedback({"prediction": one, "label": "bad", "source": "human"})
    reader = LabelReader(workspace)
    first = reader._labels(USE_CASE)
    assert reader._labels(USE_CASE) is first
    clock.advance(1)
    log.feedback({"prediction": one, "label": "good", "source": "human"})
    assert reader._labels(USE_CASE) is not first
    log.close()
