"""The job kind `export_model`: a model version as a folder for other tools and other people.

Where transformers has a class for the network, transformers loads the folder; any other model leaves as it was sealed.
A README.md says how to load it: the model card below the YAML front matter that the hub reads, and lines of Python.
Never overwrites, and nothing half done stands at the path (jobs/atomic_folder.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict, cast

from pydantic import BaseModel, ConfigDict

from speciate import hf_hub
from speciate.errors import Code, SpeciateError
from speciate.exports import transformers_folder
from speciate.exports.transformers_folder import ABOUT_HEAD, HEAD, WrittenFolder
from speciate.faults import fault
from speciate.jobs.atomic_folder import check_free, earlier_result, hidden_folder_beside, move_into_place
from speciate.jobs.job import Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.run import Run
from speciate.lineage.model_report import EvaluationResult, model_report
from speciate.models import registry, sealed
from speciate.models.model_card import ModelCard
from speciate.vocabulary import TASKS
from speciate.workspace.filesystem import require_space
from speciate.workspace.workspace import Workspace

ModelFormat = Literal["safetensors"]
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
_LINEAR = ("classification", "multi-label", "regression")
"""Families whose head is one layer over the pooled states."""


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
    folder: Path
    path: Path
    card: ModelCard
    body: str
    """The model card as Markdown."""
    evaluations: tuple[HubResult, ...]


def plan(spec: ExportModelSpec, workspace: Workspace) -> Plan[ExportModelPayload]:
    """Raises what `resolve` raises, INVALID for a model that others serve, CONFLICT where something is at the path."""
    version = registry.resolve(workspace.database, workspace.folders, spec.model)
    folder = version.path  # raises for a model that others serve
    check_free(spec.path)
    report = model_report(workspace, spec.model)
    form, size = transformers_folder.form_of(folder), _size(folder)
    measured = [each for each in report.evaluations if each.value is not None]
    payload = ExportModelPayload(
        folder=folder, path=spec.path, card=version.card, body=report.card,
        evaluations=tuple(HubResult.of(version.card.task, each) for each in measured),
    )  # fmt: skip
    return Plan(
        payload=payload,
        resources=Resources(cpu=1, memory_mb=1024 + 3 * (size >> 20)),
        bytes=size,
        resolved={"model": version.ref, "format": spec.format, "form": form, "path": str(spec.path)},
    )


class ExportedFolder(TypedDict):
    """What was written."""

    model: str
    form: str
    files: list[str]
    notes: list[str]
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
        written = transformers_folder.write(folder, target, card.labels)
        if written.form == "sealed":
            sealed.write_facts(card, target)
        readme = _readme(card, payload.body, written, payload.evaluations)
        (target / sealed.README).write_text(readme, encoding="utf-8")
        files = sorted(each.name for each in target.iterdir())
        report: ExportedFolder = {
            "model": card.ref, "form": written.form, "files": files, "notes": list(written.notes),
            "bytes": sum((target / name).stat().st_size for name in files),
        }  # fmt: skip
        result: ExportModelResult = {"path": str(path), "report": report}
        fault("export_model_before_rename")
        move_into_place(run, target, path, result)
    return result


KIND = Kind(
    name="export_model", spec=ExportModelSpec, plan=plan, run="speciate.exports.export_model:run", preload="torch"
)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def _readme(card: ModelCard, body: str, written: WrittenFolder, evaluations: Sequence[HubResult]) -> str:
    parts = [_front_matter(card, written, evaluations), body.rstrip(), "", "## Loading it", ""]
    parts += [*written.notes, ""]
    if written.form == "transformers" and card.modality in _PREPARED:
        parts += ["```python", _program(card, written), "```", ""]
    return "\n".join(parts)


def _front_matter(card: ModelCard, written: WrittenFolder, evaluations: Sequence[HubResult]) -> str:
    """Scalars are JSON, which YAML contains: no name can be read as anything else."""
    lines = ["---", f"library_name: {'speciate' if written.form == 'sealed' else 'transformers'}"]
    lines += _license(card.license)
    if card.task in TASKS:
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
        if HEAD in written.files:
            lines += _head_program()
    return "\n".join(lines)


def _head_program() -> list[str]:
    return [
        "",
        "import json",
        "from pathlib import Path",
        "from safetensors.torch import load_file",
        "",
        f'about = json.loads((Path(folder) / "{ABOUT_HEAD}").read_text())["readout"]',
        f'head = load_file(Path(folder) / "{HEAD}")',
        f'if about["family"] in {_LINEAR!r}:',
        '    logits = pooled @ head["weight"].T + head["bias"]',
        'if about["family"] == "classification":',
        '    probabilities = (logits.double() / about["temperature"]).softmax(-1)',
        '    answers = [about["labels"][place] for place in probabilities.argmax(-1)]',
    ]


def _quoted(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
