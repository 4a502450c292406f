"""A real Ray of two nodes on this machine, from an environment of its own; speciate's has no ray.

`python -m tests.jobs.places.ray_cluster build/ray` makes that environment (`make test-clusters` does).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from tests.jobs.places.cluster import until
from tests.jobs.places.slurm_cluster import free_ports

INSTALLED = Path(__file__).parents[3] / "build" / "ray"
TOKEN = "a-token-of-tests"


def install(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(folder / "bin" / "pip"), "install", "--quiet", "ray[default]==2.60.0"], check=True)


def why_not(folder: Path = INSTALLED) -> str:
    """Why it cannot run here; empty where it can."""
    return "" if (folder / "bin" / "ray").exists() else f"no Ray in {folder}: make test-clusters installs one"


class RayCluster:
    """`rocksdb`: the head keeps what it knows on disk."""

    def __init__(self, *, rocksdb: bool = True, installed: Path = INSTALLED) -> None:
        self._ray = installed.resolve() / "bin" / "ray"
        self._state = state = Path(tempfile.mkdtemp(prefix="ray-"))  # short: a socket's path has 107 bytes
        self._again: list[subprocess.Popen[bytes]] = []
        self._port, self._dashboard, self._client = free_ports(3)
        self.token = state / "token"
        self.token.write_text(TOKEN)
        self.token.chmod(0o600)
        # `ray start` waits 15 s for agents that write down their ports: too little for a busy machine.
        self._env = {
            **os.environ, "RAY_DISABLE_DASHBOARD_LOG_INFO": "1", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "RAY_agent_register_timeout_ms": "150000", "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "150",
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0",
            **({"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(state / "gcs")} if rocksdb else {}),
        }  # fmt: skip
        self._blocks = {name: free_ports(6) for name in ("head", "node")}
        self.address = f"http://127.0.0.1:{self._dashboard}"
        try:
            self._start(
                "head", "--head", f"--port={self._port}", "--num-cpus=0", f"--dashboard-port={self._dashboard}",
                "--dashboard-host=127.0.0.1", f"--temp-dir={state}/t", f"--ray-client-server-port={self._client}",
            )  # fmt: skip
            until(self.answers, 120)
            self.begin_node()
        except BaseException:
            self.close()
            raise

    def begin_node(self) -> None:
        self._start("node", f"--address=127.0.0.1:{self._port}", "--num-cpus=4", "--num-gpus=2")

    def _start(self, name: str, *more: str) -> None:
        agent, grpc, environment, metrics, node, objects = self._blocks[name]
        ports = {
            "dashboard_agent_listen_port": agent, "metrics_agent_port": grpc, "runtime_env_agent_port": environment,
            "metrics_export_port": metrics,
        }  # fmt: skip
        over = threading.Event()
        teller = threading.Thread(target=self._tell_ports, args=(ports, over), daemon=True)
        teller.start()
        try:
            done = subprocess.run(
                [
                    str(self._ray), "start", "--disable-usage-stats", "--node-ip-address=127.0.0.1",
                    "--object-store-memory=80000000", f"--dashboard-agent-listen-port={agent}",
                    f"--dashboard-agent-grpc-port={grpc}", f"--runtime-env-agent-port={environment}",
                    f"--metrics-export-port={metrics}", f"--node-manager-port={node}",
                    f"--object-manager-port={objects}", *more,
                ],
                env=self._env, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        finally:
            over.set()
            teller.join()

    def _tell_ports(self, ports: dict[str, int], over: threading.Event) -> None:
        """A raylet aborts where its agent needs more than 15 s to write down its ports, which nothing changes. We chose
        them, so we write them down as soon as the raylet has an id."""
        while not over.wait(0.1):
            for words in self.processes().values():
                given = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
                if given.get("--listen-port") == str(ports["dashboard_agent_listen_port"]) and "--node-id" in given:
                    for name, port in ports.items():
                        path = Path(given["--session-dir"]) / f"{name}_{given['--node-id']}"
                        if not path.exists():
                            path.write_text(str(port))

    def answers(self) -> bool:
        request = urllib.request.Request(f"{self.address}/api/jobs/", headers={"Authorization": f"Bearer {TOKEN}"})
        try:
            with urllib.request.urlopen(request, timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def ask(self, path: str) -> object:
        request = urllib.request.Request(f"{self.address}{path}", headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def processes(self) -> dict[int, list[str]]:
        """The command lines of its own processes, told by its folder and port."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                except OSError:
                    continue
                line = " ".join(words)
                if str(self._ray.parents[1]) in line and (f"{self._state}/" in line or f":{self._port}" in line):
                    found[int(entry.name)] = words
        return found

    def raylet_of_the_node(self) -> int:
        port = f"--node_manager_port={self._blocks['node'][4]}"
        return next(pid for pid, words in self.processes().items() if words[0].endswith("/raylet") and port in words)

    def kill_head(self) -> list[tuple[list[str], dict[str, str]]]:
        """Kill the processes that know and that answer; how each was started, for `begin_again`."""
        lost = []
        for pid, words in self.processes().items():
            if words[0].endswith("/gcs_server") or any(word.endswith("dashboard/dashboard.py") for word in words):
                given = (Path("/proc") / str(pid) / "environ").read_bytes().decode(errors="replace").split("\0")
                lost.append((words[:-1], dict(each.split("=", 1) for each in given if "=" in each)))
                os.kill(pid, signal.SIGKILL)
        return lost

    def begin_again(self, lost: list[tuple[list[str], dict[str, str]]]) -> None:
        for argv, env in lost:
            self._again.append(subprocess.Popen(
                argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                start_new_session=True,
            ))  # fmt: skip
        until(self.answers, 120)

    def close(self) -> None:
        for _ in range(3):
            for pid in self.processes():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.3)
        for process in self._again:
            process.wait()
        shutil.rmtree(self._state, ignore_errors=True)


if __name__ == "__main__":
    folder = Path(sys.argv[1]).absolute()
    if why_not(folder):
        install(folder)
