"""Gap analysis: planted weaknesses are found and equal groups are not, and it is reached by a tool and a resource."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from speciate.errors import SpeciateError
from speciate.jobs.engine import Engine
from speciate.jobs.pool import Pool
from speciate.loop import gap_analysis, gaps
from speciate.loop.gap_analysis import Group, cluster, compare, needed, of_classes, of_clusters, of_column
from speciate.promotion import aliases
from speciate.resources.monitoring import gaps as gaps_resource
from speciate.server.tool_api import App
from speciate.tools.evaluation import describe_evaluation
from speciate.workspace.workspace import Workspace
from tests.evaluation import world


def test_a_planted_weakness_comes_first_with_what_would_mend_it() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(["cat", "dog", "owl"], 600)
    failed = (rng.random(600) < np.where(labels == "owl", 0.4, 0.05)).astype(float)
    [first, *others] = compare(failed, of_classes(labels.tolist(), {"cat": 300, "dog": 300, "owl": 40}))
    assert (first.kind, first.value, first.trained) == ("class", "owl", 40)
    assert first.p_holm < 1e-6
    assert first.interval[0] < 0.4 < first.interval[1]
    assert first.needed == 9 * 40 or first.needed == needed(first.rate, first.rest, 40)
    assert all(each.p_holm > 0.05 for each in others)


def test_equal_groups_are_seldom_called_gaps() -> None:
    false = 0
    for seed in range(200):
        rng = np.random.default_rng([seed, 9])
        failed = (rng.random(200) < 0.2).astype(float)
        groups = [*of_column("site", rng.choice(list("abcdef"), 200).tolist(), None),
                  *of_column("age", [str(each) for each in rng.normal(size=200)], None)]  # fmt: skip
        false += any(each.p_holm < 0.05 for each in compare(failed, groups))
    assert false <= 15  # of 200 at 5 %


def test_examples_of_one_patient_are_no_independent_ones() -> None:
    units = np.repeat(np.arange(20), 10)
    failed = np.repeat((np.arange(20) < 4).astype(float), 10)
    group = [Group("value", "site", "a", np.repeat(np.arange(20) < 8, 10), None)]
    [alone], [together] = compare(failed, group), compare(failed, group, units)
    assert alone.p < 1e-9 < 0.001 < together.p
    assert together.interval[0] < alone.interval[0]


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_the_exact_test_is_fishers(n: int, m: int, data: st.DataObject) -> None:
    bad, others = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    expected = stats.fisher_exact([[bad, n - bad], [others, m - others]], alternative="greater").pvalue
    assert gap_analysis._fisher(bad, n, others, m) == pytest.approx(expected, abs=1e-9)


@given(st.floats(0, 1), st.floats(0, 1), st.one_of(st.none(), st.integers(0, 10_000)))
def test_what_is_needed_is_sane(rate: float, other: float, trained: int | None) -> None:
    found = needed(rate, other, trained)
    assert found is None or (rate > other and trained is not None and 0 < found <= 9 * trained + 1)
    assert 0 <= gap_analysis.gain(rate, 0.5, trained) <= 0.5


def test_columns_become_values_or_thirds_or_nothing() -> None:
    numbers = [str(each) for each in range(90)]
    assert [each.value for each in of_column("age", numbers, numbers)] == ["low", "middle", "high"]
    assert [each.trained for each in of_column("age", numbers, numbers)] == [30, 30, 30]
    assert of_column("name", [f"person {each}" for each in range(90)], None) == []
    assert {each.value for each in of_column("site", ["n", "s"] * 20, None)} == {"n", "s"}
    assert of_column("site", ["n"] * 40, None) == []
    assert len(of_column("age", ["", *numbers], None)) == 3


def test_clusters_are_what_lies_together() -> None:
    rng = np.random.default_rng(1)
    rows = np.concatenate([rng.normal(size=(60, 3)), rng.normal(size=(60, 3)) + 20]).astype(np.float32)
    found = cluster(rows)
    assert all(len(set((found.own[:60] == k).tolist())) == 1 or not (found.own[60:] == k).any() for k in range(3))
    assert sum(int(each.members.sum()) for each in of_clusters(found, None)) == 120
    assert len(cluster(np.ones((20, 2), np.float32)).own) == 20  # all alike


@pytest.fixture
def app(flowers: Workspace) -> Iterator[App]:
    pool = Pool(flowers.folders, flowers.settings, size=1)
    yield App(flowers, Engine(flowers), pool)
    pool.close()


@pytest.fixture
def flowers(workspace: Workspace) -> Workspace:
    world.make_dataset(workspace)
    world.define(workspace)
    world.train_model(workspace)
    return workspace


def test_gaps_are_reached_by_the_tool_the_resource_and_a_page(app: App) -> None:
    workspace = app.workspace
    with pytest.raises(SpeciateError, match="Nothing serves"):
        gaps_resource(app, "flowering")
    made = world.evaluate_models(workspace, models=["column:rules", "points"], use_case="flowering", latency=False)
    view, *_ = describe_evaluation(app, made["evaluation"], show=["gaps"])
    assert view.gaps is not None
    value = next(each.value for each in view.leaderboard if each.model == "points@v1")
    assert (view.gaps.model, view.gaps.n, view.gaps.failed) == ("points@v1", 200, round(200 * (1 - value)))
    assert view.gaps.failed > 5
    worst = view.gaps.untrusted[:3]
    assert {each.kind for each in worst} == {"cluster", "number"}  # between the two clouds
    assert all(each.rate > each.rest and each.trained and each.needed and each.examples for each in worst)
    assert describe_evaluation(app, made["evaluation"])[0].gaps is None
    workspace.database.transact(
        lambda tx: aliases.move(
            tx, use_case="flowering", model="points@v1", expected=None, action="promote", actor="ada", evidence={}
        )
    )
    found = gaps_resource(app, "flowering", page=True)
    assert [each.key for each in found.untrusted] == [each.key for each in view.gaps.untrusted]
    text = (workspace.folders.root / str(found.page)).read_text()
    assert "cluster" in text
    assert "data-untrusted" in text
    assert gaps.find_gaps(workspace, app.pool, made["evaluation"], model="column:rules").failed > 40
