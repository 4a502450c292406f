"""Rebuilds the shipped table of published models from the packages that name them.

    python -m speciate.models.search.build_index [--timm-results FOLDER --of DATE]     (make known-models)

All sources but the hub must be installed: without one the table would silently lose its models. The hub is left to each
workspace's own refresh, as its list changes by the hour. timm's networks are counted on torch's device
`meta`, only new ones: all take minutes. Accuracies that timm's authors measured lie in a folder of its repository, of a
date; where none is named, those of the table before stay.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from speciate.errors import Code, SpeciateError
from speciate.models.search import index, package_sources, sources, timm_results
from speciate.models.search.index import SourceListing
from speciate.models.search.sources import Entry, Figure

_NOT_SHIPPED = ("hub", timm_results.NAME)


class Results(NamedTuple):
    """A folder of timm's results."""

    folder: Path
    date: str


def build(before: pa.Table, date: str, names: Sequence[str] | None = None, results: Results | None = None) -> pa.Table:
    """The entries of all sources, on `date` (ISO); sizes that `before` has are kept, and without `results` timm's
    accuracies, too. Raises MISSING_EXTRA if a source is not installed."""
    names = names or [name for name in sources.SOURCES if name not in _NOT_SHIPPED]
    lacking = [str(sources.find(name).package) for name in names if not sources.find(name).installed()]
    if lacking:
        raise SpeciateError(
            Code.MISSING_EXTRA,
            f"The table would lose the models of these packages, which are not installed: {', '.join(lacking)}.",
            "Run: make install",
        )
    sizes = index.known_sizes(before)
    if "timm" in names:
        sizes |= dict(package_sources.timm_parameters(sizes))
    listings = list(index.list_sources(names, date))
    if results is not None:
        published = list(timm_results.read_results(results.folder, package_sources.timm_published()))
        listings.append(SourceListing(timm_results.NAME, f"{timm_results.NAME} {results.date}", date, published))
    else:
        listings += _earlier_results(before)
    return index.merge(listings, sizes)


def _earlier_results(before: pa.Table) -> list[SourceListing]:
    """timm's results that a table has, by the days of their tables and of their reading."""
    found: dict[str, list[Entry]] = {}
    for row in before.to_pylist():
        told = dict(row["origins"]).get("published", "")
        if told.startswith(timm_results.NAME):
            published = tuple(Figure(**each) for each in row["published"])
            entry = Entry(ref=row["ref"], what=row["what"], access="weights", published=published, hub=row["hub"])
            found.setdefault(told, []).append(entry)
    listings = []
    for told, entries in sorted(found.items()):
        origin, date = told.split(", ")
        listings.append(SourceListing(timm_results.NAME, origin, date, entries))
    return listings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timm-results", type=Path, help="the folder 'results' of timm's repository")
    parser.add_argument("--of", help="the day of these results, such as 2025-10-30")
    given = parser.parse_args()
    if (given.timm_results is None) != (given.of is None):
        parser.error("--timm-results and --of belong together")
    before = index.read()
    results = Results(given.timm_results, given.of) if given.timm_results else None
    try:
        made = build(before, time.strftime("%Y-%m-%d", time.gmtime()), results=results)
    except SpeciateError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    index.write(made, index.SHIPPED)
    old, new = _by_source(before), _by_source(made)
    for name in sorted(old | new):
        sys.stdout.write(f"{name:24} {old[name]:6,} -> {new[name]:6,}\n")
    gone = sorted(set(before["ref"].to_pylist()) - set(made["ref"].to_pylist()))
    sys.stdout.write(f"{'all':24} {before.num_rows:6,} -> {made.num_rows:6,}; {len(gone)} gone {gone[:10]}\n")
    return 0


def _by_source(table: pa.Table) -> Counter[str]:
    return Counter(name for names in table["sources"].to_pylist() for name in names)


if __name__ == "__main__":
    sys.exit(main())
