"""A purge reaches the logs of answers, also while a deployment writes them."""

from __future__ import annotations

import base64
import hashlib

from speciate.predictions import maintenance, reading
from speciate.predictions.log import AnsweringModel, AnswerLog
from speciate.predictions.log_files import log_folder
from speciate.predictions.pii_redaction import Redaction
from speciate.privacy.purge_logs import PurgedExamples, purge_logs
from speciate.settings import Log as Settings
from speciate.workspace.clock import SystemClock
from speciate.workspace.workspace import Workspace
from tests.predictions.world import note, texts
from tests.privacy.test_purge import _make, _purge

PICTURE = b"\x89PNG of a patient"


def own(workspace: Workspace, use_case: str = "triage") -> AnswerLog:
    return AnswerLog(log_folder(workspace.folders, use_case), Settings(), SystemClock())


def test_answers_about_forgotten_examples_go_and_their_words_with_them(workspace: Workspace) -> None:
    _make(workspace)
    log = own(workspace)
    [sealed] = note(log, texts("note 0"))
    log._writer.roll()
    maintenance.seal_segments(log.folder)
    [same] = note(log, texts("note 1"))
    [row] = note(log, [{"id": "0", "row": {"text": "note 0", "age": 3}}])
    [other] = note(log, texts("note 3"), output="as in note 1, perhaps")
    log.feedback({"prediction": same, "label": "x", "source": "human"})
    log.feedback({"prediction": other, "label": "not note 0", "source": "human"})
    for name in (same, other):
        workspace.database.transact(
            lambda tx, name=name: tx.execute(  # type: ignore[misc]  # bound now
                "INSERT INTO label_requests VALUES ('triage', 1, ?, 'random', 1.0)", [name]
            )
        )
    erased, _ = _purge(workspace)
    asked = workspace.database.read("SELECT prediction FROM label_requests")
    assert asked == [(other,)], "nobody waits for a label of what went"
    assert erased["logged_answers"] == {"triage": 3}
    [left] = map(reading.to_logged_answer, reading.answers(log.folder).to_pylist())
    assert left.id == other
    assert left.input == {"text": "note 3"}
    assert "note 1" not in left.output
    [said] = reading.feedback(log.folder)
    assert said.prediction == other
    assert "note 0" not in said.label
    [after] = note(log, texts("new"))
    assert reading.find(log.folder, after) is not None, "whoever writes goes on"
    assert {sealed, same, row}.isdisjoint(reading.answers(log.folder, columns=["id"])["id"].to_pylist())
    log.close()


def test_files_and_rows_are_found_by_what_they_are(workspace: Workspace) -> None:
    log = own(workspace)
    about = AnsweringModel("m@v1", 1, "image")
    [picture] = note(log, [{"id": "0", "data": base64.b64encode(PICTURE).decode()}], about)
    note(log, [{"id": "0", "data": base64.b64encode(b"\x89PNG other").decode()}], about)
    numbers = [{"id": "0", "row": {"age": 61, "dose": dose}} for dose in (2.5, 3.5)]
    gone, stays = note(log, numbers, AnsweringModel("m@v1", 1, "tabular"))
    sha256 = hashlib.sha256(PICTURE).hexdigest()
    found = purge_logs(workspace.folders, {sha256}, [], [{"age": 61.0, "dose": 2.5, "label": "yes"}])
    assert found == {"triage": {picture, gone}}
    left = reading.answers(log.folder, columns=["id"])["id"].to_pylist()
    assert picture not in left
    assert gone not in left
    assert stays in left
    assert not log.folder.medium(sha256).exists()
    assert len([path for path in log.folder.media.rglob("*") if path.is_file()]) == 1
    assert purge_logs(workspace.folders, {sha256}, [], []) == {}
    log.close()


def test_what_was_redacted_is_still_found() -> None:
    redaction = Redaction(["email"], ["name"])
    forgotten = PurgedExamples((), ["write to ada@example.org"], [{"name": "Ada", "age": 36}], redaction)
    assert forgotten.holds("pred-x", {"text": "write to [email]"})
    assert forgotten.holds("pred-x", {"row": {"name": "[redacted]", "age": "36"}})
    assert not forgotten.holds("pred-x", {"row": {"name": "[redacted]", "age": 37}})
    assert not forgotten.holds("pred-x", {"row": {"age": 36, "a": 1, "b": 2}}), "too little of it is known"
    assert not forgotten.holds("pred-x", None)
