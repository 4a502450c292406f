"""scikit-learn as an ordinary user would write it: logistic regression on word counts, on runs of residues, or on
pixels, with its defaults but for enough iterations.

    python evals/bench/arms/scikit.py FOLDER KIND OUT SEED
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from examples import read, tell
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer


def flat(pictures: list[Any]) -> Any:
    """uint8 (H, W) each -> (N, H * W) in [0, 1]"""
    return np.stack(pictures).reshape(len(pictures), -1) / 255


def features(kind: str) -> Any:
    match kind:
        case "text":
            return TfidfVectorizer()
        case "protein":
            return TfidfVectorizer(analyzer="char", ngram_range=(1, 3), lowercase=False)
    return FunctionTransformer(flat)


def main() -> None:
    folder, kind, out, seed = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    learn = read(folder, "train", "validation")
    model = make_pipeline(features(kind), LogisticRegression(max_iter=1000, random_state=seed))
    model.fit(learn.inputs, learn.labels)
    joblib.dump(model, out / "model.joblib")
    tell(folder, model.predict, "test")


if __name__ == "__main__":
    main()
