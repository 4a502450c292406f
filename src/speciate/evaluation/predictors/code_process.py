"""The sandboxed half of `code.py`: a function in somebody's file, called with a chunk of inputs.

open: {"source", "function", "name"}    ask: [packed input, ...]  ->  [[output, confidence, probabilities], ...]
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from speciate.sandbox.serve import serve
from speciate.sandbox.user_code_process import LoadedFunction

_ARRAY = "__array__"


def code_identity(content: bytes, function: str) -> str:
    """What the answers of a function in a file of this content are known by."""
    return f"code-{hashlib.sha256(content + function.encode()).hexdigest()}"


def pack(medium: Any) -> Any:
    """A medium as JSON."""
    if isinstance(medium, dict):
        return {name: pack(part) for name, part in medium.items()}
    if not isinstance(medium, np.ndarray):
        return medium
    data = base64.b64encode(np.ascontiguousarray(medium).tobytes()).decode()
    return {_ARRAY: [str(medium.dtype), list(medium.shape), data]}


def unpack(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() != {_ARRAY}:
        return {name: unpack(part) for name, part in value.items()}
    if not isinstance(value, dict):
        return value
    dtype, shape, data = value[_ARRAY]
    return np.frombuffer(base64.b64decode(data), np.dtype(dtype)).reshape(shape)


class Candidate(LoadedFunction):
    def answer(self, question: Sequence[Any]) -> list[list[Any]]:
        return answers(self.function, question)


def answers(function: Callable[[list[Any]], Any], packed_inputs: Sequence[Any]) -> list[list[Any]]:
    inputs = [unpack(each) for each in packed_inputs]
    given = function(inputs)
    if not isinstance(given, Sequence | np.ndarray) or isinstance(given, str) or len(given) != len(inputs):
        many = len(given) if isinstance(given, Sequence | np.ndarray) else type(given).__name__
        raise ValueError(f"it returned {many} for {len(inputs)} inputs; it takes a list and returns one as long")
    return [_answer_row(each) for each in given]


def _answer_row(given: Any) -> list[Any]:
    """Output, confidence and probabilities, as JSON."""
    said = given if isinstance(given, dict) and "output" in given else {"output": given}
    return [_json(said.get(name)) for name in ("output", "confidence", "probabilities")]


def _json(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, dict):
        return {str(name): _json(each) for name, each in value.items()}
    return [_json(each) for each in value] if isinstance(value, list | tuple) else value


if __name__ == "__main__":
    serve(Candidate())
