"""What a plan reads of the rows that a training would learn from."""

from __future__ import annotations

import numpy as np
import pytest

from speciate.datasets.versions import Manifest
from speciate.errors import SpeciateError
from speciate.tasks.task import TaskTerms
from speciate.training.hyperparameters import ClassicalParameters
from speciate.training.planning import target_checks
from speciate.vocabulary import find_task
from speciate.workspace.workspace import Workspace
from tests import data


def ingested(workspace: Workspace, *, channels: bool) -> Manifest:
    drawn = np.random.default_rng(0).normal(size=(3, 40)).tolist()
    rows = tuple({"values": [one, one] if channels else one} for one in drawn)
    return data.ingest(workspace, "waves", rows=rows, inputs=("values",), modality="time-series")


def checked(workspace: Workspace, manifest: Manifest, horizon: int) -> tuple[str, ...]:
    task, terms = find_task("time-series-forecasting"), TaskTerms(horizon=horizon)
    return target_checks.check_targets(workspace.folders, manifest, None, task, terms, ClassicalParameters())


@pytest.mark.parametrize("channels", [False, True])
def test_a_series_is_as_long_as_its_steps_not_as_its_channels(workspace: Workspace, channels: bool) -> None:
    manifest = ingested(workspace, channels=channels)
    assert checked(workspace, manifest, horizon=8) == ()
    with pytest.raises(SpeciateError, match="No series of the training split"):
        checked(workspace, manifest, horizon=20)


def test_series_that_are_much_to_read_are_left_to_the_run(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target_checks, "_MOST_BYTES", 100)
    told = checked(workspace, ingested(workspace, channels=False), horizon=20)
    assert told == ("Whether the series are long enough for the horizon.",)
