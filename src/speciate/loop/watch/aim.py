"""Where production fails, by the labels that its answers have, and which unlabelled answers lie there.

Beside the gaps of the stored evaluation (loop/gaps.py), which knows the suites alone, these know what is asked now.
Groups are what was answered, the columns of a row, and clusters of the vectors that monitoring keeps. Of all answers
with a label the share of wrong ones is compared, not of a fair draw: this chooses what to ask about, it judges nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from speciate import features
from speciate.loop.drift.permutation import Rows
from speciate.loop.gap_analysis import Gap, Group, cluster, compare, of_clusters, of_column
from speciate.loop.gaps import Gaps
from speciate.loop.monitor_sample import vectors_beside
from speciate.predictions.log_files import LogFolder
from speciate.workspace.workspace import Folders

MOST_ANSWERS = 5_000
"""Answers that are grouped, the newest."""
LEAST_LABELLED = 24
"""With fewer labelled answers no group is looked for."""
_MOST_COLUMNS, _LEAST_CLUSTERED = 30, 64


class AskedAnswer(NamedTuple):
    """What of a logged answer groups it."""

    id: str
    output: str | None
    """JSON of what was answered."""
    input: str | None
    """JSON of what was asked."""
    wrong: float | None
    """0 (right) to 1 (wrong); None without a label."""


class AimedGap(BaseModel):
    """A group in which the model surely fails: numbers and a kind, no text of others."""

    model_config = ConfigDict(frozen=True)
    of: str
    """`production`: by labelled answers; `suite`: by the stored evaluation."""
    kind: str
    n: int
    rate: float
    rest: float
    needed: int | None = None
    there: int
    """Unlabelled answers that look like it."""
    chosen: int = 0
    """How many of these answers people are asked about."""


class Aim(NamedTuple):
    gaps: list[AimedGap]
    members: list[set[str]]
    """For each gap, the ids of the unlabelled answers that lie in it."""

    @property
    def wanted(self) -> set[str]:
        return set().union(*self.members)

    def counted(self, chosen: set[str]) -> tuple[AimedGap, ...]:
        pairs = zip(self.gaps, self.members, strict=True)
        return tuple(gap.model_copy(update={"chosen": len(chosen & members)}) for gap, members in pairs)


class Vectors(NamedTuple):
    ids: list[str]
    rows: Rows
    """(N, D)"""


def find(answers: Sequence[AskedAnswer], evaluated: Gaps | None, vectors: Vectors | None = None) -> Aim:
    """The sure gaps of the suite that answers of production look like, and those of production. Pure."""
    open_ids = {each.id for each in answers if each.wrong is None}
    aim = Aim([], [])
    for gap in evaluated.sure if evaluated else ():
        if members := open_ids & set(gap.answers):
            _add(aim, "suite", gap, members)
    recent = list(answers[-MOST_ANSWERS:])
    labelled = [place for place, each in enumerate(recent) if each.wrong is not None]
    if len(labelled) < LEAST_LABELLED:
        return aim
    groups = _groups(recent, vectors)
    wrong = np.array([recent[place].wrong for place in labelled], np.float64)
    known = [each._replace(members=each.members[labelled]) for each in groups]
    by_key = {(each.kind, each.column, each.value): each for each in groups}
    for gap in compare(wrong, known):
        if gap.surely:
            places = np.flatnonzero(by_key[gap.kind, gap.column, gap.value].members).tolist()
            if members := open_ids & {recent[place].id for place in places}:
                _add(aim, "production", gap, members)
    return aim


def _add(aim: Aim, of: str, gap: Gap, members: set[str]) -> None:
    found = AimedGap(of=of, kind=gap.kind, n=gap.n, rate=gap.rate, rest=gap.rest, needed=gap.needed, there=len(members))
    aim.gaps.append(found)
    aim.members.append(members)


def _groups(answers: Sequence[AskedAnswer], vectors: Vectors | None) -> list[Group]:
    """Groups of answers, each with its members among `answers`, labelled or not."""
    outputs = np.array([each.output or "" for each in answers])
    values, counts = np.unique(outputs, return_counts=True)
    found = [
        Group("class", "", str(value), outputs == value, None)
        for value, count in zip(values, counts, strict=True)
        if value.startswith('"') and count > 1
    ]
    rows = [_row(each.input) for each in answers]
    names = list(dict.fromkeys(name for row in rows for name in row))[:_MOST_COLUMNS]
    for name in names:
        found += of_column(name, [row.get(name) for row in rows], None)
    if vectors is None or len(vectors.ids) < _LEAST_CLUSTERED:
        return found
    clusters = cluster(vectors.rows)
    own = dict(zip(vectors.ids, clusters.own.tolist(), strict=True))
    places = np.array([own.get(each.id, -1) for each in answers])
    return found + [each._replace(members=places == int(each.value)) for each in of_clusters(clusters, None)]


def _row(text: str | None) -> Mapping[str, str | None]:
    """Cells of a row of a table, as texts; nothing for other inputs."""
    kept: Any = json.loads(text) if text else None
    row = kept.get("row") if isinstance(kept, dict) else None
    return {name: None if cell is None else str(cell) for name, cell in row.items()} if isinstance(row, dict) else {}


def vectors_of(folders: Folders, log: LogFolder, generation: int, extractor: str | None) -> Vectors | None:
    """What monitoring described of this generation; None where it did nothing yet."""
    if extractor is None:
        return None
    ids, keys = list[str](), list[str]()
    for path in sorted((log.watched / "samples").glob(f"{generation}-*.parquet")):
        table = pq.read_table(path, columns=["id", "key"])
        ids += table["id"].to_pylist()
        keys += table["key"].to_pylist()
    if not ids:
        return None
    cached = features.read(vectors_beside(folders, log), extractor, keys)
    places = np.flatnonzero(cached.known).tolist()
    return Vectors([ids[place] for place in places], cached.vectors) if places else None
