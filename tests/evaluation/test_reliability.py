"""The bins of confidence are scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from speciate.evaluation.reliability import calibrated
from speciate.evaluation.statistics import Floats
from speciate.workspace.workspace import Workspace
from tests.evaluation import handmade
from tests.evaluation.handmade import answer, report, row


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Floats, Floats]:
    root = tmp_path_factory.mktemp("w")
    random = np.random.default_rng(3)
    sure = np.concatenate([random.uniform(0, 1, 500), [0.0, 0.1, 0.3, 1.0]])  # ends and edges of bins, too
    right = random.random(sure.size) < sure
    truths = {f"ex-{i}": "yes" for i in range(sure.size)}
    said = [
        answer("m@v1", f"ex-{i}", "yes" if r else "no", confidence=float(c))
        for i, (c, r) in enumerate(zip(sure, right, strict=True))
    ]
    said += [answer("silent@v1", one, "yes") for one in truths]
    workspace = Workspace(root / "w")
    name = handmade.store(workspace, report([row("m@v1", 0.5), row("silent@v1", 1.0)]), truths, said)
    workspace.close()
    asked = {"folder": str(root / "w" / "evaluations" / name), "metric": "accuracy", "models": ["m@v1", "silent@v1"]}
    return asked, sure, right


def test_bins_are_those_of_scikit_learn(world: tuple[dict[str, Any], Floats, Floats]) -> None:
    asked, sure, right = world
    found = calibrated(asked)["models"][0]
    share, stated = calibration_curve(right, sure, n_bins=10)
    assert [one[4] for one in found["bins"]] == pytest.approx(share, abs=1e-4)
    assert [one[3] for one in found["bins"]] == pytest.approx(stated, abs=1e-4)
    assert sum(one[2] for one in found["bins"]) == found["n"] == sure.size


def test_the_expected_error_weighs_each_bin_by_its_answers(
    world: tuple[dict[str, Any], Floats, Floats],
) -> None:
    asked, sure, _ = world
    found = calibrated(asked)["models"][0]
    expected = sum(count * abs(accuracy - stated) for _, _, count, stated, accuracy in found["bins"]) / sure.size
    assert found["error"] == pytest.approx(expected, abs=1e-3)


def test_a_model_without_confidence_has_no_bins(world: tuple[dict[str, Any], Floats, Floats]) -> None:
    asked, sure, _ = world
    silent = calibrated(asked)["models"][1]
    assert (silent["n"], silent["without"], silent["error"], silent["bins"]) == (0, sure.size, None, [])
    assert calibrated(asked | {"metric": "mae"}) == {"models": []}
