"""A task for an agent that has a shell and no MCP client of its own: each command is one call, and all are counted.

python -m evals.agents.outside begin leak-by-patient one    # the start state; prints the wish in the user's words
python -m evals.agents.outside tools one                    # what a host shows: instructions and tools
python -m evals.agents.outside prompt one curate '{"data": "visits.csv"}'
python -m evals.agents.outside call one create_dataset '{"name": "visits", ...}'
python -m evals.agents.outside read one speciate://docs/index
python -m evals.agents.outside end one "the last message"   # judged through another door; result.json
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, TypedDict

import anyio
from mcp import Client

from evals.agents.play import Ground, judged, kept, prepare, run_speciate, server_of
from evals.agents.tasks import Task, load_tasks


class _Noted(TypedDict):
    """A line of calls.jsonl."""

    what: str
    name: str
    arguments: dict[str, Any]
    error: bool
    characters: int


def begin(name: str, place: Path) -> None:
    """Make the task's start state in a new folder and print what the user wants."""
    task = next(each for each in load_tasks() if each.name == name)
    ground = Ground(place / "workspace", place / "folder", {})
    prepare(task, ground)
    before = kept(task, ground)
    (place / "start.json").write_text(json.dumps({"task": name, "answers": ground.answers, "before": before}))
    print(task.asks)


def _begun(place: Path) -> tuple[Task, Ground, list[Any]]:
    start = json.loads((place / "start.json").read_text())
    task = next(each for each in load_tasks() if each.name == start["task"])
    return task, Ground(place / "workspace", place / "folder", start["answers"]), start["before"]


async def ask(place: Path, what: str, name: str, arguments: dict[str, Any]) -> None:
    """Send one request as a client does, print what comes back, and note what it cost."""
    _, ground, _ = _begun(place)
    error = False
    async with Client(server_of(ground)) as client:
        if what == "call":
            answer = await client.call_tool(name, arguments)
            error = bool(answer.is_error)
            text = " ".join(getattr(part, "text", "[an image]") for part in answer.content)
        elif what == "read":
            text = "\n".join(
                str(getattr(part, "text", "[bytes]")) for part in (await client.read_resource(name)).contents
            )
        elif what == "prompt":
            got = await client.get_prompt(name, {key: str(value) for key, value in arguments.items()})
            text = "\n".join(str(getattr(message.content, "text", "")) for message in got.messages)
        else:
            tools = (await client.list_tools()).tools
            text = f"{client.instructions}\n\n" + "\n\n".join(
                f"{tool.name}: {tool.description}\n{json.dumps(tool.input_schema)}" for tool in tools
            )
    noted = _Noted(what=what, name=name, arguments=arguments, error=error, characters=len(text))
    with (place / "calls.jsonl").open("a") as file:
        file.write(json.dumps(noted) + "\n")
    print(text)


def end(place: Path, said: str) -> None:
    """Judge what was reached, and stop the workspace's daemon. Prints nothing of it: the agent has had its turn."""
    task, ground, before = _begun(place)
    missed, forbidden = judged(task, ground, said, before)
    run_speciate("stop", workspace=ground.workspace)
    noted: list[_Noted] = [json.loads(line) for line in (place / "calls.jsonl").read_text().splitlines()]
    calls = [each for each in noted if each["what"] == "call"]
    result = {
        "task": task.name, "reached": not (missed or forbidden), "missed": missed, "forbidden": forbidden,
        "calls": len(calls), "waits": sum(each["name"] == "wait_for_job" for each in calls),
        "errors": sum(each["error"] for each in calls), "result_tokens": sum(each["characters"] for each in calls) // 4,
        "read_tokens": sum(each["characters"] for each in noted if each["what"] in ("read", "prompt")) // 4,
        "said": said,
    }  # fmt: skip
    (place / "result.json").write_text(json.dumps(result, indent=1))
    print("noted")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("begin", "tools", "call", "read", "prompt", "end"))
    parser.add_argument("words", nargs="+")
    given = parser.parse_args()
    match given.what, given.words:
        case "begin", [name, place]:
            begin(name, Path(place))
        case "end", [place, said]:
            end(Path(place), said)
        case "tools" | "call" | "read" | "prompt", [place, *rest] if len(rest) <= 2:
            name, arguments = [*rest, "", "{}"][0], json.loads(rest[1]) if len(rest) > 1 else {}
            anyio.run(ask, Path(place), given.what, name, arguments)
        case _:
            parser.error("see the examples")
    return 0


if __name__ == "__main__":
    sys.exit(main())
