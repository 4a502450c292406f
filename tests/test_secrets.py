"""Keys are kept for their owner alone, go to the hosts that they are bound to, and survive writers side by side."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from speciate import secrets
from speciate.errors import Code, SpeciateError

HOST = "api.openai.com"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "speciate"


def refusal(name: str = "openai", host: str = HOST) -> SpeciateError:
    with pytest.raises(SpeciateError) as caught:
        secrets.get(name, host)
    return caught.value


def test_a_key_is_there_for_its_hosts_alone() -> None:
    secrets.put("openai", [HOST, "127.0.0.1:8000"], "sk-planted")
    assert secrets.get("openai", HOST) == secrets.get("openai", "127.0.0.1:8000") == "sk-planted"
    other = refusal(host="127.0.0.1:8001")
    assert other.code is Code.REFUSED
    assert "bound to api.openai.com, 127.0.0.1:8000" in other.message
    assert "speciate secret set openai --host 127.0.0.1:8001" in other.recovery
    assert "sk-planted" not in str(other)


def test_a_key_that_is_missing_is_told_with_near_names_and_how_it_is_stored() -> None:
    secrets.put("openai", [HOST], "sk-planted")
    missing = refusal("openapi")
    assert missing.code is Code.NOT_FOUND
    assert "did you mean 'openai'?" in missing.message
    assert "speciate secret set openapi --host api.openai.com" in missing.recovery


def test_file_and_folder_are_for_the_owners_eyes(folder: Path) -> None:
    before = os.umask(0)
    try:
        secrets.put("openai", [HOST], "sk-planted")
    finally:
        os.umask(before)
    assert [path.name for path in folder.iterdir()] == ["secrets.json"]
    assert (folder.stat().st_mode & 0o777, secrets.file().stat().st_mode & 0o777) == (0o700, 0o600)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_that_others_can_read_or_write_is_not_used(mode: int) -> None:
    secrets.put("openai", [HOST], "sk-planted")
    secrets.file().chmod(mode)
    assert refusal().code is Code.REFUSED
    assert "chmod 600" in refusal().recovery
    with pytest.raises(SpeciateError):
        secrets.put("other", [HOST], "sk-other")
    assert "sk-other" not in secrets.file().read_text()


def test_nothing_is_written_into_a_folder_that_is_open_to_others(folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    with pytest.raises(SpeciateError, match="chmod 700"):
        secrets.put("openai", [HOST], "sk-planted")
    assert not list(folder.iterdir())


@pytest.mark.parametrize("value", ["", "two\nlines", "tab\t", " spaced", "schlüssel", "x" * (secrets.LONGEST + 1)])
def test_what_is_no_key_is_refused_without_being_quoted(value: str) -> None:
    with pytest.raises(SpeciateError) as caught:
        secrets.put("openai", [HOST], value)
    assert caught.value.code is Code.INVALID
    assert not value or value not in str(caught.value)


@pytest.mark.parametrize("host", ["https://api.openai.com", "api.openai.com/v1", "user@host", "a b", "", "host:port"])
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(SpeciateError, match="is no host"):
        secrets.put("openai", [host], "sk-planted")


@pytest.mark.parametrize("host", ["API.OpenAI.com", "[::1]".strip("[]"), "::1:8000", "localhost:1", "my_host"])
def test_hosts_are_kept_in_lower_case(host: str) -> None:
    assert secrets.put("openai", [host], "sk-planted").hosts == (host.lower(),)


@pytest.mark.parametrize("name", ["", "../x", "a b", "x" * 65])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(SpeciateError, match="cannot name a key"):
        secrets.put(name, [HOST], "sk-planted")


def test_keys_are_replaced_and_removed() -> None:
    secrets.put("openai", [HOST], "sk-old")
    secrets.put("openai", ["other.example"], "sk-new")
    assert refusal().code is Code.REFUSED
    assert secrets.get("openai", "other.example") == "sk-new"
    assert [(key.name, key.hosts) for key in secrets.list_secrets()] == [("openai", ("other.example",))]
    secrets.remove("openai")
    assert secrets.list_secrets() == []
    with pytest.raises(SpeciateError, match="There is no key 'openai'"):
        secrets.remove("openai")


def test_what_is_stored_is_shown_without_the_keys() -> None:
    secrets.put("openai", [HOST], "sk-planted")
    assert "sk-planted" not in repr(secrets.list_secrets()) + repr(secrets._read())


def test_a_file_that_somebody_spoiled_is_an_error_that_quotes_nothing() -> None:
    secrets.put("openai", [HOST], "sk-planted")
    for text in ('{"openai": {"value": "sk-planted"', '{"openai": {"value": "sk-planted"}}', '["sk-planted"]'):
        secrets.file().write_text(text)
        spoiled = refusal()
        assert spoiled.code is Code.INVALID
        assert "sk-planted" not in str(spoiled)
        assert spoiled.__cause__ is None


def _put(number: int) -> None:
    secrets.put(f"key{number}", [HOST], f"sk-{number}")


def test_writers_side_by_side_lose_nothing() -> None:
    with multiprocessing.get_context("fork").Pool(8) as pool:
        pool.map(_put, range(40), chunksize=1)
    assert [key.name for key in secrets.list_secrets()] == sorted(f"key{number}" for number in range(40))


def test_what_a_killed_writer_left_behind_is_in_nobodys_way(folder: Path) -> None:
    secrets.put("openai", [HOST], "sk-planted")
    leftover = folder / "secrets.tmp"
    leftover.write_text("half")
    leftover.chmod(0o644)
    secrets.put("other", [HOST], "sk-other")
    assert secrets.get("openai", HOST) == "sk-planted"
    assert secrets.file().stat().st_mode & 0o777 == 0o600
