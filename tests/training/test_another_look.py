"""A search whose validation examples are too kind: the first verdict does not pass, and the search goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

from speciate.evaluation import suites
from speciate.jobs.engine import Engine
from speciate.jobs.pool import Pool
from speciate.server.tool_api import App, JobStarted
from speciate.settings import Settings
from speciate.tools.training import specialize
from speciate.workspace.workspace import Workspace
from tests.training.world import define, make_dataset

ANIMALS = ["dog", "cat", "horse", "cow", "sheep", "goat", "rabbit", "mouse", "tiger", "lion", "wolf", "bear"]
VEHICLES = ["car", "truck", "bus", "train", "plane", "boat", "bicycle", "lorry", "tractor", "van", "taxi", "ferry"]


def _texts(rng: np.random.Generator, count: int, words: slice) -> tuple[list[str], list[str]]:
    """Sentences about an animal or a vehicle, of these words alone; no two alike."""
    texts: dict[str, str] = {}
    while len(texts) < count:
        label = "animal" if rng.random() < 0.5 else "vehicle"
        word = rng.choice((ANIMALS if label == "animal" else VEHICLES)[words])
        texts[f"we saw a {word} at {rng.integers(1, 24)} o'clock, {rng.integers(2, 99)} metres away"] = label
    return list(texts), list(texts.values())


@pytest.mark.slow
def test_what_word_counts_only_seem_to_know_is_left_to_an_encoder(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = [("train", *_texts(rng, 160, slice(0, 4))), ("validation", *_texts(rng, 160, slice(0, 4))),
             ("test", *_texts(rng, 240, slice(4, 12)))]  # fmt: skip
    workspace = Workspace(tmp_path / "workspace", settings=Settings(policy="auto"))
    app = App(workspace, Engine(workspace), Pool(workspace.folders, workspace.settings, size=0))
    make_dataset(
        workspace, "sightings", "text", {"text": [text for _, texts, _ in parts for text in texts]},
        labels=[label for _, _, labels in parts for label in labels],
        splits=[split for split, texts, _ in parts for _ in texts], inputs=["text"],
    )  # fmt: skip
    define(workspace, "spot", "text-classification", target=0.75)
    started = specialize(app, "spot", "sightings", budget_minutes=6.0, methods=["classical", "probe"])
    assert isinstance(started, JobStarted)
    app.engine.start()
    try:
        done = app.engine.wait(started.job, timeout=600)
        steps = [child.step for child in app.engine.children(started.job)]
    finally:
        app.engine.stop()
    assert done.state == "succeeded", done
    result = dict(done.result or {})
    assert steps == ["train/classical", "evaluate", "train/probe", "evaluate/2", "promote"]
    (first,) = result["earlier_verdicts"]
    assert (first["model"], first["verdict"]) == ("spot-model@v1", "hold")
    assert (result["model"], result["decision"]["verdict"]) == ("spot-model@v2", "promote")
    assert result["promotion"]["state"] == "applied"
    again = [reason for reason in result["decision"]["reasons"] if "judged 1 candidate" in reason]
    assert again, "the second verdict says that these rows were looked at before"
    values = {row["model"]: (row["value"], row["measured_on"]) for row in result["candidates"]}
    assert values["spot-model@v1"][1] == values["spot-model@v2"][1] == "test"
    assert values["spot-model@v2"][0] > values["spot-model@v1"][0] + 0.1
    assert len(suites.all_looks(workspace.database)) >= 2
    workspace.close()
