"""Which base models read the parts of mixed rows: `probe` learns from their frozen vectors, side by side."""

from __future__ import annotations

from collections.abc import Sequence

from speciate.datasets import version_rows
from speciate.datasets.versions import Manifest
from speciate.errors import CallAgain, Code, SpeciateError
from speciate.modalities.multimodal import MULTIMODAL
from speciate.models import packaged
from speciate.models.backbones.architectures import suits
from speciate.models.encoders import by_frames
from speciate.refs import model_ref
from speciate.training.hyperparameters import ClassicalParameters, Parameters, ProbeParameters
from speciate.training.planning.base_models import Base, find_base
from speciate.training.train_spec import Candidate, PartEncoder
from speciate.vocabulary import Family
from speciate.workspace.workspace import Folders, Workspace


def reads(modality: str | None, part: str) -> bool:
    """Whether a base model for `modality` reads parts of this one, maybe slice by slice or frame by frame."""
    return modality is not None and (suits(modality, part) or by_frames(modality, part))


def that_read_a_part(workspace: Workspace, manifest: Manifest, found: Sequence[Candidate]) -> list[Candidate]:
    """Without the probes of mixed rows whose base model reads none of their parts."""
    if manifest.modality != MULTIMODAL.name:
        return list(found)
    parts = version_rows.part_modalities(workspace.folders, manifest)
    return [each for each in found if each.base_model is None or _reads_any(_modality(workspace, each), parts)]


def check_parts(folders: Folders, manifest: Manifest, parameters: Parameters, family: Family) -> None:
    """INVALID where `parts` names one that no training example has, or where there are no parts to name."""
    named = parameters.parts if isinstance(parameters, ClassicalParameters) else ()
    if not named:
        return
    if manifest.modality != MULTIMODAL.name or family == "retrieval":
        raise no_parts(named, manifest.modality, family)
    own = [part.own for part in version_rows.part_names(folders, manifest, ("train",))]
    if own and (unknown_ones := [name for name in named if name not in own]):
        raise unknown_part(unknown_ones[0], own)


def no_parts(named: Sequence[str], modality: str, family: Family) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"hyperparameters.parts names {named[0]!r}, and {modality} for {family} has no parts.",
        next=[CallAgain("train_model", {"hyperparameters": {"parts": None}})],
    )


def unknown_part(name: str, own: Sequence[str]) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"hyperparameters.parts names {name!r}; the training examples have {', '.join(own)}.",
        "Name some of those.",
        next=[CallAgain("train_model", {"hyperparameters": {"parts": None}})],
    )


def find_encoders(
    workspace: Workspace, manifest: Manifest, base: Base | None, parameters: Parameters
) -> tuple[PartEncoder, ...]:
    """The base model and those of the option `encoders`, where rows are mixed. INVALID for one that reads no part."""
    if manifest.modality != MULTIMODAL.name or not isinstance(parameters, ProbeParameters) or base is None:
        return ()
    parts, found = version_rows.part_modalities(workspace.folders, manifest), list[PartEncoder]()
    for each in (base, *(find_base(workspace, ref) for ref in parameters.encoders)):
        if each.fresh or not _reads_any(each.modality, parts):
            why = "has fresh weights" if each.fresh else f"reads {each.modality or 'nothing that is known'}"
            raise SpeciateError(
                Code.INVALID,
                f"{each.ref} {why}; the rows of {manifest.ref} have parts of {', '.join(sorted(parts))}.",
                next=[CallAgain("train_model", {"method": "classical", "base_model": None})],
            )
        one = PartEncoder(
            base_model=each.ref, folder=str(each.folder) if each.folder else None, license=each.license,
            learned_from=each.learned_from,
        )  # fmt: skip
        found += [one] if one not in found else []
    return tuple(found)


def _reads_any(modality: str | None, parts: frozenset[str]) -> bool:
    return any(reads(modality, part) for part in parts)


def _modality(workspace: Workspace, candidate: Candidate) -> str | None:
    assert candidate.base_model is not None, "the caller sees to it"
    ref = model_ref(candidate.base_model)
    if ref.source == "pkg":
        return packaged.find(ref.name).modality
    return find_base(workspace, candidate.base_model).modality
