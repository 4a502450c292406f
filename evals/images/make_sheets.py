"""Sheets of images: a LoRA teaches two digits to a pipeline that has never seen them.

    PYTHONPATH=. python evals/images/make_sheets.py BASE [--examples N] [--epochs N]

BASE is the folder that digits_base.py writes. The jobs are those that the tools start, run one after another in this
process; the figures that docs/images.md states are printed as JSON.
"""

from __future__ import annotations

import argparse
import base64
import csv
import io
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from evals.images.digits_base import KNOWN, caption, digits
from speciate import use_cases
from speciate.evaluation.reports.drawn_images import draw_side_by_side
from speciate.evaluation.reports.report import find_report
from speciate.models import registry
from speciate.models.diffusion.contact_sheet import draw_labelled_grid
from speciate.settings import Settings
from speciate.tasks.image_generator import ImageGenerator, load_generator, seed_of
from speciate.use_cases import Definition, Gate, Objective
from speciate.workspace.workspace import Workspace
from tests.data import run_job

DOCS = Path(__file__).parents[2] / "docs"
PROMPTS = tuple(caption(digit) for digit in (8, 9, 8, 9, 3, 5, 0, 7))
LARGEST = 150_000
"""Bytes of an image in the docs."""


def write_examples(folder: Path, each: int) -> None:
    """Eights and nines with captions and splits: half to learn from, a sixth to choose by, the rest to be judged by."""
    images, labels = digits()
    folder.mkdir(parents=True)
    rows = []
    for digit in (KNOWN, KNOWN + 1):
        for number, image in enumerate(images[labels == digit][:each]):
            name = f"{digit}-{number:03}.png"
            Image.fromarray(image).save(folder / name)
            share = number / each
            split = "train" if share < 1 / 2 else "validation" if share < 2 / 3 else "test"
            rows.append({"file_name": name, "caption": caption(digit), "split": split, "consent": "yes"})
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def run(base: Path, each: int, epochs: int) -> None:
    root = Path(tempfile.mkdtemp())
    copy = shutil.copytree(base, root / "base")
    steps, guidance = 15, 2.0  # of both models: what a small pipeline needs
    manifest = {"format": 1, "draws": True, "task": "text-to-image", "sampling": [steps, guidance]}
    (copy / "predictor.json").write_text(json.dumps(manifest))
    write_examples(root / "digits", each)
    workspace = Workspace(root / "workspace", settings=Settings(policy="auto"))
    run_job(workspace, "ingest", name="digits", source=str(root / "digits"))
    run_job(workspace, "fetch", name="digits-base", source=f"path:{copy}")
    definition = Definition(
        name="drawing", task="text-to-image", objective=Objective(metric="frechet_distance", target=0.05),
        incumbent="digits-base", gates=(Gate(rule="consent", column="consent"),),
    )  # fmt: skip
    workspace.database.transact(lambda tx: use_cases.define(tx, definition, policy="auto"))
    began = time.monotonic()
    trained = run_job(
        workspace, "train", name="digits-lora", dataset="digits", method="lora", base_model="digits-base@v1",
        use_case="drawing",
        hyperparameters={
            "num_train_epochs": epochs, "learning_rate": [3e-3], "batch_size": 16, "r": 16, "lora_alpha": 32,
            "guidance_scale": guidance, "num_inference_steps": steps, "early_stopping_patience": epochs,
            "precision": "float32", "sample_prompts": list(PROMPTS),
        },
        resources={"cpu": 1},  # on a busy machine two threads wait for each other in each layer
    )  # fmt: skip
    seconds = time.monotonic() - began
    samples = sorted(workspace.folders.runs.glob("*/samples/step-*.png"))
    before = load_generator(registry.resolve(workspace.database, workspace.folders, "digits-base@v1").path)
    write_progress(before, samples, DOCS / "images-training.png")
    judged = run_job(
        workspace, "evaluate", models=["constant:", "digits-lora"], dataset="digits", use_case="drawing", latency=False
    )
    report = find_report(workspace.database, judged["evaluation"])
    write_side_by_side(workspace, judged["evaluation"], DOCS / "images-side-by-side.png")
    print(json.dumps({
        "training_seconds": round(seconds), "validation": trained["report"]["validation"],
        "steps": trained["report"]["cost"]["steps"], "examples": 2 * each, "sheets": len(samples),
        "leaderboard": [[row.model, row.value, row.interval, row.without_consent] for row in report.leaderboard],
        "comparisons": [each.model_dump(include={"baseline", "candidate", "delta", "interval"})
                        for each in report.comparisons],
        "decision": judged["decision"],
    }, indent=1, default=str))  # fmt: skip
    workspace.close()


def write_side_by_side(workspace: Workspace, evaluation: str, path: Path) -> None:
    """Four eights and four nines of the test split: the real image, and what each model drew for its caption."""
    folder = workspace.folders.evaluations / evaluation
    rows = pq.read_table(folder / "examples.parquet", columns=["example", "preview"]).to_pylist()
    ids = [row["example"] for digit in (8, 9) for row in [row for row in rows if row["preview"] == caption(digit)][:4]]
    models = ["digits-lora@v1", "digits-base@v1"]
    made = draw_side_by_side({"folder": str(folder), "models": models, "ids": ids})
    save(base64.b64decode(made["png"]), path)


def write_progress(before: ImageGenerator, samples: list[Path], path: Path) -> None:
    """Below each other: the base model with the noise of the samples, then the first, a middle and the last sheet of
    the training."""
    seeds = [seed_of(prompt, str(place)) for place, prompt in enumerate(PROMPTS)]
    drawn = draw_labelled_grid(before.pipeline.draw(PROMPTS, seeds, before.sampling), PROMPTS)
    chosen = [samples[place] for place in sorted({0, len(samples) // 2, len(samples) - 1})]
    parts = [np.asarray(Image.open(each).convert("RGB")) for each in (io.BytesIO(drawn), *chosen)]
    image = Image.fromarray(np.concatenate(parts))
    image.save(path, optimize=True)
    check_size(path)


def save(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    check_size(path)


def check_size(path: Path) -> None:
    if path.stat().st_size > LARGEST:
        Image.open(path).convert("P", palette=Image.Palette.ADAPTIVE, colors=64).save(path, optimize=True)
    if path.stat().st_size > LARGEST:
        sys.exit(f"{path} has {path.stat().st_size:,} bytes, more than {LARGEST:,}")


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given.add_argument("base", type=Path)
    given.add_argument("--examples", type=int, default=150, help="of each digit")
    given.add_argument("--epochs", type=int, default=25)
    asked = given.parse_args()
    run(asked.base, asked.examples, asked.epochs)


if __name__ == "__main__":
    main()
