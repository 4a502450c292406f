"""Which examples a model has seen: in its own training, or in that of a version that it began with.

A network that was trained on, or the frozen one under a probe, remembers what it learned before: data versions of the
whole line count.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets import scan
from speciate.datasets.identity import known_rows
from speciate.datasets.versions import Manifest
from speciate.datasets.versions import resolve as resolve_dataset
from speciate.errors import Code, SpeciateError
from speciate.models.card import Card
from speciate.models.registry import resolve
from speciate.refs import dataset_ref, model_ref
from speciate.workspace.database import Database
from speciate.workspace.workspace import Folders


def learned_from(database: Database, folders: Folders, card: Card) -> tuple[Manifest, ...] | None:
    """The dataset versions of its training and of those before it, the latest first; None where that is not known.

    Published weights end the line: what their makers showed them is not known here of any of them.
    """
    if card.dataset is None:
        return None
    found: dict[str, Manifest] = {}
    try:
        while card.dataset is not None:
            manifest = resolve_dataset(database, dataset_ref(card.dataset)._replace(split=None))
            found[manifest.ref] = manifest
            if card.base_model is None or model_ref(card.base_model).source:
                break
            card = resolve(database, folders, card.base_model).card
    except SpeciateError as error:
        if error.code is not Code.NOT_FOUND:
            raise
        return None
    return tuple(found.values())


def seen(
    folders: Folders, manifest: Manifest, ids: Collection[str], learned: Sequence[Manifest], splits: Collection[str]
) -> set[str]:
    """Those of the examples `ids` of a version that are in these splits of the versions `learned`."""
    mine = scan.read(folders, manifest, ids=ids, usable=True)
    known = pa.array([False] * mine.num_rows)
    for version in learned:
        theirs = scan.read(folders, version, splits=splits, usable=True)
        known = pc.or_(known, known_rows(mine, manifest, theirs, version))
    return set(mine.filter(known)["id"].to_pylist())
