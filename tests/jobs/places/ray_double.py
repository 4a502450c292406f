"""A double of the REST interface of Ray's jobs, in a thread: it answers as Ray 2.60 does, and starts processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from speciate.settings import Place

TOKEN = "t0ken"


class RayDouble:
    """`away`, `full` and `says` are files, as of the double of Slurm's programs: no answer, nothing begins, and one
    state that is said of every job. `open`: it wants no token. `starved`: launches ended for want of room."""

    def __init__(self, folder: Path) -> None:
        self.jobs, self.depot, self.scratch = folder / "jobs", folder / "depot", folder / "scratch"
        for each in (self.jobs, self.depot, self.scratch):
            each.mkdir(parents=True)
        self.token = folder / "token"
        self.token.write_text(f"{TOKEN}\n")
        self.token.chmod(0o600)
        self.known: dict[str, dict[str, Any]] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.lock, self.asked = threading.Lock(), list[str]()
        double = self

        class Handler(_Handler):
            ray = double

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        for process in self._processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def place(self, **changes: object) -> Place:
        return Place.model_validate(
            {
                "kind": "ray", "depot": self.depot, "python": sys.executable, "address": self.address,
                "token_file": self.token, "scratch": self.scratch, "lease_seconds": 6, **changes,
            }
        )  # fmt: skip

    def set(self, name: str, text: str = "") -> None:
        (self.jobs / name).write_text(text)

    def unset(self, name: str) -> None:
        (self.jobs / name).unlink()

    def launches(self) -> list[str]:
        return sorted(path.name.rpartition(".")[0] for path in self.jobs.glob("*.words"))

    # What Ray does

    def submit(self, body: dict[str, Any]) -> tuple[int, object]:
        name = body["submission_id"]
        if name in self.known:
            return (
                500,
                f"ValueError: Job with submission_id {name} already exists. Please use another one.",
            )
        number = len(list(self.jobs.glob("*.words")))
        script = self.jobs / f"{name}.{number:06}.sh"
        script.write_text(body["entrypoint"])
        script.with_suffix(".words").write_text(json.dumps(body))
        self.known[name] = {**body, "type": "SUBMISSION", "status": "PENDING", "error_type": None}
        if not (self.jobs / "full").exists():
            with script.with_suffix(".log").open("wb") as log:
                self._processes[name] = subprocess.Popen(
                    ["/bin/sh", str(script)], stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                    env={**os.environ, "RAY_AUTH_TOKEN": TOKEN},
                )  # fmt: skip
        return 200, {"job_id": name, "submission_id": name}

    def job(self, name: str) -> dict[str, Any]:
        found = self.known[name]
        if (process := self._processes.get(name)) is not None:
            code = process.poll()
            found["status"] = "RUNNING" if code is None else "SUCCEEDED" if code == 0 else "FAILED"
        if (self.jobs / "starved").exists() and found["status"] == "PENDING":
            return {**found, "status": "FAILED", "error_type": "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"}
        says = self.jobs / "says"
        return {**found, "status": says.read_text().replace("NODE_FAIL", "FAILED")} if says.exists() else found

    def stop(self, name: str) -> None:
        process = self._processes.get(name)
        if process is None:
            self.known[name]["status"] = "STOPPED"
        elif process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            threading.Thread(target=_kill_later, args=(process,), daemon=True).start()

    def log(self, name: str) -> str:
        """Ray's own begins with the entrypoint."""
        began = f"Running entrypoint for job {name}: {self.known[name]['entrypoint']}\n"
        return began + "".join(path.read_text() for path in sorted(self.jobs.glob(f"{name}.*.log")))


def _kill_later(process: subprocess.Popen[bytes]) -> None:
    time.sleep(3)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


class _Handler(BaseHTTPRequestHandler):
    ray: RayDouble
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if (self.ray.jobs / "away").exists():
            self.close_connection = True
            return
        with self.ray.lock:
            self.ray.asked.append(f"{self.command} {self.path}")
            status, found = self._find(json.loads(body) if body else {})
        data = found.encode() if isinstance(found, str) else json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - the names that http.server calls

    def _find(self, body: dict[str, Any]) -> tuple[int, object]:
        given = self.headers.get("Authorization")
        if given != f"Bearer {TOKEN}" and not (self.ray.jobs / "open").exists():
            return (403, "Forbidden") if given else (401, "Unauthorized: Missing authentication token")
        parts = self.path.strip("/").split("/")[1:]
        match self.command, parts:
            case "GET", ["version"]:
                return 200, {"version": "4", "ray_version": "2.60.0", "ray_commit": "x", "session_name": "x"}
            case "GET", ["jobs"]:
                return 200, [{"submission_id": name, **self.ray.job(name)} for name in self.ray.known]
            case "POST", ["jobs"]:
                return self.ray.submit(body)
            case _, ["jobs", name, *_] if name not in self.ray.known:
                return 404, f"Job {name} does not exist"
            case "GET", ["jobs", name]:
                return 200, {"submission_id": name, **self.ray.job(name)}
            case "GET", ["jobs", name, "logs"]:
                return 200, {"logs": self.ray.log(name)}
            case "POST", ["jobs", name, "stop"]:
                self.ray.stop(name)
                return 200, {"stopped": True}
            case "DELETE", ["jobs", name]:
                del self.ray.known[name]
                return 200, {"deleted": True}
        return 405, "Method Not Allowed"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the method that this replaces
        """Nothing is written to the terminal."""
