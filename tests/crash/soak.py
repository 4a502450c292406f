"""The soak: kill -9 over every kind of process while clients work, a disk fills and empties, and connections flood.

`python -m tests.crash.soak --kills 1000` from the project's root; as root the workspace lies on a small file system of
its own that fills up now and then, as another user that part is left out and the last line says so. It prints a line
every minute, then counts, as JSON, and ends with 1 where a promise was broken:

- no acknowledged job is lost, and none runs twice at once or begins an attempt twice;
- no client that lives waits longer than 60 s for the answer to a call;
- after `speciate deployment stop` and `speciate stop` no process of the workspace is left;
- the audit, the aliases and the events agree, and the deployment answers again after each kill.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import psutil

from speciate.environment import socket_path
from speciate.serving import deployments
from speciate.serving.deployment_folder import deployment_folder
from speciate.settings import Settings
from speciate.workspace.workspace import Folders, Workspace
from tests.crash.world import FIXTURE, World
from tests.serving.world import USE_CASE, move, trained

CLIENT = Path(__file__).with_name("soak_client.py")
DISK_MB, CLIENTS = 1500, 4  # runs stop where less than 512 MB are free
ROLES = ("daemon", "supervisor", "worker", "run", "zygote", "warm parent", "service", "deployment", "shim", "http")
"""Whom a kill meets: of those that live, whoever was met least so far. `run`: a supervisor with its worker."""
_MOST = 0.16
"""Of all kills, for one role: shims come back at once, and would take most while a daemon starts."""
_KILLS_A_RUN = 10
"""Kills wait for the work: so many at most before another run begins. On a busy machine nothing would ever be finished
else: whatever comes up is killed before it has done anything, and the rest of the soak shows nothing."""
FLOOD, FLOOD_SECONDS = 300, 4.0
_LEFT_SECONDS, _BACK_SECONDS = 60.0, 120.0


class Outcome(NamedTuple):
    kills: dict[str, int]
    acknowledged: int
    broken: list[str]
    """Each promise that was not kept, in words."""
    counts: dict[str, Any]


class Soak:
    def __init__(self, root: Path, kills: int, seed: int) -> None:
        self.root, self.wanted = root, kills
        self.world = World(root)
        self.chance = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self._clients: list[subprocess.Popen[str]] = []
        self._stop = threading.Event()

    def run(self) -> Outcome:
        self._production()
        self.world.race_daemons(3)
        for number in range(CLIENTS):
            argv = [str(CLIENT), str(self.world.workspace), str(FIXTURE), f"agent{number}"]
            self._clients.append(
                subprocess.Popen(
                    [sys.executable, *argv, str(self.world.trace)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                    text=True, start_new_session=True,
                )
            )  # fmt: skip
        threads = [
            threading.Thread(target=each, daemon=True) for each in (self._ask, self._flood, self._fill, self._http)
        ]
        for thread in threads:
            thread.start()
        broken = []
        try:
            self._kill_all_along()
            reports = self._reports()
            broken += self._answers_again()
            self._stop.set()
            for thread in threads:
                thread.join(120)
            broken += [f"a client ended with: {text[-1500:]}" for text in reports if "\ndone " not in f"\n{text}"]
            self.counts["reconnects"] = sum(
                len(file.read_text().splitlines()) for file in self.world.trace.glob("*.reconnects")
            )
            broken += self._stopped()
        finally:
            self._stop.set()
            for client in self._clients:
                client.kill()
            self.world.stop()
        verdict = self.world.verdict()
        broken += verdict.wrong()
        return Outcome(dict(self.world.kills), verdict.acknowledged, broken, dict(self.counts))

    # The world

    def _production(self) -> None:
        """A use case with a version that serves."""
        workspace = Workspace(self.world.workspace, settings=Settings(policy="auto"))
        try:
            (self.world.workspace / "settings.toml").write_text('policy = "auto"\n\n[retention]\ngc_hours = 0.02\n')
            move(workspace, trained(workspace).ref)
            deployments.start_deployment(workspace, USE_CASE)
        finally:
            workspace.close()

    def _kill_all_along(self) -> None:
        began = told = time.monotonic()
        runs = kills = 0
        while any(client.poll() is None for client in self._clients):
            if self.world.kills.total() >= self.wanted:
                (self.world.trace / "enough").touch()
            elif (self.world.kills.total() - kills) < _KILLS_A_RUN:
                for role in sorted(ROLES, key=lambda each: (self.world.kills[each], self.chance.random())):
                    if self.world.kills[role] <= _MOST * (self.world.kills.total() + 20) and self._kill(role):
                        break
            if (now := len(self.world.began())) > runs:
                runs, kills = now, self.world.kills.total()
            time.sleep(self.chance.uniform(0.1, 0.9))
            if time.monotonic() - told > 60:
                told = time.monotonic()
                print(f"{told - began:.0f} s, kills {dict(self.world.kills)}, {dict(self.counts)}", flush=True)

    def _kill(self, role: str) -> bool:
        """A daemon that is only starting is spared nine times out of ten: else none would ever serve."""
        if role == "run":
            return self.world.kill_run()
        if role == "daemon" and self.chance.random() < 0.9 and not self._listens():
            return False
        killed = self.world.kill(role, self.chance)
        if killed and role == "daemon":
            self.world.race_daemons(self.chance.choice((1, 3)))
        return killed

    def _listens(self) -> bool:
        with contextlib.suppress(OSError):
            _connected(str(socket_path(self.world.workspace))).close()
            return True
        return False

    def _reports(self) -> list[str]:
        return [client.communicate(timeout=600)[0].strip() for client in self._clients]

    def _answers_again(self) -> list[str]:
        """Whether the deployment serves once nobody kills it any more."""
        before, end = self.counts["answered"], time.monotonic() + _BACK_SECONDS
        while self.counts["answered"] == before and time.monotonic() < end:
            time.sleep(0.2)
        return [] if self.counts["answered"] > before else ["the deployment did not come back"]

    def _stopped(self) -> list[str]:
        """End all of it as a person would, and look what is left."""
        for words in (["deployment", "stop", USE_CASE], ["stop"]):
            done = subprocess.run(
                [sys.executable, "-m", "speciate.cli", *words, "--workspace", str(self.world.workspace)],
                capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
            if done.returncode:
                return [f"`speciate {' '.join(words)}` failed: {done.stderr}"]
        end, left = time.monotonic() + _LEFT_SECONDS, self._living()
        while left and time.monotonic() < end:
            time.sleep(0.5)
            left = self._living()
        self.counts["left after stop"] = len(left)
        return [f"left after stop: {line}" for line in left]

    def _living(self) -> list[str]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                line = process.cmdline()
                mine = any(part.startswith(str(self.world.workspace)) for part in line)
                if mine and process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                    found.append(" ".join(line))
        return found

    # What goes on beside the kills, a thread each

    def _ask(self) -> None:
        """Answers over HTTP from the deployment. One that dies comes back; nothing is asked of the time between."""
        folder = deployment_folder(Folders(self.world.workspace), USE_CASE)
        body = json.dumps({"inputs": [{"text": "a good film"}]})
        while not self._stop.wait(0.05):
            try:
                port, token = folder.state().port, folder.token().strip()
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
                self.counts["asked"] += 1
                connection.request("POST", "/predict", body, headers)
                answer = connection.getresponse()
                answer.read()
                self.counts["answered" if answer.status == 200 else f"answered {answer.status}"] += 1
                connection.close()
            except TimeoutError:
                self.counts["deployment timed out"] += 1
            except (OSError, http.client.HTTPException, ValueError):
                self.counts["deployment down"] += 1

    def _http(self) -> None:
        """`speciate serve --http`, started again when it is killed."""
        argv = [sys.executable, "-m", "speciate.cli", "serve", "--http", "0", "--workspace", str(self.world.workspace)]
        argv += ["--fixture", str(FIXTURE)]  # whoever starts the daemon brings the clients' tools
        while not self._stop.is_set():
            process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while process.poll() is None and not self._stop.wait(0.5):
                pass
            process.terminate()
            process.wait()
            self.counts["http starts"] += 1

    def _flood(self) -> None:
        """Idle connections by the hundred, at the daemon's socket and at every port of its process."""
        while not self._stop.wait(10):
            idle = []
            path = str(socket_path(self.world.workspace))
            for number in range(FLOOD):
                with contextlib.suppress(OSError):
                    idle.append(_connected(path if number % 2 else self._port()))
            self.counts["idle connections"] += len(idle)
            self._stop.wait(FLOOD_SECONDS)
            for each in idle:
                each.close()

    def _port(self) -> int:
        for process in self.world.processes()["daemon"]:
            with contextlib.suppress(psutil.Error):
                for connection in process.net_connections("tcp"):
                    if connection.status == psutil.CONN_LISTEN:
                        return int(connection.laddr.port)
        return 9  # discard: nobody listens

    def _fill(self) -> None:
        """Fill the workspace's own file system to the last byte, for a few seconds at a time."""
        if not os.path.ismount(self.root):
            self.counts["disk not filled: not a file system of its own"] = 1
            return
        stuffing = self.root / "stuffing"
        while not self._stop.wait(45):
            with contextlib.suppress(OSError), stuffing.open("wb", buffering=0) as file:
                _stuff(file)
            self.counts["disk filled"] += 1
            self._stop.wait(5)
            stuffing.unlink(missing_ok=True)


def _stuff(file: IO[bytes]) -> None:
    """Write until nothing more goes in: first megabytes, then single bytes. Raises OSError ENOSPC in the end."""
    for size in (1 << 20, 1 << 12, 1):
        with contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * size)


def _connected(address: str | int) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    connection.settimeout(2)
    try:
        connection.connect(address if isinstance(address, str) else ("127.0.0.1", address))
    except OSError:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def place(megabytes: int = DISK_MB) -> Iterator[Path]:
    """A folder; as root a file system of this size."""
    with tempfile.TemporaryDirectory(prefix="speciate-soak-") as folder:
        mounted = (
            os.geteuid() == 0
            and not subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=False, capture_output=True
            ).returncode
        )
        try:
            yield Path(folder)
        finally:
            if mounted:
                subprocess.run(["umount", "-l", folder], check=False)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(argv)
    with place() as root:
        began = time.monotonic()
        outcome = Soak(root, given.kills, given.seed).run()
    print(json.dumps(outcome._asdict() | {"seconds": round(time.monotonic() - began)}, indent=2))
    return bool(outcome.broken)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
