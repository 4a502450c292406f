"""The files that tasks begin with: small, drawn with a seed, and each with the trouble that its task is about."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

GOOD = ["lovely", "fine", "great", "warm", "sturdy", "quick", "friendly", "bright"]
BAD = ["broken", "slow", "cold", "awful", "late", "torn", "rude", "dull"]
ONLINE = ["quick", "friendly", "bright", "torn", "rude", "dull"]
PLAIN = [
    "the",
    "parcel",
    "chair",
    "lamp",
    "arrived",
    "was",
    "and",
    "with",
    "box",
    "table",
    "on",
    "monday",
    "for",
    "our",
    "kitchen",
    "again",
]


def reviews(
    path: Path,
    n: int = 240,
    seed: int = 1,
    signal: float = 1.0,
    authors: int = 60,
    old_right: float = 0.7,
    wrong: float = 0.0,
    planted: Sequence[str] = (),
    copies: int = 0,
    dialects: bool = False,
) -> None:
    """A CSV of reviews: id, author, shop, text, verdict, old_system.

    `signal`: share of texts that tell their verdict. `old_right`: how often the system in use is right. `wrong`: share
    of verdicts that are turned; column `turned` says which. `planted`: texts that are added at the end. `copies`: so
    many first rows appear twice. `dialects`: the online shop's customers praise and complain in words of their own.
    """
    draw = random.Random(seed)
    rows = []
    for number in range(n):
        good = draw.random() < 0.5
        told = draw.random() < signal
        shop = ("north", "south", "online")[number % 3]
        tone = (GOOD if good else BAD) if told else GOOD + BAD
        if dialects:
            tone = [word for word in tone if (word in ONLINE) == (shop == "online")]
        words = [draw.choice(PLAIN) for _ in range(10)] + [draw.choice(tone) for _ in range(3)]
        draw.shuffle(words)
        turned = draw.random() < wrong
        verdict = "good" if good != turned else "bad"
        old = verdict if draw.random() < old_right else ("bad" if verdict == "good" else "good")
        rows.append([f"r{number}", f"author{number % authors}", shop, " ".join(words), verdict, old, turned])
    rows += [[f"r{n + i}", "author0", "north", text, "good", "good", False] for i, text in enumerate(planted)]
    rows += [[f"c{i}", *rows[i][1:]] for i in range(copies)]
    _write_csv(path, ["id", "author", "shop", "text", "verdict", "old_system", "turned"], rows)


def patients(path: Path, patients: int = 80, visits: int = 4, seed: int = 2) -> None:
    """A CSV of visits: patient, age, pulse, marker, ill. All visits of a patient are alike."""
    draw = random.Random(seed)
    rows = []
    for number in range(patients):
        ill = draw.random() < 0.5
        age, marker = draw.randint(20, 90), draw.gauss(2.0 if ill else 0.0, 1.0)
        for _ in range(visits):
            rows.append([f"p{number}", age, draw.randint(55, 110), round(marker + draw.gauss(0, 0.05), 3), _yes(ill)])
    _write_csv(path, ["patient", "age", "pulse", "marker", "ill"], rows)


def houses(path: Path, n: int = 300, seed: int = 3) -> None:
    """A CSV for regression: area, rooms, year, district, price."""
    draw = random.Random(seed)
    rows = []
    for _ in range(n):
        area, rooms, year = draw.randint(30, 200), draw.randint(1, 6), draw.randint(1900, 2020)
        district = draw.choice(["hill", "port", "old town"])
        price = area * 21 + rooms * 90 + (year - 1900) * 4 + {"hill": 400, "port": 0, "old town": 900}[district]
        rows.append([area, rooms, year, district, round(price + draw.gauss(0, 120))])
    _write_csv(path, ["area", "rooms", "year", "district", "price"], rows)


def pictures(path: Path, n: int = 24, broken: int = 0, seed: int = 4) -> None:
    """A folder of PNG files in `round/` and `square/`, of which some are cut off."""
    draw = np.random.default_rng(seed)
    for number in range(n):
        kind = ("round", "square")[number % 2]
        grid = np.indices((32, 32)) - 15.5 + draw.integers(-4, 5, (2, 1, 1))
        inside = np.hypot(*grid) < 8 if kind == "round" else np.abs(grid).max(0) < 7
        pixels = np.where(inside[..., None], draw.integers(120, 255, 3), draw.integers(0, 60, 3)).astype(np.uint8)
        (path / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path / kind / f"{number:03}.png")
    for cut in sorted(path.rglob("*.png"))[:broken]:
        cut.write_bytes(cut.read_bytes()[:40])


def orders(path: Path, n: int = 120, seed: int = 5) -> None:
    """Two files of one folder: `orders.jsonl` (order, customer, amount) and `customers.csv` (customer, country)."""
    draw = random.Random(seed)
    path.mkdir(parents=True, exist_ok=True)
    lines = [
        {"order": f"o{i}", "customer": f"c{draw.randrange(20)}", "amount": round(draw.uniform(5, 500), 2)}
        for i in range(n)
    ]
    (path / "orders.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    _write_csv(path / "customers.csv", ["customer", "country"], [[f"c{i}", "de" if i % 3 else "fr"] for i in range(20)])


def signals(path: Path, n: int = 6, steps: int = 200, seed: int = 6) -> None:
    """A long CSV of sensors: sensor, time, value."""
    draw = random.Random(seed)
    rows = [[f"s{sensor}", step, round(draw.gauss(sensor % 2, 0.3), 4)] for sensor in range(n) for step in range(steps)]
    _write_csv(path, ["sensor", "time", "value"], rows)


MAKERS: dict[str, Callable[..., None]] = {
    each.__name__: each for each in (reviews, patients, houses, pictures, orders, signals)
}


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
