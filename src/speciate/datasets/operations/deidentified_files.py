"""The part of `deidentify` that meets foreign files: it runs in a caged process, rewrites each, and judges the result
as an ingest would, so that the columns of the next version follow from files without identities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speciate.datasets.intake.judging import judge_bytes
from speciate.datasets.loading.decoding import kept_reader
from speciate.modalities import find
from speciate.modalities.bundles import is_bundle, members_of
from speciate.modalities.contract import DecodeError
from speciate.modalities.scans.deidentification.engine import Deidentified, deidentify
from speciate.modalities.scans.deidentification.profile import parse_profile
from speciate.modalities.scans.deidentification.pseudonyms import Pseudonyms
from speciate.modalities.scans.dicom import of_series


def rewrite(payload: dict[str, Any]) -> dict[str, Any]:
    """The service (loading/rewriting.py): {packs, contents, modality, profile, key} -> {file, items}.

    An item has `length`, `reason` where nothing could be written, the `verdict` on what was written, `names` of all
    columns that the file fills before or after, `changes`, `people` that were taken out, and `warnings`. `key`: in
    hexadecimal; it is in no answer.
    """
    profile, pseudonyms = parse_profile(payload["profile"]), Pseudonyms(bytes.fromhex(payload["key"]))
    reader, path, items = kept_reader(tuple(payload["packs"])), Path.cwd() / "deidentified", list[dict[str, Any]]()
    with path.open("wb") as file:
        for content in payload["contents"]:
            data = reader.get(content)
            try:
                made = [deidentify(each, profile, pseudonyms) for each in _instances(data)]
            except DecodeError as error:
                items.append({"length": None, "reason": error.detail, "names": _names(payload["modality"], data)})
                continue
            written = of_series([each.data for each in made])
            file.write(written)
            items.append({"length": len(written), **_told(payload["modality"], data, written, made)})
    return {"file": path.name, "items": items}


def _instances(data: bytes) -> list[bytes]:
    return list(members_of(data).values()) if is_bundle(data) else [data]


def _told(modality: str, data: bytes, written: bytes, made: list[Deidentified]) -> dict[str, Any]:
    verdict = judge_bytes(find(modality), written, as_is=True)
    changes: dict[str, dict[str, int]] = {}
    for each in made:
        for name, done in each.changes.items():
            counts = changes.setdefault(name, {})
            for what, count in done.items():
                counts[what] = counts.get(what, 0) + count
    return {
        "verdict": list(verdict),
        "names": sorted({*_names(modality, data), *verdict.fields}),
        "changes": changes,
        "people": sorted({person for each in made for person in each.people}),
        "warnings": sorted({warning for each in made for warning in each.warnings}),
    }


def _names(modality: str, data: bytes) -> list[str]:
    """Of the columns that the file as it was filled."""
    return sorted(judge_bytes(find(modality), data).fields)
