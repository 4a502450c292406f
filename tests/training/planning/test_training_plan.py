from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModel, ResNetConfig

from speciate.errors import Code, SpeciateError
from speciate.jobs import rows
from speciate.jobs.job import Job, State
from speciate.models.backbones import architectures
from speciate.refs import JobId
from speciate.sample_size import to_show_target
from speciate.server.tool_api import DryRun, JobStarted
from speciate.tools.training import TrainingPlan, specialize, train_model
from speciate.tools.training import plan_training as plan_tool
from speciate.training.cascade.candidates import choose_candidates
from speciate.training.hyperparameters import ClassicalParameters, LoraParameters, in_use
from speciate.training.planning.training_plan import plan_training
from speciate.training.recipes import lora_full
from speciate.training.train_spec import RequestedResources
from speciate.vocabulary import find_metric
from speciate.workspace.workspace import Workspace
from tests.data import ingest
from tests.server.apps import make_app
from tests.training.world import define, make_dataset, png, thirds


def _record(workspace: Workspace, report: dict[str, object]) -> None:
    ran = Job(
        id=JobId("job-1"), kind="train", spec={}, fingerprint="", state=State.SUCCEEDED, result={"report": report},
        created=0.0, changed=0.0, ended=1.0,
    )  # fmt: skip
    workspace.database.transact(lambda tx: rows.insert(tx, [ran]))


def _dataset(workspace: Workspace) -> None:
    texts = {"text": [f"text {i}" for i in range(400)]}
    labels = ["a" if i % 4 < 2 else "b" for i in range(400)]
    make_dataset(workspace, "notes", "text", texts, labels=labels, splits=thirds(400), inputs=["text"])
    define(workspace, "sorting", "text-classification", target=0.9)


def test_candidates_come_from_cheap_to_dear_with_what_the_target_needs(workspace: Workspace) -> None:
    _dataset(workspace)
    plan = plan_training(workspace, "notes", use_case="sorting")
    assert plan.candidates[0].method == "classical"
    assert plan.candidates[0].estimate.known_from == ("shipped",), "no run of this workspace tells yet"
    assert plan.candidates[0].estimate.peak_memory_mb is None
    assert plan.needed_test_examples is not None
    assert plan.test_examples == 100


def test_a_candidate_shows_the_options_that_say_something(workspace: Workspace) -> None:
    _dataset(workspace)
    (classical,) = plan_training(workspace, "notes", method="classical").candidates
    assert classical.hyperparameters == {"folds": 5}
    oddities = {"positive_label": "odd", "normal_share": 0.9}
    assert in_use(ClassicalParameters(**oddities), "anomaly") == {"folds": 5, **oddities}
    assert in_use(ClassicalParameters(horizon=8, parts=("scan",)), "forecasting") == {
        "folds": 5, "horizon": 8, "parts": ["scan"],
    }  # fmt: skip


def _report(length: float) -> dict[str, object]:
    """Of a training on 300 texts of so many characters."""
    return {
        "method": "classical", "base_model": None, "modality": "text", "examples": 300,
        "cost": {
            "family": "classification", "length": length, "visits": 0, "seconds": 90.0, "cpu_seconds": 72.0,
            "stages": {"preparing": [10, 8], "training": [70, 60], "judging": [0, 0]}, "steps": 0, "planned_steps": 0,
            "start_memory_mb": 100, "loaded_memory_mb": 120, "peak_memory_mb": 200,
        },
    }  # fmt: skip


def test_time_is_known_from_like_runs_and_what_takes_too_long_is_refused(workspace: Workspace) -> None:
    _dataset(workspace)
    _record(workspace, _report(length=7.725))
    (candidate,) = plan_training(workspace, "notes", method="classical").candidates
    assert candidate.estimate.seconds == pytest.approx(90)
    assert candidate.estimate.peak_memory_mb == 200
    assert candidate.estimate.usd == pytest.approx(72 / 3600 * 0.05)
    assert candidate.estimate.known_from == ("job-1",)
    tight = plan_training(workspace, "notes", method="classical", budget_minutes=1)
    assert tight.candidates == ()
    assert "budget of 1 minutes." in tight.refused[0].why
    network = plan_training(workspace, "notes", method="full", base_model="new:bert", budget_minutes=0.01)
    assert network.refused[0].why.endswith("specialize trains fewer where some fit.")


def test_a_recorded_run_on_texts_of_unknown_length_tells_nothing(workspace: Workspace) -> None:
    """Texts in files once counted as one character each, which made the next training look 4,500 times as long."""
    _dataset(workspace)
    _record(workspace, _report(length=1.0))
    (candidate,) = plan_training(workspace, "notes", method="classical").candidates
    assert candidate.estimate.known_from == ("shipped",)


def test_what_no_method_can_do_is_an_error_with_what_can(workspace: Workspace) -> None:
    _dataset(workspace)
    with pytest.raises(SpeciateError) as refusal:
        plan_training(workspace, "notes", base_model="pkg:nothing", method="probe")
    assert refusal.value.code is Code.NOT_FOUND


def test_a_task_of_tables_on_a_table_that_was_read_as_texts_names_the_call_that_reads_it(workspace: Workspace) -> None:
    _dataset(workspace)
    with pytest.raises(SpeciateError, match="holds text") as refused:
        plan_training(workspace, "notes", task="tabular-classification")
    assert "create_dataset with modality='tabular'" in refused.value.advice
    with pytest.raises(SpeciateError, match="holds text") as refused:
        plan_training(workspace, "notes", task="audio-classification")
    assert "tabular" not in refused.value.advice


def test_what_a_target_for_one_label_needs_is_counted_in_rows_of_all_labels(workspace: Workspace) -> None:
    _dataset(workspace)
    define(workspace, "finding", "text-classification", 0.9, "recall", positive_label="a")
    both = [plan_training(workspace, "notes", use_case=name).needed_test_examples for name in ("sorting", "finding")]
    assert both[0] is not None
    assert both[1] == 2 * both[0]


def test_what_a_target_needs_is_by_the_metric_and_the_labels_of_the_test_split(workspace: Workspace) -> None:
    """Rare labels in the test split alone, which macro F1 counts like the others."""
    splits = thirds(800)
    labels = ["rare" if split == "test" and i % 40 == 3 else "ab"[i // 4 % 2] for i, split in enumerate(splits)]
    texts = {"text": [f"text {i}" for i in range(800)]}
    make_dataset(workspace, "notes", "text", texts, labels=labels, splits=splits, inputs=["text"])
    plans = {}
    for metric in ("accuracy", "f1_macro", "auprc", "mcc"):
        define(workspace, metric, "text-classification", 0.75, metric)
        plans[metric] = plan_training(workspace, "notes", use_case=metric)
    assert (plans["accuracy"].needed_test_examples, plans["mcc"].needed_test_examples) == (82, None)
    tested = Counter(label for label, split in zip(labels, splits, strict=True) if split == "test")
    assert tested["rare"] == 20
    needed = plans["f1_macro"].needed_test_examples
    assert needed == to_show_target(find_metric("f1_macro"), 0.75, tested)
    assert needed is not None
    assert needed > 100
    told = {name: [each for each in plan.warnings if "needed_test_examples" in each] for name, plan in plans.items()}
    rough = "needed_test_examples takes average precision as a share of right answers. It is none, so that is rough."
    assert told == {"accuracy": [], "f1_macro": [], "auprc": [rough], "mcc": []}


def test_a_target_that_one_label_reaches_alone_is_told(workspace: Workspace) -> None:
    texts = {"text": [f"text {i}" for i in range(400)]}
    labels = ["rare" if i % 25 == 0 else "usual" for i in range(400)]
    make_dataset(workspace, "notes", "text", texts, labels=labels, splits=thirds(400), inputs=["text"])
    told = {}
    for name, target, metric in (("low", 0.9, "accuracy"), ("high", 0.97, "accuracy"), ("alike", 0.9, "f1_macro")):
        define(workspace, name, "text-classification", target, metric)
        warnings = plan_training(workspace, "notes", use_case=name).warnings
        told[name] = [each for each in warnings if "to say it always" in each]
    assert told["high"] == told["alike"] == []
    (warning,) = told["low"]
    assert warning.startswith("96% of the rows have the label 'usual': to say it always reaches the target 0.9")


def test_where_test_rows_lie_in_groups_what_a_target_needs_is_a_lower_bound(workspace: Workspace) -> None:
    rows = [{"text": f"the note {i} of a visit", "y": "ab"[i % 2], "who": f"who {i % 150}"} for i in range(600)]
    ingest(workspace, "visits", rows=rows, label="y", group_by="who", inputs=("text",))
    define(workspace, "sorting", "text-classification", 0.9)
    (told,) = [
        each for each in plan_training(workspace, "visits", use_case="sorting").warnings if "lower bound" in each
    ]
    assert re.search(r"the \d+ test rows lie in \d+ groups: it is a lower bound\.", told)


def test_measuring_is_a_job(workspace: Workspace) -> None:
    _dataset(workspace)
    app = make_app(workspace)
    first, second = (
        plan_tool(app, "notes", method="classical", measure=True, idempotency_key="once") for _ in range(2)
    )
    assert isinstance(first, JobStarted)
    assert (first, first.kind) == (second, "measure")
    with pytest.raises(SpeciateError, match="nothing"):
        plan_tool(app, "notes", method="probe", base_model="pkg:nothing", measure=True)


def test_what_a_plan_calls_next_is_what_was_asked_for(workspace: Workspace) -> None:
    _dataset(workspace)
    app = make_app(workspace)
    for asked, passed in (
        ({}, {}),
        ({"method": "classical"}, {"methods": ["classical"]}),
        ({"base_model": "pkg:minilm"}, {"base_models": ["pkg:minilm"]}),
    ):
        plan = plan_tool(app, "notes", use_case="sorting", **asked)
        assert isinstance(plan, TrainingPlan)
        (call,) = plan.next_actions
        usual = {"use_case": "sorting", "dataset": "notes@v1", "budget_minutes": 5}
        assert (call.tool, call.arguments) == ("specialize", usual | passed)
        assert isinstance(specialize(app, **call.arguments, dry_run=True), DryRun)


def test_a_plan_without_a_use_case_calls_the_training_of_the_cheapest_candidate(workspace: Workspace) -> None:
    _dataset(workspace)
    app = make_app(workspace)
    for asked, passed in (
        ({}, {"method": "classical"}),
        ({"task": "text-classification", "budget_minutes": 3}, {"method": "classical"}),
        ({"base_model": "pkg:minilm", "method": "probe"}, {"method": "probe", "base_model": "pkg:minilm"}),
    ):
        plan = plan_tool(app, "notes", **asked)
        assert isinstance(plan, TrainingPlan)
        (call,) = plan.next_actions
        usual = {"name": "notes-model", "dataset": "notes@v1"}
        assert (call.tool, call.arguments) == ("train_model", asked | usual | passed)
        assert isinstance(train_model(app, **call.arguments, dry_run=True), DryRun)


def test_a_plan_does_not_offer_what_lacks_a_test_split(workspace: Workspace) -> None:
    splits = ["train", "validation"] * 50
    texts = {"text": [f"text {i}" for i in range(100)]}
    make_dataset(workspace, "notes", "text", texts, labels=["a", "a", "b", "b"] * 25, splits=splits, inputs=["text"])
    define(workspace, "sorting", "text-classification", target=0.9)
    plan = plan_tool(make_app(workspace), "notes", use_case="sorting")
    assert isinstance(plan, TrainingPlan)
    assert (plan.test_examples, plan.next_actions) == (0, ())


def test_a_dry_run_tells_what_is_known(workspace: Workspace) -> None:
    _dataset(workspace)
    app = make_app(workspace)
    dry = train_model(
        app, "sorter", "notes", "classical", resources=RequestedResources(cpu=1, memory_mb=800), dry_run=True
    )
    assert isinstance(dry, DryRun)
    assert dry.estimate.known_from == ("shipped",)
    assert dry.estimate.seconds is not None
    assert dry.estimate.peak_memory_mb == 800


def _pictures(workspace: Workspace) -> None:
    media = [png(np.full((8, 8), 40 * i, np.uint8)) for i in range(6)]
    make_dataset(workspace, "pictures", "image", {}, labels=["a", "b"] * 3, splits=["train"] * 6, media=media)


def test_a_base_model_alone_gets_the_methods_that_take_it(workspace: Workspace) -> None:
    _pictures(workspace)
    (candidate,) = plan_training(workspace, "pictures", base_model="timm:resnet10t").candidates
    assert (candidate.method, candidate.base_model) == ("full", "timm:resnet10t")
    with pytest.raises(SpeciateError, match="reads text"):
        plan_training(workspace, "pictures", base_model="new:bert")
    with pytest.raises(SpeciateError, match="no architecture"):
        plan_training(workspace, "pictures", base_model="new:vitt")


def test_lora_of_a_network_without_linear_layers_is_refused_naming_full(workspace: Workspace, tmp_path: Path) -> None:
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    _pictures(workspace)
    base = f"path:{tmp_path}"
    with pytest.raises(SpeciateError, match="has none") as refusal:
        plan_training(workspace, "pictures", method="lora", base_model=base)
    assert "method='full'" in refusal.value.recovery
    assert [each.method for each in plan_training(workspace, "pictures", base_model=base).candidates] == [
        "probe",
        "full",
    ]
    with pytest.raises(SpeciateError, match="has none"):
        lora_full.lora_method(LoraParameters()).adapt(
            architectures.build("timm:resnet10t", [np.zeros((8, 8, 3), np.uint8)], 0)
        )
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(SpeciateError, match="holds an adapter"):
        plan_training(workspace, "pictures", base_model=base)


def test_a_table_is_planned_without_and_with_tabm(workspace: Workspace) -> None:
    columns = {"width": [float(i % 7) for i in range(60)], "height": [float(i % 5) for i in range(60)]}
    labels = ["a" if i % 7 < 3 else "b" for i in range(60)]
    make_dataset(workspace, "table", "tabular", columns, labels=labels, splits=thirds(60), inputs=list(columns))
    found = plan_training(workspace, "table", method="classical").candidates
    assert [each.hyperparameters.get("tabm") for each in found] == [None, True]
    assert found[0].why != found[1].why


def test_where_the_best_is_wanted_the_plan_of_a_table_ends_as_specialize_does(workspace: Workspace) -> None:
    columns = {"width": [float(i % 7) for i in range(80)]}
    labels = ["a" if i % 7 < 3 else "b" for i in range(80)]
    make_dataset(workspace, "table", "tabular", columns, labels=labels, splits=thirds(80), inputs=list(columns))
    define(workspace, "sorting", "tabular-classification", aim="best")
    define(workspace, "quick", "tabular-classification")
    last = plan_training(workspace, "table", use_case="sorting", budget_minutes=2).candidates[-1]
    assert (last.method, last.hyperparameters["thorough"], last.estimate.seconds) == ("classical", True, 120)
    assert "specialize runs it last" in last.why
    assert choose_candidates(workspace, "sorting", "table")[-1].thorough
    for asked in ({"use_case": "quick"}, {"use_case": "sorting", "method": "classical"}, {}):
        shown = plan_training(workspace, "table", **asked).candidates
        assert not any(each.hyperparameters.get("thorough") for each in shown), asked
