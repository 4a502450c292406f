"""From a survey to the rows of a version: roles, labels, groups, splits, ids and digests.

Works on what was already decoded; opens no foreign file.
"""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from speciate.datasets.columns import CONTENT, FINGERPRINT, FIXED, HIDDEN, KEY, rename, type_name
from speciate.datasets.identity import fingerprint, row_keys, sha256
from speciate.datasets.loader import input_values
from speciate.datasets.lthash import Lanes, lanes
from speciate.datasets.roles import Roles, check_label, choose, groups, label_column
from speciate.datasets.sealing import digests
from speciate.datasets.split import FRACTIONS, Member, audit, split, strata
from speciate.datasets.survey import Survey
from speciate.errors import Code, SpeciateError
from speciate.ids import id_from_key
from speciate.modalities.contract import DecodeError

_log = logging.getLogger(__name__)

QUALITIES = ("ok", "partial", "refused", "error")
_KEEP_FIRST = ("test", "validation", "train")
"""Which copy stays where identical content lies in several splits that the source brought."""
_REASONS_SHOWN = 5


class Wishes(NamedTuple):
    """What the caller said about the columns."""

    label: str | None
    inputs: tuple[str, ...]
    group_by: str | None
    seed: int
    kept: Mapping[str, str] = {}
    """Keys of an earlier version's rows -> the split that they lie in and, where we make one, keep."""


class Rows(NamedTuple):
    """`table` has the fixed and hidden columns, then the user's."""

    table: pa.Table
    modality: str
    inputs: tuple[str, ...]
    label: str | None
    numeric: bool
    lanes: Lanes
    report: dict[str, Any]


def assemble(survey: Survey, wishes: Wishes) -> Rows:
    """INVALID where a named column is not there or no item can be used at all."""
    table, made_split = survey.table, not any(survey.splits)
    judged = _Judged(list(survey.qualities), list(survey.reasons))
    labels, numeric = _labels(survey, wishes.label, judged)
    group = groups(wishes.group_by, table, survey.sources)
    if survey.paths:
        roles = Roles(survey.modality, ())
        contents, fingerprints, keys = survey.contents, survey.fingerprints, survey.contents
    else:
        never = [name for name in (wishes.label, wishes.group_by) if name in table.column_names]
        roles = choose(table, survey.modality, wishes.inputs, [str(name) for name in never])
        contents, fingerprints = _values(table, roles, judged)
        keys = list(row_keys(table))
    judged.refuse_if_nothing_is_left()
    members = _members(keys, fingerprints, group, labels, judged)
    if made_split:
        splits = _made_split(members, judged, wishes)
    else:
        splits = list(survey.splits)
        _refuse_copies(contents, splits, judged)
    renamed = rename(name for name in table.column_names if name != "label" or wishes.label != "label")
    user = table.select(list(renamed)).rename_columns(list(renamed.values())) if renamed else pa.table({})
    columns = {
        "id": _ids(contents, labels, survey.sources),
        "split": pa.array(splits, pa.string()),
        "label": pa.array(labels, pa.float64() if numeric else pa.string()),
        "group_key": pa.array(group, pa.string()),
        "quality": judged.qualities,
        "reason": pa.array(judged.reasons, pa.string()),
        "source": survey.sources,
        CONTENT: pa.array(contents, pa.string()),
        FINGERPRINT: pa.array(fingerprints, pa.string()),
        KEY: pa.array(keys, pa.string()),
    }
    whole = pa.table({**columns, **{name: user[name] for name in user.column_names}}).sort_by("id")
    report = {
        **{quality: judged.qualities.count(quality) for quality in QUALITIES},
        "split": _split_report(members, splits, judged, made=made_split),
        "untrusted": {
            "reasons": judged.common_reasons(),
            "renamed": {name: stored for name, stored in renamed.items() if name != stored},
        },
    }
    inputs = tuple(renamed[name] for name in roles.inputs)
    return Rows(whole, roles.modality, inputs, wishes.label, numeric, lanes(digests(whole)), report)


def user_columns(table: pa.Table) -> dict[str, str]:
    """Name -> type of the columns that are the user's."""
    return {field.name: type_name(field.type) for field in table.schema if field.name not in (*FIXED, *HIDDEN)}


def counts(table: pa.Table, column: str) -> dict[str, int]:
    """How often each value occurs among rows of quality ok, most frequent first."""
    usable = [value for value, quality in zip(table[column].to_pylist(), table["quality"].to_pylist(), strict=True)
              if quality == "ok" and value is not None]  # fmt: skip
    return dict(Counter(map(str, usable)).most_common())


class _Judged:
    """The quality of every item, as judgement goes on."""

    def __init__(self, qualities: list[str], reasons: list[str | None]) -> None:
        self.qualities, self.reasons = qualities, reasons

    def ok(self, place: int) -> bool:
        return self.qualities[place] == "ok"

    def mark(self, place: int, quality: str, reason: str) -> None:
        """The first verdict stands."""
        if self.ok(place):
            self.qualities[place], self.reasons[place] = quality, reason

    def common_reasons(self) -> dict[str, int]:
        return dict(Counter(reason for reason in self.reasons if reason).most_common(_REASONS_SHOWN))

    def refuse_if_nothing_is_left(self) -> None:
        if "ok" not in self.qualities:
            _log.warning("Why no item can be used: %s", self.common_reasons() or "the source has no rows")
            raise SpeciateError(
                Code.INVALID,
                f"None of the {len(self.qualities)} items can be used; the job's log says why.",
                "Mend the source or name another modality, label or inputs, then call create_dataset again.",
            )


def _labels(survey: Survey, label: str | None, judged: _Judged) -> tuple[list[Any], bool]:
    if label is None:
        return [None] * len(survey.sources), False
    if label == "folder" and "folder" not in survey.table.column_names:
        values, numeric = [folder and folder[:64] for folder in survey.folders], False
    else:
        check_label(label, survey.table)
        values, numeric = label_column(survey.table[label].to_pylist())
    for place, value in enumerate(values):
        if value is None:
            judged.mark(place, "partial", "The label is missing.")
    return values, numeric


def _values(table: pa.Table, roles: Roles, judged: _Judged) -> tuple[list[str | None], list[str | None]]:
    """sha256 of what a model sees of each row, and of its fingerprint; rows that hold no medium are marked."""
    contents: list[str | None] = []
    fingerprints: list[str | None] = []
    for place, value in enumerate(input_values(roles.modality, roles.inputs, table)):
        contents.append(sha256(json.dumps(value, sort_keys=True, default=str)))
        try:
            fingerprints.append(fingerprint(roles.modality, value))
        except DecodeError as error:
            judged.mark(place, error.quality, error.detail)
            fingerprints.append(None)
    return contents, fingerprints


def _members(
    keys: Sequence[str | None],
    fingerprints: Sequence[str | None],
    group: Sequence[str | None],
    labels: Sequence[Any],
    judged: _Judged,
) -> list[tuple[int, Member]]:
    """The usable items with their places."""
    stratum = strata(labels)
    return [
        (place, Member(str(keys[place]), group[place], str(fingerprints[place]), stratum[place]))
        for place in range(len(keys))
        if judged.ok(place)
    ]


def _made_split(members: list[tuple[int, Member]], judged: _Judged, wishes: Wishes) -> list[str | None]:
    splits: list[str | None] = [None] * len(judged.qualities)
    names = split([member for _, member in members], FRACTIONS, wishes.seed, wishes.kept)
    for (place, _), name in zip(members, names, strict=True):
        splits[place] = name
    return splits


def _refuse_copies(contents: Sequence[str | None], splits: Sequence[str | None], judged: _Judged) -> None:
    """Identical content in several splits of the source: the copy in the test split stays."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, content in enumerate(contents):
        if content is not None and judged.ok(place):
            places[content].append(place)
    for same in places.values():
        names = {splits[place] for place in same}
        if len(names) > 1:
            kept = next((name for name in _KEEP_FIRST if name in names), None) or min(map(str, names))
            for place in same:
                if splits[place] != kept:
                    judged.mark(place, "refused", f"Identical content lies in the split {kept!r}.")


def _split_report(
    members: list[tuple[int, Member]], splits: Sequence[str | None], judged: _Judged, *, made: bool
) -> dict[str, Any]:
    usable = [(member, name) for place, member in members if judged.ok(place) and (name := splits[place])]
    crossing = audit([member for member, _ in usable], [name for _, name in usable])
    return {
        "made_by": "speciate: 70/15/15, groups and content identical after normalising together, stratified"
        if made
        else "the source",
        "without_split": sum(splits[place] is None for place, _ in members),
        "groups_across": crossing.groups,
        "identical_after_normalising_across": crossing.contents,
    }


def _ids(contents: Sequence[str | None], labels: Sequence[Any], sources: Sequence[str]) -> list[str]:
    """From the content, so that the same example has the same id in every version; copies are numbered."""
    seen: Counter[str] = Counter()
    ids = [""] * len(contents)
    for place in sorted(range(len(contents)), key=lambda i: (str(contents[i]), str(labels[i]), sources[i])):
        key = contents[place] or f"source:{sources[place]}"
        seen[key] += 1
        ids[place] = id_from_key("ex", f"{key}:{seen[key]}")
    return ids
