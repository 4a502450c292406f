"""The card: its content, and that foreign text in it stays text."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from speciate.datasets.exports.card import ExportSummary, card, escape_markdown, lineage
from speciate.datasets.versions import Manifest, Version
from speciate.workspace.workspace import Workspace
from tests import data

_HOSTILE = (
    "</td>\n---\nlicense: mit\n# Obey <script>alert(1)</script> [x](http://evil) | `code` ![i](y) \"'\u2028\u202e"
)


def version(operation: dict[str, Any], report: dict[str, Any] | None = None, **manifest: Any) -> Version:
    wanted: dict[str, Any] = {
        "name": "pets", "version": 2, "id": "ab12", "modality": "image", "parts": (), "rows": 1200,
        "columns": {"width": "BIGINT"}, "label": "folder", "labels": {"cat": 700, "dog": 500}, **manifest,
    }  # fmt: skip
    return Version(Manifest(**wanted), [], operation, report or {}, None, 0.0)


def front_matter(text: str) -> dict[str, Any]:
    _, found, _ = text.split("---\n", 2)
    loaded: dict[str, Any] = yaml.safe_load(found)
    return loaded


def test_the_card_lists_every_step_without_folders_of_this_machine() -> None:
    first = version({"op": "ingest", "source": "/home/somebody/pets", "license": "cc-by-4.0"}, version=1)
    steps = [{"op": "filter", "where": "width > 8"}, {"op": "balance", "column": "label"}]
    text = card([version({"op": "curate", "steps": steps}), first])
    assert "somebody" not in text
    assert "ingest of pets" in text
    assert text.index("filter") < text.index("balance") < text.index("ingest of pets")
    found = front_matter(text)
    assert found["license"] == "cc-by-4.0"
    assert found["task_categories"] == ["image-classification"]
    assert found["size_categories"] == ["1K<n<10K"]


def test_a_licence_is_the_recorded_one_or_unknown() -> None:
    assert front_matter(card([version({"op": "ingest"})]))["license"] == "unknown"
    odd = front_matter(card([version({"op": "ingest", "license": "Mine: all of it\n- x"})]))
    assert (odd["license"], odd["license_name"]) == ("other", "Mine: all of it - x")
    two = [version({"op": "merge"}), version({"op": "ingest", "license": "mit"}), version({"license": "gpl-3.0"})]
    assert front_matter(card(two))["license"] == "unknown"


def test_excluded_files_are_listed_with_their_reasons() -> None:
    report = {"ok": 5, "partial": 1, "untrusted": {"reasons": {"Cut off.": 1}}, "split": {"groups_across": 0}}
    exported = ExportSummary(
        "folder", None, {"train": 5}, {"partial": 1}, {"train": "data/train/**"}, "label", None, []
    )
    text = card([version({"op": "ingest"}, report)], exported)
    assert "ok: 5, partial: 1" in text
    assert "Cut off" in text
    assert "groups\\_across: 0" in text
    assert front_matter(text)["configs"][0]["data_files"] == [{"split": "train", "path": "data/train/**"}]


@pytest.mark.parametrize(
    ("format_", "manifest", "message"),
    [
        ("folder", {}, "Media are the bytes that came in."),
        (
            "dicom",
            {"modality": "dicom", "columns": {"patient": "VARCHAR", "deidentified": "VARCHAR"}},
            "Media are not all the bytes that came in: files were written anew without identities, with the same "
            "pixels (column `deidentified`).",
        ),
        (
            "folder",
            {"columns": {"made_by": "VARCHAR", "made_from": "VARCHAR", "how": "VARCHAR"}},
            "Media are not all the bytes that came in: some are variants that were made of others "
            "(column `made_from`).",
        ),
        ("ply", {"modality": "mesh"}, "not the bytes that came in: other formats were decoded"),
        ("csv", {"modality": "tabular", "inputs": ("width",)}, None),
    ],
)
def test_the_card_says_whether_media_are_the_bytes_that_came_in(
    format_: str, manifest: dict[str, Any], message: str | None
) -> None:
    exported = ExportSummary(format_, None, {"train": 5}, {}, {}, None, None, [])
    text = card([version({"op": "curate"}, **manifest)], exported)
    assert ("the bytes that came in" in text) == (message is not None)
    assert (message or "") in text


@given(st.one_of(st.just(_HOSTILE), st.text(max_size=60)))
def test_foreign_text_never_becomes_structure(text: str) -> None:
    label, column = text[:64] or "x", text[:64] or "y"
    operation = {"op": text, "source": text, "license": text, "steps": [{"op": text, text or "k": text}]}
    report = {"untrusted": {"reasons": {text: 1}}, "split": {text or "k": text}}
    exported = ExportSummary(text, text, {text: 1}, {text: 1}, {text: "data/a.csv"}, label, column, [])
    hostile = card([version(operation, report, labels={label: 1}, columns={column: text}, label=label)], exported)
    harmless = card(
        [version({"op": "z", "source": "z", "license": "z z", "steps": [{"op": "z", "z": "z"}]},
                 {"untrusted": {"reasons": {"z": 1}}, "split": {"z": "z"}}, labels={"z": 1}, columns={"z": "z"})],
        ExportSummary("z", "z", {"z": 1}, {"z": 1}, {"z": "z"}, "z", "z", []),
    )  # fmt: skip
    assert "<" not in hostile.split("---\n", 2)[2]
    assert set(front_matter(hostile)) - {"license_name"} == set(front_matter(harmless)) - {"license_name"}
    headings = [line for line in harmless.split("\n") if line.startswith("#")]
    assert [line for line in hostile.split("\n") if line.startswith("#")] == headings


@given(st.text())
def test_escaped_text_is_one_line_without_markup(text: str) -> None:
    shown = escape_markdown(text)
    assert len(shown.splitlines()) == 1
    for mark in "<>":
        assert mark not in shown
    bare = shown.replace("\\\\", "")
    assert all(bare[i - 1] == "\\" for i, letter in enumerate(bare) if letter in "`*_[]()|#!~")


def test_the_lineage_of_a_version_follows_its_parents(workspace: Workspace) -> None:
    first = data.ingest(workspace, "reviews", rows=tuple(data.review_rows(12)), label="label")
    assert [each.manifest.ref for each in lineage(workspace.database, "reviews")] == [first.ref]
