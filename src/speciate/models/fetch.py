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

from speciate import foreign_files, hf_hub, secrets
from speciate.environment import hub_endpoint
from speciate.errors import Call, CallAgain, Code, SpeciateError
from speciate.hf_hub import RepositoryDetails
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Job
from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.run import Run, Stopped, Transient
from speciate.jobs.store import enqueue_job
from speciate.models import licenses, model_folder, pickled_weights, registry, sealed, training_statement, trust
from speciate.models.backbones.architectures import modality_of
from speciate.models.backbones.timm_names import check_timm_name, timm_names
from speciate.models.diffusion import pipeline_folder
from speciate.models.model_card import ModelCard
from speciate.models.pickled_weights import StartedConversion
from speciate.models.published import adapter_merge, manifest
from speciate.models.published.architectures import check_head, find_head
from speciate.models.training_statement import TrainingStatement
from speciate.refs import SOURCES, ModelRef, check_name, is_model_ref, model_ref
from speciate.secrets import SecretRequest
from speciate.settings import in_force
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
    """Name of the model that gets its next version."""
    source: str
    """`hf:org/name`, `hf:org/name@REVISION`, `timm:NAME`, or `path:/dir`."""
    task: str | None = None
    license: str | None = None
    """In place of what its metadata state; a stricter text beside the weights still counts."""
    weights_license: str | None = None
    """License of the weights, where that is another than of the code that they came with."""
    labels: Mapping[str, str] | None = None
    """For a model with its own head: published label -> the user's. It then answers under the latter."""
    prompts: tuple[str, ...] = ()
    """For a zero-shot model: templates with {label}; for one that writes a text: one with {input}."""
    trained_on: tuple[str, ...] = ()
    """What it is said to have learned from: datasets of this workspace, or of others."""
    data_until: str | None = None
    """A day, month or year: nothing that it learned from is said to be later."""
    base_model: str | None = None
    """For an adapter of PEFT: the model that it changes, where it is another than it names."""
    pickles: Mapping[str, str] | None = None
    """File -> sha256 of pickled weights that a person has let be converted. No tool takes it."""


class BaseModelRef(BaseModel):
    """The model that an adapter changes."""

    model_config = ConfigDict(frozen=True)
    ref: str
    folder: Path | None = None
    """Folder of a version, or of `path:`; None where it is still to be fetched."""
    id: str | None = None
    """Id of a version's card; None where it is no version."""
    license: str | None = None
    """License of a version; None where it is no version, or not known."""


class FetchPayload(BaseModel):
    model_config = ConfigDict(frozen=True)
    spec: FetchSpec
    host: str | None = None
    """The hub, if a key for it is stored."""
    base: BaseModelRef | None = None
    """For an adapter: the model that it changes; None: the one that the adapter names."""


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
    adapter_of: str | None = None
    """The base model that was merged with the adapter that the source holds."""
    converted: Mapping[str, str] | None = None
    """Pickles whose tensors became safetensors here, with their sha256."""


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
        if adapter_merge.is_adapter(trust.entries(folder)):
            return _plan_adapter(spec, folder, resolved, workspace)
        _check_no_base(spec)
        if not spec.pickles:
            pickled_weights.refuse(folder, trust.entries(folder))
        trust.choose(trust.entries(folder), spec.pickles or ())
        if spec.labels is not None:
            manifest.check_labels(check_head(folder, spec.source), spec.source, spec.labels)
        elif spec.prompts:
            manifest.check_template(check_head(folder, spec.source), spec.source, spec.prompts)
        return Plan(payload=FetchPayload(spec=spec), resolved=resolved, bytes=_size(folder))
    if ref.source == "timm" and timm_names():
        check_timm_name(spec.source)
    repository, _ = repository_of(ref)
    host, keys = _hub()
    base = _find_base(spec.base_model, workspace) if spec.base_model else None
    return Plan(
        payload=FetchPayload(spec=spec, host=host if keys else None, base=base),
        resolved=resolved | {"repository": repository, "server": hub_endpoint()},
        unchecked=(f"Whether {hub_endpoint()} has {repository}, and what it holds.",),
        secrets=keys,
    )


def _hub() -> tuple[str, tuple[SecretRequest, ...]]:
    host = urlsplit(hub_endpoint()).netloc.lower()
    return host, (SecretRequest(_KEY, host),) if _has_key(host) else ()


def _check_no_base(spec: FetchSpec) -> None:
    if spec.base_model is not None:
        raise SpeciateError(
            Code.INVALID,
            f"{spec.source!r} is no adapter of PEFT, so it changes no base model.",
            next=[CallAgain("register_model", {"base_model": None})],
        )


def _plan_adapter(
    spec: FetchSpec, folder: Path, resolved: Mapping[str, Any], workspace: Workspace
) -> Plan[FetchPayload]:
    named = spec.base_model or adapter_merge.base_of(adapter_merge.read_settings(folder), spec.source)
    base = _find_base(named, workspace)
    host, keys = _hub() if base.folder is None else ("", ())
    size = _size(folder) + (_size(base.folder) if base.folder else 0)
    return Plan(
        payload=FetchPayload(spec=spec, host=host if keys else None, base=base), bytes=size, secrets=keys,
        resolved={**resolved, "base_model": base.ref}, peak_memory_mb=4 * size // (1 << 20) or None,
    )  # fmt: skip


def _find_base(named: str, workspace: Workspace) -> BaseModelRef:
    """Raises NOT_FOUND, or INVALID for a base model without weights of its own in a folder."""
    ref = model_ref(named)
    if ref.source == "path":
        folder = Path(ref.name)
        if not folder.is_dir():
            raise SpeciateError(Code.NOT_FOUND, f"There is no folder {ref.name!r}.", "Name an existing model folder.")
        model_folder.check_weights(folder)
        trust.choose(trust.entries(folder))
        return BaseModelRef(ref=named, folder=folder)
    if ref.source == "hf" and registry.fetched(workspace.database, ref) is None:
        repository_of(ref)
        return BaseModelRef(ref=named)
    version = registry.resolve(workspace.database, workspace.folders, ref)
    if version.path is None or model_folder.has_backbone(version.path):
        raise SpeciateError(
            Code.INVALID,
            f"{version.ref} is no published model with weights, which an adapter could change.",
            "Name the model that the adapter was trained on: 'hf:org/name', 'path:/dir' or a version of it.",
        )
    return BaseModelRef(ref=version.ref, folder=version.path, id=version.card.id, license=version.card.license)


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


class _Parent(NamedTuple):
    """The base model of an adapter."""

    ref: str
    license: str | None
    weights_license: str | None


class _Staged(NamedTuple):
    where: Source
    scanned: trust.ScanResult
    details: RepositoryDetails
    parent: _Parent | None = None


def run(run: Run) -> Mapping[str, object]:
    spec = run.read_payload(FetchPayload).spec
    ref = model_ref(spec.source)
    staged = run.folder.outputs / _STAGED
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    made = (
        _from_folder(run, spec, Path(ref.name), staged) if ref.source == "path" else _from_hub(run, spec, ref, staged)
    )
    if isinstance(made, ModelCard):
        return {"card": made.model_dump()}
    where, scanned, details, parent = made
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
    if parent is not None:
        card = card.model_copy(update=_of_both(card, parent, spec.source))
    card = card.model_copy(update={"id": sealed.seal(staged), "job": run.job})
    return {"card": card.model_dump()}


def _from_folder(run: Run, spec: FetchSpec, folder: Path, staged: Path) -> _Staged | ModelCard:
    """The card alone for a model that export_model wrote."""
    if adapter_merge.is_adapter(names := trust.entries(folder)):
        base = run.read_payload(FetchPayload).base
        assert base is not None, "planned so"
        adapter = _taken(folder, run, "adapter", adapter_merge.files_of(names))
        details = _readme_metadata(adapter / "README.md")
        where = Source(source=spec.source, adapter_of=base.ref)
        return _Staged(where, trust.scan(folder), details, _merge(run, base, adapter, staged))
    excluded = trust.take(folder, staged, spec.pickles or ()).excluded
    scanned = trust.scan(folder)
    if spec.pickles:
        policy = in_force(run.folders.root).cage
        pickled_weights.convert(folder, spec.pickles, staged, run.folder.path, policy)
        excluded = {name: why for name, why in excluded.items() if name not in spec.pickles}
    if sealed.is_sealed_export(staged):
        return _take_exported(spec, folder, staged, scanned, run)
    where = Source(source=spec.source, set_aside=excluded, converted=spec.pickles)
    return _Staged(where, scanned, _readme_metadata(staged / "README.md"))


def _from_hub(run: Run, spec: FetchSpec, ref: ModelRef, staged: Path) -> _Staged:
    found = _find_revision(run, ref)
    where = Source(
        source=f"hf:{found.repository}", repository=found.repository, revision=found.commit,
        wanted=repository_of(ref)[1],
    )  # fmt: skip
    if adapter_merge.is_adapter(names := [file.name for file in found.files]):
        chosen = adapter_merge.files_of(names)
        folder = _downloaded(run, found, chosen)
        adapter = _taken(folder, run, "adapter", chosen)
        base = run.read_payload(FetchPayload).base
        base = base or BaseModelRef(ref=adapter_merge.base_of(adapter_merge.read_settings(adapter), spec.source))
        where = where.model_copy(update={"adapter_of": base.ref})
        return _Staged(where, trust.scan(folder), found.details, _merge(run, base, adapter, staged))
    _check_no_base(spec)
    chosen, excluded = trust.choose(names)
    folder = _downloaded(run, found, chosen)
    trust.check(folder)
    scanned = trust.scan(folder)
    for name in chosen:
        os.link(folder / name, staged / trust.flat_name(name))
    return _Staged(where.model_copy(update={"set_aside": excluded}), scanned, found.details)


def _of_both(card: ModelCard, parent: _Parent, source: str) -> dict[str, str | None]:
    """A merged model is under both licences, so the stricter one counts; where one is not known, neither is it."""
    whole = licenses.stricter(card.license, parent.license, source)
    weights = card.weights_license or parent.weights_license
    if weights is not None:
        weights = licenses.stricter(
            card.weights_license or card.license, parent.weights_license or parent.license, source
        )
    return {"license": whole, "weights_license": weights, "base_model": parent.ref}


def _merge(run: Run, base: BaseModelRef, adapter: Path, staged: Path) -> _Parent:
    """Write the model that an adapter and its base model make."""
    folder, stated, weights = base.folder, base.license, None
    if base.id is not None and folder is not None:
        if sealed.check(folder) != base.id:
            raise SpeciateError(Code.CONFLICT, f"{base.ref} is another version by now.", "Call register_model again.")
    else:
        if folder is not None:
            names = [name for name in trust.choose(trust.entries(folder)).files if "/" not in name]
            details = _readme_metadata(folder / "README.md")
        else:
            found = _find_revision(run, model_ref(base.ref))
            names = list(trust.choose(file.name for file in found.files).files)
            folder, details = _downloaded(run, found, names), found.details
        folder = _taken(folder, run, "base", names)
        stated, weights = _licenses_in(folder, details, base.ref)
    adapter_merge.merge(folder, adapter, staged, base.ref)
    return _Parent(base.ref, stated, weights)


def _taken(folder: Path, run: Run, name: str, names: Iterable[str]) -> Path:
    """A checked copy that nobody else changes."""
    copy = run.folder.path / name
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    foreign_files.copy(folder, names, copy)
    trust.check(copy)
    return copy


def _downloaded(run: Run, found: hf_hub.Revision, names: Iterable[str]) -> Path:
    folder = run.folders.cache / "published" / found.repository.replace("/", "--") / found.commit
    _download(run, found, names, folder)
    return folder


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
    license, weights_license = _licenses_in(  # noqa: A001 - as cards call it
        staged, details, where.source, spec.license, spec.weights_license
    )
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
        license=license,
        weights_license=weights_license,
        recipe=where.model_dump(exclude_none=True),
        base_model=_base(metadata.get("base_model")),
    )


def _licenses_in(
    folder: Path, details: RepositoryDetails, ref: str, said: str | None = None, said_of_weights: str | None = None
) -> tuple[str | None, str | None]:
    """Licenses of a model, and of its weights where they have their own. `said`: what the caller says in place of the
    metadata."""
    metadata = details.get("card") or {}
    tags = (tag.removeprefix("license:") for tag in details.get("tags", ()) if tag.startswith("license:"))
    stated = licenses.spdx(said) or licenses.of_card(metadata) or licenses.spdx(next(tags, None))
    weights = licenses.spdx(said_of_weights or _text(metadata.get("weights_license")))
    return (
        licenses.settle(stated, licenses.texts_in(folder), ref),
        licenses.settle(weights, licenses.texts_of_weights(folder), ref),
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


def apply_approved(tx: Transaction, arguments: Mapping[str, Any], by: str) -> StartedConversion:
    """What `approvals.decide` calls once a person said yes: the job that converts what was shown, and nothing else."""
    spec = FetchSpec.model_validate(arguments)
    if not spec.pickles:
        raise SpeciateError(Code.INVALID, "This approval names no file.", "Call register_model again.")
    return {"model": spec.name, "job": enqueue_job(tx, KIND, spec.model_dump(mode="json", exclude_unset=True))}
