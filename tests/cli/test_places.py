"""`speciate places` and the same in `speciate doctor`, with doubles of Slurm's programs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from speciate.cli import doctor, main
from tests.jobs.places.cluster import Double


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "workspace").mkdir()
    return tmp_path / "workspace"


@pytest.fixture
def double(root: Path, tmp_path: Path) -> Double:
    double = Double(tmp_path / "cluster")
    (root / "settings.toml").write_text(
        f"""
        [executors.lab]
        kind = "slurm"
        depot = "{double.depot}"
        python = "{sys.executable}"
        programs = "{double.programs}"
        """
    )
    return double


def _found(text: str) -> dict[str, dict[str, object]]:
    return {each["name"]: each for each in json.loads(text)["lab"]}


def test_a_job_there_tells_what_the_place_is_able_to_do(
    root: Path, double: Double, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["places", "--workspace", str(root), "--probe", "--json"])
    found = _found(capsys.readouterr().out)
    assert list(found) == ["cluster", "depot", "job", "shared", "speciate", "Python", "GPUs", "sandbox"]
    assert all(found[name]["ok"] for name in ("cluster", "job", "shared", "speciate"))
    assert status == (0 if all(each["ok"] for each in found.values()) else 1)
    assert list(double.depot.iterdir()) == [], "nothing is left"
    assert all(check.ok for check in doctor.places(root) if "depot" not in check.name)


def test_what_is_wrong_is_named(root: Path, double: Double, capsys: pytest.CaptureFixture[str]) -> None:
    double.set("full")
    double.depot.chmod(0o777)
    assert main(["places", "--workspace", str(root), "--probe", "--json", "--seconds", "0.1"]) == 1
    found = _found(capsys.readouterr().out)
    assert "everybody" in str(found["depot"]["what"])
    assert "has not begun" in str(found["job"]["what"])
    double.set("away")
    assert "Unable to contact" in next(check.what for check in doctor.places(root) if not check.ok)
    assert main(["places", "moon", "--workspace", str(root)]) == 1
    assert "lab" in capsys.readouterr().err


def test_without_places_nothing_is_looked_at(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["places", "--workspace", str(root)]) == 0
    assert "[executors.NAME]" in capsys.readouterr().out
    assert doctor.places(root) == []
