"""Several episodes of one environment side by side: ours here, others' in a sandbox that reads nothing of the workspace
(simulators_process.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from speciate.errors import Code, SpeciateError
from speciate.evaluation import environments
from speciate.evaluation.environments import Environment
from speciate.evaluation.environments.simulators_process import Actions, Beginning
from speciate.jobs.pool import ServiceAnswer
from speciate.modalities.contract import Pixels, Vector
from speciate.sandbox import SandboxPolicy
from speciate.sandbox.client import AnswerTimeout, ProcessDied, RemoteError, SandboxClient

_MODULE = "speciate.evaluation.environments.simulators_process"
_START_SECONDS, _STEP_SECONDS = 120.0, 60.0


class Step(NamedTuple):
    seen: Vector  # (S,)
    frame: Pixels | None
    reward: float
    ended: bool
    success: bool


class Simulators(Protocol):
    def begin(self, seeds: Sequence[int]) -> list[Step]:
        """All episodes at their first step."""
        ...

    def step(self, actions: Sequence[Vector | None]) -> list[Step | None]:
        """One step of each; None: it has ended."""
        ...


@contextmanager
def open_simulators(name: str, folder: Path, policy: SandboxPolicy, *, look: bool) -> Iterator[Simulators]:
    """Simulators of an environment that `environments.check` passed.

    `look`: whether they may render images; only our own environments. `folder`: where a sandbox may make its scratch
    folder. INVALID where the environment does not work, UNAVAILABLE where this kernel has no sandbox.
    """
    if environments.is_ours(name):
        yield _InProcessSimulators(name, look)
        return
    client = SandboxClient(_MODULE, folder, policy)
    try:
        yield _SandboxedSimulators(name, client)
    finally:
        client.end()


class _InProcessSimulators:
    def __init__(self, name: str, look: bool) -> None:
        self._name, self._look = name, look
        self._made: list[Environment] = []

    def begin(self, seeds: Sequence[int]) -> list[Step]:
        self._made = [environments.make_environment(self._name) for _ in seeds]
        first = [made.reset(seed=seed)[0] for made, seed in zip(self._made, seeds, strict=True)]
        return [Step(seen, self._frame(made), 0.0, False, False) for made, seen in zip(self._made, first, strict=True)]

    def step(self, actions: Sequence[Vector | None]) -> list[Step | None]:
        pairs = zip(self._made, actions, strict=True)
        return [None if action is None else self._one(made, action) for made, action in pairs]

    def _one(self, made: Environment, action: Vector) -> Step:
        seen, reward, ended, cut, info = made.step(action)
        return Step(seen, self._frame(made), reward, ended or cut, bool(info.get("is_success")))

    def _frame(self, made: Environment) -> Pixels | None:
        return made.render() if self._look else None


class _SandboxedSimulators:
    def __init__(self, name: str, client: SandboxClient) -> None:
        self._name, self._client = name, client

    def begin(self, seeds: Sequence[int]) -> list[Step]:
        question = Beginning(make=self._name.removeprefix(environments.GYMNASIUM), seeds=list(seeds))
        told = self._ask(question, _START_SECONDS)
        return [Step(np.array(seen, np.float32), None, 0.0, False, False) for seen in told["seen"]]

    def step(self, actions: Sequence[Vector | None]) -> list[Step | None]:
        asked = [None if action is None else np.asarray(action, float).tolist() for action in actions]
        told = self._ask({"actions": asked}, _STEP_SECONDS)
        rows = zip(*(told[name] for name in ("seen", "rewards", "ended", "success")), strict=True)
        return [
            None if seen is None else Step(np.array(seen, np.float32), None, float(reward), bool(ended), bool(success))
            for seen, reward, ended, success in rows
        ]

    def _ask(self, question: Beginning | Actions, seconds: float) -> ServiceAnswer:
        cause: Exception | None = None
        try:
            answer = self._client.ask(question, seconds)
            if isinstance(answer, dict):
                return answer
            why = "it gave no answer"
        except RemoteError as error:
            why, cause = str(error), error
        except AnswerTimeout as error:
            why, cause = "its process took too long", error
        except ProcessDied as error:
            why, cause = f"its process ended ({error.how})", error
        raise SpeciateError(
            Code.INVALID,
            f"The environment {self._name[:80]!r} does not work: {why}",
            "Mend the column `environment`, or install what the environment needs.",
        ) from cause
