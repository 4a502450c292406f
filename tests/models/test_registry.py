from __future__ import annotations

from pathlib import Path

import pytest

from speciate.errors import Code, SpeciateError
from speciate.models import registry, sealed
from speciate.models.card import Card
from speciate.workspace.workspace import Workspace
from tests.training.world import define


def _staged(folder: Path, weights: str) -> tuple[Path, Card]:
    folder.mkdir(parents=True)
    (folder / "weights").write_text(weights)
    identity = sealed.seal(folder)
    return folder, Card(name="m", id=identity, task="text-classification", modality="text", method="classical")


def _register(workspace: Workspace, folder: Path, weights: str) -> Card:
    staged, card = _staged(folder, weights)
    return workspace.database.transact(lambda tx: registry.register(tx, workspace.folders, card, staged))


def test_versions_are_numbered_and_a_bare_name_is_the_newest(workspace: Workspace, tmp_path: Path) -> None:
    _register(workspace, tmp_path / "a", "one")
    _register(workspace, tmp_path / "b", "two")
    newest = registry.resolve(workspace.database, workspace.folders, "m")
    assert newest.ref == "m@v2"
    assert (newest.path / "weights").read_text() == "two"
    assert registry.resolve(workspace.database, workspace.folders, "m@v1").card.version == 1


def test_the_same_bytes_are_the_same_version(workspace: Workspace, tmp_path: Path) -> None:
    first = _register(workspace, tmp_path / "a", "one")
    assert _register(workspace, tmp_path / "b", "one") == first


def test_a_folder_whose_row_was_lost_is_never_replaced(workspace: Workspace, tmp_path: Path) -> None:
    orphan = registry.version_folder(workspace.folders, "m", 1)
    _staged(orphan, "somebody's")
    card = _register(workspace, tmp_path / "a", "one")
    assert card.version == 2
    assert (orphan / "weights").read_text() == "somebody's"


def test_what_an_uncommitted_registration_left_is_used_again(workspace: Workspace, tmp_path: Path) -> None:
    staged, card = _staged(tmp_path / "a", "one")

    class Lost(Exception):
        pass

    def fail(tx: object) -> None:
        registry.register(tx, workspace.folders, card, staged)  # type: ignore[arg-type]  # a Transaction
        raise Lost

    with pytest.raises(Lost):
        workspace.database.transact(fail)
    assert _register(workspace, tmp_path / "b", "one").version == 1


def test_an_alias_leads_to_the_version_behind_it(workspace: Workspace, tmp_path: Path) -> None:
    _register(workspace, tmp_path / "a", "one")
    workspace.database.transact(
        lambda tx: tx.execute("INSERT INTO aliases VALUES ('taste', 'production', 'm@v1', 1, 0)")
    )
    assert registry.resolve(workspace.database, workspace.folders, "taste@production").ref == "m@v1"


@pytest.mark.parametrize(
    ("ref", "code", "quoted"),
    [
        ("mm", Code.NOT_FOUND, "'m'"),
        ("m@v9", Code.NOT_FOUND, "v1"),
        ("taste@production", Code.NOT_FOUND, "taste"),
        ("pkg:minilmm", Code.NOT_FOUND, "minilm"),
        ("hf:org/name", Code.INVALID, "hf:org/name"),
    ],
)
def test_a_ref_that_leads_nowhere_says_what_there_is(
    workspace: Workspace, tmp_path: Path, ref: str, code: Code, quoted: str
) -> None:
    _register(workspace, tmp_path / "a", "one")
    with pytest.raises(SpeciateError) as refusal:
        registry.resolve(workspace.database, workspace.folders, ref)
    assert refusal.value.code is code
    assert quoted in str(refusal.value)


def test_a_model_cannot_take_the_name_of_a_use_case(workspace: Workspace) -> None:
    define(workspace, "taste", "text-classification")
    with pytest.raises(SpeciateError) as refusal:
        registry.check_free(workspace.database, "taste")
    assert refusal.value.code is Code.CONFLICT


def test_a_sealed_folder_tells_a_changed_and_a_missing_file(tmp_path: Path) -> None:
    for name in ("changed", "missing"):
        folder, _ = _staged(tmp_path / name, "one")
        weights = folder / "weights"
        weights.write_text("two") if name == "changed" else weights.unlink()
        with pytest.raises(SpeciateError) as refusal:
            sealed.check(folder)
        assert refusal.value.code is Code.REFUSED
