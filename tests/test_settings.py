"""What is wrong in settings.toml is said in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from speciate.errors import SpeciateError
from speciate.settings import load


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("policcy = 'auto'", "there is no setting 'policcy'; did you mean 'policy', 'policies'?"),
        ("[capacity]\ncpus = 2", "there is no setting 'capacity.cpus'; did you mean 'cpu'?"),
        ("[executors.big]\nkind = 'slurm'\ndepo = 'x'\ndepot = '/x'", "'executors.big.depo'; did you mean 'depot'"),
        ("policy = 'nobody'", "policy = 'nobody': Input should be 'auto' or 'person'."),
        ("policy = 1\nx = 2", "1 more of its settings are wrong."),
    ],
)
def test_a_wrong_setting_is_named_in_a_sentence(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "settings.toml").write_text(text)
    with pytest.raises(SpeciateError) as refused:
        load(tmp_path)
    assert said in refused.value.message
    assert "pydantic" not in refused.value.message
