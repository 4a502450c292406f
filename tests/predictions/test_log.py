"""What is written of an answer, what is left out and said to be, and what a full disk does."""

from __future__ import annotations

import base64
import errno
import math
import os
from pathlib import Path
from typing import Any

import pytest

from speciate.predictions import prediction_ids, reading
from speciate.predictions.log import AnsweringModel
from speciate.predictions.log_files import decode, encode
from speciate.predictions.pii_redaction import Redaction
from tests.conftest import ManualClock
from tests.predictions.world import log, note, said, texts

pytestmark = pytest.mark.durable

PLANTED = ("ada.lovelace@example.org", "+49 30 1234567", "sk-abcdefghijklmnopqrstuvwx12", "4111 1111 1111 1111")


def written(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_an_answer_is_on_disk_before_note_returns(tmp_path: Path, clock: ManualClock) -> None:
    own = log(tmp_path, clock)
    [id_] = note(own, texts("a good film"), confidence=0.7)
    found = reading.find(own.folder, id_)
    assert found is not None
    assert (found.model, found.output, found.confidence, found.ms) == ("films@v1", "good", 0.7, 1.5)
    assert found.input == {"text": "a good film"}
    assert found.at == int(clock.now() * 1000) / 1000
    own.close()


def test_only_the_sample_is_written_and_every_id_tells_whether(tmp_path: Path, clock: ManualClock) -> None:
    own = log(tmp_path, clock, sample=0.3)
    ids = note(own, texts(*map(str, range(200))))
    there = set(reading.answers(own.folder, columns=["id"])["id"].to_pylist())
    assert there == {each for each in ids if prediction_ids.is_sampled(each, 0.3)}
    assert 30 < len(there) < 90
    own.close()


def test_planted_secrets_never_reach_the_disk(tmp_path: Path, clock: ManualClock) -> None:
    own = log(tmp_path, clock, columns=("Patient",), patterns=(r"MRN-\d+",))
    for secret in PLANTED:
        note(own, texts(f"please write to {secret} now"), output=f"I wrote to {secret}")
        note(own, [{"id": secret, "row": {"note": f"x {secret}", secret: 1, "deep": [{"a": secret}]}}])
        data = base64.b64encode(f"file {secret}".encode()).decode()
        note(own, [{"id": "0", "data": data}])
        note(own, [{"id": "0", "parts": {"report.text": {"value": secret}, "scan.text": {"data": data}}}])
    [last_id] = note(own, [{"id": "0", "row": {"patient": "Ada Byron", "age": 36, "file": "MRN-12345"}}])
    [id_] = own.ids(1)
    own.feedback({"prediction": id_, "label": f"ask {PLANTED[0]}", "source": "human"})
    own.close()
    found = written(tmp_path)
    for secret in (*PLANTED, "Ada Byron", "MRN-12345"):
        assert secret.encode() not in found, secret
        assert base64.b64encode(secret.encode())[:12] not in found
    last = reading.find(own.folder, last_id)
    assert last is not None
    assert last.input == {"row": {"patient": "[redacted]", "age": 36, "file": "[redacted]"}}
    assert last.redacted == 2


@pytest.mark.parametrize(
    ("settings", "modality", "told"),
    [
        ({"keep_inputs": False}, "image", "input: not kept"),
        ({"keep_inputs": "text"}, "image", "data: files are not kept"),
        ({"media_mb": 0}, "image", "data: larger than 0 MB"),
        ({}, "dicom", "data: its file may name people"),
    ],
)
def test_files_that_are_not_kept_are_said_to_be_left_out(
    tmp_path: Path, clock: ManualClock, settings: dict[str, Any], modality: str, told: str
) -> None:
    own = log(tmp_path, clock, **settings)
    data = base64.b64encode(b"\x89PNG and more").decode()
    [id_] = note(own, [{"id": "0", "data": data}], AnsweringModel("m@v1", 1, modality))
    found = reading.find(own.folder, id_)
    assert found is not None
    assert found.input is None
    assert found.left_out == (told,)
    assert b"and more" not in written(tmp_path)
    own.close()


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        (b"ax,ay\n0.5,-1e-3\nnan,2\n", True),
        (b"1;2,5\r\n3;4\r\n", True),
        (b"ax,ada@example.org\n1,2\n", False),
        (b"ax,ay\n1,2\nAda Byron,3\n", False),
        (b"Ada Byron,ay\n1,2\n", False),
        (b"\x00" * 128 + b"DICM" + b"\x08\x00\x05\x00CS", False),
        (b"\x08\x00\x05\x00CS\x04\x00ADA^BYRON", False),
    ],
)
def test_a_series_of_numbers_is_kept_and_whatever_could_name_somebody_is_not(
    tmp_path: Path, clock: ManualClock, data: bytes, kept: bool
) -> None:
    own = log(tmp_path, clock)
    given = [{"id": "0", "data": base64.b64encode(data).decode()}]
    [id_] = note(own, given, AnsweringModel("m@v1", 1, "time-series"))
    found = reading.find(own.folder, id_)
    assert found is not None
    assert (found.input is not None) is kept
    assert found.left_out == (() if kept else ("data: its file may name people",))
    own.close()


def test_a_file_is_kept_once_by_its_hash(tmp_path: Path, clock: ManualClock) -> None:
    own = log(tmp_path, clock)
    data = base64.b64encode(b"\x89PNG and more").decode()
    ids = [note(own, [{"id": "0", "data": data}], AnsweringModel("m@v1", 1, "image"))[0] for _ in range(3)]
    found = reading.find(own.folder, ids[-1])
    assert found is not None
    assert found.input is not None
    sha256 = found.input["data"]["sha256"]
    assert own.folder.medium(sha256).read_bytes() == b"\x89PNG and more"
    assert len([path for path in own.folder.media.rglob("*") if path.is_file()]) == 1
    own.close()


def test_a_drawn_image_is_kept_as_a_file_and_never_redacted(tmp_path: Path, clock: ManualClock) -> None:
    own = log(tmp_path, clock, media_mb=0.01)
    drawn = {"mime": "image/png", "data": base64.b64encode(b"\x89PNG of ours").decode(), "width": 8, "height": 6}
    large = {**drawn, "data": base64.b64encode(bytes(20_000)).decode()}
    [small_id], [large_id] = (note(own, texts("a red square"), output=each) for each in (drawn, large))
    found, dropped = reading.find(own.folder, small_id), reading.find(own.folder, large_id)
    assert found is not None
    assert (found.output["width"], found.output["height"], found.redacted) == (8, 6, 0)
    assert own.folder.medium(found.output["sha256"]).read_bytes() == b"\x89PNG of ours"
    assert list(reading.output_files(found.output)) == [found.output["sha256"]]
    assert dropped is not None
    assert dropped.output is None
    assert dropped.left_out == ("output: larger than 0.01 MB",)
    own.close()


def test_a_full_disk_stops_no_answer_and_the_gap_is_told(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = log(tmp_path, clock)
    [first] = note(own, texts("one"))
    real, room = os.write, [40]

    def write(descriptor: int, data: bytes) -> int:
        """A disk with 40 bytes left: half a line goes onto it, then nothing."""
        if room[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken, room[0] = real(descriptor, bytes(data)[: room[0]]), 0
        return taken

    monkeypatch.setattr(os, "write", write)
    for _ in range(3):
        assert not own.note(own.ids(1), texts("two"), [said()], AnsweringModel("films@v1", 1, "text"), 1.0)
    assert not own.feedback({"prediction": first, "label": "bad", "source": "human"})
    monkeypatch.undo()
    [last] = note(own, texts("three"))
    own.close()
    found = reading.contents(own.folder)
    assert (found.answers, found.missed, found.torn) == (2, 4, 0)
    assert own.missed == 4
    assert {first, last} == set(reading.answers(own.folder, columns=["id"])["id"].to_pylist())


@pytest.mark.parametrize("item", [{"id": "0", "parts": {"scan.image": {}}}, {"id": "0", "row": {"a": float("nan")}}])
def test_what_cannot_be_written_is_counted_and_stops_nothing(
    tmp_path: Path, clock: ManualClock, item: dict[str, Any]
) -> None:
    own = log(tmp_path, clock)
    assert not own.note(own.ids(1), [item], [said()], AnsweringModel("m@v1", 1, "multimodal"), 1.0)
    [after] = note(own, texts("next"))
    own.close()
    found = reading.contents(own.folder)
    assert (found.answers, found.missed) == (1, 1)
    assert reading.find(own.folder, after) is not None


def test_a_log_far_beyond_its_quota_takes_nothing_more(tmp_path: Path, clock: ManualClock) -> None:
    own = log(tmp_path, clock, quota_mb=0.01)
    note(own, texts("long " * 4000))
    own._writer.measure()
    assert not own.note(own.ids(1), texts("more"), [said()], AnsweringModel("films@v1", 1, "text"), 1.0)
    assert own.missed == 1
    own.close()


def test_a_torn_line_is_passed_over_and_counted() -> None:
    whole = encode({"k": "a", "id": "x", "text": "ä\n\ud800"}) + encode({"k": "a", "id": "y"})
    assert decode(whole).torn == 0
    for cut in range(1, len(whole)):
        found = decode(whole[:cut])
        assert found.torn + len(found.records) <= 2
        assert found.torn == (0 if whole[:cut].endswith(b"\n") or decode(whole[:cut] + b"\n").torn == 0 else 1)
    damaged = bytearray(whole)
    damaged[30] ^= 1
    assert (decode(bytes(damaged)).torn, len(decode(bytes(damaged)).records)) == (1, 1)


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        (4111111111111111, "[card]"), (4111111111111111.0, "[card]"), (378282246310005, "[card]"),
        (4111111111111112, 4111111111111112), (1_700_000_000_003, 1_700_000_000_003),
        (1_700_000_000_000_007, 1_700_000_000_000_007), (10**400, 10**400), (0.5, 0.5), (True, True),
    ],
)  # fmt: skip
def test_the_number_of_a_card_is_one_without_quotation_marks_too(cell: Any, written: Any) -> None:
    assert Redaction(("card",))({"cell": [cell]}).value == {"cell": [written]}
    assert Redaction(("email",))(cell).value == cell


def test_cells_that_are_no_numbers_go_through() -> None:
    found = Redaction(("card",))({"a": math.inf, "b": -math.inf, "c": None}).value
    assert found == {"a": math.inf, "b": -math.inf, "c": None}
