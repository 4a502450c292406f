"""Kind `train`, but that a checkpoint is written before every step: tiny trainings have something to go on from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from speciate.jobs.kinds import Plan
from speciate.jobs.run import Run
from speciate.training import train, train_run
from speciate.training.networks import durable_training, successive_halving
from speciate.training.train_spec import TrainSpec
from speciate.workspace.workspace import Workspace


def run(run: Run) -> dict[str, Any]:
    durable_training._SAVE_SHARE = 0
    for function in (durable_training.train_durably, successive_halving.search):
        function.__kwdefaults__["save_seconds"] = 0.0
    return train_run.run(run)


def _two(spec: TrainSpec, workspace: Workspace) -> Plan:
    plan = train.plan(spec, workspace)
    return plan.model_copy(update={"payload": {**plan.payload_json(), "processes": 2}})


KIND = replace(train.KIND, name="train-saving-each-step", run=f"{Path(__file__).resolve()}:run")
BY_TWO = replace(KIND, name="train-by-two", plan=_two)
"""And that two processes train together."""
