"""The job kind `export_model`: a model version as a folder for other tools and other people.

Where transformers has a class for the network and its head, `pipeline(...)` answers as the model does; any other model
leaves as it was sealed, with a program that answers without this package. A README.md says how: the model card below
the YAML front matter that the hub reads, and lines of Python. Those lines are run before the folder is moved to its
path, in a process that cannot import this package, and must give the model's own answers.
Never overwrites, and nothing half done stands at the path (jobs/atomic_folder.py).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NotRequired, TypedDict, cast

import numpy as np
from pydantic import BaseModel, ConfigDict

from speciate import hf_hub
from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.evaluation.payload import EvaluationPayload
from speciate.exports import onnx_published, snippets, transformers_folder
from speciate.exports.card_check import CardCheck, CardError, check_card, differing, made_up
from speciate.exports.exportable import in_float32
from speciate.exports.judging import judging_examples
from speciate.exports.onnx_folder import GRAPH, PREPROCESSING, check_graph, write_graph
from speciate.exports.reload_check import load_questions
from speciate.exports.sharing import check_sharing
from speciate.exports.transformers_folder import WrittenFolder
from speciate.faults import fault
from speciate.jobs.atomic_folder import check_free, earlier_result, hidden_folder_beside, move_into_place
from speciate.jobs.job import Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.run import Run
from speciate.lineage.model_report import EvaluationResult, model_report
from speciate.models import registry, sealed
from speciate.models.model_card import ModelCard
from speciate.tasks.predictor import Prediction, load
from speciate.vocabulary import TASKS
from speciate.workspace.filesystem import require_space
from speciate.workspace.workspace import Workspace

ModelFormat = Literal["safetensors", "onnx"]
"""`onnx`: one graph, from inputs to probabilities."""
_METRICS_SHOWN = 20
_POOLED = {
    "mean": 'mask = batch["attention_mask"].unsqueeze(-1)\npooled = (states * mask).sum(1) / mask.sum(1)',
    "first": "pooled = states[:, 0]",
    "max": 'mask = batch["attention_mask"].unsqueeze(-1)\npooled = states.masked_fill(mask == 0, -1e9).amax(1)',
    "patches": "pooled = states[:, 1:].mean(1)  # of the patches, without the class token",
}
_PREPARED = {
    "text": ("AutoTokenizer", 'batch = prepare(["a text"], padding=True, truncation=True, return_tensors="pt")'),
    "protein": ("AutoTokenizer", 'batch = prepare(["MKTAYIAK"], padding=True, truncation=True, return_tensors="pt")'),
    "image": ("AutoImageProcessor", 'batch = prepare([image], return_tensors="pt")  # an image of Pillow, in RGB'),
}
_CHECKED_ON = 16
"""Examples that the card's program is tried on."""


class ExportModelSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    model: str
    format: ModelFormat = "safetensors"
    path: Path
    """Absolute; nothing is there yet."""


class HubResult(BaseModel):
    """A measured value as the hub's `model-index` has it."""

    model_config = ConfigDict(frozen=True)
    task: dict[str, str]
    dataset: dict[str, str]
    metrics: tuple[dict[str, str | float | None], ...]

    @classmethod
    def of(cls, task: str | None, found: EvaluationResult) -> HubResult:
        return cls(
            task={"type": task or "other"}, dataset={"type": found.dataset, "name": found.dataset},
            metrics=({"type": found.metric, "value": found.value},),
        )  # fmt: skip


class ExportModelPayload(BaseModel):
    model_config = ConfigDict(frozen=True)
    format: ModelFormat = "safetensors"
    folder: Path
    path: Path
    card: ModelCard
    body: str
    """The model card as Markdown."""
    evaluations: tuple[HubResult, ...]
    judging: EvaluationPayload | None = None
    """Names examples that the card's program is tried on; None where none are known."""


def plan(spec: ExportModelSpec, workspace: Workspace) -> Plan[ExportModelPayload]:
    """Raises what `resolve` raises, INVALID for a model that others serve, CONFLICT where something is at the path,
    REFUSED where the licence of the model or of what it was made from forbids to give it away."""
    version = registry.resolve(workspace.database, workspace.folders, spec.model)
    folder = version.path  # raises for a model that others serve
    check_free(spec.path)
    check_sharing(workspace, version.card)
    report = model_report(workspace, spec.model)
    form, size = transformers_folder.form_of(folder), _size(folder)
    if spec.format == "onnx":
        form = "onnx"
        check_graph(folder, version.card)
    measured = [each for each in report.evaluations if each.value is not None]
    payload = ExportModelPayload(
        format=spec.format, folder=folder, path=spec.path, card=version.card, body=report.card,
        evaluations=tuple(HubResult.of(version.card.task, each) for each in measured),
        judging=_examples(version.card, workspace),
    )  # fmt: skip
    return Plan(
        payload=payload,
        resources=Resources(cpu=1, memory_mb=2048 + 5 * (size >> 20)),
        bytes=size,
        resolved={"model": version.ref, "format": spec.format, "form": form, "path": str(spec.path)},
    )


def _examples(card: ModelCard, workspace: Workspace) -> EvaluationPayload | None:
    """None where the model's dataset is gone, or was never here."""
    try:
        return judging_examples(card, workspace)[0] if card.task in TASKS else None
    except SpeciateError:
        return None


class ExportedFolder(TypedDict):
    """What was written."""

    model: str
    form: str
    files: list[str]
    notes: list[str]
    checked_on: NotRequired[int]
    """Inputs on which the card's program gave the model's own answers."""
    bytes: int


class ExportModelResult(TypedDict):
    path: str
    report: ExportedFolder


def run(run: Run) -> ExportModelResult:
    payload = run.read_payload(ExportModelPayload)
    path, folder, card = payload.path, payload.folder, payload.card
    if (finished := earlier_result(run, path)) is not None:
        return cast(ExportModelResult, finished)
    check_free(path)
    if (folder / sealed.MANIFEST).is_file() and sealed.check(folder) != card.id:
        raise SpeciateError(
            Code.REFUSED,
            f"{folder} is not {card.ref}: its files have another id.",
            f"describe_model(model={card.ref!r})",
        )
    require_space(next(each for each in path.parents if each.exists()), _size(folder))
    with hidden_folder_beside(path) as target:
        written, checked = _write_checked(run, payload, target)
        files = sorted(f"{each.name}/" if each.is_dir() else each.name for each in target.iterdir())
        report: ExportedFolder = {
            "model": card.ref, "form": written.form, "files": files, "notes": list(written.notes),
            "bytes": sum(each.stat().st_size for each in target.rglob("*") if each.is_file()),
        }  # fmt: skip
        if checked is not None:
            report["checked_on"] = checked.n
        result: ExportModelResult = {"path": str(path), "report": report}
        fault("export_model_before_rename")
        move_into_place(run, target, path, result)
    return result


def _write_checked(run: Run, payload: ExportModelPayload, target: Path) -> tuple[WrittenFolder, CardCheck | None]:
    """Fill `target`. A head of transformers that does not answer as the model does is replaced by our own program."""
    card = payload.card
    written = _write(payload, target, fit=True)
    asked = _questions(run, payload) if written.program is not None and written.form != "published" else []
    if not asked:
        return written, None
    predictor = load(payload.folder)
    answers, media = predictor.predict(asked), [each.media for each in asked]
    if (exact := in_float32(predictor)) is not None:
        served, answers = answers, exact.predict(asked)
        written = _write_readme(payload, target, _with_note(written, _of_precision(served, answers)))
    as_images = written.form in ("transformers", "onnx")
    try:
        return written, check_card(target, media, answers, images=as_images)
    except CardError as error:
        why = str(error)
    if written.form == "transformers":
        for each in target.iterdir():
            shutil.rmtree(each) if each.is_dir() else each.unlink()
        written = _write(payload, target, fit=False)
        try:
            return written, check_card(target, media, answers, images=False)
        except CardError as error:
            why = str(error)
    raise SpeciateError(
        Code.REFUSED,
        f"The export of {card.ref} is not written: elsewhere it would not answer as it does here ({why}).",
        f"describe_model(model={card.ref!r})",
    )


def _write(payload: ExportModelPayload, target: Path, *, fit: bool) -> WrittenFolder:
    card = payload.card
    if payload.format == "onnx":
        written = _write_onnx(payload, target)
    else:
        written = transformers_folder.write(payload.folder, target, card, fit=fit)
    if written.form == "sealed":
        sealed.write_facts(card, target)
    return _write_readme(payload, target, written)


def _write_readme(payload: ExportModelPayload, target: Path, written: WrittenFolder) -> WrittenFolder:
    text = _readme(payload.card, payload.body, written, payload.evaluations)
    (target / sealed.README).write_text(text, encoding="utf-8")
    return written


def _with_note(written: WrittenFolder, note: str) -> WrittenFolder:
    return written._replace(notes=(*written.notes, note))


def _of_precision(served: Sequence[Prediction], answers: Sequence[Prediction]) -> str:
    largest, count = differing(answers, served)
    return (
        "It computes in float32, with the same numbers on every processor. Where it was trained it serves in bfloat16: "
        f"of {len(answers)} inputs that both were asked, probabilities or numbers differed by up to {largest:.1g}, "
        f"and {count} answers."
    )


def _write_onnx(payload: ExportModelPayload, target: Path) -> WrittenFolder:
    if onnx_published.is_published(payload.folder):
        names = onnx_published.write_published_graph(payload.folder, target, payload.card.ref)
        note = f"`{GRAPH}` computes what the network does of the tensors that transformers' preprocessing makes."
        return WrittenFolder("onnx", names, None, None, (), None, (note,))
    program, requires = write_graph(payload.folder, target, payload.card)
    files = tuple(sorted(each.name for each in target.iterdir()))
    note = f"`{GRAPH}` is the whole model, from named inputs to what it answers; `{PREPROCESSING}` describes both."
    return WrittenFolder("onnx", files, None, program, requires, None, (note,))


def _questions(run: Run, payload: ExportModelPayload) -> list[Example]:
    """A few examples of the model's dataset as it sees them; made-up ones where that is not here."""
    if payload.judging is None:
        return made_up(payload.card.modality)
    found = load_questions(run.folders, payload.judging)
    return [found[place] for place in np.linspace(0, len(found) - 1, min(_CHECKED_ON, len(found))).astype(int)]


KIND = Kind(
    name="export_model", spec=ExportModelSpec, plan=plan, run="speciate.exports.export_model:run", preload="torch"
)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def _readme(card: ModelCard, body: str, written: WrittenFolder, evaluations: Sequence[HubResult]) -> str:
    parts = [_front_matter(card, written, evaluations), body.rstrip(), "", "## Loading it", ""]
    parts += [*written.notes, ""]
    if written.program is not None:
        parts += [f"`pip install {' '.join(written.requires)}`", "", "```python", written.program, "```", ""]
    elif written.form == "transformers" and card.modality in _PREPARED:
        parts += ["```python", _program(card, written), "```", ""]
    elif written.form == "sealed" and card.modality == "multimodal":
        parts += [
            '`register_model(name="NAME", source="path:FOLDER")` takes it back, and `predict(model="NAME")` asks it.',
            "",
        ]
    elif written.form == "sealed":
        parts += ["`pip install speciate`", "", "```python", snippets.of_speciate(card), "```", ""]
    return "\n".join(parts)


def _front_matter(card: ModelCard, written: WrittenFolder, evaluations: Sequence[HubResult]) -> str:
    """Scalars are JSON, which YAML contains: no name can be read as anything else."""
    lines = ["---"]
    if written.form == "onnx":
        lines.append("library_name: onnx")
    elif written.form != "sealed":  # the hub would show a line of Python that does not answer
        lines.append("library_name: transformers")
    lines += _license(card.license)
    if written.pipeline is not None:
        lines.append(f"pipeline_tag: {_quoted(written.pipeline)}")
    elif written.form == "published" and card.task in TASKS:
        lines.append(f"pipeline_tag: {_quoted(card.task)}")
    if (base := _base(card)) is not None:
        lines.append(f"base_model: {_quoted(base)}")
    lines += ["tags:", "- speciate", *([f"- {_quoted(card.modality)}"] if card.modality else [])]
    if evaluations:
        index = [{"name": card.ref, "results": [each.model_dump() for each in evaluations[:_METRICS_SHOWN]]}]
        lines.append(f"model-index: {json.dumps(index, ensure_ascii=False)}")
    return "\n".join([*lines, "---", ""])


def _license(license: str | None) -> list[str]:  # noqa: A002 - as cards call it
    """The hub writes SPDX ids in small letters; any other licence is `other` with a name."""
    if license is None:
        return []
    if license.startswith("LicenseRef-") or " " in license:
        return ["license: other", f"license_name: {_quoted(license)}"]
    return [f"license: {_quoted(license.lower())}"]


def _base(card: ModelCard) -> str | None:
    """The hub's repository that it was made from; None where it has none there."""
    name = str(card.recipe.get("repository") or (card.base_model or "").removeprefix("hf:").partition("@")[0])
    return name if hf_hub.is_repository(name) else None


def _program(card: ModelCard, written: WrittenFolder) -> str:
    kind, prepared = _PREPARED[str(card.modality)]
    lines = [
        "import torch",
        f"from transformers import AutoModel, {kind}",
        "",
        'folder = "."  # where this file lies',
        f"prepare = {kind}.from_pretrained(folder)",
        "model = AutoModel.from_pretrained(folder).eval()",
        prepared,
        "with torch.no_grad():",
        "    states = model(**batch).last_hidden_state",
    ]
    if written.pooling in _POOLED:
        lines += _POOLED[written.pooling].splitlines()
    return "\n".join(lines)


def _quoted(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
