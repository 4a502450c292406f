"""Near-duplicates of short texts: how many copies are found, and how many different texts are taken for copies.

    python evals/bench/near_texts.py FILE [TEXTS]      # a text a line; default 20,000 of 8 to 19 words

Texts that are equal but for case and punctuation count as one.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from speciate.datasets.similarity.near_duplicates import clusters, near_duplicate_pairs
from speciate.modalities.hashing import TEXT_SKETCHES
from speciate.modalities.text import TEXT

_COPIES, _SHOWN = 600, 40
_LENGTHS = ((8, 12), (12, 20))


def main() -> None:
    chance = random.Random(0)
    found = sorted({TEXT.fingerprint(line) for line in Path(sys.argv[1]).read_text(errors="replace").splitlines()})
    texts = [each for each in found if 8 <= each.count(" ") + 1 < 20 and len(each) >= 40]
    chance.shuffle(texts)
    texts = texts[: int(sys.argv[2]) if len(sys.argv) > 2 else 20_000]
    pairs = near_duplicate_pairs([TEXT_SKETCHES.sketch(each) for each in texts], TEXT_SKETCHES)
    sizes = np.bincount(clusters(len(texts), pairs))
    print(f"{len(texts)} texts, {len(pairs)} pairs, {len(np.unique(pairs))} texts near another, largest {sizes.max()}")
    for a, b in chance.sample(pairs.tolist(), min(_SHOWN, len(pairs))):
        print("  ", texts[a], "|", texts[b])
    vocabulary = sorted({word for text in texts[:3000] for word in text.split()})

    def mistyped(words: list[str]) -> list[str]:
        text, at = " ".join(words), chance.randrange(len(" ".join(words)))
        return [text[:at] + chance.choice("abcdefghij") + text[at + 1 :]]

    def replaced(words: list[str]) -> list[str]:
        at = chance.randrange(len(words))
        return [*words[:at], chance.choice(vocabulary), *words[at + 1 :]]

    def dropped(words: list[str]) -> list[str]:
        at = chance.randrange(len(words))
        return [*words[:at], *words[at + 1 :]]

    changes: dict[str, Callable[[list[str]], list[str]]] = {
        "a letter": mistyped, "a word more": lambda words: [*words, chance.choice(vocabulary)],
        "a word less": dropped, "another word": replaced,
    }  # fmt: skip
    for name, change in changes.items():
        shares = []
        for low, high in _LENGTHS:
            originals = [each for each in texts if low <= each.count(" ") + 1 < high][:_COPIES]
            near = [_is_found(each, " ".join(change(each.split()))) for each in originals]
            shares.append(f"{low} to {high - 1} words {100 * np.mean(near):.1f} %")
        print(f"{name}: {', '.join(shares)}")


def _is_found(text: str, copy: str) -> bool:
    return len(near_duplicate_pairs([TEXT_SKETCHES.sketch(text), TEXT_SKETCHES.sketch(copy)], TEXT_SKETCHES)) > 0


if __name__ == "__main__":
    main()
