"""Language models are merged by the same code, and judged by what they write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from speciate.models import registry
from speciate.workspace.workspace import Workspace
from tests.models.language.world import tiny_model
from tests.training.language.world import make_sums
from tests.training.merging.test_merge_models import merge_now
from tests.training.world import model_path, train_now

pytestmark = pytest.mark.slow

torch = pytest.importorskip("torch")
pytest.importorskip("trl")


def _weights(workspace: Workspace, ref: str) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(model_path(workspace, ref) / "model.safetensors")


def test_fine_tunings_of_a_language_model_are_merged_and_measured(workspace: Workspace, tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base")
    make_sums(workspace)
    for place, rate in enumerate((3e-3, 5e-3)):
        train_now(
            workspace, f"job-{place}", name=f"adder{place}", dataset="sums", method="sft", base_model=base, seed=place,
            target="answer",
            hyperparameters={
                "changes": "full", "num_train_epochs": 2, "batch_size": 16, "learning_rate": rate, "max_new_tokens": 4,
            },
        )  # fmt: skip
    result = merge_now(workspace, models=("adder0", "adder1"), method="soup")
    report = result["report"]
    assert report["validation"]["n"] == report["members"][0]["validation"]["n"] == 10
    card = registry.resolve(workspace.database, workspace.folders, "merged").card
    assert (card.task, card.method, card.base_model) == ("text-generation", "merge", base)
    first, second, merged = (_weights(workspace, ref) for ref in ("adder0", "adder1", "merged"))
    for name, value in merged.items():
        assert torch.allclose(value, (first[name] + second[name]) / 2, atol=1e-6), name
    merge_now(workspace, "job-t", name="nothing", models=("adder0", "adder1"), method="task_arithmetic", weights=(0, 0))
    from safetensors.torch import load_file

    begun = load_file(tmp_path / "base" / "model.safetensors")
    for name, value in _weights(workspace, "nothing").items():
        assert torch.equal(value, begun[name]), name
