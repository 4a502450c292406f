"""Labels as a watch counts them, from a real log."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speciate.loop.watch.label_counts import LabelReader
from speciate.loop.watch.rows import LabelRequest
from speciate.predictions import maintenance, quality, reading
from speciate.predictions.feedback import latest_by_source, prevailing_label
from speciate.predictions.log import AnswerLog
from speciate.predictions.log_files import FEEDBACK, log_folder, read_part
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


def test_only_labels_of_answers_drawn_at_random_judge(workspace: Workspace, clock: ManualClock) -> None:
    log, begin = AnswerLog(log_folder(workspace.folders, USE_CASE), LogSettings(), clock), clock.now()
    ids = sorted(note(log, texts(*(f"thing {number}" for number in range(200)))), key=quality.random_place)
    reader = LabelReader(workspace)
    assert reader.judging(USE_CASE, 0.0, ()) == 0
    clock.advance(86_400)
    for each in ids[100:140]:  # what users noticed, whatever they claim
        log.feedback({"prediction": each, "label": "bad", "source": "human", "drawn": "random"})
    assert reader.judging(USE_CASE, begin, ()) == 0
    clock.advance(86_400)
    for each in ids[:30]:  # as the queue shows them
        log.feedback({"prediction": each, "label": "bad", "source": "human"})
    assert reader.judging(USE_CASE, begin, ()) == 30
    note(log, texts("another"))
    assert reader.judging(USE_CASE, begin, ()) == 30, "a later answer was in no earlier draw"
    clock.advance(86_400)
    log.feedback({"prediction": ids[150], "label": "bad", "source": "human"})
    assert reader.judging(USE_CASE, begin, (ids[150], ids[151])) == 31, "an episode asked about it"
    assert reader.judging(USE_CASE, clock.now() - 1, (ids[150], ids[151])) == 1, "the others were learned from"
    log.close()


def test_a_look_reads_what_came_since_the_look_before(workspace: Workspace, clock: ManualClock) -> None:
    log = AnswerLog(log_folder(workspace.folders, USE_CASE), LogSettings(), clock)
    ids = note(log, texts(*(f"thing {number}" for number in range(50))))
    for each in ids[:40]:
        log.feedback({"prediction": each, "label": "bad", "source": "human"})
    reader = LabelReader(workspace)
    assert (len(reader.labels(USE_CASE).came), reader.labels(USE_CASE).rows_read) == (40, 40)
    note(log, texts("another"))
    assert reader.labels(USE_CASE).rows_read == 40
    log.feedback({"prediction": ids[40], "label": "bad", "source": "human"})
    assert (len(reader.labels(USE_CASE).came), reader.labels(USE_CASE).rows_read) == (41, 41)
    log.close()
    maintenance.seal_segments(log.folder)
    found = reader.labels(USE_CASE)
    assert (len(found.came), found.rows_read) == (41, 82), "the part, once"
    assert reader.labels(USE_CASE).rows_read == 82


def expected(workspace: Workspace, clock: ManualClock, days: float) -> tuple[dict[str, float], float | None, int]:
    """What feedback says, all of it read at once."""
    folder = log_folder(workspace.folders, USE_CASE)
    given = reading.feedback(folder, since=reading.retention_start(clock.now(), days))
    came = {name: label.at for name, said in latest_by_source(given).items() if (label := prevailing_label(said))}
    agreed = quality.agreement(given)
    return came, agreed.alpha, agreed.answers


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("answer"), st.integers(1, 3)),
        st.tuples(st.just("label"), st.integers(0, 30), st.sampled_from(["a", "b"]), st.sampled_from(["ada", "bob"])),
        st.tuples(st.just("score"), st.integers(0, 30)),
        st.tuples(st.sampled_from(["seal", "seal and keep", "roll", "forget", "expire", "look"])),
        st.tuples(st.just("wait"), st.sampled_from([1.0, 3 * 86_400.0, -86_400.0])),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_however_files_change_the_counts_are_those_of_the_whole_log(
    workspace: Workspace, clock: ManualClock, steps: list[tuple[Any, ...]]
) -> None:
    """Segments grow, are sealed (also where a kill leaves both), parts are rewritten by a purge, answers expire, and a
    clock is set back."""
    folder, kept = log_folder(workspace.folders, USE_CASE), LogSettings()
    shutil.rmtree(folder.path, ignore_errors=True)
    log, reader, ids = AnswerLog(folder, kept, clock), LabelReader(workspace), list[str]()
    for step, *values in steps:
        if step == "answer":
            ids += note(log, texts(*map(str, range(values[0]))))
        elif step == "wait":
            clock.advance(values[0])
        elif step in ("label", "score") and ids:
            one = {"prediction": ids[values[0] % len(ids)], "source": "human"}
            log.feedback(one | ({"label": values[1], "by": values[2]} if step == "label" else {"score": 0.5}))
        elif step in ("seal", "seal and keep", "roll"):
            log.close()
            clock.advance(0.01)  # files of one moment are in no order
            segments = {path: path.read_bytes() for path in folder.all_segments()}
            if step != "roll":
                maintenance.seal_segments(folder)
            for path, data in segments.items() if step == "seal and keep" else ():
                path.write_bytes(data)
            log = AnswerLog(folder, kept, clock)
        elif step == "forget":
            for part in folder.all_parts(FEEDBACK):
                rows = read_part(part).num_rows
                maintenance.keep_rows(part, FEEDBACK, lambda table, rows=rows: [place > 0 for place in range(rows)])
        elif step == "expire":
            maintenance.drop_expired(folder, reading.retention_start(clock.now(), kept.retention_days))
        elif step == "look":
            reader.labels(USE_CASE)
    found = reader.labels(USE_CASE)
    came, alpha, doubly = expected(workspace, clock, kept.retention_days)
    assert (found.came, found.doubly) == (came, doubly)
    assert found.alpha == alpha or found.alpha == pytest.approx(alpha)
    assert found.count_after(clock.now() - 86_400) == sum(at > clock.now() - 86_400 for at in came.values())
    log.close()
