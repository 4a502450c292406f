"""The process of one run: `python -m speciate.worker RUN_DIR`, the same on every executor.

It loads what spec.json names, calls it, and says in `exit` how it ended. It never opens the catalog.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import os
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any, TextIO, cast

from speciate import settings
from speciate.environment import yield_memory_first
from speciate.errors import SpeciateError
from speciate.faults import fault
from speciate.jobs.folder import (
    FULL_BYTES,
    NO_ROOM,
    RESUMABLE,
    SECOND,
    Outcome,
    RunDocument,
    RunFolder,
    map_texts,
    write_checked,
    write_whole,
)
from speciate.jobs.process_identity import identity
from speciate.jobs.run import OutOfMemory, RedactedStream, Redaction, Run, Stopped, Transient, redirect_logging
from speciate.jobs.zygote import WHOLE
from speciate.jobs.zygote import run as run_program
from speciate.sandbox import warm
from speciate.workspace import filesystem

Entry = Callable[[Run], Mapping[str, object] | None]


def load(entry: str) -> Entry:
    """The function behind `module:function` or `/path/to/file.py:function`."""
    module_name, _, name = entry.rpartition(":")
    if module_name.endswith(".py"):
        spec = importlib.util.spec_from_file_location(Path(module_name).stem, module_name)
        assert spec is not None, f"{module_name} cannot be loaded"
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(module_name)
    function: Entry = getattr(module, name)
    return function


def receive_keys(folder: RunFolder) -> dict[str, str]:
    """The keys that the run's spec names, by name, from the pipe that is its standard input; nothing of it is left for
    a child to inherit."""
    if not folder.spec().get("secrets"):
        return {}
    with os.fdopen(os.dup(0), "rb") as pipe:
        keys: dict[str, str] = json.loads(pipe.read() or b"{}")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would lie in the run's folder, keys and all
    return keys


def perform(folder: RunFolder, keys: Mapping[str, str] = MappingProxyType({})) -> Outcome:
    """Do the run, and turn every way in which it can end into an outcome."""
    spec: RunDocument = {}
    try:
        spec = folder.spec()
        warm.use(spec.get("warm_parent"))
        settings.hold(Path(spec["workspace"]), spec.get("settings", {}))
        if spec.get("preload") in WHOLE:
            _import_whole()
        result = load(spec["entry"])(Run(folder, keys))
        write_checked(folder.outputs / "result.json", _with_paths_here(result or {}, spec))
        return Outcome(0, "ok")
    except Stopped:
        return Outcome(RESUMABLE, "stopped", "stopped on request")
    except SpeciateError as error:
        outcome = Outcome(1, "user", error.message, error.recovery, error.foreign, error.next_documents())
    except BaseException as error:  # noqa: BLE001 - a run may raise anything, and its owner must hear of it
        traceback.print_exc()
        outcome = _outcome_of_error(error, shutil.disk_usage(folder.path).free)
    return Outcome(**_with_paths_here(outcome._asdict(), spec))


def _import_whole() -> None:
    """Where this process is no fork of one that has the imports, as on a node: a model that needs all of transformers
    may come after one that leaves some out."""
    importlib.import_module("speciate.models.backbones.lean_import").import_whole()  # it stands above this floor


def _outcome_of_error(error: BaseException, free: int) -> Outcome:
    """What the error says may quote a user's data: only its type is shown as ours."""
    sentence = f"{type(error).__name__} in the run"
    if isinstance(error, OutOfMemory | MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, unseen
        return Outcome(1, "memory", sentence, detail=str(error))
    if isinstance(error, Transient):
        return Outcome(1, "transient", sentence, detail=str(error))
    refused, words = filesystem.find_refusal(error), filesystem.explain(error)
    if refused is not None and words is not None and refused.number not in filesystem.FULL:
        kind = "transient" if refused.number in filesystem.PASSING else "user"
        return Outcome(1, kind, f"the disk refused: {sentence}", words.recovery, str(error))
    if free < FULL_BYTES or refused is not None:
        where = f" ({Path(refused.path).parent})" if refused is not None and refused.path else ""
        recovery = "Free some space (manage_data(action='gc', dry_run=true) shows what could go); it resumes by itself."
        return Outcome(1, "full", f"the disk is full{where}: {sentence}", recovery, str(error))
    return Outcome(1, "user", sentence, "Call get_job(job=..., log_lines=100) for the traceback.", str(error))


_AGAIN_SECONDS = 0.01


def _stop(number: int, frame: FrameType | None) -> None:
    """In a callback of pydantic, which would make an error of its own of `Stopped`, the stop is asked again later."""
    if _is_in_pydantic(frame):
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGTERM))
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough; the checkpoint must not be interrupted
    raise Stopped


def _is_in_pydantic(frame: FrameType | None) -> bool:
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] == "pydantic":
            return True
        frame = frame.f_back
    return False


def main(path: str) -> int:
    """Run the attempt in `path` to its end and return its exit code; NO_ROOM where the disk takes not even that."""
    try:
        return _run_folder(RunFolder(Path(path)))
    except OSError as error:
        if error.errno not in filesystem.FULL:
            raise
        return NO_ROOM


def _run_folder(folder: RunFolder) -> int:
    if not folder.begin():
        return SECOND
    write_whole(folder.path / "worker", identity(os.getpid()))
    yield_memory_first(300)
    keys = receive_keys(folder)
    if redaction := Redaction(keys.values()):
        plain = sys.stdout, sys.stderr
        redacted = [RedactedStream(each, redaction) for each in plain]
        sys.stdout, sys.stderr = (cast(TextIO, each) for each in redacted)
        redirect_logging(zip(plain, redacted, strict=True))
    signal.signal(signal.SIGTERM, _stop)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # a line for each of a thousand calls hides all others
    fault("worker_before_run")
    try:
        outcome = perform(folder, keys)
    except Stopped:  # between the run's end and here
        outcome = Outcome(RESUMABLE, "stopped", "stopped on request")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for each in (sys.stdout, sys.stderr):
        if isinstance(each, RedactedStream):
            each.drain()
    fault("worker_before_exit")
    folder.end(_redacted(outcome, redaction))
    fault("worker_after_exit")
    return outcome.code


def _with_paths_here(document: Mapping[str, Any], spec: RunDocument) -> Mapping[str, Any]:
    """JSON whose texts name files by their paths on the daemon's machine, where they were moved to this node."""
    moved = spec.get("moved", {})
    longest_first = sorted(moved, key=len, reverse=True)

    def change(text: str) -> str:
        for there in longest_first:
            text = text.replace(there, moved[there])
        return text

    return {name: map_texts(value, change) for name, value in document.items()} if moved else document


def _redacted(outcome: Outcome, redaction: Callable[[str], str]) -> Outcome:
    """The outcome without the run's keys, which an error may quote."""
    calls = json.loads(redaction(json.dumps(outcome.next)))
    return outcome._replace(
        message=redaction(outcome.message),
        recovery=redaction(outcome.recovery),
        detail=redaction(outcome.detail),
        next=tuple(calls),
    )


if __name__ == "__main__":
    os._exit(run_program(lambda: main(sys.argv[1])))  # a lane that a training left behind is not waited for
