"""The job kind `fetch`: a model that others published becomes a version of the registry.

It comes from the hub at one commit, or from a folder. Only loadable files are taken (trust.py). Files are fetched into
the cache, where the next attempt finds them, and sealed as one version, which says where it comes from.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from speciate import hf_hub, secrets
from speciate.environment import hub_endpoint
from speciate.errors import Call, Code, SpeciateError
from speciate.hf_hub import RepositoryDetails
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Job
from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.run import Run, Stopped, Transient
from speciate.models import licenses, model_folder, registry, sealed, training_statement, trust
from speciate.models.backbones.architectures import modality_of
from speciate.models.diffusion import pipeline_folder
from speciate.models.model_card import ModelCard
from speciate.models.published import manifest
from speciate.models.published.architectures import check_head, find_head
from speciate.models.training_statement import TrainingStatement
from speciate.refs import SOURCES, ModelRef, check_name, is_model_ref, model_ref
from speciate.secrets import SecretRequest
from speciate.vocabulary import TASKS, find_task
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Folders, Workspace

PUBLISHED = "published"
"""The method of a card: how others made it is not known."""
IMAGE_TEXT = "image-text-to-text"
_IMAGE_TEXT_PARTS = ("image.image", "question.text")
"""Parts of the inputs of a published model of that task."""
_KEY = "huggingface"
_STAGED = "model"
_SHOWN = 20
Answer = TypeVar("Answer")


class FetchSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    """Of the model that gets its next version."""
    source: str
    """`hf:org/name`, `hf:org/name@REVISION`, `timm:NAME`, or `path:/dir`."""
    task: str | None = None
    license: str | None = None
    """In place of what its metadata state; a stricter text beside the weights still counts."""
    weights_license: str | None = None
    """Of the weights, where that is another than of the code that they came with."""
    labels: Mapping[str, str] | None = None
    """Of a model with its own head: published label -> the user's. It then answers under the latter."""
    prompts: tuple[str, ...] = ()
    """Of a zero-shot model: templates with {label}; of one that writes a text: one with {input}."""
    trained_on: tuple[str, ...] = ()
    """What it is said to have learned from: datasets of this workspace, or of others."""
    data_until: str | None = None
    """A day, month or year: nothing that it learned from is said to be later."""


class FetchPayload(BaseModel):
    model_config = ConfigDict(frozen=True)
    spec: FetchSpec
    host: str | None = None
    """The hub, if a key for it is stored."""


class Source(BaseModel):
    """Where a version comes from, as its card keeps it."""

    model_config = ConfigDict(frozen=True)
    source: str
    repository: str | None = None
    revision: str | None = None
    """The commit."""
    wanted: str | None = None
    """The branch, tag or commit that the caller named."""
    set_aside: dict[str, str] = {}
    """Excluded files, with the reason."""
    scanned_by: str | None = None
    """The scanner that found no pickle that runs code among the files; None: none is installed."""
    training: TrainingStatement | None = None
    """What is said of its training."""


def plan(spec: FetchSpec, workspace: Workspace) -> Plan[FetchPayload]:
    check_name("model", spec.name)
    registry.check_free(workspace.database, spec.name)
    if spec.task is not None:
        find_task(spec.task)
    licenses.wanted([name for name in (spec.license, spec.weights_license) if name is not None])
    training_statement.check(spec.trained_on, spec.data_until)
    if not is_model_ref(spec.source):
        raise _no_source(spec.source)
    ref = model_ref(spec.source)
    resolved = {"model": spec.name, "source": spec.source}
    if ref.source == "path":
        folder = Path(ref.name)
        if not folder.is_dir():
            raise SpeciateError(Code.NOT_FOUND, f"There is no folder {ref.name!r}.", "Name an existing model folder.")
        model_folder.check_weights(folder)
        trust.choose(trust.entries(folder))
        if spec.labels is not None:
            manifest.check_labels(check_head(folder, spec.source), spec.source, spec.labels)
        elif spec.prompts:
            manifest.check_template(check_head(folder, spec.source), spec.source, spec.prompts)
        return Plan(payload=FetchPayload(spec=spec), resolved=resolved, bytes=_size(folder))
    repository, _ = repository_of(ref)
    host = urlsplit(hub_endpoint()).netloc.lower()
    keys = (SecretRequest(_KEY, host),) if _has_key(host) else ()
    return Plan(
        payload=FetchPayload(spec=spec, host=host if keys else None),
        resolved=resolved | {"repository": repository, "server": hub_endpoint()},
        secrets=keys,
    )


def repository_of(ref: ModelRef) -> tuple[str, str | None]:
    """(org/name, revision) of a ref. Raises INVALID for a ref that is not a hub's."""
    name, _, revision = ref.name.partition("@")
    if ref.source == "timm":
        name = f"timm/{name}"
    if ref.source not in ("hf", "timm") or not hf_hub.is_repository(name):
        raise _no_source(str(ref))
    return name, revision or None


def _no_source(source: str) -> SpeciateError:
    bare = source.partition(":")[0] not in SOURCES
    folder = f"For a folder, call register_model with source={f'path:{source}'!r}. Otherwise with"
    hint = folder if bare else "Call with"
    return SpeciateError(
        Code.INVALID,
        f"{source[:200]!r} cannot be fetched.",
        f"{hint} source='hf:org/name', 'timm:NAME' or 'path:/dir'; search_models finds some.",
    )


def _has_key(host: str) -> bool:
    try:
        return bool(secrets.get(_KEY, host))
    except SpeciateError:
        return False


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def run(run: Run) -> Mapping[str, object]:
    spec = run.read_payload(FetchPayload).spec
    ref = model_ref(spec.source)
    staged = run.folder.outputs / _STAGED
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    if ref.source == "path":
        folder = Path(ref.name)
        where = Source(source=spec.source, set_aside=trust.take(folder, staged).excluded)
        scanned = trust.scan(folder)
        if sealed.is_sealed_export(staged):
            return {"card": _take_exported(spec, folder, staged, scanned, run).model_dump()}
        details = _readme_metadata(staged / "README.md")
    else:
        found = _find_revision(run, ref)
        chosen = trust.choose(file.name for file in found.files)
        folder = run.folders.cache / "published" / found.repository.replace("/", "--") / found.commit
        _download(run, found, chosen.files, folder)
        trust.check(folder)
        scanned = trust.scan(folder)
        for name in chosen.files:
            os.link(folder / name, staged / pipeline_folder.flat_name(name))
        details = found.details
        where = Source(
            source=f"hf:{found.repository}", repository=found.repository, revision=found.commit,
            wanted=repository_of(ref)[1], set_aside=chosen.excluded,
        )  # fmt: skip
    trust.check(staged)
    if spec.labels is not None:
        manifest.write_manifest(staged, spec.source, spec.labels, spec.prompts, spec.task)
    elif spec.prompts:
        manifest.write_template(staged, spec.source, spec.prompts)
    training_statement.write(staged, spec.trained_on, spec.data_until)
    stated = TrainingStatement(
        card=training_statement.of_card(details.get("card") or {}), trained_on=spec.trained_on, until=spec.data_until
    )
    where = where.model_copy(update={"training": stated if stated.sentence() else None})
    card = _card(spec, where.model_copy(update={"scanned_by": scanned.by}), staged, details)
    card = card.model_copy(update={"id": sealed.seal(staged), "job": run.job})
    return {"card": card.model_dump()}


def _take_exported(spec: FetchSpec, folder: Path, staged: Path, scanned: trust.ScanResult, run: Run) -> ModelCard:
    """A model that export_model wrote: its sealed files, and the facts of its card. `staged`: a copy of the folder,
    which is replaced by the sealed files alone."""
    copy = run.folder.path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    staged.rename(copy)
    staged.mkdir()
    try:
        facts = sealed.take_export(copy, staged)
    except SpeciateError as error:
        raise SpeciateError(
            error.code, error.message.replace(str(copy), str(folder)), error.recovery, error.foreign
        ) from error
    shutil.rmtree(copy)
    trust.check(staged)
    named: dict[str, object] = {"task": spec.task} if spec.task else {}
    if spec.license:
        named["license"] = licenses.spdx(spec.license)
    where = Source(source=spec.source, scanned_by=scanned.by)
    return ModelCard.model_validate(
        {**facts, **named, "name": spec.name, "id": sealed.check(staged), "job": run.job, "bytes": _size(staged),
         "recipe": {**facts["recipe"], **where.model_dump(exclude_none=True)}}
    )  # fmt: skip


def _find_revision(run: Run, ref: ModelRef) -> hf_hub.Revision:
    repository, wanted = repository_of(ref)
    return _retry_later(lambda: hf_hub.find_revision("model", repository, wanted, _token(run)))


def _download(run: Run, found: hf_hub.Revision, names: Iterable[str], folder: Path) -> None:
    def progress(done: int, total: int) -> None:
        if run.stopping:
            raise Stopped
        run.progress(done, total, "bytes", f"fetching {found.repository}")

    _retry_later(lambda: hf_hub.download(found, list(names), folder, _token(run), progress))


def _retry_later(request: Callable[[], Answer]) -> Answer:
    """If the hub is unavailable, the engine retries the job after growing pauses."""
    try:
        return request()
    except SpeciateError as error:
        if error.code is Code.UNAVAILABLE:
            raise Transient(f"{error.message} {error.recovery}") from error
        raise


def _token(run: Run) -> str | None:
    return run.secret(_KEY) if run.read_payload(FetchPayload).host else None


def _card(spec: FetchSpec, where: Source, staged: Path, details: RepositoryDetails) -> ModelCard:
    metadata = details.get("card") or {}
    tags = (tag.removeprefix("license:") for tag in details.get("tags", ()) if tag.startswith("license:"))
    stated = licenses.spdx(spec.license) or licenses.of_card(metadata) or licenses.spdx(next(tags, None))
    weights = licenses.spdx(spec.weights_license or _text(metadata.get("weights_license")))
    head = find_head(staged)
    task = spec.task or (details.get("task") if details.get("task") in TASKS else None)
    if head is not None and (spec.labels is not None or task is None):
        task = head.task
    draws = pipeline_folder.is_pipeline(staged)
    if draws:
        pipeline_folder.check_pipeline(staged, spec.source)
        task = pipeline_folder.TEXT_TO_IMAGE
    reads_images = task == IMAGE_TEXT
    modality = modality_of(spec.name, staged) or (head.modality if head else None)
    return ModelCard(
        name=spec.name,
        task=task,
        modality="multimodal" if reads_images else "text" if draws else modality,
        parts=_IMAGE_TEXT_PARTS if reads_images else (),
        method=PUBLISHED,
        labels=tuple(sorted(set(spec.labels.values()))) if spec.labels else (),
        parameters=sum(model_folder.count_parameters(file) for file in model_folder.weight_files(staged)) or None,
        bytes=_size(staged),
        license=licenses.settle(stated, licenses.texts_in(staged), where.source),
        weights_license=licenses.settle(weights, licenses.texts_of_weights(staged), where.source),
        recipe=where.model_dump(exclude_none=True),
        base_model=_base(metadata.get("base_model")),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _readme_metadata(readme: Path) -> RepositoryDetails:
    """The front matter of a README, as the hub would return it; empty if there is none, or no library to read it."""
    try:
        from huggingface_hub import metadata_load

        metadata = metadata_load(readme) or {}
    except Exception:  # noqa: BLE001 - whatever is wrong with it: a README is no reason to refuse a model
        return {}
    task = metadata.get("pipeline_tag")
    return {"card": metadata, "task": task if isinstance(task, str) else None}


def _base(named: Any) -> str | None:
    """The base model that a card names."""
    name = named[0] if isinstance(named, list) and named else named
    return f"hf:{name}" if isinstance(name, str) and hf_hub.is_repository(name) else None


class FetchedModel(NamedTuple):
    card: ModelCard
    folder: Path
    workspace: Path


def collect(folder: RunFolder) -> FetchedModel:
    card, staged = ModelCard.model_validate((folder.result() or {})["card"]), folder.outputs / _STAGED
    if sealed.check(staged) != card.id:
        raise SpeciateError(
            Code.REFUSED, f"{staged} is not what the run sealed.", next=[Call("control_job", {"action": "retry"})]
        )
    return FetchedModel(card, staged, Path(folder.spec()["workspace"]))


class FetchReport(TypedDict):
    license: str | None
    parameters: int | None
    bytes: int | None
    modality: str | None
    revision: str | None
    set_aside: int
    """Files that were not taken."""
    scanned_by: str
    untrusted: Mapping[str, Mapping[str, str]]
    """{set_aside: file -> why}"""


class FetchResult(TypedDict):
    model: str
    report: FetchReport


def commit(tx: Transaction, job: Job, fetched: FetchedModel) -> FetchResult:
    card = registry.register(tx, Folders(fetched.workspace), fetched.card, fetched.folder)
    source = Source.model_validate(fetched.card.recipe)  # this fetch's; the version may be an earlier one
    excluded = source.set_aside
    report: FetchReport = {
        "license": card.license, "parameters": card.parameters, "bytes": card.bytes, "modality": card.modality,
        "revision": card.recipe.get("revision"), "set_aside": len(excluded),
        "scanned_by": source.scanned_by or "no scanner: pip install 'speciate[scan]'",
        "untrusted": {"set_aside": dict(list(excluded.items())[:_SHOWN])},
    }  # fmt: skip
    return {"model": card.ref, "report": report}


KIND = Kind(name="fetch", spec=FetchSpec, plan=plan, run="speciate.models.fetch:run", collect=collect, commit=commit)
