"""Environments with tools: what is read of their files, what their cage keeps, and a model that learns to call one."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.modalities.messages import Message
from speciate.server.tool_api import Caller
from speciate.tools.training import train_model
from speciate.training.language.questions import Question
from speciate.training.language_hyperparameters import EnvironmentSpec
from speciate.training.rewards.tool_environment import EnvironmentHost, ToolFailed, describe_environment, read_tool
from speciate.workspace.workspace import Workspace
from tests.models.language.world import tiny_model, tiny_tokenizer
from tests.training.language.world import (
    Killed,
    attempt,
    base,
    broken_off,
    model_id,
    payload,
    run,
    saving_each_step,
)
from tests.training.world import make_dataset, model_path, train_now

DESK = '''
"""Runs nothing here."""
import os, time

class Desk:
    def reset(self, prompt, truth, colour, **row):
        self.colour, self.asked = colour, 0

    def look(self, at: str = "wall") -> str:
        """Say the colour of a thing.

        Args:
            at: Which thing.
        """
        self.asked += 1
        if at == "fire":
            os._exit(3)
        if at == "sleep":
            time.sleep(60)
        if at == "file":
            return open("/etc/passwd").read()
        return self.colour if at == "wall" else {"at": at}

    def get_reward(self):
        return float(self.asked > 0)

    def _private(self):
        pass
'''
_TEMPLATES = Path(str(find_spec("trl").submodule_search_locations[0])) / "chat_templates"  # type: ignore[union-attr, index]  # it is installed
QWEN = (_TEMPLATES / "qwen3.jinja").read_text()
QUESTION = Question(Example("x", "hi", None, "x", "train", {"colour": "red"}), (Message("user", "hi"),), "yes")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[EnvironmentHost]:
    (tmp_path / "desk.py").write_text(DESK)
    spec = EnvironmentSpec(file=f"{tmp_path}/desk.py:Desk", seconds=2)
    host = EnvironmentHost(spec, describe_environment(spec), [QUESTION], tmp_path, "required")
    yield host
    host.close()


def test_a_file_is_read_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "desk.py").write_text("raise SystemExit('run')\n" + DESK)
    found = describe_environment(EnvironmentSpec(file=f"{tmp_path}/desk.py:Desk"))
    assert [each.name for each in found.tools] == ["look"]
    assert found.rewards
    assert str(found.tools[0].signature) == "(*, at: str = 'wall') -> str"


def test_a_method_that_must_be_waited_for_is_refused(tmp_path: Path) -> None:
    (tmp_path / "desk.py").write_text(DESK + "\n    async def wait(self) -> str:\n        'Wait.'\n")
    with pytest.raises(SpeciateError, match="wait is async"):
        describe_environment(EnvironmentSpec(file=f"{tmp_path}/desk.py:Desk"))


@pytest.mark.parametrize(
    ("head", "why"),
    [
        ("def f(self, a: int) -> str:\n  pass", "no docstring"),
        ("def f(self, a) -> str:\n  'Do.'", "annotated with none of"),
        ("def f(self, a: os.PathLike) -> str:\n  'Do.'", "annotated with none of"),
        ("def f(self, *a: int) -> str:\n  'Do.'", "without names"),
        ("def f(self, a: int = g()) -> str:\n  'Do.'", "no plain value"),
        ("@staticmethod\ndef f(a: int) -> str:\n  'Do.'", "no plain method"),
    ],
)
def test_what_cannot_be_told_to_a_model_is_no_tool(head: str, why: str) -> None:
    (method,) = ast.parse(head).body
    assert isinstance(method, ast.FunctionDef)
    with pytest.raises(ValueError, match=why):
        read_tool(method)


def test_annotations_become_types() -> None:
    (method,) = ast.parse("def f(self, a: list[str], b: dict[str, int] | None = None):\n  'Do.'").body
    assert isinstance(method, ast.FunctionDef)
    kinds = {name: each.annotation for name, each in read_tool(method).signature.parameters.items()}
    assert kinds == {"a": list[str], "b": dict[str, int] | None}


def test_calls_go_to_the_cage_and_come_back_as_texts(desk: EnvironmentHost) -> None:
    first, second = desk.kind(), desk.kind()
    first.reset(place=0)
    second.reset(place=0)
    assert first.look(at="wall") == "red"
    assert first.look(at="door") == '{"at": "door"}'  # a list of pictures would be loaded
    assert (first._reward(), second._reward()) == (1.0, 0.0)
    assert [name for name, _ in inspect.getmembers(type(first), inspect.isfunction) if name[0] != "_"] == [
        "look",
        "reset",
    ]
    with pytest.raises(ToolFailed, match="unexpected keyword"):
        first.look(where="wall")
    with pytest.raises(ToolFailed):
        first.look(at="file")


def test_a_process_that_ends_or_hangs_costs_its_environments_and_then_the_run(desk: EnvironmentHost) -> None:
    made = desk.kind()
    for at, why in (("fire", "ended"), ("sleep", "more than 2 s"), ("fire", "ended")):
        made.reset(place=0)
        with pytest.raises(ToolFailed, match=why):
            made.look(at=at)
        if desk._kept.lost < 3:
            with pytest.raises(ToolFailed, match="ended with its process"):
                made.look(at="wall")
    with pytest.raises(SpeciateError, match="cannot be begun with the example x: 3 calls before it"):
        made.reset(place=0)


def test_a_file_that_has_changed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "desk.py").write_text(DESK)
    found = describe_environment(EnvironmentSpec(file=f"{tmp_path}/desk.py:Desk"))
    (tmp_path / "desk.py").write_text(DESK + "\n")
    with pytest.raises(SpeciateError, match="has changed"):
        describe_environment(EnvironmentSpec(file=f"{tmp_path}/desk.py:Desk", sha256=found.sha256))


@pytest.mark.parametrize(
    "given",
    [
        {"environment": {"file": "/etc/desk.py:Desk"}},
        {"environment": {"file": "../desk.py:Desk"}},
        {"rewards": [{"kind": "exact"}, {"kind": "python", "file": "../bad.py:bad"}]},
    ],
)
def test_files_outside_the_callers_roots_are_refused(
    workspace: Workspace, tmp_path: Path, given: dict[str, Any]
) -> None:
    (tmp_path / "mine").mkdir()
    app: Any = SimpleNamespace(workspace=workspace, caller=Caller(tmp_path / "mine", "test", "python"))
    with pytest.raises(SpeciateError) as refusal:
        train_model(app, name="pupil", dataset="walls", method="grpo", hyperparameters=given)
    assert refusal.value.code is Code.REFUSED


def _walls(workspace: Workspace, name: str, questions: list[str], answers: list[str]) -> None:
    count = len(answers)
    make_dataset(
        workspace, name, "text",
        {"prompt": questions, "completion": answers, "colour": ["red"] * count},
        labels=[""] * count, splits=["validation" if at % 5 == 4 else "train" for at in range(count)],
        inputs=["prompt"],
    )  # fmt: skip


def _caller(folder: Path, texts: list[str]) -> str:
    """A model whose template trl knows, and which sees enough for it."""
    ref = tiny_model(folder, QWEN, texts=texts)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}))
    return ref


def test_a_template_that_trl_does_not_know_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "desk.py").write_text(DESK)
    _walls(workspace, "walls", [f"what {at}?" for at in range(20)], ["red"] * 20)
    asked = payload(
        workspace, name="pupil", dataset="walls", method="grpo", base_model=base(tmp_path / "base"),
        hyperparameters={"batch_size": 8, "num_generations": 4, "environment": {"file": f"{tmp_path}/desk.py:Desk"}},
    )  # fmt: skip
    assert asked["parameters"]["rewards"] == []  # the environment has its own
    with pytest.raises(SpeciateError, match="no chat template that shows calls of tools"):
        run(attempt(workspace, asked, "job-x"))


@pytest.mark.slow
def test_a_model_learns_to_call_a_tool(workspace: Workspace, desk: EnvironmentHost, tmp_path: Path) -> None:
    """It says a call as often as anything else; what the environment rewards are calls."""
    from transformers.utils import get_json_schema

    call = '<tool_call>\n{"name": "look", "arguments": {"at": "wall"}}\n</tool_call>'
    questions = [f"what {at}?" for at in range(60)]
    shown = [
        tiny_tokenizer(QWEN).apply_chat_template(
            [{"role": "user", "content": each}], tools=[get_json_schema(desk.kind().look)], tokenize=False,
            add_generation_prompt=True,
        )
        for each in questions
    ]  # fmt: skip
    ref = _caller(tmp_path / "base", [*shown, call] * 3)
    _walls(workspace, "both", [each for each in shown for _ in range(2)], [call, "no idea"] * 60)
    _walls(workspace, "walls", questions, ["red"] * 60)
    usual: dict[str, Any] = {"changes": "full", "max_length": 2000}
    train_now(
        workspace, "job-base", name="says", dataset="both", method="sft", base_model=ref,
        hyperparameters=usual | {
            "num_train_epochs": 15, "batch_size": 16, "learning_rate": 5e-3, "judged": 0, "template": "plain",
            "max_new_tokens": 64,
        },
    )  # fmt: skip
    report = train_now(
        workspace, "job-pupil", name="pupil", dataset="walls", method="grpo",
        base_model=f"path:{model_path(workspace, 'says')}",
        hyperparameters=usual | {
            "max_steps": 8, "batch_size": 32, "learning_rate": 1e-3, "judge_every": 4, "judged": 4, "beta": 0,
            "max_new_tokens": 96, "template": "chat", "environment": {"file": f"{tmp_path}/desk.py:Desk",
            "max_tool_calling_iterations": 1},
        },
    )["report"]  # fmt: skip
    held = [each["reward"] for each in report["watched"]["held"]]
    print(held, report["watched"]["rewards"])
    assert report["watched"]["rewards"]["environment"]["calls"] > 0
    assert held[-1] > held[0]
    assert any("asks it" in note or "ask it without tools" in note for note in report["notes"])


@pytest.mark.slow
def test_a_training_in_an_environment_that_is_broken_off_ends_in_the_same_bits(
    workspace: Workspace, tmp_path: Path
) -> None:
    """What the environment draws is drawn again."""
    drawn = DESK.replace("import os, time", "import os, random, time").replace(
        "float(self.asked > 0)", "random.random()"
    )
    (tmp_path / "desk.py").write_text(drawn)
    _walls(workspace, "walls", [f"what {at}?" for at in range(20)], ["red"] * 20)
    asked = payload(
        workspace, name="pupil", dataset="walls", method="grpo", resources={"cpu": 1},
        base_model=_caller(tmp_path / "base", [f"what {at}?" for at in range(20)]),
        hyperparameters={
            "changes": "full", "max_steps": 4, "batch_size": 8, "num_generations": 4, "learning_rate": 1e-3,
            "judge_every": 2,
            "judged": 2, "max_new_tokens": 8, "max_length": 2000, "environment": {"file": f"{tmp_path}/desk.py:Desk"},
        },
    )  # fmt: skip
    whole = run(attempt(workspace, asked, "job-whole"))
    with saving_each_step():
        folder = attempt(workspace, asked, "job-broken")
        with broken_off(3, "kill"), pytest.raises(Killed):
            run(folder)
        result = run(attempt(workspace, asked, "job-broken", folder))
    assert result["report"]["watched"] == whole["report"]["watched"]
    assert model_id(result) == model_id(whole)
