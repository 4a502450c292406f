"""Steps as a caller writes them, made sense of: each an operation with its parameters, or one clear error."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from speciate.datasets import operations
from speciate.datasets.operations.contract import Operation, Others, Reference
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError, unknown

_EXTRAS = {"sklearn": "classical", "cleanlab": "curate", "pydicom": "medical", "scipy": "medical"}

Resolve = Callable[[Reference, str | None], str | None]
"""What a parameter names and how -> its full name; None for an extractor is the modality's own."""


class Step(NamedTuple):
    number: int
    """From 1."""
    operation: Operation
    parameters: BaseModel

    def __str__(self) -> str:
        return f"Step {self.number} ({self.operation.name})"

    def written(self) -> dict[str, Any]:
        """As it may be called for again."""
        return {"op": self.operation.name, **self.parameters.model_dump(mode="json", exclude_none=True)}

    def blamed(self, error: SpeciateError) -> SpeciateError:
        return SpeciateError(error.code, f"{self}: {error.message}", error.recovery, error.foreign)


def parse(written: Sequence[Mapping[str, Any]]) -> list[Step]:
    """NOT_FOUND for an unknown operation or parameter, INVALID for a wrong value, MISSING_EXTRA for what it needs."""
    return [_parse(number, dict(step)) for number, step in enumerate(written, 1)]


def resolved(steps: Sequence[Step], resolve: Resolve) -> list[Step]:
    """With the full names of all that parameters refer to."""
    return [_resolved(step, resolve) for step in steps]


def foresee(steps: Sequence[Step], manifest: Manifest, others: Others) -> int:
    """Raises what can be known to go wrong; of how many steps it is known, as what a step makes may not be."""
    known: Manifest | None = manifest
    for step in steps:
        if known is None:
            return step.number - 1
        known = foreseen(step, known, others)
    return len(steps)


def foreseen(step: Step, manifest: Manifest, others: Others) -> Manifest | None:
    try:
        return step.operation.foresee(step.parameters, manifest, others)
    except SpeciateError as error:
        raise step.blamed(error) from error


def needs(operation: Operation) -> tuple[str, ...]:
    """How to install what it lacks."""
    lacking = [name for name in operation.needs if importlib.util.find_spec(name) is None]
    extras = dict.fromkeys(_EXTRAS.get(name) for name in lacking)
    return tuple(f"pip install 'speciate[{extra}]'" if extra else f"pip install {lacking[0]}" for extra in extras)


def _parse(number: int, written: dict[str, Any]) -> Step:
    name = written.pop("op", None)
    if not isinstance(name, str):
        raise SpeciateError(
            Code.INVALID,
            f"Step {number} has no op.",
            f"Name one of: {', '.join(sorted(operations.table()))}; list_options(kind='operation') says what they do.",
        )
    operation = operations.find(name)
    form = operation.parameters
    how = f"Call list_options(kind='operation', name={name!r}) for its parameters."
    for key in written:
        if key not in form.model_fields:
            error = unknown(f"parameter of {name}", key, form.model_fields, how)
            raise SpeciateError(Code.INVALID, f"Step {number}: {error.message}", how)
    try:
        step = Step(number, operation, form.model_validate(written))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        said = f"{place}: {first['msg']}" if place else first["msg"].removeprefix("Value error, ")
        raise SpeciateError(Code.INVALID, f"Step {number} ({name}): {said}.", how) from error
    if lacking := needs(operation):
        raise SpeciateError(Code.MISSING_EXTRA, f"{step} needs a library that is not installed.", f"Run: {lacking[0]}")
    return step


def _resolved(step: Step, resolve: Resolve) -> Step:
    names: dict[str, str | None] = {}
    for parameter, kind in step.operation.refers.items():
        try:
            names[parameter] = resolve(kind, getattr(step.parameters, parameter))
        except SpeciateError as error:
            raise step.blamed(error) from error
    return step._replace(parameters=step.parameters.model_copy(update=names))
