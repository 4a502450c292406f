"""From `submit` to the first optimiser step of a small training job, with the zygote and by a plain start.

The run is what a small fine-tune begins with: import torch and transformers, build a small BERT, one step. The plain
start does the same imports in a new interpreter. Rounds are interleaved; the zygote's own start is shown apart.

    python evals/bench/job_start.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from pydantic import BaseModel

from speciate.jobs.engine import Engine
from speciate.jobs.kinds import Kind, Kinds, Plan
from speciate.jobs.run import Run
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace


class Step(BaseModel):
    preload: str


def plan(spec: Step, workspace: Workspace) -> Plan:
    return Plan(preload=spec.preload)


def run(run: Run) -> dict[str, float]:
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.set_num_threads(2)
    config = BertConfig(
        hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256, vocab_size=1000
    )
    model = BertForSequenceClassification(config)
    optimizer = torch.optim.AdamW(model.parameters())
    tokens = torch.randint(0, 1000, (8, 32))  # (B, T)
    model(input_ids=tokens, labels=torch.zeros(8, dtype=torch.long)).loss.backward()
    optimizer.step()
    return {"stepped": time.time()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds: int = parser.parse_args().rounds
    kind = Kind(name="step", spec=Step, plan=plan, run=f"{Path(__file__).resolve()}:run")
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder) / "workspace", settings=Settings())
        engine = Engine(workspace, Kinds(extra=[kind]))
        engine.start()

        def seconds(preload: str) -> float:
            began = time.time()
            job = engine.wait(engine.submit("step", {"preload": preload}).id, timeout=120)
            assert job.result, job.reason
            return float(job.result["stepped"]) - began

        first = seconds("torch")
        pairs = [(seconds("torch"), seconds("")) for _ in range(rounds)]
        engine.stop()
        workspace.close()
    warm, plain = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {rounds} interleaved rounds, medians")
    print(f"submit to first step: zygote {warm:.2f} s, plain start {plain:.2f} s, ratio {ratio:.2f}")
    print(f"the first job, which waits for the zygote's own imports: {first:.2f} s")


if __name__ == "__main__":
    main()
