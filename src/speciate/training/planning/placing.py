"""Which trainings may go to a place of settings.toml, and every file that such a run reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from speciate.datasets.consent import check_place
from speciate.datasets.version_files import as_inputs, version_files
from speciate.datasets.versions import Manifest
from speciate.errors import Call, CallAgain, Code, SpeciateError
from speciate.jobs.egress import Departure, NotAllowed
from speciate.refs import model_ref
from speciate.settings import HERE, Capacity, Settings
from speciate.training.train_spec import Payload, TrainSpec
from speciate.workspace.workspace import Folders, Workspace

_ON_GPU = ("lora", "full")
GOES = ("classical", "probe", *_ON_GPU)
"""Methods whose inputs are closed: a dataset version, base models, and the versions that those learned from."""


class Where(NamedTuple):
    place: str | None
    """None: this machine."""
    capacity: Capacity
    """0 cores or memory: what there is."""


def find_place(spec: TrainSpec, settings: Settings) -> Where:
    """Raises NOT_FOUND with the places that there are, and REFUSED for what reads more than is moved to one."""
    name = spec.resources.place
    if name is None or name == HERE:
        return Where(None, settings.capacity)
    place = settings.place(name)
    if spec.method not in GOES:
        raise _refused(f"The method {spec.method!r} reads more than a place is given", spec, settings)
    if spec.teacher:
        raise _refused("Teachers are not moved to a place", spec, settings)
    if spec.base_model is not None and model_ref(spec.base_model).source == "path":
        raise SpeciateError(
            Code.REFUSED,
            f"The folder {model_ref(spec.base_model).name!r} is the caller's, and is not moved to a place.",
            "register_model takes it into the workspace; then name that version as base_model.",
            next=[
                Call("register_model", {"name": f"{spec.name}-base", "source": spec.base_model}),
                _here(spec, settings),
            ],
        )
    if settings.trust.require_signature:
        raise _refused("Signatures of models are checked on this machine alone", spec, settings)
    if (gpus := spec.resources.gpu or 0) > max(1, place.capacity.gpu):
        raise SpeciateError(
            Code.REFUSED,
            f"resources.gpu is {gpus}; {name} has {place.capacity.gpu} by settings.toml.",
            f"A person sets `gpu` in [executors.{name}.capacity] of settings.toml, if it has more.",
            next=[
                _again(spec, gpu=(place.capacity.gpu or None) if spec.method in _ON_GPU else None, nodes=None),
                *([_here(spec, settings)] if gpus <= settings.capacity.gpu else []),
            ],
        )
    if (spec.resources.nodes or 1) > place.nodes:
        most = place.nodes if place.nodes > 1 else None
        raise SpeciateError(
            Code.REFUSED,
            f"resources.nodes is {spec.resources.nodes}; at {spec.resources.place} a training may have {place.nodes}.",
            f"A person sets `nodes` in [executors.{spec.resources.place}] of settings.toml.",
            next=[_again(spec, nodes=most)],
        )
    return Where(spec.resources.place, place.capacity)


def _refused(why: str, spec: TrainSpec, settings: Settings) -> SpeciateError:
    return SpeciateError(
        Code.REFUSED,
        f"{why}, so this training runs here only.",
        f"At a place these can be trained: {', '.join(GOES)}.",
        next=[_here(spec, settings)],
    )


def _here(spec: TrainSpec, settings: Settings) -> CallAgain:
    """On this machine, with no more GPUs than it has."""
    gpus = spec.resources.gpu
    return _again(spec, place=None, nodes=None, gpu=None if (gpus or 0) > settings.capacity.gpu else gpus)


def _again(spec: TrainSpec, **resources: object) -> CallAgain:
    return CallAgain("", {"resources": {**spec.resources.model_dump(exclude_none=True), **resources}})


def check_leaving(payload: Payload, place: str, workspace: Workspace) -> tuple[Departure, ...]:
    """What leaves with a training to a place. Raises `egress.NotAllowed` where a person did not allow all of it."""
    try:
        return check_place(workspace, (each.ref for each in (payload.manifest, *_learned(payload))), place)
    except NotAllowed as why:
        again = [_here(payload.spec, workspace.settings)]
        raise NotAllowed(why.code, why.message, why.advice, next=again) from why


def run_inputs(payload: Payload, folders: Folders) -> tuple[str, ...]:
    """As `Plan.inputs`. Raises REFUSED where it is not known what weights have learned from."""
    return as_inputs(_paths(payload, folders), folders)


def _learned(payload: Payload) -> Iterator[Manifest]:
    """Versions that the weights before have learned from: their rows are read, without their media."""
    for versions in (payload.base_learned_from, *(each.learned_from for each in payload.part_encoders)):
        yield from versions or ()


def _paths(payload: Payload, folders: Folders) -> Iterator[Path]:
    yield from version_files(payload.manifest, folders, media=True)
    for manifest in _learned(payload):
        yield from version_files(manifest, folders, media=False)
    for folder in (payload.base_folder, *(each.folder for each in payload.part_encoders)):
        if folder is not None:
            yield Path(folder)
