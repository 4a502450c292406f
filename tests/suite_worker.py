"""Workers of pytest-xdist, forked of a process that has imported all that they collect: each that is executed spends
half a minute of a core on that.

As `__main__`, what such a worker is: told over its standard input what to be.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
from collections.abc import Mapping, Sequence

import pytest


def serve(numbers: Mapping[str, int], folder: str, watched: int, collected: Sequence[str]) -> None:
    """Import what these arguments of pytest collect, then fork until the process that starts workers is gone. As of
    `forks.serve`."""
    watch = os.pidfd_open(watched)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        # without captures: what binds sys.stderr when it is imported would keep one that is closed
        pytest.main([*collected, "--collect-only", "-qq", "-s", "-p", "no:cacheprovider"])
        os.dup2(out, 1)
        from tests.forks import Forks  # after pytest, which wants to see imported what it rewrites

        Forks({name: socket.socket(fileno=number) for name, number in numbers.items()}, folder, watch).serve()
    finally:
        os._exit(0)


if __name__ == "__main__":
    random.seed()
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()
    exec(eval(sys.stdin.readline()))  # as execnet has it
