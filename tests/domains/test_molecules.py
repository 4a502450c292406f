"""Molecules from end to end: a series from ChEMBL that comes with RDKit, by scaffold, and its activity learned."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from speciate.datasets import version_rows
from speciate.datasets.splits import audit_split, members_of
from speciate.server.client import Client
from speciate.workspace.workspace import Workspace
from tests import data
from tests.documentation import calls_in, page
from tests.domains.calling import ended
from tests.modalities.molecule_samples import ASPIRIN, CAFFEINE, block, record

_RINGS = ("c1ccccc1", "c1ccncc1", "C1CCCCC1", "c1ccsc1", "c1ccc2ccccc2c1", "C1CCNCC1")
_TAILS = ("C", "CC", "O", "N", "CCO", "C(=O)O", "N#C", "Cl")


def calls() -> list[dict[str, Any]]:
    """The arguments of the calls in docs/molecules.md."""
    return [call.arguments for call in calls_in(page("molecules.md"))]


def test_scaffolds_never_cross_a_split_and_a_random_split_would_part_them(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    lines = [f"{tail}{ring},{len(tail)}.5" for ring in _RINGS for tail in _TAILS]
    path.write_text("SMILES,value\n" + "\n".join(lines) + "\n")
    manifest = data.ingest(workspace, "made", source=path, label="value")
    assert (manifest.modality, manifest.inputs) == ("molecule", ("SMILES",))
    rows = version_rows.read(workspace.folders, manifest)
    assert {"formula", "weight", "rings", "heavy_atoms", "inchi_key", "scaffold"} <= set(rows.column_names)
    splits = rows["split"].to_pylist()
    placed: dict[str, set[str]] = {}
    for scaffold, split in zip(rows["scaffold"].to_pylist(), splits, strict=True):
        placed.setdefault(scaffold, set()).add(split)
    assert len(placed) == len(_RINGS)
    assert all(len(found) == 1 for found in placed.values())
    assert audit_split(members_of(rows, "molecule"), splits)["groups_across"] == 0
    random.Random(0).shuffle(splits)
    assert audit_split(members_of(rows, "molecule"), splits)["groups_across"] > 2


def test_a_group_that_the_caller_names_takes_the_scaffolds_place(workspace: Workspace) -> None:
    rows = tuple(
        {"smiles": f"{tail}{ring}", "plate": f"p{number % 5}", "formula": "mine", "value": number + 0.5}
        for ring in _RINGS[:2] for number, tail in enumerate(_TAILS)
    )  # fmt: skip
    made = data.ingest(workspace, "plates", rows=rows, label="value", group_by="plate")
    found = version_rows.read(workspace.folders, made, ["group_key", "formula", "scaffold"]).to_pylist()
    assert {row["group_key"] for row in found} == {f"p{number}" for number in range(5)}
    assert {row["formula"] for row in found} == {"mine"}  # a column of the caller's stays what it is
    assert {row["scaffold"] for row in found} == set(_RINGS[:2])


def test_records_and_files_that_are_damaged_are_named_counted_and_set_aside(
    workspace: Workspace, tmp_path: Path
) -> None:
    whole = record(CAFFEINE, "a", active="yes") + record(ASPIRIN, "b", active="no")
    (tmp_path / "cut.sdf").write_text(whole + record("CCO", "c", active="no")[:-60])
    manifest = data.ingest(workspace, "records", source=tmp_path / "cut.sdf", label="active")
    assert manifest.modality == "molecule"
    rows = version_rows.read(workspace.folders, manifest, ["name", "quality", "reason", "formula"]).to_pylist()
    assert {row["name"]: row["quality"] for row in rows} == {"a": "ok", "b": "ok", "c": "error"}
    assert "was cut" in next(row["reason"] for row in rows if row["name"] == "c")
    folder = tmp_path / "files"
    folder.mkdir()
    for name, text in (("one", block(CAFFEINE)), ("two", block(ASPIRIN)), ("cut", block(ASPIRIN)[:300])):
        (folder / f"{name}.mol").write_text(text)
    files = data.ingest(workspace, "files", source=folder)
    assert (files.modality, files.inputs) == ("molecule", ())
    told = version_rows.read(workspace.folders, files, ["source", "quality", "formula", "group_key"]).to_pylist()
    assert {row["source"]: row["quality"] for row in told} == {"one.mol": "ok", "two.mol": "ok", "cut.mol": "partial"}
    assert {row["formula"] for row in told} == {"C8H10N4O2", "C9H8O4", None}
    assert None not in {row["group_key"] for row in told if row["quality"] == "ok"}


@pytest.mark.slow
def test_the_activity_of_a_series_is_learned_across_scaffolds(client: Client, tmp_path: Path) -> None:
    create, look = calls()
    result = ended(client, "create_dataset", **create)
    assert len(client.call("query_dataset", **look)["untrusted"]["rows"]) == 20
    assert result["report"]["ok"] == 1017
    curated = ended(
        client, "curate_dataset", dataset="nav",
        steps=[{"op": "split", "fractions": {"train": 0.6, "validation": 0.1, "test": 0.3}, "seed": 1}],
    )  # fmt: skip
    audit_ = client.call("describe_dataset", dataset=curated["dataset"])["split_audit"]
    assert (audit_["groups_across"], audit_["near_duplicates_across"]) == (0, 0)
    assert len(client.call("preview_dataset", dataset=curated["dataset"], count=4)["untrusted"]["rows"]) == 4
    client.call("define_use_case", name="potent", task="molecule-regression", objective={"metric": "rmse"})
    learned = ended(
        client, "specialize", use_case="potent", dataset=curated["dataset"], budget_minutes=5, methods=["classical"]
    )
    best = learned["candidates"][0]
    board = client.call("describe_evaluation", evaluation=learned["evaluation"])["leaderboard"]
    print("rmse", {row["model"]: (row["value"], row["interval"]) for row in board}, "test units", audit_["test_units"])
    constant = max(row["value"] for row in board)
    assert best["value"] < 0.9 * constant
    (tmp_path / "one.mol").write_text(block("O=S(=O)(Nc1cccs1)c2ccc(Oc3ccccc3)c(c2)C#N"))
    inputs = [{"text": "O=S(=O)(Nc1cccs1)c2ccc(Oc3ccccc3)c(c2)C#N"}, {"path": "one.mol"}]
    both = client.call("predict", model=best["model"], inputs=inputs)["predictions"]
    assert [each.get("error") for each in both] == [None, None]
    assert both[0]["untrusted"]["output"] == pytest.approx(both[1]["untrusted"]["output"])
