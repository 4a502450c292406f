"""Inputs that tell the answer by themselves: often a copy of the label, or what is known only after it. Pure.

A column is tried alone: what the other four fifths of the rows say of its values is compared with the targets of each
fifth. Categories say the most frequent (or mean) target of their value, numbers that of the nearest value, so that
ranges, codes and curves count, too. Where cells are empty, a column is tried on its filled rows, too. Groups stay in
one fifth: what identifies a person tells nothing of another. Not found: a label that is spread over several columns, or
written in a text.

Of three labels or more, a column may also give a part away: a coarser form of the label, such as `smokes` where the
label is how much. Its sign is that each label has one value of the column. A good predictor has no such sign, however
well it parts the labels: within each of them it varies.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

FEWEST = 20
"""Examples below which a column tells the answer by chance."""
MOST_ROWS = 5_000
"""Rows that are looked at, evenly spaced."""
_FEWEST_ERRORS = 5
"""Fewest errors of the constant answer, below which a column tells the answer by chance."""
_CLASSES, _NUMBERS = 0.98, 0.999
"""Share of the constant's errors, or of the variance, that a telling column removes."""
_LEAST_FILLED = 0.5
"""Share of filled cells, from which on these alone are tried, too."""
_FOLDS = 5
_FEWEST_LABELS = 3
_ROWS_PER_VALUE = 3
_MOST_WORDS, _DIGITS = 2, 15
"""Words of a text that may be a code, and digits of its number that count."""

Codes = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]


class TellingInput(BaseModel):
    """A column that alone gives the target."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    column: str
    accuracy: float = Field(description="Of the column alone, out of fold: share of right answers; of numbers R2.")
    constant: float = Field(description="The same of the best constant answer; 0 where it is R2.")
    examples: int

    def __str__(self) -> str:
        what = "accuracy" if self.constant else "R2"
        beside = f", beside {self.constant:.3f} of the constant answer" if self.constant else ""
        return f"{self.column!r} ({what} alone {self.accuracy:.3f}{beside}, {self.examples} examples)"


class CoarseCopy(BaseModel):
    """A column of fewer values than there are labels, each label having (nearly) always the same one."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    column: str
    labels: int
    values: int
    agreeing: int = Field(description="Examples that have the value of their label, as the other folds tell it.")
    examples: int

    def __str__(self) -> str:
        return (
            f"{self.column!r} ({self.labels} labels, {self.values} values: the label alone gives the value in "
            f"{self.agreeing:,} of {self.examples:,} examples)"
        )


def telling_inputs(
    columns: Mapping[str, Sequence[Any]], targets: Sequence[Any], groups: Sequence[str | None] = ()
) -> list[TellingInput]:
    """The columns of which each alone gives (nearly) every target. Rows without a target are left out. Targets are
    labels or numbers; of others (lists, boxes) nothing is found."""
    places = _spaced([at for at, each in enumerate(targets) if _is_target(each)])
    if len(places) < FEWEST:
        return []
    wanted, fold = [targets[at] for at in places], _folds(places, groups)
    numeric = all(map(_is_number, wanted)) and len(set(wanted)) > 2
    if numeric:
        target, variants = np.array(wanted, float), 0
    else:
        texts, codes = np.unique([str(each) for each in wanted], return_inverse=True)
        target, variants = codes.astype(float), len(texts)
        if len(wanted) - int(np.bincount(codes).max()) < _FEWEST_ERRORS:
            return []
    if target.std() == 0:
        return []
    found = []
    for name, cells in columns.items():
        values = [cells[at] for at in places]
        filled = [at for at, value in enumerate(values) if not _is_empty(value)]
        told = _tells(name, values, target, fold, variants)
        if told is None and max(FEWEST, _LEAST_FILLED * len(values)) <= len(filled) < len(values):
            told = _tells(name, [values[at] for at in filled], target[filled], fold[filled], variants)
        found += [told] if told else []
    return found


def coarse_copies(
    columns: Mapping[str, Sequence[Any]], targets: Sequence[Any], groups: Sequence[str | None] = ()
) -> list[CoarseCopy]:
    """The columns that are a coarser form of the label. Targets that are no labels have none, nor have fewer than
    three labels: a part of two is the whole, which `telling_inputs` finds."""
    places = [at for at, each in enumerate(targets) if isinstance(each, str | bool | int)]
    labels = [str(targets[at]) for at in places]
    variants = len(set(labels))
    if (
        len(places) < FEWEST
        or len(places) > MOST_ROWS
        or not _FEWEST_LABELS <= variants <= len(places) / _FEWEST_ERRORS
    ):
        return []
    fold, found = _folds(places, groups), []
    for name, cells in columns.items():
        values = [cells[at] for at in places]
        if not 2 <= (several := len(set(values))) < variants:
            continue
        _, code = np.unique(list(map(str, values)), return_inverse=True)
        rarer = len(places) - int(np.bincount(code).max())
        if rarer < _FEWEST_ERRORS:
            continue
        agreeing = int((_told(labels, code.astype(float), fold, several) == code).sum())
        if len(places) - agreeing <= (1 - _CLASSES) * rarer:
            found.append(
                CoarseCopy(column=name, labels=variants, values=several, agreeing=agreeing, examples=len(places))
            )
    return found


def _spaced(places: Sequence[int]) -> Sequence[int]:
    """At most so many that looking at them takes no time."""
    if len(places) <= MOST_ROWS:
        return places
    return [places[at] for at in np.linspace(0, len(places) - 1, MOST_ROWS).astype(int).tolist()]


def _folds(places: Sequence[int], groups: Sequence[str | None]) -> Codes:
    """Which fifth each row is in; groups stay in one."""
    names = [(groups[at] if groups else None) or f"row {at}" for at in places]
    _, group = np.unique(names, return_inverse=True)
    fold: Codes = np.random.default_rng(0).permutation(int(group.max()) + 1)[group] % _FOLDS
    return fold


def _tells(name: str, values: Sequence[Any], target: Numbers, fold: Codes, variants: int) -> TellingInput | None:
    """The column, where its values give nearly every target."""
    views = (values, *_codes_of(values))
    if variants:
        counts = np.bincount(target.astype(np.int64))
        if len(target) - int(counts.max()) < _FEWEST_ERRORS:
            return None
        score = max(float(np.mean(_told(view, target, fold, variants) == target)) for view in views)
        constant = float(counts.max() / len(target))
        telling = 1 - score <= (1 - _CLASSES) * (1 - constant)
    else:
        if target.std() == 0:
            return None
        errors = [float(np.mean((_told(view, target, fold, variants) - target) ** 2)) for view in views]
        error = min(*errors, _off_the_line(values, target))
        score, constant = 1 - error / float(target.var()), 0.0
        telling = score >= _NUMBERS
    if not telling:
        return None
    return TellingInput(column=name, accuracy=round(score, 4), constant=round(constant, 4), examples=len(target))


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def warning_of(found: Sequence[TellingInput]) -> str:
    """What whoever makes a dataset or plans a training is told of them."""
    named = "; ".join(map(str, found))
    return (
        f"An input alone tells the label: {named}. Is it known before the answer is? If not, a model that reads it is "
        "of no use: create the dataset again with inputs=[...] without it. A person is asked before a model that reads "
        "it is promoted."
    )


def copy_warning(found: Sequence[CoarseCopy]) -> str:
    """The same of coarser forms of the label."""
    named = "; ".join(map(str, found))
    return (
        f"An input may be made from the label, as a coarser form of it: {named}. Is it known before the answer is? If "
        "not, a model that reads it is of no use: create the dataset again with inputs=[...] without it."
    )


def repeating_inputs(names: Sequence[str], rows: Sequence[Mapping[str, Any]], answers: Sequence[Any]) -> list[str]:
    """The columns that hold these answers, perhaps in other words: one value for each answer, and the other way."""
    if len(rows) < FEWEST or len({str(answer) for answer in answers}) < 2:
        return []
    values = {name: [row.get(name) for row in rows] for name in names}
    return [name for name in names if _by_value(values[name], answers) and _by_value(answers, values[name])]


def _by_value(values: Sequence[Any], targets: Sequence[Any]) -> bool:
    """Whether equal values always have equal targets."""
    told: dict[str, str] = {}
    if any(
        told.setdefault(str(value), str(target)) != str(target) for value, target in zip(values, targets, strict=True)
    ):
        return False
    return len(told) * _ROWS_PER_VALUE <= len(values)


def _codes_of(values: Sequence[Any]) -> list[list[Any]]:
    """For short texts that hardly repeat, such as numbers of orders: each text without its digits, and its number. Rows
    that were numbered class by class tell the class so."""
    texts = [value for value in values if isinstance(value, str)]
    words = max((len(value.split()) for value in texts), default=0)
    if len(texts) < len(values) / 2 or 2 * len(set(texts)) < len(texts) or words > _MOST_WORDS:
        return []
    without = [re.sub(r"\d+", "0", value) if isinstance(value, str) else None for value in values]
    numbers = [
        int(found[-1][-_DIGITS:]) if isinstance(value, str) and (found := re.findall(r"\d+", value)) else None
        for value in values
    ]
    return [without, numbers] if any(number is not None for number in numbers) else []


def _told(values: Sequence[Any], target: Numbers, fold: Codes, variants: int) -> Numbers:
    """(N,) what the rows of the other folds say of each row's value. `variants`: number of labels; 0: numbers."""
    number = np.array([float(value) if _is_number(value) else math.nan for value in values])
    by_order = np.isfinite(number)
    seen_at: dict[str, int] = {}
    code = np.zeros(len(values), np.int64)
    if not by_order.all():
        code = np.array([seen_at.setdefault(str(value), len(seen_at)) for value in values], np.int64)
    told = np.empty(len(target))
    for each in range(_FOLDS):
        inside, outside = fold == each, fold != each
        if not inside.any() or not outside.any():
            told[inside] = math.nan
            continue
        usual = _summary(np.zeros(int(outside.sum()), np.int64), target[outside], 1, variants, 0.0)[0]
        told[inside] = _summary(code[outside], target[outside], int(code.max()) + 1, variants, usual)[code[inside]]
        there, wanted = outside & by_order, inside & by_order
        if there.any() and wanted.any():
            seen, place = np.unique(number[there], return_inverse=True)
            said = _summary(place.astype(np.int64), target[there], len(seen), variants, usual)
            asked = number[wanted]
            told[wanted] = said[_nearest(seen, asked)] if variants else np.interp(asked, seen, said)
    return told


def _off_the_line(values: Sequence[Any], target: Numbers) -> float:
    """Mean squared error of the straight line, which also holds beyond the values of the other folds."""
    if not all(map(_is_number, values)) or (x := np.array(values, float)).std() == 0:
        return math.inf
    return float(target.var() * (1 - np.corrcoef(x, target)[0, 1] ** 2))


def _summary(code: Codes, target: Numbers, count: int, variants: int, usual: float) -> Numbers:
    """(count,) the most frequent label, or the mean, of each code; `usual` of a code without rows."""
    rows = np.bincount(code, minlength=count)
    if not variants:
        mean = np.bincount(code, target, count) / np.maximum(rows, 1)
        return np.where(rows > 0, mean, usual)
    pairs, times = np.unique(code * variants + target.astype(np.int64), return_counts=True)
    order = np.argsort(times, kind="stable")  # the most frequent is written last
    found = np.full(count, usual)
    found[pairs[order] // variants] = pairs[order] % variants
    return found


def _nearest(seen: Numbers, wanted: Numbers) -> Codes:
    """Places in `seen`, which ascends."""
    after = np.searchsorted(seen, wanted).clip(1, max(len(seen) - 1, 1)).clip(0, len(seen) - 1)
    before = np.maximum(after - 1, 0)
    return np.where(wanted - seen[before] <= seen[after] - wanted, before, after).astype(np.int64)


def _is_target(value: Any) -> bool:
    return isinstance(value, str | bool) or _is_number(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
