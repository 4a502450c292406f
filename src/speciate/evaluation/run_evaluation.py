"""The worker's part of `evaluate`: ask each model everything, and write answers, scores and the report.

Its rows by example are in evaluation_files.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np

from speciate.datasets import version_rows
from speciate.datasets.columns import CONTENT, FINGERPRINT, SKETCH
from speciate.datasets.loading.loader import Example, load_examples
from speciate.datasets.similarity import near_duplicates
from speciate.datasets.telling_inputs import TellingInput, repeating_inputs, telling_inputs
from speciate.datasets.versions import Manifest
from speciate.errors import Call, Code, SpeciateError, closest
from speciate.evaluation import answer_cache, evaluation_files, judged_rows, near_looks, suites
from speciate.evaluation.compare_models import ExtraScores, ModelEntry, Question, build, with_scores
from speciate.evaluation.contamination import count_without_consent, find_nearly_seen, find_seen
from speciate.evaluation.decisions import with_telling_inputs
from speciate.evaluation.evaluated_models import EvaluatedModel
from speciate.evaluation.judges.judge import JudgeCase, judge_answers
from speciate.evaluation.metrics import judged
from speciate.evaluation.payload import EvaluationPayload
from speciate.evaluation.predictors.answering import Answer, ModelAnswers, PredictorRequest, check_answer
from speciate.evaluation.predictors.by_source import measure_costs, predict, stay_loaded
from speciate.evaluation.scorers import scoring
from speciate.evaluation.statistics import Codes
from speciate.features import media_digest
from speciate.jobs.run import Run
from speciate.modalities import find as find_modality
from speciate.tasks.example_targets import evaluation_examples, is_label, settle_terms, training_examples
from speciate.tasks.families.anomaly import ANOMALY, NORMAL
from speciate.tasks.families.ordinal import rank_labels
from speciate.tasks.task import TaskExample, TaskTerms
from speciate.use_cases import Gate
from speciate.vocabulary import Family, Metric, find_metric, find_task

_WITH_LABELS: tuple[Family, ...] = ("classification", "ordinal", "anomaly")
_LEARNED = ("train", "validation")
_WITH_CELLS = ("tabular", "multimodal")


class LoadedSuite(NamedTuple):
    examples: list[Example]
    references: list[Any]
    training: list[TaskExample]
    """The targets of the training split, for the constant answer and for prompts."""
    terms: TaskTerms
    unlabelled: int
    """Examples of the split without a reference, which are left out."""


class EvaluationOutput(TypedDict):
    report: Mapping[str, object]
    """A `Report`."""


def run(run: Run) -> EvaluationOutput:
    payload = EvaluationPayload.model_validate(run.payload)
    suite = load_suite(run, payload)
    examples, references = suite.examples, suite.references
    _check_positive(payload, references)
    all_answers = _ask_models(run, payload, suite)
    entries = [
        _entry(
            payload, model_answers, references, _contamination(run, payload, model_answers.evaluated_model, examples)
        )
        for model_answers in all_answers
    ]
    told_apart = find_task(payload.task).reads is not None
    if payload.use_case and payload.no_decision is None and not told_apart and _all_alike(examples):
        why = f"all {len(examples)} rows of {payload.shown} are the same example, so that nothing tells models apart"
        payload = payload.model_copy(update={"no_decision": why})
    telling = _telling(payload, suite)
    notes = _notes(payload, suite, entries, all_answers, telling)
    near = near_looks.with_near_copies(
        run.folders, payload.dataset, [example.id for example in examples], payload.earlier, payload.elsewhere,
        payload.older_elsewhere,
    )  # fmt: skip
    notes += [f"{remark}." for remark in near.remarks]
    payload = payload.model_copy(update={"earlier": near.looks})
    clusters = _clusters(run, payload, examples)
    if (units := int(clusters.max()) + 1) < len({example.group or example.id for example in examples}):
        notes.append(
            f"Equal and nearly equal rows count as one group: these {len(examples):,} rows lie in {units:,} groups."
        )
    extra_scores = _extra_scores(run, payload, suite, all_answers, clusters)
    if payload.scoring is not None:
        metrics = scoring.expand_metrics(payload.metrics, payload.scoring, extra_scores)
        payload = payload.model_copy(update={"metrics": metrics})
    for scores in extra_scores:
        entries = [with_scores(entry, scores) for entry in entries]
        notes += scores.notes
    report = build(_question(payload), entries, clusters, notes, _slices(payload, examples, references))
    report = with_telling_inputs(report, telling)
    report = report.model_copy(update={"judge": next((each.verdicts for each in extra_scores if each.verdicts), None)})
    unscored = [each for scores in extra_scores for each in scores.unscored]
    evaluation_files.write(run.outputs, payload.metrics, examples, references, all_answers, entries, unscored)
    scorer = payload.scoring.ref if payload.scoring else None
    read = suites.columns_read(payload.dataset, payload.task, payload.use_case, payload.suite, scorer)
    judged = suites.read_suite(
        run.folders, payload.dataset, payload.split, payload.family, payload.reference_column, payload.roles, read
    )
    answer_cache.write_table(judged_rows.as_table(judged), run.outputs / judged_rows.FILE)
    return {"report": report.model_dump(mode="json")}


def load_suite(run: Run, payload: EvaluationPayload) -> LoadedSuite:
    """INVALID for fewer than two examples with a reference."""
    everything = load_examples(run.folders, payload.dataset, _splits(payload))
    training = [example for example in everything if example.split == "train"]
    terms = settle_terms(payload.terms, payload.task, training or everything)
    present = [example for example in everything if payload.split in (None, example.split)]
    usable = evaluation_examples(present, payload.dataset, payload.target_column, payload.task, terms)
    if len(usable) < 2:
        raise SpeciateError(
            Code.INVALID,
            f"{payload.shown} has {len(usable)} usable example(s) with a label, and a comparison needs at least 2.",
            next=[Call("describe_dataset", {"dataset": payload.dataset.name}, ", then add_examples")],
        )
    return LoadedSuite(
        [one.example for one in usable],
        [one.target for one in usable],
        training_examples(training, payload.dataset, payload.target_column, payload.task, terms),
        terms,
        len(present) - len(usable),
    )


def _ask_models(run: Run, payload: EvaluationPayload, suite: LoadedSuite) -> list[ModelAnswers]:
    targets = [one.target for one in suite.training] or suite.references
    labels = possible_labels(payload, targets)
    count = len(suite.examples)
    free = [one for one in payload.models if one.source in ("constant", "nearest")]
    fitted = _free_methods_on(run, payload, suite) if free else None
    all_answers: list[ModelAnswers] = []
    for place, evaluated_model in enumerate(payload.models):
        examples = _visible_examples(run, payload, evaluated_model, suite)

        def on_progress(done: int, place: int = place, name: str = evaluated_model.name) -> None:
            run.progress(place * count + done, len(payload.models) * count, "answers", name)

        request = PredictorRequest(
            run, payload, evaluated_model, examples, labels, targets, suite.training, on_progress,
            suite.references,
        )  # fmt: skip
        if fitted is not None and evaluated_model in free:
            request = request._replace(
                task=payload.model_copy(update={"dataset": fitted.manifest}),
                training_targets=[one.target for one in fitted.training] or suite.references,
                training_examples=fitted.training,
                examples=fitted.asked if evaluated_model.source == "nearest" else examples,
            )
        all_answers.append(_check_answers(predict(request), payload))
        if not stay_loaded(all_answers):
            all_answers = measure_costs(all_answers, payload)
    return measure_costs(all_answers, payload)


class _Fitted(NamedTuple):
    """What the constant and the nearest neighbours are fitted on."""

    manifest: Manifest
    """The manifest with the columns that neighbours may be compared by."""
    training: list[TaskExample]
    asked: list[Example]
    """The suite with these columns."""


def _free_methods_on(run: Run, payload: EvaluationPayload, suite: LoadedSuite) -> _Fitted:
    """For a use case what its candidate learned from, so that no change of the version that it is judged on makes them
    weaker. Else the training split of that version: also where the candidate's has no such targets."""
    own = _Fitted(payload.dataset, suite.training, suite.examples)
    judged_one = _fitted_for(payload)
    if judged_one is None:
        return own
    learned = _origin(judged_one)
    assert learned is not None
    manifest = learned.model_copy(update={"inputs": judged_one.inputs or learned.inputs})
    if manifest == payload.dataset or manifest.modality != payload.dataset.modality:
        return own
    try:
        loaded = load_examples(run.folders, manifest, {"train"})
        training = training_examples(loaded, manifest, payload.target_column, payload.task, suite.terms)
    except SpeciateError as error:
        if error.code is not Code.INVALID:
            raise
        return own
    return _Fitted(manifest, training, _visible_examples(run, payload, judged_one, suite)) if training else own


def _fitted_for(payload: EvaluationPayload) -> EvaluatedModel | None:
    """The candidate that is put forward, else the first whose training data are known."""
    if payload.use_case is None:
        return None
    known = [one for one in payload.models if payload.roles.get(one.name) == "candidate" and _origin(one) is not None]
    return next((one for one in known if one.name == payload.candidate), known[0] if known else None)


def _origin(evaluated_model: EvaluatedModel) -> Manifest | None:
    return evaluated_model.learned_from[0] if evaluated_model.learned_from else None


def _few_learned_from(payload: EvaluationPayload, suite: LoadedSuite) -> str | None:
    """Where the free methods are fitted on much fewer rows than there are: a weak floor says little."""
    judged_one = _fitted_for(payload)
    learned = _origin(judged_one) if judged_one else None
    if judged_one is None or learned is None or all(one.source != "nearest" for one in payload.models):
        return None
    count = learned.splits.get("train", 0)
    if 2 * count >= len(suite.training):
        return None
    return (
        f"nearest: was fitted on the {count} training rows of {learned.ref}, which {judged_one.name} learned from; "
        f"{payload.dataset.ref} has {len(suite.training)}. It may be better with these: evaluate a model of this task "
        "that was trained on them beside it."
    )


def _learned_elsewhere(payload: EvaluationPayload) -> frozenset[str]:
    """The candidates that learned from another version than the one whose data the free methods are fitted on."""
    chosen = _fitted_for(payload)
    origin = _origin(chosen) if chosen else None
    if origin is None:
        return frozenset()
    origins = {one.name: _origin(one) for one in payload.models if payload.roles.get(one.name) == "candidate"}
    return frozenset(name for name, other in origins.items() if other is not None and other.ref != origin.ref)


def _check_answers(model_answers: ModelAnswers, payload: EvaluationPayload) -> ModelAnswers:
    """The answers with an error in the place of each one that is none of this task's."""
    if model_answers.evaluated_model.source == "constant":
        return model_answers
    return model_answers._replace(
        repeats=tuple([check_answer(answer, payload.family) for answer in answers] for answers in model_answers.repeats)
    )


def _extra_scores(
    run: Run, payload: EvaluationPayload, suite: LoadedSuite, all_answers: Sequence[ModelAnswers], clusters: Codes
) -> list[ExtraScores]:
    """Scores of the scorer's and the judge's metrics, which need all answers."""
    examples, references = suite.examples, suite.references

    def on_progress(count: int) -> None:
        run.progress(count, None, "scores")

    extra: list[ExtraScores] = []
    if payload.scoring is not None:
        extra += scoring.score_answers(run, payload.scoring, examples, references, all_answers, on_progress)
    if payload.judge is not None:
        extra.append(
            judge_answers(
                JudgeCase(run, payload, payload.judge, examples, references, all_answers, clusters, on_progress)
            )
        )
    return extra


def possible_labels(payload: EvaluationPayload, targets: Sequence[Any]) -> tuple[str, ...]:
    """Labels that an answer can have: all of the dataset or of these targets, not only those of the suite."""
    if payload.family == "anomaly":
        return NORMAL, payload.positive_label or ANOMALY
    if payload.family not in ("classification", "ordinal", "multi-label"):
        return ()
    if is_label(payload.dataset, payload.target_column) and payload.family != "multi-label":
        return tuple(rank_labels(payload.dataset.labels, payload.terms.order))
    each = (target if isinstance(target, list | tuple | set | frozenset) else [target] for target in targets)
    return tuple(rank_labels({str(label) for labels in each for label in labels}, payload.terms.order))


def _visible_examples(
    run: Run, payload: EvaluationPayload, evaluated_model: EvaluatedModel, suite: LoadedSuite
) -> list[Example]:
    """The examples with the columns that the model was trained on, and no others."""
    if not evaluated_model.inputs or evaluated_model.inputs == payload.dataset.inputs:
        return suite.examples
    manifest = payload.dataset.model_copy(update={"inputs": evaluated_model.inputs})
    loaded = load_examples(run.folders, manifest, _splits(payload), [example.id for example in suite.examples])
    usable = evaluation_examples(loaded, payload.dataset, payload.target_column, payload.task, suite.terms)
    by_id = {one.example.id: one.example for one in usable}
    return [by_id[example.id] for example in suite.examples]


class _Contamination(NamedTuple):
    """How many of the examples a model was fitted or selected on; None if its data are not known any more. `nearly`:
    how many more have a near-duplicate there; None if that cannot be checked."""

    exactly: int | None
    nearly: int | None
    without_consent: dict[str, int] | None = None
    """By the columns that gates ask for; None without such a gate, and for a model of others, unless it is said to have
    learned from rows of this workspace that lack consent. Empty where data that it was trained on here are gone."""


def _contamination(
    run: Run, payload: EvaluationPayload, evaluated_model: EvaluatedModel, examples: Sequence[Example]
) -> _Contamination:
    ids = {example.id for example in examples}
    columns = [gate.column for gate in _gates(payload) if gate.rule == "consent" and gate.column]
    if evaluated_model.learned_from is None:
        stated = evaluated_model.stated_data
        against = {each: count for each in columns if (count := count_without_consent(run.folders, stated, each))}
        unknown: dict[str, int] | None = {} if evaluated_model.data_gone else None
        return _stated_contamination(run, payload, evaluated_model, ids)._replace(without_consent=against or unknown)
    exactly = find_seen(run.folders, payload.dataset, ids, evaluated_model.learned_from, _LEARNED)
    nearly = find_nearly_seen(run.folders, payload.dataset, ids, evaluated_model.learned_from, _LEARNED)
    lacking = {each: count_without_consent(run.folders, evaluated_model.learned_from, each) for each in columns}
    return _Contamination(len(exactly), None if nearly is None else len(nearly - exactly), lacking or None)


def _gates(payload: EvaluationPayload) -> tuple[Gate, ...]:
    return payload.use_case.gates_on(payload.suite) if payload.use_case else ()


def _stated_contamination(
    run: Run, payload: EvaluationPayload, evaluated_model: EvaluatedModel, ids: set[str]
) -> _Contamination:
    """By what it is said to have learned from: examples that are there count as seen. None there shows nothing."""
    exactly = set[str]()
    nearly: set[str] | None = set()
    if evaluated_model.stated_data:
        exactly = find_seen(run.folders, payload.dataset, ids, evaluated_model.stated_data, _LEARNED)
        nearly = find_nearly_seen(run.folders, payload.dataset, ids, evaluated_model.stated_data, _LEARNED)
    return _Contamination(len(exactly) or None, len((nearly or set()) - exactly) or None)


def _entry(
    payload: EvaluationPayload, model_answers: ModelAnswers, references: Sequence[Any], contamination: _Contamination
) -> ModelEntry:
    every = [answer for answers in model_answers.repeats for answer in answers]
    labels = _labels(payload, every)
    repeats = tuple(
        judged(
            payload.family,
            references,
            [answer.output for answer in answers],
            [answer.probabilities for answer in answers],
            labels,
            payload.positive_label,
        )
        for answers in model_answers.repeats
    )
    return ModelEntry(
        model_answers.evaluated_model,
        repeats,
        sum(answer.output is None for answer in every),
        model_answers.cost,
        contamination.exactly,
        contamination.nearly,
        all(answer.probabilities is None for answer in every),
        model_answers.served,
        model_answers.coverage,
        contamination.without_consent,
    )


def _labels(payload: EvaluationPayload, answers: Sequence[Answer]) -> list[str]:
    """The dataset's labels; if the target is another column, the labels that were answered (the references' follow)."""
    if payload.family == "anomaly":
        return [NORMAL, payload.positive_label or ANOMALY]
    if is_label(payload.dataset, payload.target_column):
        known = set(payload.dataset.labels)
    else:
        given = [answer for answer in answers if isinstance(answer.output, str)]
        known = {label for answer in given for label in answer.probabilities or (answer.output,)}
    return rank_labels(known, payload.terms.order) if payload.family == "ordinal" else sorted(known)


def _check_positive(payload: EvaluationPayload, answers: Sequence[Any]) -> None:
    """The plan checks the dataset's label; the values of another column are known only now."""
    if (
        payload.positive_label is None
        or is_label(payload.dataset, payload.target_column)
        or payload.positive_label in answers
    ):
        return
    raise SpeciateError(
        Code.INVALID,
        f"positive_label {payload.positive_label!r} does not occur in {payload.target_column!r} of {payload.shown}; "
        f"{closest(payload.positive_label, sorted(set(answers)))}",
        "Call define_use_case again with the label as it is written in the dataset.",
    )


def _question(payload: EvaluationPayload) -> Question:
    metrics: tuple[Metric, ...] = tuple(find_metric(name) for name in payload.metrics)
    return Question(
        payload.shown,
        metrics,
        payload.baseline,
        payload.candidate,
        payload.use_case,
        payload.no_decision,
        payload.seed,
        payload.earlier,
        payload.suite,
        payload.suite_change,
        frozenset(name for name, role in payload.roles.items() if role != "candidate"),
        _learned_elsewhere(payload),
        frozenset(payload.gain_shown),
        payload.order,
    )


def _splits(payload: EvaluationPayload) -> set[str] | None:
    """The split to answer and, for the constant answer, neighbours and prompts, the training split."""
    wants_training = any(
        evaluated_model.source in ("constant", "nearest", "endpoint", "ensemble") for evaluated_model in payload.models
    )
    return None if payload.split is None else {payload.split, *(["train"] if wants_training else [])}


def _slices(payload: EvaluationPayload, examples: Sequence[Example], references: Sequence[Any]) -> dict[str, list[str]]:
    """Each example's value of the columns that gates slice by."""
    columns = {gate.column for gate in _gates(payload) if gate.column is not None and gate.rule == "no_slice_worse"}
    return {
        column: [
            str(reference if column == "label" else example.columns.get(column))
            for example, reference in zip(examples, references, strict=True)
        ]
        for column in columns
    }


def _clusters(run: Run, payload: EvaluationPayload, examples: Sequence[Example]) -> Codes:
    """Codes 0..C-1 of what hangs together: examples of one group, of the same content, and near-duplicates by the
    sketches that splits are made with, for a copy says nothing new. An example without a group is its own."""
    groups = [f"group {example.group}" if example.group else f"example {example.id}" for example in examples]
    codes = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    pairs = []
    for contents in _contents(run, payload, examples):
        _, first, same = np.unique(contents, return_index=True, return_inverse=True)
        pairs.append(np.stack([codes[first[same]], codes], axis=1))
    pairs.append(codes[_near_pairs(run, payload, examples)])
    together = np.concatenate(pairs)
    apart = together[together[:, 0] != together[:, 1]]
    return near_duplicates.clusters(int(codes.max()) + 1, apart)[codes] if len(apart) else codes


def _near_pairs(run: Run, payload: EvaluationPayload, examples: Sequence[Example]) -> Codes:
    """(M, 2) places of examples that are nearly the same; none where they have no sketches. Examples that differ in a
    further column, which a model reads and no sketch is of, are not."""
    sketching = find_modality(payload.dataset.modality).sketching
    if sketching is None or SKETCH not in version_rows.stored_columns(run.folders, payload.dataset):
        return np.zeros((0, 2), np.int64)
    ids = [example.id for example in examples]
    table = version_rows.read(run.folders, payload.dataset, ["id", SKETCH], ids=ids)
    sketch_of = dict(zip(table["id"].to_pylist(), table[SKETCH].to_pylist(), strict=True))
    pairs = near_duplicates.near_duplicate_pairs([sketch_of[name] for name in ids], sketching, folders=run.folders)
    read = np.unique(_read_beside(payload, examples), return_inverse=True)[1]
    alike: Codes = pairs[read[pairs[:, 0]] == read[pairs[:, 1]]]
    return alike


def _read_beside(payload: EvaluationPayload, examples: Sequence[Example]) -> list[str]:
    """What models read of each example beside the inputs of the dataset."""
    further = sorted({name for each in payload.models for name in each.inputs} - set(payload.dataset.inputs))
    return [json.dumps([example.columns.get(name) for name in further], default=str) for example in examples]


def _contents(run: Run, payload: EvaluationPayload, examples: Sequence[Example]) -> list[list[str]]:
    """What each example is, whatever it is called: by its stored hashes with its window, and by its decoded medium. Of
    rows without media the input cells are the medium; what further columns a model reads belongs to it as well."""
    read = _read_beside(payload, examples)
    stored = version_rows.stored_columns(run.folders, payload.dataset)
    wanted = judged_rows.columns_of(stored)
    table = version_rows.read(run.folders, payload.dataset, wanted, ids=[example.id for example in examples])
    place = {name: number for number, name in enumerate(table["id"].to_pylist())}
    known = [
        [keys[place[example.id]] for example in examples]
        for name in (CONTENT, FINGERPRINT)
        if name in stored and (keys := judged_rows.contents(table, name))
    ]
    if find_task(payload.task).reads is not None:  # an example is what is to be answered: many share a caption
        return [[f"{key} {more}" for key, more in zip(keys, read, strict=True)] for keys in known]
    decoded = [media_digest(example.media) for example in examples]
    return [[f"{key} {more}" for key, more in zip(keys, read, strict=True)] for keys in (*known, decoded)]


def _all_alike(examples: Sequence[Example]) -> bool:
    """Looks no further than to the first that differs."""
    first = media_digest(examples[0].media)
    return all(media_digest(example.media) == first for example in examples[1:])


def _telling(payload: EvaluationPayload, suite: LoadedSuite) -> dict[str, tuple[TellingInput, ...]]:
    """For each model the columns that it reads and that alone give the answer to these examples."""
    if payload.dataset.modality not in _WITH_CELLS:
        return {}
    reads = {one.name: _reads(one) for one in payload.models}
    names = sorted({name for each in reads.values() for name in each})
    columns = {name: [example.columns.get(name) for example in suite.examples] for name in names}
    cells = {name: each for name, each in columns.items() if all(map(_is_cell, each))}
    groups = [example.group for example in suite.examples]
    found = telling_inputs(cells, suite.references, groups) if cells else []
    return {name: tuple(each for each in found if each.column in read) for name, read in reads.items()}


def _reads(model: EvaluatedModel) -> set[str]:
    return {*model.inputs, *(name for member in model.members for name in _reads(member))}


def _is_cell(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def _telling_notes(
    payload: EvaluationPayload, suite: LoadedSuite, telling: Mapping[str, tuple[TellingInput, ...]]
) -> list[str]:
    """Which columns of a table give an answer away to the models that read them."""
    rows, notes = [example.columns for example in suite.examples], []
    columns = {one.column: [row.get(one.column) for row in rows] for one in payload.models if one.column}
    for one in payload.models:
        told = telling.get(one.name, ())
        if told:
            notes.append(
                f"{one.name} reads {', '.join(map(str, told))}: alone enough for the right answer. Is it known before "
                "the answer is? If not, the model is of no use: create the dataset again with inputs=[...] without "
                "it. A person is asked before it is promoted."
            )
        known = {each.column for each in told}
        for column, answers in columns.items():
            copies = [name for name in repeating_inputs(one.inputs, rows, answers) if name not in (column, *known)]
            if copies:
                notes.append(
                    f"{one.name} reads {', '.join(map(repr, copies))}, which repeats the answers of column:{column}."
                )
    return notes


def _notes(
    payload: EvaluationPayload,
    suite: LoadedSuite,
    entries: Sequence[ModelEntry],
    all_answers: Sequence[ModelAnswers],
    telling: Mapping[str, tuple[TellingInput, ...]],
) -> list[str]:
    notes, count = [*payload.unseen, *(f"{remark}." for remark in payload.remarks)], len(suite.examples)
    if suite.unlabelled:
        reference = payload.target_column or "a true answer"
        notes.append(f"{suite.unlabelled} of {suite.unlabelled + count} examples without {reference!r} were left out.")
    if len(alike := {str(reference) for reference in suite.references}) == 1 and payload.family in _WITH_LABELS:
        notes.append(f"All {count} examples have the label {next(iter(alike))!r}: always answering it is right.")
    for each, column in ((one, other.column) for one in payload.models for other in payload.models if other.column):
        if column in each.inputs:
            notes.append(
                f"{each.name} reads {column!r}, which holds the answers of column:{column}: it copies that system and "
                "cannot replace it. train_model with the use case leaves such a column out."
            )
    notes += _telling_notes(payload, suite, telling)
    constant = any(evaluated_model.source == "constant" for evaluated_model in payload.models)
    if constant and not suite.training and _fitted_for(payload) is None:
        notes.append("There is no training split, so the constant answer was taken from these examples themselves.")
    if few := _few_learned_from(payload, suite):
        notes.append(few)
    if payload.use_case and payload.no_decision:
        notes.append(f"No decision is made: {payload.no_decision}.")
    for entry in entries:
        name = entry.evaluated_model.name
        if entry.seen:
            notes.append(f"{name} has seen {entry.seen} of {count} examples in training, so it looks too good.")
        if entry.nearly_seen:
            notes.append(f"{name} has seen near-duplicates of {entry.nearly_seen} of {count} examples.")
        if entry.errors:
            times = len(entry.repeats)
            total = f"{times * count} answers to {count} examples" if times > 1 else f"{count} examples"
            notes.append(
                f"{name} failed on {entry.errors} of {total}; each counts as its worst answer. "
                "describe_evaluation(errors=5) tells why."
            )
    if unchecked := [e.evaluated_model.name for e in entries if e.seen is not None and e.nearly_seen is None]:
        notes.append(
            f"Near-duplicates in the training data of {', '.join(unchecked)}: not_checked. These examples, or those, "
            "have no sketches to compare."
        )
    return notes + [note for model_answers in all_answers for note in model_answers.notes]
