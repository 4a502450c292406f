"""How long a page takes: the time from a request to its last byte, over loopback, by a session that looks.

    .venv/bin/python evals/bench/pages.py WORKSPACE [--count 200]

`WORKSPACE` is one with something in it, such as `build/demo/workspace`. Each page is asked once before it is timed. The
target is a use-case page at p95 <= 100 ms on two idle cores; the load is printed beside the figures.
"""

from __future__ import annotations

import argparse
import http.client
import os
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import speciate
from speciate.server.dial import dial
from speciate.server.protocol import CONTROL


class Session:
    """A browser's connection, as far as a page needs one."""

    def __init__(self, workspace: Path) -> None:
        answer = dial(workspace, CONTROL, action="open", level="look", keys=[])
        answer.line.close()
        link = urlsplit(answer.answer["result"]["url"])
        self._host, self._origin = link.netloc, f"http://{link.netloc}"
        self._connection = http.client.HTTPConnection("127.0.0.1", link.port)
        kind = {"content-type": "text/plain", "origin": self._origin}
        _, cookie = self._ask("POST", "/open", link.fragment.encode(), kind)
        self._cookie = cookie.partition(";")[0]

    def seconds(self, path: str) -> tuple[float, int]:
        """Of one page, and its bytes."""
        began = time.perf_counter()
        data, _ = self._ask("GET", path, b"", {"cookie": self._cookie})
        return time.perf_counter() - began, len(data)

    def _ask(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[bytes, str]:
        self._connection.request(method, path, body, {"host": self._host, "sec-fetch-site": "same-origin", **headers})
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status} {data[:200]!r}")
        return data, answer.headers.get("set-cookie", "")


def pages(workspace: Path) -> list[str]:
    """Of everything that is there, the first of its kind."""
    client = speciate.connect(workspace)
    found = ["/", "/runs", "/data", "/models", "/audit"]
    for use_case in client.get_status().use_cases[:1]:
        found += [f"/use-cases/{use_case.name}", f"/use-cases/{use_case.name}/production"]
    listed = client.call("describe_dataset", limit=1)["datasets"]
    found += [f"/data/{name}/v{number}" for each in listed for name, number in [each["version"].split("@v")]]
    jobs = client.call("list_jobs", kind="evaluate", state="succeeded", limit=1)["jobs"]
    ended = [client.call("get_job", job=each["job"]) for each in jobs]
    return found + [f"/evaluations/{each['result']['evaluation']}" for each in ended]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--count", type=int, default=200)
    arguments = parser.parse_args()
    found = pages(arguments.workspace)
    session = Session(arguments.workspace)
    print(f"load {os.getloadavg()[0]:.1f}, {arguments.count} requests each")
    for path in found:
        _, size = session.seconds(path)
        taken = sorted(session.seconds(path)[0] * 1000 for _ in range(arguments.count))
        p95 = taken[int(0.95 * (len(taken) - 1))]
        print(f"{path:60} {size / 1000:6.1f} kB  p50 {statistics.median(taken):6.1f} ms  p95 {p95:6.1f} ms")


if __name__ == "__main__":
    main()
