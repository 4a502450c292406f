"""The process's random generators lent to one training: whatever else draws from them, it sees its own sequence.

Dropout draws from torch's generator; some models of transformers draw masks from numpy's or Python's. None of them can
be handed a generator of its own."""

from __future__ import annotations

import base64
import random
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


RandomState = dict[str, Any]
"""JSON."""

_FILL = "fill_uninitialized_memory"  # by name: torch's types do not have it


class RandomStates:
    """A context manager, which may be entered again while it is. Between two uses it keeps its state.

    While entered on a CPU, torch uses deterministic algorithms where it has them.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._device, self._depth = device, 0
        outside = _capture(device)
        _seed(seed)
        self._own = _capture(device)
        _restore(outside, device)
        self._outside: RandomState = {}

    def __enter__(self) -> RandomStates:
        if not self._depth:
            self._outside, self._strict = _capture(self._device), _strictness()
            if self._device.type == "cpu":
                _set_strictness((True, True, False))  # filling costs time, and every value is written anyway
            _restore(self._own, self._device)
        self._depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if not self._depth:
            self._own = _capture(self._device)
            _restore(self._outside, self._device)
            _set_strictness(self._strict)

    def begin(self, seed: int) -> None:
        """Draw anew from here on."""
        with self:
            _seed(seed)

    @property
    def state(self) -> RandomState:
        return _capture(self._device) if self._depth else self._own

    @state.setter
    def state(self, state: RandomState) -> None:
        self._own = state
        if self._depth:
            _restore(state, self._device)


def _strictness() -> tuple[bool, bool, bool]:
    """Whether torch prefers deterministic algorithms, only warns without one, and fills new memory."""
    import torch

    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    fills = bool(getattr(torch.utils.deterministic, _FILL))
    return torch.are_deterministic_algorithms_enabled(), warns, fills


def _set_strictness(strictness: tuple[bool, bool, bool]) -> None:
    import torch

    torch.use_deterministic_algorithms(strictness[0], warn_only=strictness[1])
    setattr(torch.utils.deterministic, _FILL, strictness[2])


def _seed(seed: int) -> None:
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _capture(device: torch.device) -> RandomState:
    import torch

    version, numbers, gauss = random.getstate()
    words = np.random.get_state(legacy=False)
    state = {
        "python": [version, list(numbers), gauss],
        "numpy": words | {"state": words["state"] | {"key": words["state"]["key"].tolist()}},
        "torch": _text(torch.get_rng_state()),
    }
    if device.type == "cuda":
        state["cuda"] = _text(torch.cuda.get_rng_state(device))
    return state


def _restore(state: RandomState, device: torch.device) -> None:
    import torch

    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    words = state["numpy"]
    np.random.set_state(words | {"state": words["state"] | {"key": np.array(words["state"]["key"], np.uint32)}})
    torch.set_rng_state(_bytes(state["torch"]))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(_bytes(state["cuda"]), device)


def _text(state: torch.Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _bytes(text: str) -> torch.Tensor:
    import torch

    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
