"""Which examples a model has seen: in its own training, or in that of a version that it began with.

A network that was trained on, or the frozen one under a probe, remembers what it learned before: data versions of the
whole line count, of a merge those of all its parents, and what was replayed or what a teacher had learned.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets import version_rows
from speciate.datasets.columns import SKETCH
from speciate.datasets.identity import known_rows
from speciate.datasets.similarity import near_duplicates
from speciate.datasets.versions import Manifest, numbers, sources_of
from speciate.datasets.versions import resolve as resolve_dataset
from speciate.errors import Code, SpeciateError
from speciate.modalities import find
from speciate.models.model_card import ModelCard
from speciate.models.registry import resolve
from speciate.models.training_statement import TrainingStatement, source_name
from speciate.refs import dataset_ref, model_ref
from speciate.use_cases import says_yes
from speciate.workspace.database import Database
from speciate.workspace.workspace import Folders


def learned_from(database: Database, folders: Folders, card: ModelCard) -> tuple[Manifest, ...] | None:
    """The dataset versions of its training and of those before it, the latest first; None where that is not known.

    A merge learned what its parents learned. Published weights end the line: what their makers showed them is not known
    here of any of them.
    """
    if card.dataset is None and not card.parents:
        return None
    found: dict[str, Manifest] = {}
    left, done = [card], set[str]()
    try:
        while left:
            card = left.pop(0)
            if card.dataset is not None:
                for version in (card.dataset, *card.beside):
                    manifest = resolve_dataset(database, dataset_ref(version)._replace(split=None))
                    found[manifest.ref] = manifest
            elif not card.parents:
                continue  # published weights that were fetched
            for ref in (*card.parents, *card.teachers, card.base_model):
                if ref is not None and ref not in done and not model_ref(ref).source:
                    done.add(ref)
                    left.append(resolve(database, folders, ref).card)
    except SpeciateError as error:
        if error.code is not Code.NOT_FOUND:
            raise
        return None
    return tuple(found.values())


def learned_validation(database: Database, folders: Folders, card: ModelCard) -> bool:
    """Whether it, or a version that it began with, has learned from validation examples, too."""
    left, done = [card], set[str]()
    while left:
        card = left.pop(0)
        if card.recipe.get("learned_validation"):
            return True
        for ref in (*card.parents, card.base_model):
            if ref is not None and ref not in done and not model_ref(ref).source:
                done.add(ref)
                with contextlib.suppress(SpeciateError):  # one that is gone: `learned_from` is None then
                    left.append(resolve(database, folders, ref).card)
    return False


def compare_statement(
    database: Database, stated: TrainingStatement, manifest: Manifest
) -> tuple[TrainingStatement, tuple[Manifest, ...]]:
    """With the sources that the examples of `manifest` share with what is stated, and the versions of this workspace
    among the stated ones, all versions of a name that has no number."""
    origins = {source_name(each) for each in sources_of(database, manifest.name)}
    shared = tuple(name for name in stated.named if source_name(name) in origins)
    here: dict[str, Manifest] = {}
    for name in stated.trained_on:
        try:
            ref = dataset_ref(name)._replace(split=None)
            every = [ref] if ref.version else [ref._replace(version=each) for each in numbers(database, ref.name)]
            found = [resolve_dataset(database, each) for each in every]
            here |= {each.ref: each for each in found}
        except SpeciateError as error:
            if error.code not in (Code.NOT_FOUND, Code.INVALID):
                raise
    return stated.model_copy(update={"shared": shared}), tuple(here.values())


def count_without_consent(folders: Folders, learned: Sequence[Manifest], column: str) -> int:
    """Rows of the training and validation splits of these versions whose cell does not say yes. Of a version without
    the column that is every row: nobody asked."""
    lacking = 0
    for version in learned:
        there = column in version_rows.stored_columns(folders, version)
        wanted = ["id", *([column] if there else [])]
        rows = version_rows.read(folders, version, wanted, splits=("train", "validation"), usable=True)
        cells = rows[column].to_pylist() if there else [None] * rows.num_rows
        lacking += sum(not says_yes(cell) for cell in cells)
    return lacking


def find_seen(
    folders: Folders, manifest: Manifest, ids: Collection[str], learned: Sequence[Manifest], splits: Collection[str]
) -> set[str]:
    """Those of the examples `ids` of a version that are in these splits of the versions `learned`."""
    mine = version_rows.read(folders, manifest, ids=ids, usable=True)
    known = pa.array([False] * mine.num_rows)
    for version in learned:
        theirs = version_rows.read(folders, version, splits=splits, usable=True)
        known = pc.or_(known, known_rows(mine, manifest, theirs, version))
    return set(mine.filter(known)["id"].to_pylist())


def find_nearly_seen(
    folders: Folders,
    manifest: Manifest,
    ids: Collection[str],
    learned: Sequence[Manifest],
    splits: Collection[str] | None,
) -> set[str] | None:
    """Those that have a near-duplicate there, by the sketches of their modality; identical ones among them. None where
    nothing is found and some of it cannot be checked: the modality has no sketches, or a version has none."""
    if not learned:
        return set()
    sketching = find(manifest.modality).sketching
    mine = version_rows.read(folders, manifest, ids=ids, usable=True)
    if sketching is None or SKETCH not in mine.column_names or mine[SKETCH].null_count == mine.num_rows:
        return None
    found, unchecked = set[str](), False
    names = mine["id"].to_pylist()
    for version in learned:
        theirs = version_rows.read(folders, version, splits=splits, usable=True)
        if version.modality != manifest.modality or SKETCH not in theirs.column_names:
            unchecked = True
            continue
        near = near_duplicates.near_any_of(mine[SKETCH], theirs[SKETCH], sketching, folders)
        found |= {names[place] for place in np.flatnonzero(near).tolist()}
    return None if unchecked and not found else found
