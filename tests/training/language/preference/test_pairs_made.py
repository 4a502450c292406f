"""Pairs that an evaluation makes, through the tools: they train a reward model, by which a model is then trained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import speciate
from speciate.server.client import Client
from tests.domains.calling import ended
from tests.language.world import messages, tiny_model
from tests.server.processes import Daemons

pytestmark = pytest.mark.slow

QUICK: dict[str, Any] = {"changes": "full", "batch_size": 8, "learning_rate": 3e-3, "judged": 8, "max_new_tokens": 8}


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    daemons = Daemons(tmp_path / "workspace")
    daemons.workspace.mkdir()
    monkeypatch.chdir(tmp_path)
    yield speciate.connect(daemons.workspace)
    daemons.close()


def test_answers_of_an_evaluation_become_pairs_a_judge_and_a_model_that_it_teaches(
    client: Client, tmp_path: Path
) -> None:
    rows = [
        {"prompt": f"is {colour} {at} good?", "completion": right, "old": right if at % 4 else "no idea", "new": wrong}
        for at in range(40)
        for colour, right, wrong in (("red", "yes", "no"), ("blue", "no", "yes"))
    ]
    (tmp_path / "asked.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = ended(client, "create_dataset", name="asked", source="asked.jsonl", inputs=["prompt"])["dataset"]
    every = ended(
        client, "curate_dataset", dataset=made, steps=[{"op": "split", "fractions": {"test": 1.0}}]
    )["dataset"]  # fmt: skip
    client.call("define_use_case", name="yes-or-no", task="text-generation", objective={"metric": "exact_match"})
    judged = ended(
        client, "evaluate_models", models=["column:old", "column:new"], dataset=every, use_case="yes-or-no"
    )  # fmt: skip
    pairs = ended(
        client, "curate_dataset", dataset=every,
        steps=[
            {"op": "preferences", "evaluation": judged["evaluation"]},
            {"op": "split", "fractions": {"train": 0.7, "validation": 0.3}, "seed": 1},
        ],
    )["dataset"]  # fmt: skip
    base = tiny_model(tmp_path / "base")
    judge = ended(
        client, "train_model", name="judge", dataset=pairs, method="reward", base_model=base,
        hyperparameters=QUICK | {"epochs": 8, "max_new_tokens": 4},
    )  # fmt: skip
    assert judge["report"]["task"] == "preference"
    board = ended(client, "evaluate_models", models=["judge"], dataset=f"{pairs}:validation")["report"]
    print(judge["report"]["validation"], board["ranking"] if "ranking" in board else board.keys())
    said = [{"text": messages("is red 3 good?", answer)} for answer in ("yes", "no")]
    good, bad = client.call("predict", model="judge", inputs=said)["predictions"]
    assert isinstance(good["untrusted"]["output"], float)
    assert isinstance(bad["untrusted"]["output"], float)
    for method, more in (
        ("dpo", {}),
        ("grpo", {"steps": 2, "generations": 4, "rewards": [{"kind": "model", "model": "judge"}]}),
    ):
        report = ended(
            client, "train_model", name=method, dataset=pairs, method=method, base_model=base,
            hyperparameters=QUICK | more,
        )["report"]  # fmt: skip
        assert report["training"]["ended"] == "finished"
    assert report["watched"]["rewards"]["model"]["failures"] == {}
    assert report["watched"]["end"]["reward"] != 0
