"""A run gets the keys that its plan names, and nobody else does."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from speciate import secrets
from speciate.errors import SpeciateError
from speciate.jobs.engine import Engine
from speciate.jobs.job import Job, State
from speciate.jobs.kinds import Kind, Kinds, Plan
from speciate.jobs.run import Redaction, Run
from speciate.settings import Capacity, Settings
from speciate.workspace.workspace import Workspace

KEY, HOST = "sk-planted-4f7d", "api.openai.com"
STARTS = ["", pytest.param("classical", marks=pytest.mark.skipif(sys.platform != "linux", reason="zygotes need Linux"))]


class Asking(BaseModel):
    preload: str = ""
    names: tuple[str, ...] = ("openai",)
    ask: str = "openai"
    ending: str = "ok"


def plan(spec: Asking, workspace: Workspace) -> Plan:
    return Plan(payload=spec.model_dump(), preload=spec.preload, secrets=[(name, HOST) for name in spec.names])


def run(run: Run) -> dict[str, Any]:
    key = run.secret(run.payload["ask"])
    if run.payload["ending"] == "blabs":
        print(f"a library prints {key}", flush=True)
        raise RuntimeError(f"401: {key} is not valid")
    told = os.popen("ls -l /proc/self/fd; cat").read()  # a child, which has our standard input
    return {"length": len(key), "pipes": told.count("pipe:"), "rest": sys.stdin.read()}


KIND = Kind(name="asking", spec=Asking, plan=plan, run=f"{Path(__file__).resolve()}:run")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    secrets.put("openai", [HOST], KEY)
    workspace = Workspace(tmp_path / "workspace", settings=Settings(capacity=Capacity(cpu=4)))
    engine = Engine(workspace, Kinds(extra=[KIND]))
    engine.start()
    yield engine
    engine.stop()
    workspace.close()


def ended(engine: Engine, **spec: Any) -> Job:
    return engine.wait(engine.submit("asking", spec).id, timeout=120)


@pytest.mark.parametrize("preload", STARTS)
def test_a_run_gets_its_key_and_its_children_do_not(engine: Engine, preload: str) -> None:
    job = ended(engine, preload=preload)
    assert job.state is State.SUCCEEDED, job.error
    assert job.result == {"length": len(KEY), "pipes": 1, "rest": ""}  # the one pipe is the child's own output
    spec = json.loads((engine.folder(job).path / "spec.json").read_text())
    assert spec["secrets"] == [["openai", HOST]]
    assert ("zygote" in spec) == bool(preload)


@pytest.mark.parametrize("preload", STARTS)
def test_a_run_without_keys_reads_nothing(engine: Engine, preload: str) -> None:
    job = ended(engine, preload=preload, names=())
    assert job.state is State.FAILED
    assert (job.error or {})["message"] == "This run was given no key 'openai'."


def test_a_key_that_is_not_there_is_an_error_of_the_call(engine: Engine) -> None:
    with pytest.raises(SpeciateError, match="There is no key 'anthropic'"):
        engine.submit("asking", {"names": ["anthropic"]})
    assert engine.list() == []


@pytest.mark.parametrize("preload", STARTS)
def test_a_key_that_is_gone_by_the_start_ends_the_run_with_one_clear_error(engine: Engine, preload: str) -> None:
    engine.drain()
    job = engine.submit("asking", {"preload": preload})
    secrets.remove("openai")
    engine._reconciler.draining = False
    job = engine.wait(job.id, timeout=120)
    assert (job.state, job.attempt) == (State.FAILED, 1)
    assert "There is no key 'openai'" in (job.error or {})["message"]
    assert "speciate secret set openai --host api.openai.com" in (job.error or {})["recovery"]
    assert not (engine.folder(job).path / "begun").exists()


@pytest.mark.parametrize("preload", STARTS)
def test_what_a_library_says_is_kept_without_the_key(engine: Engine, preload: str) -> None:
    job = ended(engine, preload=preload, ending="blabs")
    assert (job.error or {})["detail"] == "401: [key] is not valid"
    log = engine.folder(job).log_tail(50)
    assert "a library prints [key]" in log
    assert "RuntimeError: 401: [key] is not valid" in log
    assert KEY not in log


def test_a_key_is_hidden_also_as_json_writes_it() -> None:
    redacted = Redaction(['a"b', "longer-a", "longer"])
    assert redacted('a"b a\\"b longer-a longer') == "[key] [key] [key] [key]"
    assert not Redaction([])


@pytest.mark.skipif(sys.platform != "linux", reason="zygotes need Linux")
def test_whichever_worker_is_first_has_the_key_when_a_zygote_dies_over_its_fork(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    struck = tmp_path / "struck"
    monkeypatch.setenv("SPECIATE_FAULT", f"zygote_forked:kill:{struck}")
    job = ended(engine, preload="classical")
    assert struck.exists()
    assert (job.state, job.attempt) == (State.SUCCEEDED, 1), job.error
    assert (job.result or {})["length"] == len(KEY)
