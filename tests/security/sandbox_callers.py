"""Every caller of `sandbox.start`, asked to start: what it hands over is caught, so that something else runs in it."""

from __future__ import annotations

import atexit
import dataclasses
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import psutil

from speciate.datasets.sources import sandbox_calls
from speciate.evaluation.environments import simulators
from speciate.evaluation.predictors import code
from speciate.evaluation.scorers import sandboxed_scorers
from speciate.jobs import executors, pool
from speciate.modalities.messages import Message
from speciate.sandbox import Sandbox, SandboxedProcess, SandboxPolicy, client, python, start
from speciate.serving import replica
from speciate.serving.deployment_folder import Target
from speciate.settings import Settings
from speciate.training.rewards import reward_spec, tool_environment
from speciate.training.rewards.reward import RewardRequest
from speciate.training.rewards.reward_table import REWARD_KINDS, RewardPlace
from speciate.workspace.workspace import Folders

STARTING = (client,)
"""The modules that call `start`; the test looks whether there are others."""


class Begun(Exception):
    """What a caller handed to `start`."""

    def __init__(
        self, argv: list[str], cage: Sandbox, policy: SandboxPolicy = "required", environment: Any = None
    ) -> None:
        super().__init__()
        self.argv, self.cage, self.policy, self.environment = argv, cage, policy, environment


def by_pool(folder: Path) -> None:
    """Previews, SQL, predictions, and the decoding of an ingest: `readable` is what it adds."""
    pool.Pool(Folders(folder / "workspace"), Settings()).ask("a:b", {}, readable=frozenset({folder / "listed"}))


def by_pool_with_torch(folder: Path) -> None:
    """A network that needs transformers."""
    _by_pool(folder, "transformers")


def by_pool_with_publishers_code(folder: Path) -> None:
    """A published model with its own processor: a fork of the zygote that forks workers, too."""
    _by_pool(folder, "published")


def _by_pool(folder: Path, family: str) -> None:
    executor = executors.LocalExecutor(folder)
    executor.offer()
    atexit.register(executor.close)
    pool.Pool(Folders(folder / "workspace"), Settings()).ask("a:b", {}, family=family)


def by_unpacking(folder: Path) -> None:
    context = sandbox_calls.SourceContext(None, "required", Folders(folder / "workspace"), folder)  # type: ignore[arg-type]  # not asked
    sandbox_calls.unpack_into(folder / "unpacked", "a:b", {}, readable=[folder / "listed"], context=context)


def by_runner(folder: Path) -> None:
    target = Target(generation=1, model="m@v1", path="models/m", task="classification", modality="image")
    replica.Runner(folder / "workspace", folder / "scratch", target, 4096, "required")


def by_scorer(folder: Path) -> None:
    (folder / "mine.py").write_text("def score(example, prediction): return 1.0")
    sandboxed_scorers.score_by_user(folder, folder / "mine.py", "score", [{"example": {}, "prediction": {}}])


def by_gym_scorer(folder: Path) -> None:
    sandboxed_scorers.score_gym(folder, [{"example": {"entry": "{}"}, "prediction": {"output": "1"}}])


def by_code_scorer(folder: Path) -> None:
    sandboxed_scorers.score_programs(folder, [{"example": {"tests": "pass"}, "prediction": {"output": "pass"}}])


def by_candidate(folder: Path) -> None:
    """A function in somebody's file as a model under evaluation."""
    file = folder / "mine.py"
    file.write_text("def predict(inputs): return inputs")
    identity = code.code_identity(file.read_bytes(), "predict")
    run = SimpleNamespace(folders=Folders(folder / "workspace"), folder=SimpleNamespace(path=folder))
    evaluated_model = SimpleNamespace(path=str(file), function="predict", identity=identity)
    with code._open_function(SimpleNamespace(run=run, evaluated_model=evaluated_model)) as ask:  # type: ignore[arg-type]  # all it looks at
        ask([SimpleNamespace(media="text")])  # type: ignore[list-item]


def by_simulators(folder: Path) -> None:
    with simulators.open_simulators("gymnasium:CartPole-v1", folder, "required", look=False):
        pass


def by_environment(folder: Path) -> None:
    """Tools that a language model calls while it learns."""
    described = tool_environment.EnvironmentDescription(folder / "mine.py", "Mine", "", "", [], True)
    host = tool_environment.EnvironmentHost(
        tool_environment.EnvironmentSpec(file="mine.py:Mine"), described, [], folder, "required"
    )
    host.reward(1)


def by_reward(spec: Callable[[Path], reward_spec.RewardSpec]) -> Callable[[Path], None]:
    def asked(folder: Path) -> None:
        given = spec(folder)
        marker = REWARD_KINDS[given.kind](given, RewardPlace(folder))
        marker.score([RewardRequest((Message("user", "?"),), "answer", None, {"tests": "pass"})])

    return asked


def python_reward(folder: Path) -> reward_spec.PythonReward:
    (folder / "mine.py").write_text("def reward(*_): return [1.0]")
    return reward_spec.PythonReward(kind="python", file=f"{folder / 'mine.py'}:reward")


SANDBOXES: dict[str, Callable[[Path], None]] = {
    "pool": by_pool,
    "pool with torch": by_pool_with_torch,
    "pool with processors": by_pool_with_publishers_code,
    "unpacking": by_unpacking,
    "model process": by_runner,
    "scorer": by_scorer,
    "gym scorer": by_gym_scorer,
    "code scorer": by_code_scorer,
    "candidate in a file": by_candidate,
    "simulators": by_simulators,
    "environment": by_environment,
    "reward in a file": by_reward(python_reward),
    "reward by rules": by_reward(lambda _: reward_spec.RegexReward(kind="regex", pattern="x")),
    "reward by programs": by_reward(lambda _: reward_spec.CodeReward(kind="code")),
}
FORKED = ("pool", "pool with torch", "pool with processors", "unpacking")
"""Of them, those whose process is a fork of a warm parent; each is also tried as a program of its own, as it is started
where there is no such parent."""
BY_EXEC = " by exec"
SANDBOXES |= {name + BY_EXEC: SANDBOXES[name] for name in FORKED}
NONE = "none"


class Started(NamedTuple):
    run: Callable[[list[str]], Any]
    """Starts Python with these arguments in the sandbox, or without any; the arguments of the caller come last."""
    kept: int = 0
    """Capabilities that root's process may keep, by what the code says of the sandbox."""


def started(name: str, folder: Path) -> Started:
    if name == NONE:
        return Started(lambda arguments: _Free(_changed(python("speciate.jobs.pool_process"), arguments), folder))
    found = begun(name, folder)
    found.cage.writable.mkdir(parents=True, exist_ok=True)
    assert found.cage.fork == (name.removesuffix(BY_EXEC) in FORKED)
    if name.endswith(BY_EXEC):
        found.cage = dataclasses.replace(found.cage, fork=False)
    return Started(
        lambda arguments: _as_meant(
            start(_changed(found.argv, arguments), found.cage, found.policy, found.environment), found.cage
        ),
        getattr(found.cage, "capabilities", 0),
    )


def _as_meant(process: SandboxedProcess, cage: Sandbox) -> SandboxedProcess:
    """No fork that was silently replaced by a program."""
    assert process.forked == cage.fork
    if cage.fork and cage.family:
        assert b"speciate.jobs.zygote" in Path(f"/proc/{psutil.Process(process.pid).ppid()}/cmdline").read_bytes()
    return process


def begun(name: str, folder: Path) -> Begun:
    """What the caller hands over."""
    with ExitStack() as stack:
        for module in STARTING:
            stack.enter_context(mock.patch.object(module, "start", _caught))
        try:
            SANDBOXES[name](folder)
        except Begun as found:
            return found
    raise AssertionError(f"{name} starts nothing")


def _caught(*given: Any, **named: Any) -> None:
    raise Begun(*given, **named)


def _changed(argv: list[str], arguments: list[str]) -> list[str]:
    interpreter, isolated, dash_m, *module = argv
    assert (isolated, dash_m) == ("-I", "-m")
    return [interpreter, isolated, *arguments, *module]


class _Free:
    """A process as a sandboxed one is, in no sandbox."""

    def __init__(self, argv: list[str], folder: Path) -> None:
        self._process = subprocess.Popen(argv, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.stdout = self._process.stdout

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
