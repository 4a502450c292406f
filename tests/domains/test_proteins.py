"""Proteins from end to end: families that never cross a split, a property that is learned, sequences and structures."""

from __future__ import annotations

import random
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from speciate.datasets import version_rows
from speciate.datasets.splits import audit_split, members_of
from speciate.datasets.versions import Manifest
from speciate.modalities.biology.homology import HOMOLOGY
from speciate.server.client import Client
from speciate.workspace.workspace import Workspace
from tests import data
from tests.documentation import calls_in, page
from tests.domains import proteomes
from tests.domains.calling import ended
from tests.modalities.protein_samples import deposited, mmcif, pdb, small


def calls() -> list[dict[str, Any]]:
    """The arguments of the calls in docs/proteins.md."""
    return [call.arguments for call in calls_in(page("proteins.md"))]


def placed(workspace: Workspace, manifest: Manifest) -> dict[str, set[str]]:
    """The splits that each family lies in."""
    found: dict[str, set[str]] = {}
    for row in version_rows.read(workspace.folders, manifest, ["name", "split"]).to_pylist():
        found.setdefault(row["name"].partition("_")[0], set()).add(row["split"])
    return found


def test_families_never_cross_a_split_and_a_random_split_would_part_them(workspace: Workspace, tmp_path: Path) -> None:
    source = proteomes.fasta(tmp_path / "p.fasta", proteomes.families(20, 4))
    manifest = data.ingest(workspace, "heat", source=source, label="heat")
    assert (manifest.modality, manifest.rows) == ("protein", 80)
    found = placed(workspace, manifest)
    assert len(found) == 20
    assert all(len(splits) == 1 for splits in found.values())
    assert set().union(*found.values()) == {"train", "validation", "test"}
    rows = version_rows.read(workspace.folders, manifest)
    splits = rows["split"].to_pylist()
    told = audit_split(members_of(rows, "protein"), splits, rows["id"].to_pylist())
    assert told["near_duplicates_across"] == 0
    assert told["test_units"] < splits.count("test")  # a family is one unit, not four
    random.Random(0).shuffle(splits)
    parted = audit_split(members_of(rows, "protein"), splits, rows["id"].to_pylist())
    assert parted["near_duplicates_across"] > 20
    assert len(parted["near_duplicate_examples"]) == 5


def test_what_comes_later_joins_its_family_and_near_copies_can_be_dropped(workspace: Workspace, tmp_path: Path) -> None:
    made = proteomes.families(8, 4, seed=3)
    first = proteomes.fasta(tmp_path / "first.fasta", [family[:3] for family in made])
    data.ingest(workspace, "heat", source=first, label="heat")
    later = tmp_path / "later.fasta"
    later.write_text("".join(
        f">f{number}_9 heat={'hot' if number % 2 == 0 else 'cold'}\n{family[3]}\n" for number, family in enumerate(made)
    ))  # fmt: skip
    added = data.ingest(workspace, "heat", add=True, source=later, label="heat")
    assert added.rows == 32
    assert all(len(splits) == 1 for splits in placed(workspace, added).values())
    thin = data.run_job(workspace, "curate", dataset="heat", steps=[{"op": "deduplicate", "by": "perceptual"}])
    assert thin["steps"][0]["after"] == 8  # one of each family
    close = [{"op": "deduplicate", "by": "perceptual", "threshold": 0.95}]
    assert data.run_job(workspace, "curate", dataset="heat@v1", steps=close)["steps"][0]["after"] == 24


def test_structures_of_one_family_stay_together_whatever_format_they_come_in(
    workspace: Workspace, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, family in enumerate(proteomes.families(6, 3, seed=5)):
        for place, sequence in enumerate(family):
            (folder / f"f{number}_{place}.pdb").write_bytes(proteomes.structure(sequence, place))
    (folder / "g_0.pdb").write_bytes(pdb(small("A", residues=140)))
    (folder / "g_1.cif").write_bytes(mmcif(small("A", residues=130)))
    manifest = data.ingest(workspace, "models", source=folder)
    rows = version_rows.read(
        workspace.folders, manifest, ["source", "split", "residues", "missing_backbone_atoms", "format"]
    )
    found: dict[str, set[str]] = {}
    for row in rows.to_pylist():
        found.setdefault(row["source"].partition("_")[0], set()).add(row["split"])
        assert row["missing_backbone_atoms"] == (1 if row["source"].startswith("f") else 0)
    assert len(found) == 7
    assert all(len(splits) == 1 for splits in found.values())


def test_bad_files_are_named_counted_and_set_aside(workspace: Workspace, tmp_path: Path) -> None:
    whole, entry = pdb(small()), deposited("2gtl.cif")
    files = {
        "good.pdb": whole, "good.cif": mmcif(small("B")), "cut.pdb": whole[: len(whole) // 2],
        "cut.cif": entry[: len(entry) // 2], "counts.pdb": b"NUMMDL    9\n" + whole, "letter.pdb": b"Dear all,\n" * 50,
    }  # fmt: skip
    folder = tmp_path / "in"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    manifest = data.ingest(workspace, "files", source=folder, modality="protein")
    rows = version_rows.read(workspace.folders, manifest, ["source", "quality", "reason"]).to_pylist()
    assert {row["source"]: row["quality"] for row in rows} == {
        "good.pdb": "ok", "good.cif": "ok", "cut.pdb": "partial", "cut.cif": "partial", "counts.pdb": "partial",
        "letter.pdb": "error",
    }  # fmt: skip
    assert all(row["reason"] for row in rows if row["quality"] != "ok")


@pytest.mark.slow
def test_a_property_of_families_is_learned_and_serves_sequences_and_structures(client: Client, tmp_path: Path) -> None:
    made = proteomes.families(150, 4, seed=1)
    proteomes.fasta(tmp_path / "heat.fasta", made)
    create, look = calls()
    result = ended(client, "create_dataset", **create)
    assert len(client.call("query_dataset", **look)["untrusted"]["rows"]) == 20
    assert result["report"]["ok"] == 600
    curated = ended(
        client, "curate_dataset", dataset="heat", steps=[
            {"op": "deduplicate", "by": "perceptual", "threshold": 0.9},
            {"op": "split", "fractions": {"train": 0.5, "validation": 0.1, "test": 0.4}, "seed": 1},
        ],
    )  # fmt: skip
    described = client.call("describe_dataset", dataset=curated["dataset"])
    assert described["split_audit"]["near_duplicates_across"] == 0
    assert len(client.call("preview_dataset", dataset=curated["dataset"], count=4)["untrusted"]["rows"]) == 4
    client.call(
        "define_use_case", name="heat-use", task="protein-classification", objective={"metric": "balanced_accuracy"},
        positive_label="hot",
    )  # fmt: skip
    learned = ended(
        client, "specialize", use_case="heat-use", dataset=curated["dataset"], budget_minutes=4, methods=["classical"]
    )
    best = learned["candidates"][0]
    print("balanced accuracy", best["value"], best["interval"], "verdict", learned["decision"]["verdict"])
    assert best["value"] >= 0.7  # the majority class has 0.5
    (tmp_path / "hot.pdb").write_bytes(proteomes.structure(made[0][0]))
    inputs = [{"text": made[0][0]}, {"path": "hot.pdb"}]
    both = client.call("predict", model=best["model"], inputs=inputs)["predictions"]
    assert [each.get("error") for each in both] == [None, None]
    assert both[0]["untrusted"]["output"] == both[1]["untrusted"]["output"]


def test_families_of_this_test_are_what_they_are_said_to_be() -> None:
    """Within a family, not between: else the tests above would show nothing."""
    made = proteomes.families(8, 3, seed=7)
    codes = [sequence.encode() for family in made for sequence in family]
    pairs = {(a, b) for a, b in HOMOLOGY.pairs(codes).tolist()}
    assert pairs == {(a, b) for a, b in combinations(range(24), 2) if a // 3 == b // 3}
