"""Looks at near-copies of the test rows: who judged jittered rows under other names has looked at these.

Content hashes find equal rows alone (judged_rows.py). Near-copies are found by the sketches of the modality, which lie
in the datasets and not in the catalog. So the plan names what was judged elsewhere on rows of this modality, and the
run compares. Nothing is found where a modality has no sketch, or where the other dataset was deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from speciate.datasets import versions
from speciate.datasets.versions import Manifest
from speciate.errors import SpeciateError
from speciate.evaluation import judged_rows, suites
from speciate.evaluation.contamination import find_nearly_seen
from speciate.evaluation.holdout_reuse import LooksOnRows
from speciate.evaluation.judged_rows import Packed
from speciate.evaluation.suites import Scored
from speciate.modalities import find
from speciate.refs import dataset_ref
from speciate.workspace.database import Database
from speciate.workspace.workspace import Folders

MOST_SUITES = 200
"""Suites that are compared, the newest first; a remark counts the others."""
_DATASETS = "SELECT id, dataset FROM evaluations ORDER BY created DESC, id"


class SuiteElsewhere(BaseModel):
    """Rows that were judged and share none with those at hand, and the looks at them."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    dataset: Manifest
    split: str | None
    candidates: tuple[tuple[str, str], ...]
    """(model, suite), as `suites.count_candidates` has them."""
    evaluations: tuple[str, ...]
    promotions: int

    @property
    def shown(self) -> str:
        return self.dataset.ref + (f":{self.split}" if self.split else "")


class JudgedElsewhere(NamedTuple):
    """`suites`: those that are compared. `older`: how many are not, for they are older than MOST_SUITES others."""

    suites: tuple[SuiteElsewhere, ...]
    older: int


class NearLooks(NamedTuple):
    """`looks`: with those at near-copies. `remarks`: a sentence for each suite that has some."""

    looks: LooksOnRows
    remarks: tuple[str, ...]


def judged_elsewhere(
    database: Database, manifest: Manifest, rows: Packed, judged_now: Collection[str]
) -> JudgedElsewhere:
    """Suites of this modality whose rows are others. Reads the catalog alone."""
    if find(manifest.modality).sketching is None:
        return JudgedElsewhere((), 0)
    by_suite: dict[str, list[Scored]] = {}
    for each in suites.all_looks(database):
        by_suite.setdefault(each.suite, []).append(each)
    dataset_of = {str(name): str(dataset) for name, dataset in database.read(_DATASETS)}
    promoted = suites.promotions(database)
    mine = judged_rows.suite_id(rows)
    found: list[SuiteElsewhere] = []
    older = 0
    order = {name: place for place, name in enumerate(dataset_of)}
    for suite, scored in sorted(by_suite.items(), key=lambda item: min(order.get(s.evaluation, 1e9) for s in item[1])):
        if suite == mine or judged_rows.overlaps(suites.packed(database, suite), rows):
            continue
        there = _manifest(database, [dataset_of[each.evaluation] for each in scored if each.evaluation in dataset_of])
        if there is None or there[0].modality != manifest.modality:
            continue
        if len(found) == MOST_SUITES:
            older += 1
            continue
        evaluations = {each.evaluation for each in scored}
        found.append(
            SuiteElsewhere(
                dataset=there[0],
                split=there[1],
                candidates=tuple(sorted(suites.count_candidates(scored, judged_now))),
                evaluations=tuple(sorted(evaluations)),
                promotions=len({seq for seq, evaluation in promoted if evaluation in evaluations}),
            )
        )
    return JudgedElsewhere(tuple(found), older)


def with_near_copies(
    folders: Folders,
    manifest: Manifest,
    ids: Collection[str],
    looks: LooksOnRows,
    elsewhere: Sequence[SuiteElsewhere],
    older: int,
) -> NearLooks:
    """The looks at the examples `ids` of this version, those at their near-copies among them. `elsewhere` and `older`:
    as `judged_elsewhere` told them."""
    near: list[SuiteElsewhere] = []
    remarks: list[str] = []
    for suite in elsewhere:
        splits = None if suite.split is None else {suite.split}
        try:
            copies = find_nearly_seen(folders, manifest, ids, [suite.dataset], splits) or set()
        except (SpeciateError, OSError):  # deleted since the plan
            remarks.append(f"Near-copies of rows of {suite.shown}: not_checked, since its files are gone")
            continue
        if len(copies) < max(1.0, judged_rows.LEAST_OVERLAP * len(ids)):
            continue
        near.append(suite)
        remarks.append(
            f"{len(copies)} of these {len(ids)} rows are near-copies of rows of {suite.shown}, which "
            f"{len(suite.evaluations)} evaluation(s) judged: they count as looked at"
        )
    if older:
        remarks.append(
            f"Near-copies of rows of {older:,} older suites: not_checked, since the newest {MOST_SUITES} are compared. "
            "Looks at those rows do not count here"
        )
    return NearLooks(
        LooksOnRows(
            candidates=looks.candidates + len({pair for suite in near for pair in suite.candidates}),
            evaluations=looks.evaluations + len({name for suite in near for name in suite.evaluations}),
            promotions=looks.promotions + sum(suite.promotions for suite in near),
        ),
        tuple(remarks),
    )


def _manifest(database: Database, datasets: Sequence[str]) -> tuple[Manifest, str | None] | None:
    """The manifest of the first of these refs that is still there, with its split."""
    for text in datasets:
        ref = dataset_ref(text)
        try:
            manifest = versions.resolve(database, ref._replace(split=None))
            return manifest.model_copy(update={"labels": {}}), ref.split  # a plan is small
        except SpeciateError:
            continue
    return None
