"""What is wrong in settings.toml is said in a sentence."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from speciate.errors import SpeciateError
from speciate.settings import load

RAY = "[executors.x]\nkind = 'ray'\ndepot = '/d'\npython = 'p'\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("policcy = 'auto'", "there is no setting 'policcy'; did you mean 'policy', 'policies'?"),
        ("[capacity]\ncpus = 2", "there is no setting 'capacity.cpus'; did you mean 'cpu'?"),
        ("[executors.big]\nkind = 'slurm'\ndepo = 'x'\ndepot = '/x'", "'executors.big.depo'; did you mean 'depot'"),
        ("policy = 'nobody'", "policy = 'nobody': Input should be 'auto' or 'person'."),
        (RAY + "address = 'http://127.0.0.1:8265'\ninterface = 'ib0 x'", "executors.x.interface = 'ib0 x'"),
        ("policy = 1\nx = 2", "1 more of its settings are wrong."),
    ],
)
def test_a_wrong_setting_is_named_in_a_sentence(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "settings.toml").write_text(text)
    with pytest.raises(SpeciateError) as refused:
        load(tmp_path)
    assert said in refused.value.message
    assert "pydantic" not in refused.value.message


BUCKET = "[executors.x]\nkind = 'slurm'\npython = 'p'\n"


@pytest.mark.parametrize(
    "text",
    [
        RAY + "address = 'https://me:hunter2@ray.example.org'",
        RAY + "address = 'me:hunter2@ray.example.org'",
        RAY + "address = 'ftp://me:hunter2@ray.example.org'",
        RAY + "address = 'https://ray.example.org/?token=hunter2'",
        RAY + "address = ['https://me:hunter2@ray.example.org']",
        RAY + "address = 'https://me:hunter2@lab\N{ACCOUNT OF}.example.org'",
        RAY + "address = 'https://me:hunter2@ray.example.org'\nruns = 0",
        BUCKET + "depot = 's3://b/p'\nendpoint = 'https://AKIA:hunter2@s3.example.org'",
        BUCKET + "depot = 's3://AKIA:hunter2@b/p'",
        BUCKET + "depot = 'AKIA:hunter2@b/p'",
        "[notify]\nwebhook = 'htps://hooks.example.com/hunter2'",
        "[notify]\nwebhook = 'me:hunter2@hooks.example.com'",
        "[team]\naddress = 'https://me:hunter2@pages.example.org'",
    ],
)
def test_a_password_in_an_address_is_never_shown(tmp_path: Path, text: str) -> None:
    (tmp_path / "settings.toml").write_text(text)
    with pytest.raises(SpeciateError) as refused:
        load(tmp_path)
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))


def test_an_address_without_a_password_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(RAY + "address = 'ray.example.org'")
    with pytest.raises(SpeciateError, match="address is no address: write it as in"):
        load(tmp_path)
