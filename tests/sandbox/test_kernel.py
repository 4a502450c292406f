"""Kernels that lack a layer, injected: what doctor says, what is refused, what our own code still may."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from speciate.cli import doctor
from speciate.errors import Code, SpeciateError
from speciate.evaluation.environments import simulators
from speciate.evaluation.scorers import sandboxed_scorers
from speciate.sandbox import Sandbox, check, is_complete, kernel, layers, start, syscall_filter
from speciate.sandbox.syscall_filter import FilterSupport
from speciate.training.language_hyperparameters import EnvironmentSpec, GrpoParameters
from speciate.training.planning.language_checks import bind_reward_parameters

pytestmark = pytest.mark.skipif(not is_complete(), reason="this kernel lacks a layer of the sandbox")

Lack = Callable[[pytest.MonkeyPatch], None]
LACKING: dict[str, Lack] = {
    "files": lambda patch: patch.setattr(kernel, "_landlock_abi", lambda: 0),
    "truncation": lambda patch: patch.setattr(kernel, "_landlock_abi", lambda: 2),
    "network": lambda patch: patch.setattr(kernel, "_landlock_abi", lambda: 3),
    "filter": lambda patch: patch.setattr(
        syscall_filter, "probe_support", lambda: FilterSupport(filter=False, capabilities=True)
    ),
    "capabilities": lambda patch: patch.setattr(
        syscall_filter, "probe_support", lambda: FilterSupport(filter=True, capabilities=False)
    ),
    "architecture": lambda patch: patch.setattr(syscall_filter, "machine", lambda: None),
}


@pytest.fixture(params=LACKING)
def lacking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    LACKING[request.param](monkeypatch)
    return str(request.param)


def by_scorer(folder: Path) -> None:
    (folder / "mine.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\ndef score(*_): return 1.0")
    rows = [{"example": {}, "prediction": {}}]
    sandboxed_scorers.score_by_user(folder / "run", folder / "mine.py", "score", rows, policy="where_possible")


def by_program(folder: Path) -> None:
    row = {"example": {"tests": "pass"}, "prediction": {"output": f"open({str(folder / 'ran')!r}, 'w')"}}
    sandboxed_scorers.score_programs(folder / "run", [row], policy="where_possible")


def by_environment(folder: Path) -> None:
    with simulators.open_simulators("gymnasium:CartPole-v1", folder, "where_possible", look=False):
        pass


@pytest.mark.parametrize("ask", [by_scorer, by_program, by_environment])
def test_others_code_is_refused_where_a_layer_is_missing_whatever_the_settings_say(
    ask: Callable[[Path], None], lacking: str, tmp_path: Path
) -> None:
    with pytest.raises(SpeciateError, match=lacking) as refused:
        ask(tmp_path)
    assert refused.value.code is Code.REFUSED
    assert "where_possible" in refused.value.message
    assert not (tmp_path / "ran").exists()


def test_a_training_with_an_environment_is_refused_before_there_is_a_job(lacking: str, tmp_path: Path) -> None:
    parameters = GrpoParameters(environment=EnvironmentSpec(file=f"{tmp_path / 'none.py'}:Mine"))
    with pytest.raises(SpeciateError, match=lacking) as refused:
        bind_reward_parameters(parameters, {}, None)  # type: ignore[arg-type]  # not looked at before
    assert refused.value.code is Code.UNAVAILABLE


def test_a_workspace_that_requires_the_sandbox_reads_no_foreign_bytes_without_it(lacking: str, tmp_path: Path) -> None:
    for code in (False, True):
        with pytest.raises(SpeciateError, match=lacking) as refused:
            start([sys.executable, "-c", f"open({str(tmp_path / 'ran')!r}, 'w')"], Sandbox((), tmp_path, code=code))
        assert refused.value.code is Code.UNAVAILABLE
    assert not (tmp_path / "ran").exists()


def test_where_a_person_allows_it_our_own_code_starts_with_the_layers_that_there_are(
    lacking: str, tmp_path: Path
) -> None:
    check("where_possible")
    asks = "import socket\ntry: socket.socket()\nexcept PermissionError: print('no socket')\nelse: print('a socket')"
    process = start([sys.executable, "-I", "-c", asks], Sandbox((), tmp_path), "where_possible")
    told = process.stdout.read().decode().strip()
    process.kill()
    by_landlock_alone = lacking in ("filter", "capabilities")
    assert told == ("a socket" if by_landlock_alone else "no socket")


def test_doctor_names_what_is_missing_and_what_follows(
    lacking: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    status = doctor.doctor(argparse.Namespace(workspace=str(tmp_path), fix=False))
    said = capsys.readouterr().out
    assert status == 1
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert any(line.startswith(f"-- {lacking} ") and "lacks it" in line for line in lines)
    assert any(line.startswith("-- code") and "refused" in line and lacking in line for line in lines)


def test_doctor_names_every_layer(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    doctor.doctor(argparse.Namespace(workspace=str(tmp_path), fix=False))
    said = capsys.readouterr().out
    assert all(f" {layer.name} " in said for layer in layers())
    assert "runs in the whole sandbox" in said
    assert set(LACKING) == {layer.name for layer in layers() if layer.needed}


def test_an_architecture_that_was_never_tried_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    (layer,) = [layer for layer in layers() if layer.name == "architecture"]
    assert "arm64" in layer.what
    assert "not tried" in layer.what
