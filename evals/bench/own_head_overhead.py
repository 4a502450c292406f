"""What our loop costs beside a raw script of transformers, where `full` trains a published model with its own head.

Both train the same weights on the same batches with the same AdamW, schedule and clipping, in turns, and count the
processor time of this process. The raw script is what a person would write: batches of tensors that were prepared
once, `model(**batch, labels=labels).loss`, `backward`, `clip_grad_norm_`, `step`. Loading and preparing are outside of
both.

    PYTHONPATH=. OMP_NUM_THREADS=1 python evals/bench/own_head_overhead.py [--pairs 7] [--steps 12]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speciate.models.published.architectures import check_head
from speciate.models.published.label_rows import row_sources
from speciate.models.published.network import load_network
from speciate.tasks.published_heads import published_task_head
from speciate.tasks.task_heads import TASK_HEADS
from speciate.training.networks.batches import PreparedItems, batches
from speciate.training.networks.optimizer import LoopParameters, learning_rate_factor
from speciate.training.networks.training_loop import Training
from tests.models.published.doubles import WORDS, named, tokenizer

SEED, BATCH, COUNT, RATE = 7, 16, 192, 1e-4
LABELS = ("cat", "dog", "bird", "fish")


def save_image_model(folder: Path) -> list[Any]:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    config = ViTConfig(
        image_size=64, patch_size=8, hidden_size=192, num_hidden_layers=6, num_attention_heads=3,
        intermediate_size=768, **named(LABELS),
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    draw = np.random.default_rng(0)
    return [draw.integers(0, 255, (64, 64, 3)).astype(np.uint8) for _ in range(COUNT)]


def save_text_model(folder: Path) -> list[Any]:
    from transformers import BertConfig, BertForSequenceClassification

    made = tokenizer()
    config = BertConfig(
        vocab_size=len(made), hidden_size=192, num_hidden_layers=6, num_attention_heads=3, intermediate_size=768,
        max_position_embeddings=64, **named(LABELS),
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    made.save_pretrained(folder)
    draw = np.random.default_rng(0)
    return [" ".join(draw.choice(WORDS.split(), 60)) for _ in range(COUNT)]


class Bench:
    def __init__(self, folder: Path, media: list[Any]) -> None:
        self.folder, self.head = folder, check_head(folder, "bench")
        self.labels = [LABELS[place % len(LABELS)] for place in range(COUNT)]
        self.task_head = published_task_head(
            self.head, TASK_HEADS["classification"].fit(self.labels, {"modality": self.head.modality})
        )
        network = self.network()
        self.items = PreparedItems(media, network.prepare, network.length)
        self.items.take(np.arange(COUNT))  # prepared, as later epochs find them
        self.places = batches(self.items.lengths, BATCH, SEED, 0)

    def network(self) -> Any:
        labels = self.task_head.labels
        network = load_network(self.folder, self.head, "bench", row_sources(LABELS, labels, self.head.adapter))
        network.module.requires_grad_(True)
        return network

    def ours(self, steps: int) -> tuple[float, float]:
        network = self.network()
        given = {"learning_rate": RATE, "num_train_epochs": 2, "batch_size": BATCH, "warmup_ratio": 0.0}
        encoded = self.task_head.encode_targets(self.labels)
        torch.manual_seed(SEED)
        training = Training(
            network, torch.nn.Identity(), self.task_head, self.items, encoded,  # type: ignore[arg-type]
            LoopParameters.model_validate(given), SEED,
        )  # fmt: skip
        training.run_until(1)
        began = time.process_time()
        training.run_until(1 + steps)
        seconds = time.process_time() - began
        assert training.last is not None
        return seconds, training.last.loss

    def raw(self, steps: int) -> tuple[float, float]:
        network = self.network()
        model: Any = network.module
        model.train()
        labels = torch.from_numpy(np.asarray(self.task_head.encode_targets(self.labels))).long()
        ready = []
        for places in self.places:
            items = network.collate(self.items.take(places))
            ready.append(({n: each for n, each in items.items() if not n.endswith("sizes")}, labels[places]))
        spared = [each for each in model.parameters() if each.ndim < 2]
        pulled = [each for each in model.parameters() if each.ndim >= 2]
        groups = [{"params": pulled, "weight_decay": 0.01}, {"params": spared, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=RATE, fused=True)
        total, loss = 2 * len(ready), 0.0
        torch.manual_seed(SEED)
        for step in range(1 + steps):
            if step == 1:
                began = time.process_time()
            batch, wanted = ready[step]
            for group in optimizer.param_groups:
                group["lr"] = RATE * learning_rate_factor(step, total, 0.0, "cosine")
            optimizer.zero_grad(set_to_none=True)
            found = model(**batch, labels=wanted).loss
            found.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            loss = found.item()
        return time.process_time() - began, loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--steps", type=int, default=11)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name, save in (("text", save_text_model), ("image", save_image_model)):
        with tempfile.TemporaryDirectory() as place:
            torch.manual_seed(0)
            bench = Bench(Path(place), save(Path(place)))
            bench.ours(1), bench.raw(1)
            pairs = []
            for number in range(given.pairs):
                first, second = (bench.ours, bench.raw) if number % 2 else (bench.raw, bench.ours)
                a, b = first(given.steps), second(given.steps)
                pairs.append((b, a) if number % 2 == 0 else (a, b))
            ratios = [ours[0] / raw[0] for ours, raw in pairs]
            step = 1000 * statistics.median(raw[0] for _, raw in pairs) / given.steps
            print(
                f"{name}: ours takes {statistics.median(ratios):.3f} of the raw script ({min(ratios):.3f} to "
                f"{max(ratios):.3f}, {given.pairs} pairs), a raw step {step:.0f} ms; last losses "
                f"{pairs[0][0][1]:.5f} and {pairs[0][1][1]:.5f}"
            )


if __name__ == "__main__":
    main()
