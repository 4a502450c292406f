"""`predictor.json` of a published model that was registered with labels: it answers under the user's labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from speciate import foreign_files
from speciate.errors import Call, Code, SpeciateError, closest
from speciate.models.published.architectures import PublishedHead, check_head, find_head
from speciate.models.published.asking import usual_templates
from speciate.models.published.label_map import LabelMap, tag_stem
from speciate.models.published.published_model import LabelPrompts
from speciate.models.sealed import PREDICTOR

_TAGS = "token-classification"
_TASKS_WITH_LABELS = ("-classification", "-detection", "-segmentation")


class PublishedManifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = 1
    published: Literal[True] = True
    """Tells this kind of folder from the others."""
    task: str
    label_map: dict[str, str] | None = None
    """Published label -> the user's; of a zero-shot model phrase -> the user's."""
    prompts: LabelPrompts | None = None
    trained: bool = False
    """Whether it was trained further here with its own head, so that its labels are the user's."""
    thresholds: dict[str, float] | None = None
    """For several labels: label -> threshold above which it is given."""
    horizon: int | None = None
    """Steps of a forecaster that was trained here; it may give more."""

    @property
    def table(self) -> LabelMap | None:
        """The label map, for tags without their prefixes; None where there is none."""
        if self.label_map is None:
            return None
        pairs = self.label_map
        if self.task == _TAGS:
            pairs = {tag_stem(name): tag_stem(label) for name, label in pairs.items()}
        return LabelMap(pairs, tuple(sorted(set(pairs.values()))))

    @property
    def tags(self) -> tuple[str, ...]:
        """For a tagger: the user's tags as they were given, with prefixes where these have some."""
        return tuple(sorted(set((self.label_map or {}).values()))) if self.task == _TAGS else ()


def write_manifest(
    folder: Path, ref: str, labels: Mapping[str, str], templates: Sequence[str] = (), task: str | None = None
) -> PublishedManifest:
    """`task`: of a head that does several. Raises INVALID as `check_head` does, and for labels that the model does not
    have."""
    head = check_head(folder, ref, task)
    check_labels(head, ref, labels)
    by_words = head.zero_shot or (_is_inference(head) and not set(labels) <= set(head.labels or ()))
    prompts = None
    if by_words:
        prompts = LabelPrompts(tuple(labels), tuple(templates) or usual_templates(head.modality))
    manifest = PublishedManifest(task=head.task, label_map=dict(labels), prompts=prompts)
    (folder / PREDICTOR).write_text(manifest.model_dump_json(indent=1))
    return manifest


def write_template(folder: Path, ref: str, templates: Sequence[str]) -> PublishedManifest:
    """Writes the manifest of a model that writes a text. `templates`: what is put around each input. Raises INVALID as
    `check_template` does."""
    head = check_head(folder, ref)
    check_template(head, ref, templates)
    manifest = PublishedManifest(task=head.task, prompts=LabelPrompts((), tuple(templates)))
    (folder / PREDICTOR).write_text(manifest.model_dump_json(indent=1))
    return manifest


def check_template(head: PublishedHead, ref: str, templates: Sequence[str]) -> None:
    """Raise INVALID for prompts without labels of any but a model that writes a text, or without a place for it."""
    if not head.writes:
        raise SpeciateError(
            Code.INVALID,
            f"{ref!r} takes prompts only with labels: they are what each label is asked with.",
            "Call again with labels={phrase: yours}, or without prompts.",
        )
    if len(templates) != 1 or ("{input}" not in templates[0] and head.adapter != "image-to-text"):
        raise SpeciateError(
            Code.INVALID,
            f"{ref!r} writes a text, and takes one prompt with a place for the input.",
            "Write it with {input}, such as 'summarize: {input}'.",
        )


def check_labels(head: PublishedHead, ref: str, labels: Mapping[str, str]) -> None:
    """Raise INVALID for labels that the head does not have, or a head without labels."""
    if not head.task.endswith(_TASKS_WITH_LABELS):
        raise SpeciateError(
            Code.INVALID,
            f"{ref!r} is a model for {head.task!r}, whose answers are no labels: there is nothing to map.",
            "Call again without labels.",
        )
    if head.zero_shot or head.labels is None or _is_inference(head):
        return
    known = {*head.labels, *(tag_stem(name) for name in head.labels if head.task == _TAGS)}
    for name in labels:
        if name not in known:
            raise SpeciateError(
                Code.INVALID,
                f"{name[:64]!r} is no label of {ref!r}; {closest(name[:64], head.labels)}",
                "Write published labels as the model has them.",
                next=[Call("evaluate_models", {"models": [ref], "dry_run": True}, ", with a dataset, for the table")],
            )


def needs_labels(folder: Path) -> bool:
    """Whether a folder of others answers under labels that nobody has matched with a use case's yet."""
    if (folder / PREDICTOR).is_file():
        return False
    head = find_head(folder)
    return head is not None and head.task.endswith(_TASKS_WITH_LABELS)


def read_manifest(folder: Path) -> PublishedManifest | None:
    """None for a folder of others, and for models whose `predictor.json` is of another kind."""
    try:
        said = foreign_files.read_json(folder / PREDICTOR)
    except (OSError, ValueError):
        return None
    return PublishedManifest.model_validate(said) if isinstance(said, dict) and "published" in said else None


def has_trained_head(folder: Path) -> bool:
    """Whether a published model was trained further here with its own head."""
    found = read_manifest(folder)
    return found is not None and found.trained


def _is_inference(head: PublishedHead) -> bool:
    return any(label.lower().startswith("entail") for label in head.labels or ())
