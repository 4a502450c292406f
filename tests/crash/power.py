"""The power is cut while a workspace works: `make power`.

Real programs (a daemon, its workers, clients) work on a workspace while writes.c records what they write. Then disks
are laid down as a cut could have left them (disk.py), each is opened by the real code, and three things are compared:
what had been acknowledged is there, what is listed can be read, and the audit and its events are whole.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from ctypes import CDLL
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.dataset  # noqa: F401 - once, and not in each process that opens a disk
from PIL import Image

from speciate.datasets import version_rows, versions
from speciate.errors import SpeciateError
from speciate.loop.verification import VerificationWalk, inventory
from speciate.models import registry, sealed
from speciate.predictions import reading
from speciate.predictions.log_files import all_logs, log_folder
from speciate.promotion import aliases
from speciate.workspace.database import Database
from speciate.workspace.workspace import Workspace
from tests import forks
from tests.crash import disk
from tests.crash.disk import Model, Recording
from tests.server.processes import Daemons, Stdio
from tests.server.small_world import called, ended, points, use_case

OPERATIONS = ("seal", "commit", "promote", "backup", "log")
_MODELS: tuple[Model, ...] = ("ext4", "posix")
ANSWERS = 6
_SYNCED_AFTER = 3.0
"""Seconds after which an answer that was logged is surely on the disk; the promise is a tenth of one."""
_TORN_LINES = re.compile(r"\d+ of its lines are not what was written")
Fact = list[Any]
"""Kind, then what it needs. As JSON in a mark."""


# The work, and what it acknowledged


class Marks:
    """Notes between the records: where an operation begins, and what was acknowledged by then."""

    def __init__(self, library: Path, workspace: Path) -> None:
        self._mark, self._workspace = CDLL(str(library)).power_mark, workspace

    def __call__(self, operation: str, *facts: Fact, files: Iterable[str | Path] = ()) -> None:
        """`files`: must be on the disk by now, as they are; absolute, or below the workspace."""
        paths = [str(self._workspace / each) for each in files]
        self._mark(json.dumps({"operation": operation, "facts": facts, "files": paths}).encode())


def work(recorder: disk.Recorder, files: Path) -> None:
    """Everything that a workspace keeps, through the tools, by a daemon and its workers."""
    root = recorder.root / "workspace"
    mark = Marks(recorder.library, root)
    environment = recorder.environment | {"XDG_CONFIG_HOME": str(recorder.root / "config")}
    shell = Stdio(root, environment=environment)
    daemons = Daemons(root)
    try:
        shell.initialize()
        _seal(shell, mark, files)
        _commit(shell, mark)
        daemons.close()  # the catalog's log is folded in: the next daemon begins another
        _promote(shell, mark, root)
        _log_answers(shell, mark)
        mark("backup")
        done = subprocess.run(
            [sys.executable, "-m", "speciate.cli", "backup", str(recorder.root / "saved"), "--workspace", str(root)],
            env=os.environ | environment, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        mark("backup", ["saved", "saved"])
        daemons.close()
        _seal_more(shell, mark)
        shell.close()
    finally:
        daemons.close()
    mark("end")


def _seal(shell: Stdio, mark: Marks, files: Path) -> None:
    mark("seal")
    job = called(shell, "create_dataset", name="points", rows=points(), label="label")["job"]
    mark("seal", ["job", job])
    ended(shell, job)
    mark("seal", ["dataset", "points@v1", 400], ["ended", job])
    ended(shell, called(shell, "create_dataset", name="photos", source=str(files), label="folder")["job"])
    mark("seal", ["dataset", "photos@v1", 12])


def _seal_more(shell: Stdio, mark: Marks) -> None:
    """Versions that differ from another one by a few rows, after a checkpoint or two of the catalog."""
    mark("seal")
    more = [{"a": 100.5 + number, "b": 1.0, "label": "ab"[number % 2]} for number in range(5)]
    ended(shell, called(shell, "add_examples", dataset="points", rows=more)["job"])
    mark("seal", ["dataset", "points@v2", 405])
    steps = [{"op": "filter", "where": "a < 100"}]
    ended(shell, called(shell, "curate_dataset", dataset="points@v2", steps=steps)["job"])
    mark("seal", ["dataset", "points@v3", 400])


def _commit(shell: Stdio, mark: Marks) -> None:
    mark("commit")
    called(shell, "define_use_case", **use_case("sorting"))
    mark("commit", ["use case", "sorting"])
    for name in ("sorter", "second"):
        job = called(shell, "train_model", name=name, dataset="points", method="classical")["job"]
        mark("commit", ["job", job])
        ended(shell, job)
        mark("commit", ["model", f"{name}@v1"], ["ended", job])
        asked = {"models": ["constant:", name], "use_case": "sorting", "dataset": "points", "latency": False}
        view = ended(shell, called(shell, "evaluate_models", **asked)["job"])
        mark("commit", ["evaluation", view["result"]["evaluation"]])


def _promote(shell: Stdio, mark: Marks, root: Path) -> None:
    mark("other")
    called(shell, "get_status")
    mark("promote")
    promoted = called(shell, "promote_model", use_case="sorting", model="sorter@v1")
    assert promoted["state"] == "applied", promoted
    mark("promote", ["alias", "sorting", ["sorter@v1", "second@v1", "sorter@v1"], 0])
    _await_backup(root, 1)
    mark("promote")
    shell.call("move_alias", {"use_case": "sorting", "model": "second@v1"})
    mark("promote", ["alias", "sorting", ["sorter@v1", "second@v1", "sorter@v1"], 1])
    mark("backup")
    _await_backup(root, 2)
    mark("promote")
    called(shell, "rollback_model", use_case="sorting", expected_current="second@v1", reason="a test")
    mark("promote", ["alias", "sorting", ["sorter@v1", "second@v1", "sorter@v1"], 2])
    mark("backup")
    _await_backup(root, 3)


def _await_backup(root: Path, count: int) -> None:
    end = time.monotonic() + 60
    while len(list((root / "backups").glob("auto-*"))) < count:
        assert time.monotonic() < end, "no backup was made"
        time.sleep(0.02)


def _log_answers(shell: Stdio, mark: Marks) -> None:
    mark("log")
    made = []
    for number in range(ANSWERS):
        answer = called(shell, "predict", use_case="sorting", inputs=[{"row": {"a": number, "b": 0.5}}] * 3)
        made += [each["prediction"] for each in answer["predictions"]]
        mark("log")
    for prediction in made[:ANSWERS]:
        called(shell, "record_feedback", prediction=prediction, label="a", source="human")
        mark("log", ["feedback", "sorting", prediction])
    time.sleep(_SYNCED_AFTER)
    mark("log", ["answers", "sorting", made])


# What a disk must hold


class Opened(NamedTuple):
    """What came of one disk."""

    refused: str
    """Why the workspace did not open; empty where it did."""
    wrong: tuple[str, ...]
    checked: int
    """Acknowledged facts that were looked for."""


def open_disk(root: Path, facts: Sequence[Fact]) -> Opened:
    """Open the workspace of a disk, as a daemon does, in a process of its own."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.environ["XDG_CONFIG_HOME"] = str(root / "config")
            sender.send(_examine(root, facts))
            status = 0
        except BaseException:  # noqa: BLE001 - it is told as what is wrong
            sender.send(Opened("", (traceback.format_exc(),), len(facts)))
        finally:
            os._exit(status)
    sender.close()
    try:
        found: Opened = receiver.recv()
    except EOFError:
        found = Opened("", ("the process that opened it ended",), len(facts))
    os.waitpid(child, 0)
    return found


def _examine(root: Path, facts: Sequence[Fact]) -> Opened:
    problems: list[str] = []
    try:
        workspace = Workspace(root / "workspace")
    except SpeciateError as error:
        return Opened(str(error), (), len(facts))
    try:
        known = inventory(workspace)
        problems += [f"catalog: {problem}" for problem in known.catalog]
        problems += [
            f"{each.path}: {each.why}"
            for each in VerificationWalk(workspace.folders, known)
            if not _TORN_LINES.fullmatch(each.why)
        ]
        counted = workspace.database.read("SELECT count(*), count(DISTINCT seq), coalesce(max(seq), 0) FROM events")
        if len(set(counted[0])) != 1:
            problems.append(f"events are not dense: {counted[0]}")
        problems += _unreadable(workspace)
        for fact in facts:
            problems += _lost(root, workspace, fact)
    finally:
        workspace.close()
    return Opened("", tuple(problems), len(facts))


def _told(what: str, look: Callable[[], object]) -> Iterator[str]:
    try:
        look()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        yield f"{what}: {type(error).__name__}: {error}"


def _unreadable(workspace: Workspace) -> Iterator[str]:
    """What is listed, read as those who use it do."""
    database, folders = workspace.database, workspace.folders
    for name in versions.names(database):
        for number in versions.numbers(database, name):
            ref = f"{name}@v{number}"
            yield from _told(ref, lambda ref=ref: version_rows.read(folders, versions.resolve(database, ref)))  # type: ignore[misc]
    for name in registry.names(database):
        for each in registry.versions(database, name):
            yield from _told(each.ref, lambda each=each: _resolve(workspace, each.ref))  # type: ignore[misc]
    for alias in aliases.everywhere(database):
        yield from _told(f"behind {alias.use_case}", lambda alias=alias: _resolve(workspace, alias.model))  # type: ignore[misc]
    for log in all_logs(folders):
        yield from _told(f"log of {log.use_case}", lambda log=log: (reading.answers(log), reading.feedback(log)))  # type: ignore[misc]


def _resolve(workspace: Workspace, ref: str) -> str:
    return sealed.check(registry.resolve(workspace.database, workspace.folders, ref).path)


def _lost(root: Path, workspace: Workspace, fact: Fact) -> Iterator[str]:
    """An acknowledged fact that is not there, in words."""
    kind, *rest = fact
    for problem in _told(" ".join(map(str, fact[:3])), lambda: _CHECKS[kind](root, workspace, *rest)):
        yield f"acknowledged and lost: {problem}"


def _is_dataset(root: Path, workspace: Workspace, ref: str, rows: int) -> None:
    assert version_rows.read(workspace.folders, versions.resolve(workspace.database, ref)).num_rows == rows


def _state(database: Database, job: str) -> str:
    row = database.read_one("SELECT state FROM jobs WHERE id = ?", [job])
    assert row is not None, "it is not there"
    return str(row[0])


def _has_ended(root: Path, workspace: Workspace, job: str) -> None:
    assert (state := _state(workspace.database, job)) == "succeeded", state


def _is_use_case(root: Path, workspace: Workspace, name: str) -> None:
    assert workspace.database.read_one("SELECT 1 FROM use_cases WHERE name = ?", [name])


def _is_evaluation(root: Path, workspace: Workspace, evaluation: str) -> None:
    assert workspace.database.read_one("SELECT 1 FROM evaluations WHERE id = ?", [evaluation])
    assert len(list((workspace.folders.evaluations / evaluation).glob("*.parquet"))) >= 3


def _is_alias(root: Path, workspace: Workspace, name: str, models: list[str], place: int) -> None:
    """The one that was acknowledged, or one that was moved there afterwards."""
    found = aliases.read(workspace.database, name)
    assert found is not None, "it is not there"
    assert found.generation > place, found
    assert found.model in models[place:], found


def _is_saved(root: Path, workspace: Workspace, name: str) -> None:
    """A whole copy is a workspace."""
    copy = Workspace(root / name)
    try:
        known = inventory(copy)
        wrong = [*known.catalog, *(f"{each.path}: {each.why}" for each in VerificationWalk(copy.folders, known))]
        assert not wrong, wrong
        assert versions.names(copy.database), "it holds nothing"
    finally:
        copy.close()


def _has_feedback(root: Path, workspace: Workspace, name: str, prediction: str) -> None:
    assert any(each.prediction == prediction for each in reading.feedback(log_folder(workspace.folders, name)))


def _has_answers(root: Path, workspace: Workspace, name: str, wanted: list[str]) -> None:
    there = set(reading.answers(log_folder(workspace.folders, name), columns=["id"])["id"].to_pylist())
    assert there >= set(wanted), sorted(set(wanted) - there)


_CHECKS: dict[str, Callable[..., None]] = {
    "job": lambda root, workspace, job: _state(workspace.database, job), "ended": _has_ended, "dataset": _is_dataset,
    "model": lambda root, workspace, ref: _resolve(workspace, ref), "evaluation": _is_evaluation, "alias": _is_alias,
    "use case": _is_use_case, "saved": _is_saved, "feedback": _has_feedback, "answers": _has_answers,
}  # fmt: skip


# The campaign


class Moment(NamedTuple):
    """A moment of the recording at which the power may go off."""

    at: int
    operation: str
    facts: tuple[Fact, ...]
    """Acknowledged by then."""


def moments(recording: Recording) -> list[Moment]:
    """After each record of an operation."""
    found, facts, marks = list[Moment](), list[Fact](), recording.marks()
    for place, (at, text) in enumerate(marks):
        note = json.loads(text)
        facts = [*facts, *note["facts"]]
        until = marks[place + 1][0] if place + 1 < len(marks) else len(recording.records)
        if note["operation"] in OPERATIONS:
            found += [Moment(each, note["operation"], tuple(facts)) for each in range(at, until)]
    return found


class Row(NamedTuple):
    """A line of the table."""

    states: int
    checked: int
    refused: int
    wrong: int


class Campaign:
    """Opens disks of a recording, each state once, until the time is up."""

    def __init__(self, recording: Recording, root: Path) -> None:
        self.recording, self._root = recording, root
        self._seen, self._copies = set[str](), set[str]()
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.problems: Counter[tuple[str, str, str]] = Counter()

    def try_moment(self, moment: Moment, model: Model, draws: int, seed: int) -> None:
        for name, choice in disk.choices(model, draws, seed):
            state = self.recording.state(moment.at, choice)
            facts = moment.facts
            if (key := disk.digest(state) + str(len(facts))) in self._seen:
                continue
            self._seen.add(key)
            disk.lay_down(state, self._root)
            copy = disk.digest({path: data for path, data in state.items() if path.startswith("saved/")})
            # a copy that is byte for byte one that was opened before is not opened again: it is a third of the time
            facts = tuple(fact for fact in facts if fact[0] != "saved" or copy not in self._copies)
            found = open_disk(self._root, facts)
            if not (found.wrong or found.refused) and any(fact[0] == "saved" for fact in facts):
                self._copies.add(copy)
            self._count(moment, model, name, found)

    def _count(self, moment: Moment, model: Model, name: str, found: Opened) -> None:
        def add(what: str, number: int = 1) -> None:
            self.counts[moment.operation, model, what] += number

        add("states")
        add("checked", found.checked)
        add("refused", bool(found.refused))
        add("wrong", bool(found.wrong))
        for problem in (found.refused, *found.wrong):
            if problem:
                self.problems[moment.operation, model, f"[{name}] {_shortened(problem, self._root)}"] += 1

    def row(self, operation: str, model: Model) -> Row:
        return Row(*(self.counts[operation, model, what] for what in Row._fields))

    def table(self) -> str:
        lines = [
            "| operation | file system | disks opened | acknowledged things looked for | not opened | violations |",
            "|---|---|---|---|---|---|",
        ]
        for model in _MODELS:
            rows = [(operation, self.row(operation, model)) for operation in OPERATIONS]
            total = Row(*map(sum, zip(*(row for _, row in rows), strict=True)))
            for operation, row in [*rows, ("all", total)]:
                lines.append(f"| {operation} | {model} | " + " | ".join(f"{number:,}" for number in row) + " |")
        return "\n".join(lines)

    def told(self, most: int = 40) -> str:
        found = [
            f"{count:5} {operation} {model} {text}"
            for (operation, model, text), count in self.problems.most_common(most)
        ]
        return "\n".join(found)


def _shortened(problem: str, root: Path) -> str:
    text = problem.replace(str(root), "").strip()
    return re.sub(r"[0-9a-f]{8,}", "#", text if len(text) < 400 else text[:100] + " ... " + text[-300:])


def record(folder: Path, root: Path) -> Recording:
    """Work, and compare what was recorded with what lies there."""
    files = folder / "photos"
    chance = np.random.default_rng(1)
    for number in range(12):
        path = files / ("dark", "light")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(chance.integers(0, 255, (32, 32, 3), np.uint8)).save(path)
    (root / "workspace").mkdir(mode=0o700)
    (root / "workspace" / "settings.toml").write_text(f'policy = "auto"\nroots = ["{files}"]\n')
    recorder = disk.recorder(folder / "recorder", root)
    forks.executes = True
    work(recorder, files)
    recording = Recording(recorder.records(), root.stat().st_ino)
    assert not (differ := differences(recording, root)), f"not recorded as it lies there: {differ[:20]}"
    return recording


def differences(recording: Recording, root: Path) -> list[str]:
    """Paths whose last recorded state is not what lies there: something changed them unseen."""
    there, recorded = disk.found_below(root), recording.last()
    return sorted(path for path in there.keys() | recorded.keys() if there.get(path, b"-") != recorded.get(path, b"-"))


def open_by_daemons(recording: Recording, root: Path) -> list[str]:
    """A disk of each operation and model, as it was synced when the operation ended, opened by a daemon that a command
    starts. What is wrong, in words."""
    found, last = [], {each.operation: each.at for each in moments(recording)}
    command, workspace = [sys.executable, "-m", "speciate.cli"], ["--workspace", str(root / "workspace")]
    environment = os.environ | {"XDG_CONFIG_HOME": str(root / "config")}
    for operation, at in last.items():
        for model in _MODELS:
            (_, choice), *_ = disk.choices(model, 0, 0)
            disk.lay_down(recording.state(at, choice), root)
            for words in (["verify", "--all"], ["call", "get_status"], ["stop"]):
                done = subprocess.run(
                    [*command, *words, *workspace], env=environment, capture_output=True, text=True, check=False,
                    timeout=300,
                )  # fmt: skip
                if done.returncode:
                    found.append(f"{operation} {model} {words[0]}: {done.stdout}{done.stderr}")
    return found


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Cut the power of a workspace that works.")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=1, help="of the moments, each that many-th")
    given = parser.parse_args(arguments)
    memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="power-") as folder, tempfile.TemporaryDirectory(dir=memory) as root:
        recording = record(Path(folder), Path(root))
        print(f"{len(recording.records):,} records, {recording.mapped} shared writable mappings", flush=True)
        campaign = run(recording, Path(root), given.minutes * 60, given.seed)
        print(campaign.table())
        print(campaign.told())
        wrong = open_by_daemons(recording, Path(root))
        print(
            f"{len(OPERATIONS) * len(_MODELS)} of such disks opened by a daemon: {len(wrong)} violations",
            *wrong,
            sep="\n",
        )
    return 1 if campaign.problems or wrong else 0


def run(recording: Recording, root: Path, seconds: float, seed: int = 0) -> Campaign:
    """Moments in an order that is fair to all operations, so that any time gives a part of each."""
    campaign, end = Campaign(recording, root), time.monotonic() + seconds
    rest = {name: _spread([each for each in moments(recording) if each.operation == name]) for name in OPERATIONS}
    number = 0
    while time.monotonic() < end and any(rest.values()):
        for name in OPERATIONS:
            if rest[name]:
                moment, number = rest[name].pop(), number + 1
                for model in _MODELS:
                    campaign.try_moment(moment, model, 2, seed + 1000 * number)
    return campaign


def _spread(found: list[Moment]) -> list[Moment]:
    """In the order of their numbers' reversed bits, to be taken from the end: first far apart, then ever closer."""
    bits = max(1, len(found) - 1).bit_length()
    order = sorted(range(len(found)), key=lambda place: int(f"{place:0{bits}b}"[::-1], 2))
    return [found[place] for place in reversed(order)]


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main(sys.argv[1:]))
