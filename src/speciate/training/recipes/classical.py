"""Recipe `classical`: counts of words, pixels, steps, features or columns, with scikit-learn's learners, in seconds.

Runs beside everything dearer, because it ties or wins more often than one thinks. What the learners fitted is kept as
plain arrays (`models/estimators.py`). Learners of more than a label or a number are in structured_learners.py."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate import modalities
from speciate.datasets.loading.loader import Example
from speciate.modalities.multimodal import PartName
from speciate.models.estimators import Estimator, Linear, fit_neighbours, kernel_from_svm
from speciate.models.perceptrons import side_by_side
from speciate.tasks import multimodal_representation
from speciate.tasks.competing_convolutions import CompetingConvolutions
from speciate.tasks.encoded_columns import EncodedColumns
from speciate.tasks.families.segmentation import Segmentation
from speciate.tasks.families.tokens import UnitFeatures
from speciate.tasks.interval_quantiles import IntervalQuantiles
from speciate.tasks.joined_representations import Joined, Remembered
from speciate.tasks.random_convolutions import Convolutions
from speciate.tasks.representations import (
    Columns,
    Documents,
    Features,
    MeasuredOnce,
    Properties,
    Steps,
    Vectors,
    ngram_choices,
)
from speciate.tasks.task import Representation, TaskHead
from speciate.tasks.term_counts import NGrams, TermCounter
from speciate.tasks.text_columns import TextColumns, text_columns
from speciate.training.hyperparameters import ClassicalParameters
from speciate.training.planning.available_methods import MANY_LABELS, no_learner
from speciate.training.planning.part_encoders import no_parts, unknown_part
from speciate.training.recipes import configurations, structured_learners, tabm
from speciate.training.recipes.boosting import boosted_classifier, boosted_regression, rounds_of
from speciate.training.recipes.forests import extra_trees_classifier, extra_trees_regression
from speciate.training.recipes.structured_learners import (
    cumulative,
    discriminant,
    keep_vectors,
    one_versus_rest,
    per_unit,
    thresholds_on_a_line,
)
from speciate.training.selection.decision_shift import measure_for
from speciate.training.selection.lanes import Lanes
from speciate.training.selection.learners import Learner, LearnerGroup
from speciate.training.selection.model_selection import select_best
from speciate.training.selection.selected_model import SelectedModel
from speciate.training.selection.thorough_search import FOLDS, LearnerFamily, Space, search_thoroughly
from speciate.training.training_context import TrainingContext
from speciate.vocabulary import is_absolute

Targets = npt.NDArray[Any]
Weights = npt.NDArray[np.float64] | None
"""(N,), of the examples; None: all alike."""

_MEASURED = ("classification", "ordinal", "regression", "multi-label", "anomaly")
"""Families of tasks that learn from measured properties of an example as well as from what is counted of it."""
_PENALTIES = tuple(np.logspace(-1, 5, 13).tolist())
"""Ridge penalties to choose from, for thousands of columns of spread 1."""
ONE_UNIT = ("image",)
"""Modalities described by numbers of one kind: scaling each pixel by itself costs an SVM 4 points on MNIST."""


def fit_classical(context: TrainingContext, parameters: ClassicalParameters) -> SelectedModel:
    if parameters.thorough:
        return search_thoroughly(context, _spaces(context))
    groups = learner_groups(context, parameters.candidates, parameters.parts)
    if parameters.tabm:
        groups = [*groups, _tabm_group(context, parameters.folds)]
    if not parameters.candidates and _rare_labels_count(context):
        groups = [group._replace(learners=(*group.learners, *_with_labels_alike(group.learners))) for group in groups]
    with Lanes(context.payload.threads) as lanes:
        return select_best(context, groups, parameters.folds, ensemble=not parameters.candidates, lanes=lanes)


def _spaces(context: TrainingContext) -> list[Space]:
    """Columns of a table for every family, and categories as mean targets for boosting."""
    every, classes = context.payload.manifest.inputs, len(context.task_head.labels)
    texts = text_columns(context.train, every)
    absolute, seed = is_absolute(context.payload.objective.metric), context.payload.spec.seed
    networks = importlib.util.find_spec("torch") is not None

    def families(rows: int, columns: int) -> list[LearnerFamily]:
        soon = networks and FOLDS * tabm.seconds(rows, columns) <= context.seconds_left
        return configurations.families(rows, columns, classes, seed, absolute=absolute, networks=soon)

    def boosted(rows: int, columns: int) -> list[LearnerFamily]:
        return [each for each in families(rows, columns) if each.name == "boosting"]

    columns = partial(Columns.fit, inputs=every)
    dense = partial(TextColumns.fit, inputs=every, texts=texts, dense=True)
    name = "columns and texts, in few directions" if texts else "columns"
    return [
        Space(LearnerGroup(name, dense if texts else columns, (), shared=True), families),
        Space(
            LearnerGroup(
                "columns, categories as mean targets",
                lambda examples: EncodedColumns.fit(examples, every, context.targets(examples)),
                (),
            ),
            boosted,
        ),
    ]


def _tabm_group(context: TrainingContext, folds: int) -> LearnerGroup:
    """TabM on the columns, where there is time for it. On a validation split it learns once, and then three times for
    the model itself; else once for every fold, and those are the model."""
    fits = 1 + tabm.NETWORKS if context.validation else folds

    def refuse(rows: int, columns: int, classes: int) -> str | None:
        needed, left = fits * tabm.seconds(rows, columns), context.seconds_left
        late = f"it needs about {needed:.0f} s, and {max(left, 0):.0f} s are left"
        return tabm.too_large(rows, columns, classes) or (late if needed > left else None)

    absolute = is_absolute(context.payload.objective.metric)
    learn = tabm.tabm_regression(absolute) if context.task_head.family == "regression" else tabm.tabm_classifier
    columns = partial(Columns.fit, inputs=context.payload.manifest.inputs)
    learner = Learner(tabm.NAME, learn, refuse, weighs=True, join=side_by_side)
    return LearnerGroup("scaled columns", columns, (learner,), shared=True)


_RARE = 2.0
"""Times that the most frequent label has as many examples as the rarest, from which on that one counts as rare."""


def _rare_labels_count(context: TrainingContext) -> bool:
    """Whether the metric asks for rare labels as much as for frequent ones, and there are such."""
    labels, objective = context.task_head.labels, context.payload.objective
    if context.task_head.family != "classification" or not measure_for(
        objective.metric, labels, objective.positive_label
    ):
        return False
    often = np.bincount(context.targets(context.train), minlength=len(labels))
    return bool(often.max() >= _RARE * max(1, often.min()))


def _with_labels_alike(learners: Sequence[Learner]) -> list[Learner]:
    """Those that fit with weights once more, each label as heavy as the others: on five sets with one rare label the
    best by macro-F1 gained 2 points, beside scores that are moved afterwards (evals/LOG.md)."""
    return [
        each._replace(name=f"{each.name}, labels alike", learn=_labels_alike(each.learn))
        for each in learners
        if each.weighs and each.name != "trees"
    ]


def _labels_alike(learn: Callable[..., Estimator]) -> Callable[..., Estimator]:
    def weighed(inputs: Any, targets: Targets, seed: int, weights: Weights = None, **held: Any) -> Estimator:
        often = np.bincount(targets)
        each = (len(targets) / (np.count_nonzero(often) * np.maximum(often, 1)))[targets]
        return learn(inputs, targets, seed, each if weights is None else each * weights, **held)

    return weighed


def learner_groups(context: TrainingContext, wanted: Sequence[str], of_parts: Sequence[str] = ()) -> list[LearnerGroup]:
    """From cheap to dear. `wanted` empty: every learner. `of_parts`: of mixed rows, those that may be seen."""
    if context.task_head.family == "forecasting":
        return structured_learners.forecasting_groups(context, wanted)
    if isinstance(context.task_head, Segmentation):
        return structured_learners.segmentation_groups(context.task_head, logistic(1.0))
    if context.task_head.family == "control":
        return structured_learners.control_groups(context, wanted)
    manifest = context.payload.manifest
    modality, task_head, metric = manifest.modality, context.task_head, context.payload.objective.metric
    if modality == "multimodal" and task_head.family != "retrieval":
        return _part_groups(context, wanted, of_parts)
    if of_parts:
        raise no_parts(of_parts, modality, task_head.family)
    counted, measured = ngram_choices(modality), _has_properties(modality) and task_head.family in _MEASURED
    on_steps = _STEP_LEARNERS.get(task_head.family, ()) if modality == "time-series" else ()
    on_convolutions = _CONVOLUTION_LEARNERS.get(task_head.family, ()) if modality == "time-series" else ()
    on_quantiles = _QUANTILE_LEARNERS.get(task_head.family, ()) if modality == "time-series" else ()
    on_numbers = learners_for(task_head, metric, sparse=False) if measured else (*on_convolutions, *on_quantiles)
    on_numbers = (*on_numbers, *(_TABLE_FORESTS.get(task_head.family, ()) if modality == "tabular" else ()))
    counting_learners = [*learners_for(task_head, metric, sparse=bool(counted)), *on_steps]
    learners = _choose_learners(counting_learners, wanted, also=on_numbers)
    if task_head.family == "retrieval":
        return [LearnerGroup(f"{modality} features", lambda examples: Features(modality), learners)]
    if task_head.family == "tokens":
        return [LearnerGroup("each and its neighbours", lambda examples: UnitFeatures(modality), learners)]
    if counted:
        properties = tuple(each for each in on_numbers if not wanted or each.name in wanted)
        groups = _counted_groups(context, modality, counted, learners) if learners else []
        on_properties = LearnerGroup(
            "properties",
            partial(Properties.fit, modality=modality, measure=MeasuredOnce(Properties.measure(modality))),
            properties,
        )
        return [*groups, on_properties] if properties else groups
    if modality == "tabular":
        return _table_groups(context, learners, wanted)
    measure = MeasuredOnce(Vectors.measure(modality))
    represent = partial(Vectors.fit, modality=modality, one_unit=modality in ONE_UNIT, measure=measure)
    described = tuple(learner for learner in learners if learner not in on_steps)
    every = (
        LearnerGroup(f"{modality} description", represent, described),
        LearnerGroup("steps", Steps.fit, tuple(learner for learner in learners if learner in on_steps)),
        *_convolution_groups(tuple(each for each in on_convolutions if not wanted or each.name in wanted)),
        LearnerGroup(
            "interval quantiles",
            IntervalQuantiles.fit,
            tuple(each for each in on_quantiles if not wanted or each.name in wanted),
            usual=True,
            shared=True,
        ),
    )
    return [way for way in every if way.learners]


_LINES = ("logistic", "svm", "ridge")
"""Learners on counts that gain by more of them."""


def _counted_groups(
    context: TrainingContext, modality: str, counted: Sequence[NGrams], learners: Sequence[Learner]
) -> list[LearnerGroup]:
    """Each way of counting by itself, then all side by side. What was fitted for one is not fitted again."""
    fits = [
        _fitted_once(partial(Documents.fit, modality=modality, counting=each, counter=TermCounter(each)))
        for each in counted
    ]
    groups = [
        LearnerGroup(f"{each.unit} {each.low}-{each.high}", fit, tuple(learners))
        for each, fit in zip(counted, fits, strict=True)
    ]
    lines = tuple(each for each in learners if each.name in _LINES)
    if len(counted) > 1 and lines and context.task_head.family in _MEASURED and context.task_head.family != "anomaly":
        both = LearnerGroup("words and parts", lambda examples: Joined([fit(examples) for fit in fits]), lines)
        groups.append(both)
    return groups


def _convolution_groups(learners: tuple[Learner, ...]) -> list[LearnerGroup]:
    """MiniRocket's shares, Hydra's counts, and both side by side, for which neither is computed anew."""
    shares, counts = _fitted_once(Convolutions.fit), _fitted_once(CompetingConvolutions.fit)
    return [
        LearnerGroup("convolutions", shares, learners, shared=True),
        LearnerGroup("competing convolutions", counts, learners, shared=True),
        LearnerGroup(
            "convolutions of both", lambda each: Joined([shares(each), counts(each)]), learners, usual=True, shared=True
        ),
    ]


def _fitted_once(fit: Callable[[Sequence[Example]], Representation]) -> Callable[[Sequence[Example]], Representation]:
    """Fit only once for the same examples, and give the same representation again."""
    fitted: dict[tuple[str, ...], Representation] = {}

    def fit_or_find(examples: Sequence[Example]) -> Representation:
        key = tuple(example.id for example in examples)
        if key not in fitted:
            fitted[key] = Remembered(fit(examples))
        return fitted[key]

    return fit_or_find


_ON_ENCODED = ("boosting", "boosting-absolute")
"""Learners that gain by categories as mean targets; what is linear reads each category by itself."""


def _table_groups(context: TrainingContext, learners: Sequence[Learner], wanted: Sequence[str]) -> list[LearnerGroup]:
    every, family = context.payload.manifest.inputs, context.task_head.family
    texts = text_columns(context.train, every)
    inputs = tuple(name for name in every if name not in texts)
    forests = tuple(each for each in _TABLE_FORESTS.get(family, ()) if not wanted or each.name in wanted)
    groups = [LearnerGroup("columns", partial(Columns.fit, inputs=every), (*learners, *forests))]  # frequent texts, too
    if texts:
        lines = learners_for(context.task_head, context.payload.objective.metric, sparse=True)
        both = "columns and texts" if inputs else "texts"
        groups += [
            LearnerGroup(
                f"{both}, {'in few directions' if dense else 'counted'}",
                partial(TextColumns.fit, inputs=every, texts=texts, dense=dense),
                (*learners, *forests) if dense else tuple(each for each in lines if not wanted or each.name in wanted),
            )
            for dense in (False, True)
        ]
    if family in ("classification", "regression"):
        encoded = tuple(each for each in learners if each.name in _ON_ENCODED)
        groups.append(
            LearnerGroup(
                "columns, categories as mean targets",
                lambda examples: EncodedColumns.fit(examples, every, context.targets(examples)),
                encoded,
            )
        )
    return [group for group in groups if group.learners]


def _part_groups(context: TrainingContext, wanted: Sequence[str], named: Sequence[str]) -> list[LearnerGroup]:
    """Each part alone first, then all side by side: so it is to be seen what each is worth. Parts that the caller names
    are seen together and in no other way. Texts are taken both ways: whole words for lines through them, and dense for
    learners of interactions."""
    found: list[LearnerGroup] = []
    asked, metric = _named_parts(context, named), context.payload.objective.metric
    for chosen in [asked] if named else multimodal_representation.part_combinations(asked):
        label = " + ".join(part.own for part in chosen) if len(chosen) > 1 else f"{chosen[0].own} alone"
        counted = [part for part in chosen if multimodal_representation.is_counted(part)]
        forms = [False] if len(counted) == len(chosen) else [True, False] if counted else [True]
        for dense in forms:
            represent = partial(
                multimodal_representation.Parts.fit,
                parts=[str(part) for part in chosen],
                dense=dense,
                one_unit=ONE_UNIT,
            )
            learners = learners_for(context.task_head, metric, sparse=not dense)
            suited = tuple(learner for learner in learners if not wanted or learner.name in wanted)
            name = f"{label}, counted" if len(forms) > 1 and not dense else label
            found += [LearnerGroup(name, represent, suited, len(chosen))] if suited else []
    if not found:
        _choose_learners(
            [
                *learners_for(context.task_head, metric, sparse=False),
                *learners_for(context.task_head, metric, sparse=True),
            ],
            wanted,
        )
    return found


def _named_parts(context: TrainingContext, named: Sequence[str]) -> list[PartName]:
    """The parts that a training may see: those that the caller names, or all of them."""
    there = multimodal_representation.names_of(context.train)
    own = {part.own: part for part in there}
    for name in named:
        if name not in own:
            raise unknown_part(name, list(own))
    return [part for part in there if not named or part.own in named]


def learners_for(task_head: TaskHead, metric: str, *, sparse: bool) -> Sequence[Learner]:
    """Learners that suit the task and rows of this kind."""
    labels, yes_or_no = len(task_head.labels), _counted_logistic if sparse else logistic(1.0)
    match task_head.family:
        case "multi-label":
            return (Learner("logistic", one_versus_rest(yes_or_no)),)
        case "ordinal":
            line = thresholds_on_a_line(ridge(1.0), logistic, labels)
            return (Learner("ridge", line), Learner("logistic", cumulative(yes_or_no, labels)))
        case "tokens":
            return (Learner("logistic", per_unit(_counted_logistic, labels)),)
        case "retrieval":
            return RETRIEVERS
        case "anomaly":
            return structured_learners.SPARSE_ANOMALY_LEARNERS if sparse else structured_learners.DENSE_ANOMALY_LEARNERS
        case "regression":
            return _SPARSE_REGRESSORS if sparse else _dense_regressors(metric)
    few = _SPARSE_CLASSIFIERS if sparse else _DENSE_CLASSIFIERS
    return (Learner("means", nearest_means, _means_too_large), *few) if labels > MANY_LABELS else few


def _has_properties(modality: str) -> bool:
    return modalities.find(modality).has_properties


def _choose_learners(
    learners: Sequence[Learner], wanted: Sequence[str], also: Sequence[Learner] = ()
) -> tuple[Learner, ...]:
    """`also`: learners on other numbers of the same examples, which may be wanted as well."""
    chosen = tuple(learner for learner in learners if not wanted or learner.name in wanted)
    if not chosen and not any(learner.name in wanted for learner in also):
        raise no_learner(wanted, [learner.name for learner in (*learners, *also)])
    return chosen


# Classifiers: targets are indices of labels, 0 ... K - 1


def logistic(strength: float) -> Any:
    """`strength`: inverse of the L2 penalty."""

    def learn(inputs: Any, targets: Targets, seed: int, weights: Weights = None) -> Estimator:
        from scipy.linalg import LinAlgWarning
        from sklearn.linear_model import LogisticRegression

        classes = len(np.unique(targets))
        solver = _solver(inputs.shape[1], classes)
        model = LogisticRegression(C=strength, solver=solver, max_iter=300, random_state=seed)
        try:
            model.fit(inputs, targets, weights)
        except LinAlgWarning:  # filters are the process's: that of a fit in another lane made an error of it
            model.set_params(solver="lbfgs").fit(inputs, targets, weights)  # what the solver itself resorts to
        return Linear(model.coef_, model.intercept_)

    return learn


def _solver(columns: int, classes: int) -> str:
    """Newton steps need few rounds, and in each a square of this size, made of a block for each pair of labels: of 400
    labels in two columns that took a hundred times as long."""
    return "newton-cholesky" if columns * (classes if classes > 2 else 1) <= 1500 and classes <= 50 else "lbfgs"


_LIBLINEAR = threading.Lock()
"""Its random numbers are the process's: two fits at once would draw from one sequence, in an order of chance."""


def _counted_logistic(inputs: Any, targets: Targets, seed: int, weights: Weights = None) -> Estimator:
    """One label against the rest, by coordinates: on tens of thousands of counts 20 times faster than all together."""
    from sklearn.linear_model import LogisticRegression

    classes = np.unique(targets)
    positives = classes[1:] if len(classes) == 2 else classes
    with _LIBLINEAR:
        models = [
            LogisticRegression(C=10.0, solver="liblinear", random_state=seed).fit(inputs, targets == positive, weights)
            for positive in positives
        ]
    return Linear(
        np.concatenate([model.coef_ for model in models]), np.concatenate([model.intercept_ for model in models])
    )


def _ridge_classifier(inputs: Any, targets: Targets, seed: int, weights: Weights = None) -> Estimator:
    """Least squares of each label's yes and no, with the penalty that leaves out one at a time best: quicker than
    logistic regression where columns are many and examples few, and as good on random features."""
    from sklearn.linear_model import RidgeClassifierCV

    model = RidgeClassifierCV(alphas=_PENALTIES).fit(inputs, targets, weights)
    return Linear(np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_))


def _linear_svm(inputs: Any, targets: Targets, seed: int, weights: Weights = None) -> Estimator:
    from sklearn.svm import LinearSVC

    with _LIBLINEAR:
        model = LinearSVC(random_state=seed).fit(inputs, targets, weights)
    return Linear(model.coef_, model.intercept_)


def _kernel_svm(inputs: Any, targets: Targets, seed: int, weights: Weights = None) -> Estimator:
    from sklearn.svm import SVC

    return kernel_from_svm(SVC(C=5.0, gamma="scale").fit(inputs, targets, weights))


def nearest_means(inputs: Any, targets: Targets, seed: int) -> Estimator:
    """Where labels are many and each has few examples: the label whose mean is nearest, in units of the spread around
    means; on counts, of the angle to it. One product, whatever the number of labels."""
    count, rows = int(targets.max()) + 1, np.arange(len(targets))
    from scipy.sparse import csr_array

    often = np.bincount(targets, minlength=count)
    share = csr_array((1.0 / often[targets], (targets, rows)), shape=(count, len(targets)))
    means = share @ inputs
    if hasattr(means, "toarray"):
        means = means.toarray()
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        return Linear(means, np.zeros(count))
    around = inputs - means[targets]
    covariance = around.T @ around / len(rows)
    mean_variance = max(float(np.trace(covariance)) / len(covariance), 1e-12)
    shrunk = 0.9 * covariance + 0.1 * mean_variance * np.eye(len(covariance))
    weight = np.linalg.solve(shrunk, means.T).T
    return Linear(weight, -0.5 * np.einsum("kd,kd->k", weight, means))


def _neighbour_vote(inputs: Any, targets: Targets, seed: int) -> Estimator:
    return fit_neighbours(inputs, np.eye(int(targets.max()) + 1)[targets], 5, votes=True)


# Regressors: targets have mean 0 and spread 1


def ridge(penalty: float) -> Any:
    def learn(inputs: Any, targets: Targets, seed: int, weights: Weights = None) -> Estimator:
        from sklearn.linear_model import Ridge

        model = Ridge(alpha=penalty, random_state=seed).fit(inputs, targets, weights)
        return Linear(model.coef_[None, :], np.atleast_1d(model.intercept_))

    return learn


def _ridge_chosen(inputs: Any, targets: Targets, seed: int, weights: Weights = None) -> Estimator:
    """The penalty that leaves out one at a time best."""
    from sklearn.linear_model import RidgeCV

    model = RidgeCV(alphas=_PENALTIES).fit(inputs, targets, weights)
    return Linear(np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_))


def _kernel_regression(inputs: Any, targets: Targets, seed: int, weights: Weights = None) -> Estimator:
    from sklearn.svm import SVR

    return kernel_from_svm(SVR(gamma="scale").fit(inputs, targets, weights))


def _neighbour_mean(inputs: Any, targets: Targets, seed: int) -> Estimator:
    return fit_neighbours(inputs, targets[:, None], 5, votes=False)


# Limits of size


def _covariance_too_large(rows: int, columns: int, classes: int) -> str | None:
    return (
        f"{columns:,} columns are more than the 3,000 whose covariance is seconds of work" if columns > 3000 else None
    )


def _kernel_too_large(rows: int, columns: int, classes: int) -> str | None:
    """Its time grows with the square of the examples, its size with the pairs of classes."""
    if rows > 10_000:
        return f"{rows:,} examples are more than the 10,000 that a kernel machine learns from in reasonable time"
    return f"{classes} labels are more than the 30 that vote in pairs" if classes > 30 else None


_MOST_TREES_A_ROUND = 100


def _trees_too_large(rows: int, columns: int, classes: int) -> str | None:
    """A tree per label and round, whose histograms cost as much as 5,000 examples: at most 3 s where this allows it."""
    if classes > _MOST_TREES_A_ROUND:
        return f"{classes} labels are more than the {_MOST_TREES_A_ROUND} that each round grows a tree for"
    work = (rows + 5000) * columns * (classes if classes > 2 else 1)
    return f"{columns:,} columns and {classes} labels would take minutes" if work > 10_000_000 else None


_MOST_SCORES = 50_000_000
"""Examples times labels that a learner may hold at once: 400 MB."""


def _scores_too_many(rows: int, columns: int, classes: int) -> str | None:
    """Why the scores would be too many, if they are: all labels are weighed for all examples in each round."""
    many = rows * classes > _MOST_SCORES or columns * classes > _MOST_SCORES
    return f"{classes:,} labels of {rows:,} examples would need gigabytes" if many else None


def _lines_too_many(rows: int, columns: int, classes: int) -> str | None:
    """Why the labels are too many, if they are: each gets a line of its own against all others."""
    most = 1000
    return f"{classes:,} labels are more than the {most:,} that each get a line" if classes > most else None


def _means_too_large(rows: int, columns: int, classes: int) -> str | None:
    return f"{columns:,} columns of {classes:,} labels would need gigabytes" if columns * classes > 2e8 else None


def _neighbours_too_many(rows: int, columns: int, classes: int) -> str | None:
    """Why the examples are too many, if they are: each question is compared with all of them, also in production."""
    if rows * classes > _MOST_SCORES:
        return _scores_too_many(rows, columns, classes)
    return f"{rows:,} examples are more than the 50,000 that each answer is compared with" if rows > 50_000 else None


def _forest_too_large(rows: int, columns: int, classes: int) -> str | None:
    """Seconds where this allows it: 200 trees look at what they split, and each leaf has a share of each label."""
    if rows > 100_000 or rows * columns > 100_000_000:
        return f"{rows:,} examples of {columns:,} numbers would take minutes"
    return f"{classes} labels are more than the 300 that leaves have shares of" if classes > 300 else None


def _too_many_for_ridge(rows: int, columns: int, classes: int) -> str | None:
    """Why the examples are too many, if they are: all are compared with each other."""
    return f"{rows:,} examples are more than the 8,000 that all penalties are tried on" if rows > 8000 else None


def _steps_too_many(rows: int, columns: int, classes: int) -> str | None:
    """Seconds where this allows it."""
    return (
        f"{rows:,} examples of {columns:,} numbers would take minutes"
        if rows * columns * classes > 50_000_000
        else None
    )


RETRIEVERS = (Learner("as-they-are", keep_vectors), Learner("discriminant", discriminant, _covariance_too_large))
_SPARSE_CLASSIFIERS = (
    Learner("neighbours", _neighbour_vote, _neighbours_too_many),
    Learner("logistic", _counted_logistic, _lines_too_many, weighs=True),
    Learner("svm", _linear_svm, _lines_too_many, weighs=True),
)
_SPARSE_REGRESSORS = (
    Learner("neighbours", _neighbour_mean, _neighbours_too_many),
    Learner("ridge", ridge(1.0), weighs=True),
)
_DENSE_CLASSIFIERS = (
    Learner("neighbours", _neighbour_vote, _neighbours_too_many),
    Learner("logistic", logistic(1.0), _scores_too_many, weighs=True),
    Learner("svm", _kernel_svm, _kernel_too_large, weighs=True),
    Learner("boosting", boosted_classifier, _trees_too_large, weighs=True, found=rounds_of, splits=True),
)


def _dense_regressors(metric: str) -> tuple[Learner, ...]:
    """Where absolute errors count trees learn by them, too: with heavy tails they are far better, else squared ones."""
    boosting = Learner(
        "boosting", boosted_regression(False), _trees_too_large, weighs=True, found=rounds_of, splits=True
    )
    absolute = boosting._replace(name="boosting-absolute", learn=boosted_regression(True))
    return (
        Learner("neighbours", _neighbour_mean, _neighbours_too_many),
        Learner("ridge", ridge(1.0), weighs=True),
        Learner("svm", _kernel_regression, _kernel_too_large, weighs=True),
        boosting,
        *((absolute,) if is_absolute(metric) else ()),
    )


_STEP_LEARNERS: dict[str, tuple[Learner, ...]] = {
    "classification": (Learner("linear", logistic(1.0), _steps_too_many, weighs=True),),
    "regression": (Learner("linear", ridge(1.0), _steps_too_many, weighs=True),),
}
_CONVOLUTION_LEARNERS: dict[str, tuple[Learner, ...]] = {
    "classification": (Learner("ridge", _ridge_classifier, _too_many_for_ridge, weighs=True),),
    "regression": (Learner("ridge", _ridge_chosen, _too_many_for_ridge, weighs=True),),
}
_QUANTILE_LEARNERS: dict[str, tuple[Learner, ...]] = {
    "classification": (Learner("trees", extra_trees_classifier(0.1), _forest_too_large, weighs=True),),
    "regression": (Learner("trees", extra_trees_regression(0.1), _forest_too_large, weighs=True),),
}
_TABLE_FORESTS: dict[str, tuple[Learner, ...]] = {
    "classification": (Learner("trees", extra_trees_classifier(), _forest_too_large, weighs=True),),
    "regression": (
        Learner("trees", extra_trees_regression(), _forest_too_large, weighs=True),
        Learner("trees-of-all-columns", extra_trees_regression(1.0, 1), _forest_too_large, weighs=True),
    ),
}
