"""One thread or two for a network's step, in turns: CPU seconds, seconds by the clock, and the work of a step.

What `training/networks/threads.py` decides rests on this. A busy machine is one where as many processes as there are
cores do nothing but count (`--busy`): there, threads that wait for each other in each operation show.

    PYTHONPATH=. python evals/bench/threads.py [--only NAME ...] [--busy] [--pairs 3] [--steps 10]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as in every process of ours; read when torch is imported

import numpy as np
import torch

from speciate.models.backbones import architectures
from speciate.tasks.task_heads import TASK_HEADS
from speciate.training.networks.batches import PreparedItems
from speciate.training.networks.optimizer import LoopParameters
from speciate.training.networks.threads import count_flops
from speciate.training.networks.training_loop import Training

_CHANCE = np.random.default_rng(0)
_COUNT = 128
_LETTERS = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
_WORDS = [f"word{at}" for at in range(400)]


def _table() -> list[dict[str, Any]]:
    return [
        {**{f"x{at}": float(value) for at, value in enumerate(row)}, "kind": "abcd"[at % 4]}
        for at, row in enumerate(_CHANCE.normal(size=(_COUNT, 20)))
    ]


def _series(steps: int, channels: int) -> Callable[[], list[Any]]:
    return lambda: [_CHANCE.normal(size=(channels, steps)).astype(np.float32) for _ in range(_COUNT)]


def _images(side: int) -> Callable[[], list[Any]]:
    return lambda: [_CHANCE.integers(0, 256, (side, side, 3), np.uint8) for _ in range(_COUNT)]


def _proteins(length: int) -> Callable[[], list[str]]:
    return lambda: ["".join(_CHANCE.choice(_LETTERS, length)) for _ in range(_COUNT)]


def _texts(words: int) -> Callable[[], list[str]]:
    return lambda: [" ".join(_CHANCE.choice(_WORDS, words)) for _ in range(_COUNT)]


def _clouds(points: int) -> Callable[[], list[Any]]:
    return lambda: [{"points": _CHANCE.normal(size=(points, 3)).astype(np.float32)} for _ in range(_COUNT)]


def _waves(seconds: float) -> Callable[[], list[Any]]:
    return lambda: [_CHANCE.normal(size=int(16_000 * seconds)).astype(np.float32) / 9 for _ in range(32)]


CASES: dict[str, tuple[str, Callable[[], Sequence[Any]], int]] = {
    "tab-resnet of 20 columns": ("new:tab-resnet", _table, 32),
    "tab-resnet of 20 columns, 128": ("new:tab-resnet", _table, 128),
    "mlp, 40 steps": ("new:mlp", _series(40, 1), 32),
    "cnn, 40 steps": ("new:cnn", _series(40, 1), 32),
    "gru, 40 steps": ("new:gru", _series(40, 1), 32),
    "inceptiontime, 64 steps": ("new:inceptiontime", _series(64, 1), 32),
    "inceptiontime, 500 steps, 3 channels": ("new:inceptiontime", _series(500, 3), 32),
    "patchtst, 64 steps": ("new:patchtst", _series(64, 1), 32),
    "patchtst, 500 steps, 3 channels": ("new:patchtst", _series(500, 3), 32),
    "esm, peptides of 20": ("new:esm", _proteins(20), 32),
    "esm, proteins of 200": ("new:esm", _proteins(200), 16),
    "bert, 12 words": ("new:bert", _texts(12), 32),
    "bert, 100 words": ("new:bert", _texts(100), 32),
    "resnet, 8 px": ("new:resnet", _images(8), 32),
    "resnet, 64 px": ("new:resnet", _images(64), 32),
    "vit, 8 px": ("new:vit", _images(8), 32),
    "vit, 64 px": ("new:vit", _images(64), 32),
    "pointnet, 256 points": ("new:pointnet", _clouds(256), 16),
    "conformer, 1 s": ("new:conformer", _waves(1.0), 16),
    "minilm, 20 words": ("pkg:minilm", _texts(20), 16),
}


def make(name: str) -> Training:
    base_model, media_of, batch = CASES[name]
    media = media_of()
    torch.manual_seed(1)
    backbone: Any = architectures.build(base_model, media, 1)
    backbone.module.requires_grad_(True)
    labels = ["ab"[at % 2] for at in range(len(media))]
    head = TASK_HEADS["classification"].fit(labels, {})
    given = LoopParameters(
        num_train_epochs=1000, batch_size=batch, learning_rate=1e-4, warmup_ratio=0.0, lr_scheduler_type="constant"
    )
    items = PreparedItems(media, backbone.prepare, backbone.length)
    return Training(backbone, head.head(backbone.width), head, items, head.encode_targets(labels), given, 1)


def work(training: Training) -> float:
    """Millions of floating-point operations of a step."""
    with count_flops() as counted, training.random_states:
        training.advance()
    return counted.flops / 1e6


class Turn(NamedTuple):
    """Milliseconds of a step."""

    clock: float
    cpu: float


def took(training: Training, threads: int, steps: int) -> Turn:
    torch.set_num_threads(threads)
    with training.random_states:
        training.advance()
        clock, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            training.advance()
    return Turn(1000 * (time.perf_counter() - clock) / steps, 1000 * (time.process_time() - cpu) / steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(CASES))
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    count = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(count) for _ in range(os.cpu_count() or 1)] if options.busy else []
    try:
        for name in options.only:
            training = make(name)
            flops, turns = work(training), range(options.pairs)
            rounds = [(took(training, 1, options.steps), took(training, 2, options.steps)) for _ in turns]
            one, two = (
                Turn(*(statistics.median(each) for each in zip(*side, strict=True)))
                for side in zip(*rounds, strict=True)
            )
            print(
                f"{name:38s} {flops:9.1f} Mflop   1: {one.clock:8.2f} ms {one.cpu:8.2f} CPU   "
                f"2: {two.clock:8.2f} ms {two.cpu:8.2f} CPU   2 / 1: clock {two.clock / one.clock:.2f}, "
                f"CPU {two.cpu / one.cpu:.2f}   load {os.getloadavg()[0]:.1f}", flush=True,
            )  # fmt: skip
    finally:
        for each in others:
            each.kill()


if __name__ == "__main__":
    main()
