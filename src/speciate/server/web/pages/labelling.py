"""The queue of answers to label, one at a time, by keys. The last label waits for a moment before it is stored."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from starlette.responses import Response

from speciate import use_cases
from speciate.datasets.inspect import viewer
from speciate.errors import Code, SpeciateError
from speciate.modalities.media_answers import MODALITIES, is_stored_media
from speciate.predictions.answer_lookup import logs_of
from speciate.predictions.held_labels import HOLD_SECONDS, HeldLabel
from speciate.predictions.label_queue import LabelItem, next_labels
from speciate.predictions.log_files import log_folder
from speciate.predictions.reading import LoggedAnswer, find_many
from speciate.server.control.action import ControlContext
from speciate.server.control.dispatch import perform
from speciate.server.web.media import sent
from speciate.server.web.visit import Visit, field
from speciate.serving import label_questions
from speciate.serving.record_feedback import known_answers

_AHEAD = 20
"""Answers that are looked at, so that skipped ones leave others."""
_MOST_SKIPPED = 200
_STRATEGIES = ("mixed", "random", "uncertain", "disagreement")
_KEYS, _KEYS_OF_EDITORS = "0123456789", "123456789"  # where something is drawn upon, 0 ends the zoom
_log = logging.getLogger(__name__)


def queue(visit: Visit) -> Mapping[str, object]:
    """The next answer. `?skip=` names those that were passed over."""
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
    editor = label_questions.label_editor(known.family, item, view) if item and known else None
    return {
        "title": f"Label answers of {name}", "case": case, "item": item,
        "input": label_questions.asked_cells(item) if item else [],
        "classes": known.classes if known else (), "numeric": known is not None and known.family == "regression",
        "waiting": max(0, found.waiting - (1 if held else 0)), "asked": found.asked, "hold": HOLD_SECONDS,
        "refused": visit.parts.labels.refused(visit.session.csrf), "agreement": found.agreement, "strategy": strategy,
        "strategies": _STRATEGIES, "skipped": skipped, "held": held, "held_asked": _held_question(visit, name, held),
        "said": list(item.said.items()) if item else [], "view": view,
        "editor": editor,
        "keys": class_keys(known.classes if known else (), _KEYS_OF_EDITORS if editor else _KEYS),
        "base": f"/asked/{quote(name)}/{item.prediction}" if item else "",
        "made": _made(visit, name, item) if item else [],
    }  # fmt: skip


def class_keys(classes: Sequence[str], keys: str) -> Mapping[str, str]:
    """Class -> the key that gives it. A class that is a digit has its own; the others get the rest, from 1 on.

    >>> class_keys(["0", "1", "cat"], "0123456789")
    {'0': '0', '1': '1', 'cat': '2'}
    """
    found = {name: name for name in classes if len(name) == 1 and name in keys}
    free = iter([key for key in keys if key not in found and key != "0"])
    others = dict(zip([name for name in classes if name not in found], free, strict=False))
    return {name: key for name in classes if (key := found.get(name) or others.get(name))}


class HeldQuestion(NamedTuple):
    """What the label that waits was given to: its words, or its image."""

    words: str
    image: str | None


def _held_question(visit: Visit, use_case: str, held: HeldLabel | None) -> HeldQuestion | None:
    if held is None or held.use_case != use_case or (answer := _answer(visit, use_case, held.prediction)) is None:
        return None
    if answer.modality == "image" and label_questions.asked_file(visit.app.workspace, use_case, answer):
        return HeldQuestion("", f"/asked/{quote(use_case)}/{held.prediction}/image.png")
    cells = [f"{name}: {value}" if name and name != "text" else str(value)
             for name, value in label_questions.asked_cells(answer) if value is not None]  # fmt: skip
    return HeldQuestion(", ".join(cells), None)


def _answer(visit: Visit, use_case: str, prediction: str) -> LoggedAnswer | None:
    return find_many(log_folder(visit.app.workspace.folders, use_case), [prediction]).get(prediction)


def _view(visit: Visit, use_case: str, item: LabelItem | LoggedAnswer | None) -> Mapping[str, Any] | None:
    """None, too, where no process is free to decode it: the question can be answered without."""
    if item is None or (found := label_questions.asked_file(visit.app.workspace, use_case, item)) is None:
        return None
    try:
        return visit.parts.media.describe_file(*found)
    except SpeciateError as error:
        name = item.prediction if isinstance(item, LabelItem) else item.id
        _log.warning("what %s was asked is not shown: %s", name, error.message)
        return None


_SHOWN = {"image": "image.png", "audio": "sound.wav"}
"""Modality of an answer -> the file of its view."""


def _made(visit: Visit, use_case: str, item: LabelItem) -> list[Mapping[str, object]]:
    """An answer that is an image or audio, and those of other versions to the same text, each with its address."""
    names = [item.prediction, *item.beside]
    answers = find_many(log_folder(visit.app.workspace.folders, use_case), names)
    found: list[Mapping[str, object]] = []
    for name in (each for each in names if each in answers):
        output = answers[name].output
        if is_stored_media(output):
            modality = MODALITIES[output["mime"]]
            src = f"/answered/{quote(use_case)}/{name}/{_SHOWN[modality]}"
            found.append({"model": answers[name].model, "prediction": name, "modality": modality, "src": src})
    return found


def answered_file(visit: Visit, asked_for: str | None) -> Response:
    """A file of the view of what a model answered with, decoded and written anew like what it was asked."""
    name, prediction, part = visit.path["name"], visit.path["prediction"], visit.path["part"]
    use_cases.get(visit.database, name)
    answer = _answer(visit, name, prediction)
    found = label_questions.answer_file(visit.app.workspace, name, answer) if answer else None
    if found is None or part != _SHOWN[found.modality]:
        raise SpeciateError(Code.NOT_FOUND, "There is no such file of an answer.")
    return sent(visit.parts.media.view_of_file((name, f"{prediction} answered"), *found, part), part, asked_for)


def asked_file(visit: Visit, asked_for: str | None) -> Response:
    """A file of the view of what a model was asked."""
    name, prediction, part = visit.path["name"], visit.path["prediction"], visit.path["part"]
    use_cases.get(visit.database, name)
    answer = _answer(visit, name, prediction)
    found = label_questions.asked_file(visit.app.workspace, name, answer) if answer else None
    if found is None or part not in viewer.FILES:
        raise SpeciateError(Code.NOT_FOUND, "There is no such file of an answer.")
    return sent(visit.parts.media.view_of_file((name, prediction), *found, part), part, asked_for)


def use_case(visit: Visit) -> str:
    """The one whose answer is labelled, whatever the address says. Raises INVALID or NOT_FOUND."""
    token = visit.session.token
    if token is None or not token.use_cases:
        return visit.path["name"]
    return logs_of(visit.app.workspace).naming(field(visit, "prediction")).use_case


def label(visit: Visit) -> Mapping[str, object]:
    """Keep a label for a moment, then add it. One that no class has is added at once, if it was said to be new."""
    name, prediction = visit.path["name"], field(visit, "prediction")
    text, drawn = field(visit, "label"), field(visit, "drawn")
    use_cases.get(visit.database, name)
    known = known_answers(visit.app.workspace.folders, field(visit, "model"))
    parts = visit.form.get("parts") == "yes"
    given = label_questions.parse_label(
        text, known, numeric=visit.form.get("numeric") == "yes", parts=parts,
        view=_view(visit, name, _answer(visit, name, prediction)) if parts and known.family == "segmentation" else None,
    )  # fmt: skip
    if given.unknown:
        visit.parts.labels.add(visit.session.csrf)
        made = visit.perform(
            "labels", use_case=name, prediction=prediction, label=given.label, drawn=drawn,
            new_class=visit.form.get("new_class") == "yes",
        )  # fmt: skip
        return {"recorded": made.get("recorded"), "unknown": made.get("unknown")}
    visit.parts.labels.hold(visit.session.csrf, HeldLabel(visit.session.account, name, prediction, given.label, drawn))
    return {"held": prediction}


def undo(visit: Visit) -> Mapping[str, object]:
    """Take back the label that was given last, if it is not added yet."""
    taken = visit.parts.labels.take_back(visit.session.csrf)
    return {"undone": taken.prediction if taken else None}


def add_label(control: ControlContext, held: HeldLabel) -> None:
    """Into the log, in the name of who gave it."""
    perform(
        control,
        {"action": "labels", "use_case": held.use_case, "prediction": held.prediction, "label": held.label,
         "drawn": held.drawn},
        held.account,
    )  # fmt: skip
