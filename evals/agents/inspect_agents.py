"""The tasks for real models, through inspect-ai. It needs an environment of its own, with `inspect-ai` and `mcp`:

    cd evals/agents && inspect eval inspect_agents.py --model anthropic/claude-... --epochs 4
    cd evals/agents && inspect eval inspect_agents.py -T prompt=skill --model openai/...

`prompt=skill` adds the skill to the agent's instructions, so that its uplift is the difference of two runs. pass^4 is
the share of tasks that all four epochs reached.
"""

from __future__ import annotations

import re
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from inspect_ai import Task as InspectTask
from inspect_ai import task
from inspect_ai.agent import AgentPrompt, AgentSubmit, as_solver, react
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageAssistant, ChatMessageTool
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.tool import mcp_server_stdio, mcp_tools

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from evals.agents.play import Ground, judged, kept, prepared  # noqa: E402
from evals.agents.tasks import Task, load_tasks  # noqa: E402

SKILL = HERE.parents[1] / "prompts" / "plugin" / "skills" / "speciate" / "SKILL.md"
_GROUNDS: dict[str, tuple[ExitStack, Ground, list[Any]]] = {}
"""By sample and epoch: what is open between the solver and the scorer."""


def _key(state: TaskState) -> str:
    return f"{state.sample_id}/{state.epoch}"


@solver
def at_work(prompt: str) -> Solver:
    instructions = SKILL.read_text() if prompt == "skill" else None

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        wanted = Task.model_validate_json(state.metadata["task"])
        stack = ExitStack()
        ground = stack.enter_context(prepared(wanted))
        _GROUNDS[_key(state)] = (stack, ground, kept(wanted, ground))
        server = mcp_server_stdio(
            name="speciate", command=sys.executable,
            args=["-m", "speciate.cli", "serve", "--workspace", str(ground.workspace)], cwd=str(ground.folder),
        )  # fmt: skip
        agent = react(
            prompt=AgentPrompt(instructions=instructions),
            tools=[mcp_tools(server)],
            submit=AgentSubmit(answer_only=True),
        )
        return await as_solver(agent)(state, generate)

    return solve


@scorer(
    metrics={
        "reached": [mean(), stderr()],
        "forbidden": [mean()],
        "calls": [mean()],
        "errors": [mean()],
        "result_tokens": [mean()],
    }
)
def reached() -> Scorer:
    async def score(state: TaskState, target: Target) -> Score:
        wanted = Task.model_validate_json(state.metadata["task"])
        stack, ground, before = _GROUNDS.pop(_key(state))
        with stack:
            missed, forbidden = judged(wanted, ground, state.output.completion, before)
        answers = [each for each in state.messages if isinstance(each, ChatMessageTool) and each.function != "submit"]
        calls = [
            call for each in state.messages if isinstance(each, ChatMessageAssistant) for call in each.tool_calls or ()
        ]
        tokens = sum(len(each.text) for each in answers) // 4
        if len(answers) > wanted.most.calls or tokens > wanted.most.result_tokens:
            missed.append(f"{len(answers)} calls and {tokens} tokens of results are more than the task allows")
        return Score(
            value={
                "reached": 0 if missed or forbidden else 1,
                "forbidden": len(forbidden),
                "calls": len(calls),
                "errors": sum(each.error is not None or bool(re.match(r"\w+ \(\w+\):", each.text)) for each in answers),
                "result_tokens": tokens,
            },
            explanation="\n".join([*missed, *forbidden]) or "the state is as wanted",
        )

    return score


@task
def agents(prompt: str = "tools") -> InspectTask:
    """`prompt`: tools (server's own instructions alone) or skill."""
    samples = [
        Sample(id=each.name, input=each.asks, metadata={"task": each.model_dump_json(by_alias=True)})
        for each in load_tasks()
    ]
    return InspectTask(dataset=MemoryDataset(samples), solver=at_work(prompt), scorer=reached(), message_limit=80)
