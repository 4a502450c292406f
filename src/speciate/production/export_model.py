"""The job kind `export_model`: a model version as a folder for other tools and other people.

Where transformers has a class for it, its libraries load what comes out; what they cannot load leaves as it was sealed.
Never overwrites, and nothing half done stands at the path (jobs/new_folder.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from speciate.errors import Code, SpeciateError
from speciate.faults import fault
from speciate.jobs.job import Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.new_folder import check_free, finished_before, hidden_beside, move
from speciate.jobs.run import Run
from speciate.models import given, registry, sealed
from speciate.models.backbones import shared
from speciate.models.card import Card
from speciate.production import hub_readme
from speciate.production.dossier import Judged, dossier
from speciate.workspace.filesystem import require_space
from speciate.workspace.workspace import Workspace

README = "README.md"
ModelFormat = Literal["safetensors"]


class ExportModelSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    model: str
    format: ModelFormat = "safetensors"
    path: Path
    """Absolute; nothing is there yet."""


def plan(spec: ExportModelSpec, workspace: Workspace) -> Plan:
    """Raises what resolving raises, INVALID for a model that others serve, CONFLICT where something is at the path."""
    version = registry.resolve(workspace.database, workspace.folders, spec.model)
    folder = version.path  # refuses what others serve
    check_free(spec.path)
    told = dossier(workspace, spec.model)
    form, size = shared.form_of(folder), sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    payload = {
        "folder": str(folder),
        "path": str(spec.path),
        "card": version.card.model_dump(),
        "body": told.card,
        "evaluations": [_result(version.card, each) for each in told.evaluations if each.value is not None],
    }
    return Plan(
        payload=payload,
        resources=Resources(cpu=1, memory_mb=1024 + 3 * (size >> 20)),
        bytes=size,
        resolved={"model": version.ref, "format": spec.format, "form": form, "path": str(spec.path)},
    )


def _result(card: Card, found: Judged) -> dict[str, Any]:
    """A result as the hub's `model-index` has it."""
    return {
        "task": {"type": card.task or "other"},
        "dataset": {"type": found.dataset, "name": found.dataset},
        "metrics": [{"type": found.metric, "value": found.value}],
    }


def run(run: Run) -> dict[str, Any]:
    path, folder = Path(run.payload["path"]), Path(run.payload["folder"])
    if (finished := finished_before(run, path)) is not None:
        return finished
    check_free(path)
    card = Card.model_validate(run.payload["card"])
    if (folder / sealed.MANIFEST).is_file() and sealed.check(folder) != card.id:
        raise SpeciateError(
            Code.REFUSED,
            f"{folder} is not {card.ref}: its files have another id.",
            f"describe_model(model={card.ref!r})",
        )
    size = sum(each.stat().st_size for each in folder.iterdir() if each.is_file())
    require_space(next(each for each in path.parents if each.exists()), size)
    with hidden_beside(path) as target:
        written = shared.write(folder, target, card.labels)
        if written.form == "sealed":
            given.leave(card, target)
        readme = hub_readme.text(card, run.payload["body"], written, run.payload["evaluations"])
        (target / README).write_text(readme, encoding="utf-8")
        files = sorted(each.name for each in target.iterdir())
        report = {
            "model": card.ref, "form": written.form, "files": files, "notes": list(written.notes),
            "bytes": sum((target / name).stat().st_size for name in files),
        }  # fmt: skip
        result = {"path": str(path), "report": report}
        fault("export_model_before_rename")
        move(run, target, path, result)
    return result


KIND = Kind(
    name="export_model", spec=ExportModelSpec, plan=plan, run="speciate.production.export_model:run", preload="torch"
)
