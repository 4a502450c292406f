"""Slices of stored scores: which columns are worth cutting by, Holm over all of them, repeats averaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speciate.errors import SpeciateError
from speciate.evaluation.multiple_comparisons import holm
from speciate.evaluation.reports.slice_metrics import slices_by_column, slices_by_columns
from speciate.evaluation.statistics import paired_difference
from speciate.workspace.workspace import Workspace
from tests.data import fresh
from tests.evaluation import handmade
from tests.evaluation.handmade import report, row

N = 120
_random = np.random.default_rng(1)
OLD, NEW = (_random.random(N) < 0.6).astype(float), (_random.random(N) < 0.8).astype(float)
SITES = ["north" if i % 2 else None for i in range(N)]


def score(model: str, values: Any, **more: Any) -> list[dict[str, Any]]:
    return [
        {"model": model, "example": f"ex-{i:03}", "metric": "accuracy", "value": float(v)} | more
        for i, v in enumerate(values)
    ]


@pytest.fixture
def asked(tmp_path: Path) -> dict[str, Any]:
    workspace = Workspace(fresh(tmp_path / "w"))
    references = {f"ex-{i:03}": "yes" if i < 80 else "no" for i in range(N)}
    columns = {
        "site": SITES,
        "name": [f"n{i}" for i in range(N)],
        "same": ["x"] * N,
        "said": ["yes"] * 60 + ["no"] * 60,
        "answer": list(references.values()),
    }
    repeated = [
        *score("new", NEW),
        *score("new", 1 - NEW),
        *score("new", NEW),
        *score("new", NEW),
    ]  # a mean of 3/4 or 1/4
    told = report([row("old", 0.6), row("new", 0.8)])
    name = handmade.store(workspace, told, references, [], columns=columns, scores=score("old", OLD) + repeated)
    workspace.close()
    folder = str(tmp_path / "w" / "evaluations" / name)
    return {"folder": folder, "metric": "accuracy", "baseline": "old", "candidate": "new", "but": ["said"]}


def test_only_columns_with_few_frequent_values_are_cut_and_the_reference_comes_first(asked: dict[str, Any]) -> None:
    found = slices_by_columns(asked)
    assert [cut["column"] for cut in found["columns"]] == ["truth", "site"]
    assert {one["value"] for one in found["columns"][1]["slices"]} == {"north", "(empty)"}


def test_repeats_are_averaged_before_they_are_compared(asked: dict[str, Any]) -> None:
    north = np.array([site == "north" for site in SITES])
    expected = paired_difference(OLD[north], (0.25 + NEW / 2)[north], np.arange(int(north.sum())))
    (found,) = [one for one in slices_by_column(asked | {"column": "site"})["slices"] if one["value"] == "north"]
    assert found["delta"] == pytest.approx(expected.delta, abs=1e-6)
    assert found["interval"] == pytest.approx((expected.low, expected.high), abs=1e-5)


def test_holm_is_over_all_columns_together(asked: dict[str, Any]) -> None:
    every = [one for cut in slices_by_columns(asked)["columns"] for one in cut["slices"]]
    assert len(every) == 4
    assert [one["p_holm"] for one in every] == pytest.approx(holm([one["p_value"] for one in every]), abs=1e-6)


def test_a_column_that_is_not_there_is_answered_with_those_that_are(asked: dict[str, Any]) -> None:
    with pytest.raises(SpeciateError, match="site"):
        slices_by_column(asked | {"column": "sites"})
    assert {one["value"] for one in slices_by_column(asked | {"column": "label"})["slices"]} == {"yes", "no"}
