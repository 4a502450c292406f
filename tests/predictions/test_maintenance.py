"""Sealing, retention, room: what a kill between any two steps leaves is the same log."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from speciate.predictions import log_files, maintenance, reading
from speciate.predictions.log import AnsweringModel, AnswerLog
from speciate.predictions.log_files import ANSWERS, FEEDBACK, LogFolder
from tests.conftest import ManualClock
from tests.predictions.world import log, note, texts

pytestmark = pytest.mark.durable

_DAY = 86_400.0


def ids(own: AnswerLog, since: float = 0.0) -> list[str]:
    return list(reading.answers(own.folder, since=since, columns=["id"])["id"].to_pylist())


def test_what_is_sealed_reads_as_what_was_written(tmp_path: Path, clock: ManualClock) -> None:
    own = log(tmp_path, clock)
    made = note(own, texts(*map(str, range(20))))
    own.feedback({"prediction": made[3], "label": "bad", "source": "human"})
    before = reading.answers(own.folder).to_pylist()
    given = reading.feedback(own.folder)
    assert maintenance.seal_segments(own.folder) == [], "what somebody appends to is not sealed"
    own.close()
    assert len(maintenance.seal_segments(own.folder)) == 1
    assert own.folder.all_segments() == []
    assert reading.answers(own.folder).to_pylist() == before
    assert reading.feedback(own.folder) == given
    assert reading.find(own.folder, made[7]) is not None


def test_a_kill_between_part_and_segment_doubles_nothing(tmp_path: Path, clock: ManualClock) -> None:
    own = log(tmp_path, clock)
    made = note(own, texts("a", "b"))
    own.feedback({"prediction": made[0], "label": "bad", "source": "human"})
    own.close()
    [segment] = own.folder.all_segments()
    data = segment.read_bytes()
    maintenance.seal_segments(own.folder)
    segment.write_bytes(data)  # as if it had not been deleted yet
    assert sorted(ids(own)) == sorted(made)
    assert len(reading.feedback(own.folder)) == 1
    maintenance.seal_segments(own.folder)
    assert own.folder.all_segments() == []
    for path in own.folder.all_parts():  # or died before the part of the answers was there
        path.unlink()
    segment.write_bytes(data)
    assert len(reading.feedback(own.folder)) == 1
    maintenance.seal_segments(own.folder)
    assert sorted(ids(own)) == sorted(made)
    assert len(reading.feedback(own.folder)) == 1


def test_answers_go_when_they_are_too_old(tmp_path: Path, clock: ManualClock) -> None:
    own = log(tmp_path, clock, retention_days=10)
    [old] = note(own, texts("old"))
    own.feedback({"prediction": old, "label": "bad", "source": "human"})
    clock.advance(9 * _DAY)
    [young] = note(own, texts("young"))
    own.feedback({"prediction": young, "label": "bad", "source": "human"})
    own.close()
    maintenance.maintain(own.folder, own.settings, clock.now())
    assert ids(own) == [old, young]
    clock.advance(2 * _DAY)
    since = reading.retention_start(clock.now(), 10)
    assert ids(own, since) == [young], "not shown any more, though its file still lies there"
    assert reading.find(own.folder, old, since=since) is None
    maintenance.maintain(own.folder, own.settings, clock.now())
    assert ids(own) == [young]
    assert [each.prediction for each in reading.feedback(own.folder)] == [young]


def test_the_oldest_answers_go_first_where_there_is_no_room(tmp_path: Path, clock: ManualClock) -> None:
    own = log(tmp_path, clock)
    made = []
    for _day in range(4):
        data = base64.b64encode(os.urandom(40_000)).decode()
        made += note(own, [{"id": "0", "data": data}], AnsweringModel("m@v1", 1, "image"))
        own._writer.roll()
        clock.advance(_DAY)
    own.close()
    for path in own.folder.media.rglob("*"):
        os.utime(path, (0, 0))
    maintenance.seal_segments(own.folder)
    maintenance.enforce_quota(own.folder, 100_000, clock.now())
    assert ids(own) == made[2:]
    assert own.folder.dropped().answers == 2
    assert len([path for path in own.folder.media.rglob("*") if path.is_file()]) == 2


def test_whoever_comes_second_does_nothing(tmp_path: Path, clock: ManualClock) -> None:
    own = log(tmp_path, clock)
    note(own, texts("a"))
    own.close()
    with own.folder.maintained(wait=False) as mine:
        assert mine
        maintenance.maintain(own.folder, own.settings, clock.now())
        assert own.folder.all_parts() == []
    maintenance.maintain(own.folder, own.settings, clock.now())
    assert len(own.folder.all_parts()) == 1
    assert own.folder.all_parts(FEEDBACK) == []


def test_its_process_looks_after_a_workspace(tmp_path: Path, clock: ManualClock) -> None:
    import time

    clock.advance(time.time() - clock.now())
    own = log(tmp_path, clock)
    made = note(own, texts("a"))
    own.close()
    assert maintenance.main(str(tmp_path)) == 0
    assert len(own.folder.all_parts()) == 1
    assert ids(own) == made


def test_what_is_young_is_not_read_to_find_out_what_is_old(
    tmp_path: Path, clock: ManualClock, monkeypatch: Any
) -> None:
    own = log(tmp_path, clock)
    old = note(own, texts("a"))
    own.feedback({"prediction": old[0], "label": "bad", "source": "human"})
    own.close()
    maintenance.seal_segments(own.folder)
    clock.advance(5 * _DAY)
    young = note(own, texts("b"))
    own.feedback({"prediction": young[0], "label": "bad", "source": "human"})
    own.close()
    maintenance.seal_segments(own.folder)
    touched = []
    monkeypatch.setattr(maintenance, "keep_rows", lambda path, kind, chosen: touched.append((path.name[:13], kind)))
    maintenance.drop_expired(own.folder, clock.now() - _DAY)
    first = own.folder.all_parts()[0].name[:13]
    assert touched == [(first, ANSWERS), (first, FEEDBACK)]


def test_much_of_a_day_becomes_several_parts(tmp_path: Path, clock: ManualClock, monkeypatch: Any) -> None:
    own = log(tmp_path, clock)
    made = []
    for text in ("a" * 400, "b" * 400, "c" * 400):
        made += note(own, texts(text))
        own.close()
        clock.advance(1)
    sizes = [path.stat().st_size for path in own.folder.all_segments()]
    monkeypatch.setattr(maintenance, "PART_BYTES", sizes[0] + sizes[1])
    assert len(maintenance.seal_segments(own.folder)) == 2
    assert ids(own) == made


def test_one_log_that_cannot_be_looked_after_is_no_reason_to_leave_the_others(
    tmp_path: Path, clock: ManualClock
) -> None:
    own = log(tmp_path, clock)
    made = note(own, texts("a"))
    own.close()
    damaged = tmp_path / "logged" / "a-first" / "parts"
    damaged.mkdir(parents=True)
    (damaged / "0000000000001-ab.answers.parquet").write_bytes(b"PAR1")
    assert maintenance.main(str(tmp_path), "a-first", own.folder.use_case) == 1
    assert own.folder.all_segments() == []
    assert made  # which are too old for the real clock, so they went


def test_the_tender_begins_one_process_for_the_logs_that_need_it(
    tmp_path: Path, clock: ManualClock, monkeypatch: Any
) -> None:
    began: list[list[str]] = []
    monkeypatch.setattr(maintenance.subprocess, "run", lambda command, **_: began.append(command[5:]))
    logs = [LogFolder(tmp_path / "logged" / name) for name in ("busy", "quiet")]
    for folder in logs:
        folder.create()
    own = maintenance.LogMaintenance(tmp_path, lambda: logs, seconds=3600)
    own.look()
    assert began == [["busy", "quiet"]], "the first look is at all of them"
    own.look()
    assert len(began) == 1
    (logs[0].segments / "0000000000001-ab.jsonl").touch()
    own.look()
    own.close()
    assert began[1:] == [["busy"]]


def test_one_answer_is_found_in_its_part_and_each_footer_is_read_once(
    tmp_path: Path, clock: ManualClock, monkeypatch: Any
) -> None:
    own, made = log(tmp_path, clock), list[str]()
    for text in "abcdefgh":
        made += note(own, texts(text))
        own.feedback({"prediction": made[-1], "label": text, "source": "human"})
        own.close()
        maintenance.seal_segments(own.folder)
        clock.advance(_DAY)
    assert len(own.folder.all_parts()) == 8
    log_files._read_footer_file.cache_clear()
    opened: list[str] = []
    for name in ("read_table", "read_metadata"):
        function = getattr(pq, name)
        monkeypatch.setattr(
            pq,
            name,
            lambda path, function=function, **more: (opened.append(Path(path).name), function(path, **more))[1],
        )
    found = reading.find(own.folder, made[3])
    assert found is not None
    assert found.input == {"text": "d"}
    assert len(opened) == 8 + 1
    assert [each.label for each in reading.feedback(own.folder, of=made[3])] == ["d"]
    opened.clear()
    assert reading.find(own.folder, made[4]) is not None
    assert len(opened) == 1, "the part that holds it"
    maintenance.drop_expired(own.folder, clock.now() - 6.5 * _DAY)
    assert ids(own) == made[2:], "a part that is replaced is read anew"


def test_an_empty_part_may_hold_anything_and_is_asked(tmp_path: Path, clock: ManualClock) -> None:
    own = log(tmp_path, clock)
    made = note(own, texts("a"))
    own.close()
    maintenance.seal_segments(own.folder)
    note(own, texts("b"))
    own.feedback({"prediction": made[0], "label": "bad", "source": "human"})
    own.close()
    maintenance.seal_segments(own.folder)
    assert [each.label for each in reading.feedback(own.folder, of=made[0])] == ["bad"]
    assert reading.contents(own.folder).answers == 2


def test_answers_are_counted_by_version_as_they_are_read(tmp_path: Path, clock: ManualClock) -> None:
    own = log(tmp_path, clock)
    note(own, texts("a", "b"))
    own.close()
    maintenance.seal_segments(own.folder)
    clock.advance(_DAY)
    note(own, texts("c"))
    clock.advance(_DAY)
    note(own, texts("d", "e", "f"), AnsweringModel("films@v2", 2, "text"))
    own.close()
    maintenance.seal_segments(own.folder)
    note(own, texts("g"), AnsweringModel("films@v2", 2, "text"))
    for since in (0.0, clock.now() - 1.5 * _DAY, clock.now() - 0.5 * _DAY):
        assert reading.count_by_model(own.folder, since=since) == reading.contents(own.folder, since=since).models
    assert reading.count_by_model(own.folder) == {"films@v2": 4, "films@v1": 3}
    own.close()
