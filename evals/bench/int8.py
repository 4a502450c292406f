"""A MiniLM that tells good from bad sentences of movie reviews, in float32 by torch and in 8 bits by two engines.

The network is `pkg:minilm` (all-MiniLM-L6-v2, 22.7 million weights) with a head of the task: a logistic regression over
its pooled states of 800 training sentences, in float32, as a trained network of ours serves. Each export is made by the
job of `export_model` itself, so that the figures are those of its gates: one sentence at a time on one thread, parent
and export in turn; accuracy on 800 further sentences, paired. The sentences are those of `evals/demo/data.py`.

    PYTHONPATH=. python evals/bench/int8.py [--formats onnx openvino]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from evals.demo.data import movies
from speciate.errors import SpeciateError
from speciate.exports import convert, convert_worker
from speciate.exports.convert import ConvertSpec
from speciate.jobs.folder import RunFolder
from speciate.jobs.run import Run
from speciate.models import registry
from speciate.models.backbones import architectures
from speciate.models.model_card import ModelCard
from speciate.tasks.families.classification import Classification
from speciate.tasks.network_predictor import NetworkPredictor
from speciate.workspace.workspace import Workspace
from tests.training.world import make_dataset

ROOT = Path(__file__).parents[2]
TRAIN, VALIDATION = 800, 800


def data(workspace: Workspace) -> tuple[list[str], list[str]]:
    """Registers the version `movies@v1`; its training sentences and their labels."""
    with movies(ROOT / "build/demo/data").open(newline="") as file:
        rows = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    random.Random(0).shuffle(rows)
    rows = rows[: TRAIN + VALIDATION]
    texts, labels = [text for text, _ in rows], [label for _, label in rows]
    splits = ["train"] * TRAIN + ["validation"] * VALIDATION
    make_dataset(workspace, "movies", "text", {"text": texts}, labels=labels, splits=splits, inputs=["text"])
    return texts[:TRAIN], labels[:TRAIN]


def parent(workspace: Workspace, folder: Path) -> str:
    """A registered version of the network with its head."""
    import torch
    from sklearn.linear_model import LogisticRegression

    torch.set_num_threads(1)
    texts, labels = data(workspace)
    backbone = architectures.build("pkg:minilm", [], 0)
    backbone.module.eval()
    states = []
    with torch.inference_mode():
        for start in range(0, len(texts), 32):
            batch = backbone.collate(backbone.prepare(texts[start : start + 32]))
            states.append(backbone.states(batch).pooled.numpy())
    task_head = Classification.of(labels, {})
    fitted = LogisticRegression(C=10, max_iter=1000).fit(np.concatenate(states), labels)
    head: Any = task_head.head(backbone.width)
    weights = torch.from_numpy(fitted.coef_[0]).float() / 2
    with torch.no_grad():
        head.weight.copy_(torch.stack([-weights, weights]))
        head.bias.copy_(torch.from_numpy(fitted.intercept_).float() / 2 * torch.tensor([-1.0, 1.0]))
    made = NetworkPredictor("text-classification", task_head, backbone, head)
    identity = made.save(folder)
    card = ModelCard(
        name="movies-minilm", id=identity, task=made.task, modality="text", method="full", base_model="pkg:minilm",
        labels=task_head.labels, dataset="movies@v1", inputs=("text",), license="Apache-2.0",
        parameters=made.parameters,
    )  # fmt: skip
    return workspace.database.transact(lambda tx: registry.register(tx, workspace.folders, card, folder)).ref


def export(workspace: Workspace, model: str, form: str) -> dict[str, Any]:
    """The record of the export, whether or not it passed."""
    payload = convert.plan(ConvertSpec.model_validate({"model": model, "format": form, "quantize": "int8"}), workspace)
    folder = RunFolder(workspace.folders.runs / f"job-{form}.1")
    folder.create({"payload": payload.payload_json(), "job": f"job-{form}", "workspace": str(workspace.folders.root)})
    try:
        made: dict[str, Any] = convert_worker.run(Run(folder))["report"]
    except SpeciateError as error:
        print(error)
        made = json.loads((folder.outputs / convert_worker.REPORT).read_text())
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--formats", nargs="+", default=["onnx", "openvino"], choices=["onnx", "openvino"])
    formats = parser.parse_args().formats
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        workspace = Workspace(Path(place) / "workspace")
        model = parent(workspace, Path(place) / "parent")
        print(
            f"{'engine':14} {'times faster':>22} {'p50 ms':>14} {'p95 ms':>14} {'accuracy gain':>24} {'MB':>12} gates"
        )
        for form in formats:
            print(line(form, export(workspace, model, form)), flush=True)
        workspace.close()
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"\n{time.perf_counter() - began:.0f} s; other processes meanwhile: load {load} on {os.cpu_count()} cores")


def line(form: str, record: dict[str, Any]) -> str:
    found = record["measured"]
    speed, held = found["speed"], found["held"]
    faster = f"{1 / speed['ratio']:.2f} ({1 / speed['high']:.2f} to {1 / speed['low']:.2f})"
    p50, p95 = (f"{speed['parent'][name]:.1f} -> {speed['export'][name]:.1f}" for name in ("p50_ms", "p95_ms"))
    low, high = held["interval"]
    gain = f"{held['gain']:+.4f} ({low:+.4f} to {high:+.4f})"
    size = " -> ".join(f"{each / 1e6:.0f}" for each in found["bytes"])
    gates = " ".join(f"{gate['name']}:{gate['outcome']}" for gate in record["gates"])
    memory = f"memory {speed['parent']['memory_mb']} -> {speed['export']['memory_mb']} MiB"
    parity = found["parity"]
    return (
        f"{form + ' int8':14} {faster:>22} {p50:>14} {p95:>14} {gain:>24} {size:>12} {gates}\n"
        f"{'':14} accuracy {held['parent']:.4f} -> {held['export']:.4f} (n {held['n']}); cosine "
        f"{parity['cosine']:.5f}, agreement {parity['agreement']:.4f}; {memory}; {speed['pairs']} pairs "
        f"on {speed['device']}"
    )


if __name__ == "__main__":
    sys.exit(main())
