"""SmolLM2 learns sums: what each method adds to its held-out accuracy, with a paired interval.

The task is `chain_sum` of reasoning-gym (two numbers of one or two digits); an answer is right where it is the number,
alone. Train, validation and test are drawn with different seeds and share no question. Every stage is a job over MCP,
and begins with what the stage before made:

    sft      the packaged model learns from the answers
    grpo     sampled answers of the first, rewarded for being right
    distill  the first teaches a student that has every second of its layers
    dpo      pairs of the right answer and one with a wrong digit

    python evals/specialize_smollm2.py --workspace FOLDER [--only sft dpo ...]

Prints Markdown. What was done in FOLDER is not done again, so a broken run is started once more.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import anyio
from calling import Refused, call, each_of, job
from mcp import Client, StdioServerParameters

SPECIATE = str(Path(sys.executable).parent / "speciate")
SPLITS = {"train": 1200, "validation": 100, "test": 400}
SHORT = {"template": "chat", "system": "You calculate.", "max_new_tokens": 6, "max_length": 128, "judged": 0}
DATA, BASE = "sums@v1", "pkg:smollm2"


class Stage(NamedTuple):
    """A training; it is compared with the model that it began with."""

    method: str
    steps: int
    settings: dict[str, Any]


STAGES = {
    "sft": Stage("sft", 60, {"batch_size": 16, "learning_rate": 1e-3}),
    "grpo": Stage("grpo", 60, {"batch_size": 32, "generations": 8, "learning_rate": 1e-4, "beta": 0.0, "judged": 40}),
    "distill": Stage(
        "distill", 80, {"batch_size": 16, "learning_rate": 3e-4, "layers": 15, "weight": 0.5, "control": True}
    ),
    "dpo": Stage("dpo", 30, {"batch_size": 16, "learning_rate": 5e-5}),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--workspace", type=Path, required=True)
    arguments.add_argument("--only", nargs="*", choices=list(STAGES), default=list(STAGES))
    given = arguments.parse_args()
    workspace: Path = given.workspace
    if not workspace.exists():
        subprocess.run([SPECIATE, "init", "--workspace", str(workspace)], check=True, stdout=subprocess.DEVNULL)
    sums(workspace / "sources")
    try:
        anyio.run(learn, workspace, given.only)
    except* Refused as refusals:  # inside the client's task groups, so in groups
        sys.exit(" ".join(str(one) for one in each_of(refusals)))
    finally:
        stop = [SPECIATE, "stop", "--workspace", str(workspace)]
        subprocess.run(stop, check=False, stdout=subprocess.DEVNULL)


def sums(folder: Path) -> None:
    """Questions and answers, none twice. Item n of seed s is item n - 1 of seed s + 1, so the seeds lie far apart."""
    import reasoning_gym

    if folder.exists():
        return
    rows: list[dict[str, str]] = []
    seen = set[str]()
    for seed, (split, count) in enumerate(SPLITS.items()):
        drawn = reasoning_gym.create_dataset(
            "chain_sum", size=3 * count, seed=1_000_000 * seed, min_terms=2, max_terms=2, min_digits=1, max_digits=2
        )
        fresh = {each["question"]: each["answer"] for each in drawn if each["question"] not in seen}
        seen |= fresh.keys()
        rows += [
            {"prompt": question, "completion": answer, "split": split}
            for question, answer in list(fresh.items())[:count]
        ]
    folder.mkdir(parents=True)
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    chance = random.Random(0)
    pairs = [
        {"prompt": row["prompt"], "chosen": row["completion"], "rejected": _off(row["completion"], chance)}
        for row in rows if row["split"] == "train"
    ]  # fmt: skip
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))


def _off(answer: str, chance: random.Random) -> str:
    """With one digit changed: as long, as likely at first sight, and wrong."""
    place = chance.choice([place for place, sign in enumerate(answer) if sign.isdigit()])
    return (
        answer[:place] + chance.choice([digit for digit in "123456789" if digit != answer[place]]) + answer[place + 1 :]
    )


async def learn(workspace: Path, stages: list[str]) -> None:
    server = StdioServerParameters(
        command=SPECIATE, args=["serve", "--workspace", str(workspace)], cwd=str(workspace / "sources"),
        env={"OMP_WAIT_POLICY": "passive"},
    )  # fmt: skip
    async with Client(server) as client:
        await job(client, "create_dataset", name="sums", source="sums.jsonl")
        print("| method | began with | steps | seconds | before | after | gain (95 % interval, paired) |")
        print("|---|---|---|---|---|---|---|")
        first = await trained(client, "sft", DATA, BASE)
        if "sft" in stages:
            await row(client, "sft", BASE, first)
        if "grpo" in stages:
            await row(client, "grpo", first, await trained(client, "grpo", DATA, first))
        if "distill" in stages:
            await row(client, "distill", BASE, await trained(client, "distill", DATA, first, teacher=first))
        if "dpo" in stages:
            pairs = (await job(client, "create_dataset", name="pairs", source="pairs.jsonl"))["dataset"]
            await row(client, "dpo", first, await trained(client, "dpo", pairs, first))


async def trained(client: Client, stage: str, dataset: str, base: str, **more: Any) -> str:
    method, steps, settings = STAGES[stage]
    made = await job(
        client, "train_model", name=f"sums-{stage}", dataset=dataset, task="text-generation", method=method,
        base_model=base, hyperparameters=SHORT | settings | {"steps": steps}, **more,
    )  # fmt: skip
    return str(made["model"])


async def row(client: Client, stage: str, before: str, after: str) -> None:
    judged = await job(
        client, "evaluate_models", models=[before, after], dataset=f"{DATA}:test", metrics=["exact_match"]
    )
    view = await call(client, "describe_evaluation", evaluation=judged["evaluation"], baseline=before)
    values = {each["model"]: each["value"] for each in view["leaderboard"]}
    (paired,) = [each for each in view["comparisons"] if each["candidate"] == after]
    versions = (await call(client, "describe_model", model=after))["versions"]
    low, high = paired["interval"]
    print(
        f"| {stage} | {before} | {STAGES[stage].steps} | {versions[-1]['seconds']:.0f} | {values[before]:.3f} | "
        f"{values[after]:.3f} | {paired['delta']:+.3f} ({low:+.3f} to {high:+.3f}) |",
        flush=True,
    )


if __name__ == "__main__":
    main()
