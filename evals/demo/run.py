"""The whole way from data to a model in production, through a real MCP client over stdio: four models that are
specialized, and one that others published, as it is.

`make demo` runs it. The workspace and the data stay in `build/demo/`: a second run finds every job done and is quick.
Remove that folder to start again. Needs no network beyond what the package manager fetches. `make demo SMALL=1` leaves
out what needs torch: the pretrained encoders and speech.
"""

from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import speech
from scenes import Round, Scene, scenes, without_torch
from session import Refused, Session, connect

_ROOT = Path(__file__).resolve().parent.parent.parent
_SMALL = "--small" in sys.argv[1:]
_HOME = _ROOT / "build" / ("demo-small" if _SMALL else "demo")


class Line(NamedTuple):
    """One row of the ledger."""

    use_case: str
    incumbent: str
    candidate: str
    verdict: str
    time_to_model: str


def main() -> None:
    started = time.perf_counter()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # also into a file or a pipe
    workspace = _HOME / "workspace"
    print("Real data from packages ...")
    stories = scenes(_HOME / "data")
    if _SMALL:
        stories = [without_torch(scene) for scene in stories]
    if workspace.exists():
        print(f"build/{_HOME.name}/ holds an earlier run: what was done then is shown again, not repeated.")
        print("Predictions are live, so digits come from the version that the rollback left in production.")
    else:
        _speciate("init", "--policy", "auto", workspace=workspace)
    try:
        anyio.run(_tell, stories, workspace)
    except* Refused as refusals:  # inside the client's task group, so in a group
        sys.exit("\n".join(str(refusal) for refusal in _each(refusals)))
    finally:
        _speciate("stop", workspace=workspace)
    print(f"\n{time.perf_counter() - started:.0f} s in all. Everything is in {_HOME.relative_to(_ROOT)}/.")


def _each(group: BaseExceptionGroup[Refused]) -> list[Refused]:
    return [
        one for item in group.exceptions for one in (_each(item) if isinstance(item, BaseExceptionGroup) else [item])
    ]


def _speciate(*arguments: str, workspace: Path) -> None:
    command = [str(Path(sys.executable).parent / "speciate"), *arguments, "--workspace", str(workspace)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


async def _tell(stories: list[Scene], workspace: Path) -> None:
    lines: list[Line] = []
    async with connect(workspace) as session:
        for scene in stories:
            lines += await _play(session, scene)
        if not _SMALL:
            await speech.tell(session, _HOME / "data")
        await _ledger(session, lines)


async def _play(session: Session, scene: Scene) -> list[Line]:
    print(f"\n{scene.title}\n  {scene.story}")
    await session.once("define_use_case", **scene.use_case)
    results = [await _round(session, scene, round_) for round_ in scene.rounds]
    if scene.roll_back and results[-1]["promotion"]["state"] == "applied":
        await _roll_back(session, scene, results[-1]["model"])
    status = await session.call("get_status", use_case=scene.name)
    clock = status["use_cases"][0]["time_to_model"]
    told = f"{clock['seconds']:.1f} s ({clock['state']})"
    return [_line(scene.name, result, told if number == 0 else "") for number, result in enumerate(results)]


async def _round(session: Session, scene: Scene, round_: Round) -> dict[str, Any]:
    print(f"\n  {round_.why}")
    made = await session.job("reading data", "create_dataset", **round_.dataset)
    described = await session.call("describe_dataset", dataset=made["dataset"])
    print(f"  {described['version']}: {described['examples']} examples, splits {described['splits']}")
    result = await session.job(
        "specialize", "specialize", use_case=scene.name, dataset=made["dataset"], **round_.specialize
    )
    _show(result)
    if result["promotion"]["state"] == "applied":
        await _ask(session, scene)
    return result


def _show(result: dict[str, Any]) -> None:
    """Candidates, the decision and what it rests on."""
    decision = result["decision"]
    if (report := result.get("report")) is None:  # the budget ended before the evaluation did
        print(f"  decision  {decision['verdict'].upper()}: {' '.join(decision['reasons'])}")
        return
    print(f"  incumbent {report['baseline']:<24} {_quality(report, report['baseline'])}")
    for candidate in result["candidates"]:
        method = " on ".join(filter(None, (candidate["method"], candidate.get("base_model"))))
        print(f"  candidate {candidate['model']:<24} {_value(candidate)}  {method}, {candidate['seconds']:.1f} s")
    print(f"  evidence  {_evidence(report)}")
    print(f"  decision  {decision['verdict'].upper()}")
    for reason in decision["reasons"]:
        print(f"            - {reason}")
    if decision.get("needed_examples"):
        more, rows = decision["needed_examples"], report["n"]
        print(f"            {more:,} more test rows ({more + rows:,} in all) would settle it")
    print(f"  promotion {result['promotion']['state']}")


def _value(row: dict[str, Any]) -> str:
    if row["value"] is None:
        return "-"
    low, high = row["interval"] or (None, None)
    return f"{row['value']:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low is not None else "")


def _evidence(report: dict[str, Any]) -> str:
    """The paired comparison of the candidate with the incumbent."""
    found = next((pair for pair in report["comparisons"] if pair["candidate"] == report["candidate"]), None)
    if found is None or found["interval"] is None:
        return "no paired comparison"
    low, high = found["interval"]
    smallest = found.get("minimum_detectable_effect")
    return (
        f"{report['metric']} differs by {found['delta']:+.3f} [{low:+.3f}, {high:+.3f}] "
        f"on the same {report['n']} test rows"
        + (f"; they find {smallest:.3f} four times out of five" if smallest else "")
    )


def _quality(report: dict[str, Any], model: str) -> str:
    return next((_value(row) for row in report["leaderboard"] if row["model"] == model), "-")


async def _ask(session: Session, scene: Scene) -> None:
    answer = await session.call("predict", use_case=scene.name, inputs=list(scene.ask))
    print(f"  {scene.name}@production is {answer['model']} ({answer['latency_ms']:.0f} ms):")
    for question, prediction in zip(scene.ask, answer["predictions"], strict=True):
        shown = question.get("text") or "/".join(Path(question["path"]).parts[-3:])
        confidence = f" ({prediction['confidence']:.2f})" if prediction.get("confidence") is not None else ""
        print(f"    {shown[:60]:<60} {prediction['untrusted']['output']}{confidence}")


async def _roll_back(session: Session, scene: Scene, model: str) -> None:
    """Back to the version before; a second run of the demo repeats the call and gets the first one's answer."""
    moved = await session.once(
        "rollback_model", use_case=scene.name, expected_current=model, reason=f"demo: {scene.roll_back}"
    )
    print(f"\n  Rolled back from {moved['from']} to {moved['to']}.")
    await _ask(session, scene)


def _line(use_case: str, result: dict[str, Any], time_to_model: str) -> Line:
    verdict = result["decision"]["verdict"]
    if (report := result.get("report")) is None:
        return Line(use_case, "-", "-", verdict, time_to_model)
    return Line(
        use_case,
        f"{report['baseline']} {_quality(report, report['baseline'])}",
        f"{report['candidate']} {_quality(report, report['candidate'])}",
        verdict,
        time_to_model,
    )


async def _ledger(session: Session, lines: list[Line]) -> None:
    status = await session.call("get_status")
    print("\nLedger\n")
    rows = [Line("use case", "incumbent", "candidate", "decision", "time to model"), *lines]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    rate = status.get("change_failure_rate")
    print(
        f"\n  {status['models_deployed_30d']} models deployed in 30 days that survived their bake, "
        f"{status['models_baking_30d']} still in it" + (f", change failure rate {rate:.0%}" if rate is not None else "")
    )


if __name__ == "__main__":
    main()
