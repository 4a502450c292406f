"""Warm start to the first tool result, and the latency of a call: `speciate serve` against a bare SDK server.

Both are driven over stdio by the same small client with the same frames (initialize, initialized, tools/call). Warm
means that the workspace's daemon runs, as it does for every client but the first of a day. `list_options` answers from
memory, `list_jobs` reads the catalog, on both sides with the same statement. Rounds are interleaved.

    python evals/bench/first_result.py [--rounds 9] [--calls 200]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from figures import note

CALLS: Mapping[str, Mapping[str, object]] = {"list_options": {"kind": "modality"}, "list_jobs": {"limit": 20}}
BARE = [sys.executable, str(Path(__file__).with_name("bare_server.py"))]


class Client:
    """Newline-delimited JSON-RPC over a child's pipes."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._last = 0
        client = {"name": "bench", "version": "1"}
        self._ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client})
        self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def _send(self, message: dict[str, object]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def _ask(self, method: str, params: dict[str, object]) -> dict[str, object]:
        self._last += 1
        self._send({"jsonrpc": "2.0", "id": self._last, "method": method, "params": params})
        assert self._process.stdout
        while line := self._process.stdout.readline():
            message = json.loads(line)
            if message.get("id") == self._last:
                assert "result" in message, message
                return dict(message["result"])
        raise EOFError("the server went away")

    def call(self, tool: str, arguments: Mapping[str, object] | None = None) -> None:
        given = CALLS[tool] if arguments is None else arguments
        result = self._ask("tools/call", {"name": tool, "arguments": given})
        assert not result.get("isError"), result

    def close(self) -> None:
        self._process.communicate()


def measure(argv: Sequence[str], calls: int) -> dict[str, float]:
    """Seconds to the first result; per tool p50 and p95 of a call in milliseconds."""
    began = time.perf_counter()
    client = Client(argv)
    client.call("list_options")
    figures = {"warm start to first result, s": time.perf_counter() - began}
    for tool in CALLS:
        times = []
        for _ in range(calls):
            start = time.perf_counter()
            client.call(tool)
            times.append(1000 * (time.perf_counter() - start))
        figures |= {
            f"{tool} p50, ms": statistics.median(times),
            f"{tool} p95, ms": statistics.quantiles(times, n=20)[18],
        }
    client.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        speciate = str(Path(sys.executable).with_name("speciate"))
        ours = [speciate, "serve", "--workspace", folder + "/workspace"]
        Client(ours).close()  # starts the daemon
        pairs = [(measure(ours, options.calls), measure(BARE, options.calls)) for _ in range(options.rounds)]
        subprocess.run([speciate, "stop", "--workspace", folder + "/workspace"], stdout=subprocess.DEVNULL, check=True)
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {options.rounds} interleaved rounds, medians")
    for name in pairs[0][0]:
        ours, bare = ([pair[side][name] for pair in pairs] for side in (0, 1))
        what, _, unit = name.rpartition(", ")
        goal = 1.2 if "p50" in name else None
        found = note(what, ours, bare, unit=unit, peer="bare SDK server", goal=goal)
        print(f"{name}: speciate {found.ours:.3f}, bare SDK server {found.theirs:.3f}, ratio {found.ratio:.2f}")


if __name__ == "__main__":
    main()
