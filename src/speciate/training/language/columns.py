"""Columns that a method for language models needs beside question and answer: refused before there is a job."""

from __future__ import annotations

from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError, closest
from speciate.tasks.preference import REJECTED
from speciate.training.hyperparameters import Parameters
from speciate.training.language.specs import PairParameters, RewardParameters


def check(manifest: Manifest, parameters: Parameters, method: str, target: str | None) -> None:
    """INVALID where one is not there, or is shown to the model."""
    if not isinstance(parameters, PairParameters | RewardParameters):
        return
    fixed = isinstance(parameters, RewardParameters)
    column = REJECTED if isinstance(parameters, RewardParameters) else parameters.rejected
    if column not in manifest.columns:
        raise SpeciateError(
            Code.INVALID,
            f"{method!r} learns from pairs, and {manifest.ref} has no column {column!r} with the worse answers; "
            f"{closest(column, manifest.columns)}",
            "Make one: curate_dataset(steps=[{'op': 'derive', ...}]), or {'op': 'preferences', ...} from judgements."
            if fixed
            else "Call train_model again with hyperparameters={'rejected': COLUMN}, or with method='sft'.",
        )
    if column in manifest.inputs:
        raise SpeciateError(
            Code.INVALID,
            f"The column {column!r} of {manifest.ref} is an input: the model would see the worse answer.",
            "Call create_dataset again with inputs that leave it out.",
        )
