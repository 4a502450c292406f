"""Chronos-Bolt answers as its makers' pipeline does, is loaded strictly, and stands beside our own in an evaluation."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

from safetensors.numpy import load_file, save_file

from speciate.errors import Code, SpeciateError
from speciate.models.published.architectures import check_head
from speciate.models.published.asking import ask
from speciate.models.published.network import is_trainable
from speciate.models.published.published_model import load_model
from speciate.workspace.workspace import Workspace
from tests.models.published import doubles
from tests.training.test_published_families import Case, judge
from tests.training.test_published_families import series as made_series
from tests.training.world import define, train_now

SETTINGS = {
    "context_length": 48, "prediction_length": 8, "input_patch_size": 8, "input_patch_stride": 8,
    "quantiles": [0.1, 0.25, 0.5, 0.75, 0.9], "use_reg_token": True,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


SAID = {"architectures": ["ChronosBoltModelForForecasting"], "model_type": "t5", "chronos_config": SETTINGS}


def bolt(folder: Path) -> Path:
    import torch
    from transformers import T5Config

    module = pytest.importorskip("chronos.chronos_bolt")
    config = T5Config(
        d_model=16, d_ff=32, d_kv=8, num_layers=1, num_decoder_layers=1, num_heads=2, vocab_size=2, pad_token_id=0,
        decoder_start_token_id=0, feed_forward_proj="relu", dropout_rate=0.0,
    )  # fmt: skip
    config.chronos_config = SETTINGS
    config.chronos_pipeline_class = "ChronosBoltPipeline"
    torch.manual_seed(0)
    module.ChronosBoltModelForForecasting(config).save_pretrained(folder)
    return folder


def test_it_answers_with_the_median_of_its_makers_pipeline(tmp_path: Path) -> None:
    import torch

    folder = bolt(tmp_path / "bolt")
    head = check_head(folder, "bolt")
    assert (head.task, head.modality, head.steps) == ("time-series-forecasting", "time-series", 8)
    assert not is_trainable(head, head.task, "time-series")
    model = load_model(folder, head)
    gap = doubles.series()[0].copy()
    gap[0, 4] = np.nan
    media = [*doubles.series()[:3], gap, doubles.series()[0][:, :20], np.concatenate(doubles.series()[:2])]
    pipeline = pytest.importorskip("chronos").ChronosBoltPipeline.from_pretrained(folder)
    for series, mine in zip(media, ask(model, media), strict=True):
        _, theirs = pipeline.predict_quantiles(torch.from_numpy(series.astype(np.float32)), prediction_length=8)
        assert np.shape(mine.output) == (len(series), 8)
        assert np.allclose(mine.output, theirs.numpy(), atol=1e-5)


@pytest.mark.slow
def test_it_stands_beside_a_candidate_of_ours(workspace: Workspace, tmp_path: Path) -> None:
    folder = bolt(tmp_path / "bolt")
    made_series(workspace)
    define(workspace, "some-use", "time-series-forecasting", metric="mase", incumbent="constant:")
    ours = train_now(workspace, dataset="some", name="ours", use_case="some-use", method="classical")
    case = Case("", "time-series-forecasting", "mase", made_series, lower=True)
    report = judge(workspace, ["constant:", f"path:{folder}", ours["model"]], case)
    rows = {each.model.partition("@")[0]: each for each in report.leaderboard}
    assert set(rows) == {"constant:", "path:bolt", "ours"}
    assert all(each.errors == 0 and each.value is not None for each in rows.values())
    assert rows["ours"].value < rows["path:bolt"].value, "random weights forecast nothing"


@pytest.mark.parametrize("layer", ["input_patch_embedding.hidden_layer", "output_patch_embedding.output_layer"])
def test_a_layer_that_the_package_itself_would_draw_at_random_is_refused_where_it_is_missing(
    tmp_path: Path, layer: str
) -> None:
    folder = bolt(tmp_path / "bolt")
    weights = load_file(folder / "model.safetensors")
    del weights[f"{layer}.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SpeciateError, match=f"it lacks {layer}.weight"):
        load_model(folder, check_head(folder, "bolt"))


def test_without_the_package_it_is_refused_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps(
            {"architectures": ["ChronosBoltModelForForecasting"], "model_type": "t5", "chronos_config": SETTINGS}
        )
    )
    head = check_head(tmp_path, "bolt")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SpeciateError) as refused:
        load_model(tmp_path, head)
    assert refused.value.code is Code.MISSING_EXTRA
    assert "pip install 'speciate[forecasts]'" in refused.value.recovery
