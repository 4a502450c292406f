"""A process that has made the imports of runs once, and forks their supervisors and workers.

`python -m speciate.jobs.zygote WORKSPACE PROCESS PID ADDRESS=LISTENER ...`, PID being that of its parent, the daemon.
It is a warm parent (`sandbox.warm_parent`, which says when it retires): it computes nothing, starts no thread of its
own, never touches a GPU, holds neither catalog nor a client's connection, and reads nothing that is asked of it, so a
fork of it is as good as a new interpreter that has imported. There are three such processes: PROCESSES.

A fork leads a session of its own and lives on whoever else dies: daemon, zygote and who asked.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import os
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn, TypedDict

from speciate.faults import fault, reread
from speciate.sandbox import warm_child
from speciate.sandbox.warm import SKLEARN
from speciate.sandbox.warm_parent import Listener, WarmParent, serve

_DATA = ("numpy", "pyarrow.parquet")
_TORCH = ("torch", "safetensors.torch")
_NETWORKS = (  # transformers loads these late, each fork would pay for them
    "transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto",
    "transformers.models.bert.modeling_bert",
)  # fmt: skip
_LEAN = (*_TORCH, "speciate.models.backbones.lean_import:import_networks", *_NETWORKS)
_WHOLE = (*_TORCH, "transformers.modeling_utils", *_NETWORKS)
PRELOADS = {
    "classical": (*_DATA, *SKLEARN),
    "networks": (*_DATA, "sklearn.linear_model", *_LEAN),
    "optimizer": (*_DATA, "sklearn.linear_model", *_LEAN, "torch._dynamo"),  # which torch's optimizers import
    "torch": (*_DATA, "sklearn.linear_model", *_WHOLE),
    "language": (*_DATA, *_WHOLE, "transformers.models.llama.modeling_llama", "peft", "trl.trainer.sft_trainer"),
}
"""Profile of a run -> what is imported before its first fork. Of our own networks: "networks", or "optimizer" where
they learn; "torch" is for all."""
WHOLE = ("torch", "language")
"""Profiles of runs that need of transformers what `lean_import` leaves out, also where nothing was imported before."""
SUPERVISORS = "supervisors"
CONFINED = {"torch": "answers", "transformers": "networks-answers", "published": "published-answers"}
"""Family of a process that answers, as of `Pool.ask` -> what is forked for it, and sandboxed after the fork."""
PROCESSES: dict[str, tuple[str, ...]] = {
    "plain": (SUPERVISORS, "data", "classical"),
    "networks": ("networks", "optimizer", CONFINED["torch"], CONFINED["transformers"]),
    "torch": ("torch", "language", CONFINED["published"]),
}
"""Process -> what it forks, each with a socket of its own. A supervisor forks its plain worker itself. Two have torch:
where transformers was imported without its image processors (`lean_import`) they cannot be had later."""
_WORKER = ("speciate.worker", "speciate.training.train_run")
_ANSWERS = ("speciate.sandbox.serve", "speciate.serving.predict_worker")  # no scikit-learn: a network needs none
_MODULES: dict[str, tuple[str, ...]] = {
    SUPERVISORS: ("speciate.jobs.supervisor", "speciate.worker", "speciate.jobs.kinds", "speciate.workspace.workspace"),
    "data": (*_DATA, "speciate.worker", "speciate.datasets.ingest.ingest", "speciate.datasets.curate"),
    **{name: (*PRELOADS[name], *_WORKER) for name in PRELOADS},
    CONFINED["torch"]: (*_DATA, *_TORCH, *_ANSWERS),
    CONFINED["transformers"]: (*_DATA, *_LEAN, *_ANSWERS),
    CONFINED["published"]: (*_DATA, *_WHOLE, *_ANSWERS),
}
"""Names alone, for some lie above this room."""


def modules(process: str) -> tuple[str, ...]:
    """All modules that one of PROCESSES comes to import."""
    return tuple(dict.fromkeys(name for family in PROCESSES[process] for name in _MODULES[family]))


class Program(TypedDict):
    """What an unconfined fork is to be."""

    entry: str
    """`module:function`, which takes the arguments and returns the exit status."""
    arguments: list[str]
    environment: dict[str, str]
    cwd: str
    streams: int
    """How many of the descriptors become its standard streams, in their order; the others are inherited as they are."""


class Zygote(WarmParent):
    def forked(self, listener: Listener) -> None:
        if listener.become is become_worker:
            fault("zygote_forked")
        elif listener.become is become_supervisor:
            fault("supervisor_forked")


def become_supervisor(connection: socket.socket, parent: int) -> NoReturn:
    _become(connection)


def become_worker(connection: socket.socket, parent: int) -> NoReturn:
    _become(connection)


def _become(connection: socket.socket) -> NoReturn:
    """In the fork: become the program that is asked for."""
    code = 70
    try:
        document, descriptors = warm_child.receive(connection)
        program: Program = document
        connection.close()
        streams, kept = descriptors[: program["streams"]], descriptors[program["streams"] :]
        os.environ.clear()
        os.environ.update(program["environment"])
        reread()
        tempfile.tempdir = None  # as that environment says
        module, _, function = program["entry"].partition(":")
        show(module, *program["arguments"])
        settle(streams, kept, program["cwd"])
        code = run(lambda: getattr(importlib.import_module(module), function)(*program["arguments"]))
    except EOFError:
        code = 0  # it was only to be seen to that the imports are made
    except BaseException:  # noqa: BLE001 - there may be no log yet
        traceback.print_exc()
    finally:
        os._exit(code)


def settle(streams: Sequence[int], kept: Sequence[int], cwd: str) -> None:
    """In a fork: a session of its own, these standard streams (nothing in the place of one that lacks), of the other
    descriptors only those that it is to keep, and what the parent had set for itself."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for number in range(3):
        os.dup2(streams[number] if number < len(streams) else null, number)
    warm_child.close_all_but({0, 1, 2, *kept})
    os.chdir(cwd)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()
    gc.enable()


def show(module: str, *arguments: str) -> None:
    warm_child.show([sys.executable, "-m", module, *arguments])


def run(program: Callable[[], int]) -> int:
    """To its end, but for the interpreter's: to take apart what was imported would copy all of it."""
    try:
        return program()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter shows it
        traceback.print_exc()
        return 1
    finally:
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()


_BECOMES: dict[str, Callable[[socket.socket, int], NoReturn]] = {
    SUPERVISORS: become_supervisor, **dict.fromkeys(CONFINED.values(), warm_child.become),
}  # fmt: skip


def main(workspace: str, process: str, parent: str, *listening: str) -> int:
    """`listening`: ADDRESS=LISTENER, in the order of PROCESSES."""
    addresses, numbers = zip(*(each.rsplit("=", 1) for each in listening if "=" in each), strict=True)

    def made(owner: int) -> Zygote:
        listeners = [
            Listener(
                socket.socket(fileno=int(number)), _BECOMES.get(family, become_worker), family in CONFINED.values(),
                list(_MODULES[family]),
            )
            for family, number in zip(PROCESSES[process], numbers, strict=True)
        ]  # fmt: skip
        return Zygote(listeners, owner, addresses)

    serve(made, parent)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
