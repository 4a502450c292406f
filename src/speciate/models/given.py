"""Models that this package wrote for other people (export_model, form `sealed`) and takes back: the files that were
sealed, and beside them `model.json`, the facts of the card that another workspace can use.

What tells of the giver's workspace alone (datasets, jobs, use case, the recipe) does not leave. The facts are the
giver's word, as a publisher's card is; the files are checked as those of any published model, and against their hashes.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from speciate.errors import Code, SpeciateError
from speciate.models import sealed, trust
from speciate.models.card import Card
from speciate.refs import model_ref

README, PUBLISHER = "README.md", "README.publisher.md"
"""What was sealed as README stands under the second name in a folder that has a README of ours."""
_SHARED = frozenset((
    "task", "modality", "method", "base_model", "inputs", "parts", "ignored_parts", "labels", "parameters", "license",
))  # fmt: skip
_HOW_ASKED = ("terms", "target")
"""Of the recipe: what an evaluation of the model must know."""
_ANYWHERE = ("hf", "timm", "torchvision", "pkg", "new")
_OWN = ("predictor.json", "backbone.json")
_AGAIN = "Ask whoever gave it for the folder anew: export_model writes one."


def leave(card: Card, target: Path) -> None:
    """Write the facts beside the files."""
    said = card.model_dump(include=set(_SHARED))
    if card.base_model and model_ref(card.base_model).source not in _ANYWHERE:
        said.pop("base_model")  # the name of a version here, which means another one elsewhere
    said["recipe"] = {name: card.recipe[name] for name in _HOW_ASKED if name in card.recipe}
    (target / sealed.CARD).write_text(json.dumps(said, indent=1))


def holds(folder: Path) -> bool:
    """Whether this is a folder of ours, as far as names tell."""
    return (folder / sealed.MANIFEST).is_file() and any((folder / name).is_file() for name in _OWN)


def check(folder: Path) -> tuple[str, ...]:
    """The files that were sealed. REFUSED where one of them may not be loaded or is gone, INVALID without the facts."""
    names = _listed(folder)
    strange = trust.choose(names).set_aside
    if strange:
        name, why = next(iter(strange.items()))
        raise SpeciateError(Code.REFUSED, f"{str(folder)!r} lists {name[:100]!r}. {why}", _AGAIN)
    for name in names:
        if not _lying(folder, name).is_file():
            raise SpeciateError(
                Code.REFUSED, f"{str(folder)!r} is not whole: {name!r}, which {sealed.MANIFEST} lists, is gone.", _AGAIN
            )
    if "backbone.json" not in names and (base := _foreign_base(folder)) is not None:
        raise SpeciateError(
            Code.REFUSED, f"{str(folder)!r} needs {base[:100]!r}, whose weights are not among its files.", _AGAIN
        )
    _facts(folder)
    return names


def _foreign_base(folder: Path) -> str | None:
    """A base model that the model names and that is neither kept beside it nor a package's: whatever lies there on this
    machine is not what it was trained on."""
    try:
        left: list[Any] = [json.loads((folder / "predictor.json").read_bytes())]
    except (OSError, ValueError, RecursionError):
        return None  # the check of settings, and loading, say what is wrong
    while left:
        said = left.pop()
        left += said.values() if isinstance(said, dict) else said if isinstance(said, list) else ()
        base = said.get("base_model") if isinstance(said, dict) else None
        if isinstance(base, str) and not base.startswith("pkg:"):
            return base
    return None


def take(folder: Path, target: Path) -> dict[str, Any]:
    """Copy what was sealed into the empty folder `target`; the facts. REFUSED where a byte is not what was sealed."""
    for name in check(folder):
        shutil.copyfile(_lying(folder, name), target / name, follow_symlinks=False)
    shutil.copyfile(folder / sealed.MANIFEST, target / sealed.MANIFEST, follow_symlinks=False)
    try:
        sealed.check(target)
    except SpeciateError as error:
        raise SpeciateError(error.code, error.message.replace(str(target), str(folder)), _AGAIN) from error
    return _facts(folder)


def _lying(folder: Path, name: str) -> Path:
    kept = folder / PUBLISHER
    return kept if name == README and kept.is_file() else folder / name


def _listed(folder: Path) -> tuple[str, ...]:
    try:
        said = json.loads((folder / sealed.MANIFEST).read_bytes())
        if isinstance(said, dict):
            return tuple(sorted(said))
    except (ValueError, RecursionError):
        pass
    raise SpeciateError(Code.REFUSED, f"{sealed.MANIFEST} of {str(folder)!r} is no list of files.", _AGAIN)


def _facts(folder: Path) -> dict[str, Any]:
    try:
        said = json.loads((folder / sealed.CARD).read_bytes())
        card = Card.model_validate({**said, "name": "x"})
        recipe = {name: card.recipe[name] for name in _HOW_ASKED if name in card.recipe}
        return card.model_dump(include=set(_SHARED)) | {"recipe": recipe}
    except (OSError, ValueError, TypeError, RecursionError, ValidationError) as error:
        why = "it has no such file" if isinstance(error, FileNotFoundError) else "it is damaged"
        raise SpeciateError(
            Code.INVALID,
            f"{str(folder)!r} does not say what the model is for, in {sealed.CARD}: {why}.",
            "Export it again with export_model, which writes that file.",
            str(error)[:200],
        ) from error
