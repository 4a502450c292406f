"""inspect-ai as its documentation has it: a task without a scorer, `generate()`, an OpenAI-compatible endpoint.

    STUB_BASE_URL=... STUB_API_KEY=none python inspect_asks.py SAMPLES CONNECTIONS

in an environment of its own, for it takes another HTTP stack. Prints seconds by the clock and of the processor, and how
many were answered, as JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time

from inspect_ai import Task
from inspect_ai import eval as evaluate
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.solver import generate


def main(samples: int, connections: int) -> None:
    dataset = MemoryDataset([Sample(input=f"Is {number} even? Answer yes or no.") for number in range(samples)])
    task = Task(dataset=dataset, solver=generate())
    with tempfile.TemporaryDirectory() as logs:
        began, cpu = time.perf_counter(), time.process_time()
        (log,) = evaluate(
            task, model="openai-api/stub/stub-1", max_connections=connections, max_tokens=16, temperature=0,
            log_dir=logs, display="none",
        )  # fmt: skip
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
        answered = sum(sample.output.completion == "yes" for sample in log.samples or [])  # read from the log
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "answered": answered}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
