"""Policies as LeRobot saves them, through the tools: as they are, trained further, and judged by acting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torchvision")

from speciate.errors import SpeciateError
from tests.domains.lerobot_set import Layout, demonstrations, write
from tests.domains.test_robots import Tools, tools
from tests.models.policies import doubles

__all__ = ["tools"]
pytestmark = pytest.mark.slow
_NUMBERS = {"observation.state": doubles.STATE, "observation.environment_state": doubles.PLACES}
_SCALED = {"STATE": "MEAN_STD", "ENV": "MEAN_STD", "ACTION": "MEAN_STD"}
CONFIGS: dict[str, dict[str, Any]] = {
    "act": {
        "type": "act", "input_features": _NUMBERS, "output_features": doubles.ACTION, "chunk_size": 8,
        "n_action_steps": 2, "dim_model": 48, "n_heads": 4, "dim_feedforward": 96, "n_encoder_layers": 1,
        "n_vae_encoder_layers": 1, "latent_dim": 4, "dropout": 0.0, "kl_weight": 0.1, "normalization_mapping": _SCALED,
    },
    "diffusion": {
        "type": "diffusion", "input_features": _NUMBERS, "output_features": doubles.ACTION, "horizon": 8,
        "n_action_steps": 4, "down_dims": [32, 64], "diffusion_step_embed_dim": 32, "num_train_timesteps": 50,
        "num_inference_steps": 10, "noise_scheduler_type": "DDIM", "drop_n_last_frames": 3,
        "normalization_mapping": {"STATE": "MIN_MAX", "ENV": "MIN_MAX", "ACTION": "MIN_MAX"},
    },
}  # fmt: skip
EPOCHS = {"act": 80, "diffusion": 80}


def test_policies_are_trained_further_by_their_own_loss_and_judged_by_acting(tools: Tools) -> None:
    write(Path("demonstrations"), demonstrations(range(80), noise=0.3), Layout(per_data=40, per_video=40))
    tools.call("create_dataset", name="reach", source="demonstrations")
    fractions = {"train": 0.6, "validation": 0.1, "test": 0.3}
    tools.call("curate_dataset", dataset="reach", steps=[{"op": "split", "fractions": fractions}])
    tools.call(
        "define_use_case", name="reacher", task="behaviour-cloning", incumbent="constant:",
        objective={"metric": "success_rate", "target": 0.3},
    )  # fmt: skip
    asked: dict[str, Any] = {"dataset": "reach", "method": "full", "use_case": "reacher"}
    models = ["constant:"]
    for kind, config in CONFIGS.items():
        doubles.write(Path(kind), config, drawn=True)
        learning = {"num_train_epochs": EPOCHS[kind], "learning_rate": [1e-3], "batch_size": 64}
        made = tools.call(
            "train_model", name=f"my-{kind}", base_model=f"path:{kind}", hyperparameters=learning, **asked
        )
        assert made["report"]["published_head"] == {"kept": "published", "architecture": f"LeRobot's {kind}"}
        models += [f"path:{kind}", made["model"]]
    learning = {"num_train_epochs": 50, "early_stopping_patience": 15, "learning_rate": [3e-3]}
    models.append(
        tools.call("train_model", name="cloned", base_model="new:bc-mlp", hyperparameters=learning, **asked)["model"]
    )
    judged = tools.call(
        "evaluate_models", models=models, dataset="reach:test", use_case="reacher", metrics=["action_mae"],
        latency=False,
    )  # fmt: skip
    success = {row["model"].partition("@")[0]: row["value"] for row in judged["report"]["leaderboard"]}
    print(success, judged["decision"]["verdict"])
    assert max(success["path:act"], success["path:diffusion"], success["constant:"]) <= 0.1
    assert success["my-act"] >= 0.35
    assert success["my-diffusion"] >= 0.2
    tools.call("export_model", model="my-act@v1", format="safetensors", path="out")
    names = {path.name for path in Path("out").iterdir()}
    assert {"config.json", "model.safetensors", "policy_preprocessor.json"} <= names
    assert json.loads(Path("out/config.json").read_text()) == CONFIGS["act"]


def test_a_registered_policy_is_evaluated_by_its_name_and_answers_an_episode(tools: Tools) -> None:
    write(Path("demonstrations"), demonstrations(range(24)), Layout(per_data=24, per_video=24))
    doubles.write(Path("act"), CONFIGS["act"])
    tools.call("create_dataset", name="reach", source="demonstrations")
    tools.call("register_model", name="published-act", source="path:act", license="Apache-2.0")
    found = tools.call(
        "evaluate_models", models=["published-act", "constant:"], dataset="reach", metrics=["success_rate"],
        latency=False,
    )  # fmt: skip
    errors = {row["model"].partition("@")[0]: row["errors"] for row in found["report"]["leaderboard"]}
    assert errors == {"published-act": 0, "constant:": 0}
    ((example, steps),) = tools.call(
        "query_dataset", dataset="reach", sql="SELECT id, steps FROM examples ORDER BY id LIMIT 1"
    )["untrusted"]["rows"]
    for _ in range(20):
        try:
            given = [{"example": example, "dataset": "reach"}]
            answer = tools.call("predict", model="published-act", inputs=given)
            break
        except SpeciateError as error:  # of a busy machine, where loading takes longer than a call waits
            if "still being loaded" not in str(error):
                raise
    actions = answer["predictions"][0]["untrusted"]["output"]["actions"]
    assert [len(each) for each in actions] == [2] * steps
