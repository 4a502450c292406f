"""A thorough search: its configurations, what it chooses of them, and its place among the steps of `specialize`."""

from __future__ import annotations

import json
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import f1_score

from speciate.errors import Code, SpeciateError
from speciate.jobs.folder import RunFolder
from speciate.jobs.run import Run, Stopped
from speciate.lineage.model_report import model_report
from speciate.models import blend, estimators
from speciate.models.blend import MEMBER_FORMS, Blend, Member
from speciate.models.estimators import Linear
from speciate.models.quadratics import Quadratic, from_gaussians, with_products
from speciate.tasks import predictor
from speciate.tasks.task import predict_examples
from speciate.training import train, train_run
from speciate.training.cascade import candidates, search
from speciate.training.recipes import configurations, tabm
from speciate.training.selection import decision_shift, thorough_search
from speciate.training.selection.learners import Learner
from speciate.training.selection.thorough_search import Configuration, LearnerFamily
from speciate.training.train_spec import TrainSpec
from speciate.training.training_context import TrainingContext
from speciate.use_cases import Aim
from speciate.workspace.workspace import Workspace
from tests.tasks.world import examples
from tests.training.world import define, make_dataset, model_path, run_folder, thirds, train_now

Matrix = npt.NDArray[np.float64]
_NAMES = ("discriminants", "lines", "machines", "boosting", "trees", "kernels", "neighbours")


def _rings(count: int, seed: int = 0) -> tuple[Matrix, npt.NDArray[np.int64]]:
    """Three labels by the distance from the middle, beside a column that says nothing."""
    inputs = np.random.default_rng(seed).normal(size=(count, 3))
    return inputs, np.digitize(np.hypot(inputs[:, 0], inputs[:, 1]), [0.8, 1.5])


# Configurations


def test_gaussians_as_products_answer_what_scikit_learn_does() -> None:
    discriminant = pytest.importorskip("sklearn.discriminant_analysis").QuadraticDiscriminantAnalysis
    inputs, targets = _rings(300)
    inputs = np.clip(inputs, -2, 2)
    for classes in (3, 2):
        rows, wanted = inputs[targets < classes], targets[targets < classes]
        model = discriminant(store_covariance=True).fit(rows, wanted)
        made = from_gaussians(model.means_, np.array(model.covariance_), model.priors_)
        given = made.scores(rows)
        expected = model.decision_function(rows)
        if classes == 2:
            np.testing.assert_allclose(given[:, 0], expected, atol=1e-6)
        else:
            np.testing.assert_allclose(given - given[:, :1], expected - expected[:, :1], atol=1e-6)


def test_products_are_kept_alone_and_in_a_mean_and_may_be_moved(tmp_path: Path) -> None:
    inputs, _ = _rings(20)
    made = Quadratic(np.random.default_rng(1).normal(size=(3, 9)), np.zeros(3))
    assert with_products(inputs).shape == (20, 9)
    estimators.save(made, tmp_path / "alone.safetensors")
    assert np.array_equal(estimators.load(tmp_path / "alone.safetensors").scores(inputs), made.scores(inputs))
    mean = Blend((Member(made, 0, 0.5), Member(made, 0, 0.5, 2.0)), "classes")
    blend.save(mean, tmp_path / "mean.safetensors")
    assert np.array_equal(blend.load(tmp_path / "mean.safetensors").scores([inputs]), mean.scores([inputs]))
    moved = decision_shift.shifted(made, np.array([0.0, 1.0, 0.0]))
    np.testing.assert_allclose(moved.scores(inputs) - made.scores(inputs), [[0.0, 1.0, 0.0]] * 20, atol=1e-12)


def test_covariances_of_many_columns_need_no_products_of_all_rows() -> None:
    inputs = np.random.default_rng(0).normal(size=(2000, 100))
    tracemalloc.start()
    configurations._spreads(inputs, np.arange(2000) % 2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * inputs.nbytes


@pytest.mark.parametrize("classes", [0, 2, 3])
@pytest.mark.parametrize("name", _NAMES)
def test_one_fit_answers_as_each_of_its_learners_does(name: str, classes: int) -> None:
    inputs, rings = _rings(150)
    targets: Any = rings if classes == 3 else rings % 2 if classes == 2 else np.hypot(inputs[:, 0], inputs[:, 1])
    held, _ = _rings(40, seed=1)
    found = configurations.families(150, 3, classes, 0, absolute=True, networks=False)
    family = next((each for each in found if each.name == name), None)
    if family is None:
        assert (name, classes) == ("discriminants", 0)
        return
    for _, configuration in zip(range(3), family.configurations, strict=False):
        alone = [learner.learn(inputs, targets, 0) for learner in configuration.learners]
        assert all(type(each) in MEMBER_FORMS.values() for each in alone)
        width = classes if classes > 2 or name == "neighbours" else 1
        assert all(each.scores(held).shape == (40, max(1, width)) for each in alone)
        if configuration.answer is not None:
            given = configuration.answer(inputs, targets, held, 0)
            for one, scores in zip(alone, given, strict=True):
                np.testing.assert_allclose(one.scores(held), scores, rtol=1e-5, atol=1e-6)


@pytest.mark.slow(reason="where lightgbm is not installed")
def test_without_lightgbm_rounds_are_varied_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from speciate.training.recipes import boosting

    monkeypatch.setattr(boosting, "_has_lightgbm", lambda: False)
    test_one_fit_answers_as_each_of_its_learners_does("boosting", 3)
    test_one_fit_answers_as_each_of_its_learners_does("boosting", 0)


def test_the_same_seed_draws_the_same_configurations() -> None:
    def names(seed: int) -> list[str]:
        found = configurations.families(150, 3, 3, seed, absolute=False, networks=True)
        return [one.learners[0].name for family in found for one in family.configurations]

    assert names(1) == names(1)
    drawn = [configurations._drawn(seed, 0).random() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


# In a training


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two configurations of each family that takes no time."""
    every = configurations.families

    def few(*given: Any, **named: Any) -> list[LearnerFamily]:
        return [
            each._replace(configurations=iter([one for _, one in zip(range(2), each.configurations, strict=False)]))
            for each in every(*given, **named)
            if each.name in ("discriminants", "lines", "kernels", "neighbours")
        ]

    monkeypatch.setattr(configurations, "families", few)
    monkeypatch.setattr(tabm, "_EPOCHS", 5)


def _dataset(workspace: Workspace, count: int = 360, *, noise: bool = False) -> tuple[Matrix, list[str]]:
    inputs, targets = _rings(count)
    targets = np.random.default_rng(5).integers(0, 2, count) if noise else targets
    labels = [f"ring {target}" for target in targets]
    columns = {name: column.tolist() for name, column in zip("abc", inputs.T, strict=True)}
    make_dataset(workspace, "data", "tabular", columns, labels=labels, splits=thirds(count), inputs=list("abc"))
    return inputs, labels


def _spec(**more: Any) -> dict[str, Any]:
    how = {"name": "model", "dataset": "data", "method": "classical", "task": "tabular-classification"}
    return {**how, "hyperparameters": {"thorough": True}, **more}


@pytest.mark.usefixtures("brief")
def test_it_judges_everything_out_of_fold_and_keeps_a_mean(workspace: Workspace) -> None:
    inputs, labels = _dataset(workspace)
    result = train_now(workspace, **_spec())
    report = result["report"]
    assert report["validation"]["how"] == "out-of-fold on training and validation"
    assert report["validation"]["nested"]["value"] == report["validation"]["value"]
    assert report["validation"]["n"] == 270, "each example once, however often folds were dealt"
    assert report["validation"]["value"] > 0.85
    assert report["cost"]["thorough"]
    (note,) = (note for note in report["notes"] if note.startswith("Thorough search"))
    assert "configurations" in note
    chosen = next(row for row in report["candidates"] if row["chosen"])
    assert chosen["name"].startswith("mean of")
    members = report["members"]
    assert len(members) > 1
    assert sum(each["weight"] for each in members) == pytest.approx(1, abs=0.001)
    assert all(each["settings"] and not any(map(str.isdigit, each["learner"])) for each in members)
    assert _card(workspace, "model@v1").recipe["members"] == members
    told = model_report(workspace, "model@v1").card
    assert f"A weighted mean of {len(members)} learners:" in told
    for each in members:
        assert f"- {each['weight']:.2f} {each['learner']} on columns: {each['settings']}" in told
    assert "By rows that had no part in the choice: " in told
    made = predictor.load(model_path(workspace, "model@v1"))
    asked = made.predict(examples(*(dict(zip("abc", row.tolist(), strict=True)) for row in inputs[:60])))
    assert np.mean([one.output == label for one, label in zip(asked, labels[:60], strict=True)]) > 0.85


@pytest.mark.usefixtures("brief")
def test_a_number_is_found_by_it_too(workspace: Workspace) -> None:
    inputs, _ = _rings(300)
    wanted = (100 * np.hypot(inputs[:, 0], inputs[:, 1])).tolist()
    columns = {name: column.tolist() for name, column in zip("abc", inputs.T, strict=True)}
    splits = ["test" if place % 4 == 0 else "train" for place in range(300)]
    make_dataset(workspace, "data", "tabular", columns, labels=wanted, splits=splits, inputs=list("abc"))
    report = train_now(workspace, **_spec(task="tabular-regression"))["report"]
    assert report["validation"]["how"] == "out-of-fold"
    assert report["validation"]["value"] < 25, "the spread is 65"


@pytest.mark.slow(reason="two whole searches among thirty learners")
def test_its_value_is_of_choices_that_did_not_see_the_examples(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty answer by chance: those that are chosen by the examples that judge them seem to know something."""
    chance = np.random.default_rng(3)

    def guess(inputs: Any, targets: Any, held: Any, seed: int) -> list[Matrix]:
        return [chance.normal(size=(len(held), 1))]

    def guessers(*given: Any, **named: Any) -> list[LearnerFamily]:
        learn = partial(configurations._logistic, strength=1.0, products=False)
        made = (Configuration((Learner(f"guess {number}", learn),), guess) for number in range(30))
        return [LearnerFamily("guesses", made, 1.0)]

    def as_if_unseen(self: Any, library: Any, likely: Any, most: int) -> tuple[Matrix, list[Any]]:
        mean = np.asarray(self._mean(library, self._weights(likely, self.targets, self.groups, most)))
        return mean, predict_examples(self.context.task_head, mean, self.held)

    def validation(name: str) -> Any:
        chance.bit_generator.state = np.random.default_rng(3).bit_generator.state
        return train_now(workspace, job=name, **_spec())["report"]["validation"]

    monkeypatch.setattr(configurations, "families", guessers)
    monkeypatch.setattr(thorough_search, "_WORSE", 9.0)
    kept: list[Any] = []
    monkeypatch.setattr(TrainingContext, "offer_best", lambda self, make: kept.append(make))
    _dataset(workspace, noise=True)
    honest = validation("job-0")
    so_far = kept[len(kept) - 1]().best
    monkeypatch.setattr(thorough_search._Search, "_nested", as_if_unseen)
    kind = validation("job-1")
    assert honest["value"] < 0.5 + 2 * honest["standard_error"] < kind["value"]
    assert so_far.value < 0.5 + 2 * honest["standard_error"], "also what a limit leaves"


def test_its_value_is_of_a_decision_shift_that_did_not_see_the_examples(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four labels, two of them rare, of which the columns tell a little: what macro-F1 the report says, and what it is
    on 2,000 other rows."""
    shares = np.array([0.6, 0.22, 0.11, 0.07])

    def draw(chance: np.random.Generator, count: int) -> tuple[Matrix, list[str]]:
        true = chance.choice(4, count, p=shares)
        return chance.normal(size=(count, 4)) + 0.5 * np.eye(4)[true], [f"label {each}" for each in true]

    def lines(*given: Any, **named: Any) -> list[LearnerFamily]:
        def learner(number: int) -> Learner:
            weight = 0.5 * np.eye(4) + np.random.default_rng(number).normal(0, 0.05, (4, 4))
            return Learner(f"line {number}", lambda inputs, targets, seed: Linear(weight, np.log(shares)))

        return [LearnerFamily("lines", (Configuration((learner(number),)) for number in range(3)), 1.0)]

    monkeypatch.setattr(configurations, "families", lines)
    define(workspace, "sort", "tabular-classification", metric="f1_macro")
    optimism = []
    for seed in range(6):
        chance = np.random.default_rng(seed)
        inputs, labels = draw(chance, 160)
        columns = {name: column.tolist() for name, column in zip("abcd", inputs.T, strict=True)}
        name = f"data{seed}"
        make_dataset(
            workspace, name, "tabular", columns, labels=labels, splits=["train"] * 160, inputs=list("abcd")
        )  # fmt: skip
        spec = {**_spec(), "name": f"model{seed}", "dataset": name, "use_case": "sort"}
        del spec["task"]
        said = train_now(workspace, job=f"job-{seed}", **spec)["report"]["validation"]
        model = predictor.load(model_path(workspace, f"model{seed}@v1"))
        rows, wanted = draw(chance, 2000)
        given = model.predict(examples(*(dict(zip("abcd", row.tolist(), strict=True)) for row in rows)))
        optimism.append(said["nested"]["value"] - f1_score(wanted, [one.output for one in given], average="macro"))
    assert abs(np.mean(optimism)) < 0.03


@pytest.mark.usefixtures("brief")
def test_a_configuration_that_fails_does_not_cost_what_the_others_found(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failed(Exception):
        """A library's own."""

    def fail(*given: Any, **named: Any) -> Any:
        raise Failed("no room for leaves")

    _dataset(workspace)
    monkeypatch.setattr(configurations, "_nearest", fail)
    report = train_now(workspace, job="job-0", **_spec())["report"]
    (told,) = [note for note in report["notes"] if note.startswith("Thorough search")]
    assert "2 could not learn: neighbours: neighbours 1: Failed; neighbours: neighbours 3: Failed." in told
    assert report["validation"]["value"] > 0.8
    for name in ("_logistic", "_discriminant_answers", "_kernel_answers"):
        monkeypatch.setattr(configurations, name, fail)
    with pytest.raises(SpeciateError, match=r"No configuration could be tried\. .*: Failed") as refused:
        train_now(workspace, job="job-1", **_spec())
    assert refused.value.foreign == "no room for leaves"


@pytest.mark.usefixtures("brief")
def test_it_is_the_same_again_and_when_it_was_stopped_between(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    _dataset(workspace)
    spec = _spec(budget_minutes=2.5)  # so long that folds are dealt twice
    first = train_now(workspace, **spec)
    payload = train.plan(TrainSpec(**spec), workspace).payload_json()
    stopped = run_folder(workspace, "job-z", payload)
    answers: list[str] = []
    answer = thorough_search._Search._fold_answers

    def count(self: Any, configuration: Any, fold: Any, fitted: Any) -> Any:
        answers.append(configuration.learners[0].name)
        if len(set(answers)) > 4:
            raise Stopped
        return answer(self, configuration, fold, fitted)

    monkeypatch.setattr(thorough_search._Search, "_fold_answers", count)
    with pytest.raises(Stopped):
        train_run.run(Run(stopped))
    kept, again = set(answers) - {answers[-1]}, list[str]()
    monkeypatch.setattr(thorough_search._Search, "_fold_answers", _recorded(answer, again))
    (spent,) = stopped.path.rglob("spent.json")
    spent.write_text(json.dumps({**json.loads(spent.read_text()), "budgeted": 60.0}))
    folder = RunFolder(workspace.folders.runs / "job-z.2")
    said: Any = {"payload": payload, "job": "job-z", "workspace": str(workspace.folders.root)}
    folder.create({**said, "resume_from": [str(stopped.path)]})
    made = train_run.run(Run(folder))
    assert kept.isdisjoint(again), "what was answered is not learned again"
    assert again
    assert made["card"]["id"] == _card(workspace, first["model"]).id


def _recorded(answer: Any, names: list[str]) -> Any:
    def call(self: Any, configuration: Any, fold: Any, fitted: Any) -> Any:
        names.append(configuration.learners[0].name)
        return answer(self, configuration, fold, fitted)

    return call


def _card(workspace: Workspace, ref: str) -> Any:
    from speciate.models import registry

    return registry.resolve(workspace.database, workspace.folders, ref).card


@pytest.fixture
def kept_answers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []
    monkeypatch.setattr(TrainingContext, "offer_best", lambda self, make: found.append(make))
    return found


@pytest.mark.usefixtures("brief")
def test_the_best_so_far_is_offered_whole(workspace: Workspace, kept_answers: list[Any]) -> None:
    inputs, _ = _dataset(workspace, 120)
    train_now(workspace, **_spec())
    assert len(kept_answers) > 3
    made = kept_answers[1]()
    answered = made.predictor.predict(examples(*(dict(zip("abc", row.tolist(), strict=True)) for row in inputs[:5])))
    assert len(answered) == 5


@pytest.mark.usefixtures("brief")
def test_a_budget_ends_it_with_what_it_has(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    _dataset(workspace)
    folds: list[str] = []
    answer = _recorded(thorough_search._Search._fold_answers, folds)
    monkeypatch.setattr(thorough_search._Search, "_fold_answers", answer)
    report = train_now(workspace, **_spec(budget_minutes=0.0001))["report"]
    (note,) = (note for note in report["notes"] if note.startswith("Thorough search"))
    assert "3 of them given up" in note
    counts = sorted(folds.count(name) for name in set(folds))
    assert counts == [1, 1, 1, 8], "what would outlast the budget ends after a fold, unless it is the last hope"


@pytest.mark.parametrize(
    ("more", "says"), [({"candidates": ["logistic"]}, "tries every learner"), ({"tabm": True}, "of text")]
)
def test_what_cannot_be_searched_is_refused(workspace: Workspace, more: dict[str, Any], says: str) -> None:
    modality = "text" if "tabm" in more else "tabular"
    make_dataset(
        workspace, "data", modality, {"text": ["one two", "three four"] * 15}, labels=["x", "y"] * 15,
        splits=thirds(30), inputs=["text"],
    )  # fmt: skip
    options = {"thorough": "tabm" not in more} | more
    with pytest.raises(SpeciateError) as caught:
        train_now(workspace, **_spec(task=f"{modality}-classification", hyperparameters=options))
    assert caught.value.code == Code.INVALID
    assert says in caught.value.message


# In a search for a model


def _ways(workspace: Workspace, aim: Aim) -> list[str]:
    define(workspace, f"sort-{aim}", "tabular-classification", aim=aim)
    return [candidates.step_name(each) for each in candidates.choose_candidates(workspace, f"sort-{aim}", "data")]


def test_it_comes_last_and_only_where_the_best_is_wanted(workspace: Workspace) -> None:
    _dataset(workspace, 120)
    assert "train/classical-thorough" not in _ways(workspace, "pass")
    assert _ways(workspace, "best")[-1] == "train/classical-thorough"
    found = candidates.choose_candidates(workspace, "sort-best", "data", methods=["classical"])
    assert not any(each.thorough for each in found), "whoever names methods gets those"


def test_few_rows_are_not_searched(workspace: Workspace) -> None:
    _dataset(workspace, 60)
    assert "train/classical-thorough" not in _ways(workspace, "best")


def test_it_needs_a_part_of_the_budget(workspace: Workspace) -> None:
    _dataset(workspace, 120)
    define(workspace, "sort", "tabular-classification", aim="best")
    ways = candidates.choose_candidates(workspace, "sort", "data")
    terms = candidates.search_terms(workspace, "sort", "data", ways, 5)
    least = terms.least_seconds["train/classical-thorough"]
    assert least >= 20
    spec = candidates.SpecializeSpec(
        use_case="sort", dataset="data", budget_minutes=5, ways=ways, least_seconds=terms.least_seconds
    )
    assert search.too_slow(spec, ways[-1], least - 1)
    assert not search.too_slow(spec, ways[-1], least)
    asked = candidates.train_spec(spec, ways[-1], "data", 1)
    assert asked.hyperparameters == {"thorough": True}
