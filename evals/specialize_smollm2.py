"""SmolLM2 learns: what each method adds to its held-out accuracy, with a paired interval.

Two tasks. Sums: `chain_sum` of reasoning-gym, two numbers of one or two digits; an answer is right where it is the
number, alone. Routes: which of four sources a sentence is from (those that the demo fetches; no document is in two
splits); an answer is right where it is the name, alone. No question is in two splits. Every stage is a job over MCP:

    sft      the packaged model learns sums from the answers
    grpo     after a few steps of sft on routes: its own answers, rewarded for being right
    dpo      from the same start: the right name over one of the others
    more     from the same start: more sft, as many steps as dpo had, to see how much of its gain is imitation
    distill  the model after grpo teaches routes to a student that has every second of its layers

    python evals/specialize_smollm2.py --workspace FOLDER [--only sft dpo ...]

Prints Markdown. What was done in FOLDER is not done again, so a broken run is started once more.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import anyio
from calling import Refused, call, each_of, job
from distill_encoders import SOURCES as SOURCE_FILES
from distill_encoders import sentences
from mcp import Client, StdioServerParameters

SPECIATE = str(Path(sys.executable).parent / "speciate")
BASE = "pkg:smollm2"
SUMS = {"train": 1200, "validation": 100, "test": 400}
ROUTES = {"train": 600, "validation": 100, "test": 400}
SOURCES = dict(zip(SOURCE_FILES, ("product", "film", "news", "tweet"), strict=True))
FORMS: dict[str, dict[str, Any]] = {
    "sums": {"system": "You calculate.", "max_new_tokens": 6, "max_length": 128},
    "routes": {"system": "Where is this from? product, film, news or tweet?", "max_new_tokens": 3, "max_length": 128},
}


class Stage(NamedTuple):
    """A training; it is compared with the model that it began with."""

    method: str
    task: str
    begins: str
    """The stage before it, or a base model."""
    steps: int
    settings: dict[str, Any]


STAGES = {
    "sft": Stage("sft", "sums", BASE, 60, {"batch_size": 16, "learning_rate": 1e-3, "judged": 0}),
    "start": Stage("sft", "routes", BASE, 32, {"batch_size": 16, "learning_rate": 5e-4, "judged": 0}),
    "grpo": Stage(
        "grpo", "routes", "start", 60,
        {"batch_size": 64, "num_generations": 4, "learning_rate": 1.5e-4, "beta": 0.02, "judged": 100,
        "judge_every": 20},
    ),
    "dpo": Stage(
        "dpo", "routes", "start", 40, {"batch_size": 16, "learning_rate": 2e-4, "rpo_alpha": 1.0, "judged": 0},
    ),
    "more": Stage("sft", "routes", "start", 40, {"batch_size": 16, "learning_rate": 2e-4, "judged": 0}),
    "distill": Stage(
        "distill", "routes", "grpo", 120,
        {"batch_size": 16, "learning_rate": 3e-4, "num_hidden_layers": 15, "weight": 0.5, "judged": 0},
    ),
}  # fmt: skip
SHOWN = ("sft", "grpo", "dpo", "more", "distill")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--workspace", type=Path, required=True)
    arguments.add_argument("--only", nargs="*", choices=SHOWN, default=SHOWN)
    given = arguments.parse_args()
    workspace: Path = given.workspace
    if not workspace.exists():
        subprocess.run([SPECIATE, "init", "--workspace", str(workspace)], check=True, stdout=subprocess.DEVNULL)
    sources = workspace / "sources"
    sources.mkdir(exist_ok=True)
    for name, rows in (("sums", sums), ("routes", routes)):
        if not (sources / f"{name}.jsonl").exists():
            write(sources / f"{name}.jsonl", rows())
    try:
        anyio.run(learn, workspace, given.only)
    except* Refused as refusals:  # inside the client's task groups, so in groups
        sys.exit(" ".join(str(one) for one in each_of(refusals)))
    finally:
        stop = [SPECIATE, "stop", "--workspace", str(workspace)]
        subprocess.run(stop, check=False, stdout=subprocess.DEVNULL)


def write(file: Path, rows: list[dict[str, str]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def sums() -> list[dict[str, str]]:
    """None twice. Item n of seed s is item n - 1 of seed s + 1, so the seeds lie far apart."""
    import reasoning_gym

    rows: list[dict[str, str]] = []
    seen = set[str]()
    for seed, (split, count) in enumerate(SUMS.items()):
        drawn = reasoning_gym.create_dataset(
            "chain_sum", size=3 * count, seed=1_000_000 * seed, min_terms=2, max_terms=2, min_digits=1, max_digits=2
        )
        fresh = {each["question"]: each["answer"] for each in drawn if each["question"] not in seen}
        seen |= fresh.keys()
        rows += [_row(question, answer, split) for question, answer in list(fresh.items())[:count]]
    return rows


def routes() -> list[dict[str, str]]:
    """Sentences of which no document is in two splits, cut after 100 characters."""
    lines = sentences()
    labelled, rest = lines[: ROUTES["train"]], lines[-ROUTES["test"] - ROUTES["validation"] :]
    splits = ["train"] * len(labelled) + ["validation"] * ROUTES["validation"] + ["test"] * ROUTES["test"]
    return [
        _row(text[:100], SOURCES[source], split) for (text, source), split in zip(labelled + rest, splits, strict=True)
    ]


def _row(question: str, answer: str, split: str) -> dict[str, str]:
    return {"prompt": question, "completion": answer, "split": split}


async def learn(workspace: Path, stages: list[str]) -> None:
    server = StdioServerParameters(
        command=SPECIATE, args=["serve", "--workspace", str(workspace)], cwd=str(workspace / "sources"),
        env={"OMP_WAIT_POLICY": "passive"},
    )  # fmt: skip
    async with Client(server) as client:
        for name in ("sums", "routes"):
            await job(client, "create_dataset", name=name, source=f"{name}.jsonl")
        print("| method | on | began with | steps | seconds | before | after | gain (95 % interval, paired) |")
        print("|---|---|---|---|---|---|---|---|")
        for stage in stages:
            await row(client, stage)


async def trained(client: Client, stage: str) -> str:
    """The model of a stage, after those that it needs."""
    method, task, begins, steps, settings = STAGES[stage]
    base = await trained(client, begins) if begins in STAGES else begins
    dataset = await pairs(client, f"{task}@v1") if method == "dpo" else f"{task}@v1"
    made = await job(
        client, "train_model", name=f"{task}-{stage}", dataset=dataset,
        task="text-generation", method=method, base_model=base, teacher=base if method == "distill" else None,
        hyperparameters={"template": "chat"} | FORMS[task] | settings | {"max_steps": steps},
    )  # fmt: skip
    return str(made["model"])


async def pairs(client: Client, dataset: str) -> str:
    """The right name over one of the others, by chance. Of a model's own mistakes the name that it says too seldom is
    always the better one: it learned to say that to all."""
    others = f"(list_filter({list(SOURCES.values())}, lambda name: name <> completion))[(1 + hash(prompt) % 3)::INT]"
    drawn = {"op": "derive", "column": "other", "sql": others}
    paired = {"op": "preferences", "answers": ["completion", "other"], "metric": "exact_match", "truth": "completion"}
    made = await job(client, "curate_dataset", dataset=dataset, steps=[drawn, paired])
    return str(made["dataset"])


async def row(client: Client, stage: str) -> None:
    """A student is compared with one name for all: of the layers that it has no model was trained before it."""
    _, task, begins, steps, _ = STAGES[stage]
    before = await trained(client, begins) if begins in STAGES else begins
    before = "constant:" if stage == "distill" else before
    after = await trained(client, stage)
    judged = await job(
        client, "evaluate_models", models=[before, after], dataset=f"{task}@v1:test", metrics=["exact_match"],
        latency=False,
    )  # fmt: skip
    view = await call(client, "describe_evaluation", evaluation=judged["evaluation"], baseline=before)
    values = {each["model"]: each["value"] for each in view["leaderboard"]}
    (paired,) = [each for each in view["comparisons"] if each["candidate"] == after]
    versions = (await call(client, "describe_model", model=after))["versions"]
    low, high = paired["interval"]
    print(
        f"| {stage} | {task} | {before} | {steps} | {versions[-1]['seconds']:.0f} | {values[before]:.3f} | "
        f"{values[after]:.3f} | {paired['delta']:+.3f} ({low:+.3f} to {high:+.3f}) |",
        flush=True,
    )


if __name__ == "__main__":
    main()
