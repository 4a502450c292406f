"""Base models beside each other: real vectors of small encoders, and the cascade that tries only what stays."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from speciate.datasets import versions
from speciate.datasets.loading.loader import load_examples
from speciate.errors import Code, SpeciateError
from speciate.jobs.engine import Engine
from speciate.jobs.job import State
from speciate.jobs.kinds import Child, ChildRequest, Finished
from speciate.jobs.run import Run, Stopped
from speciate.models.encoders import load_encoder
from speciate.settings import Settings
from speciate.training import specialize
from speciate.training.cascade import candidates
from speciate.training.cascade.candidates import SpecializeSpec
from speciate.training.planning import shortlist, shortlist_run
from speciate.training.planning.brief_tuning import linear_start
from speciate.training.planning.shortlist import ShortlistSpec, keep_shortlisted
from speciate.training.planning.transferability import h_score, indicators, kept_base_models, logme
from speciate.training.specialize import next_step
from speciate.training.train_spec import Candidate, Payload
from speciate.workspace.workspace import Workspace
from tests.data import run_job
from tests.training.world import define, make_dataset, png, run_folder, thirds, train_now

pytestmark = pytest.mark.slow

pytest.importorskip("torch")
_WIDTHS = {"narrow": 8, "middle": 16, "wide": 32, "wider": 48}
_SPEC = SpecializeSpec(
    use_case="sort", dataset="digits", budget_minutes=1, shortlist=True,
    ways=(
        Candidate(method="classical"), *(Candidate(method="probe", base_model=each) for each in "abcd"),
        *(Candidate(method="full", base_model=each) for each in ("new:vit", *"abcd")),
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed workspace with digits, and folders of networks that have learned nothing; to be copied."""
    from transformers import ViTConfig, ViTModel

    root = tmp_path_factory.mktemp("world")
    for name, width in _WIDTHS.items():
        config = ViTConfig(
            image_size=8, patch_size=4, hidden_size=width, intermediate_size=width, num_hidden_layers=1,
            num_attention_heads=2,
        )  # fmt: skip
        ViTModel(config, add_pooling_layer=False).save_pretrained(root / name)
    workspace = Workspace(root / "workspace", settings=Settings(policy="auto"))
    _digits(workspace, "digits", range(240))
    define(workspace, "sort", "image-classification")
    workspace.close()
    return root


@pytest.fixture
def workspace(world: Path, tmp_path: Path) -> Iterator[Workspace]:
    shutil.copytree(world / "workspace", tmp_path / "workspace")
    workspace = Workspace(tmp_path / "workspace", settings=Settings(policy="auto"))
    yield workspace
    workspace.close()


def _digits(workspace: Workspace, name: str, which: Sequence[int], *, numbers: bool = False) -> None:
    found = load_digits()
    media = [png((found.images[place] * 15).astype(np.uint8)) for place in which]
    labels = [float(found.target[place]) if numbers else f"digit {found.target[place]}" for place in which]
    make_dataset(workspace, name, "image", {}, labels=labels, splits=thirds(len(labels)), media=media)


def _bases(world: Path) -> list[str]:
    return [f"path:{world / name}" for name in _WIDTHS]


def _compared(workspace: Workspace, **spec: Any) -> dict[str, Any]:
    report: dict[str, Any] = run_job(workspace, "shortlist", **spec)["report"]
    return report


def _row(report: dict[str, Any], base_model: str) -> dict[str, Any]:
    return next(row for row in report["candidates"] if row["base_model"] == base_model)


def test_all_are_measured_on_the_same_training_examples_and_the_best_three_stay(
    workspace: Workspace, world: Path
) -> None:
    bases = _bases(world)
    report = _compared(workspace, dataset="digits", use_case="sort", base_models=bases)
    assert report["examples"] == 120
    assert [row["place"] for row in report["candidates"]] == [1, 2, 3, 4]
    assert [row["kept"] for row in report["candidates"]] == [True, True, True, False]
    assert [_row(report, base)["width"] for base in bases] == list(_WIDTHS.values())
    assert "do not choose" in report["weakness"]
    again = _compared(workspace, dataset="digits", use_case="sort", base_models=bases)
    for row, other in zip(report["candidates"], again["candidates"], strict=True):
        assert row | {"seconds": 0} == other | {"seconds": 0}


def test_the_first_are_tuned_for_an_epoch_and_the_least_loss_of_held_out_examples_decides(
    workspace: Workspace, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bases = _bases(world)
    report = _compared(workspace, dataset="digits", base_models=bases)
    losses = [row["loss"] for row in report["candidates"]]
    assert losses == sorted(losses)
    assert 0 < losses[0] < losses[-1] < 5
    assert report["candidates"][0]["why"] == "among the best after brief tuning"
    plan = shortlist.plan(ShortlistSpec(dataset="digits", base_models=tuple(bases)), workspace)
    payloads = {name: Payload.model_validate(each) for name, each in plan.payload_json()["candidates"].items()}
    run = Run(run_folder(workspace, "job-b", plan.payload_json()))
    worst_first = {row["base_model"]: 1.0 - place / 10 for place, row in enumerate(report["candidates"])}

    def found(run: Run, context: Any, payload: Payload, base_model: str, *_: Any) -> float:
        return worst_first[base_model]

    monkeypatch.setattr(shortlist_run, "loss_after_an_epoch", found)
    turned = shortlist_run.compare_base_models(run, payloads, None, 3, 0)
    assert [row["base_model"] for row in turned["candidates"]] == sorted(bases, key=worst_first.__getitem__)
    assert [row["kept"] for row in turned["candidates"]] == [True, True, True, False]

    def fails(*_: Any) -> float:
        raise SpeciateError(Code.INVALID, "It cannot be trained.")

    monkeypatch.setattr(shortlist_run, "loss_after_an_epoch", fails)
    by_vectors = shortlist_run.compare_base_models(run, payloads, None, 3, 0)["candidates"]
    assert all("loss" not in row for row in by_vectors)
    assert by_vectors[0]["why"] == "among the best scores"


def _payloads(
    workspace: Workspace, dataset: str, bases: Sequence[str], seed: int = 0
) -> tuple[Run, dict[str, Payload]]:
    spec = ShortlistSpec(dataset=dataset, base_models=tuple(bases), seed=seed, task="image-classification")
    plan = shortlist.plan(spec, workspace)
    payloads = {name: Payload.model_validate(each) for name, each in plan.payload_json()["candidates"].items()}
    return Run(run_folder(workspace, f"job-{dataset}-{seed}", plan.payload_json())), payloads


def test_no_base_model_is_judged_by_examples_that_one_has_learned_from(
    workspace: Workspace, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, bases = load_digits(), _bases(world)
    media = [png((found.images[place] * 15).astype(np.uint8)) for place in range(200)]
    labels = [f"digit {found.target[place]}" for place in range(200)]
    splits = ["train"] * 100 + ["validation"] * 100
    make_dataset(workspace, "mine", "image", {}, labels=labels, splits=splits, media=media)
    judged: list[int] = []

    def one(run: Run, context: Any, payload: Payload, base_model: str, learned: Any, held: Any, _: Any) -> float:
        judged.append(len(held))
        return 0.1

    monkeypatch.setattr(shortlist_run, "loss_after_an_epoch", one)
    for name, learned_from, wanted in (("some", 130, [70] * 4), ("most", 185, [])):
        part = slice(100, learned_from)
        make_dataset(workspace, name, "image", {}, labels=labels[part], splits=["train"] * (learned_from - 100),
                     media=media[part])  # fmt: skip
        run, payloads = _payloads(workspace, "mine", bases, seed=learned_from)
        theirs = versions.resolve(workspace.database, name)
        payloads[bases[0]] = payloads[bases[0]].model_copy(update={"base_learned_from": (theirs,)})
        judged.clear()
        rows = shortlist_run.compare_base_models(run, payloads, None, 3, 0)["candidates"]
        assert judged == wanted
        assert [("loss" in row) for row in rows] == [bool(wanted)] * 4


def test_a_rare_label_is_among_those_that_are_learned(
    workspace: Workspace, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = load_digits()
    media = [png((found.images[place] * 15).astype(np.uint8)) for place in range(200)]
    splits = ["train"] * 100 + ["validation"] * 50 + ["test"] * 50
    labels = ["rare" if place in {3, 70, 120, 160} else "usual" for place in range(200)]
    make_dataset(workspace, "rare", "image", {}, labels=labels, splits=splits, media=media)
    monkeypatch.setattr(shortlist_run, "MOST_LEARNED", 10)
    for seed, most in ((0, 100), (1, 100), (2, 12)):
        run, payloads = _payloads(workspace, "rare", _bases(world), seed)
        monkeypatch.setattr(shortlist_run, "_OF_LABEL", 1)
        rows = shortlist_run.compare_base_models(run, payloads, None, 3, seed, most=most)["candidates"]
        assert all(row["loss"] > 0 for row in rows)

    def nothing(*_: Any) -> float:
        raise ValueError("This solver needs samples of at least 2 classes in the data")

    monkeypatch.setattr(shortlist_run, "loss_after_an_epoch", nothing)
    rows = shortlist_run.compare_base_models(run, payloads, None, 3, 0)["candidates"]
    assert [("loss" in row) for row in rows] == [False] * 4


def test_the_rest_are_not_tuned_where_the_first_says_that_time_is_too_short(
    workspace: Workspace, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, tuned = [0.0], list[str]()

    def slow(run: Run, context: Any, payload: Payload, base_model: str, *_: Any) -> float:
        tuned.append(base_model)
        clock[0] += 10.0
        return 0.1

    monkeypatch.setattr(shortlist_run, "loss_after_an_epoch", slow)
    monkeypatch.setattr(shortlist_run, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    run, payloads = _payloads(workspace, "digits", _bases(world))
    for seconds, wanted in ((12.0, 1), (1000.0, 4)):
        clock[0] = 0.0
        tuned.clear()
        rows = shortlist_run.compare_base_models(run, payloads, seconds, 3, 0)["candidates"]
        assert len(tuned) == wanted
        assert [("loss" in row) for row in rows] == [wanted == 4] * 4


@pytest.mark.parametrize("classes", [2, 3])
def test_a_head_begins_at_the_best_linear_answer(classes: int) -> None:
    from sklearn.linear_model import LogisticRegression

    draw = np.random.default_rng(0)
    codes = np.arange(60) % classes
    vectors = draw.normal(5, 3, (60, 4)) + 4 * codes[:, None] * [1, 0, -1, 0]
    weights, biases = linear_start(vectors, codes, classes + 1)  # one label does not occur
    scores = vectors @ weights.T + biases
    shares = np.exp(scores - scores.max(1, keepdims=True))
    spread = (vectors - vectors.mean(0)) / (vectors.std(0) + 1e-6)
    wanted = LogisticRegression(C=1.0, max_iter=30, tol=1e-3).fit(spread, codes).predict_proba(spread)
    assert (shares[:, :classes] / shares[:, :classes].sum(1, keepdims=True)) == pytest.approx(wanted, abs=1e-4)


def test_numbers_are_compared_as_classes_are(workspace: Workspace, world: Path) -> None:
    _digits(workspace, "amounts", range(120), numbers=True)
    report = _compared(workspace, dataset="amounts", base_models=_bases(world)[:2])
    assert report["task"] == "image-regression"
    assert all(0 < row["h_score"] < 1 for row in report["candidates"])


def test_the_scores_are_those_of_the_training_examples_vectors(workspace: Workspace, world: Path) -> None:
    bases = _bases(world)[1:3]
    report = _compared(workspace, dataset="digits", base_models=bases)
    manifest = versions.resolve(workspace.database, "digits")
    examples = load_examples(workspace.folders, manifest, ("train",))
    columns = indicators(np.unique([example.label for example in examples], return_inverse=True)[1])
    for base in bases:
        encoder = load_encoder(base)
        vectors = np.zeros((len(examples), encoder.width))
        for places, batch in encoder.embed([example.media for example in examples]):
            vectors[places] = batch
        row = _row(report, base)
        assert row["logme"] == pytest.approx(logme(vectors, columns), abs=1e-3)
        assert row["h_score"] == pytest.approx(h_score(vectors, columns), abs=1e-3)
        assert row["parameters"] == encoder.parameters


def test_what_has_learned_from_these_examples_has_no_scores_unless_enough_others_remain(
    workspace: Workspace, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = train_now(
        workspace, name="knows", dataset="digits", method="full", base_model=_bases(world)[0],
        hyperparameters={"num_train_epochs": 1, "learning_rate": [1e-3]},
    )["model"]  # fmt: skip
    bases = [_bases(world)[0], trained]
    row = _row(_compared(workspace, dataset="digits", base_models=bases), trained)
    assert (row["kept"], row["place"]) == (True, None)
    assert row["why"] == "not measured: it has learned from these very examples"
    assert "logme" not in row
    _digits(workspace, "more", range(340))  # of its 170 for training, 120 were learned from
    monkeypatch.setattr(shortlist_run, "_FEWEST_UNSEEN", 50)
    report = _compared(workspace, dataset="more", base_models=bases)
    assert report["examples"] == 50
    assert _row(report, trained)["place"] is not None


def test_what_does_not_suit_stays_with_the_reason_and_the_others_are_compared(
    workspace: Workspace, world: Path
) -> None:
    report = _compared(workspace, dataset="digits", base_models=[_bases(world)[0], "path:/nowhere"])
    assert _row(report, "path:/nowhere") == {
        "base_model": "path:/nowhere", "kept": True, "why": "not measured: There is no folder '/nowhere'.",
    }  # fmt: skip


def test_without_time_nothing_is_measured_and_everything_stays(workspace: Workspace, world: Path) -> None:
    report = _compared(workspace, dataset="digits", base_models=_bases(world)[:2], budget_minutes=1e-9)
    assert [row["kept"] for row in report["candidates"]] == [True] * 2
    assert all("longer than the time" in row["why"] for row in report["candidates"])
    assert report["examples"] == 0


def test_a_stop_is_heard(workspace: Workspace, world: Path) -> None:
    plan = shortlist.plan(ShortlistSpec(dataset="digits", base_models=tuple(_bases(world))), workspace)
    run = Run(run_folder(workspace, "job-s", plan.payload_json()))
    (run.folder.path / "cancel").touch()
    with pytest.raises(Stopped):
        shortlist_run.run(run)


def test_the_time_decides_how_many_examples_all_are_measured_on(
    workspace: Workspace, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = shortlist.plan(ShortlistSpec(dataset="digits", base_models=tuple(_bases(world)[:2])), workspace)
    payloads = {name: Payload.model_validate(each) for name, each in plan.payload_json()["candidates"].items()}
    run = Run(run_folder(workspace, "job-m", plan.payload_json()))
    monkeypatch.setattr(shortlist_run, "_OF_LABEL", 5)
    assert shortlist_run.compare_base_models(run, payloads, None, 3, 0, most=20)["examples"] == 50
    monkeypatch.setattr(shortlist_run, "_CHUNK", 10)
    ticks = itertools.count()
    monkeypatch.setattr(shortlist_run, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    report = shortlist_run.compare_base_models(run, payloads, 18.0, 3, 0, most=120)
    assert 24 <= report["examples"] < 120
    assert [row["place"] for row in report["candidates"]] == [1, 2]


@pytest.mark.parametrize("spec", [{"dataset": "digits"}, {"dataset": "digits", "task": "image-anomaly-detection"}])
def test_what_cannot_be_compared_is_refused(workspace: Workspace, world: Path, spec: dict[str, Any]) -> None:
    bases = ("path:/nowhere", "path:/neither") if "task" not in spec else tuple(_bases(world))
    with pytest.raises(SpeciateError):
        shortlist.plan(ShortlistSpec(base_models=bases, **spec), workspace)


def test_published_models_of_the_registry_are_tried_by_themselves(workspace: Workspace, world: Path) -> None:
    fresh = [way.method for way in candidates.choose_candidates(workspace, "sort", "digits")]
    assert fresh == ["classical", "full", "full"]
    for name in _WIDTHS:
        run_job(workspace, "fetch", name=name, source=f"path:{world / name}")
    found = candidates.choose_candidates(workspace, "sort", "digits")
    assert [way.base_model for way in found if way.method == "probe"] == [f"{name}@v1" for name in sorted(_WIDTHS)]
    assert [way.method for way in found] == sorted(
        (str(way.method) for way in found), key=["classical", "probe", "lora", "full"].index
    )
    assert candidates.needs_shortlist(workspace, "sort", found)
    assert not candidates.needs_shortlist(workspace, "sort", found[:4])
    specialize.plan(SpecializeSpec(use_case="sort", dataset="digits", budget_minutes=1, ways=found), workspace)


@pytest.mark.slow
def test_measuring_a_plan_compares_the_base_models_that_are_there(workspace: Workspace, world: Path) -> None:
    for name in ("narrow", "wide"):
        run_job(workspace, "fetch", name=name, source=f"path:{world / name}")
    engine = Engine(workspace)  # measuring forks, which only a process that has not computed yet survives
    engine.start()
    try:
        job = engine.wait(engine.submit("measure", {"dataset": "digits", "method": "probe"}).id, timeout=500)
    finally:
        engine.stop()
    report = (job.result or {})["report"]
    assert [one["base_model"] for one in report["candidates"]] == ["narrow@v1", "wide@v1"]
    assert report["shortlist"]["examples"] == 120
    assert {row["place"] for row in report["shortlist"]["candidates"]} == {1, 2}


@pytest.mark.slow
def test_specialize_compares_four_base_models_and_trains_three(workspace: Workspace, world: Path) -> None:
    engine = Engine(workspace)
    engine.start()
    found = candidates.choose_candidates(workspace, "sort", "digits", _bases(world), ["probe"])
    spec = {
        "use_case": "sort", "dataset": "digits", "budget_minutes": 10, "base_models": _bases(world),
        "methods": ["probe"], "ways": [way.model_dump(exclude_none=True) for way in found],
        "shortlist": candidates.needs_shortlist(workspace, "sort", found),
    }  # fmt: skip
    try:
        job = engine.wait(engine.submit("specialize", spec).id, timeout=570)
    finally:
        engine.stop()
    assert job.state is State.SUCCEEDED, job.error
    result = job.result or {}
    stay = kept_base_models(result["shortlist"])
    assert len(stay) == 3
    assert [one["base_model"] for one in result["candidates"]] == stay
    best_three = [row["base_model"] for row in result["shortlist"]["candidates"] if row["place"] <= 3]
    assert stay == best_three


# The cascade


def _child(step: str, kind: str, spec: dict[str, Any] | None = None, **fields: Any) -> Child:
    given: dict[str, Any] = {"state": "succeeded", "result": None, "run_seconds": 1.0}
    return Child(id=f"job-{step}", step=step, kind=kind, spec=spec or {}, **(given | fields))


def _trained(step: str, version: int, value: float = 0.5, target: float | None = 0.9, **way: Any) -> Child:
    validation = {"value": value, "interval": [value, value], "standard_error": 0.01, "how": "validation", "n": 500}
    report = {
        "dataset": "digits@v1", "base_model": None, **way, "metric": "accuracy", "target": target, "seconds": 1.0,
        "dearer": [], "validation": validation,
    }  # fmt: skip
    return _child(step, "train", way, result={"model": f"sort-model@v{version}", "report": report})


def _next(*children: Child, spec: SpecializeSpec = _SPEC) -> ChildRequest:
    step = next_step(spec, children, 0.0)
    assert not isinstance(step, Finished), step
    return step[0]


CLASSICAL = _trained("train/classical", 1, method="classical")
REPORT = {
    "candidates": [
        {"base_model": "c", "kept": True}, {"base_model": "d", "kept": False}, {"base_model": "a", "kept": True},
        {"base_model": "b", "kept": False},
    ]
}  # fmt: skip
SHORTLIST = _child("shortlist", "shortlist", result={"report": REPORT})


def test_base_models_are_compared_before_the_first_of_them_is_trained() -> None:
    assert _next().step == "train/classical"
    asked = _next(CLASSICAL)
    assert (asked.step, asked.kind) == ("shortlist", "shortlist")
    assert asked.spec["base_models"] == ["a", "b", "c", "d"]
    assert asked.spec["dataset"] == "digits@v1"
    assert asked.spec["budget_minutes"] == pytest.approx(53 / 60 / 3)  # a tenth is for the evaluation
    ShortlistSpec.model_validate(asked.spec)


def test_what_was_left_out_is_not_trained_and_the_most_promising_comes_first() -> None:
    assert _next(CLASSICAL, SHORTLIST).step == "train/probe-c"
    children, steps = [CLASSICAL, SHORTLIST], []
    while (asked := _next(*children)).kind == "train":
        steps.append(asked.step)
        children.append(_trained(asked.step, len(children), method=asked.spec["method"]))
    assert steps == ["train/probe-c", "train/probe-a", "train/full-new-vit", "train/full-c", "train/full-a"]
    assert asked.kind == "evaluate"


def test_nothing_is_compared_where_it_was_not_asked_for_or_is_not_needed_any_more() -> None:
    assert _next(CLASSICAL, spec=_SPEC.model_copy(update={"shortlist": False})).step == "train/probe-a"
    met = _trained("train/classical", 1, 0.95, method="classical")
    assert _next(met).kind == "evaluate"


def test_where_comparing_failed_all_are_tried_and_the_failure_is_told() -> None:
    failed = _child("shortlist", "shortlist", state="failed", error={"message": "no room", "recovery": "wait"})
    assert _next(CLASSICAL, failed).step == "train/probe-a"
    assert _end(CLASSICAL, failed).result["failed"][0]["why"] == "no room"
    assert "shortlist" not in _end(CLASSICAL, failed).result


def test_the_result_has_the_shortlist() -> None:
    assert _end(CLASSICAL, SHORTLIST).result["shortlist"] == REPORT


def test_a_shortlist_that_used_the_budget_up_leaves_time_for_one_training() -> None:
    late = SHORTLIST.model_copy(update={"run_seconds": 500.0})
    probes = _SPEC.model_copy(update={"ways": _SPEC.ways[1:5]})
    asked = _next(late, spec=probes)
    assert (asked.step, asked.spec["budget_minutes"] > 0) == ("train/probe-c", True)
    done = _trained(asked.step, 1, method="probe", base_model="c")
    assert _next(late, done, spec=probes).kind == "evaluate"


def test_what_serves_is_gone_on_with_whatever_the_shortlist_says() -> None:
    warm = Candidate(method="full", base_model="b", continue_from="b")
    assert keep_shortlisted([warm, Candidate(method="full", base_model="b")], REPORT) == [warm]


def _end(*children: Child) -> Finished:
    evaluated = {
        "evaluation": "evaluation-1", "decision": {"id": "d", "verdict": "hold", "reasons": ["measured"]},
        "report": {"baseline": "constant:", "candidate": "sort-model@v1", "leaderboard": []},
    }  # fmt: skip
    end = next_step(_SPEC, [*children, _child("evaluate", "evaluate", result=evaluated)], 0.0)
    assert isinstance(end, Finished)
    return end
