"""What a watch costs while nothing happens, with a million answers in the log, and while answers and labels come.

    python evals/bench/watch_idle.py [--answers 1000000] [--labels 20000] [--looks 200]

A look is what the daemon does once a minute: `Watcher.look`, with triggers that need the log (new_labels,
label_disagreement), the worst case, and with those that need the monitoring job alone. CPU seconds of this process; the
share of a core is a look's CPU over 60 seconds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from speciate import use_cases
from speciate.jobs.engine import Engine
from speciate.jobs.kinds import Kinds
from speciate.loop.watch import rows
from speciate.loop.watch.definition import Policy, Trigger, TriggerKind, Watch
from speciate.loop.watch.watcher import Watcher
from speciate.predictions import prediction_ids, reading
from speciate.predictions.log import AnsweringModel, AnswerLog
from speciate.predictions.log_files import ANSWERS, FEEDBACK, LogFolder, log_folder
from speciate.predictions.maintenance import write_part
from speciate.promotion import aliases, bake
from speciate.settings import Log, Settings
from speciate.use_cases import Definition, Objective
from speciate.workspace.clock import SystemClock
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace

USE_CASE = "triage"
_PART = 100_000
_DAYS = 60


def fill(log: LogFolder, answers: int, labels: int) -> None:
    """Parts as the daemon's upkeep leaves them: of the last 60 days, every so many answers labelled."""
    log.create()
    now, every = time.time() - 3600, max(1, answers // max(1, labels))
    for begin in range(0, answers, _PART):
        count = min(_PART, answers - begin)
        times = [now - _DAYS * 86_400 * (1 - (begin + place) / answers) for place in range(count)]
        ids = [prediction_ids.new_prediction_id(USE_CASE, at) for at in times]
        listed = [
            {"id": name, "at": at, "model": "triage-model@v1", "generation": 1, "modality": "text",
             "input": '{"text":"a short question of somebody"}', "output": '"billing"', "confidence": 0.9,
             "error": None, "ms": 1.5, "given": None, "redacted": 0, "left_out": None, "media": []}
            for name, at in zip(ids, times, strict=True)
        ]  # fmt: skip
        said = [
            {"prediction": name, "at": at + 60, "source": "human", "label": '"billing"', "score": None, "by": "ada",
             "drawn": None}
            for name, at in list(zip(ids, times, strict=True))[::every]
        ]  # fmt: skip
        name = log.parts / f"{int(times[0])}-{begin:08}"
        if said:
            write_part(Path(f"{name}{FEEDBACK}"), reading.table(said, FEEDBACK), {})
        write_part(Path(f"{name}{ANSWERS}"), reading.table(listed, ANSWERS).sort_by("id"),
                   {"segments": "[]", "missed": 0, "torn": 0})  # fmt: skip


def define(tx: Transaction, kinds: list[TriggerKind]) -> None:
    if not use_cases.names(tx):
        objective = Objective(metric="accuracy", target=0.88)
        use_cases.define(tx, Definition(name=USE_CASE, task="text-classification", objective=objective), policy="auto")
        aliases.move(tx, use_case=USE_CASE, model="triage-model@v1", expected=None, action="promote", actor="ada",
                     evidence={})  # fmt: skip
        alias = aliases.read(tx, USE_CASE)
        assert alias is not None
        tx.event(f"use_case:{USE_CASE}", bake.SURVIVED, {"alias": "production", "model": alias.model,
                                                         "generation": alias.generation})  # fmt: skip
    triggers = tuple(Trigger(on=kind, n=1_000_000 if kind == "new_labels" else None) for kind in kinds)
    rows.define(tx, Watch(use_case=USE_CASE, triggers=triggers, policy=Policy()), enabled=True, by="ada", asked=False)


def measure(watcher: Watcher, looks: int, what: str, before: object = None) -> None:
    spent = []
    for _ in range(looks):
        if callable(before):
            before()
        began = time.process_time()
        watcher.look()
        spent.append(time.process_time() - began)
    median, most = statistics.median(spent), max(spent)
    print(f"{what}: a look {1000 * median:.2f} ms of CPU, at most {1000 * most:.1f}; "
          f"{100 * statistics.fmean(spent) / 60:.3f} % of a core at one a minute", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--answers", type=int, default=1_000_000)
    parser.add_argument("--labels", type=int, default=20_000)
    parser.add_argument("--looks", type=int, default=200)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        workspace = Workspace(Path(name) / "w", settings=Settings(policy="auto"))
        folder = log_folder(workspace.folders, USE_CASE)
        fill(folder, given.answers, given.labels)
        watcher = Watcher(workspace, Engine(workspace, kinds=Kinds()))
        workspace.database.transact(lambda tx: define(tx, ["data_shift", "quality_regression", "limit_breach"]))
        watcher.look()
        measure(watcher, given.looks, "drift, quality and limits, nothing happens")
        workspace.database.transact(lambda tx: define(tx, ["data_shift", "new_labels", "label_disagreement"]))
        began = time.process_time()
        watcher.look()
        print(f"first look that reads all labels: {1000 * (time.process_time() - began):.0f} ms of CPU", flush=True)
        measure(watcher, given.looks, "with triggers by labels, nothing happens")
        log = AnswerLog(folder, Log(), SystemClock())
        item, said = (
            {"id": "0", "text": "a short question of somebody"},
            {"output": "a", "confidence": 0.9, "error": None},
        )
        about = AnsweringModel("triage-model@v1", 1, "text")

        def answer() -> None:
            log.note(log.ids(100), [item] * 100, [said] * 100, about, 1.5)

        measure(watcher, given.looks, "the same, 100 answers between two looks", answer)

        def label() -> None:
            [one] = log.ids(1)
            log.note([one], [item], [said], about, 1.5)
            log.feedback({"prediction": one, "label": "billing", "source": "human"})

        measure(watcher, given.looks, "the same, a label between two looks", label)
        log.close()
        workspace.close()


if __name__ == "__main__":
    main()
