"""Whisper tiny after minutes of fine-tuning on sentences of a domain, heard in a voice that it has not learned from.

    python evals/demo/speech_tuned.py      (make speech-tuned)

Sentences about doses of medicines, such as "give two tablets of warfarin tonight", are spoken by voices of CMU's Flite
(Debian's package, unpacked and not installed), in noise: 48 by two voices for training, 12 more of these voices for
validation, 24 others by a third voice for the test. No sentence is in two splits. OpenAI's whisper-tiny.en as published
stands beside the same model after `train_model(method="full")` with its own head, all through an MCP client.
"""

from __future__ import annotations

import csv
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import published_weights as weights
import speech
from published_models import HOME
from session import Refused, Session, connect

USE_CASE = "dosages"
COUNTS, NAMES = (
    ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"],
    ("amlodipine", "metoprolol", "atorvastatin", "warfarin", "furosemide", "levothyroxine"),
)
THINGS, WHEN = ("tablets", "ampoules", "drops"), ("today", "tonight", "tomorrow")
SPLITS = {"train": (48, ("slt", "awb")), "validation": (12, ("slt", "awb")), "test": (24, ("rms",))}
"""Split -> how many sentences, and by which voices in turn."""
_NOISE = 0.01
_RATE = 16_000
HOW = {"learning_rate": [5e-5], "num_train_epochs": 5, "batch_size": 8, "early_stopping_patience": 5}
_MOST_MINUTES = 10
_LOADING_SECONDS = 300


def sentences(count: int) -> list[str]:
    found = [
        f"give {number} {thing} of {name} {when}"
        for number, thing, name, when in itertools.product(COUNTS, THINGS, NAMES, WHEN)
    ]
    return [found[place] for place in np.random.default_rng(0).permutation(len(found))[:count].tolist()]


def speak(root: Path, text: str, voice: str, noise: np.random.Generator) -> Any:
    import soundfile
    import soxr

    (libraries,) = {path.parent for path in root.glob("usr/lib/**/libflite.so.*")}
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        command = [str(root / "usr/bin/flite"), "-voice", voice, "-t", text, "-o", file.name]
        subprocess.run(command, check=True, env={**os.environ, "LD_LIBRARY_PATH": str(libraries)})
        sound, rate = soundfile.read(file.name, dtype="float32")
    sound = soxr.resample(sound, rate, _RATE)
    return (sound + noise.normal(0, _NOISE, len(sound))).astype(np.float32)


def write(root: Path, out: Path) -> None:
    import soundfile

    out.mkdir()
    noise, texts = np.random.default_rng(1), iter(sentences(sum(count for count, _ in SPLITS.values())))
    with (out / "metadata.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("file_name", "text", "voice", "split"))
        for split, (count, voices) in SPLITS.items():
            for number, text in enumerate(itertools.islice(texts, count)):
                voice, name = voices[number % len(voices)], f"{split}-{number:02}.wav"
                soundfile.write(out / name, speak(root, text, voice, noise), _RATE)
                rows.writerow((name, text, voice, split))


async def tell(session: Session) -> None:
    root = weights.unpack_debian(("flite", "libflite1"), HOME / "flite")
    source = speech.once(HOME / "dosages", lambda out: write(root, out))
    model = f"path:{speech.whisper(HOME)}"
    await session.once(
        "define_use_case", name=USE_CASE, task="automatic-speech-recognition", target_column="text",
        objective={"metric": "wer_normalized"},
    )  # fmt: skip
    made = await session.job("reading", "create_dataset", name="dosages", source=str(source), modality="audio")
    began = time.monotonic()
    trained = await session.job(
        "fine-tuning", "train_model", name="dosages-whisper", dataset=made["dataset"], use_case=USE_CASE,
        method="full", base_model=model, hyperparameters=HOW, budget_minutes=_MOST_MINUTES,
    )  # fmt: skip
    took = time.monotonic() - began
    report = trained["report"]
    print(f"  fine-tuned in {took:.0f} s ({report['seconds']:.0f} s in the job), head: {report.get('published_head')}")
    found = await session.job(
        "listening", "evaluate_models", models=[trained["model"], model], dataset=f"{made['dataset']}:test",
        use_case=USE_CASE,
    )  # fmt: skip
    speech.show(found)
    answer = await _hear(session, trained["model"], source / "test-00.wav")
    print(f"  hears: {answer['predictions'][0]['untrusted']['output']}")
    row = next(row for row in found["report"]["leaderboard"] if row["model"] == trained["model"])
    good = row["value"] <= 0.05 and took <= 60 * _MOST_MINUTES
    print(f"  wanted: at most 0.05 within {_MOST_MINUTES} minutes: {'met' if good else 'not met'}")


async def _hear(session: Session, model: str, file: Path) -> dict[str, Any]:
    """On a busy machine loading the model takes longer than a call waits for it."""
    until = time.monotonic() + _LOADING_SECONDS
    while True:
        try:
            return await session.call("predict", model=model, inputs=[{"path": str(file)}])
        except Refused as reason:
            if "still being loaded" not in str(reason) or time.monotonic() > until:
                raise


async def main() -> None:
    async with connect(HOME / "workspace") as session:
        await tell(session)


if __name__ == "__main__":
    speciate = [str(Path(sys.executable).parent / "speciate")]
    if not (HOME / "workspace").exists():
        command = [*speciate, "init", "--policy", "auto", "--workspace", str(HOME / "workspace")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    try:
        anyio.run(main)
    except* weights.Unavailable as reasons:
        sys.exit(f"left out: {reasons.exceptions[0]}")
    finally:
        subprocess.run([*speciate, "stop", "--workspace", str(HOME / "workspace")], check=False)
