"""What doctor says of the extras: those that the package's metadata names, no list beside it."""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path

import pytest

from speciate.cli import doctor, main

LINES = (
    "numpy>=2", 'scipy>=1.13; extra == "medical"', 'nibabel>=5.3 ; python_version > "3" and extra == \'medical\'',
    'av>=15; extra == "video"', 'speciate[medical, video]; extra == "domains"', 'speciate[all]; extra == "all"',
    'transformers[serving]>=5; extra == "all"', 'speciate[domains]; extra == "all"',
)  # fmt: skip


def test_every_extra_of_the_package_is_listed_with_what_it_is_for() -> None:
    named = importlib.metadata.metadata("speciate").get_all("Provides-Extra") or []
    listed = {check.name: check.what for check in doctor.extras()}
    assert set(named) == set(listed) >= {"domains", "medical", "language", "scan", "video"}
    assert all(listed.values())
    declared = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(declared["optional-dependencies"]) == set(doctor.ENABLES), "also those that an older installation lacks"


def test_an_extra_needs_what_those_that_it_names_need() -> None:
    assert doctor.required(LINES) == {
        "medical": ["scipy", "nibabel"], "video": ["av"], "domains": ["scipy", "nibabel", "av"],
        "all": ["transformers", "scipy", "nibabel", "av"],
    }  # fmt: skip


def test_all_says_which_extras_it_leaves_out() -> None:
    """Or it is `ok` beside one that is missing."""
    declared = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = declared["optional-dependencies"]
    needs = doctor.required([f'{each}; extra == "{name}"' for name, every in extras.items() for each in every])
    left_out = [name for name, packages in needs.items() if not set(packages) <= set(needs["all"])]
    assert doctor.ENABLES["all"] == f"everything but {', '.join(left_out)}"


def test_a_section_without_rows_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("core", "extras", "packaged", "sandbox", "runtime"):
        monkeypatch.setattr(doctor, name, list)
    for name in ("service", "approvals", "places", "check_folder", "catalog"):
        monkeypatch.setattr(doctor, name, lambda workspace: [])
    monkeypatch.setenv("HOME", str(tmp_path))
    main(["doctor", "--workspace", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[lines.index("Agents and editors") + 1].startswith("  none that is known is on this machine")
    assert lines[lines.index("Unattended") + 1] == "  none"


def test_what_is_missing_is_named_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ['nowhere-to-be-found>=1; extra == "scan"'])
    (check,) = doctor.extras()
    assert not check.ok
    assert "pip install 'speciate[scan]'; missing: nowhere-to-be-found" in check.what
