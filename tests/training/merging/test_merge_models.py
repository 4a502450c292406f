"""Merges of real networks, from the plan to the registry."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speciate.datasets.loading.loader import load_examples
from speciate.datasets.versions import resolve
from speciate.errors import Code, SpeciateError
from speciate.evaluation.contamination import learned_from
from speciate.jobs.folder import write_whole
from speciate.jobs.job import Job, State
from speciate.jobs.run import Run
from speciate.lineage.model_report import model_report
from speciate.models import registry
from speciate.promotion import promote
from speciate.promotion.evidence import PromoteSpec
from speciate.refs import JobId
from speciate.settings import Settings
from speciate.tasks import predictor
from speciate.tasks.network_predictor import NetworkPredictor
from speciate.training.merging import merge_models, merge_run
from speciate.training.merging.merge_spec import MergeSpec
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.training.world import define, make_dataset, model_path, run_folder, thirds, train_now

pytest.importorskip("torch")
QUICK = {"num_train_epochs": 6, "learning_rate": [2e-3], "batch_size": 16, "precision": "float32"}


def flowers(workspace: Workspace, name: str = "flowers", seed: int = 0, **changes: Any) -> None:
    chance = np.random.default_rng(seed)
    kinds = [i % 3 for i in range(120)]
    columns: dict[str, Sequence[Any]] = {
        "long": [float(kind + chance.normal(0, 0.3)) for kind in kinds],
        "wide": [float(kind % 2 + chance.normal(0, 0.3)) for kind in kinds],
    }
    labels = changes.get("labels") or [("rose", "iris", "lily")[kind] for kind in kinds]
    splits = changes.get("splits") or thirds(120)
    make_dataset(workspace, name, "tabular", columns, labels=labels, splits=splits, inputs=list(columns))


def tune(workspace: Workspace, name: str, seed: int = 0, **changes: Any) -> str:
    spec: dict[str, Any] = {"dataset": "flowers", "method": "full", "hyperparameters": QUICK, "seed": seed}
    base = {} if "base_model" in changes else {"continue_from": "begun@v1"}
    job = f"job-{name}-{len(registry.versions(workspace.database, name))}"
    return str(train_now(workspace, job, name=name, **{**spec, **base, **changes})["model"])


def begin(workspace: Workspace) -> None:
    flowers(workspace)
    tune(workspace, "begun", base_model="new:tab-resnet", hyperparameters={**QUICK, "num_train_epochs": 2})


def merge_now(workspace: Workspace, job: str = "job-merge", **spec: Any) -> dict[str, Any]:
    payload = merge_models.plan(MergeSpec(**{"name": "merged", **spec}), workspace).payload_json()
    folder = run_folder(workspace, job, payload)
    write_whole(folder.outputs / "result.json", json.dumps(merge_run.run(Run(folder))))
    collected = merge_models.KIND.collect(folder)
    row = Job(id=JobId(job), kind="merge", spec={}, fingerprint="", state=State.RUNNING, created=0.0, changed=0.0)
    return workspace.database.transact(lambda tx: merge_models.KIND.commit(tx, row, collected))


def refused(workspace: Workspace, **spec: Any) -> str:
    with pytest.raises(SpeciateError) as caught:
        merge_models.plan(MergeSpec(**{"name": "merged", **spec}), workspace)
    assert caught.value.code in (Code.INVALID, Code.CONFLICT, Code.NOT_FOUND)
    assert caught.value.recovery
    return caught.value.message


def weights_of(workspace: Workspace, ref: str) -> dict[str, Any]:
    from safetensors.torch import load_file

    folder = model_path(workspace, ref)
    return {**load_file(folder / "backbone.safetensors"), **load_file(folder / "head.safetensors")}


def same(workspace: Workspace, one: str, two: str) -> bool:
    import torch

    first, second = weights_of(workspace, one), weights_of(workspace, two)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def right(workspace: Workspace, ref: str, dataset: str = "flowers") -> float:
    examples = load_examples(workspace.folders, resolve(workspace.database, dataset), ("test",))
    given = predictor.load(model_path(workspace, ref)).predict(examples)
    return float(np.mean([one.output == example.label for one, example in zip(given, examples, strict=True)]))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a network and three that go on from it, closed: each test has a copy."""
    folder = tmp_path_factory.mktemp("prepared") / "workspace"
    workspace = Workspace(folder, clock=ManualClock(), settings=Settings(policy="auto"))
    begin(workspace)
    for place in range(3):
        tune(workspace, f"net{place}", seed=place, hyperparameters={**QUICK, "batch_size": (8, 16, 32)[place]})
    workspace.close()
    return folder


@pytest.fixture
def tuned(prepared: Path, tmp_path: Path, clock: ManualClock) -> Iterator[Workspace]:
    shutil.copytree(prepared, tmp_path / "copy")
    workspace = Workspace(tmp_path / "copy", clock=clock, settings=Settings(policy="auto"))
    yield workspace
    workspace.close()


ALL = ("net0", "net1", "net2")


def test_a_soup_answers_is_measured_and_has_its_parents(tuned: Workspace) -> None:
    result = merge_now(tuned, models=ALL, method="soup")
    assert result["model"] == "merged@v1"
    assert [member["weight"] for member in result["report"]["members"]] == [pytest.approx(1 / 3)] * 3
    assert result["report"]["validation"]["value"] > 0.8
    assert right(tuned, "merged") > 0.8
    card = registry.resolve(tuned.database, tuned.folders, "merged").card
    assert (card.method, card.base_model, set(card.parents)) == ("merge", "begun@v1", {f"{name}@v1" for name in ALL})
    assert card.dataset == "flowers@v1"
    assert set(model_report(tuned, "merged").lineage) == {*card.parents, "begun@v1", "new:tab-resnet", "flowers@v1"}
    means = {name: sum(weights_of(tuned, ref)[name].double() for ref in ALL) / 3 for name in weights_of(tuned, "net0")}
    for name, value in weights_of(tuned, "merged").items():
        if "num_batches" not in name and "running" not in name:
            assert np.allclose(value.double(), means[name], atol=1e-6), name


def test_the_same_merge_is_the_same_model_in_any_order(tuned: Workspace) -> None:
    merge_now(tuned, "job-1", models=ALL, method="soup")
    again = merge_now(tuned, "job-2", models=("net2", "net0", "net1"), method="soup")
    assert again["model"] == "merged@v1"  # the same bytes are the same version
    weighted = merge_now(tuned, "job-3", models=ALL, method="soup", weights=(2, 1, 1))
    assert weighted["model"] == "merged@v2"


def test_slerp_ends_in_its_models(tuned: Workspace) -> None:
    merge_now(tuned, models=("net0", "net1"), method="slerp", weights=(1, 0))
    assert same(tuned, "merged", "net0")
    merge_now(tuned, "job-2", name="other", models=("net0", "net1"), method="slerp", weights=(0, 1))
    assert same(tuned, "other", "net1")


def test_task_arithmetic_of_nothing_is_the_base_with_its_head(tuned: Workspace) -> None:
    merge_now(tuned, models=ALL, method="task_arithmetic", weights=(0, 0, 0))
    assert same(tuned, "merged", "begun")


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "dare"])
def test_methods_on_the_base_make_models_that_answer(tuned: Workspace, method: str) -> None:
    result = merge_now(tuned, models=ALL, method=method)
    assert right(tuned, "merged") > 0.8
    assert result["report"]["parameters"]["density"] == {"ties": 0.2, "dare": 0.5}.get(method, 1.0)


@pytest.mark.slow
def test_a_greedy_soup_leaves_out_who_makes_it_worse(tuned: Workspace) -> None:
    tune(
        tuned,
        "spoilt",
        hyperparameters={**QUICK, "num_train_epochs": 1, "learning_rate": [3.0], "early_stopping_patience": 1},
    )
    result = merge_now(tuned, models=(*ALL, "spoilt"), method="greedy")
    members = {one["model"]: one for one in result["report"]["members"]}
    assert not members["spoilt@v1"]["merged"]
    best = max(one["validation"]["value"] for one in members.values())
    assert result["report"]["validation"]["value"] >= best
    card = registry.resolve(tuned.database, tuned.folders, "merged").card
    assert "spoilt@v1" not in card.parents
    assert "spoilt@v1" in card.recipe["merge"]["models"]


@pytest.mark.slow
def test_what_the_parents_learned_a_merge_has_seen(tuned: Workspace) -> None:
    flowers(tuned, "garden", seed=5)
    tune(tuned, "elsewhere", dataset="garden")
    merge_now(tuned, models=("net0", "elsewhere"), method="soup")
    card = registry.resolve(tuned.database, tuned.folders, "merged").card
    assert card.dataset is None  # they have none in common
    learned = learned_from(tuned.database, tuned.folders, card)
    assert learned is not None
    assert {manifest.ref for manifest in learned} == {"flowers@v1", "garden@v1"}


def test_without_a_dataset_in_common_nothing_is_measured_and_that_is_said(tuned: Workspace) -> None:
    flowers(tuned, "garden", seed=5)
    tune(tuned, "elsewhere", dataset="garden")
    report = merge_now(tuned, models=("net0", "elsewhere"), method="soup")["report"]
    assert report["validation"] is None
    assert "nothing was measured" in report["notes"][0]
    report = merge_now(tuned, "job-2", models=("net0", "elsewhere"), method="soup", dataset="garden")["report"]
    assert report["validation"]["value"] > 0.6


@pytest.mark.slow
def test_merges_can_be_merged_and_trained_on(tuned: Workspace) -> None:
    merge_now(tuned, models=("net0", "net1"), method="soup")
    result = merge_now(tuned, "job-2", name="both", models=("merged", "net2"), method="soup")
    assert result["report"]["validation"]["value"] > 0.8
    tune(tuned, "onwards", continue_from="both@v1")
    line = merge_models.lineage_of(tuned, registry.resolve(tuned.database, tuned.folders, "onwards").card)
    assert line.refs == ("onwards@v1", "both@v1", "begun@v1", "new:tab-resnet")


def test_a_merge_is_not_promoted_without_a_decision(tuned: Workspace) -> None:
    define(tuned, "triage", "tabular-classification", core="flowers@v1:test")
    merge_now(tuned, models=ALL, method="soup")
    spec = PromoteSpec(use_case="triage", model="merged@v1")
    row = Job(id=JobId("job-p"), kind="promote", spec={}, fingerprint="", state=State.RUNNING, created=0.0, changed=0.0)
    said = tuned.database.transact(lambda tx: promote.act(tx, spec, row, tuned.settings))
    assert said["state"] == "refused"
    assert "No decision" in said["reasons"][0]


@pytest.mark.slow
def test_what_began_elsewhere_is_refused(tuned: Workspace) -> None:
    tune(tuned, "stranger", base_model="new:tab-resnet")
    said = refused(tuned, models=("net0", "stranger"), method="soup")
    assert "no base in common" in said
    tune(tuned, "stranger", base_model="new:tab-resnet", seed=3)
    said = refused(tuned, models=("stranger@v1", "stranger@v2"), method="soup")
    assert "different valleys" in said


@pytest.mark.slow
def test_other_labels_other_networks_and_no_networks_are_refused(tuned: Workspace) -> None:
    flowers(tuned, "garden", labels=["tree" if i % 3 else "bush" for i in range(120)])
    tune(tuned, "trees", dataset="garden")
    assert "different labels" in refused(tuned, models=("net0", "trees"), method="soup")
    train_now(
        tuned,
        "job-c",
        name="fitted",
        dataset="flowers",
        method="classical",
        hyperparameters={"candidates": ["logistic"]},
    )
    assert "no network" in refused(tuned, models=("net0", "fitted"), method="soup")


def test_what_cannot_be_meant_is_refused(tuned: Workspace) -> None:
    assert "more than once" in refused(tuned, models=("net0", "net0@v1"), method="soup")
    assert "two models" in refused(tuned, models=ALL, method="slerp")
    assert "3 models and 2 weights" in refused(tuned, models=ALL, method="soup", weights=(1, 1))
    assert "not negative" in refused(tuned, models=ALL, method="soup", weights=(1, 1, -1))
    assert "takes no weights" in refused(tuned, models=ALL, method="greedy", weights=(1, 1, 1))
    assert "densty" in refused(tuned, models=ALL, method="ties", hyperparameters={"densty": 0.3})
    assert "nowhere" in refused(tuned, models=("net0", "nowhere"), method="soup")
    assert "at least 2" in refused(tuned, models=("net0",), method="soup")


def test_a_greedy_soup_needs_validation_examples(tuned: Workspace) -> None:
    flowers(tuned, "garden", seed=5, splits=thirds(120, ("train", "test")))
    said = refused(tuned, models=("net0", "net1"), method="greedy", dataset="garden")
    assert "no split 'validation'" in said


def test_a_folder_that_was_changed_is_not_merged(tuned: Workspace) -> None:
    payload = merge_models.plan(MergeSpec(name="merged", models=ALL, method="soup"), tuned).payload_json()
    folder = Path(payload["members"][1]["folder"])
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    payload["members"][1]["folder"] = str(copy)
    data = bytearray((copy / "head.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "head.safetensors").write_bytes(bytes(data))
    with pytest.raises(SpeciateError, match="sealed"):
        merge_run.run(Run(run_folder(tuned, "job-x", payload)))


# Norms over batches


def waves(workspace: Workspace, name: str, seed: int) -> None:
    """Series of two kinds of waves, which differ in their level from dataset to dataset."""
    chance = np.random.default_rng(seed)
    kinds = [i // 2 % 2 for i in range(64)]
    rows = [(np.sin(np.arange(32) * (0.3 + 0.6 * kind)) + chance.normal(seed, 0.2, 32)).tolist() for kind in kinds]
    make_dataset(
        workspace, name, "time-series", {"series": rows}, labels=[("slow", "fast")[kind] for kind in kinds],
        splits=thirds(64), inputs=["series"],
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.slow
def test_the_statistics_of_batchnorm_are_counted_anew(workspace: Workspace) -> None:
    import torch

    waves(workspace, "waves", 0)
    short = {**QUICK, "num_train_epochs": 2}
    tune(workspace, "begun", dataset="waves", base_model="new:inceptiontime", hyperparameters=short)
    for seed in (1, 2):
        tune(workspace, f"net{seed}", dataset="waves", seed=seed, hyperparameters=short)
    result = merge_now(workspace, models=("net1", "net2"), method="soup")
    assert any("BatchNorm" in note for note in result["report"]["notes"])
    merged, one, two = (weights_of(workspace, ref) for ref in ("merged", "net1", "net2"))
    counted = [name for name in merged if name.endswith("running_mean")]
    assert counted
    assert any(not torch.allclose(merged[name], (one[name] + two[name]) / 2, atol=1e-4) for name in counted)
    model = predictor.load(model_path(workspace, "merged"))
    assert isinstance(model, NetworkPredictor)
    before = {name: value.clone() for name, value in model.backbone.module.state_dict().items()}
    learned = load_examples(workspace.folders, resolve(workspace.database, "waves"), ("train",))
    merge_run.recount_batch_norms(model.backbone, model.backbone.prepare([example.media for example in learned]))
    for name, value in model.backbone.module.state_dict().items():
        assert torch.equal(before[name], value), name  # of the same weights and examples the same
    waves(workspace, "others", 3)
    tune(workspace, "apart", dataset="others", hyperparameters=short)
    assert "BatchNorm" in refused(workspace, models=("net1", "apart"), method="soup")
