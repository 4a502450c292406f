"""A published head from a training to production, through the tools: trained, evaluated, promoted, asked, exported."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

import torch

from speciate.errors import Code, SpeciateError
from speciate.server.tool_api import App, DryRun
from speciate.serving.predict import Input
from speciate.tools.evaluation import evaluate_models
from speciate.tools.exports import export_model
from speciate.tools.predictions import Predictions, predict
from speciate.tools.promotion import Promotion, promote_model
from speciate.tools.training import plan_training, train_model
from tests.models.published import doubles
from tests.training.in_use import offline_app, result  # noqa: F401 - a fixture
from tests.training.test_published_heads import QUICK, make_images, make_texts
from tests.training.world import define

pytestmark = pytest.mark.slow


def ask(app: App, given: Input) -> Any:
    """Again where the busy machine still loads the model, as the refusal says; each call waits for half a minute."""
    for _ in range(8):
        try:
            found = predict(app, inputs=[given], use_case="sorting")
        except SpeciateError as error:
            if error.code is not Code.UNAVAILABLE:
                raise
            continue
        assert isinstance(found, Predictions)
        return found.predictions[0]
    raise AssertionError("the model was not loaded")


@pytest.mark.parametrize("medium", ["text", "image"])
def test_from_the_plan_to_the_export(app: App, tmp_path: Path, medium: str) -> None:
    torch.manual_seed(0)
    base = tmp_path / "base"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        doubles.bert(base, ("NEGATIVE", "POSITIVE")) if medium == "text" else doubles.vit(base)
    dataset = (make_texts if medium == "text" else make_images)(app.workspace, count=400).name
    task = f"{medium}-classification"
    define(app.workspace, "sorting", task)
    planned: Any = plan_training(app, dataset=dataset, use_case="sorting", base_model=f"path:{base}")
    assert {each.head for each in planned.candidates if each.method in ("lora", "full")} == {"published"}
    given = {
        "name": "sorter", "dataset": dataset, "use_case": "sorting", "method": "full", "base_model": f"path:{base}",
        "hyperparameters": QUICK,
    }  # fmt: skip
    dry: Any = train_model(app, **given, dry_run=True)
    assert isinstance(dry, DryRun)
    assert dry.resolved["head"] == "published"
    trained = result(app, train_model(app, **given))
    assert trained["report"]["validation"]["value"] > 0.8
    judged = result(
        app, evaluate_models(app, models=[trained["model"]], dataset=dataset, use_case="sorting", latency=False)
    )  # fmt: skip
    assert judged["decision"]["verdict"] == "promote", judged["decision"]
    promoted = promote_model(app, use_case="sorting", model=trained["model"])
    assert isinstance(promoted, Promotion)
    assert promoted.state == "applied", promoted
    first = Input(text="very good day") if medium == "text" else Input(example=f"{dataset}-000000", dataset=dataset)
    answer = ask(app, first)
    assert answer.untrusted.output in ("good", "red")
    out = tmp_path / "given away"
    report = result(app, export_model(app, model=trained["model"], path=str(out)))
    assert json.loads((out / "config.json").read_text())["architectures"]
    print(report)
    from transformers import pipeline

    asked = pipeline(task, model=str(out), device="cpu")
    if medium == "text":
        assert asked("very good day")[0]["label"] == answer.untrusted.output
        assert asked("very good day")[0]["score"] == pytest.approx(answer.confidence, abs=1e-5)
