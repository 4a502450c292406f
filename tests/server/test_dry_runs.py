"""What a dry run accepts starts, and does not end for a reason that was known: promise 18 of the design.

Calls that were once accepted and then failed are asked one by one. Calls of every kind are drawn in `make dry-runs`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speciate.errors import SpeciateError
from speciate.server.tool_api import App, DryRun
from tests.server import drawn_calls
from tests.server.drawn_calls import Call

THOROUGH = int(os.environ.get("DRAWN_CALLS", "150"))
"""Calls that the slow test draws."""
FIRST = int(os.environ.get("FIRST_SEED", "0"))


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    root = tmp_path_factory.mktemp("world")
    drawn_calls.make_world(root, only=("reviews", "few", "one", "lopsided", "pairs", "waves", "rounds"))
    with drawn_calls.opened(root) as app:
        yield app


def training(dataset: str, method: str = "classical", **more: Any) -> Call:
    return Call("train_model", {"name": "made", "dataset": dataset, "method": method, **more})


def step(dataset: str, **one: Any) -> Call:
    return Call("curate_dataset", {"dataset": f"{dataset}@v1", "steps": [one]})


REFUSED = (
    (training("rounds", hyperparameters={"parts": ["image"]}), "have hum, note, scan"),
    (training("reviews", hyperparameters={"parts": ["note"]}), "has no parts"),
    (training("reviews", hyperparameters={"candidates": ["covariance"]}), "neighbours, logistic, svm"),
    (training("lopsided"), "1 different value"),
    (training("reviews", target="film", task="text-regression"), "is no target for"),
    (training("waves", task="time-series-forecasting", hyperparameters={"horizon": 40}), "long enough"),
    (training("rounds", "probe", base_model="pkg:minilm", hyperparameters={"encoders": ["timm:nope"]}), "timm model"),
    (Call("register_model", {"name": "made", "source": "timm:resnett18"}), "did you mean 'resnet18'"),
    (step("few", op="drop_outliers"), "too few to tell"),
    (step("few", op="sample", n=6), "only 5"),
    (step("one", op="find_label_errors"), "needs two classes"),
    (step("rounds", op="deduplicate", part="image"), "No usable example has a part"),
    (step("rounds", op="drop_outliers", extractor="pkg:minilm", part="scan"), "embeds text, and this is image"),
    (step("rounds", op="window", seconds=0.1, part="scan"), "one part of mixed rows that has an axis"),
    (Call("add_examples", {"dataset": "reviews", "rows": [{"nope": 1}]}), "lacks column"),
    (Call("evaluate_models", {"models": ["constant:"], "dataset": "reviews", "scorer": "code_passes"}), "'tests'"),
)


@pytest.mark.parametrize(("call", "why"), REFUSED, ids=[str(call) for call, _ in REFUSED])
def test_what_was_known_is_refused_before_there_is_a_job(app: App, call: Call, why: str) -> None:
    found = drawn_calls.outcome(app, call)
    assert found.state == "refused", found
    assert why in found.why


ENDED = (
    training("rounds", hyperparameters={"parts": ["note", "scan"], "candidates": ["logistic"]}),
    step("rounds", op="sample", n=5, strategy="diverse"),
    Call("add_examples", {"dataset": "reviews", "rows": [{"text": "a fresh joy", "label": "good"}]}),
)


@pytest.mark.parametrize(
    "call",
    [*ENDED, pytest.param(step("rounds", op="drop_outliers", extractor="pkg:minilm"), marks=pytest.mark.slow)],
    ids=str,
)
def test_what_a_dry_run_accepts_ends_well(app: App, call: Call) -> None:
    found = drawn_calls.outcome(app, call)
    assert found.state == "ended", found


def test_what_a_plan_cannot_know_is_said(app: App) -> None:
    fails = step("reviews", op="derive", column="number", sql="CAST(label AS INTEGER)")
    dry = drawn_calls.called(app, fails, dry_run=True)
    assert isinstance(dry, DryRun)
    assert dry.valid
    assert dry.not_checked == ("Step 1 (derive): whether the SQL gives each row one value and fails on none",)
    assert drawn_calls.outcome(app, fails).state == "started"


@pytest.mark.parametrize(
    "call",
    [
        Call("evaluate_models", {"models": ["constant:", "api:openai/gpt-5-mini"], "dataset": "reviews"}),
        Call("predict", {"model": "api:openai/gpt-5-mini", "dataset": "reviews", "path": "answers.jsonl"}),
        step("reviews", op="answer", model="api:openai/gpt-5-mini", task="text-classification"),
    ],
    ids=lambda call: call.tool,
)
def test_what_an_api_would_cost_is_told_without_its_key(
    app: App, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    dry = drawn_calls.called(app, call, dry_run=True)
    assert isinstance(dry, DryRun)
    assert not dry.valid
    assert dry.estimate.usd is not None
    assert 0 < dry.estimate.usd < 1
    told = str(dry.refused)
    assert "There is no key 'openai'" in told
    assert "speciate secret set openai --host api.openai.com" in told
    assert "speciate allow reviews --host api.openai.com --usd CAP" in told
    jobs = len(app.engine.list())
    with pytest.raises(SpeciateError, match="There is no key 'openai'") as refused:
        drawn_calls.called(app, call)
    assert str(refused.value) == told
    assert len(app.engine.list()) == jobs


@pytest.mark.slow
def test_no_drawn_call_is_accepted_and_then_fails_for_what_was_known(tmp_path: Path) -> None:
    drawn_calls.make_world(tmp_path)
    with drawn_calls.opened(tmp_path) as app:
        calls = [drawn_calls.drawn(seed, tmp_path) for seed in range(FIRST, FIRST + THOROUGH)]
        found = [(call, drawn_calls.outcome(app, call)) for call in calls]
    lied = [f"{call}: {each.why}" for call, each in found if each.state == "lied"]
    assert not lied, "\n".join(lied)
    assert sum(each.state in ("ended", "started") for _, each in found) > THOROUGH // 10
