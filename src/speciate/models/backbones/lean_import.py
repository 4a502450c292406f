"""Import transformers' networks without libraries that an answer of ours never uses, although they are installed.

With every network transformers imports torchvision (for its image processors), scipy (for the losses of detectors),
boto3 (by accelerate, for another cloud's settings), the tensors of torch that are spread over machines, and torch's
compiler (for decorators of kernels), which brings sympy: 1,700 modules, 1.2 CPU seconds and 115 MB before the first
answer. All of them can still be imported later, and an optimizer imports the compiler. Code that needs an image
processor of transformers, or the loss of a detector, needs a process that has imported transformers whole: a fork of
one that has (`jobs/zygote.py`), or one that `import_whole` was called in first.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

_COMPILER = "torch._dynamo"
_NETWORKS = ("transformers.modeling_utils", "transformers.masking_utils")


_is_whole = False
_replacing = threading.RLock()
"""One thread at a time replaces functions of others: a second one would take replacements for what to put back."""


def import_whole() -> None:
    """From now on this process leaves nothing out. Nothing is imported yet."""
    global _is_whole  # noqa: PLW0603 - of the process, as what it has imported is
    with _replacing:
        _is_whole = True


def hide_libraries() -> None:
    """Before anything of transformers that asks for them: it asks once for each, and remembers the answer. Where its
    networks have been imported whole, as in the process that forks trainings, they stay so."""
    with _replacing:
        if _NETWORKS[0] not in sys.modules and not _is_whole:
            with _hidden("torchvision", "scipy"):
                _ask_anew("is_torchvision_available", "is_torchvision_v2_available", "is_scipy_available")


def import_networks() -> None:
    """What all networks of transformers rest on, unless it has been imported. Where a version of transformers takes
    more than decorators from the compiler, it is left to the first network, which imports it whole."""
    with _replacing:
        if _NETWORKS[0] in sys.modules or _is_whole:
            return
        hide_libraries()
        _hide_distributed()
        with contextlib.suppress(Exception), _hidden("boto3"), _decorators_alone():
            for module in _NETWORKS:
                importlib.import_module(module)


def _hide_distributed() -> None:
    """As of a torch that was built without it. torch itself has it."""
    import torch

    available = torch.distributed.is_available
    torch.distributed.is_available = lambda: False
    try:
        _ask_anew("is_torch_distributed_available")
    finally:
        torch.distributed.is_available = available


def _ask_anew(*names: str) -> None:
    """Whether libraries are there, by functions of transformers that remember it. One that a version does not have, or
    that remembers nothing, costs what it would have saved."""
    from transformers.utils import import_utils

    for name in names:
        ask: Any = getattr(import_utils, name, None)
        if hasattr(ask, "cache_clear"):
            ask.cache_clear()
            ask()


@contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Who looks whether these packages are installed finds none. Who imports them does."""
    find = importlib.util.find_spec

    def found(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in names else find(name, package)

    importlib.util.find_spec = found
    try:
        yield
    finally:
        importlib.util.find_spec = find


@contextmanager
def _decorators_alone() -> Iterator[None]:
    """Who takes a decorator from torch's compiler gets one that changes nothing: it would only tell the compiler how to
    treat the function, and nothing of ours is compiled. Modules of the compiler that are imported by name are its
    own. Nothing is left of this afterwards."""
    import torch

    if _COMPILER in sys.modules:
        yield
        return
    stand_in = ModuleType(_COMPILER)
    stand_in.__path__ = [str(Path(torch.__file__).with_name("_dynamo"))]
    stand_in.allow_in_graph = stand_in.assume_constant_result = _unchanged  # type: ignore[attr-defined]
    stand_in.disable = _not_disabled  # type: ignore[attr-defined]
    sys.modules[_COMPILER] = torch._dynamo = stand_in
    try:
        yield
    finally:
        del sys.modules[_COMPILER], torch._dynamo


def _unchanged(function: Any) -> Any:
    return function


def _not_disabled(fn: Any = None, *given: object, **options: object) -> Any | Callable[[Any], Any]:
    """As `torch.compiler.disable`, which is called with a function or with options alone."""
    return _unchanged if fn is None else fn
