"""Simulators in which a model can act: small ones of our own, and those of gymnasium where it is installed.

A new one is a file beside these and a line in the table. Its interface is gymnasium's, with `seed` always given, and
`info["is_success"]` at the end.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Protocol, TypedDict

import numpy.typing as npt

from speciate.errors import Code, SpeciateError, unknown
from speciate.modalities.contract import Pixels, Vector


class Info(TypedDict, total=False):
    """What an environment of ours says beside what is measured."""

    is_success: bool
    """Whether the episode is a success at its end."""


class Environment(Protocol):
    """The same seed and the same actions give the same episode."""

    def reset(self, *, seed: int) -> tuple[Vector, Info]:
        """Begins an episode. Returns the first measurement, (S,), and info."""
        ...

    def step(self, action: npt.ArrayLike) -> tuple[Vector, float, bool, bool, Info]:
        """`action`: (A,). What is measured then, the reward, whether it has ended, whether it was cut off, and info."""
        ...

    def render(self) -> Pixels | None:
        """(h, w, 3): what a camera sees; None where there is none."""
        ...

    def close(self) -> None: ...


ENVIRONMENTS = {
    "reach": "speciate.evaluation.environments.reach:Reach",
    "reach-by-sight": "speciate.evaluation.environments.reach:ReachBySight",
}
"""Name -> "module:class"."""
GYMNASIUM = "gymnasium:"
"""Begins the names of gymnasium's, such as `gymnasium:Pendulum-v1`."""
CAMERA = "top"
"""What the camera of all of them is called."""


def is_ours(name: str) -> bool:
    return name in ENVIRONMENTS


def check_environment(name: str) -> None:
    """NOT_FOUND or MISSING_EXTRA where there is none of this name, as far as that is known without making it."""
    if name.startswith(GYMNASIUM):
        if importlib.util.find_spec("gymnasium") is None:
            raise SpeciateError(
                Code.MISSING_EXTRA,
                f"The environment {name[:80]!r} needs gymnasium, which is not installed.",
                "Run: pip install 'speciate[simulators]'",
            )
    elif name not in ENVIRONMENTS:
        raise unknown(
            "environment", name[:80], ENVIRONMENTS,
            f"The column `environment` names one of these, or one of gymnasium as in '{GYMNASIUM}Pendulum-v1'.",
        )  # fmt: skip


def make_environment(name: str) -> Environment:
    """Makes one of our environments."""
    module, _, made = ENVIRONMENTS[name].partition(":")
    environment: Environment = getattr(importlib.import_module(module), made)()
    return environment
