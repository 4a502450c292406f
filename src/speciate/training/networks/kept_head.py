"""A training that keeps the head that its base model was published with: the network to train, and what is kept of it.

Rows of the head's last layers are laid anew by the name of each label (models/published/label_rows.py). The report says
which labels kept their rows, and which began anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from speciate.datasets.columns import class_name
from speciate.datasets.loading.loader import Example
from speciate.errors import Call, CallAgain, Code, SpeciateError
from speciate.models.published import voice_folder
from speciate.models.published.architectures import PublishedHead, check_head
from speciate.models.published.asking import usual_templates
from speciate.models.published.label_rows import RowSources, kept_labels, row_sources
from speciate.models.published.manifest import read_manifest
from speciate.models.published.network import PublishedNetwork, load_network
from speciate.models.published.published_model import LabelPrompts
from speciate.tasks.published_heads import labels_of_head, published_task_head
from speciate.tasks.published_network import TrainedPublishedPredictor, trained_predictor
from speciate.tasks.published_policy import plans_of
from speciate.tasks.published_speech_head import speech_head
from speciate.tasks.published_text_heads import check_texts
from speciate.tasks.task import TaskHead
from speciate.training.training_context import TrainingContext
from speciate.use_cases import CONSENT, says_yes

_SHOWN = 8


class KeptHead(NamedTuple):
    base_model: str
    folder: Path
    head: PublishedHead
    sources: RowSources | None
    """None of a head without labels."""
    threads: int
    prompts: LabelPrompts | None = None

    def network(self) -> PublishedNetwork:
        """Anew; the same each time."""
        return load_network(self.folder, self.head, self.base_model, self.sources, self.threads, self.prompts)

    def predictor(
        self, network: PublishedNetwork, task_head: TaskHead, held: Sequence[Example]
    ) -> TrainedPublishedPredictor:
        return trained_predictor(network, task_head, held)


def keep_head(context: TrainingContext) -> KeptHead | None:
    """None where a head of our own is put on the base model. The context's task head becomes that of the published
    head, and its report and notes say what is kept. Raises INVALID for weights or texts that do not fit."""
    payload = context.payload
    if payload.head != "published":
        return None
    base_model, folder = str(payload.spec.base_model), Path(payload.base_folder or "")
    head = check_head(folder, base_model, payload.task)
    context.task_head = published_task_head(head, context.task_head)
    _check_horizon(head, base_model, context.task_head)
    if head.adapter == "text-to-spectrogram":
        context.task_head = speech_head(load_network(folder, head, base_model, None, payload.threads).model)
    labels = labels_of_head(head, context.task_head)
    sources: dict[str, tuple[int, ...]] | None = None
    published: Sequence[str] = head.labels or ()
    if labels is not None:
        if head.labels is None:  # the library of its weights knows them
            published = load_network(folder, head, base_model, None, payload.threads).model.labels
        manifest = read_manifest(folder)
        table = manifest.label_map if manifest is not None else None
        sources = row_sources(published, labels, head.adapter, table)
    made = KeptHead(base_model, folder, head, sources, payload.threads, _prompts(folder, head, context.task_head))
    if head.adapter in ("ctc", "speech", "seq2seq", "image-to-text"):
        check_texts(made.network(), context.labels(context.train))
    if head.adapter == "policy":
        _learn_plans(context, made)
    _tell(context, made, published)
    return made


def _learn_plans(context: TrainingContext, made: KeptHead) -> None:
    """A policy learns a plan from each step of an episode. INVALID without held-out episodes: parts of one episode
    cannot judge others of it."""
    if not context.validation:
        raise SpeciateError(
            Code.INVALID,
            f"{context.payload.dataset} has no validation split, by whose episodes a policy is judged.",
            next=[Call("curate_dataset", {"dataset": context.payload.dataset, "steps": [{"op": "split"}]})],
        )
    config = made.network().model.config
    context.learn_from(plans_of(context.train, context.labels(context.train), config))


def _prompts(folder: Path, head: PublishedHead, task_head: TaskHead) -> LabelPrompts | None:
    """The sentences of a zero-shot model, about the labels of the dataset; of a model that reads a text what is put
    around it. As it was registered, else as usual."""
    manifest = read_manifest(folder)
    known = manifest.prompts if manifest is not None else None
    if head.zero_shot:
        return LabelPrompts(task_head.labels, known.templates if known else usual_templates(head.modality))
    return known if head.adapter == "seq2seq" else None


def _check_horizon(head: PublishedHead, base_model: str, task_head: TaskHead) -> None:
    horizon = getattr(task_head, "horizon", 0)
    if head.steps is not None and horizon > head.steps:
        raise SpeciateError(
            Code.INVALID,
            f"{base_model!r} forecasts {head.steps} steps, and the horizon is {horizon}.",
            next=[CallAgain("train_model", {"hyperparameters": {"horizon": head.steps}})],
        )


def _tell(context: TrainingContext, made: KeptHead, published: Sequence[str]) -> None:
    report: dict[str, object] = {"kept": "published", "architecture": made.head.architecture}
    if made.sources is not None:
        kept = kept_labels(made.sources)
        new = [label for label in made.sources if label not in kept]
        report |= {
            "labels_from": {
                class_name(label): [class_name(published[place]) for place in made.sources[label]] for label in kept
            },
            "new_labels": [class_name(label) for label in new],
        }
        if new:
            shown = ", ".join(class_name(label) for label in new[:_SHOWN])
            more = f" and {len(new) - _SHOWN} more" if len(new) > _SHOWN else ""
            context.notes.append(f"The published head has no label for {shown}{more}: their rows began at zero.")
    if made.head.adapter == "text-to-spectrogram":
        report |= _of_voice(context, made)
    if made.prompts is not None:
        report["asked_with"] = list(made.prompts.templates)
    context.report["published_head"] = report


def _of_voice(context: TrainingContext, made: KeptHead) -> dict[str, object]:
    """What makes the sound, whose voice it begins with, and how many recordings say yes in the column `consent`."""
    cells = [example.columns.get(CONSENT) for example in (*context.train, *context.validation)]
    agreed = sum(says_yes(cell) for cell in cells)
    if agreed < len(cells):
        context.notes.append(
            f"{len(cells) - agreed} of {len(cells)} recordings do not say yes in the column {CONSENT!r}: a use case of "
            "speech holds this version, unless its gate 'consent' names another column where they do."
        )
    vocoder = voice_folder.vocoder_files(made.folder) is not None
    return {
        "vocoder": "its own" if vocoder else "none: Griffin-Lim",
        "speaker": voice_folder.SPEAKER if (made.folder / voice_folder.SPEAKER).is_file() else "zeros",
        "consent": {"column": CONSENT, "yes": agreed, "recordings": len(cells)},
    }


def card_entry(report: Mapping[str, object]) -> Mapping[str, object]:
    """For the recipe of a card: what was kept of the published head, and which labels began anew."""
    return {"published_head": report["published_head"]} if "published_head" in report else {}
