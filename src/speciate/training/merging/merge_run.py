"""The worker's side of `merge`: merge the weights, recount BatchNorm, calibrate, and measure where there are examples.

A greedy soup (Wortsman et al. 2022) takes the members from the best on validation examples down, and keeps one where
the soup with it is no worse. Everything is deterministic: the same members and parameters give the same model id."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NotRequired, TypedDict

from speciate.datasets.loading.loader import Example, load_examples
from speciate.errors import CallAgain, Code, SpeciateError
from speciate.evaluation.contamination import find_seen
from speciate.evaluation.statistics import Estimate
from speciate.jobs.run import Run, Stopped
from speciate.models import model_folder, sealed, trust
from speciate.models.backbones import architectures
from speciate.models.backbones.contract import Backbone, Item
from speciate.models.language.causal_lm import transformers_folder
from speciate.models.model_card import ModelCard
from speciate.refs import model_ref
from speciate.tasks import predictor as predictors
from speciate.tasks.language_predictor import LanguagePredictor
from speciate.tasks.network_predictor import NetworkPredictor, as_scores, scores
from speciate.tasks.task_heads import PER_UNIT
from speciate.training import provenance
from speciate.training.held_out import measure
from speciate.training.language.answer_validation import score_on_validation
from speciate.training.merging import merge_weights, mergeable
from speciate.training.merging.merge_spec import Member, MergePayload
from speciate.training.merging.merge_weights import Rule
from speciate.training.train_spec import Payload
from speciate.training.training_context import TrainingContext
from speciate.vocabulary import find_metric

if TYPE_CHECKING:
    import torch


MergedModel = NetworkPredictor | LanguagePredictor
METHOD = "merge"
"""Name of the method, as cards have it."""


class _Validation(NamedTuple):
    """Examples of the dataset that is measured on, and those of them that no member has learned from."""

    context: TrainingContext
    left_out: int

    @property
    def metric(self) -> str:
        return self.context.payload.objective.metric

    @property
    def held(self) -> list[Example]:
        """Validation examples to measure on, by id. Language models answer as many as their training judged by: each
        answer takes a while."""
        most = getattr(self.context.payload.parameters, "judged", None)
        return sorted(self.context.validation, key=lambda each: each.id)[:most]

    def scores(self, model: NetworkPredictor) -> Any:
        media = [example.media for example in self.held]
        items = model.backbone.prepare(media, per_unit=model.task_head.family in PER_UNIT)
        return as_scores(scores(model.backbone, model.head, model.task_head, items))

    def value(self, model: MergedModel) -> Estimate:
        if isinstance(model, LanguagePredictor):
            return score_on_validation(self.context, model, self.held)
        return measure(self.context, model.task_head, self.held, self.scores(model))

    def standing(self, found: Estimate) -> float:
        """Greater is better."""
        return find_metric(self.metric).sign * found.value if math.isfinite(found.value) else -math.inf


def run(run: Run) -> Mapping[str, object]:
    """Writes `outputs/model/`; returns card and report."""
    import torch

    payload, started = run.read_payload(MergePayload), time.monotonic()
    torch.set_num_threads(payload.threads)
    for member in payload.members:
        if sealed.check(Path(member.folder)) != member.id:
            raise SpeciateError(
                Code.REFUSED, f"{member.ref} is not the model that was registered.", "Train it again with train_model."
            )
    run.progress(0, None, "", "reading examples")
    judge = _load_validation(run, payload)
    values = [_measure_member(run, judge, member) for member in payload.members] if judge else []
    maker = _Merger(run, payload, judge)
    chosen = maker.greedy(values) if payload.method == "greedy" else list(range(len(payload.members)))
    folder, found = maker.make(chosen, run.outputs / "model")
    report = _report(payload, judge, values, chosen, found)
    report["notes"] = maker.notes
    card = _card(payload, chosen, folder, judge, found, time.monotonic() - started)
    return {"card": card.model_dump(mode="json"), "report": report}


class _Merger:
    def __init__(self, run: Run, payload: MergePayload, judge: _Validation | None) -> None:
        self._run, self._payload, self._judge = run, payload, judge
        self._base = _base_weights(run, payload)
        self.notes = _notes(payload, judge)

    def greedy(self, values: Sequence[Estimate | None]) -> list[int]:
        """Places of the members that make the soup no worse, the best of them first."""
        judge = self._judge
        known = [(place, value) for place, value in enumerate(values) if value is not None]
        if judge is None or len(known) < len(values):
            raise SpeciateError(
                Code.INVALID,
                "A greedy soup chooses by validation examples, and these models have learned from all there are.",
                "Or name a dataset that holds others.",
                next=[CallAgain("merge_models", {"method": "soup"})],
            )
        order = sorted(known, key=lambda pair: (-judge.standing(pair[1]), pair[0]))
        chosen, best = [order[0][0]], judge.standing(order[0][1])
        for place, _ in order[1:]:
            folder, found = self.make([*chosen, place], self._run.folder.path / "trial")
            shutil.rmtree(folder)
            if found is not None and judge.standing(found) >= best:
                chosen, best = [*chosen, place], judge.standing(found)
        return chosen

    def make(self, places: Sequence[int], out: Path) -> tuple[Path, Estimate | None]:
        """The sealed merge of these members, and its value."""
        payload, raw = self._payload, out.with_name(out.name + ".raw")
        for leftover in (out, raw):
            shutil.rmtree(leftover, ignore_errors=True)
        members = [payload.members[place] for place in sorted(places)]
        rule = Rule(
            payload.method,
            tuple(payload.weights[place] for place in sorted(places)),
            tuple(member.id for member in members),
            payload.parameters.density or 1.0,
            payload.parameters.scale,
            payload.parameters.seed,
        )
        merge_weights.merge_folders(
            [Path(member.folder) for member in members], self._base, rule, raw, on_tensor=self._note_tensor
        )
        sealed.seal(raw)
        if self._judge is None:
            raw.rename(out)
            return out, None
        found = self._settled(raw, out, self._judge)
        shutil.rmtree(raw, ignore_errors=True)
        return out, found

    def _settled(self, raw: Path, out: Path, judge: _Validation) -> Estimate | None:
        """With norms counted anew and confidences that fit; saved at `out`. What writes has neither, and is moved."""
        model = _load(raw)
        if isinstance(model, LanguagePredictor):
            raw.rename(out)
            return judge.value(model) if judge.held else None
        if self._payload.counts_batches:
            media = [example.media for example in judge.context.train]
            recount_batch_norms(
                model.backbone, model.backbone.prepare(media, per_unit=model.task_head.family in PER_UNIT)
            )
        if not (held := judge.held):
            model.save(out)
            return None
        given = judge.scores(model)
        targets = model.task_head.encode_targets(judge.context.labels(held))
        model.task_head = model.task_head.calibrated(given, targets)
        model.save(out)
        return measure(judge.context, model.task_head, held, given)

    def _note_tensor(self, name: str) -> None:
        if self._run.stopping:
            raise Stopped


def _load(folder: Path) -> MergedModel:
    model = predictors.load(folder)
    assert isinstance(model, NetworkPredictor | LanguagePredictor), "alike.py lets no other pass"
    return model


def _measure_member(run: Run, judge: _Validation, member: Member) -> Estimate | None:
    run.progress(0, None, "", f"measuring {member.ref}")
    return judge.value(_load(Path(member.folder))) if judge.held else None


def _load_validation(run: Run, payload: MergePayload) -> _Validation | None:
    """None where nothing is measured."""
    if payload.manifest is None:
        return None
    examples = load_examples(run.folders, payload.manifest, ("train", "validation"))
    known = set[str]()
    if payload.learned_from:
        held = [example.id for example in examples if example.split == "validation"]
        known = find_seen(run.folders, payload.manifest, held, payload.learned_from, ("train",))
    kept = [each for each in examples if each.split != "validation" or each.id not in known]
    training = Payload.model_validate(
        {
            **{name: value for name, value in payload.recipe.items() if name in Payload.model_fields},
            "spec": {**payload.recipe["spec"], "budget_minutes": None},
            "manifest": payload.manifest,
            "dataset": payload.manifest.ref,
            "threads": payload.threads,
            "device": "cpu",  # a merge has no GPU, whatever its members were trained on
        }
    )
    return _Validation(TrainingContext(run, training, kept), len(known))


def _base_weights(run: Run, payload: MergePayload) -> Path | None:
    """The base's weights by the names that our network gives them."""
    if payload.base_folder is None:
        return None
    folder = Path(payload.base_folder)
    if payload.base is not None and model_ref(payload.base).source == "path":
        copy = run.folder.path / "base-of-caller"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        trust.take(folder, copy)
        folder = copy
    if mergeable.is_writer(folder):
        return transformers_folder(folder, run.folders.cache)
    if model_folder.has_backbone(folder):
        return folder
    assert payload.base is not None, "it has a folder"
    made = run.folder.path / "base"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    model_folder.save(architectures.build(payload.base, [], 0, folder), made)
    return made


def _notes(payload: MergePayload, judge: _Validation | None) -> list[str]:
    notes = []
    if payload.base_folder is not None and not payload.base_has_head:
        notes.append(f"{payload.base} has no head for these answers: the heads were averaged.")
    if judge is None:
        notes.append(
            "The members have no dataset in common, so nothing was measured, and how sure an answer counts is as in "
            f"{payload.members[0].ref}: name one with dataset."
        )
    elif judge.left_out:
        notes.append(f"{judge.left_out} validation examples that a member has learned from were excluded.")
    if payload.counts_batches:
        notes.append("The statistics of BatchNorm were counted anew on the training examples.")
    if payload.learned_from is None:
        notes.append("The data that a member learned from are not here any more: if it saw these, it looks too good.")
    return notes


class MemberRow(TypedDict):
    model: str
    weight: float
    merged: bool
    validation: EstimateRow | None


class MergeReport(TypedDict):
    method: str
    base_model: str | None
    dataset: str | None
    metric: str | None
    validation: EstimateRow | None
    members: list[MemberRow]
    parameters: Mapping[str, Any]
    notes: NotRequired[list[str]]


def _report(
    payload: MergePayload,
    judge: _Validation | None,
    values: Sequence[Estimate | None],
    chosen: Sequence[int],
    found: Estimate | None,
) -> MergeReport:
    measured = values or [None] * len(payload.members)
    return {
        "method": payload.method,
        "base_model": payload.base,
        "dataset": payload.manifest.ref if payload.manifest else None,
        "metric": judge.metric if judge else None,
        "validation": _estimate_row(found),
        "members": [
            {"model": member.ref, "weight": weight, "merged": place in chosen, "validation": _estimate_row(value)}
            for place, (member, weight, value) in enumerate(
                zip(payload.members, payload.weights, measured, strict=True)
            )
        ],
        "parameters": payload.parameters.model_dump(),
    }


class EstimateRow(TypedDict):
    value: float | None
    interval: list[float] | None
    n: int
    method: str


def _estimate_row(found: Estimate | None) -> EstimateRow | None:
    if found is None:
        return None
    value, low, high = (each if math.isfinite(each) else None for each in (found.value, found.low, found.high))
    interval = None if low is None or high is None else [low, high]
    return {"value": value, "interval": interval, "n": found.n, "method": found.method}


def _card(
    payload: MergePayload,
    chosen: Sequence[int],
    folder: Path,
    judge: _Validation | None,
    found: Estimate | None,
    seconds: float,
) -> ModelCard:
    members = [payload.members[place] for place in sorted(chosen)]
    measured = {f"validation {judge.metric}": found.value} if judge and found and math.isfinite(found.value) else {}
    return ModelCard(
        **payload.card,
        name=payload.name,
        id=sealed.check(folder),
        method=METHOD,
        base_model=payload.base,
        parents=tuple(member.ref for member in members),
        dataset=payload.manifest.ref if payload.manifest else None,
        bytes=sum(entry.stat().st_size for entry in os.scandir(folder)),
        seconds=seconds,
        metrics=measured,
        recipe={name: payload.recipe[name] for name in ("terms", "target") if name in payload.recipe}
        | {
            "environment": provenance.record(payload.threads),
            "merge": {
                "method": payload.method,
                "models": [member.ref for member in payload.members],
                "ids": [member.id for member in payload.members],
                "merged": [member.ref for member in members],
                "weights": list(payload.weights),
                "base_model": payload.base,
                **payload.parameters.model_dump(),
                "trained": {name: value for name, value in payload.recipe.items() if name != "environment"},
            },
        },
    )


_RECOUNT_BATCH = 32


def recount_batch_norms(backbone: Backbone, items: Sequence[Item]) -> int:
    """Count the statistics of BatchNorm anew, and return how many such norms there are.

    Those of the members belong to activations that the merge does not have. As after stochastic weight averaging
    (Izmailov et al. 2018), the network reads training examples once, and each norm keeps mean and variance of its
    inputs (Wortsman et al. 2022 have networks without such norms). The same items give the same statistics; the network
    is left in eval mode.
    """
    import torch

    norms = _batch_norms(backbone.module)
    before = [norm.momentum for norm in norms]
    backbone.module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # every batch counts the same
        norm.train()
    with torch.no_grad():
        for start in range(0, len(items) - 1, _RECOUNT_BATCH):
            batch = items[start : start + _RECOUNT_BATCH]
            if len(batch) > 1:  # of one example there may be no variance
                backbone.states(backbone.collate(batch))
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
        norm.eval()
    return len(norms)


def _batch_norms(module: torch.nn.Module) -> list[torch.nn.modules.batchnorm._BatchNorm]:
    from torch.nn.modules.batchnorm import _BatchNorm

    return [each for each in module.modules() if isinstance(each, _BatchNorm) and each.track_running_stats]
