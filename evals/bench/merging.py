"""What merging gives: three fine-tunings of one small network on handwritten digits, each on other 150 examples, their
merges, and beside them the same network fine-tuned on all 450. Accuracy on about 950 examples that none has seen.

    PYTHONPATH=. python evals/bench/merging.py --folder build/merging [--draws 4]
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

from speciate.datasets.loading.loader import load_examples
from speciate.datasets.versions import resolve
from speciate.settings import Settings
from speciate.tasks import predictor
from speciate.workspace.workspace import Workspace
from tests.training.merging.test_merge_models import merge_now
from tests.training.world import make_dataset, model_path, png, train_now

NETS = ("net0", "net1", "net2")
MERGES = {"soup": NETS, "greedy": NETS, "slerp": NETS[:2], "task_arithmetic": NETS, "ties": NETS, "dare": NETS}
_BEGUN = {"num_train_epochs": 25, "learning_rate": [1e-3], "precision": "float32"}
_TUNED = {"num_train_epochs": 12, "learning_rate": [6e-4], "precision": "float32"}
Right = npt.NDArray[np.float64]  # (N,) 1 where the answer is right


def draw(folder: Path, seed: int) -> tuple[dict[str, Right], dict[str, float]]:
    """Right answers by model, and the seconds that each merge took, measuring included."""
    shutil.rmtree(folder, ignore_errors=True)
    workspace, digits = Workspace(folder, settings=Settings(policy="auto")), load_digits()
    media = [png((image * 15.9).astype(np.uint8)) for image in digits.images]
    order = np.random.default_rng(seed).permutation(len(media))
    early, parts = order[:200], [order[200 + 150 * part : 350 + 150 * part] for part in range(3)]
    held, test = order[650:850], order[850:]

    def dataset(name: str, train: Sequence[int], *, tested: bool = False) -> None:
        places = [*train, *held, *(test if tested else ())]
        splits = ["train"] * len(train) + ["validation"] * len(held) + ["test"] * (len(places) - len(train) - len(held))
        make_dataset(
            workspace, name, "image", {}, labels=[str(digits.target[place]) for place in places], splits=splits,
            media=[media[place] for place in places],
        )  # fmt: skip

    def tune(name: str, on: str, seed: int) -> None:
        train_now(
            workspace, f"job-{name}", name=name, dataset=on, method="full", continue_from="begun@v1", seed=seed,
            hyperparameters=_TUNED,
        )  # fmt: skip

    dataset("early", early)
    dataset("digits", early, tested=True)
    dataset("whole", [place for part in parts for place in part])
    train_now(
        workspace, "job-b", name="begun", dataset="early", method="full", base_model="new:vit", seed=seed,
        hyperparameters=_BEGUN,
    )  # fmt: skip
    for place, part in enumerate(parts):
        dataset(f"part{place}", part)
        tune(NETS[place], f"part{place}", place)
    tune("whole", "whole", 0)
    seconds: dict[str, float] = {}
    for method, models in MERGES.items():
        began = time.monotonic()
        merge_now(workspace, f"job-{method}", name=method, models=models, method=method, dataset="digits")
        seconds[method] = time.monotonic() - began
    examples = load_examples(workspace.folders, resolve(workspace.database, "digits"), ("test",))
    found = {name: _right(workspace, name, examples) for name in ("begun", *NETS, "whole", *MERGES)}
    workspace.close()
    shutil.rmtree(folder)
    return found, seconds


def _right(workspace: Workspace, name: str, examples: Sequence[Any]) -> Right:
    given = predictor.load(model_path(workspace, name)).predict(examples)
    return np.array([one.output == example.label for one, example in zip(given, examples, strict=True)], float)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--folder", type=Path, required=True)
    arguments.add_argument("--draws", type=int, default=4)
    asked = arguments.parse_args()
    every, seconds = defaultdict[str, list[Right]](list), defaultdict[str, list[float]](list)
    for seed in range(asked.draws):
        found, took = draw(asked.folder / str(seed), seed)
        print(seed, {name: round(float(right.mean()), 3) for name, right in found.items()}, flush=True)
        for name, right in found.items():
            every[name].append(right)
        for name, each in took.items():
            seconds[name].append(each)
    mean = np.concatenate([np.mean([every[net][seed] for net in NETS], 0) for seed in range(asked.draws)])
    for name, parts in every.items():
        right = np.concatenate(parts)
        more = right - mean
        half = 1.96 * more.std(ddof=1) / np.sqrt(len(more))
        took_s = f", {np.median(seconds[name]):.1f} s" if name in seconds else ""
        print(f"{name}: {right.mean():.3f}, over a member on average {more.mean():+.3f} ± {half:.3f}{took_s}")


if __name__ == "__main__":
    main()
