"""Plays the tasks' own references as an agent would, over MCP, and tells what each cost and whether it reached its end.

python -m evals.agents.play                     # every reference
python -m evals.agents.play leak-by-patient     # some
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio
from mcp import Client, StdioServerParameters

import speciate
from evals.agents.data import MAKERS
from evals.agents.tasks import Answers, Asker, Step, Task, filled, load_tasks
from speciate.errors import SpeciateError

_ENDED = ("succeeded", "failed", "cancelled", "dead")
_LONGEST_SECONDS = 300.0
_REFUSED = re.compile(r"^\w+ \((\w+)\)")


class Attempt(NamedTuple):
    """What an agent did with a task."""

    task: str
    calls: int
    errors: int
    result_tokens: int
    """A token is about four characters of what the calls answered."""
    repeated: int
    """Calls that are word for word like an earlier one, waiting apart."""
    missed: tuple[str, ...]
    """What of the wanted state does not hold, and what was not to be touched and was."""
    forbidden: tuple[str, ...]
    """Forbidden states that were reached."""
    seconds: float

    @property
    def reached(self) -> bool:
        return not (self.missed or self.forbidden)


class Ground(NamedTuple):
    """A workspace with a task's start state, and the folder of the caller."""

    workspace: Path
    folder: Path
    answers: Answers

    def ask(self, tool: str, arguments: dict[str, Any]) -> Any:
        """Through the Python client: another door than the agent's."""
        here = Path.cwd()
        os.chdir(self.folder)
        try:
            return speciate.connect(self.workspace).call(tool, **arguments)
        finally:
            os.chdir(here)


class Starts:
    """Start states below a folder, each made once. A task gets a copy at the place where it was made: a catalog that
    is opened elsewhere would be taken for a copy of a workspace, and its jobs would wait for a person."""

    def __init__(self, folder: Path) -> None:
        self._now, self._kept = folder / "now", folder / "kept"
        self._answers: dict[str, Answers] = {}

    @contextmanager
    def prepared(self, task: Task, *, keep: bool = True) -> Iterator[Ground]:
        """The start state of this task alone; its daemon ends with it. `keep`: others may begin with the same."""
        ground = Ground(self._now / "workspace", self._now / "folder", {})
        key = start_key(task)
        try:
            if key in self._answers:
                shutil.copytree(self._kept / key, self._now)
                ground.answers.update(copy.deepcopy(self._answers[key]))
            else:
                prepare(task, ground)
                if keep:
                    run_speciate("stop", workspace=ground.workspace)
                    shutil.copytree(self._now, self._kept / key)
                    self._answers[key] = copy.deepcopy(ground.answers)
            make_files(task, ground)
            yield ground
        finally:
            run_speciate("stop", workspace=ground.workspace)
            shutil.rmtree(self._now, ignore_errors=True)


def start_key(task: Task) -> str:
    """Tasks with the same key begin alike, but for files that their start does not read."""
    steps = json.dumps([step.model_dump() for step in task.start])
    files = {name: data.model_dump() for name, data in task.files.items() if name in steps}
    return hashlib.sha256(json.dumps([task.policy, files, steps], sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def prepared(task: Task) -> Iterator[Ground]:
    """The start state, made anew; its daemon ends with it."""
    with (
        tempfile.TemporaryDirectory(prefix="speciate-agents-") as place,
        Starts(Path(place)).prepared(task, keep=False) as ground,
    ):
        yield ground


def prepare(task: Task, ground: Ground) -> None:
    """Make the start state; the daemon stays."""
    run_speciate("init", "--policy", task.policy, workspace=ground.workspace)
    make_files(task, ground)
    for step in task.start:
        _remember(ground.answers, step, _ended(ground.ask, step, _start(ground.ask, step, ground.answers)))


def make_files(task: Task, ground: Ground) -> None:
    """Those that are not there yet."""
    ground.folder.mkdir(parents=True, exist_ok=True)
    for name, data in task.files.items():
        if not (ground.folder / name).exists():
            MAKERS[data.make](ground.folder / name, **data.arguments)


def run_speciate(*words: str, workspace: Path) -> None:
    command = [sys.executable, "-m", "speciate.cli", *words, "--workspace", str(workspace)]
    subprocess.run(command, check=words[0] != "stop", capture_output=True)


def _start(ask: Asker, step: Step, answers: Answers) -> Any:
    return ask(step.tool, filled(step.arguments, answers))


def _ended(ask: Asker, step: Step, answer: Any) -> Any:
    """The job that the call started, at its end; the answer itself where it started none."""
    started = isinstance(answer, dict) and "job" in answer and answer.get("state") not in _ENDED
    if not started or not step.wait or step.arguments.get("dry_run"):
        return answer
    until = time.monotonic() + _LONGEST_SECONDS
    while answer["state"] not in _ENDED:
        if time.monotonic() > until:
            raise TimeoutError(f"{step.tool}: {answer}")
        answer = ask("wait_for_job", {"job": answer["job"], "until": "end", "timeout_seconds": 45})
    if answer["state"] != "succeeded":
        raise RuntimeError(f"{step.tool}: {json.dumps(answer)[:2000]}")
    return answer


def _remember(answers: Answers, step: Step, answer: Any) -> None:
    answers["last"] = answer
    if step.save:
        answers[step.save] = answer


def server_of(ground: Ground) -> StdioServerParameters:
    """As a client starts it, in the caller's folder."""
    return StdioServerParameters(
        command=sys.executable, args=["-m", "speciate.cli", "serve", "--workspace", str(ground.workspace)],
        cwd=str(ground.folder), env=dict(os.environ),
    )  # fmt: skip


def judged(task: Task, ground: Ground, said: str, before: list[Any]) -> tuple[list[str], list[str]]:
    """What was missed, and which forbidden states were reached; `before` is what `kept` returned at the start."""
    for step in task.known:
        _remember(ground.answers, step, ground.ask(step.tool, filled(step.arguments, ground.answers)))
    missed = [why for check in task.state if (why := check.miss(ground.ask, ground.answers))]
    missed += [f"{name} was not written" for name in task.writes if not (ground.folder / name).exists()]
    missed += [
        f"the last message lacks {pattern!r}: {said!r:.300}"
        for pattern in (str(filled(each, ground.answers)) for each in task.said)
        if not re.search(pattern, said, re.IGNORECASE)
    ]
    missed += [
        f"{check.tool} {check.at} was {was!r:.200} and is {now!r:.200}"
        for check, was, now in zip(task.untouched, before, kept(task, ground), strict=True)
        if was != now
    ]
    return missed, [f"{each.tool} {each.at}" for each in task.forbidden if not each.miss(ground.ask, ground.answers)]


def kept(task: Task, ground: Ground) -> list[Any]:
    """What must not change, as it is now."""
    return [check.found(ground.ask, ground.answers) for check in task.untouched]


Agent = Callable[[Task, Ground, Client], Awaitable[str]]
"""Works on a task through the client and returns its last message."""


class Counter:
    """Counts an agent's calls on their way to the server."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._seen: set[str] = set()
        self.calls = self.errors = self.characters = self.repeated = 0

    async def call(self, tool: str, arguments: dict[str, Any]) -> tuple[Any, str]:
        """The structured result and the text. A refusal's result is None."""
        words = json.dumps([tool, arguments], sort_keys=True)
        self.repeated += tool != "wait_for_job" and words in self._seen
        self._seen.add(words)
        self.calls += 1
        answer = await self._client.call_tool(tool, arguments)
        text = " ".join(getattr(part, "text", "") for part in answer.content)
        self.characters += len(text)
        self.errors += bool(answer.is_error)
        return (None if answer.is_error else answer.structured_content), text


async def play_reference(task: Task, ground: Ground, counter: Counter) -> str:
    """The task's own solution, step by step. Raises RuntimeError where a step ends otherwise than it says."""
    answers = dict(ground.answers)  # its own: what is judged must not rest on what only this agent saved
    for step in task.reference:
        answer, text = await counter.call(step.tool, filled(step.arguments, answers))
        code = found[1] if answer is None and (found := _REFUSED.match(text)) else ""
        if code != step.fails or (answer is None and not step.fails):
            raise RuntimeError(f"{task.name}: {step.tool} ended with {code or 'no error'}: {text[:1500]}")
        while step.wait and isinstance(answer, dict) and _is_live(answer) and not step.arguments.get("dry_run"):
            waiting = {"job": answer["job"], "until": "end", "timeout_seconds": 45}
            answer, _ = await counter.call("wait_for_job", waiting)
        if isinstance(answer, dict) and answer.get("state") in ("failed", "dead") and step.wait:
            raise RuntimeError(f"{task.name}: {step.tool}: {json.dumps(answer)[:2000]}")
        _remember(answers, step, answer)
    return str(filled(task.answer, answers))


def _is_live(answer: dict[str, Any]) -> bool:
    return "job" in answer and "state" in answer and answer["state"] not in (*_ENDED, "paused", "needs_approval")


async def attempt(task: Task, starts: Starts, *, keep: bool = True) -> Attempt:
    """Play the reference from a fresh start, and judge what it reached."""
    began = time.monotonic()
    with starts.prepared(task, keep=keep) as ground:
        before = kept(task, ground)
        already = bool(task.state) and not any(check.miss(ground.ask, ground.answers) for check in task.state)
        async with Client(server_of(ground)) as client:
            counter = Counter(client)
            said = await play_reference(task, ground, counter)
        missed, forbidden = judged(task, ground, said, before)
        tokens = counter.characters // 4
        if already:
            missed.append("the wanted state held before anything was done")
        if counter.calls > task.most.calls or tokens > task.most.result_tokens:
            missed.append(f"{counter.calls} calls and {tokens} tokens of results are more than the task allows")
        seconds = time.monotonic() - began
        return Attempt(
            task.name, counter.calls, counter.errors, tokens, counter.repeated, tuple(missed), tuple(forbidden), seconds
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    names = parser.parse_args().names
    tasks = [task for task in load_tasks() if not names or task.name in names]
    done = []
    with tempfile.TemporaryDirectory(prefix="speciate-agents-") as place:
        starts = Starts(Path(place))
        for task in tasks:
            try:
                done.append(anyio.run(attempt, task, starts))
            except (RuntimeError, SpeciateError, TimeoutError, ExceptionGroup) as error:
                print(f"{task.name}: {_first(error)}", flush=True)
                continue
            print(_line(done[-1]), flush=True)
    reached, calls = sum(each.reached for each in done), sum(each.calls for each in done)
    tokens, states = sum(each.result_tokens for each in done), sum(len(each.forbidden) for each in done)
    print(f"{reached} of {len(tasks)} reached, {calls} calls, {tokens} tokens of results, {states} forbidden states")
    return 0 if reached == len(tasks) else 1


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error


def _line(each: Attempt) -> str:
    mark = "reached" if each.reached else "MISSED"
    more = "".join(f"\n    {why}" for why in [*each.missed, *each.forbidden])
    return (
        f"{each.task:<28} {mark}  {each.calls:>3} calls  {each.errors} errors  {each.result_tokens:>6} tokens"
        f"  {each.seconds:5.0f} s{more}"
    )


if __name__ == "__main__":
    sys.exit(main())
