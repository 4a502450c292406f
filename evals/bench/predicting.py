"""What an answer costs beside the model's own time: `predict` over MCP, and a deployment over HTTP, one caller.

The model's own time is that of the same version in this process, in the rounds between. What is counted is the
difference of the medians of a round: framing, checks, the log of answers, and the way to a sandboxed process and back.

    python evals/bench/predicting.py [--method classical|probe] [--rounds 5] [--calls 200]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import serving
from figures import note
from first_result import Client
from memory import look

from speciate.datasets.loading.loader import Example
from speciate.serving.deployment_folder import deployment_folder
from speciate.tasks import predictor
from speciate.workspace.workspace import Folders

GOALS = {"through MCP": 5.0, "through a deployment": 2.0}


def milliseconds(call: Callable[[int], object], calls: int) -> list[float]:
    took = []
    for number in range(calls):
        began = time.perf_counter()
        call(number)
        took.append(1000 * (time.perf_counter() - began))
    return sorted(took)


class FirstAnswer(NamedTuple):
    wall: float
    processor: float
    """Seconds of the daemon and all that it started, some of which work at once."""


def first_answer(root: Path, speciate: str, arguments: Mapping[str, object]) -> FirstAnswer:
    """Of a daemon that is started for it, with nothing imported and no model loaded."""
    subprocess.run([speciate, "stop", "--workspace", str(root)], check=True, stdout=subprocess.DEVNULL)
    began = time.perf_counter()
    client = Client([speciate, "serve", "--workspace", str(root)])
    client.call("predict", arguments)
    wall = time.perf_counter() - began
    processor = sum(each.cpu for each in look(root))
    client.close()
    return FirstAnswer(wall, processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=("classical", "probe"), default="classical")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--texts", type=int, default=400)
    given = parser.parse_args()
    texts = [text for text, _ in serving.texts(64)]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "workspace"
        serving.prepare(root, given.method, given.texts)
        try:
            served = serving.start_slot(root)
            wanted = deployment_folder(Folders(root), serving.USE_CASE).wanted()
            assert wanted
            assert wanted.target
            model = predictor.load(root / wanted.target.path)
            speciate = str(Path(sys.executable).with_name("speciate"))
            client = Client([speciate, "serve", "--workspace", str(root)])

            def own(number: int) -> object:
                text = texts[number % len(texts)]
                return model.predict([Example(str(number), text, None, str(number), "", {})])

            def by_mcp(number: int) -> object:
                inputs = [{"text": texts[number % len(texts)]}]
                return client.call("predict", {"use_case": serving.USE_CASE, "inputs": inputs})

            for call in (own, by_mcp):
                call(0)
            found: dict[str, list[list[float]]] = {"own": [], "through MCP": [], "through a deployment": []}
            for _ in range(given.rounds):
                found["own"].append(milliseconds(own, given.calls))
                found["through MCP"].append(milliseconds(by_mcp, given.calls))
                took = asyncio.run(serving.one_connection(served.port, served.token, given.calls))
                found["through a deployment"].append(took)
            client.close()
            deployment_folder(Folders(root), serving.USE_CASE).stop()
            while deployment_folder(Folders(root), serving.USE_CASE).alive():
                time.sleep(0.1)
            first = first_answer(root, speciate, {"use_case": serving.USE_CASE, "inputs": [{"text": texts[0]}]})
        finally:
            deployment_folder(Folders(root), serving.USE_CASE).stop()
            while deployment_folder(Folders(root), serving.USE_CASE).alive():
                time.sleep(0.1)
            subprocess.run(
                [str(Path(sys.executable).parent / "speciate"), "stop", "--workspace", str(root)], check=False
            )
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {given.method}, {given.rounds} rounds in turns")
    print(f"first answer after a start of the daemon: {first.wall:.2f} s, {first.processor:.2f} CPU s in all processes")
    goal = 4.0 if given.method == "probe" else None
    note(f"first answer after a daemon start, {given.method}", [first.wall], unit="s", goal=goal)
    note(f"the same, all processes, {given.method}", [first.processor], unit="CPU s")
    for name, rounds in found.items():
        p50, p95 = (statistics.median(took[int(share * (len(took) - 1))] for took in rounds) for share in (0.5, 0.95))
        print(f"{name:22} p50 {p50:6.2f} ms, p95 {p95:6.2f} ms")
        if name in GOALS:
            beyond = [
                statistics.median(took) - statistics.median(own) for took, own in zip(rounds, found["own"], strict=True)
            ]
            print(f"    beyond the model's own time {min(beyond):.2f} to {max(beyond):.2f} ms")
            note(f"predict {name} beyond the model's time, {given.method}", beyond, unit="ms", goal=GOALS[name])


if __name__ == "__main__":
    main()
