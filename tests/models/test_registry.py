from __future__ import annotations

from pathlib import Path

import pytest

from speciate import secrets
from speciate.errors import Code, SpeciateError
from speciate.lineage.model_report import model_report
from speciate.models import registry, sealed
from speciate.models.endpoints import Endpoint
from speciate.models.model_card import ModelCard
from speciate.workspace.workspace import Workspace
from tests.training.world import define

pytestmark = pytest.mark.durable


def _staged(folder: Path, weights: str) -> tuple[Path, ModelCard]:
    folder.mkdir(parents=True)
    (folder / "weights").write_text(weights)
    identity = sealed.seal(folder)
    return folder, ModelCard(name="m", id=identity, task="text-classification", modality="text", method="classical")


def _register(workspace: Workspace, folder: Path, weights: str) -> ModelCard:
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
        lambda tx: tx.execute("INSERT INTO aliases VALUES ('taste', 'production', 'm@v1', 1, 0, NULL)")
    )
    assert registry.resolve(workspace.database, workspace.folders, "taste@production").ref == "m@v1"


@pytest.mark.parametrize(
    ("ref", "code", "quoted"),
    [
        ("mm", Code.NOT_FOUND, "'m'"),
        ("lexicon", Code.NOT_FOUND, "answers in a dataset's column are named 'column:lexicon'"),
        ("column:lexicon", Code.INVALID, "evaluate_models(models=['column:lexicon'], dataset='NAME')"),
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


ENDPOINT = Endpoint(base_url="https://llm.example/v1", model="big", secret="llm")


def _serve(workspace: Workspace, endpoint: Endpoint = ENDPOINT, **more: str | None) -> ModelCard:
    card = registry.served_card(workspace, "m", endpoint, **{"task": None, "license": None} | more)
    return workspace.database.transact(lambda tx: registry.register(tx, workspace.folders, card, None))


def test_an_endpoint_is_a_version_and_the_same_one_is_the_same_version(workspace: Workspace) -> None:
    first = _serve(workspace)
    assert (first.ref, first.endpoint, first.task) == ("m@v1", ENDPOINT, None)
    assert _serve(workspace) == first
    dearer = ENDPOINT.model_copy(update={"usd_per_1m_input": 2.0})
    others = [
        _serve(workspace, dearer),
        _serve(workspace, task="text-classification"),
        _serve(workspace, license="MIT"),
    ]
    assert [card.ref for card in others] == ["m@v2", "m@v3", "m@v4"]
    assert len({card.id for card in (first, *others)}) == 4
    assert first.endpoint
    assert dearer.identity == first.endpoint.identity
    found = registry.resolve(workspace.database, workspace.folders, "m@v1")
    assert found.card == first


def test_names_and_tasks_of_endpoints_are_checked(workspace: Workspace) -> None:
    define(workspace, "triage", "text-classification")
    for name, task, code in (
        ("no name", None, Code.INVALID), ("triage", None, Code.CONFLICT), ("m", "text-clasification", Code.NOT_FOUND),
    ):  # fmt: skip
        with pytest.raises(SpeciateError) as caught:
            registry.served_card(workspace, name, ENDPOINT, task=task, license=None)
        assert caught.value.code is code


def test_what_needs_weights_says_that_others_serve_them(workspace: Workspace) -> None:
    _serve(workspace)
    for ref in ("m", "api:openai/gpt-4o-mini"):
        version = registry.resolve(workspace.database, workspace.folders, ref)
        assert version.ref == ("m@v1" if ref == "m" else ref)
        with pytest.raises(SpeciateError, match="there are no weights of it here") as caught:
            version.path  # noqa: B018 - it raises
        assert "evaluate_models takes it" in caught.value.recovery


def test_a_model_of_a_known_provider_needs_no_registration(workspace: Workspace) -> None:
    card = registry.resolve(workspace.database, workspace.folders, "api:openrouter/meta/llama:free").card
    assert card.endpoint == Endpoint(
        base_url="https://openrouter.ai/api/v1", model="meta/llama:free", secret="openrouter"
    )
    assert card.id == card.endpoint.identity
    with pytest.raises(SpeciateError, match="did you mean 'openai'"):
        registry.resolve(workspace.database, workspace.folders, "api:opnai/gpt")


def test_endpoints_and_weights_share_numbers_and_never_replace_each_other(workspace: Workspace, tmp_path: Path) -> None:
    assert [_serve(workspace).version, _register(workspace, tmp_path / "a", "one").version] == [1, 2]
    assert registry.resolve(workspace.database, workspace.folders, "m").place is not None
    with_rows_lost = "DELETE FROM model_versions"
    workspace.database.transact(lambda tx: tx.execute(with_rows_lost))
    other = ENDPOINT.model_copy(update={"model": "other"})
    assert _serve(workspace, other).version == 3  # 1 and 2 lie there
    workspace.database.transact(lambda tx: tx.execute(with_rows_lost))
    assert _serve(workspace).version == 1  # its own card lies there
    assert _register(workspace, tmp_path / "b", "one").version == 2


def test_what_a_person_must_type_first_is_told(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    allow = "speciate allow DATASET --host llm.example --usd CAP"
    assert registry.commands_needed(ENDPOINT) == ("speciate secret set llm --host llm.example", allow)
    secrets.put("llm", ["llm.example"], "sk-planted")
    assert registry.commands_needed(ENDPOINT) == (allow,)
    own = Endpoint(base_url="http://127.0.0.1:8000/v1", model="small")
    assert registry.commands_needed(own) == ("speciate hosts add 127.0.0.1:8000",)
    assert registry.commands_needed(own, ("127.0.0.1:8000",)) == ()


def test_a_publishers_card_is_shown_without_its_programs_and_not_whole(workspace: Workspace, tmp_path: Path) -> None:
    made = _register(workspace, tmp_path / "a", "one")
    place = registry.resolve(workspace.database, workspace.folders, made.ref).path
    place.chmod(0o700)
    (place / "README.md").write_text("# Words\n```python\nimport torch\n```\nIt reads.\n" + "and so on " * 2000)
    shown = model_report(workspace, made.ref).readme
    assert shown is not None
    assert shown.startswith("# Words\n[code]\nIt reads.\n")
    assert shown.endswith("[the first 6,000 of 20,025 characters]")
    assert len(shown) < 6_100
