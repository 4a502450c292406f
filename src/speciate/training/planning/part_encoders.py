"""Which base models read the parts of mixed rows: `probe` learns from their frozen vectors, side by side."""

from __future__ import annotations

from collections.abc import Sequence

from speciate.datasets import version_rows
from speciate.datasets.versions import Manifest
from speciate.errors import CallAgain, Code, SpeciateError
from speciate.modalities.multimodal import MULTIMODAL, parse_part_names
from speciate.models import packaged
from speciate.models.backbones.architectures import suits
from speciate.models.encoders import by_frames
from speciate.refs import model_ref
from speciate.training.hyperparameters import Parameters, ProbeParameters
from speciate.training.planning.base_models import Base, find_base
from speciate.training.train_spec import Candidate, PartEncoder
from speciate.workspace.workspace import Folders, Workspace

_COLUMN = "parts"


def part_modalities(folders: Folders, manifest: Manifest) -> frozenset[str]:
    """Modalities of the parts that any usable row has. Empty where rows are not mixed."""
    if manifest.modality != MULTIMODAL.name:
        return frozenset()
    if _COLUMN not in version_rows.stored_columns(folders, manifest):
        return frozenset()
    cells = version_rows.read(folders, manifest, [_COLUMN], usable=True)[_COLUMN].unique().to_pylist()
    return frozenset(part.modality for cell in cells if cell for part in parse_part_names(str(cell)))


def reads(modality: str | None, part: str) -> bool:
    """Whether a base model for `modality` reads parts of this one, maybe slice by slice or frame by frame."""
    return modality is not None and (suits(modality, part) or by_frames(modality, part))


def that_read_a_part(workspace: Workspace, manifest: Manifest, found: Sequence[Candidate]) -> list[Candidate]:
    """Without the probes of mixed rows whose base model reads none of their parts."""
    if manifest.modality != MULTIMODAL.name:
        return list(found)
    parts = part_modalities(workspace.folders, manifest)
    return [each for each in found if each.base_model is None or _reads_any(_modality(workspace, each), parts)]


def find_encoders(
    workspace: Workspace, manifest: Manifest, base: Base | None, parameters: Parameters
) -> tuple[PartEncoder, ...]:
    """The base model and those of the option `encoders`, where rows are mixed. INVALID for one that reads no part."""
    if manifest.modality != MULTIMODAL.name or not isinstance(parameters, ProbeParameters) or base is None:
        return ()
    parts, found = part_modalities(workspace.folders, manifest), list[PartEncoder]()
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
