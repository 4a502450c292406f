"""The queue of answers to label, one at a time, by keys.

Feedback is only ever added to the log, so a label waits here for a moment before it is added: until the next one, or
some seconds. `u` takes back the one that waits.
"""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from starlette.responses import Response

from speciate import use_cases
from speciate.datasets.inspect import viewer
from speciate.errors import Code, SpeciateError
from speciate.models import registry
from speciate.predictions.label_queue import LabelItem, next_labels
from speciate.predictions.log_files import log_folder
from speciate.predictions.reading import LoggedAnswer, find_many, input_files
from speciate.server.control import ControlContext, perform
from speciate.server.web.media import sent
from speciate.server.web.sessions import PageAccount, TokenAccount
from speciate.server.web.visit import Visit, field
from speciate.serving.record_feedback import known_answers

HOLD_SECONDS = 8.0
_AHEAD = 20
"""Answers that are looked at, so that skipped ones leave others."""
_MOST_SKIPPED = 200
_MOST_WORDS = 2_000
_STRATEGIES = ("mixed", "random", "uncertain", "disagreement")
_DIGITS = 9
_LARGEST = 16 << 20
"""Bytes of a file that is shown beside the question."""
_BY_PARTS = ("tokens", "detection")
"""Families whose labels are lists, made on the page: a tag for each word, or boxes with a class each."""
_log = logging.getLogger(__name__)


class HeldLabel(NamedTuple):
    account: PageAccount | TokenAccount
    use_case: str
    prediction: str
    label: Any
    drawn: str


class HeldLabels:
    """One label of each session that is not stored yet. Thread-safe."""

    def __init__(self, control: ControlContext) -> None:
        self._control, self._lock = control, threading.Lock()
        self._held: dict[str, tuple[HeldLabel, threading.Timer]] = {}
        self._refused: dict[str, str] = {}

    def hold(self, session: str, label: HeldLabel) -> None:
        """Store the one before it, and keep this one for a moment."""
        timer = threading.Timer(HOLD_SECONDS, self._over, [session, label])
        timer.daemon = True
        with self._lock:
            before = self._held.get(session)
            self._held[session] = label, timer
        timer.start()
        if before is not None:
            before[1].cancel()
            self._store(session, before[0])

    def waiting(self, session: str) -> HeldLabel | None:
        with self._lock:
            return self._held[session][0] if session in self._held else None

    def take_back(self, session: str) -> HeldLabel | None:
        """The one that waits, which is not stored any more."""
        with self._lock:
            label, timer = self._held.pop(session, (None, None))
        if timer is not None:
            timer.cancel()
        return label

    def add(self, session: str) -> None:
        """Store the one that waits."""
        if (label := self.take_back(session)) is not None:
            self._store(session, label)

    def refused(self, session: str) -> str | None:
        """Why a label of this session could not be stored; told once."""
        with self._lock:
            return self._refused.pop(session, None)

    def close(self) -> None:
        for session in list(self._held):
            self.add(session)

    def _over(self, session: str, label: HeldLabel) -> None:
        with self._lock:
            current = self._held.get(session)
            if current is None or current[0] is not label:
                return  # taken back, or stored already
            del self._held[session]
        self._store(session, label)

    def _store(self, session: str, label: HeldLabel) -> None:
        try:
            perform(
                self._control,
                {"action": "labels", "use_case": label.use_case, "prediction": label.prediction, "label": label.label,
                 "drawn": label.drawn},
                label.account,
            )  # fmt: skip
        except (SpeciateError, OSError) as error:
            _log.warning("a label of %s was not stored: %s", label.prediction, error)
            with self._lock:
                self._refused[session] = f"The label of {label.prediction} was not stored: {error}"


def queue(visit: Visit) -> Mapping[str, object]:
    """The next answer. `?skip=` names those that were passed over, `?at=` one that is asked for."""
    name = visit.path["name"]
    case = use_cases.get(visit.database, name)
    strategy = visit.one_of("strategy", _STRATEGIES, "mixed")
    skipped = [each for each in visit.query.get("skip", "").split(",") if each][-_MOST_SKIPPED:]
    held = visit.parts.labels.waiting(visit.session.csrf)
    left_out = {*skipped, *([held.prediction] if held else [])}
    count = min(_MOST_SKIPPED + _AHEAD, _AHEAD + len(left_out))
    found = next_labels(visit.app.workspace, name, strategy=strategy, count=count)  # type: ignore[arg-type]  # one_of
    items = [item for item in found.items if item.prediction not in left_out]
    item = items[0] if items else None
    known = known_answers(visit.app.workspace.folders, item.model) if item else None
    view = _view(visit, name, item) if item else None
    editor = _editor(known.family, item, view) if item and known else None
    return {
        "title": f"Label answers of {name}", "case": case, "item": item, "input": _cells(item) if item else [],
        "classes": known.classes if known else (), "numeric": known is not None and known.family == "regression",
        "waiting": max(0, found.waiting - (1 if held else 0)), "hold": HOLD_SECONDS,
        "refused": visit.parts.labels.refused(visit.session.csrf), "agreement": found.agreement, "strategy": strategy,
        "strategies": _STRATEGIES, "skipped": skipped, "held": held, "digits": _DIGITS,
        "said": list(item.said.items()) if item else [], "view": view, "editor": editor,
        "base": f"/asked/{quote(name)}/{item.prediction}" if item else "",
    }  # fmt: skip


def _asked(visit: Visit, use_case: str, answer: LabelItem | LoggedAnswer) -> tuple[bytes, str] | None:
    """The file that a model was asked about, with its modality; None for other questions, and for what is too large."""
    files = list(input_files(answer.input))
    path = log_folder(visit.app.workspace.folders, use_case).medium(files[0]) if len(files) == 1 else None
    try:
        modality = registry.resolve(visit.database, visit.app.workspace.folders, answer.model).card.modality
    except SpeciateError:
        return None
    if path is None or modality is None or not path.is_file() or path.stat().st_size > _LARGEST:
        return None
    return path.read_bytes(), modality


def _view(visit: Visit, use_case: str, item: LabelItem) -> Mapping[str, Any] | None:
    """None, too, where no process is free to decode it: the question can be answered without."""
    if (found := _asked(visit, use_case, item)) is None:
        return None
    try:
        return visit.parts.media.describe_file(*found)
    except SpeciateError as error:
        _log.warning("what %s was asked is not shown: %s", item.prediction, error.message)
        return None


def asked_file(visit: Visit, asked_for: str | None) -> Response:
    """A file of the view of what a model was asked."""
    name, prediction, part = visit.path["name"], visit.path["prediction"], visit.path["part"]
    use_cases.get(visit.database, name)
    answer = find_many(log_folder(visit.app.workspace.folders, name), [prediction]).get(prediction)
    found = _asked(visit, name, answer) if answer else None
    if found is None or part not in viewer.FILES:
        raise SpeciateError(Code.NOT_FOUND, "There is no such file of an answer.")
    return sent(visit.parts.media.view_of_file((name, prediction), *found, part), part, asked_for)


def _editor(family: str | None, item: LabelItem, view: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """What the label is made of on the page, beginning with the model's own answer; None where a class or text does."""
    given = item.output if isinstance(item.output, list) else []
    if family == "tokens" and isinstance(item.input, str | dict):
        cells = _cells(item)
        words = str(cells[0][1]).split() if len(cells) == 1 else []
        fits = words and len(words) == len(given) and len(words) <= _MOST_WORDS
        return {"kind": "tags", "words": list(zip(words, map(str, given), strict=True))} if fits else None
    if family == "detection" and view and view.get("view") == "image":
        boxes = [{"label": str(each["label"]), "box": each["box"]} for each in given if isinstance(each, dict)]
        return {"kind": "boxes", "boxes": boxes, "size": view["size"]}
    return None


def _cells(item: LabelItem) -> list[tuple[str, Any]]:
    """What was asked, by column; a bare input has no name."""
    given = item.input
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            return [("", given)]
    return list(given.items()) if isinstance(given, dict) else [("", given)]


def label(visit: Visit) -> Mapping[str, object]:
    """Keep a label for a moment, then add it. One that no class has is added at once, if it was said to be new."""
    name, prediction = visit.path["name"], field(visit, "prediction")
    given: Any = field(visit, "label")
    if visit.form.get("numeric") == "yes":
        try:
            given = float(given)
            if not math.isfinite(given):
                raise ValueError
        except ValueError:
            raise SpeciateError(Code.INVALID, "This model answers numbers.", "Type a number.") from None
    use_cases.get(visit.database, name)
    drawn = field(visit, "drawn")
    model = field(visit, "model")
    known = known_answers(visit.app.workspace.folders, model)
    if known.family in _BY_PARTS and visit.form.get("parts") == "yes":
        given = _parse_parts(given)
    elif known.classes and known.family != "regression" and given not in known.classes:
        visit.parts.labels.add(visit.session.csrf)
        made = visit.perform(
            "labels", use_case=name, prediction=prediction, label=given, drawn=drawn,
            new_class=visit.form.get("new_class") == "yes",
        )  # fmt: skip
        return {"recorded": made.get("recorded"), "unknown": made.get("unknown")}
    held = HeldLabel(visit.session.account, name, prediction, given, drawn)
    visit.parts.labels.hold(visit.session.csrf, held)
    return {"held": prediction}


def _parse_parts(text: str) -> list[Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise SpeciateError(Code.INVALID, "The label is no list.", "Load the page again.")
    return found


def undo(visit: Visit) -> Mapping[str, object]:
    """Take back the label that was given last, if it is not added yet."""
    taken = visit.parts.labels.take_back(visit.session.csrf)
    return {"undone": taken.prediction if taken else None}
