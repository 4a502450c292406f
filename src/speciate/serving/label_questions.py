"""What a person is asked when a logged answer is to be labelled: the file that the model saw, what a label is made of,
and the label as it comes back from a form.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from speciate.datasets.inspect.viewer import MOST_VOXELS
from speciate.errors import Code, SpeciateError
from speciate.modalities.media_answers import MODALITIES, is_stored_media
from speciate.modalities.segmentation_masks import from_runs, mask_of
from speciate.models import registry
from speciate.predictions.feedback import longest
from speciate.predictions.label_queue import LabelItem
from speciate.predictions.log_files import log_folder
from speciate.predictions.reading import LoggedAnswer, input_files
from speciate.serving.record_feedback import KnownAnswers
from speciate.tasks.families.segmentation import outlines, region_mask
from speciate.workspace.workspace import Workspace

BY_PARTS = ("tokens", "detection", "segmentation")
"""Families whose labels are lists, made on the page: a tag for each word, boxes or masks with a class each."""
_MOST_WORDS = 2_000
_MOST_PIXELS = 4_000_000
"""Pixels of the largest image whose mask is painted on a page."""
_MOST_RUNS = 2_000_000
_TRIED = 8
"""Pixels of a side to which a mask is read when it is checked."""
_LARGEST = 16 << 20
"""Bytes of a file that is shown beside the question."""


class AskedFile(NamedTuple):
    data: bytes
    modality: str


def asked_file(workspace: Workspace, use_case: str, answer: LabelItem | LoggedAnswer) -> AskedFile | None:
    """The file that a model was asked about; None for other questions, and for what is too large."""
    files = list(input_files(answer.input))
    path = log_folder(workspace.folders, use_case).medium(files[0]) if len(files) == 1 else None
    try:
        modality = registry.resolve(workspace.database, workspace.folders, answer.model).card.modality
    except SpeciateError:
        return None
    if path is None or modality is None or not path.is_file() or path.stat().st_size > _LARGEST:
        return None
    return AskedFile(path.read_bytes(), modality)


def answer_file(workspace: Workspace, use_case: str, answer: LoggedAnswer) -> AskedFile | None:
    """The image or audio that a model answered with; None for other answers, and for what is too large or gone."""
    if not is_stored_media(answer.output):
        return None
    path = log_folder(workspace.folders, use_case).medium(answer.output["sha256"])
    if not path.is_file() or path.stat().st_size > _LARGEST:
        return None
    return AskedFile(path.read_bytes(), MODALITIES[answer.output["mime"]])


def asked_cells(item: LabelItem | LoggedAnswer) -> list[tuple[str, Any]]:
    """What was asked, by column; a bare input has no name."""
    given = item.input
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            return [("", given)]
    if isinstance(given, dict) and set(given) == {"row"} and isinstance(given["row"], dict):
        given = given["row"]
    return list(given.items()) if isinstance(given, dict) else [("", given)]


def label_editor(family: str | None, item: LabelItem, view: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """What the label is made of, beginning with the model's own answer; None where it is a class or text. `elsewhere`:
    no page makes it, such as the mask of a volume.

    `view`: of the file that was asked about, as `datasets/inspect/viewer.py` describes it.
    """
    given = item.output if isinstance(item.output, list) else []
    if family == "tokens" and isinstance(item.input, str | dict):
        cells = asked_cells(item)
        words = str(cells[0][1]).split() if len(cells) == 1 else []
        if words and len(words) == len(given) and len(words) <= _MOST_WORDS:
            return {"kind": "tags", "words": list(zip(words, map(str, given), strict=True))}
    if family == "detection" and view and view.get("view") == "image":
        boxes = [{"label": str(each["label"]), "box": each["box"]} for each in given if isinstance(each, dict)]
        return {"kind": "boxes", "boxes": boxes, "size": view["size"]}
    if family == "segmentation" and view and (size := _paintable(view)):
        return {"kind": "mask", "mask": _begun(item.output, 3 if view["view"] == "volume" else 2), "size": size}
    return {"kind": "elsewhere"} if family in BY_PARTS else None


def _paintable(view: Mapping[str, Any]) -> list[int] | None:
    """Width, height and number of slices of what a page can paint on: what it sees in full."""
    match view.get("view"):
        case "image" if math.prod(view["size"]) <= _MOST_PIXELS:
            return [*view["size"], 1]
        case "volume" if math.prod(view["size"]) <= MOST_VOXELS:
            return list(view["size"])[::-1]
    return None


def _begun(answer: Any, axes: int) -> Mapping[str, Any]:
    """A map of labels to begin with: the model's own, or an empty one."""
    try:
        labels = [str(each) for each in answer["labels"]]
        if len(answer["size"]) == axes and from_runs(answer["rle"], answer["size"]).max(initial=0) <= len(labels):
            return {"labels": labels, "size": answer["size"], "rle": answer["rle"]}
    except (TypeError, KeyError, ValueError):
        pass
    return {"labels": [], "size": [0, 0], "rle": []}


class ParsedLabel(NamedTuple):
    label: Any
    unknown: bool
    """Whether the model knows no such class."""


def parse_label(
    text: str, known: KnownAnswers, *, numeric: bool, parts: bool, view: Mapping[str, Any] | None = None
) -> ParsedLabel:
    """The label that a form brings. `parts`: it was made of parts; `view`: of the file that was asked about, where it
    is known: a mask is one of it. Raises INVALID."""
    if known.family in BY_PARTS and parts:
        made = _parse_parts(text, volume=known.family == "segmentation")
        if len(str(made)) > (most := longest(made)):
            raise SpeciateError(
                Code.INVALID,
                f"The label has more than {most:,} characters: it has too many parts or edges.",
                "Make it smoother, and give it again.",
            )
        if known.family == "segmentation":
            _check_masks(made, view)
        return ParsedLabel(made, False)
    label: Any = _parse_number(text) if numeric else text
    return ParsedLabel(label, bool(known.classes) and known.family != "regression" and label not in known.classes)


def _parse_number(text: str) -> float:
    try:
        if math.isfinite(found := float(text)):
            return found
    except ValueError:
        pass
    raise SpeciateError(Code.INVALID, "This model answers numbers.", "Type a number.")


def _parse_parts(text: str, *, volume: bool) -> list[Any] | str:
    """`volume`: it may be the mask of one, which is a text."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) and not (volume and isinstance(found, str)):
        raise SpeciateError(Code.INVALID, "The label is no list.", "Load the page again.")
    return found


def _check_masks(label: list[Any] | str, view: Mapping[str, Any] | None) -> None:
    """As training would read them. Raises INVALID."""
    kind = view.get("view") if view else None
    try:
        if kind in ("image", "volume") and (kind == "volume") != isinstance(label, str):
            raise ValueError(f"it is none of {'a volume' if kind == 'volume' else 'an image'}")
        if isinstance(label, str):
            size = _check_size(json.loads(label)["size"], view["size"] if view and kind == "volume" else None)
            if math.prod(size) > MOST_VOXELS:
                raise ValueError(f"it has more than {MOST_VOXELS:,} voxels")
            mask_of(label, _MOST_RUNS)
            return
        for _, outline in outlines(label):
            runs = json.loads(outline) if isinstance(outline, str) else outline
            if isinstance(runs, dict):
                _check_size(runs["size"], view["size"][::-1] if view and kind == "image" else None)
            region_mask(runs, (_TRIED, _TRIED), (_TRIED, _TRIED))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise SpeciateError(Code.INVALID, f"The label is no mask: {error}.", "Load the page again.") from None


def _check_size(given: Any, asked: Sequence[int] | None) -> list[int]:
    """The sides of a mask, none below 1, and those of what was asked about. Raises ValueError, TypeError,
    OverflowError."""
    size = [int(side) for side in given]
    if min(size, default=0) < 1:
        raise ValueError(f"a side of {size} is below 1")
    if asked is not None and size != list(asked):
        raise ValueError(f"its size is {size}, and that of what was asked about {list(asked)}")
    return size
