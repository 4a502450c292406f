"""Rebuilds the shipped table of published models from the packages that name them.

    python -m speciate.models.search.build_index     (make known-models)

All sources but the hub must be installed: without one the table would silently lose its models. The hub is left to each
workspace's own refresh, as its list changes by the hour. timm's networks are counted on torch's device
`meta`, only new ones: all take minutes.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from speciate.errors import Code, SpeciateError
from speciate.models.search import index, package_sources, sources

_NOT_SHIPPED = ("hub",)


def build(before: pa.Table, date: str, names: Sequence[str] | None = None) -> pa.Table:
    """The entries of all sources, on `date` (ISO); sizes that `before` has are kept. Raises MISSING_EXTRA if a source
    is not installed."""
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
    return index.merge(index.list_sources(names, date), sizes)


def main() -> int:
    before = index.read()
    try:
        made = build(before, time.strftime("%Y-%m-%d", time.gmtime()))
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
