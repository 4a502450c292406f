"""A mixed row as the files of its parts, with names that say what they are and are safe on every system. Pure."""

from __future__ import annotations

from speciate.datasets.exports.names import magic_suffix, safe_name
from speciate.datasets.sources.listing import modality_of
from speciate.modalities import find
from speciate.modalities.bundles import bundle, members_of
from speciate.modalities.mixed.multimodal import MISSING, MULTIMODAL, PartName, part_name

_MAGIC = ((b"\x1f\x8b", ".nii.gz"), (b"ply", ".ply"), (b"glTF", ".glb"), (b"solid", ".stl"))
SUFFIX = MULTIMODAL.suffixes[0]


def files_of(data: bytes) -> dict[str, bytes]:
    """Name -> bytes of each part that is there: `scan.png`, `report.txt`; `series.dicom/0001.dcm` of several files.

    A name says the modality itself (`cloud.point-cloud.ply`) where the suffix would tell another one.
    """
    found: dict[str, bytes] = {}
    for member, file in members_of(data).items():
        head, _, rest = member.partition("/")
        part = part_name(head)
        if head == MISSING or part is None:
            continue
        found["/".join([head, *map(safe_name, rest.split("/"))]) if rest else _name(part, file)] = file
    return found


def as_single_files(files: dict[str, bytes]) -> dict[str, bytes]:
    """Parts of several files as one bundle each, for formats without folders within an example."""
    single = {name: file for name, file in files.items() if "/" not in name}
    for part in {name.partition("/")[0] for name in files if "/" in name}:
        inside = {name.partition("/")[2]: file for name, file in files.items() if name.startswith(f"{part}/")}
        single[part + SUFFIX] = bundle(inside)
    return dict(sorted(single.items()))


def _name(part: PartName, file: bytes) -> str:
    suffixes = find(part.modality).suffixes or (".bin",)
    told = next((suffix for magic, suffix in _MAGIC if file.startswith(magic)), "") or magic_suffix(file[:16])
    suffix = told if told in suffixes else suffixes[0]
    plain = f"{part.own}{suffix}"
    return plain if modality_of(file[:4096], plain) == part.modality else f"{part}{suffix}"
