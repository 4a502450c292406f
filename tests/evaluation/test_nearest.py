"""`nearest:`, the free method that a field expects beside the best constant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from speciate.datasets.loading.loader import Example
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.evaluation.compare_models import Cost, ModelEntry, Question, build
from speciate.evaluation.evaluated_models import EvaluatedModel
from speciate.evaluation.metrics import label_answers
from speciate.evaluation.payload import EvaluationPayload
from speciate.evaluation.predictors.nearest import fit
from speciate.evaluation.reports import report
from speciate.evaluation.settling import settling_calls
from speciate.tasks.task import TaskExample
from speciate.use_cases import CONSTANT, NEAREST, Objective, UseCase
from speciate.vocabulary import find_metric
from speciate.workspace.workspace import Workspace
from tests.evaluation import world


def test_a_use_case_with_nothing_in_use_gets_it_beside_the_constant(flowers: Workspace) -> None:
    world.define(flowers, incumbent=None)
    result = world.evaluate_models(flowers, models=["points"], use_case="flowering", latency=False)
    found = report.find_report(flowers.database, result["evaluation"])
    assert {row.model for row in found.leaderboard} == {"points@v1", CONSTANT, NEAREST}
    near, constant = found.row(NEAREST).value, found.row(CONSTANT).value
    assert near is not None
    assert constant is not None
    assert near > 0.9 > constant  # two clouds of points, which neighbours tell apart
    assert [each["candidate"] for each in result["decisions"]] == ["points@v1"]
    assert found.decision is not None
    gate = next(each for each in found.decision.gates if each.gate.rule == "free_method")
    assert gate.outcome == "pass"
    assert "nearest neighbour" in gate.reason
    assert found.decision.level == 0.95  # a baseline makes no interval wider


def test_where_something_is_in_use_it_is_shown_only_where_it_is_named(flowers: Workspace) -> None:
    result = world.evaluate_models(flowers, models=["points"], use_case="flowering", latency=False)
    assert NEAREST not in {row["model"] for row in result["report"]["leaderboard"]}
    named = world.evaluate_models(flowers, models=["points"], baselines=[NEAREST], use_case="flowering", latency=False)
    assert NEAREST in {row["model"] for row in named["report"]["leaderboard"]}
    assert [each["candidate"] for each in named["decisions"]] == ["points@v1"]


def _keep_training(kept: Callable[[str], bool]) -> Callable[[pa.Table], pa.Table]:
    """All rows but those training rows whose label is not kept."""

    def change(table: pa.Table) -> pa.Table:
        rows = zip(table["label"].to_pylist(), table["split"].to_pylist(), strict=True)
        return table.filter(pa.array([split == "test" or kept(label) for label, split in rows]))

    return change


@pytest.mark.parametrize("kept", [lambda label: label == "yes", lambda label: False], ids=["one label", "none"])
def test_free_methods_are_fitted_on_what_the_candidate_learned_from(
    flowers: Workspace, kept: Callable[[str], bool]
) -> None:
    """Fewer training rows in the version that judges make no weaker floor."""
    world.define(flowers, incumbent=None)
    asked = {"models": ["points"], "use_case": "flowering", "latency": False}
    before = world.evaluate_models(flowers, **asked)
    world.make_version(flowers, _keep_training(kept))
    after = world.evaluate_models(flowers, dataset="flowers@v2:test", **asked)
    first, second = ({row["model"]: row["value"] for row in each["report"]["leaderboard"]} for each in (before, after))
    assert first == second
    assert set(second) == {"points@v1", CONSTANT, NEAREST}


def test_a_candidate_that_learned_from_other_data_than_the_free_methods_is_not_settled(flowers: Workspace) -> None:
    world.define(flowers, incumbent=None)
    world.make_version(flowers, lambda table: table.slice(40))
    world.train_model(flowers, "decoy", dataset="flowers@v2")
    result = world.evaluate_models(flowers, models=["points", "decoy"], use_case="flowering", latency=False)
    found = report.find_report(flowers.database, result["evaluation"])
    outcomes = {
        each.candidate: next(gate.outcome for gate in each.gates if gate.gate.rule == "free_method")
        for each in found.decisions
    }
    assert outcomes == {"points@v1": "inconclusive", "decoy@v1": "pass"}
    (alone,) = settling_calls(
        next(each for each in found.decisions if each.candidate == "points@v1"), "flowering", None
    )
    assert alone.arguments["models"] == ["points@v1"]


def test_it_looks_at_no_answer_and_at_no_row_but_those_of_training(flowers: Workspace) -> None:
    """The column of labels is among the inputs, as is that of the system in use; test labels are turned around."""
    manifest = world.make_dataset(flowers, "leaky", inputs=("x", "rules"))
    asked = {"dataset": "leaky", "models": ["column:rules", NEAREST], "metrics": ["accuracy"], "latency": False}
    before = world.evaluate_models(flowers, **asked)

    def turned(table: pa.Table) -> pa.Table:
        other = [
            ("no" if label == "yes" else "yes") if split == "test" else label
            for label, split in zip(table["label"].to_pylist(), table["split"].to_pylist(), strict=True)
        ]
        return table.set_column(table.column_names.index("label"), "label", pa.array(other))

    world.make_version(flowers, turned, manifest.name)
    after = world.evaluate_models(flowers, **asked)
    value = {
        result["evaluation"]: {row["model"]: row["value"] for row in result["report"]["leaderboard"]}
        for result in (before, after)
    }
    first, second = value[before["evaluation"]], value[after["evaluation"]]
    assert first[NEAREST] > first["column:rules"]  # not a copy of the rules, which are wrong three times in ten
    assert second[NEAREST] == pytest.approx(1 - first[NEAREST])


@pytest.mark.parametrize("dataset", ["flowers:train", "photos"])
def test_where_it_cannot_answer_it_is_refused_and_never_added(flowers: Workspace, dataset: str) -> None:
    world.make_dataset(flowers, "photos")
    flowers.database.transact(
        lambda tx: tx.execute(
            "UPDATE dataset_versions SET manifest = replace(manifest, '\"tabular\"', '\"image\"') WHERE name = 'photos'"
        )
    )
    with pytest.raises(SpeciateError) as caught:
        world.evaluate_models(flowers, dataset=dataset, models=["column:rules", NEAREST])
    assert caught.value.code is Code.INVALID
    assert "nearest:" in caught.value.message


def payload(modality: str, task: str, metric: str, inputs: tuple[str, ...] = ()) -> EvaluationPayload:
    manifest = Manifest(
        name="d", version=1, id="d", modality=modality, parts=(), columns={}, inputs=inputs, label="kind", rows=0,
        numeric=task.endswith("regression"),
    )  # fmt: skip
    return EvaluationPayload(
        dataset=manifest,
        split="test",
        models=(),
        task=task,
        metrics=(metric,),
        baseline=CONSTANT,
        usd_per_core_hour=0.0,
    )


def rows(media: list[Any], targets: list[Any], groups: list[str] | None = None) -> list[TaskExample]:
    of = groups or [""] * len(media)
    return [
        TaskExample(Example(f"e{k}", each, str(target), group, "train", {}), target)
        for k, (each, target, group) in enumerate(zip(media, targets, of, strict=True))
    ]


def wave(random: np.random.Generator, kind: str) -> np.ndarray:
    time = np.linspace(0, 6, int(random.integers(60, 90)))
    shape = np.sin(time * (2 if kind == "slow" else 4))
    return (shape * random.uniform(1, 5) + random.uniform(-50, 50) + random.normal(0, 0.2, len(time)))[None, :]


def sentence(random: np.random.Generator, kind: str) -> str:
    words = {"slow": ["turtle", "snail", "rest", "calm"], "fast": ["rocket", "race", "swift", "sprint"]}[kind]
    return " ".join(random.choice([*words, "the", "a", "of"], 12))


def peptide(random: np.random.Generator, kind: str) -> str:
    motif = {"slow": "GKRAWL", "fast": "DDEPYS"}[kind]
    return "".join(random.choice(list("ACDEFGHIKLMNPQRSTVWY"), 12)) + motif * 2


@pytest.mark.parametrize(
    ("modality", "make"),
    [("time-series", wave), ("text", sentence), ("protein", peptide)],
)
def test_series_texts_and_sequences_have_neighbours(
    modality: str, make: Callable[[np.random.Generator, str], Any]
) -> None:
    random = np.random.default_rng(3)
    kinds = [("slow", "fast")[k % 2] for k in range(120)]
    media = [make(random, kind) for kind in kinds]
    task = payload(modality, f"{modality}-classification", "accuracy")
    found = fit(rows(media[:80], kinds[:80]), task)
    asked = [row.example for row in rows(media[80:], kinds[80:])]
    right = [one.output == kind for one, kind in zip(found.predict(asked), kinds[80:], strict=True)]
    assert np.mean(right) > 0.9
    assert found.predict(asked) == fit(rows(media[:80], kinds[:80]), task).predict(asked)


def test_the_number_of_neighbours_is_chosen_without_a_rows_own_group() -> None:
    """Windows of one patient lie on each other, and labels are drawn by patient: within a group the nearest one is
    always right, across groups many neighbours see the eight in ten."""
    random, patients = np.random.default_rng(1), 200
    centres, labels = random.normal(0, 1, patients), random.random(patients) < 0.8
    media = [{"x": centres[k // 3] + random.normal(0, 1e-4)} for k in range(3 * patients)]
    targets = ["yes" if labels[k // 3] else "no" for k in range(3 * patients)]
    task = payload("tabular", "tabular-classification", "accuracy", ("x",))
    grouped = fit(rows(media, targets, [f"p{k // 3}" for k in range(3 * patients)]), task)
    assert grouped.neighbours > 1
    assert fit(rows(media, targets), task).neighbours == 1  # as if each window were a patient


def test_numbers_are_the_best_constant_of_the_neighbours() -> None:
    random = np.random.default_rng(2)
    media = [{"x": k // 9 + random.normal(0, 1e-3)} for k in range(90)]
    targets = [float(k // 9) + (100.0 if random.random() < 0.2 else 0.0) for k in range(90)]
    errors = {}
    for metric in ("mae", "rmse"):
        found = fit(rows(media, targets), payload("tabular", "tabular-regression", metric, ("x",)))
        answers = np.array([one.output for one in found.predict([row.example for row in rows(media, targets)])])
        errors[metric] = np.abs(answers - np.array([float(k // 9) for k in range(90)])).mean()
    assert errors["mae"] < errors["rmse"]  # the median of neighbours is no fool of one in five


def entry(name: str, source: Any, references: list[str], right: np.ndarray) -> ModelEntry:
    given = [label if ok else ("no" if label == "yes" else "yes") for label, ok in zip(references, right, strict=True)]
    answers = label_answers(references, given, [None] * len(given), ["no", "yes"])
    return ModelEntry(EvaluatedModel(name=name, source=source, identity=name), (answers,), 0, Cost(usd_per_1k=0.0))


@pytest.mark.parametrize(("share", "verdict"), [(0.75, "hold"), (0.9, "promote"), (0.93, "promote")])
def test_a_model_that_is_surely_worse_than_a_free_method_is_held(share: float, verdict: str) -> None:
    random, n = np.random.default_rng(0), 800
    references = [("yes", "no")[k % 2] for k in range(n)]
    entries = [
        entry(CONSTANT, "constant", references, np.array([label == "yes" for label in references])),
        entry(NEAREST, "nearest", references, random.random(n) < 0.9),
        entry("model@v1", "model", references, random.random(n) < share),
    ]
    use_case = UseCase(
        name="u", task="tabular-classification", objective=Objective(metric="accuracy"), version=1, created=0.0
    )
    question = Question("d@v1:test", (find_metric("accuracy"),), CONSTANT, None, use_case)
    decision = build(question, entries, np.arange(n)).decision
    assert decision is not None
    assert decision.verdict == verdict
    if verdict == "hold":
        assert "costs nothing to train" in decision.reasons[0]
