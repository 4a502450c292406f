"""AutoGluon's TabularPredictor with its defaults, in an environment of its own: texts as a column, from which it makes
its own features; peptides as counts of one and two residues.

    AG/bin/python evals/bench/arms/gluon.py FOLDER KIND OUT SEED
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pandas as pd
from autogluon.tabular import TabularPredictor
from examples import read, tell

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
RUNS = [*RESIDUES, *map("".join, product(RESIDUES, repeat=2))]


def frame(inputs: list[str], kind: str) -> pd.DataFrame:
    if kind == "text":
        return pd.DataFrame({"input": inputs})
    return pd.DataFrame([_counts(sequence) for sequence in inputs], columns=RUNS).assign(length=[*map(len, inputs)])


def _counts(sequence: str) -> list[int]:
    """str.count would leave out runs that overlap."""
    seen = [sequence[place : place + size] for size in (1, 2) for place in range(len(sequence) - size + 1)]
    found = dict.fromkeys(RUNS, 0)
    for run in seen:
        if run in found:
            found[run] += 1
    return [*found.values()]


def main() -> None:
    folder, kind, out = Path(sys.argv[1]), sys.argv[2], sys.argv[3]  # its defaults take no seed
    learn = read(folder, "train", "validation")
    predictor = TabularPredictor(label="label", path=out, verbosity=1)
    predictor.fit(frame(learn.inputs, kind).assign(label=learn.labels))

    def predict(inputs: list[str]) -> Sequence[str]:
        answers: Sequence[str] = predictor.predict(frame(inputs, kind)).tolist()
        return answers

    tell(folder, predict, "test", models=predictor.model_names(), best=predictor.model_best)


if __name__ == "__main__":
    main()
