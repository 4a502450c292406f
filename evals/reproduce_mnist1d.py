"""The published results on MNIST-1D again, through the tools: logistic regression, MLP, CNN and GRU.

Greydanus & Kobak, "Scaling down deep learning with MNIST-1D" (2020, 2024); the values are those of the data's README.
The package `mnist1d` makes the data (`pkg:mnist1d`: 4,000 signals to learn from, 1,000 to be judged by), `train_model`
learns with the authors' architectures and settings, and one `evaluate_models` judges all models on the test split. A
real MCP client over stdio starts every job; each runs alone, on one core.

    python evals/reproduce_mnist1d.py [--seeds 3] [--workspace FOLDER] [--only MLP CNN]

Prints Markdown. With --workspace, what was done there is not done again: the same call with more seeds adds those.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import anyio
from calling import Refused, call, each_of, job
from mcp import Client, StdioServerParameters

SPECIATE = str(Path(sys.executable).parent / "speciate")
PUBLISHED = {
    "learning_rate": [0.01], "batch_size": 100, "weight_decay": 0.0, "warmup_ratio": 0.0,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 1000.0, "precision": "float32",
}  # fmt: skip
"""Of the authors' `train.py`: Adam at 0.01, batches of 100, nothing else; a clip so wide stands for none."""
PASSES = 150  # 6,000 steps, as in the authors' notebook
SHORTER = 75  # for the GRU, whose steps cost five times as much


class Row(NamedTuple):
    model: str
    paper: int
    """Percent."""
    method: str
    base_model: str | None
    settings: dict[str, Any]
    seeded: bool = True
    """Whether another seed gives another model."""

    @property
    def name(self) -> str:
        return self.model.lower().replace(" ", "-")

    def ref(self, seed: int) -> str:
        return f"{self.name}-{seed}@v1"


def _network(model: str, paper: int, epochs: int) -> Row:
    """Two folds say how many passes are best, as the data have no validation split; then all 4,000 are learned from."""
    settings = PUBLISHED | {"num_train_epochs": epochs, "early_stopping_patience": epochs, "folds": 2}
    return Row(model, paper, "full", f"new:{model.lower()}", settings)


ROWS = (
    Row("Logistic regression", 32, "classical", None, {"candidates": ["linear"], "folds": 2}, seeded=False),
    _network("MLP", 68, PASSES),
    _network("CNN", 94, PASSES),
    _network("GRU", 91, SHORTER),
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--workspace", type=Path)
    arguments.add_argument("--only", nargs="*", default=[], choices=[row.model for row in ROWS])
    given = arguments.parse_args()
    rows = [row for row in ROWS if not given.only or row.model in given.only]
    with tempfile.TemporaryDirectory(prefix="mnist1d-") as folder:
        workspace = given.workspace or Path(folder) / "workspace"
        if not workspace.exists():
            subprocess.run([SPECIATE, "init", "--workspace", str(workspace)], check=True, stdout=subprocess.DEVNULL)
        try:
            anyio.run(reproduce, workspace, rows, given.seeds)
        except* Refused as refusals:  # inside the client's task groups, so in groups
            sys.exit(" ".join(str(one) for one in each_of(refusals)))
        finally:
            stop = [SPECIATE, "stop", "--workspace", str(workspace)]
            subprocess.run(stop, check=False, stdout=subprocess.DEVNULL)


async def reproduce(workspace: Path, rows: list[Row], seeds: int) -> None:
    server = StdioServerParameters(command=SPECIATE, args=["serve", "--workspace", str(workspace)])
    async with Client(server) as client:
        await job(
            client, "create_dataset", name="signals", source="pkg:mnist1d", modality="time-series", label="label",
            inputs=["values"],
        )  # fmt: skip
        costs: dict[str, dict[str, Any]] = {}
        for seed in range(seeds):
            for row in rows:
                if seed and not row.seeded:
                    continue
                result = await job(
                    client, "train_model", name=f"{row.name}-{seed}", dataset="signals@v1", method=row.method,
                    base_model=row.base_model, hyperparameters=row.settings, seed=seed, resources={"cpu": 1},
                )  # fmt: skip
                costs[row.ref(seed)] = result["report"]["cost"]
        judged = await job(client, "evaluate_models", models=list(costs), dataset="signals@v1", latency=False)
        standings = {each["model"]: each for each in await standing(client, judged["evaluation"])}
        print(table(rows, standings, costs))
        print(await differences(client, judged["evaluation"], rows, costs))


async def standing(client: Client, evaluation: str) -> list[dict[str, Any]]:
    """The leaderboard, all of it."""
    view = await call(client, "describe_evaluation", evaluation=evaluation, show=["all_models"])
    found: list[dict[str, Any]] = view["leaderboard"]
    return found


async def differences(client: Client, evaluation: str, rows: list[Row], costs: dict[str, Any]) -> str:
    """Each row beside the one before it, by the paired interval of the first seed's models."""
    said = ["", "| better | than | by | 95 % interval, paired |", "|---|---|---|---|"]
    order = sorted(rows, key=lambda row: row.paper)
    for lower, upper in pairwise(order):
        view = await call(
            client, "describe_evaluation", evaluation=evaluation, baseline=lower.ref(0), show=["all_models"]
        )
        found = next(each for each in view["comparisons"] if each["candidate"] == upper.ref(0))
        delta, (low, high) = 100 * found["delta"], found["interval"]
        said.append(f"| {upper.model} | {lower.model} | {delta:.1f} points | {100 * low:.1f} to {100 * high:.1f} |")
    return "\n".join(said)


def table(rows: list[Row], standings: dict[str, Any], costs: dict[str, Any]) -> str:
    """Accuracies in percent. Intervals say what 1,000 test signals allow; the spread is that of the seeds."""
    lines = [
        "", "| model | paper | ours, each seed (95 % interval) | mean, spread of seeds | seconds a model (processor) |",
        "|---|---|---|---|---|",
    ]  # fmt: skip
    for row in rows:
        refs = [ref for ref in costs if ref.startswith(f"{row.name}-")]
        values = [100 * standings[ref]["value"] for ref in refs]
        bounds = [[100 * bound for bound in standings[ref]["interval"]] for ref in refs]
        each = ", ".join(
            f"{value:.1f} ({low:.1f} to {high:.1f})" for value, (low, high) in zip(values, bounds, strict=True)
        )
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        seconds, cpu = (statistics.median(costs[ref][key] for ref in refs) for key in ("seconds", "cpu_seconds"))
        mean = f"{statistics.mean(values):.1f}{spread}"
        lines.append(f"| {row.model} | {row.paper} | {each} | {mean} | {seconds:.0f} ({cpu:.0f}) |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
