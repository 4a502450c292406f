"""Services in a sandboxed process: functions of this package that are named by question.

    ask: {"service": "module:function", "payload": {...}}
    ->  {"answer": {...}}  or  {"error": {"code", "message", "recovery", "foreign"}}

Started as `python -m speciate.jobs.pool_process WORKSPACE`. The path is read by people who look for the process.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Mapping
from typing import Any, TypedDict

from speciate.errors import Code, SpeciateError
from speciate.sandbox.serve import serve

_PACKAGE = "speciate."


class ServiceQuestion(TypedDict):
    service: str
    """`module:function` of this package."""
    payload: Mapping[str, Any]


class ServiceFailure(TypedDict):
    """A SpeciateError as JSON."""

    code: str
    message: str
    recovery: str
    foreign: str


class ServiceReply(TypedDict, total=False):
    """Either of them."""

    answer: Mapping[str, object]
    error: ServiceFailure


class Services:
    def open(self, loading: None) -> None:
        """Nothing to load."""

    def answer(self, question: ServiceQuestion) -> ServiceReply:
        """A SpeciateError as it was raised. The text of another exception may quote data, so its type alone goes back
        and the rest to standard error."""
        try:
            module, _, function = question["service"].partition(":")
            if not module.startswith(_PACKAGE):
                raise SpeciateError(Code.REFUSED, f"{question['service']!r} is not a service of this package.")
            return {"answer": getattr(importlib.import_module(module), function)(question["payload"])}
        except SpeciateError as error:
            return _failure(error.code, error.message, error.recovery, error.foreign)
        except MemoryError:
            return _failure(Code.UNAVAILABLE, "This needs more memory than a service process may use.")
        except Exception as error:  # noqa: BLE001 - the border of the process: whatever it is, it goes back as data
            traceback.print_exc()
            return _failure(Code.INTERNAL, f"{type(error).__name__} in a service process.")


def _failure(code: Code, message: str, recovery: str = "", foreign: str = "") -> ServiceReply:
    return {"error": {"code": code.value, "message": message, "recovery": recovery, "foreign": foreign}}


if __name__ == "__main__":
    serve(Services())
