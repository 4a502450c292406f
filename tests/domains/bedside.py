"""Made-up bedside rounds as mixed rows: a handwritten digit, a note and a short hum, of which no one tells the urgency.

The digits, 0 and 1, come with scikit-learn; a 1 and a bad note are a reason each, and the urgency counts the reasons:
`rest`, `check`, `call`. The hum says nothing. Some notes and hums are missing. Every sixth picture comes a second time,
compressed, with a note of its own: the same picture with another answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from PIL import Image
from sklearn.datasets import load_digits

RATE = 8_000
URGENCY = ("rest", "check", "call")
_WHO = ("The patient", "She", "He", "Bed four", "The new arrival", "Mr Ito", "Mrs Okafor")
_GOOD = ("feels well", "sleeps quietly", "has no pain", "eats with appetite", "walks alone")
_BAD = ("feels worse", "sleeps badly", "has strong pain", "eats nothing", "cannot walk")
_WHEN = ("today", "since last night", "as before", "at noon", "since the visit")


class Rounds(NamedTuple):
    folder: Path
    labels: Path
    copies: list[tuple[str, str]]
    """Names of rows with the same picture."""


def write(folder: Path, count: int = 220, seed: int = 0) -> Rounds:
    """`folder/rows/0001/{scan.png, note.txt, hum.wav}` and `folder/labels.csv`."""
    digits, chance = load_digits(), np.random.default_rng(seed)
    drawn = np.flatnonzero(digits.target < 2)[:count]
    lines, copies, number = ["name,urgency"], list[tuple[str, str]](), 0
    for place, digit in enumerate(drawn):
        first = f"{number:04}"
        for suffix in ("png", "jpg")[: 2 if place % 6 == 0 else 1]:
            bad = int(chance.integers(2))
            name = f"{number:04}"
            below = folder / "rows" / name
            below.mkdir(parents=True)
            pixels = (digits.images[digit] * 15).astype(np.uint8)
            Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).save(below / f"scan.{suffix}")
            if number % 12:
                words = [chance.choice(_WHO), chance.choice(_BAD if bad else _GOOD), chance.choice(_WHEN)]
                (below / "note.txt").write_text(" ".join(words) + ".")
            if number % 5:
                time = np.arange(int(RATE * chance.uniform(0.4, 1.0))) / RATE
                hum = 0.2 * np.sin(2 * np.pi * chance.uniform(120, 240) * time) + chance.normal(0, 0.02, len(time))
                soundfile.write(below / "hum.wav", hum.astype(np.float32), RATE)
            lines.append(f"{name},{URGENCY[int(digits.target[digit]) + bad]}")
            if suffix == "jpg":
                copies.append((first, name))
            number += 1
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return Rounds(folder / "rows", folder / "labels.csv", copies)
