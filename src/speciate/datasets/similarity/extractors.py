"""Extractors turn media into vectors for comparison: a modality's own descriptor, or a frozen model.

The descriptor is always available: `features` of the modality, which needs no weights, no training and no network. Its
vectors are computed where the media are decoded, so that no pixels leave the sandbox.

A model sees those parts of a mixed row that it can read: the row's vector is the sum of theirs. A row without such a
part has none, and is like no other. The descriptor sees every part, so it is what mixed rows are compared by where
nobody names a model.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from speciate import modalities
from speciate.errors import Code, SpeciateError, unknown
from speciate.modalities.multimodal import MULTIMODAL
from speciate.models import packaged, registry
from speciate.models.backbones.architectures import modality_of, suits
from speciate.models.encoders import Precision, Vectors, base_models, by_frames, load_encoder
from speciate.refs import model_ref
from speciate.workspace.workspace import Folders, Workspace

DESCRIPTOR = "descriptor"
_LIBRARIES = ("torch", "transformers")
_INSTALL = "pip install 'speciate[train]'"
_BATCH = 256
_OF_PARTS = "-of-parts"
"""The ending of the ids of models that embed mixed rows."""


class Extractor(Protocol):
    name: str
    """The name for callers: `descriptor` or a model ref."""
    id: str
    """Identifies the computation: the same id means the same vector for the same medium, on every machine."""
    modality: str
    """The modality of its media, and of a text to search for. For mixed rows: of the parts that a model reads."""
    sandboxed: bool
    """Whether it is computed in the sandbox that decodes the media."""
    takes_text: bool
    """Whether any text has a vector, not only examples."""

    def embed(self, media: Sequence[Any]) -> Iterator[tuple[list[int], Vectors]]:
        """Batches of (positions in `media`, vectors (B, D)), in an order that suits the extractor."""
        ...


class Descriptor:
    name, sandboxed = DESCRIPTOR, True

    def __init__(self, modality: str) -> None:
        self._modality = modalities.find(modality)
        self.modality, self.takes_text = modality, _is_text(modality)
        self.id = f"{DESCRIPTOR}-{modality}-{_code_version(modality)}"

    def embed(self, media: Sequence[Any]) -> Iterator[tuple[list[int], Vectors]]:
        for start in range(0, len(media), _BATCH):
            places = list(range(start, min(start + _BATCH, len(media))))
            yield places, np.stack([self._modality.features(media[place]) for place in places])


class Model:
    sandboxed = False

    def __init__(
        self, ref: str, modality: str, threads: int, folder: Path | None, precision: Precision | None = None
    ) -> None:
        self._encoder = load_encoder(ref, threads, precision, folder=folder, media=modality)
        self.name, self.id, self.modality = ref, self._encoder.id, modality
        self._of_parts = modality == MULTIMODAL.name
        if self._of_parts:
            self.id, self.modality = f"{self._encoder.id}{_OF_PARTS}", modality_of(ref, folder) or modality
        self.takes_text = _is_text(self.modality)

    def embed(self, media: Sequence[Any]) -> Iterator[tuple[list[int], Vectors]]:
        return self._embed_parts(media) if self._of_parts else self._encoder.embed(media)

    def _embed_parts(self, rows: Sequence[Any]) -> Iterator[tuple[list[int], Vectors]]:
        """`rows`: mixed rows, or media of one part alone, such as a text to search for."""
        for start in range(0, len(rows), _BATCH):
            owners, media = list[int](), list[Any]()
            for place, row in enumerate(rows[start : start + _BATCH]):
                own = self._readable(row)
                owners += [place] * len(own)
                media += own
            found = np.zeros((len(rows[start : start + _BATCH]), self._encoder.width), np.float32)
            for places, vectors in self._encoder.embed(media):
                np.add.at(found, [owners[place] for place in places], vectors)
            yield list(range(start, start + len(found))), found

    def _readable(self, row: Any) -> list[Any]:
        if not isinstance(row, Mapping):
            return [row]
        reads = (part for part in row if suits(self.modality, part.rpartition(".")[2]))
        return [row[part] for part in reads if row[part] is not None]


class Choice(NamedTuple):
    """An extractor, installed or not."""

    name: str
    modality: str
    what: str
    needs: tuple[str, ...]
    """Packages to install first."""
    takes_text: bool


def choices(modality: str | None = None) -> list[Choice]:
    """All, or those for a modality: base models before its descriptor."""
    found = []
    for name in sorted(modalities.table()) if modality is None else [modality]:
        for ref in base_models(name):
            entry = packaged.find(model_ref(ref).name)
            found.append(Choice(ref, name, entry.what, _needs(ref), takes_text=_is_text(name)))
        what = "what the modality itself computes, without weights or training"
        found.append(Choice(DESCRIPTOR, name, what, (), takes_text=_is_text(name)))
    return found


def resolve(name: str | None, modality: str, workspace: Workspace, parts: Collection[str] = ()) -> str:
    """The extractor's name, None being the first installed model of the modality, else the descriptor; of mixed rows,
    of which a model may read a part alone, the descriptor.

    `parts`: modalities of the parts of mixed rows. A model that was trained here is named with its version. Raises
    NOT_FOUND, INVALID for a model that reads no such media, or MISSING_EXTRA. Loads nothing.
    """
    mixed = modality == MULTIMODAL.name
    if name is None:
        return DESCRIPTOR if mixed else next(choice.name for choice in choices(modality) if not choice.needs)
    suited = {choice.name: choice for choice in choices(modality) if not mixed or _reads_part(choice, parts)}
    if name not in suited:
        recovery = f"Extractors for {modality}: {', '.join(suited)}."
        if others := [choice.modality for choice in choices() if choice.name == name]:
            embeds = min(others, key="multimodal".__eq__)  # every encoder embeds a part of mixed rows, too
            this = f"the parts of these rows are {', '.join(sorted(parts))}" if mixed else f"this is {modality}"
            raise SpeciateError(Code.INVALID, f"{name!r} embeds {embeds}, and {this}.", recovery)
        if is_trained_here(name):
            return _resolve_registered(name, modality, workspace, recovery, parts)
        raise unknown("extractor", name, suited, recovery)
    if suited[name].needs:
        raise SpeciateError(
            Code.MISSING_EXTRA,
            f"{name!r} is not installed.",
            f"Run: {' && '.join(suited[name].needs)}; or call again with extractor={DESCRIPTOR!r}.",
        )
    return name


def load(name: str, modality: str, folders: Folders, threads: int = 1) -> Extractor:
    """The extractor of a name that `resolve` gave. A model's weights are read to know its id."""
    return _load(name, modality, threads, folder_of(name, folders) if is_trained_here(name) else None)


def load_from(folder: Path | None, name: str, modality: str, threads: int, precision: Precision) -> Extractor:
    """As `load`, with the weights in `folder` and in a precision that another machine chose."""
    return Descriptor(modality) if folder is None else Model(name, modality, threads, folder, precision)


def folder_of(name: str, folders: Folders) -> Path | None:
    """Where its weights lie; None for a descriptor."""
    if name == DESCRIPTOR:
        return None
    ref = model_ref(name)
    return (
        registry.version_folder(folders, ref.name, ref.version or 0)
        if is_trained_here(name)
        else packaged.locate(ref.name)
    )


@lru_cache(maxsize=4)
def _load(name: str, modality: str, threads: int, folder: Path | None) -> Extractor:
    return Descriptor(modality) if name == DESCRIPTOR else Model(name, modality, threads, folder)


def is_trained_here(name: str) -> bool:
    """Whether it names a registered model."""
    return name != DESCRIPTOR and ":" not in name and name not in {choice.name for choice in choices()}


def _reads_part(choice: Choice, parts: Collection[str]) -> bool:
    if choice.name == DESCRIPTOR:
        return True
    reads = packaged.find(model_ref(choice.name).name).modality
    return any(suits(reads, part) for part in parts)


def _resolve_registered(name: str, modality: str, workspace: Workspace, recovery: str, parts: Collection[str]) -> str:
    known = registry.names(workspace.database)
    if model_ref(name).name not in known:
        raise unknown("extractor", name, [*(choice.name for choice in choices(modality)), *known], recovery)
    version = registry.resolve(workspace.database, workspace.folders, name)
    reads = modality_of(version.ref, version.path)
    if by_frames(reads, modality) or any(reads is not None and suits(reads, part) for part in parts):
        return version.ref
    if not suits(reads, modality):
        this = f"the parts of these rows are {', '.join(sorted(parts))}" if parts else f"this is {modality}"
        what = f"it embeds {reads}, and {this}" if reads else "it has no network"
        raise SpeciateError(Code.INVALID, f"{version.ref!r} is no extractor here: {what}.", recovery)
    return version.ref


def _is_text(modality: str) -> bool:
    """Whether its media are texts, so that any text can be described."""
    return modalities.find(modality).analyzer is not None


def _needs(ref: str) -> tuple[str, ...]:
    needs = [] if all(importlib.util.find_spec(library) for library in _LIBRARIES) else [_INSTALL]
    name = model_ref(ref).name
    return (*needs, *(() if packaged.installed(name) else (packaged.find(name).install,)))


@cache
def _code_version(modality: str) -> str:
    """Digest of all the code that a modality comes from: another version of it may describe media in another way."""
    module = importlib.import_module(modalities.table()[modality].partition(":")[0])
    file = Path(module.__file__ or "")
    files = sorted(file.parent.glob("*.py")) if module.__package__ else [file]
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
