"""What the sandbox costs a version that serves: start-up, and answers over the pipe, beside the same process without
it.

The two are asked in turns. In-process is the same model in this process: what a pipe and JSON cost.

    python evals/bench/caged_answers.py [--pairs 5] [--asks 400]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from serving import USE_CASE, prepare, texts

from speciate.sandbox import python
from speciate.serving import predict_worker
from speciate.serving.deployment_folder import Target
from speciate.serving.replica import ANSWER, Runner

Ask = Callable[[int], None]


def uncaged(root: Path, target: Target) -> tuple[subprocess.Popen[bytes], Ask]:
    process = subprocess.Popen(
        python("speciate.jobs.pool_process", str(root)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    assert process.stdin
    assert process.stdout
    out, back = process.stdin, process.stdout

    def ask(count: int) -> None:
        question = {"service": ANSWER, "payload": payload(target, count)}
        out.write(json.dumps({"ask": question, "mark": ""}).encode() + b"\n")
        said = b""
        while not said.endswith(b"\n"):
            said += back.read(1 << 20)
        assert len(json.loads(said)["value"]["answer"]["predictions"]) == count

    return process, ask


def payload(target: Target, count: int) -> dict[str, object]:
    items = [{"id": str(i), "text": text} for i, (text, _) in enumerate(texts(count))]
    return {"model": target.path, "modality": "text", "inputs": ["text"], "parts": [], "items": items}


def median_ms(ask: Ask, count: int, asks: int) -> float:
    took = []
    for _ in range(asks):
        began = time.perf_counter()
        ask(count)
        took.append(time.perf_counter() - began)
    return 1000 * statistics.median(took)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--asks", type=int, default=400)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "workspace"
        client = prepare(root, "classical")
        model = client.call("get_status", use_case=USE_CASE)["use_cases"][0]["production"]
        name, _, number = str(model).partition("@v")
        path = root / "models" / name / f"v{number}"
        target = Target(
            generation=1, model=model, path=str(path), task="text-classification", modality="text", inputs=("text",)
        )
        starts: dict[str, list[float]] = {"caged": [], "uncaged": []}
        asks: dict[str, Ask] = {"in-process": lambda count: predict_worker.answer(payload(target, count)) and None}
        for _ in range(3):
            began = time.monotonic()
            runner = Runner(root, root / "cache" / "pool", target, 4096, "required")
            runner.load(300)
            starts["caged"].append(time.monotonic() - began)
            began = time.monotonic()
            process, plain = uncaged(root, target)
            plain(1)
            starts["uncaged"].append(time.monotonic() - began)
            if len(starts["caged"]) < 3:
                runner.end()
                process.kill()
                process.wait()
        asks |= {"caged": lambda count: runner.answer(payload(target, count)["items"], 60) and None, "uncaged": plain}
        shown = ", ".join(f"{kind} {statistics.median(took):.1f} s" for kind, took in starts.items())
        print(f"to the first answer, median of 3: {shown}")
        for count in (1, 16):
            found: dict[str, list[float]] = {kind: [] for kind in asks}
            for _ in range(arguments.pairs):
                for kind, ask in asks.items():
                    found[kind].append(median_ms(ask, count, arguments.asks))
            ratio = statistics.median(a / b for a, b in zip(found["caged"], found["uncaged"], strict=True))
            shown = ", ".join(f"{kind} {statistics.median(took):.2f} ms" for kind, took in found.items())
            print(f"{count} texts: {shown}; caged / uncaged x{ratio:.2f}")
        runner.end()
        process.kill()
        process.wait()
        subprocess.run([str(Path(sys.executable).parent / "speciate"), "stop", "--workspace", str(root)], check=False)


if __name__ == "__main__":
    main()
