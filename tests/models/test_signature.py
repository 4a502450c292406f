"""Signatures by the real library, checked at load by our code: a changed byte, another key, or none is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

pytest.importorskip("model_signing")
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from speciate.cli import signing_commands
from speciate.errors import Code, SpeciateError
from speciate.lineage.model_report import model_report
from speciate.models import registry, sealed, signature
from speciate.models.model_card import ModelCard
from speciate.settings import load
from speciate.workspace.workspace import Workspace


class Keys(NamedTuple):
    private: Path
    public: Path


def make_keys(folder: Path, name: str, curve: ec.EllipticCurve | None = None, password: bytes | None = None) -> Keys:
    private = ec.generate_private_key(curve or ec.SECP256R1())
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    keys = Keys(folder / f"{name}.pem", folder / f"{name}.pub.pem")
    keys.private.write_bytes(
        private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden)
    )
    keys.public.write_bytes(
        private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return keys


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path, "ours")


def register(
    workspace: Workspace, tmp_path: Path, name: str = "own", data: bytes = b"weights"
) -> registry.ModelVersion:
    folder = tmp_path / f"made-{name}"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(data)
    (folder / "config.json").write_text("{}")
    card = ModelCard(name=name, id=sealed.seal(folder), method="full")
    workspace.database.transact(lambda tx: registry.register(tx, workspace.folders, card, folder))
    return registry.resolve(workspace.database, workspace.folders, name)


def want_signatures(workspace: Workspace, *public: Path) -> None:
    named = json.dumps([str(key) for key in public])
    (workspace.folders.root / "settings.toml").write_text(f"[trust]\nrequire_signature = true\npublic_keys = {named}\n")


def loaded(workspace: Workspace, name: str = "own") -> Path:
    return registry.resolve(workspace.database, workspace.folders, name).path


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_what_the_library_signed_is_valid_here_and_there_and_the_id_stays(
    workspace: Workspace, tmp_path: Path, curve: ec.EllipticCurve
) -> None:
    keys = make_keys(tmp_path, "ours", curve)
    version = register(workspace, tmp_path)
    signing_commands.write_signature(version.path, keys.private)
    found = signature.verify(version.path, [keys.public])
    assert (found.state, found.signer) == ("valid", "ours.pub.pem")
    signing_commands.verify_whole(version.path, keys.public)
    assert sealed.check(version.path) == version.card.id
    want_signatures(workspace, keys.public)
    assert loaded(workspace) == version.place


def test_without_a_signature_nothing_is_loaded_where_one_is_wanted(
    workspace: Workspace, tmp_path: Path, keys: Keys
) -> None:
    register(workspace, tmp_path)
    assert loaded(workspace).is_dir(), "as long as nobody wants one"
    want_signatures(workspace, keys.public)
    with pytest.raises(SpeciateError, match=r"own@v1 is not loaded.*has no model\.sig") as refused:
        loaded(workspace)
    assert refused.value.code is Code.REFUSED
    assert refused.value.recovery.endswith("speciate sign own@v1 --key PRIVATE.pem")
    told = model_report(workspace, "own").trust
    assert (told.signature, told.intact) == ("none", True), "it may be looked at"


def test_another_key_is_refused_whether_it_is_known_or_not(workspace: Workspace, tmp_path: Path, keys: Keys) -> None:
    version = register(workspace, tmp_path)
    other = make_keys(tmp_path, "other")
    signing_commands.write_signature(version.path, other.private)
    want_signatures(workspace, keys.public)
    with pytest.raises(SpeciateError, match="which nobody named here"):
        loaded(workspace)
    assert model_report(workspace, "own").trust.signature == "unknown_key"
    bundle = json.loads((version.place / signature.SIGNATURE).read_text())  # type: ignore[operator]
    bundle["verificationMaterial"]["publicKey"]["hint"] = signature.fingerprint(keys.public)
    (version.place / signature.SIGNATURE).write_text(json.dumps(bundle))  # type: ignore[operator]
    with pytest.raises(SpeciateError, match="was not made by the key that it names"):
        loaded(workspace)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "files.json", "model.sig"])
def test_one_flipped_byte_anywhere_is_refused(workspace: Workspace, tmp_path: Path, keys: Keys, name: str) -> None:
    version = register(workspace, tmp_path)
    signing_commands.write_signature(version.path, keys.private)
    want_signatures(workspace, keys.public)
    path = version.path / name
    data = bytearray(path.read_bytes())
    place = data.index(b'"sig":') + 12 if name == "model.sig" else len(data) - 2
    data[place] = ord("A") if data[place] != ord("A") else ord("B")
    path.unlink()
    path.write_bytes(data)
    with pytest.raises(SpeciateError):
        sealed.check(loaded(workspace))
    with pytest.raises(SpeciateError, match=r"is not what was signed|cannot be read|was not made by"):
        signing_commands.verify_whole(version.path, keys.public) if name != "model.sig" else signature.check(
            version.path, version.card, [keys.public]
        )  # fmt: skip
    assert model_report(workspace, "own").trust.intact is (name == "model.sig")


def test_a_file_and_its_hash_changed_together_are_refused(workspace: Workspace, tmp_path: Path, keys: Keys) -> None:
    """Without a signature only the registered id would tell, which stands in the catalog."""
    version = register(workspace, tmp_path)
    signing_commands.write_signature(version.path, keys.private)
    want_signatures(workspace, keys.public)
    path = version.path / "model.safetensors"
    path.unlink()
    path.write_bytes(b"others")
    (version.path / sealed.MANIFEST).unlink()
    sealed.seal(version.path)
    with pytest.raises(SpeciateError, match="is not what was signed"):
        loaded(workspace)


def test_the_signed_folder_of_another_model_is_refused(workspace: Workspace, tmp_path: Path, keys: Keys) -> None:
    own, other = register(workspace, tmp_path), register(workspace, tmp_path, "other", b"other weights")
    for version in (own, other):
        signing_commands.write_signature(version.path, keys.private)
    target, source = own.path, other.path
    shutil.rmtree(target)
    shutil.copytree(source, target)
    want_signatures(workspace, keys.public)
    assert loaded(workspace, "other") == source
    with pytest.raises(SpeciateError, match="holds another model"):
        loaded(workspace)


def test_any_of_the_keys_will_do_and_a_relative_path_is_below_the_workspace(
    workspace: Workspace, tmp_path: Path, keys: Keys
) -> None:
    version, other = register(workspace, tmp_path), make_keys(tmp_path, "other")
    signing_commands.write_signature(version.path, keys.private)
    shutil.copy(keys.public, workspace.folders.root / "team.pem")
    want_signatures(workspace, other.public, Path("team.pem"))
    assert loaded(workspace) == version.place
    assert model_report(workspace, "own").trust.signed_by == "team.pem"


def test_a_key_that_is_none_or_not_there_is_said_so(workspace: Workspace, tmp_path: Path, keys: Keys) -> None:
    version = register(workspace, tmp_path)
    signing_commands.write_signature(version.path, keys.private)
    want_signatures(workspace, tmp_path / "gone.pem")
    with pytest.raises(SpeciateError, match=r"There is no key .*gone\.pem"):
        loaded(workspace)
    numbers = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    wrong = tmp_path / "rsa.pem"
    wrong.write_bytes(numbers.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    want_signatures(workspace, wrong)
    with pytest.raises(SpeciateError, match="holds no public key of the curves"):
        loaded(workspace)
    with pytest.raises(SpeciateError, match="cannot sign"):
        signing_commands.write_signature(version.path, keys.public)


def test_a_private_key_with_a_password_asks_for_it(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = make_keys(tmp_path, "hidden", password=b"of tests")
    version = register(workspace, tmp_path)
    monkeypatch.setattr("getpass.getpass", lambda prompt: "wrong")
    with pytest.raises(SpeciateError, match="cannot sign"):
        signing_commands.write_signature(version.path, keys.private)
    monkeypatch.setattr("getpass.getpass", lambda prompt: "of tests")
    signing_commands.write_signature(version.path, keys.private)
    assert signature.verify(version.path, [keys.public]).state == "valid"
    assert load(workspace.folders.root).trust.require_signature is False
