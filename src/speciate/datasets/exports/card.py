"""The card of a version: what it holds, where it comes from and what was excluded, as the hub's README has it. Pure.

Names, labels, sources and conditions are foreign: none of them can become Markdown, HTML or YAML of its own. A card
names no folders of this machine, because it travels with the data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from speciate.datasets.columns import QUALITIES
from speciate.datasets.operations.deidentify import COLUMN as DEIDENTIFIED
from speciate.datasets.operations.operation import MADE_FROM
from speciate.datasets.sources.listing import ELSEWHERE
from speciate.datasets.versions import DELETED, Manifest, Version, find_parent, version
from speciate.workspace.database import Database

_MOST_ANCESTORS = 50
_MOST_SHOWN = 100
_LONGEST = 300
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\uffff\U000e0000-\U000e007f\ud800-\udfff]"
)
_PUNCTUATION = re.compile(r"([\\`*_{}\[\]()#+\-.!|~:@$^])")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.\-]{0,40}")
_SIZES = (
    (1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"),
)  # fmt: skip
_CLASSIFIED = ("image", "text", "audio", "tabular", "video")
_WRITTEN_ANEW = {
    "lerobot": "episodes were written anew in this format",
    "ply": "other formats were decoded and written as PLY",
}
_REWRITERS = {
    DEIDENTIFIED: f"files were written anew without identities, with the same pixels (column `{DEIDENTIFIED}`)",
    MADE_FROM: f"some are variants that were made of others (column `{MADE_FROM}`)",
}
"""Column of versions in which media were written anew -> what was done to them."""
_HIDDEN_PARAMETERS = ("op", "source", "license", "labels", "rows", DELETED)


class ExportSummary(NamedTuple):
    """What the card of an export adds to the card of its version."""

    format: str
    part: str | None
    """The split, where only that left."""
    splits: Mapping[str, int]
    """Examples that left; those of no split under the empty name."""
    excluded: Mapping[str, int]
    """Quality -> how many stayed behind."""
    configs: Mapping[str, str]
    """Split -> pattern of its files, where the hub's loader can read them."""
    label: str | None
    group: str | None
    notes: Sequence[str]


def lineage(database: Database, ref: str) -> list[Version]:
    """The version and those it was made from, as far as they are known, newest first and each once; at most 50."""
    found: dict[str, Version] = {}
    left: list[Version | None] = [version(database, ref)]
    while left and len(found) < _MOST_ANCESTORS:
        each = left.pop(0)
        if each is not None and each.manifest.ref not in found:
            found[each.manifest.ref] = each
            left += [find_parent(database, each, name) for name in each.parents]
    return list(found.values())


def card(chain: Sequence[Version], exported: ExportSummary | None = None) -> str:
    """Markdown with YAML before it. `chain`: the version and those it was made from, newest first."""
    newest = chain[0]
    parts = [
        _front_matter(chain, exported),
        f"# {escape_markdown(newest.manifest.name)}, version {newest.manifest.version}\n",
        _summary(chain),
        *([_export(chain, exported)] if exported is not None else []),
        _counts("Splits", "split", newest.manifest.splits),
        _counts("Labels", "label", newest.manifest.labels),
        _columns(newest.manifest),
        _quality(newest, exported),
        _split_audit(chain),
        _provenance(chain),
    ]
    return "\n".join(part for part in parts if part)


def escape_markdown(text: object, longest: int = _LONGEST) -> str:
    """Foreign text as one line of Markdown that is nothing but text; numbers as they are."""
    if isinstance(text, int | float):
        return f"{text}"
    shown = " ".join(_UNSEEN.sub(" ", str(text)).split())
    shown = shown if len(shown) <= longest else f"{shown[:longest]}…"
    return _PUNCTUATION.sub(r"\\\1", shown.translate(_ENTITIES)) or "empty"


def _yaml_string(text: object) -> str:
    """Foreign text as a double-quoted scalar of YAML."""
    return json.dumps(" ".join(_UNSEEN.sub(" ", str(text)).split())[:_LONGEST], ensure_ascii=False)


def _front_matter(chain: Sequence[Version], exported: ExportSummary | None) -> str:
    manifest = chain[0].manifest
    found = licence(chain)
    valid = _LICENSE.fullmatch(found) is not None
    lines = ["---", f"license: {found if valid else 'other'}"]
    if not valid:
        lines.append(f"license_name: {_yaml_string(found)}")
    lines.append(f"pretty_name: {_yaml_string(manifest.name)}")
    if tasks := _tasks(manifest):
        lines += ["task_categories:", *(f"- {task}" for task in tasks)]
    lines += ["size_categories:", f"- {_size(sum(_usable(manifest, exported)))}"]
    lines += ["tags:", f"- {_yaml_string(manifest.modality)}"]
    if exported is not None and exported.configs:
        lines += ["configs:", "- config_name: default", "  data_files:"]
        for split, pattern in exported.configs.items():
            lines += [f"  - split: {_yaml_string(split)}", f"    path: {_quoted_path(pattern)}"]
    return "\n".join([*lines, "---", ""])


def _quoted_path(pattern: str) -> str:
    """A name of a file of ours, which must stay as it is."""
    return json.dumps(pattern, ensure_ascii=False)


def licence(chain: Iterable[Version]) -> str:
    """The licence recorded when the data came in; `unknown` if there is none or if several differ."""
    places = [place for each in chain for place in (each.operation, each.report, each.report.get("untrusted") or {})]
    found = {str(place["license"]).strip() for place in places if place.get("license")}
    return found.pop() if len(found) == 1 else "unknown"


def _tasks(manifest: Manifest) -> list[str]:
    """Names of the tasks as the hub calls them; a hint only."""
    if manifest.modality == "image" and "objects" in manifest.columns:
        return ["object-detection"]
    if manifest.label is None:
        return []
    if manifest.numeric:
        return ["tabular-regression"] if manifest.modality == "tabular" else []
    return [f"{manifest.modality}-classification"] if manifest.modality in _CLASSIFIED else []


def _size(examples: int) -> str:
    return next((name for limit, name in _SIZES if examples < limit), "n>1T")


def _usable(manifest: Manifest, exported: ExportSummary | None) -> list[int]:
    if exported is not None:
        return list(exported.splits.values())
    return [manifest.rows]


def _summary(chain: Sequence[Version]) -> str:
    manifest = chain[0].manifest
    what = "numbers" if manifest.numeric else f"{len(manifest.labels):,} classes" if manifest.labels else "no labels"
    lines = [
        f"- examples: {manifest.rows:,}, of every quality",
        f"- modality: {escape_markdown(manifest.modality)}",
        f"- labels: {what}" + (f", from {escape_markdown(manifest.label)}" if manifest.label else ""),
        f"- license: {escape_markdown(licence(chain))}",
        f"- version: {escape_markdown(manifest.ref)}, id {escape_markdown(manifest.id)}, which follows from the "
        "content alone",
    ]
    return "\n".join([*lines, ""])


def _export(chain: Sequence[Version], exported: ExportSummary) -> str:
    part = f" of the split {escape_markdown(exported.part)}" if exported.part else ""
    sentences = [
        f"Format {escape_markdown(exported.format)}: {sum(exported.splits.values()):,} examples{part}.",
        _media(chain, exported),
        "What was excluded is listed with its reason in set_aside.csv." if any(exported.excluded.values()) else "",
        f"The label is the column {escape_markdown(exported.label)}." if exported.label else "",
        f"Examples that belong together share the column {escape_markdown(exported.group)}." if exported.group else "",
        *exported.notes,
    ]
    return "\n".join(["## This export\n", *filter(None, sentences), ""])


def _media(chain: Sequence[Version], exported: ExportSummary) -> str:
    """Whether the media are the bytes that came in; nothing if they are cells of the table."""
    manifest = chain[0].manifest
    if manifest.inputs:
        return ""
    if exported.format == "nifti" and manifest.modality == "dicom":
        return "The scans are not among the files: their masks are."
    if exported.format in _WRITTEN_ANEW:
        return f"Media are not the bytes that came in: {_WRITTEN_ANEW[exported.format]}."
    reasons = [why for column, why in _REWRITERS.items() if column in manifest.columns]
    if not reasons:
        return "Media are the bytes that came in."
    return f"Media are not all the bytes that came in: {'; '.join(reasons)}."


def _counts(title: str, name: str, counts: Mapping[str, int]) -> str:
    if not counts:
        return ""
    lines = [f"## {title}\n", f"| {name} | examples |", "|---|---|"]
    lines += [f"| {escape_markdown(value, 64)} | {count:,} |" for value, count in islice(counts.items(), _MOST_SHOWN)]
    return "\n".join([*lines, *_more(len(counts)), ""])


def _columns(manifest: Manifest) -> str:
    if not manifest.columns:
        return ""
    lines = ["## Columns\n", "| column | type | a model may see it |", "|---|---|---|"]
    for name, kind in islice(manifest.columns.items(), _MOST_SHOWN):
        lines.append(
            f"| {escape_markdown(name, 64)} | {escape_markdown(kind, 64)} | "
            f"{'yes' if name in manifest.inputs else 'no'} |"
        )
    return "\n".join([*lines, *_more(len(manifest.columns)), ""])


def _more(count: int) -> list[str]:
    return [f"\nand {count - _MOST_SHOWN:,} more."] if count > _MOST_SHOWN else []


def _quality(found: Version, exported: ExportSummary | None) -> str:
    report = found.report
    counts = {name: report[name] for name in QUALITIES if isinstance(report.get(name), int)}
    if exported is not None and exported.part is None:
        counts = {"ok": sum(exported.splits.values()), **exported.excluded}
    if not counts:
        return ""
    lines = ["## Quality\n", ", ".join(f"{escape_markdown(name)}: {count:,}" for name, count in counts.items()) + "."]
    reasons = (report.get("untrusted") or {}).get("reasons")
    if isinstance(reasons, dict) and reasons:
        lines += [
            "",
            *(
                f"- {escape_markdown(reason)} ({escape_markdown(count)})"
                for reason, count in islice(reasons.items(), _MOST_SHOWN)
            ),
        ]
    return "\n".join([*lines, ""])


def _split_audit(chain: Sequence[Version]) -> str:
    """The newest audit in the chain: later steps did not change the split."""
    audit = next((each.report["split"] for each in chain if isinstance(each.report.get("split"), dict)), None)
    if not audit:
        return ""
    return "\n".join(
        [
            "## Split audit\n",
            *(f"- {escape_markdown(name)}: {escape_markdown(value)}" for name, value in audit.items()),
            "",
        ]
    )


def _provenance(chain: Sequence[Version]) -> str:
    lines = ["## Provenance\n", "Newest first.\n"]
    for each in chain:
        lines.append(
            f"- {escape_markdown(each.manifest.ref)} ({each.manifest.rows:,} rows): {_operation(each.operation)}"
        )
        lines += [f"  - {step}" for step in _steps(each.operation)]
    return "\n".join([*lines, ""])


def _operation(operation: Mapping[str, Any]) -> str:
    name = escape_markdown(operation.get("op", "unknown"))
    source = operation.get("source")
    of = f" of {escape_markdown(_without_folders(str(source)))}" if source else ""
    parameters = ", ".join(_parameters(operation))
    return f"{name}{of}" + (f" ({parameters})" if parameters else "")


def _steps(operation: Mapping[str, Any]) -> Iterator[str]:
    steps = operation.get("steps")
    for step in steps if isinstance(steps, list) else []:
        if isinstance(step, dict):
            yield _operation(step)


def _parameters(operation: Mapping[str, Any]) -> list[str]:
    shown = {
        name: value
        for name, value in operation.items()
        if name not in (*_HIDDEN_PARAMETERS, "steps") and value not in (None, [], {}, "")
    }
    return [f"{escape_markdown(name, 64)} = {escape_markdown(_format_value(value))}" for name, value in shown.items()]


def _format_value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _without_folders(source: str) -> str:
    """`hf:org/name`, `pkg:NAME` and `gym:TASK` as they are; of a path the last part."""
    return source if source.startswith(ELSEWHERE) else source.rstrip("/").rpartition("/")[2] or source
