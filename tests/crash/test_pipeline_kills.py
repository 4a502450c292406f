"""A LoRA training of a text-to-image pipeline is killed at drawn steps, and ends in the same model as one left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("diffusers")
pytest.importorskip("peft")

from tests.crash.test_published_head_kills import World, card_of, finished, kill_at, submit, world
from tests.models.diffusion import doubles
from tests.training.world import make_dataset, png, thirds

pytestmark = [pytest.mark.durable, pytest.mark.slow]
__all__ = ["world"]
COUNT, GOALS = 24, (5, 13)


def test_a_killed_training_ends_in_the_same_model(world: World, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    colours = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (40, 60, 220)}
    names = [list(colours)[place % 3] for place in range(COUNT)]
    pixels = [np.clip(draw.normal(colours[name], 12, (16, 16, 3)), 0, 255).astype(np.uint8) for name in names]
    make_dataset(
        world.workspace, "squares", "image", {"caption": [f"a {name} square" for name in names]}, labels=names,
        splits=thirds(COUNT, ("train", "validation")), media=[png(each) for each in pixels],
    )  # fmt: skip
    spec = {
        "dataset": "squares", "task": "text-to-image", "target": "caption", "method": "lora",
        "base_model": f"path:{doubles.save(tmp_path / 'base')}",
        "hyperparameters": {
            "num_train_epochs": 6, "learning_rate": [5e-3, 1e-3], "batch_size": 4, "precision": "float32",
            "early_stopping_patience": 6, "num_inference_steps": 2,
        },
    }  # fmt: skip
    whole = finished(world, submit(world, spec))
    job = submit(world, spec)
    killed = [at for goal in GOALS if (at := kill_at(world, job, goal)) is not None]
    assert killed
    assert card_of(world, finished(world, job)).id == card_of(world, whole).id, killed
    folder = world.engine.folder(world.engine.get(whole))
    assert (folder.outputs / "samples.png").is_file()
    print(f"killed at {killed}")
