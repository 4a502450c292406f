"""The results that timm's authors publish beside its code: accuracy of each set of weights on ImageNet.

The tables lie in timm's repository and in none of its packages, so a build of the index is told where they are
(`build_index --timm-results FOLDER --of DATE`). Where they are not, what the index before had of them stays.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from speciate.models.search.sources import Entry, Figure

NAME = "timm_results"
_TABLES = {
    "results-imagenet.csv": ("ImageNet-1K", ("acc@1", "acc@5")),
    "results-imagenet-real.csv": ("ImageNet-ReaL", ("acc@1",)),
    "results-imagenetv2-matched-frequency.csv": ("ImageNet-V2", ("acc@1",)),
}
"""File -> the benchmark, and the metrics that are taken from it."""
_COLUMNS = {"acc@1": "top1", "acc@5": "top5"}


class TimmResults:
    """Results of timm. As a source it has nothing to ask: its facts come by a build alone."""

    name, what, package = NAME, "accuracies on ImageNet that timm's authors measured", None

    def installed(self) -> bool:
        return False

    def origin(self) -> str:
        return NAME

    def entries(self) -> Iterator[Entry]:
        return iter(())


TIMM_RESULTS = TimmResults()


class Published(NamedTuple):
    """What timm says of a set of weights."""

    side: int
    """Side of the images that they are published for, in pixels."""
    hub: str | None


def read_results(folder: Path, known: Mapping[str, Published]) -> Iterator[Entry]:
    """An entry for each set of weights of a table. `known`: by their names; others are left out, and of several sides
    of images in a table the published one counts.

    Raises OSError where the main table is not there."""
    found: dict[str, dict[tuple[str, str], float]] = {}
    for file, (benchmark, metrics) in _TABLES.items():
        path = folder / file
        if not path.is_file() and file != next(iter(_TABLES)):
            continue
        with path.open(newline="", encoding="utf-8") as opened:
            for row in csv.DictReader(opened):
                if row["model"] not in known or known[row["model"]].side != int(row["img_size"]):
                    continue
                values = found.setdefault(row["model"], {})
                for metric in metrics:
                    values[benchmark, metric] = float(row[_COLUMNS[metric]])
    for model, values in sorted(found.items()):
        figures = [
            Figure(benchmark=benchmark, metric=metric, value=value) for (benchmark, metric), value in values.items()
        ]
        yield Entry(
            ref=f"timm:{model}", what=model, access="weights", published=tuple(figures), hub=known[model].hub
        )  # fmt: skip
