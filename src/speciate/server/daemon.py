"""The process that owns a workspace: `python -m speciate.server.daemon --workspace DIR [--detach]`.

This file is what happens before anything heavy is imported: leave the caller's session, win the election (losers end
with status 75 in a few milliseconds), turn output into the log, tell the starter. Then `service.py` serves.

The starter reads our standard output to its end. The last line is JSON: `{"won": true}` once we listen, `{"won":
false}` after a lost election, or the error, with `message`.
"""

from __future__ import annotations

import argparse
import contextlib
import grp
import importlib
import logging
import logging.handlers
import os
from collections.abc import Mapping
from pathlib import Path

from speciate.environment import allocate_plainly, import_without_pandas, uncollected
from speciate.errors import Code, SpeciateError
from speciate.server.protocol import encode, refusal
from speciate.workspace import filesystem
from speciate.workspace.lock import Lock, LockHeldError, unusable_error

LOST = 75
"""Exit status of a candidate that found the workspace owned (EX_TEMPFAIL)."""
_LOG_BYTES, _LOGS_KEPT = 2 << 20, 3


class _DaemonLog(logging.handlers.RotatingFileHandler):
    """daemon.log. Takes over the descriptors 1 and 2 as well, so that what native libraries print lands there too."""

    def doRollover(self) -> None:  # noqa: N802 - the name is logging's
        super().doRollover()
        self.take_output()

    def take_output(self) -> None:
        assert self.stream, "opened at once, and again after each rollover"
        for descriptor in (1, 2):
            os.dup2(self.stream.fileno(), descriptor)


class Starter:
    """The process that started us, at the other end of our first standard output. It may be gone."""

    def __init__(self) -> None:
        self._descriptor: int | None = os.dup(1)

    def tell(self, report: Mapping[str, object]) -> None:
        """Say how it went, and let go. Only the first word counts."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.write(self._descriptor, encode(report))
            os.close(self._descriptor)
            self._descriptor = None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m speciate.server.daemon")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--detach", action="store_true", help="leave the caller's session and return at once")
    parser.add_argument("--group", help="serve its members, too, at the system's socket")
    parser.add_argument("--stay", action="store_true", help="do not end when idle")
    parser.add_argument("--fixture", type=Path, action="append", default=[], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    root = Path(os.path.realpath(arguments.workspace))
    os.umask(0o077)
    if arguments.detach:
        _detach()
    starter, start = Starter(), contextlib.ExitStack()

    def ready() -> None:
        starter.tell({"won": True})
        start.close()

    try:
        lock = Lock(root)
        _log_to(root / "daemon.log")
        start.enter_context(uncollected())
        filesystem.require_local(root)
        allocate_plainly()
        import_without_pandas("pyarrow")
        # opened before most is imported: what is refused here, a lost catalog or broken settings, is heard sooner
        workspace = importlib.import_module("speciate.workspace.workspace").Workspace(root)
        executor = importlib.import_module("speciate.jobs.executors").executor_here(workspace)
        importlib.import_module("speciate.serving.preloading").begin_imports(workspace, executor)
        serve = importlib.import_module("speciate.server.service").serve
        group = grp.getgrnam(arguments.group).gr_gid if arguments.group else None
        serve(workspace, lock, ready, arguments.fixture, stay=arguments.stay, group=group, executor=executor)
    except LockHeldError:
        starter.tell({"won": False})
        return LOST
    except SpeciateError as error:
        logging.error("%s", error)
        starter.tell(refusal(error))
        return 1
    except OSError as error:
        logging.exception("the daemon cannot run")
        starter.tell(refusal(unusable_error(root, error)))
        return 1
    except Exception as error:
        logging.exception("the daemon failed")
        starter.tell(refusal(_startup_error(root, error)))
        return 70
    return 0


def _detach() -> None:
    """Become a child of nobody: a client that kills its children's tree must not reach us."""
    if os.fork():
        os._exit(0)
    os.setsid()


def _log_to(path: Path) -> None:
    handler = _DaemonLog(path, maxBytes=_LOG_BYTES, backupCount=_LOGS_KEPT)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.take_output()
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _startup_error(root: Path, error: Exception) -> SpeciateError:
    """What is not ours to refuse: a disk that filled up under DuckDB, or a defect."""
    if (explanation := filesystem.explain(error, root)) is not None:
        return explanation
    return SpeciateError(
        Code.INTERNAL,
        f"The daemon of {root} failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
        f"The traceback is in {root / 'daemon.log'}.",
    )


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    os._exit(status)  # threads of calls that nobody waits for any more must not hold the lock
