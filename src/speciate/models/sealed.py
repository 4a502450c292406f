"""A model folder that cannot change unnoticed: `files.json` lists the sha256 of every file that loading reads.

`model.json` (the card) is not in the list: it gets its version number after the weights are sealed, and nothing that
loads a model believes it.

A sealed export is such a folder that export_model wrote for other people and register_model takes back: the sealed
files, and in `model.json` the facts of the card that another workspace can use. Datasets, jobs, the use case and the
recipe stay in the giver's workspace. The facts are the giver's word, as a publisher's card is; the files are checked
like those of any published model, and against their hashes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from speciate.errors import Code, SpeciateError
from speciate.models import trust
from speciate.models.model_card import ModelCard
from speciate.refs import model_ref

MANIFEST, CARD, PREDICTOR = "files.json", "model.json", "predictor.json"
README, PUBLISHER = "README.md", "README.publisher.md"
"""A sealed README gets the second name in an export, whose README is ours (`exported_name`)."""
_SHARED_FACTS = frozenset((
    "task", "modality", "method", "base_model", "inputs", "parts", "ignored_parts", "labels", "parameters", "license",
))  # fmt: skip
_EVALUATION_RECIPE = ("terms", "target")
"""Entries of the recipe that an evaluation of the model must know."""
_PUBLIC_SOURCES = ("hf", "timm", "torchvision", "pkg", "new")
_BACKBONE = "backbone.json"
_known_hashes: dict[tuple[int, int, int, int], str] = {}
"""By device, inode, size and time of the last change."""
_ASK_AGAIN = "Ask whoever gave it for the folder anew: export_model writes one."


def seal(folder: Path) -> str:
    """Hash and flush every file, write the manifest, and return the folder's id: the sha256 of the manifest."""
    hashes = {}
    for path in sorted(folder.iterdir()):
        if path.name not in (MANIFEST, CARD):
            hashes[path.name] = file_hash(path)
            _flush(path)
    text = json.dumps(hashes, indent=1, sort_keys=True)
    (folder / MANIFEST).write_text(text)
    _flush(folder / MANIFEST)
    _flush(folder)
    return hashlib.sha256(text.encode()).hexdigest()


def check(folder: Path) -> str:
    """The folder's id, after checking that every file is as it was sealed. Raises NOT_FOUND or REFUSED."""
    try:
        text = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise SpeciateError(
            Code.NOT_FOUND, f"{folder} holds no model: it has no {MANIFEST}.", "Train the model again with train_model."
        ) from None
    for name, expected in _listed(folder, text).items():
        path = folder / name
        if not path.is_file() or file_hash(path) != expected:
            raise SpeciateError(
                Code.REFUSED,
                f"{path} is not what was sealed: the file is gone or its sha256 has changed (or {MANIFEST}, which "
                "lists it, has).",
                "Train the model again with train_model, or restore the file from a copy.",
            )
    return hashlib.sha256(text).hexdigest()


def _listed(folder: Path, text: bytes) -> dict[str, str]:
    try:
        listed = json.loads(text)
        if isinstance(listed, dict):
            return listed
    except (ValueError, RecursionError):
        pass
    raise SpeciateError(
        Code.REFUSED,
        f"{folder / MANIFEST} is not what was sealed: it is no list of files.",
        "Train the model again with train_model, or restore the file from a copy.",
    )


def add_files(folder: Path, names: Iterable[str]) -> None:
    """List further files in the manifest of an export, which gets another id by that."""
    listed = _listed(folder, (folder / MANIFEST).read_bytes()) | {name: file_hash(folder / name) for name in names}
    (folder / MANIFEST).write_text(json.dumps(listed, indent=1, sort_keys=True))


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes(folder: Path) -> dict[str, str]:
    """The sha256 of every file in a folder that loading may read, sorted by name: the manifest's, which the caller has
    checked, and that of any other file. A process reads a file for that once."""
    manifest = folder / MANIFEST
    listed = _listed(folder, manifest.read_bytes()) if manifest.is_file() else {}
    beside = (MANIFEST, CARD, README)
    names = sorted(path.name for path in folder.iterdir() if path.name not in beside and path.is_file())
    return {name: listed.get(name) or _hash_once(folder / name) for name in names}


def _hash_once(path: Path) -> str:
    state = path.stat()
    key = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
    if key not in _known_hashes:
        _known_hashes[key] = file_hash(path)
    return _known_hashes[key]


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_facts(card: ModelCard, target: Path) -> None:
    """Write the facts beside the files of a sealed export."""
    facts = card.model_dump(include=set(_SHARED_FACTS))
    if card.base_model and model_ref(card.base_model).source not in _PUBLIC_SOURCES:
        facts.pop("base_model")  # the name of a version here, which means another one elsewhere
    facts["recipe"] = {name: card.recipe[name] for name in _EVALUATION_RECIPE if name in card.recipe}
    (target / CARD).write_text(json.dumps(facts, indent=1))


def is_sealed_export(folder: Path) -> bool:
    """Whether export_model wrote this folder, judging by names of files."""
    return (folder / MANIFEST).is_file() and any((folder / name).is_file() for name in (PREDICTOR, _BACKBONE))


def check_export(folder: Path) -> tuple[str, ...]:
    """The files of a sealed export. Raises REFUSED if one may not be loaded or is gone, INVALID without the facts."""
    names = _listed_in_export(folder)
    excluded = trust.choose(names).excluded
    if excluded:
        name, why = next(iter(excluded.items()))
        raise SpeciateError(Code.REFUSED, f"{str(folder)!r} lists {name[:100]!r}. {why}", _ASK_AGAIN)
    for name in names:
        if not _place_of(folder, name, names).is_file():
            raise SpeciateError(
                Code.REFUSED, f"{str(folder)!r} is not whole: {name!r}, which {MANIFEST} lists, is gone.", _ASK_AGAIN
            )
    if not any(name.endswith(_BACKBONE) for name in names) and (base := _foreign_base(folder)) is not None:
        raise SpeciateError(
            Code.REFUSED, f"{str(folder)!r} needs {base[:100]!r}, whose weights are not among its files.", _ASK_AGAIN
        )
    _facts(folder)
    return names


SharedFacts = Mapping[str, Any]
"""Fields of a `ModelCard` that leave the workspace with an export: `_SHARED_FACTS` and a part of the recipe."""


def card_of_export(folder: Path) -> ModelCard:
    """The card of a sealed export as far as its facts go. Raises what `check_export` raises."""
    check_export(folder)
    return ModelCard.model_validate({**_facts(folder), "name": folder.name[:64] or "export"})


def check_unchanged(folder: Path) -> None:
    """Check a sealed export that is loaded where it lies. Raises REFUSED if a listed byte has changed, or if a file
    lies there that loading could read and the manifest does not list."""
    listed = _listed(folder, (folder / MANIFEST).read_bytes())
    for name, expected in listed.items():
        path = _place_of(folder, name, listed)
        if not path.is_file() or file_hash(path) != expected:
            raise SpeciateError(
                Code.REFUSED,
                f"{path} is not what was sealed: the file is gone or its sha256 has changed (or {MANIFEST}, which "
                "lists it, has).",
                _ASK_AGAIN,
            )
    beside = {MANIFEST, CARD, README, *(exported_name(name, listed) for name in listed)}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name not in beside and not path.is_dir() and trust.is_read(path.name):
            raise SpeciateError(
                Code.REFUSED,
                f"{path} is not what was sealed: {MANIFEST} does not list it, and loading could read it.",
                f"Take the file out of the folder. {_ASK_AGAIN}",
            )


def exported_name(name: str, names: Collection[str]) -> str:
    """What the sealed file `name` is called in an export of `names`: there README.md is ours."""
    if name != README:
        return name
    kept = PUBLISHER
    while kept in names:  # the version came of such an export
        kept = f"{kept.removesuffix('.md')}.publisher.md"
    return kept


def take_export(folder: Path, target: Path) -> SharedFacts:
    """Copy the sealed files into the empty folder `target`; returns the facts. Raises REFUSED if a byte has changed."""
    names = check_export(folder)
    for name in names:
        shutil.copyfile(_place_of(folder, name, names), target / name, follow_symlinks=False)
    shutil.copyfile(folder / MANIFEST, target / MANIFEST, follow_symlinks=False)
    try:
        check(target)
    except SpeciateError as error:
        raise SpeciateError(error.code, error.message.replace(str(target), str(folder)), _ASK_AGAIN) from error
    return _facts(folder)


def _foreign_base(folder: Path) -> str | None:
    """A base model that the model names, with weights that are neither in the folder nor a package's. Whatever has that
    name on this machine is not what the model was trained on."""
    try:
        left: list[Any] = [json.loads((folder / PREDICTOR).read_bytes())]
    except (OSError, ValueError, RecursionError):
        return None  # the check of settings, and loading, say what is wrong
    while left:
        value = left.pop()
        left += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        base = value.get("base_model") if isinstance(value, dict) else None
        if isinstance(base, str) and not base.startswith("pkg:"):
            return base
    return None


def _place_of(folder: Path, name: str, names: Collection[str]) -> Path:
    kept = folder / exported_name(name, names)
    return kept if kept.is_file() else folder / name


def _listed_in_export(folder: Path) -> tuple[str, ...]:
    try:
        listed = json.loads((folder / MANIFEST).read_bytes())
        if isinstance(listed, dict):
            return tuple(sorted(listed))
    except (ValueError, RecursionError):
        pass
    raise SpeciateError(Code.REFUSED, f"{MANIFEST} of {str(folder)!r} is no list of files.", _ASK_AGAIN)


def _facts(folder: Path) -> SharedFacts:
    try:
        facts = json.loads((folder / CARD).read_bytes())
        card = ModelCard.model_validate({**facts, "name": "x"})
        recipe = {name: card.recipe[name] for name in _EVALUATION_RECIPE if name in card.recipe}
        return card.model_dump(include=set(_SHARED_FACTS)) | {"recipe": recipe}
    except (OSError, ValueError, TypeError, RecursionError, ValidationError) as error:
        why = "it has no such file" if isinstance(error, FileNotFoundError) else "it is damaged"
        raise SpeciateError(
            Code.INVALID,
            f"{str(folder)!r} does not say what the model is for, in {CARD}: {why}.",
            "Export it again with export_model, which writes that file.",
            str(error)[:200],
        ) from error
