"""The caged half of `code.py`: one JSON line with the file's text, then one for each chunk of inputs.

    {"source", "function", "name"}  ->  {} or {"error"}
    {"inputs": [...]}               ->  {"answers": [[output, confidence, probabilities], ...]} or {"error"}

What the code prints goes to stderr: the pipe carries answers only.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

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


def load(question: dict[str, Any]) -> Callable[[list[Any]], Any]:
    """The function that the text defines."""
    space: dict[str, Any] = {"__name__": "speciate_own_code", "__file__": question["name"]}
    exec(compile(question["source"], question["name"], "exec"), space)
    found = space.get(question["function"])
    if not callable(found):
        raise TypeError(f"{question['name']} defines no function {question['function']}")
    return found  # type: ignore[no-any-return]  # called with what it is documented to take


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


def main() -> None:
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    function: Callable[[list[Any]], Any] | None = None
    for line in sys.stdin.buffer:
        question = json.loads(line)
        try:
            if "source" in question:
                function, told = load(question), dict[str, Any]()
            else:
                assert function is not None, "the text comes first"
                told = {"answers": answers(function, question["inputs"])}
            said = json.dumps(told)
        except Exception as error:  # noqa: BLE001 - others' code may fail in any way; it goes back as data
            said = json.dumps({"error": f"{type(error).__name__}: {error}"[:1000]})
        pipe.write(said.encode() + b"\n")
        pipe.flush()


if __name__ == "__main__":
    main()
