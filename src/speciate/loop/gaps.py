"""Gap analysis of a use case put together, for callers and as a page for people.

By the stored evaluation of what serves, and by the samples that monitoring keeps of the log. gap_service.py reads the
rows in a sandboxed process, gap_analysis.py compares.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from speciate import use_cases
from speciate.datasets.similarity import extractors
from speciate.datasets.versions import Manifest
from speciate.errors import Call, Code, SpeciateError
from speciate.evaluation.pages.page import POLICY, environment, folder_of
from speciate.evaluation.reports.describe_evaluation import Inspection, manifest_of
from speciate.evaluation.reports.report import Report, find_report
from speciate.jobs.folder import write_whole
from speciate.jobs.pool import CALL_SECONDS, Pool
from speciate.loop.gap_analysis import EXPONENT, Gap
from speciate.loop.gap_service import GapRequest
from speciate.predictions.log_files import log_folder
from speciate.promotion import aliases
from speciate.workspace.workspace import Workspace

_SERVICE = "speciate.loop.gap_service:find_gaps"
_SECONDS = 30.0
_EVALUATION = """
SELECT id FROM evaluations WHERE contains(',' || models || ',', ',' || ? || ',') AND (? IS NULL OR use_case = ?)
ORDER BY created DESC LIMIT 1
"""
_COUNT, _ANSWERS = 12, 12


class Gaps(BaseModel):
    """What gap analysis found, and what callers are shown."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    use_case: str | None = None
    evaluation: str
    dataset: str
    model: str
    metric: str
    n: int
    failed: float
    groups: int
    sampled: int
    """Answers of production that were looked through."""
    notes: tuple[str, ...]
    untrusted: tuple[Gap, ...]
    """The groups, most to gain first; what may be chance after these."""

    @property
    def sure(self) -> tuple[Gap, ...]:
        """The groups whose gap is no chance finding."""
        return tuple(each for each in self.untrusted if each.surely)


def gaps_of_use_case(workspace: Workspace, pool: Pool, use_case: str, *, count: int = _COUNT) -> Gaps:
    """Gaps of the model that serves a use case, by its newest evaluation. Raises NOT_FOUND where nothing serves or it
    was never evaluated."""
    return ask(pool, request_of_use_case(workspace, use_case, count=count))


def request_of_use_case(workspace: Workspace, use_case: str, *, count: int = _COUNT, answers: int = _ANSWERS) -> Wanted:
    """What `ask` needs and only the catalog knows. Raises NOT_FOUND as `gaps_of_use_case` does."""
    model = use_cases.serving(workspace.database, use_cases.get(workspace.database, use_case).name)
    if model is None:
        raise SpeciateError(
            Code.NOT_FOUND, f"Nothing serves {use_case!r} yet, so there is nothing that fails.",
            next=[Call("specialize", {"use_case": use_case}, "for a first model")],
        )  # fmt: skip
    row = workspace.database.read_one(_EVALUATION, [model, use_case, use_case])
    row = row or workspace.database.read_one(_EVALUATION, [model, None, None])
    if row is None:
        raise SpeciateError(
            Code.NOT_FOUND, f"{model}, which serves {use_case!r}, was never evaluated here.",
            next=[Call("evaluate_models", {"models": [model], "use_case": use_case}, "then ask again")],
        )  # fmt: skip
    report = find_report(workspace.database, str(row[0]))
    return _wanted(workspace, report, str(row[0]), model, manifest_of(workspace, report), count, answers)


def find_gaps(
    workspace: Workspace, pool: Pool, evaluation: str, *, model: str | None = None, count: int = _COUNT
) -> Gaps:
    """Gaps of one model in one evaluation. `model`: default its candidate. Raises NOT_FOUND for an evaluation or
    model."""
    inspected = Inspection(workspace, pool, evaluation)
    report = inspected.report
    named = report.row(model or inspected.candidate).model
    return ask(pool, _wanted(workspace, report, evaluation, named, inspected.manifest, count, _ANSWERS))


class Wanted(BaseModel):
    """A gap analysis that is to be made, in the daemon or in a job."""

    model_config = ConfigDict(frozen=True)
    request: GapRequest
    use_case: str | None
    dataset: str


def _wanted(
    workspace: Workspace, report: Report, evaluation: str, model: str, manifest: Manifest | None, count: int,
    answers: int,
) -> Wanted:  # fmt: skip
    log, generation = _log(workspace, report.use_case, model)
    request = GapRequest(
        root=workspace.folders.root, evaluation=evaluation, model=model, metric=report.metric, manifest=manifest,
        watched=log, generation=generation,
        descriptor=extractors.Descriptor(manifest.modality).id if manifest is not None else "", count=count,
        answers=answers,
    )  # fmt: skip
    return Wanted(request=request, use_case=report.use_case, dataset=report.dataset)


def ask(pool: Pool, wanted: Wanted) -> Gaps:
    """Raises UNAVAILABLE where it takes longer than 30 seconds."""
    request = wanted.request
    readable = frozenset({request.watched}) if request.watched else frozenset[Path]()
    answer = pool.ask(
        _SERVICE, request.model_dump(mode="json"), _SECONDS, readable=readable, patience=CALL_SECONDS
    )  # fmt: skip
    return Gaps(
        use_case=wanted.use_case, evaluation=request.evaluation, dataset=wanted.dataset, model=request.model,
        metric=request.metric, n=answer["n"], failed=answer["failed"], groups=answer["groups"],
        sampled=answer["sampled"], untrusted=tuple(Gap.model_validate(each) for each in answer["gaps"]),
        notes=tuple(answer["notes"]),
    )  # fmt: skip


def _log(workspace: Workspace, use_case: str | None, model: str) -> tuple[Path | None, int]:
    """Where the samples of the log lie, and of which generation; None where the model does not serve."""
    alias = aliases.read(workspace.database, use_case) if use_case else None
    if alias is None or use_case is None or alias.model != model:
        return None, 0
    folder = log_folder(workspace.folders, use_case).watched
    return (folder if (folder / "samples").is_dir() else None), alias.generation


def write_gap_page(workspace: Workspace, pool: Pool, found: Gaps) -> Path:
    """As one HTML file below the workspace's exports, named by its content, with a contact sheet of each group."""
    inspected = Inspection(workspace, pool, found.evaluation)
    thumbnails: dict[str, Sequence[str]] = {}
    if inspected.has_thumbnails:
        drawn = inspected.thumbnails([name for gap in found.untrusted for name in gap.examples])
        urls = {name: f"data:image/png;base64,{base64.b64encode(data).decode()}" for name, data in drawn.items()}
        thumbnails = {gap.key: [urls[name] for name in gap.examples if name in urls] for gap in found.untrusted}
    text = render(found, thumbnails)
    folder = folder_of(workspace.folders, found.evaluation)
    path = folder / f"gaps-{hashlib.sha256(text.encode()).hexdigest()[:12]}.html"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    return path


def render(found: Gaps, thumbnails: Mapping[str, Sequence[str]]) -> str:
    template: Any = environment().get_template("gaps.html")
    title = f"Gaps of {found.use_case or found.model}"
    text: str = template.render(found=found, thumbnails=thumbnails, title=title, policy=POLICY, exponent=EXPONENT)
    return text
