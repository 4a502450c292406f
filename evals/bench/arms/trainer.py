"""A plain script with transformers' Trainer, as its documentation has it: MiniLM for texts, a fresh ViT for pictures.

Without OURS all arguments of the training are its defaults. OURS is JSON: learning_rate, epochs, batch_size, patience
and stop_at, the accuracy on held-out examples that is enough. Then the rest is as `train_model(method="full")` has it
(a cosine after a tenth of warm-up, weight decay 0.01) and held-out examples are judged after each epoch. The last
weights are kept: `load_best_model_at_end` loads a ViT only in part (transformers #43701).

    python evals/bench/arms/trainer.py FOLDER KIND OUT SEED [--epochs N] [--ours OURS] [--weights DIR] [--bare]

`--bare`: ends with the saved model, as `train_model` does; nothing but held-out examples was judged until then.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from examples import Examples, read, tell
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
    set_seed,
)


class Enough(TrainerCallback):
    def __init__(self, accuracy: float) -> None:
        self._accuracy = accuracy

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Mapping[str, float], **others: Any) -> None:
        control.should_training_stop |= metrics["eval_accuracy"] >= self._accuracy


def pixels(pictures: list[Any]) -> list[dict[str, Any]]:
    """uint8 (H, W) each -> float32 (3, H, W) in [-1, 1]"""
    scaled = [np.repeat(picture[None] / np.float32(127.5) - 1, 3, axis=0) for picture in pictures]
    return [{"pixel_values": torch.from_numpy(each)} for each in scaled]


def small_vit(side: int, labels: int) -> Any:
    """The size of `new:vit`."""
    config = ViTConfig(
        image_size=side, patch_size=4, hidden_size=96, intermediate_size=192, num_hidden_layers=4,
        num_attention_heads=3, num_labels=labels,
    )  # fmt: skip
    return ViTForImageClassification(config)


def settings(asked: argparse.Namespace, examples: int) -> tuple[dict[str, Any], list[TrainerCallback]]:
    """Arguments of TrainingArguments, and callbacks."""
    if asked.ours is None:
        return {} if asked.epochs is None else {"num_train_epochs": asked.epochs}, []
    ours = json.loads(asked.ours)
    steps = ours["num_train_epochs"] * -(-examples // ours["batch_size"])
    arguments = {
        "num_train_epochs": ours["num_train_epochs"], "learning_rate": ours["learning_rate"],
        "per_device_train_batch_size": ours["batch_size"], "per_device_eval_batch_size": ours["batch_size"],
        "lr_scheduler_type": "cosine", "warmup_steps": -(-steps // 10), "weight_decay": 0.01,
        "eval_strategy": "epoch", "metric_for_best_model": "accuracy", "save_strategy": "no",
    }  # fmt: skip
    callbacks: list[TrainerCallback] = [EarlyStoppingCallback(ours["early_stopping_patience"])]
    if ours.get("stop_at") is not None:
        callbacks.append(Enough(ours["stop_at"]))
    return arguments, callbacks


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("kind", choices=("text", "image"))
    parser.add_argument("out", type=Path)
    parser.add_argument("seed", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--ours")
    parser.add_argument("--weights")
    parser.add_argument("--bare", action="store_true")
    asked = parser.parse_args()
    learn, held = read(asked.folder, "train"), read(asked.folder, "validation")
    names = sorted(set(learn.labels))
    set_seed(asked.seed)
    tokenizer = AutoTokenizer.from_pretrained(asked.weights) if asked.kind == "text" else None
    model = (
        AutoModelForSequenceClassification.from_pretrained(asked.weights, num_labels=len(names))
        if tokenizer
        else small_vit(len(learn.inputs[0]), len(names))
    )

    def items(inputs: list[Any]) -> list[dict[str, Any]]:
        return [dict(tokenizer(text, truncation=True)) for text in inputs] if tokenizer else pixels(inputs)

    def labelled(examples: Examples) -> list[dict[str, Any]]:
        pairs = zip(items(examples.inputs), examples.labels, strict=True)
        return [item | {"labels": names.index(label)} for item, label in pairs]

    arguments, callbacks = settings(asked, len(learn.labels))
    trainer = Trainer(
        model=model,
        args=TrainingArguments(output_dir=str(asked.out), seed=asked.seed, **arguments),
        train_dataset=labelled(learn),
        eval_dataset=labelled(held),
        processing_class=tokenizer,
        compute_metrics=lambda made: {"accuracy": float((made.predictions.argmax(-1) == made.label_ids).mean())},
        callbacks=callbacks,
    )
    trainer.train()
    trainer.save_model()

    def predict(inputs: list[Any]) -> list[str]:
        return [names[place] for place in trainer.predict(items(inputs)).predictions.argmax(-1)]

    state = trainer.state
    judged = () if asked.bare else ("validation", "test")
    tell(asked.folder, predict, *judged, steps=state.global_step, epochs=round(state.epoch, 2))


if __name__ == "__main__":
    main()
