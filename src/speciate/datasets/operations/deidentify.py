"""Rewrite the DICOM files of a version without identities, after PS3.15 Annex E (modalities/medical/deidentification/).

The next version holds none of the old bytes: its manifest names one new pack, and every column that comes from a file
is filled anew from the rewritten file. Groups become the pseudonyms that the files carry as patients, so that splits
stay as they are; ids, keys and names of files are new. The key of the old row stays, hidden and in no export, so that
purging a file also purges its rewritten copy. Earlier versions are unchanged.

Columns of the caller's: named ones are dropped or get pseudonyms, and so does a column whose cells name a person who
was removed from a file. All others stay, and the audit names them.

`rewrite` meets the foreign files, in a sandboxed process: it rewrites each and validates the result as an ingest would.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from speciate.datasets.columns import (
    CONTENT,
    FINGERPRINT,
    KEY,
    ORIGIN,
    SKETCH,
    START,
    STOP,
    array,
    with_column,
)
from speciate.datasets.identity import sha256
from speciate.datasets.ingest.draft import MISSING
from speciate.datasets.ingest.validation import Verdict, parse_verdicts, validate_bytes
from speciate.datasets.loading.decoding import cached_reader
from speciate.datasets.operations.context import Context, RewriteAnswer, RewriteRequest, RewrittenFile, RewrittenItem
from speciate.datasets.operations.operation import Operation, Others, Outcome, Parameters, refusal
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import ServiceAnswer
from speciate.modalities import find
from speciate.modalities.bundles import is_bundle, members_of
from speciate.modalities.contract import DecodeError
from speciate.modalities.medical.deidentification.deidentifier import Deidentified, deidentify, is_looked_for
from speciate.modalities.medical.deidentification.profile import parse_profile
from speciate.modalities.medical.deidentification.pseudonyms import Pseudonyms
from speciate.modalities.medical.dicom import of_series
from speciate.refs import id_from_key

COLUMN = "deidentified"
"""Column with the profile that a row was de-identified by; null if it was not rewritten. Exports of files look for
it."""
TEXT_COLUMN = "text_suspected"
_SERVICE = "speciate.datasets.operations.deidentify:rewrite"
_KEY_FILE = "deidentification.key"
_KEY_BYTES = 32
_EXCLUDED = "Excluded before it was de-identified."
_NOT_KEPT = "it could not be read when it came in, and of such files no bytes are kept."


class _Wanted(TypedDict):
    modality: str
    profile: str
    key: str
    """In hexadecimal; it is in no answer."""


class DeidentifyRequest(_Wanted, RewriteRequest):
    """What `rewrite` is asked for."""


class DeidentifiedItem(RewrittenItem):
    """An item whose file was de-identified. Without new bytes it has `names` alone."""

    names: list[str]
    """All columns that the file fills before or after."""
    changes: NotRequired[dict[str, dict[str, int]]]
    people: NotRequired[list[str]]
    """Who were removed."""
    warnings: NotRequired[list[str]]
    originals: NotRequired[list[str]]
    """What was searched for in the new file."""
    still_there: NotRequired[list[str]]
    """Elements of which some are."""


class Proof(TypedDict):
    """How many of the original identifying values are in the output."""

    searched: int
    found: int
    elements: list[str]
    columns: list[str]
    says: str


class _Audit(TypedDict):
    profile: str
    files: int
    not_possible: int
    actions: dict[str, int]
    tags: dict[str, dict[str, int]]
    columns: dict[str, list[str]]
    text_suspected: int
    to_look_at: dict[str, int]
    not_done: str
    proof: Proof


class DeidentifyParameters(Parameters):
    profile: str | list[str] = Field(
        "basic",
        description="'basic', and after it options joined by '+': modified_dates or retain_full_dates, retain_device, "
        "retain_institution, retain_patient_characteristics, retain_uids, retain_safe_private, clean_descriptors, "
        "clean_structured_content.",
    )
    drop_columns: list[str] = Field([], description="Columns of yours that the next version has not.")
    pseudonym_columns: list[str] = Field([], description="Columns of yours whose values become pseudonyms.")


def preflight(parameters: DeidentifyParameters, manifest: Manifest, others: Others) -> Manifest:
    parse_profile(parameters.profile)
    if not holds_dicom(manifest):
        raise refusal(
            f"deidentify rewrites DICOM files, and {manifest.ref} holds {manifest.modality}.",
            "Leave the step out; columns with identities go by curate_dataset with derive, or by new inputs.",
        )
    for name in (*parameters.drop_columns, *parameters.pseudonym_columns):
        if name not in manifest.columns:
            raise refusal(
                f"{manifest.ref} has no column {name!r}.", f"Call describe_dataset(dataset={manifest.ref!r})."
            )
        if name == manifest.label:
            raise refusal(f"The column {name!r} is the label.", "Call again without it.")
    columns = {name: kind for name, kind in manifest.columns.items() if name not in parameters.drop_columns}
    columns |= dict.fromkeys(parameters.pseudonym_columns, "VARCHAR")
    return manifest.model_copy(update={"columns": {**columns, COLUMN: "VARCHAR", TEXT_COLUMN: "VARCHAR"}})


def holds_dicom(manifest: Manifest) -> bool:
    """Whether its media are DICOM files: images, or waveforms that declare their kind."""
    waveforms = manifest.modality == "time-series" and "modality_code" in manifest.columns
    return (manifest.modality == "dicom" or waveforms) and not manifest.inputs


def apply(rows: pa.Table, parameters: DeidentifyParameters, context: Context) -> Outcome:
    profile = parse_profile(parameters.profile)
    pseudonyms = Pseudonyms(key_of(context.root, context.manifest.name))
    modality = context.manifest.modality
    payload = _Wanted(modality=modality, profile=str(profile), key=pseudonyms.key.hex())
    contents, never_kept = _contents(rows, context)
    done = context.rewrite(_SERVICE, payload, contents)
    files = {content: _DeidentifiedFile.of(each, modality) for content, each in done.media.items()}
    files |= {
        content: _DeidentifiedFile.of(RewrittenFile(None, 0, {"reason": _NOT_KEPT}), modality) for content in never_kept
    }
    own = _columns_of_files(files) & {*context.manifest.columns}
    theirs = [name for name in context.manifest.columns if name not in {*own, "bytes", COLUMN, TEXT_COLUMN}]
    named = _identifying_columns(rows, theirs, files) - {context.manifest.label}
    dropped = set(parameters.drop_columns)
    replaced = (named | set(parameters.pseudonym_columns)) - dropped
    rows = rows.drop_columns(sorted(dropped))
    for name in sorted(replaced & set(theirs)):
        cells = [None if cell is None else pseudonyms.name(str(cell)) for cell in rows[name].to_pylist()]
        rows = with_column(rows, name, pa.array(cells, pa.string()))
    rows = _without_cells(rows, files, [name for name in theirs if name not in dropped | replaced], context.manifest)
    rows = _rewrite_rows(rows, files, own, pseudonyms, str(profile))
    manifest = context.manifest.model_copy(update={"packs": (done.pack.relative_to(context.root).as_posix(),)})
    kept = [name for name in theirs if name not in dropped | replaced]
    columns = {"from_the_files": sorted(own), "pseudonyms": sorted(replaced), "dropped": sorted(dropped), "kept": kept}
    audit = _audit(str(profile), files, columns, _proof(rows, files, manifest))
    return Outcome(rows, audit, manifest=manifest)


def _proof(rows: pa.Table, files: dict[str, _DeidentifiedFile], manifest: Manifest) -> Proof:
    """How many of the original identifying values are in the output: in the files, or as a cell or a word of one in the
    version's columns."""
    originals = {str(value).casefold() for each in files.values() for value in each.report.get("originals", ())}
    elements = sorted({str(name) for each in files.values() for name in each.report.get("still_there", ())})
    columns, found = [], set[str]()
    for name in ("group_key", "source", "reason", "label", *manifest.columns):
        if name in rows.column_names and (there := _cells_with(rows[name], originals)):
            columns.append(name)
            found |= there
    count = len(found) + len(elements)
    return {
        "searched": len(originals),
        "found": count,
        "elements": elements,
        "columns": columns,
        "says": f"{count:,} of {len(originals):,} original values found in the output.",
    }


def _cells_with(column: pa.ChunkedArray, originals: set[str]) -> set[str]:
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return set()
    return {word for cell in pc.unique(column).to_pylist() for word in _words(cell) if word in originals}


def _contents(rows: pa.Table, context: Context) -> tuple[list[str], list[str]]:
    """Files to rewrite, each once; and files without stored bytes, because they were unreadable at ingest.

    Bytes of readable files are not checked here: if they are lost, rewriting reports it.
    """
    read = dict[str, bool]()
    for content, quality in zip(rows[CONTENT].to_pylist(), rows["quality"].to_pylist(), strict=True):
        if content:
            read[content] = read.get(content, False) or quality in ("ok", "partial")
    unread = [content for content, was_read in read.items() if not was_read]
    stored = context.stored_contents(unread) if unread else set()
    never_kept = [content for content in unread if content not in stored]
    return [content for content in read if content not in {*never_kept}], never_kept


def key_of(root: Path, dataset: str) -> bytes:
    """The secret of a dataset's pseudonyms, derived from that of the workspace, which is created on first use.

    It lies in a file that only its owner can read, and in no export and no backup.
    """
    path = root / _KEY_FILE
    if not path.exists():
        fresh = path.with_name(f".{_KEY_FILE}.{secrets.token_hex(6)}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)  # another run may have been first, and its key is the one
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    found = path.read_bytes()
    if len(found) != _KEY_BYTES or stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise SpeciateError(
            Code.REFUSED,
            f"{str(path)!r} is no key, or others may read it.",
            "Restore it (chmod 600), or delete it: then pseudonyms are others from now on.",
        )
    return hmac.digest(found, dataset.encode(), hashlib.sha256)


class _DeidentifiedFile(NamedTuple):
    """The result for one medium."""

    content: str | None
    size: int
    verdict: Verdict
    report: ServiceAnswer

    @classmethod
    def of(cls, each: RewrittenFile, modality: str) -> _DeidentifiedFile:
        if each.content is None:
            why = str(each.report.get("reason") or "its process failed.")
            return cls(
                None, 0, Verdict("refused", f"It could not be de-identified: {why}", {}, None, None), each.report
            )
        (verdict,) = parse_verdicts({"verdicts": [each.report["verdict"]]}, modality, 1)
        return cls(each.content, each.size, verdict, each.report)


def _columns_of_files(files: dict[str, _DeidentifiedFile]) -> set[str]:
    return {str(name) for each in files.values() for name in each.report.get("names", ())}


def _identifying_columns(rows: pa.Table, columns: Sequence[str], files: dict[str, _DeidentifiedFile]) -> set[str]:
    """Columns with a cell that names a person removed from the file of its row, or the file itself."""
    people = {
        content: {person.casefold() for person in each.report.get("people", ()) if is_looked_for(person)}
        for content, each in files.items()
    }
    found = set[str]()
    contents, sources = rows[CONTENT].to_pylist(), [_names_of(source) for source in rows["source"].to_pylist()]
    for name in columns:
        for content, source, cell in zip(contents, sources, rows[name].to_pylist(), strict=True):
            words = _words(cell)
            if words and not words.isdisjoint(people.get(content or "", set()) | source):
                found.add(name)
                break
    return found


def _without_cells(
    rows: pa.Table, files: dict[str, _DeidentifiedFile], columns: Sequence[str], manifest: Manifest
) -> pa.Table:
    """Empties these columns, but for the label, in rows whose file was not rewritten.

    Nobody can know which of those cells came from the file or whom it named.
    """
    blank = [bool(content) and files[content].content is None for content in rows[CONTENT].to_pylist()]
    if not any(blank):
        return rows
    mask = pa.array(blank)
    for name in columns:
        if name != manifest.label:
            kind = rows.schema.field(name).type
            rows = with_column(rows, name, pc.if_else(mask, pa.scalar(None, kind), rows[name]))
    return rows


def _words(cell: Any) -> set[str]:
    """A cell as a whole, without punctuation, and its words."""
    if cell is None or isinstance(cell, bool | list | dict | bytes):
        return set()
    text = str(cell).casefold().strip()
    words = re.split(r"[\W_]+", text)
    return {text, " ".join(filter(None, words)), *words, *re.split(r"[^\d.]+", text)}


def _names_of(source: str) -> set[str]:
    """Possible names of a file: its path, its name, its name without a suffix."""
    path = source.casefold()
    name = path.rpartition("/")[2]
    return {path, name, name.rpartition(".")[0] or name}


def _rewrite_rows(
    rows: pa.Table, files: dict[str, _DeidentifiedFile], own: set[str], pseudonyms: Pseudonyms, profile: str
) -> pa.Table:
    before = rows[CONTENT].to_pylist()
    made = [files.get(content) if content else None for content in before]
    starts, stops = (rows[name].to_pylist() for name in (START, STOP))
    windows = [
        "" if start is None or stop is None else f"[{start!r}:{stop!r}]"
        for start, stop in zip(starts, stops, strict=True)
    ]
    contents = [each.content if each else None for each in made]
    groups = [None if group is None else pseudonyms.name(group) for group in rows["group_key"].to_pylist()]
    rows = _with_quality(rows, made)
    ids = _ids(contents, windows, rows)
    origins = rows[ORIGIN].to_pylist() if ORIGIN in rows.column_names else [None] * rows.num_rows
    origins = [origin or key for origin, key in zip(origins, rows[KEY].to_pylist(), strict=True)]
    prints = [
        sha256(f"{each.verdict.fingerprint}{window}") if each and window else each.verdict.fingerprint if each else None
        for each, window in zip(made, windows, strict=True)
    ]
    sketches = [
        bytes.fromhex(each.verdict.sketch) if each and each.verdict.sketch and not window else None
        for each, window in zip(made, windows, strict=True)
    ]
    keys = [
        sha256(f"{content}{window}") if content and window else content
        for content, window in zip(contents, windows, strict=True)
    ]
    sources = [f"{group or 'ungrouped'}/{id}.dcm" for group, id in zip(groups, ids, strict=True)]  # noqa: A001
    replaced = {
        "id": ids, "group_key": groups, "source": sources, CONTENT: contents, FINGERPRINT: prints, KEY: keys,
        ORIGIN: origins, COLUMN: [profile if content else None for content in contents],
        TEXT_COLUMN: [each.verdict.fields.get(TEXT_COLUMN) if each else None for each in made],
    }  # fmt: skip
    for name, values in replaced.items():
        rows = with_column(rows, name, pa.array(values, pa.string()))
    rows = with_column(rows, SKETCH, pa.array(sketches, pa.binary()))
    return _with_fields(rows, made, windows, own)


def _with_quality(rows: pa.Table, made: Sequence[_DeidentifiedFile | None]) -> pa.Table:
    """Quality and reason; the reason of a row that was excluded before may quote the file, so it is replaced."""
    qualities, reasons = rows["quality"].to_pylist(), rows["reason"].to_pylist()
    for place, each in enumerate(made):
        if each is not None and each.verdict.quality != "ok":
            qualities[place] = each.verdict.quality if qualities[place] == "ok" else qualities[place]
            reasons[place] = each.verdict.reason
        elif reasons[place] is not None and reasons[place] != MISSING:
            reasons[place] = each.verdict.fields.get(TEXT_COLUMN, _EXCLUDED) if each is not None else _EXCLUDED
    rows = with_column(rows, "quality", pa.array(qualities, pa.string()))
    return with_column(rows, "reason", pa.array(reasons, pa.string()))


def _ids(contents: Sequence[str | None], windows: Sequence[str], rows: pa.Table) -> list[str]:
    """Ids from the rows' new content; among equal or empty contents by position."""
    times: Counter[str] = Counter()
    found = []
    for content, window in zip(contents, windows, strict=True):
        what = f"{content or 'nothing'}{window}"
        times[what] += 1
        found.append(id_from_key("ex", f"deidentified:{what}:{times[what]}"))
    return found


def _with_fields(
    rows: pa.Table, made: Sequence[_DeidentifiedFile | None], windows: Sequence[str], own: set[str]
) -> pa.Table:
    """The columns that come from files, filled. Numbers of a window belong to the window and stay."""
    for name in sorted({*own, "bytes"} & {*rows.column_names}):
        kind, old = rows.schema.field(name).type, rows[name].to_pylist()
        stays = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        values = [
            None if each is None or each.content is None
            else was if window and stays
            else each.verdict.fields.get(name, each.size if name == "bytes" else None)
            for each, window, was in zip(made, windows, old, strict=True)
        ]  # fmt: skip
        filled = array(values)
        rows = with_column(rows, name, filled.cast(kind) if filled.null_count == len(filled) else filled)
    return rows


def _audit(profile: str, files: dict[str, _DeidentifiedFile], columns: dict[str, list[str]], proof: Proof) -> _Audit:
    tags: dict[str, Counter[str]] = {}
    warnings: Counter[str] = Counter()
    for each in files.values():
        for name, done in each.report.get("changes", {}).items():
            tags.setdefault(str(name), Counter()).update({str(what): int(count) for what, count in done.items()})
        warnings.update(str(warning) for warning in each.report.get("warnings", ()))
    failed = sum(each.content is None for each in files.values())
    actions = sum(tags.values(), Counter[str]())
    return {
        "profile": profile,
        "files": len(files) - failed,
        "not_possible": failed,
        "actions": dict(sorted(actions.items())),
        "tags": {name: dict(sorted(done.items())) for name, done in sorted(tags.items())},
        "columns": columns,
        "text_suspected": sum(TEXT_COLUMN in each.verdict.fields for each in files.values()),
        "to_look_at": dict(sorted(warnings.items())),
        "not_done": "Pixels are as they were; nobody can be sure from this alone that a person cannot be recognised.",
        "proof": proof,
    }


def rewrite(payload: DeidentifyRequest) -> RewriteAnswer:
    """The service (`rewrite_media`), whose items are DeidentifiedItems."""
    profile, pseudonyms = parse_profile(payload["profile"]), Pseudonyms(bytes.fromhex(payload["key"]))
    reader, path, items = cached_reader(tuple(payload["packs"])), Path.cwd() / "deidentified", list[DeidentifiedItem]()
    with path.open("wb") as file:
        for content in payload["contents"]:
            data = reader.get(content)
            try:
                made = [deidentify(each, profile, pseudonyms) for each in _instances(data)]
            except DecodeError as error:
                items.append(
                    {"length": None, "reason": error.detail, "names": _filled_columns(payload["modality"], data)}
                )
                continue
            written = of_series([each.data for each in made])
            file.write(written)
            items.append(_file_report(payload["modality"], data, written, made))
    return {"file": path.name, "items": items}


def _instances(data: bytes) -> list[bytes]:
    return list(members_of(data).values()) if is_bundle(data) else [data]


def _file_report(modality: str, data: bytes, written: bytes, made: list[Deidentified]) -> DeidentifiedItem:
    verdict = validate_bytes(find(modality), written, as_is=True)
    changes: dict[str, dict[str, int]] = {}
    for each in made:
        for name, done in each.changes.items():
            counts = changes.setdefault(name, {})
            for what, count in done.items():
                counts[what] = counts.get(what, 0) + count
    return {
        "length": len(written),
        "verdict": list(verdict),
        "names": sorted({*_filled_columns(modality, data), *verdict.fields}),
        "changes": changes,
        "people": sorted({person for each in made for person in each.people}),
        "warnings": sorted({warning for each in made for warning in each.warnings}),
        "originals": sorted({value for each in made for value in each.originals}),
        "still_there": sorted({element for each in made for element in each.still_there}),
    }


def _filled_columns(modality: str, data: bytes) -> list[str]:
    """The columns that the original file filled."""
    return sorted(validate_bytes(find(modality), data).fields)


DEIDENTIFY = Operation(
    name="deidentify",
    what="rewrite DICOM files without identities, after PS3.15 Annex E",
    parameters=DeidentifyParameters,
    preflight=preflight,
    apply=apply,
    needs=("pydicom", "scipy"),
)
