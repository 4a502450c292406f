"""`speciate places` and the same in `speciate doctor`, with doubles of Slurm's programs and of Ray's REST interface."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from speciate.cli import doctor, main
from speciate.jobs.places import ray_jobs
from tests.jobs.places.cluster import Double
from tests.jobs.places.ray_double import RayDouble


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
    with (root / "settings.toml").open("a") as settings:
        settings.write(f'shared = ["/nowhere/data", "{root}"]\n')
    status = main(["places", "--workspace", str(root), "--probe", "--json"])
    found = _found(capsys.readouterr().out)
    assert list(found) == [
        "cluster",
        "depot",
        "job",
        "shared",
        "data",
        "speciate",
        "Python",
        "GPUs",
        "sandbox",
        "delay",
    ]
    assert found["data"]["what"] == "`shared` names folders that are not there: /nowhere/data"
    assert all(found[name]["ok"] for name in ("cluster", "job", "shared", "speciate", "delay"))
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


@pytest.fixture
def ray(root: Path, tmp_path: Path) -> Iterator[RayDouble]:
    double = RayDouble(tmp_path / "ray")
    (root / "settings.toml").write_text(
        f"""
        [executors.lab]
        kind = "ray"
        address = "{double.address}"
        token_file = "{double.token}"
        depot = "{double.depot}"
        python = "{sys.executable}"
        lease_seconds = 4
        """
    )
    yield double
    double.close()


def test_doctor_names_a_cluster_without_a_token_and_plain_http(root: Path, ray: RayDouble) -> None:
    assert {check.name: check.ok for check in doctor.places(root)}["lab: token"]
    ray.set("open")
    (wrong,) = (check for check in doctor.places(root) if check.name == "lab: token")
    assert not wrong.ok
    assert "run any code" in wrong.what
    text = (root / "settings.toml").read_text()
    (root / "settings.toml").write_text(text.replace(ray.address, "http://ray.example.org:8265"))
    (refused,) = doctor.places(root)
    assert not refused.ok
    assert "plain HTTP" in refused.what


@pytest.mark.parametrize(
    ("said", "ok", "what"),
    [("storage=memory", False, "in memory"), ("storage=rocksdb", True, "rocksdb"), ("", True, "not seen")],
)
def test_the_probe_names_a_head_that_keeps_what_it_knows_in_memory(
    root: Path,
    ray: RayDouble,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    ok: bool,
    what: str,
) -> None:
    monkeypatch.setattr(ray_jobs, "_STORAGE", f"echo {said}")
    main(["places", "--workspace", str(root), "--probe", "--json"])
    found = _found(capsys.readouterr().out)
    assert list(found)[-2:] == ["delay", "head"]
    assert found["head"]["ok"] is ok
    assert what in str(found["head"]["what"])
    assert found["job"]["ok"]


@pytest.mark.parametrize("wrong", ["version", "folder", "slow"])
def test_the_probe_names_another_version_another_folder_and_a_slow_cache(
    root: Path, ray: RayDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    """`python` there is a script that changes one thing of what the real one does."""
    program = tmp_path / "python"
    body = {
        "version": 'sed -i \'s/"version": "[^"]*"/"version": "9.9"/\' $3/said.json',
        "folder": 'sed -i \'s/"token": "[^"]*"/"token": "other"/\' $3/said.json',
        "slow": "",
    }[wrong]
    wait = "sleep 2.5; " if wrong == "slow" else ""
    program.write_text(
        f"""#!/bin/sh
mkdir "$3.mine"; cp "$3/sent.json" "$3.mine/"; touch "$3.mine/asked"
{sys.executable} "$1" "$2" "$3.mine" || exit 1
ln "$3.mine/claimed" "$3/claimed"
{body.replace("$3", "$3.mine")}
mv "$3.mine/said.json" "$3/said.json"
while [ ! -e "$3/asked" ]; do sleep 0.05; done
{wait}touch "$3/answered"; rm -r "$3.mine"
"""
    )
    program.chmod(0o755)
    text = (root / "settings.toml").read_text()
    (root / "settings.toml").write_text(text.replace(f'python = "{sys.executable}"', f'python = "{program}"'))
    assert main(["places", "--workspace", str(root), "--probe", "--json"]) == 1
    found = _found(capsys.readouterr().out)
    name = {"version": "speciate", "folder": "shared", "slow": "delay"}[wrong]
    assert [each for each in ("speciate", "shared", "delay") if not found[each]["ok"]] == [name]
    if wrong == "slow":
        assert "lease_seconds" in str(found["delay"]["what"])


def test_without_places_nothing_is_looked_at(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["places", "--workspace", str(root)]) == 0
    assert "[executors.NAME]" in capsys.readouterr().out
    assert doctor.places(root) == []
