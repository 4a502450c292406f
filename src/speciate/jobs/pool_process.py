"""The other end of a service pool's pipe: one JSON line in, one JSON line out, inside the cage.

    {"service": "module:function", "payload": {...}}
    {"answer": {...}}  or  {"error": {"code", "message", "recovery", "foreign"}}

Whatever a library prints goes to stderr: the pipe carries answers only. Started as `python -m
speciate.jobs.pool_process WORKSPACE`; it reads the workspace's path for nothing but being found by it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from typing import Any

from speciate.errors import Code, SpeciateError

_PACKAGE = "speciate."


def answer(line: bytes) -> dict[str, Any]:
    """What to write back for one request."""
    try:
        request = json.loads(line)
        module, _, function = request["service"].partition(":")
        if not module.startswith(_PACKAGE):
            raise SpeciateError(Code.REFUSED, f"{request['service']!r} is not a service of this package.")
        return {"answer": getattr(importlib.import_module(module), function)(request["payload"])}
    except SpeciateError as error:
        return _failure(error.code, error.message, error.recovery, error.foreign)
    except MemoryError:
        return _failure(Code.UNAVAILABLE, "This needs more memory than a service process may use.")
    except Exception as error:  # noqa: BLE001 - the border of the process: whatever it is, it goes back as data
        traceback.print_exc()
        return _failure(Code.INTERNAL, f"{type(error).__name__} in a service process.")  # its text may quote data


def _failure(code: Code, message: str, recovery: str = "", foreign: str = "") -> dict[str, Any]:
    return {"error": {"code": code.value, "message": message, "recovery": recovery, "foreign": foreign}}


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        data = memoryview(json.dumps(answer(line)).encode() + b"\n")
        while data:
            data = data[answers.write(data) :]


if __name__ == "__main__":
    main()
