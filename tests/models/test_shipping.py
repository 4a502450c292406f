"""The shipped table made again."""

from __future__ import annotations

import pytest

from speciate.errors import SpeciateError
from speciate.models import index, shipping, sources
from speciate.models.sources.contract import Packaged


def test_sources_that_are_installed_tell_what_the_shipped_table_holds() -> None:
    names = ["pkg", "open_clip", "segmentation_models", "prices"]
    if not all(sources.find(name).installed() for name in names):
        pytest.skip("the packages are not installed: make install")
    made = shipping.build(index.read(), "2026-11-27", names)
    shipped = {row["hub"] or row["ref"]: row for row in index.read().to_pylist()}
    assert made.num_rows > 2_500
    for row in made.to_pylist():
        known = shipped[row["hub"] or row["ref"]]
        assert set(row["sources"]) <= set(known["sources"])
        assert (known["ref"], known["what"]) == (row["ref"], row["what"]) or len(known["sources"]) > 1


def test_a_table_is_not_made_where_a_source_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Packaged, "installed", lambda self: self.package != "mteb")
    with pytest.raises(SpeciateError, match="not installed: mteb"):
        shipping.build(index.read(), "2026-11-27")
