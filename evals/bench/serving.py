"""A deployment beside LitServe: requests per second, p50, p99 and start-up, with the same version of the same model.

Both run at once and are loaded in turns, so that a busy machine is busy for both; the figure is the median of the
pairs' ratios. LitServe has several settings (--peers), of which the best counts. Clients keep their connections and
ask again as soon as they were answered. What differs by design: the deployment takes a token, checks the input against
a schema, and decodes and computes in a sandboxed process; LitServe has neither, and brings uvloop and httptools along.

    python -m venv LS && LS/bin/pip install litserve
    SITE=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    printf '%s\n%s\n' "$SITE" "$PWD/src" > LS/lib/python3.11/site-packages/speciate.pth
    python evals/bench/serving.py LS/bin/python [--method classical|probe] [--pairs 5] [--seconds 8]
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from figures import note

import speciate
from speciate.server.client import Client
from speciate.serving import deployments
from speciate.serving.deployment_folder import deployment_folder
from speciate.workspace.workspace import Folders

USE_CASE, BATCH, WAIT_MS = "taste", 16, 3.0
SETTINGS = ("1-plain", "2-plain", "1-quick", "2-quick")
"""Of the peer: workers, and its usual queue or the one over ZeroMQ."""
PEER = Path(__file__).parent / "arms" / "litserve_serves.py"
_WORDS = ("film", "plot", "cast", "score", "scene", "ending", "actor", "story", "camera", "script")
_TONES = {"good": ("fine", "lovely", "bright", "moving"), "bad": ("dull", "awful", "flat", "tiresome")}


class Load(NamedTuple):
    per_second: float
    p50_ms: float
    p99_ms: float
    failed: int

    def __str__(self) -> str:
        failed = f", {self.failed} FAILED" if self.failed else ""
        return f"{self.per_second:7.0f} /s  p50 {self.p50_ms:6.2f} ms  p99 {self.p99_ms:6.2f} ms{failed}"


class Served(NamedTuple):
    port: int
    token: str
    start_seconds: float
    """From its command to its first answer."""


def texts(count: int) -> list[tuple[str, str]]:
    """Reviews of 32 words with their labels."""
    chance = random.Random(7)
    made = []
    for number in range(count):
        label = ("good", "bad")[number % 2]
        words = [chance.choice(_WORDS if chance.random() < 0.7 else _TONES[label]) for _ in range(32)]
        made.append((" ".join(words), label))
    return made


def prepare(root: Path, method: str, count: int = 400) -> Client:
    """A workspace whose use case has a model in production, made by the tools as anybody would."""
    (root / "exports").mkdir(parents=True)
    (root / "settings.toml").write_text('policy = "auto"\n')
    with (root / "exports" / "films.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(texts(count))
    client = speciate.connect(str(root))
    goal = {"metric": "accuracy", "target": 0.6}
    client.call("define_use_case", name=USE_CASE, task="text-classification", objective=goal)
    source = str(root / "exports" / "films.csv")
    made = done(client, client.call("create_dataset", name="films", source=source, modality="text", label="label"))
    parts = {"train": 0.5, "validation": 0.2, "test": 0.3}
    steps = [{"op": "split", "fractions": parts}]
    made = done(client, client.call("curate_dataset", dataset=made["dataset"], steps=steps))
    special = {"methods": [method]} | ({"base_models": ["pkg:minilm"]} if method == "probe" else {})
    ended = done(
        client, client.call("specialize", use_case=USE_CASE, dataset=made["dataset"], budget_minutes=10, **special)
    )
    print(f"{ended['model']}: {ended['promotion']}")
    return client


def done(client: Client, started: dict[str, object]) -> dict[str, str]:
    """The result of a job, once it has ended."""
    view = started
    while view.get("job") and view.get("state") not in ("succeeded", "failed", "cancelled", "dead"):
        view = client.call("wait_for_job", job=started["job"], timeout_seconds=45)
    if view.get("state", "succeeded") != "succeeded":
        sys.exit(json.dumps(view, indent=1))
    result: dict[str, str] = view.get("result") or view  # type: ignore[assignment]
    return result


def start_slot(root: Path) -> Served:
    began = time.monotonic()
    speciate_command = str(Path(sys.executable).parent / "speciate")
    options = ["--max-batch", str(BATCH), "--max-wait-ms", str(WAIT_MS), "--workspace", str(root)]
    subprocess.run([speciate_command, "deployment", "start", USE_CASE, *options], check=True, stdout=subprocess.DEVNULL)
    found = deployments.deployment_of(Folders(root), USE_CASE)
    assert found
    assert found.url
    port, token = int(found.url.rpartition(":")[2]), found.token.read_text()
    wait_for_answer(port, token)
    return Served(port, token, time.monotonic() - began)


def start_peer(python: str, folder: Path, settings: str) -> tuple[Served, subprocess.Popen[bytes]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    began = time.monotonic()
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    process = subprocess.Popen(
        [python, str(PEER), str(folder), str(port), str(BATCH), str(WAIT_MS), *settings.split("-")],
        env=environment | {"OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1"}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for_answer(port, "", process)
    return Served(port, "", time.monotonic() - began), process


def wait_for_answer(port: int, token: str, process: subprocess.Popen[bytes] | None = None) -> None:
    end = time.monotonic() + 300
    while time.monotonic() < end and (process is None or process.poll() is None):
        try:
            if asyncio.run(load(port, token, 1, 0.0)).failed == 0:
                return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing answers at port {port}")


async def load(port: int, token: str, connections: int, seconds: float) -> Load:
    """Each connection asks until so many seconds have passed, once at least."""
    asked = [_request(text, token) for text, _ in texts(64)]
    took: list[float] = []
    failed = 0
    end = time.monotonic() + seconds

    async def one(number: int) -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        turn = number
        while True:
            began = time.monotonic()
            writer.write(asked[turn % len(asked)])
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
            took.append(time.monotonic() - began)
            failed += not (head.startswith(b"HTTP/1.1 200") and b'"output"' in body)
            turn += 1
            if time.monotonic() >= end:
                break
        writer.close()

    began = time.monotonic()
    await asyncio.gather(*map(one, range(connections)))
    spent = time.monotonic() - began
    took.sort()
    return Load(len(took) / spent, 1000 * took[len(took) // 2], 1000 * took[int(0.99 * (len(took) - 1))], failed)


async def one_connection(port: int, token: str, calls: int) -> list[float]:
    """Milliseconds of each call, sorted; one after another over one connection."""
    took, asked = list[float](), [_request(text, token) for text, _ in texts(64)]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in range(calls):
        began = time.perf_counter()
        writer.write(asked[number % len(asked)])
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]))
        took.append(1000 * (time.perf_counter() - began))
        assert head.startswith(b"HTTP/1.1 200"), head
    writer.close()
    return sorted(took)


def _request(text: str, token: str) -> bytes:
    body = json.dumps({"inputs": [{"text": text}]}).encode()
    head = (
        f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def compare(ours: Served, theirs: Served, settings: str, connections: int, pairs: int, seconds: float) -> None:
    found: dict[str, list[Load]] = {"deployment": [], "LitServe": []}
    for number in range(pairs):
        order = [("deployment", ours), ("LitServe", theirs)]
        for name, served in order if number % 2 == 0 else reversed(order):
            found[name].append(asyncio.run(load(served.port, served.token, connections, seconds)))
            print(f"  {connections:3} connections  {name:8} {found[name][-1]}")
    both = list(zip(found["deployment"], found["LitServe"], strict=True))
    for name, unit, goal in (("per_second", "1/s", 1.3), ("p50_ms", "ms", None), ("p99_ms", "ms", 1.0)):
        mine, theirs = ([getattr(each, name) for each in found[side]] for side in found)
        what = f"deployment, {connections} connections, {name}"
        note(what, mine, theirs, unit=unit, peer=f"LitServe {settings}", goal=goal, more=name == "per_second")
    ratios = [
        statistics.median(getattr(mine, name) / getattr(peer, name) for mine, peer in both)
        for name in ("per_second", "p50_ms", "p99_ms")
    ]
    shown = ", ".join(f"{name} x{ratio:.2f}" for name, ratio in zip(("req/s", "p50", "p99"), ratios, strict=True))
    print(f"{connections} connections, median of {pairs} pairs, deployment / LitServe {settings}: {shown}\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("python", help="of an environment with LitServe that finds speciate, too")
    parser.add_argument("--method", choices=("classical", "probe"), default="classical")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--peers", nargs="+", default=SETTINGS, help="WORKERS-QUEUE of LitServe")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "workspace"
        client, process = prepare(root, arguments.method), None
        try:
            ours = start_slot(root)
            wanted = deployment_folder(Folders(root), USE_CASE).wanted()
            assert wanted
            assert wanted.target
            for settings in arguments.peers:
                theirs, process = start_peer(arguments.python, root / wanted.target.path, settings)
                print(
                    f"start-up to the first answer: deployment {ours.start_seconds:.1f} s, LitServe {settings} "
                    f"{theirs.start_seconds:.1f} s"
                )
                for connections in (1, 16):
                    compare(ours, theirs, settings, connections, arguments.pairs, arguments.seconds)
                os.killpg(process.pid, signal.SIGKILL)
                process = process.wait() and None
        finally:
            if process:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            deployment_folder(Folders(root), USE_CASE).stop()
            while deployment_folder(Folders(root), USE_CASE).alive():
                time.sleep(0.1)
            del client
            subprocess.run(
                [str(Path(sys.executable).parent / "speciate"), "stop", "--workspace", str(root)], check=False
            )


if __name__ == "__main__":
    main()
