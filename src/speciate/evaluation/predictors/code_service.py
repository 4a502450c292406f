"""The caged half of `code.py`: loads the file, if it still holds the bytes that were named, and calls its function."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speciate.errors import Code, SpeciateError

_ARRAY = "__array__"


def answer(payload: dict[str, Any]) -> dict[str, Any]:
    """`{file, function, identity, inputs}` -> `{answers: [[output, confidence, probabilities], ...]}`."""
    function = _loaded(payload["file"], payload["function"], payload["identity"])
    inputs = [unpacked(each) for each in payload["inputs"]]
    given = function(inputs)
    if not isinstance(given, Sequence | np.ndarray) or len(given) != len(inputs):
        many = len(given) if isinstance(given, Sequence | np.ndarray) else type(given).__name__
        raise SpeciateError(Code.INVALID, f"{payload['function']} returned {many} for {len(inputs)} inputs.")
    return {"answers": [_plain(each) for each in given]}


@functools.lru_cache(maxsize=1)
def _loaded(file: str, function: str, identity: str) -> Callable[[list[Any]], Any]:
    content = Path(file).read_bytes()
    if named(content, function) != identity:
        raise SpeciateError(Code.CONFLICT, f"{Path(file).name} has changed since the evaluation was asked for.")
    space: dict[str, Any] = {"__name__": "speciate_own_code", "__file__": file}
    exec(compile(content, file, "exec"), space)
    found = space.get(function)
    if not callable(found):
        raise SpeciateError(Code.NOT_FOUND, f"{Path(file).name} defines no function {function!r}.")
    return found  # type: ignore[no-any-return]  # called with what it is documented to take


def named(content: bytes, function: str) -> str:
    """What the answers of a function in a file of this content are known by."""
    return f"code-{hashlib.sha256(content + function.encode()).hexdigest()}"


def packed(medium: Any) -> Any:
    """A medium as JSON."""
    if not isinstance(medium, np.ndarray):
        return medium
    data = base64.b64encode(np.ascontiguousarray(medium).tobytes()).decode()
    return {_ARRAY: [str(medium.dtype), list(medium.shape), data]}


def unpacked(value: Any) -> Any:
    if not (isinstance(value, dict) and value.keys() == {_ARRAY}):
        return value
    dtype, shape, data = value[_ARRAY]
    return np.frombuffer(base64.b64decode(data), np.dtype(dtype)).reshape(shape)


def _plain(given: Any) -> list[Any]:
    """Output, confidence and probabilities, as JSON."""
    said = given if isinstance(given, dict) and "output" in given else {"output": given}
    return [_json(said.get(name)) for name in ("output", "confidence", "probabilities")]


def _json(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, dict):
        return {str(name): _json(each) for name, each in value.items()}
    return [_json(each) for each in value] if isinstance(value, list | tuple) else value
