"""Published models as models under evaluation: found by `hf:`, `path:` or `pkg:`, and matched with the user's labels.

Raw answers are kept under the published labels, and the table is applied when they are scored: so another table asks no
model again. A plan proposes the table where it knows the labels; a run makes it from the references.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from speciate import foreign_files
from speciate.datasets.columns import class_name
from speciate.errors import Call, Code, SpeciateError, closest
from speciate.models import licenses, model_folder, packaged, training_statement
from speciate.models.language.causal_lm import is_causal_lm
from speciate.models.language.vision_language import is_vision_language
from speciate.models.published import label_map
from speciate.models.published.adapters.text import entailment
from speciate.models.published.architectures import PublishedHead, check_head, find_head
from speciate.models.published.asking import usual_templates
from speciate.models.published.checked_copy import folder_id
from speciate.models.published.label_map import LabelMap, Proposal
from speciate.models.published.published_model import LabelPrompts
from speciate.models.sealed import PREDICTOR
from speciate.models.training_statement import TrainingStatement
from speciate.vocabulary import Family, find_task

PATH, PACKAGE = "path:", "pkg:"
LABELLED: tuple[Family, ...] = (
    "classification", "ordinal", "anomaly", "multi-label", "tokens", "detection", "segmentation", "panoptic",
)  # fmt: skip
"""Families whose published answers go through a table of labels."""
_SHOWN = 40
_LONGEST_README = 1_000_000  # bytes
_STATED = re.compile(r"^(license(?:_name)?):\s*['\"]?([\w.\-]+)", re.MULTILINE)


class PublishedLabels(BaseModel):
    """How a published model under evaluation is asked, and what its labels mean."""

    model_config = ConfigDict(frozen=True)
    ref: str
    """As the caller named it: in calls that carry a table."""
    published: tuple[str, ...] | None
    """Labels of its head; None where only the loaded model tells."""
    zero_shot: bool = False
    """Whether it is asked about the user's labels, or the phrases of the table."""
    writes: bool = False
    """Whether it writes a text, so that its one template is put around the input."""
    needs_input: bool = True
    """Whether that template must have a place for the input: what Donut begins with need not."""
    steps: int | None = None
    """How many steps a forecaster gives; a longer horizon is beyond it."""
    templates: tuple[str, ...] = ()
    table: dict[str, str] | None = None
    """Given by the caller: published label or phrase -> the user's label."""

    def prompts(self, wanted: Sequence[str]) -> LabelPrompts | None:
        if self.zero_shot:
            return LabelPrompts(tuple(self.table or wanted), self.templates)
        return LabelPrompts((), self.templates) if self.templates else None


class PublishedFolder(NamedTuple):
    """A folder that a caller named as `path:/dir`, or a package's as `pkg:NAME`."""

    head: PublishedHead
    identity: str
    name: str
    parameters: int | None
    """None of an ONNX network, which the run alone reads."""
    bytes: int
    license: str | None
    statement: TrainingStatement = TrainingStatement()
    weights_license: str | None = None


def read_folder(ref: str, task: str | None = None) -> PublishedFolder:
    """Raises NOT_FOUND, INVALID or REFUSED for a folder that cannot be asked as it is, with what to do, and
    MISSING_EXTRA for a package that is not installed."""
    folder = folder_of(ref)
    if not folder.is_dir():
        raise SpeciateError(Code.NOT_FOUND, f"There is no folder {str(folder)!r}.", "Name an existing model folder.")
    identity = folder_id(folder)
    head = check_head(folder, ref, task)
    files = model_folder.weight_files(folder)
    return PublishedFolder(
        head,
        identity,
        f"{ref if ref.startswith(PACKAGE) else PATH + folder.name}@{identity[:8]}",
        sum(model_folder.count_parameters(file) for file in files) or None,
        sum(file.stat().st_size for file in files),
        _license(folder, ref)
        or (packaged.find(ref.removeprefix(PACKAGE)).license if ref.startswith(PACKAGE) else None),
        TrainingStatement(card=training_statement.of_readme(folder / "README.md")),
        licenses.settle(None, licenses.texts_of_weights(folder), ref),
    )


def folder_of(ref: str) -> Path:
    if ref.startswith(PACKAGE):
        return packaged.locate(ref.removeprefix(PACKAGE))
    return Path(ref.removeprefix(PATH))


def head_of(folder: Path, task: str | None = None) -> PublishedHead | None:
    """The head of a registered folder that is asked as published; None for models of ours and for language models,
    which have predictors of their own."""
    if (folder / PREDICTOR).is_file() or model_folder.has_backbone(folder):
        return None
    if is_causal_lm(folder) or is_vision_language(folder):
        return None
    return find_head(folder, task)


def labels_of(head: PublishedHead, ref: str) -> PublishedLabels:
    return PublishedLabels(
        ref=ref, published=head.labels, zero_shot=head.zero_shot, writes=head.writes,
        needs_input=head.adapter != "image-to-text", steps=head.steps,
    )  # fmt: skip


def settle_labels(
    found: PublishedLabels,
    task: str,
    modality: str,
    wanted: Collection[str],
    table: Mapping[str, str] | None,
    templates: Sequence[str],
) -> PublishedLabels:
    """With the caller's table and templates, checked. `wanted`: the labels of the dataset; empty where only the run
    knows them. Raises INVALID, with a call that carries a table, where nothing tells what the published labels mean."""
    family = find_task(task).family
    if family not in LABELLED:
        _refuse_table(found, table, task)
        _check_templates(found.model_copy(update={"templates": tuple(templates)}))
        return found.model_copy(update={"templates": tuple(templates)})
    table = None if table is None else _in_full(found, table)
    zero_shot = found.zero_shot or _asks_by_entailment(found, wanted, table, templates)
    usual = usual_templates(modality) if zero_shot else ()
    settled = found.model_copy(
        update={
            "zero_shot": zero_shot, "templates": tuple(templates) or usual,
            "table": None if table is None else dict(table),
        }
    )  # fmt: skip
    _check_templates(settled)
    if table is not None:
        _check_table(settled, table, wanted, family)
    elif not zero_shot:
        _check_named(settled, wanted, family)
    return settled


def make_table(found: PublishedLabels, published: Sequence[str], wanted: Collection[str], family: Family) -> LabelMap:
    """What the published labels mean. `published`: of the loaded head, or the phrases that were asked."""
    stems = family == "tokens"
    given = found.table
    if given is not None and stems:
        given = {label_map.tag_stem(name): label_map.tag_stem(label) for name, label in given.items()}
    names = _stems(published) if stems else tuple(dict.fromkeys(published))
    targets = _stems(sorted(wanted)) if stems else tuple(sorted(wanted))
    return label_map.decide(names, targets, given)


def show_labels(found: PublishedLabels, wanted: Mapping[str, int], family: Family) -> dict[str, Any]:
    """For `dry_run`: the table as it will be, what is proposed beside, what is uncovered, and the highest possible
    share of right answers. `wanted`: label -> how many examples have it."""
    if family not in LABELLED:
        return {}
    if not wanted:
        return {"labels": "the run compares them with the references"}
    if found.zero_shot:
        prompts = found.prompts(sorted(wanted))
        asked = {"asked": [*(prompts.templates if prompts else ())]}
        published: Sequence[str] = prompts.labels if prompts else ()
    else:
        asked = {}
        if found.published is None:
            return {"labels": "the library of its weights knows them: the run tells"}
        published = found.published
    table = make_table(found, published, wanted, family)
    references = [label for label, count in wanted.items() for _ in range(count)]
    ceiling = table.ceiling([label_map.tag_stem(each) for each in references] if family == "tokens" else references)
    shown: dict[str, Any] = {
        "map": dict(list(_for_show(table.pairs).items())[:_SHOWN]),
        "mapped": len(table.pairs),
        "uncovered": list(table.uncovered),
        "ceiling": None if ceiling is None else round(ceiling, 4),
        **asked,
    }
    if found.table is None and not found.zero_shot and table.uncovered:
        shown["proposals"] = _unsure(label_map.propose(published, sorted(wanted)), table.uncovered)
    return shown


def _asks_by_entailment(
    found: PublishedLabels, wanted: Collection[str], table: Mapping[str, str] | None, templates: Sequence[str]
) -> bool:
    """Whether a classifier of inference is asked about the user's labels: if it is told to, or if none of its own
    labels means one of them."""
    if found.published is None or entailment(found.published) is None:
        return False
    if templates:
        return True
    if table is not None:
        return not set(table) <= set(found.published)
    return bool(wanted) and not label_map.decide(found.published, sorted(wanted)).pairs


def _check_named(found: PublishedLabels, wanted: Collection[str], family: Family) -> None:
    """Raise INVALID if labels without meaning, or of other things, are all that there is."""
    if not found.published:
        return
    names = _stems(found.published) if family == "tokens" else found.published
    told = [name for name in names if not label_map.is_unnamed(name) or name in wanted]
    if not told:
        raise SpeciateError(
            Code.INVALID,
            f"The labels of {found.ref!r} say nothing: {_listed(names)}. Its maker's card tells what they mean.",
            f"Read the card, and call again with the table; your labels are {_listed(sorted(wanted)) or 'yours'}.",
            next=[_call_with_table(found.ref, dict.fromkeys(names, "YOUR LABEL"))],
        )
    if not wanted or make_table(found, found.published, wanted, family).pairs:
        return
    raise nothing_mapped(found, found.published, wanted)


def nothing_mapped(found: PublishedLabels, published: Sequence[str], wanted: Collection[str]) -> SpeciateError:
    """No published label means a wanted one, as far as spelling and synonyms tell. The call carries what is alike."""
    proposals = label_map.propose(tuple(dict.fromkeys(published)), sorted(wanted))
    alike = {name: each.label for name, each in proposals.items() if each.label is not None}
    table = alike or dict.fromkeys(list(proposals)[:_SHOWN], "YOUR LABEL")
    return SpeciateError(
        Code.INVALID,
        f"No label of {found.ref!r} is known to mean one of yours: it has {_listed(proposals)}; yours are "
        f"{_listed(sorted(wanted))}.",
        "Call again with a table of those that do. Labels that are left out lie elsewhere.",
        next=[_call_with_table(found.ref, {name: str(label) for name, label in list(table.items())[:_SHOWN]})],
    )


def _check_table(found: PublishedLabels, table: Mapping[str, str], wanted: Collection[str], family: Family) -> None:
    if not found.zero_shot and found.published is not None:
        known = {*found.published, *(_stems(found.published) if family == "tokens" else ())}
        for name in table:
            if name not in known:
                raise SpeciateError(
                    Code.INVALID,
                    f"{name[:64]!r} is no label of {found.ref!r}; {closest(name[:64], known)}",
                    "Write published labels as the model has them; dry_run=true lists the table.",
                )
    targets = {*wanted, *(_stems(sorted(wanted)) if family == "tokens" else ())}
    for label in table.values() if wanted else ():
        if label not in targets:
            raise SpeciateError(
                Code.INVALID,
                f"{label[:64]!r} in the table of {found.ref!r} is no label of the dataset; "
                f"{closest(label[:64], targets)}",
                "A table maps published labels to labels of the dataset; leave out what means none of them.",
            )


def _in_full(found: PublishedLabels, table: Mapping[str, str]) -> dict[str, str]:
    """The table with labels that were shown shortened as the model has them."""
    full = {class_name(name): name for name in found.published or ()}
    return {full.get(name, name): label for name, label in table.items()}


def _check_templates(found: PublishedLabels) -> None:
    if found.templates and not (found.zero_shot or found.writes):
        raise SpeciateError(
            Code.INVALID,
            f"{found.ref!r} takes no prompts: it answers with labels of its own.",
            "Call again without prompts for it; label_maps says what its labels mean.",
        )
    for template in found.templates:
        if found.zero_shot and "{label}" not in template and "{}" not in template:
            raise SpeciateError(
                Code.INVALID,
                f"The prompt {template[:80]!r} has no place for a label.",
                "Write it with {label}, such as 'a photo of a {label}'.",
            )
        if found.writes and found.needs_input and "{input}" not in template:
            raise SpeciateError(
                Code.INVALID,
                f"The prompt {template[:80]!r} has no place for the text.",
                "Write it with {input}, such as 'summarize: {input}'.",
            )


def _refuse_table(found: PublishedLabels, table: Mapping[str, str] | None, task: str) -> None:
    if table:
        raise SpeciateError(
            Code.INVALID,
            f"{found.ref!r} is a model for {task!r}, whose answers are no labels: there is nothing to map.",
            "Call again without label_maps for it.",
        )


def check_named_models(given: Mapping[str, object], argument: str, refs: Collection[str]) -> None:
    """Raise INVALID for a table or prompts of a model that does not take part."""
    for ref in given:
        if ref not in refs:
            raise SpeciateError(
                Code.INVALID,
                f"{argument} names {ref[:100]!r}, which is no published model of this evaluation; "
                f"{closest(ref[:100], refs)}",
                "Name each as in models.",
            )


def _call_with_table(ref: str, table: Mapping[str, str]) -> Call:
    return Call("evaluate_models", {"models": [ref], "label_maps": {ref: _for_show(table)}}, ", with the dataset")


def _unsure(proposals: Mapping[str, Proposal], uncovered: Collection[str]) -> dict[str, str]:
    """Published label -> the wanted one that it resembles. A person or agent decides."""
    alike = {
        name: str(each.label) for name, each in proposals.items() if each.how == "likeness" and each.label in uncovered
    }
    return dict(list(_for_show(alike).items())[:_SHOWN])


def _stems(tags: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(label_map.tag_stem(tag) for tag in tags))


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(class_name(name) for name in list(names)[:8])
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _for_show(pairs: Mapping[str, str]) -> dict[str, str]:
    """Labels of others as they may be shown."""
    return {class_name(name): class_name(label) for name, label in pairs.items()}


def _license(folder: Path, ref: str) -> str | None:
    """What its README states, settled with the text beside the weights."""
    stated = licenses.of_card(dict(_STATED.findall(_text(folder / "README.md"))))
    return licenses.settle(stated, licenses.texts_in(folder), ref)


def _text(path: Path) -> str:
    try:
        return foreign_files.read(path, _LONGEST_README).decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""
