"""How odd: against scikit-learn, dense and sparse, and after a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.covariance import LedoitWolf
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import NearestNeighbors

from speciate.models import estimators
from speciate.models.novelty import from_isolation, gaussian, nearest

RANDOM = np.random.default_rng(0)
LEARNED = RANDOM.normal(size=(200, 6)) @ RANDOM.normal(size=(6, 6))
ASKED = RANDOM.normal(size=(50, 6)) * 3


@pytest.mark.parametrize("form", [np.asarray, csr_array])
def test_distances_are_those_of_the_nearest(form: Any) -> None:
    wanted = NearestNeighbors(n_neighbors=3).fit(LEARNED).kneighbors(ASKED)[0].mean(1)
    assert nearest(form(LEARNED), 3).scores(form(ASKED))[:, 0] == pytest.approx(wanted, abs=1e-6)


def test_few_examples_are_all_neighbours() -> None:
    assert nearest(LEARNED[:2], 5).scores(ASKED).shape == (50, 1)


def test_mahalanobis_is_scikit_learns() -> None:
    wanted = np.sqrt(LedoitWolf().fit(LEARNED).mahalanobis(ASKED))
    assert gaussian(LEARNED).scores(ASKED)[:, 0] == pytest.approx(wanted)


def test_fewer_examples_than_columns_and_columns_that_never_change() -> None:
    wide = np.hstack([RANDOM.normal(size=(5, 20)), np.ones((5, 3))])
    assert np.isfinite(gaussian(wide).scores(wide)).all()
    assert np.isfinite(gaussian(np.ones((4, 3))).scores(np.zeros((2, 3)))).all()


def test_an_isolation_forest_scores_as_scikit_learns() -> None:
    """Which is 2 to the power of minus the mean depth, in units of the usual depth."""
    asked = ASKED.astype(np.float32)
    forest = IsolationForest(n_estimators=50, max_features=0.5, random_state=0).fit(LEARNED.astype(np.float32))
    depth = -from_isolation(forest).scores(asked)[:, 0]
    usual = 2 * (np.log(199) + np.euler_gamma) - 2 * 199 / 200
    assert 2 ** (-depth / usual) == pytest.approx(-forest.score_samples(asked))


@pytest.mark.parametrize("made", [nearest(LEARNED, 3), nearest(csr_array(LEARNED), 3), gaussian(LEARNED)])
def test_what_was_saved_scores_the_same(made: Any, tmp_path: Path) -> None:
    estimators.save(made, tmp_path / "e.safetensors")
    again = estimators.load(tmp_path / "e.safetensors")
    asked = csr_array(ASKED) if len(getattr(made, "starts", ())) else ASKED
    assert (again.scores(asked) == made.scores(asked)).all()
    assert again.parameters == made.parameters
