"""Files of rewards as callers name them: read below the caller's roots alone, and bound to their bytes in the plan."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from speciate.errors import Code, SpeciateError
from speciate.server.tool_api import App, Caller
from speciate.tools.training import _with_files_below_a_root as placed
from speciate.workspace.workspace import Workspace
from tests.models.language.world import tiny_model
from tests.server.apps import make_app
from tests.training.language.world import make_sums, payload

FILE = "def reward(questions, answers, truths, columns):\n    return [float(len(each)) for each in answers]\n"


@pytest.fixture
def app(workspace: Workspace, tmp_path: Path) -> App:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "mine.py").write_text(FILE)
    return replace(make_app(workspace), caller=Caller(tmp_path / "home", "test", "stdio"))


def test_a_file_starts_at_the_callers_folder_and_leads_nowhere_else(app: App, tmp_path: Path) -> None:
    given = {"max_steps": 2, "rewards": [{"kind": "python", "file": "mine.py:reward"}, {"kind": "exact"}, "nonsense"]}
    assert placed(app, given) == {
        "max_steps": 2,
        "rewards": [{"kind": "python", "file": f"{tmp_path}/home/mine.py:reward"}, {"kind": "exact"}, "nonsense"],
    }
    for outside in ("../secret.py:reward", "/etc/passwd:reward"):
        with pytest.raises(SpeciateError) as refused:
            placed(app, {"rewards": [{"kind": "python", "file": outside}]})
        assert refused.value.code is Code.REFUSED


@pytest.mark.slow
def test_a_plan_binds_a_file_to_its_bytes(workspace: Workspace, tmp_path: Path) -> None:
    make_sums(workspace)
    file = tmp_path / "mine.py"
    file.write_text(FILE)
    asked = payload(
        workspace, name="pupil", dataset="sums", method="grpo", base_model=tiny_model(tmp_path / "base"),
        resources={"cpu": 1}, hyperparameters={"rewards": [{"kind": "python", "file": f"{file}:reward"}]},
    )  # fmt: skip
    (bound,) = asked["parameters"]["rewards"]
    assert bound["sha256"] == hashlib.sha256(FILE.encode()).hexdigest()
    assert bound["file"] == f"{file}:reward"
