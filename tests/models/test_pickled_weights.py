"""Folders with pytorch_model.bin alone: approved by a person, converted in a sandbox, and nothing but tensors."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from speciate.errors import Code, SpeciateError
from speciate.governance import approvals
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Job, State
from speciate.jobs.pool import Pool
from speciate.jobs.run import Run
from speciate.models import fetch, pickled_weights, registry
from speciate.models.fetch import FetchSpec
from speciate.models.pickled_weights_process import convert, inspect
from speciate.models.published.checked_copy import folder_id
from speciate.refs import JobId
from speciate.server.approval_questions import NeedsApproval
from speciate.server.tool_api import App
from speciate.tools.models import register_model
from speciate.workspace.workspace import Workspace
from tests.server.apps import make_app


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    whole = torch.randn(6, 4)
    return collections.OrderedDict(
        whole=whole, turned=whole.t(), part=whole[2:4, 1:3], tied=whole, half=torch.randn(5).half(),
        brain=torch.randn(3, 2).bfloat16(), counts=torch.arange(7), flags=torch.tensor([True, False]),
        number=torch.tensor(2.5), nothing=torch.zeros(0, 3), learned=torch.nn.Parameter(torch.randn(2)),
    )  # fmt: skip


def save(folder: Path, tensors: Any, *, old: bool = False, name: str = "pytorch_model.bin") -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(tensors, folder / name, _use_new_zipfile_serialization=not old)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    return folder


def test_tensors_come_out_to_the_bit_in_either_form(tmp_path: Path) -> None:
    state = weights()
    state._metadata = collections.OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]  # as modules add it
    for old in (False, True):
        folder = save(tmp_path / f"old-{old}", {"state_dict": state} if old else state, old=old)
        names = convert(folder / "pytorch_model.bin", folder / "model.safetensors")
        assert names == sorted(state)
        found = load_file(folder / "model.safetensors")
        for name, tensor in state.items():
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name], tensor.detach()), name


class Evil:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda mark: {"a": torch.ones(2), "b": Evil(os.mkdir, str(mark))},
        lambda mark: {"a": torch.ones(2), "b": Evil(eval, f"__import__('os').mkdir({str(mark)!r})")},
        lambda mark: {"a": torch.ones(2), "b": Evil(getattr, "x", "upper")},
        lambda mark: {"a": torch.nn.Linear(2, 2)},
        lambda mark: {"a": 1},
        lambda mark: [torch.ones(2)],
        lambda mark: {"a": torch.ones(1).expand(1000, 1000)},
        lambda mark: {"a": torch.ones(2, dtype=torch.complex64)},
    ],
)
def test_what_is_no_tensor_ends_the_reading_and_nothing_has_run(tmp_path: Path, make: Any, old: bool) -> None:
    mark = tmp_path / "ran"
    folder = save(tmp_path / "model", make(mark), old=old)
    with pytest.raises(SpeciateError, match="no pickle of tensors alone") as refused:
        inspect({"files": [str(folder / "pytorch_model.bin")]})
    assert refused.value.code is Code.REFUSED
    assert not mark.exists()


@given(st.data())
def test_changed_bytes_give_other_tensors_or_an_error_and_never_a_call(data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        folder = save(Path(made) / "model", {"a": torch.ones(2, 3)}, old=data.draw(st.booleans()))
        path = folder / "pytorch_model.bin"
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content)
        try:
            found = inspect({"files": [str(path)]})
        except SpeciateError as error:
            assert error.code is Code.REFUSED  # noqa: PT017
        else:
            assert found["bytes"] <= 2 * len(content)
            assert all(each.startswith(("torch", "collections.OrderedDict")) for each in found["names"])


def test_a_reference_to_a_builtin_by_another_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x041+1\n\x85R.")
    with pytest.raises(SpeciateError) as refused:
        inspect({"files": [str(path)]})
    assert "refers to builtins.eval" in refused.value.foreign
    with pytest.raises(pickle.UnpicklingError):
        convert(path, tmp_path / "out")


@pytest.fixture
def app(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with contextlib.closing(Pool(workspace.folders, workspace.settings, size=1)) as pool:
        yield dataclasses.replace(make_app(workspace), pool=pool)


def run_job(workspace: Workspace, spec: FetchSpec) -> dict[str, Any]:
    folder = RunFolder(workspace.folders.runs / "job-f.1")
    payload = fetch.plan(spec, workspace).payload_json()
    folder.create({"payload": payload, "job": "job-f", "workspace": str(workspace.folders.root)})
    (folder.outputs / "result.json").write_text(json.dumps(fetch.run(Run(folder))))
    row = Job(id=JobId("job-f"), kind="fetch", spec={}, fingerprint="", state=State.RUNNING, created=0.0, changed=0.0)
    collected = fetch.collect(folder)
    return workspace.database.transact(lambda tx: fetch.commit(tx, row, collected))


def approved_spec(workspace: Workspace, asked: NeedsApproval) -> FetchSpec:
    """Of the job that the person's answer began."""
    made = approvals.decide(workspace, asked.approval.id, True, "ada")
    assert made.result is not None, made.reason
    ((stored,),) = workspace.database.read("SELECT spec FROM jobs WHERE id = ?", [str(made.result["job"])])
    return FetchSpec.model_validate_json(stored)


@pytest.fixture
def named(workspace: Workspace) -> Path:
    """A place that tools may read."""
    folder = workspace.folders.root / "exports"
    folder.mkdir(exist_ok=True)
    return folder


def test_a_person_approves_bytes_and_a_version_of_safetensors_is_made(app: App, named: Path) -> None:
    workspace, state = app.workspace, weights()
    names = sorted(state)
    folder = named / "theirs"
    save(folder, {name: state[name] for name in names[:5]}, name="pytorch_model-00001-of-00002.bin")
    save(folder, {name: state[name] for name in names[5:]}, name="pytorch_model-00002-of-00002.bin", old=True)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"whole": "pytorch_model.bin"}}))
    asked = register_model(app, "theirs", source=f"path:{folder}")
    assert isinstance(asked, NeedsApproval)
    files = asked.evidence["files"]
    assert files == pickled_weights.hash_files(folder, sorted(files))
    assert asked.evidence["holds"]["tensors"] == len(state)
    assert "torch._utils._rebuild_tensor_v2" in asked.evidence["holds"]["names"]
    assert registry.versions(workspace.database, "theirs") == []
    again = register_model(app, "theirs", source=f"path:{folder}")
    assert isinstance(again, NeedsApproval)
    assert again.approval.id == asked.approval.id
    spec = approved_spec(workspace, asked)
    assert run_job(workspace, spec)["model"] == "theirs@v1"
    version = registry.resolve(workspace.database, workspace.folders, "theirs")
    assert not list(version.path.glob("*.bin*"))
    assert version.card.recipe["converted"] == {name: each["sha256"] for name, each in files.items()}
    where = json.loads((version.path / "model.safetensors.index.json").read_text())["weight_map"]
    assert sorted(where) == names
    for name, file in where.items():
        assert torch.equal(load_file(version.path / file)[name], state[name].detach())


def test_other_bytes_than_the_approved_ones_are_not_converted(app: App, named: Path, tmp_path: Path) -> None:
    folder = save(named / "theirs", weights())
    asked = register_model(app, "theirs", source=f"path:{folder}")
    assert isinstance(asked, NeedsApproval)
    spec = approved_spec(app.workspace, asked)
    save(folder, weights() | {"more": torch.ones(3)})
    with pytest.raises(SpeciateError, match="is not what was approved") as refused:
        run_job(app.workspace, spec)
    assert refused.value.code is Code.REFUSED
    save(folder, {"a": Evil(os.mkdir, str(tmp_path / "ran"))})
    shutil.rmtree(app.workspace.folders.runs / "job-f.1")
    with pytest.raises(SpeciateError) as refused:  # by the scanner, where it is installed
        run_job(app.workspace, spec)
    assert refused.value.code is Code.REFUSED
    assert not (tmp_path / "ran").exists()


def test_nobody_is_asked_about_a_pickle_that_calls_something(app: App, named: Path, tmp_path: Path) -> None:
    folder = save(named / "theirs", {"a": Evil(os.mkdir, str(tmp_path / "ran"))})
    with pytest.raises(SpeciateError, match="no pickle of tensors alone") as refused:
        register_model(app, "theirs", source=f"path:{folder}")
    assert "mkdir" in refused.value.foreign
    assert approvals.list_approvals(app.workspace.database, 0.0) == []


def test_before_that_such_a_folder_is_refused_with_the_call_that_asks(workspace: Workspace, tmp_path: Path) -> None:
    folder = save(tmp_path / "Their Model", weights())
    for call in (
        lambda: folder_id(folder),
        lambda: fetch.plan(FetchSpec(name="theirs", source=f"path:{folder}"), workspace),
    ):
        with pytest.raises(SpeciateError, match="pickles") as refused:
            call()
        (then,) = refused.value.next
        assert (then.tool, then.arguments) == ("register_model", {"name": "their-model", "source": f"path:{folder}"})
