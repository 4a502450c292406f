"""Words of the pages that somebody may not know, each in a sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping

WORDS: Mapping[str, str] = {
    "use case": "One job for a model, with the metric that counts and what it must reach.",
    "candidate": "The model that would go into production if it passes every gate.",
    "baseline": "What the candidate is compared with: production, your incumbent, or a free method.",
    "constant answer": "A free method that always gives the most frequent answer: what no model may be worse than.",
    "95 % interval": "With other test examples of the same kind, the value would lie in it 95 times in 100.",
    "p95": "95 of 100 answers take no longer than this.",
    "dominated": "Another model is surely better, and costs no more time and money.",
    "gate": "A condition that a model must pass before it is promoted.",
    "verdict": (
        "promote: every gate is passed. hold: one is not. inconclusive: there are too few test examples to "
        "tell."
    ),
    "p, corrected": (
        "The chance of such a difference between equal models, corrected for making several comparisons "
        "(Holm)."
    ),
    "calibration": (
        "Whether answers with a confidence of 0.8 are right 8 times in 10. The error is the mean distance "
        "from that."
    ),
    "bake": "The time after a promotion in which a version is watched, and taken back if it breaks.",
    "canary": "A version that answers a share of the requests before it gets all of them.",
    "drift": "Inputs or answers that are no longer like those before.",
    "detector": (
        "It compares a window of new answers with those before, and says how sure it is that something "
        "changed."
    ),
    "e-detector": (
        "It adds up the evidence of every look, so that looking often raises no false alarm. A large value "
        "is strong evidence."
    ),
    "e-value": "Evidence against 'nothing changed': 20 is as strong as a p-value of 0.05, however often one looks.",
    "conformal": (
        "It compares each answer with answers to known examples, and so tells how unusual it is without "
        "assuming a distribution."
    ),
    "kernel": (
        "A measure of how alike two examples are. Two groups of examples differ where likeness within and "
        "between them does."
    ),
    "agreement α": "Krippendorff's alpha: how far people who label agree beyond chance. 1 is perfect, 0 is chance.",
    "audited": "Splits were searched for groups and near-duplicates that are in two of them.",
    "near-duplicate": (
        "An example that is almost another one: in training and test it makes a model look better than it "
        "is."
    ),
    "sealed": "The files have the hash that was registered with the version.",
}  # fmt: skip
_MOST = 12


def explained(texts: str) -> Mapping[str, str]:
    """The words of `WORDS` that stand in a text, in the order of the table."""
    text = texts.casefold()
    found = {
        word: told
        for word, told in WORDS.items()
        if re.search(rf"(?<![\w-]){re.escape(word.casefold())}s?(?!\w)", text)
    }
    return dict(list(found.items())[:_MOST])
