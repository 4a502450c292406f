"""Fitted estimators as plain arrays in one safetensors file, rebuilt by our own code.

No pickle and nothing like it: a file names one form of the table below and brings its arrays; any other name is
refused. Rebuilt estimators need NumPy only, so a served model imports no training library.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from speciate.errors import Code, SpeciateError
from speciate.models.identity import Identity
from speciate.models.kernel import Kernel
from speciate.models.linear import Linear
from speciate.models.neighbours import Neighbours
from speciate.models.novelty import Distance, Gaussian
from speciate.models.streaming import Streaming
from speciate.models.trees import Trees
from speciate.models.units import NeighboursPerUnit, PerUnit, TreesPerUnit


class Estimator(Protocol):
    """A NamedTuple of arrays."""

    def scores(self, inputs: Any) -> npt.NDArray[Any]:
        """(N, D) -> (N, K): one column per class; one column for two classes (positive: the second) or a number.

        Where an example has several answers: (N,) of arrays.
        """
        ...

    @property
    def parameters(self) -> int:
        """How many numbers were learned."""
        ...


FORMS: dict[str, Any] = {
    "linear": Linear, "kernel": Kernel, "trees": Trees, "neighbours": Neighbours, "identity": Identity,
    "per unit": PerUnit, "neighbours per unit": NeighboursPerUnit, "trees per unit": TreesPerUnit,
    "distance": Distance, "gaussian": Gaussian, "streaming": Streaming,
}  # fmt: skip


def save(estimator: Any, path: Path) -> None:
    form = next(name for name, made in FORMS.items() if type(estimator) is made)
    save_arrays(estimator._asdict(), path, {"form": form})


def load(path: Path) -> Estimator:
    """Raises REFUSED for a form that is not in the table or does not have the form's arrays."""
    arrays, metadata = load_arrays(path)
    form = FORMS.get(metadata.get("form", ""))
    if form is None or set(arrays) != set(form._fields):
        raise SpeciateError(
            Code.REFUSED,
            f"{path.name} holds {metadata.get('form', 'nothing')!r} with {sorted(arrays)}, "
            f"which is none of the estimators that can be rebuilt: {', '.join(FORMS)}.",
            "Train the model again with train_model.",
        )
    estimator: Estimator = form(**arrays)
    return estimator


def save_arrays(arrays: dict[str, npt.NDArray[Any]], path: Path, metadata: dict[str, str]) -> None:
    from safetensors.numpy import save_file

    metadata = metadata or {"arrays": str(len(arrays))}  # a file with neither arrays nor this cannot be read again
    save_file({name: np.array(array, order="C") for name, array in arrays.items()}, path, metadata)


def load_arrays(path: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Arrays and metadata of one safetensors file. Raises REFUSED where it is not one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise SpeciateError(
            Code.REFUSED, f"{path} is not a safetensors file: {error}", "Train the model again with train_model."
        ) from error
