"""The worker's side of `shortlist`: frozen vectors of the user's examples for each base model, their scores, and an
epoch of tuning for the best of them.

All are measured on the same training examples, drawn by the seed, and on no others. Vectors come from the workspace's
cache and go into it, where later trainings find them. A base model that has learned from these very examples would look
better than it is: they are excluded where enough others remain, else it gets no scores."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

from speciate.datasets import version_rows
from speciate.datasets.loading.loader import Example, load_examples
from speciate.environment import compute_threads
from speciate.errors import SpeciateError
from speciate.evaluation.contamination import find_seen
from speciate.jobs.run import Run, Stopped
from speciate.models.encoders import load_encoder
from speciate.tasks.representations import Embeddings
from speciate.training.planning import base_models
from speciate.training.planning.brief_tuning import (
    FEWEST_JUDGED,
    MOST_JUDGED,
    MOST_LEARNED,
    MOST_PARAMETERS,
    TUNED,
    TUNED_FAMILIES,
    loss_after_an_epoch,
)
from speciate.training.planning.shortlist import ShortlistPayload
from speciate.training.planning.transferability import (
    BaseModelStanding,
    Scores,
    h_score,
    indicators,
    logme,
    prune,
)
from speciate.training.train_spec import Payload
from speciate.training.training_context import TrainingContext
from speciate.vocabulary import find_task

MOST_EXAMPLES = 1000
"""Examples, or 20 of each label, but four times as many at most; a fifth of that, if the time allows no more."""
_OF_LABEL, _TIMES = 20, 4
_CHUNK = 200
_FEWEST_UNSEEN = 100
"""Examples that no base model has learned from: with fewer the others are taken, too."""
CAVEAT = (
    "Scores of frozen vectors, and an epoch of tuning, leave out what promises little; they do not choose. What they "
    "rank first is often not the best once it is fine-tuned (Agostinelli et al. 2022), and of few examples wide "
    "vectors look better than they are. So several stay, and only training and evaluation decide."
)
_OUT_OF_TIME = "its vectors would have taken longer than the time there was"


class _OutOfTime(Exception):
    pass


class _BaseModelVectors(NamedTuple):
    """What a base model made of the examples, from the first on."""

    vectors: npt.NDArray[np.float32]
    parameters: int
    seconds: float


def run(run: Run) -> Mapping[str, object]:
    plan = run.read_payload(ShortlistPayload)
    threads = max(payload.threads for payload in plan.candidates.values())
    with compute_threads(threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = compare_base_models(run, plan.candidates, plan.seconds, plan.keep, plan.seed)
    report["candidates"] += [
        {"base_model": name, "kept": True, "why": f"not measured: {why}"} for name, why in plan.unsuited.items()
    ]
    return {"report": report}


class ShortlistReport(TypedDict):
    dataset: str
    task: str
    examples: int
    candidates: list[dict[str, object]]
    """{base_model, place, kept, why, ...} of each."""
    weakness: str


def compare_base_models(
    run: Run,
    payloads: dict[str, Payload],
    seconds: float | None,
    keep: int,
    seed: int,
    most: int = MOST_EXAMPLES,
    *,
    tune: bool = True,
) -> ShortlistReport:
    """The report, as JSON. `payloads`: of a probe on each base model, by its name; of one dataset and one task. `tune`:
    whether those that promise most are tuned for an epoch."""
    began, payload = time.monotonic(), next(iter(payloads.values()))
    ids, knowing = _unseen_ids(run, payload, payloads)
    examples = load_examples(
        run.folders,
        payload.manifest,
        ids=[*_draw(run, ids, payload, seed, most), *_held_ids(run, payload, payloads, seed)],
    )
    context = TrainingContext(run, payload, examples)
    order = np.random.default_rng(seed).permutation(len(context.train)).tolist()
    shown, why = _vectors_of_each(run, payloads, [context.train[place] for place in order], knowing, seconds)
    count = min((len(one.vectors) for one in shown.values()), default=0)
    columns = _target_columns(context, [context.train[place] for place in order[:count]])
    scores = {
        name: Scores(logme(one.vectors[:count], columns), h_score(one.vectors[:count], columns))
        for name, one in shown.items()
    }
    sizes = {name: one.parameters for name, one in shown.items()}
    standings = prune(list(payloads), scores, sizes, keep)
    learned = _each_label_first([context.train[place] for place in order], context)[:MOST_LEARNED]
    end = None if seconds is None else began + seconds
    scored = [each for each in standings if each.place]
    losses = _tune_first(run, context, payloads, scored, sizes, learned, keep, end) if tune else {}
    standings = prune(list(payloads), scores, sizes, keep, losses)
    rows = list[dict[str, object]]()
    for base in standings:
        row: dict[str, object] = {
            "base_model": base.base_model,
            "place": base.place,
            "kept": base.kept,
            "why": base.why,
        }
        if (one := shown.get(base.base_model)) is None:
            row["why"] = f"not measured: {why[base.base_model]}"
        else:
            found = scores[base.base_model]
            row |= {
                "logme": round(found.logme, 4), "h_score": round(found.h_score, 4), "parameters": one.parameters,
                "width": one.vectors.shape[1], "seconds": round(one.seconds, 3),
            }  # fmt: skip
            if base.base_model in losses:
                row["loss"] = round(losses[base.base_model], 4)
        rows.append(row)
    return {
        "dataset": payload.dataset, "task": payload.task, "examples": count, "candidates": rows, "weakness": CAVEAT,
    }  # fmt: skip


def _unseen_ids(run: Run, payload: Payload, payloads: dict[str, Payload]) -> tuple[list[str], dict[str, str]]:
    """Ids of training examples to measure by, and which base models cannot be measured by them, with the reason."""
    table = version_rows.read(run.folders, payload.manifest, ["id"], splits=("train",), usable=True)
    ids: list[str] = table["id"].to_pylist()
    knowing, known = dict[str, str](), dict[str, set[str]]()
    for name, each in payloads.items():
        if each.base_learned_from is None:
            knowing[name] = "the data that it learned from are not known any more, and may be these"
        elif each.base_learned_from:
            known[name] = find_seen(run.folders, payload.manifest, ids, each.base_learned_from, ("train",))
    together = set[str]().union(*known.values())
    if len(ids) - len(together) >= min(_FEWEST_UNSEEN, len(ids)):
        return [each for each in ids if each not in together], knowing
    for name, its in known.items():
        if its:
            knowing[name] = "it has learned from these very examples"
    return ids, knowing


def _held_ids(run: Run, payload: Payload, payloads: Mapping[str, Payload], seed: int) -> list[str]:
    """Validation examples that brief tuning is judged by: no base model has learned from them."""
    if find_task(payload.task).family not in TUNED_FAMILIES:
        return []
    table = version_rows.read(run.folders, payload.manifest, ["id"], splits=("validation",), usable=True)
    ids: list[str] = table["id"].to_pylist()
    learned = {version.id: version for each in payloads.values() for version in each.base_learned_from or ()}
    if learned:
        seen = find_seen(run.folders, payload.manifest, ids, list(learned.values()), ("train",))
        ids = [each for each in ids if each not in seen]
    return [ids[place] for place in np.random.default_rng(seed).permutation(len(ids))[:MOST_JUDGED].tolist()]


def _each_label_first(examples: Sequence[Example], context: TrainingContext) -> list[Example]:
    """The same examples: the first of each label, then the others in their order. A head that begins at a linear answer
    needs more than one label, and a rare one may come late."""
    if find_task(context.payload.task).family not in TUNED_FAMILIES or not examples:
        return list(examples)
    first = set(np.unique(context.targets(examples), return_index=True)[1].tolist())
    return [examples[place] for place in sorted(range(len(examples)), key=lambda place: place not in first)]


def _tune_first(
    run: Run,
    context: TrainingContext,
    payloads: Mapping[str, Payload],
    standings: Sequence[BaseModelStanding],
    sizes: Mapping[str, int],
    learned: Sequence[Example],
    keep: int,
    end: float | None,
) -> dict[str, float]:
    """Loss after an epoch, by base model, of those that frozen vectors put first. Empty where scores alone decide: if
    there are no more than are kept, too few held-out examples, or one of the first that is too large, fails or is out
    of time, as a network that was not tuned cannot be compared with one that was. So the time for all is estimated from
    those that are tuned, by their parameters, and the rest are not begun where it is too short."""
    held, found, first = context.validation, dict[str, float](), standings[:TUNED]
    if len(held) < FEWEST_JUDGED or len(standings) <= keep or not learned:
        return {}
    if max(sizes[each.base_model] for each in first) > MOST_PARAMETERS:
        return {}

    def progress() -> None:
        if run.stopping:
            raise Stopped
        if end is not None and time.monotonic() > end:
            raise _OutOfTime

    began, whole = time.monotonic(), sum(sizes[each.base_model] for each in first)
    for place, each in enumerate(first):
        done = sum(sizes[one.base_model] for one in first[:place])
        if end is not None and done and (time.monotonic() - began) * whole / done > end - began:
            return {}
        run.progress(place, len(first), "base models", f"tuning {each.base_model} briefly")
        name, payload = each.base_model, payloads[each.base_model]
        base_model = payload.spec.base_model or name
        try:
            loss = loss_after_an_epoch(run, context, payload, base_model, learned, held, progress)
        except Exception:  # noqa: BLE001 - a network may fail in any way; a stop is no Exception and is let through
            return {}
        if not math.isfinite(loss):
            return {}
        found[name] = loss
    return found


def _draw(run: Run, ids: Sequence[str], payload: Payload, seed: int, most: int) -> list[str]:
    """Drawn by the seed; of a few classes at least one example each, without which no head can be made."""
    count = min(max(most, _OF_LABEL * len(payload.manifest.labels)), _TIMES * most)
    drawn = [ids[place] for place in np.random.default_rng(seed).permutation(len(ids)).tolist()]
    target, columns = payload.target or "label", ("label", *payload.manifest.columns)
    if count < len(ids) and target in columns and find_task(payload.task).family in TUNED_FAMILIES:
        table = version_rows.read(run.folders, payload.manifest, ["id", target], ids=ids)
        labels = dict(zip(table["id"].to_pylist(), table[target].to_pylist(), strict=True))
        first = set({labels[each]: each for each in reversed(drawn)}.values())
        drawn.sort(key=lambda each: each not in first)
    return drawn[:count]


def _vectors_of_each(
    run: Run, payloads: dict[str, Payload], examples: Sequence[Example], knowing: dict[str, str], seconds: float | None
) -> tuple[dict[str, _BaseModelVectors], dict[str, str]]:
    """By base model; and why those that are not there are not. Each may take an equal part of the time that is left."""
    began, shown, why = time.monotonic(), dict[str, _BaseModelVectors](), dict(knowing)
    wanted = [name for name in payloads if name not in knowing]
    for place, name in enumerate(wanted):
        run.progress(place, len(wanted), "base models", f"vectors of {name}")
        end = None if seconds is None else began + seconds
        part = None if end is None else (end - time.monotonic()) / (len(wanted) - place)
        try:
            shown[name] = _vectors_of(run, name, payloads[name], examples, part, end)
        except _OutOfTime:
            why[name] = _OUT_OF_TIME
        except SpeciateError as error:  # of one model: the others can be compared all the same
            why[name] = str(error)
    return shown, why


def _vectors_of(
    run: Run, name: str, payload: Payload, examples: Sequence[Example], part: float | None, end: float | None
) -> _BaseModelVectors:
    """Vectors of the first examples, as many as its part of the time is enough for, but the first chunk."""

    def progress(done: int, total: int) -> None:
        if run.stopping:
            raise Stopped
        if end is not None and time.monotonic() > end:
            raise _OutOfTime

    began = time.monotonic()
    progress(0, len(examples))
    base_model, found = payload.spec.base_model or name, list[npt.NDArray[np.float32]]()
    with base_models.copy_caller_folders(run, payload) as copied:
        folder = Path(copied.base_folder) if copied.base_folder else None
        encoder = load_encoder(base_model, payload.threads, folder=folder, media=payload.manifest.modality)
        embeddings = Embeddings(base_model, encoder, run.folders, progress)
        least = max(_CHUNK, math.ceil(len(examples) / 5))
        for start in range(0, len(examples), least):
            spent = time.monotonic() - began
            if found and part is not None and spent * (1 + 1 / len(found)) > part:
                break
            found.append(embeddings.encode(examples[start : start + least]))
    return _BaseModelVectors(np.concatenate(found), encoder.parameters, time.monotonic() - began)


def _target_columns(context: TrainingContext, examples: Sequence[Example]) -> Any:
    """(N, K), as transferability.py takes them."""
    targets = context.targets(examples)
    if find_task(context.payload.task).family in ("classification", "ordinal"):
        return indicators(targets)
    return np.asarray(targets, np.float64).reshape(len(examples), -1)
