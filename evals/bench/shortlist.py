"""How well base models are ranked before any is trained: regret and Kendall's tau against known answers.

Twenty small encoders (arms/zoo.py: five sizes, six sources, five controls with fresh weights), five targets with 200
labelled examples each. The known answers are accuracy, or for angles R2, on up to 1,000 held-out examples: of a linear
head (`probe`, with strengths to 1,000), and of fine-tuning all weights (`full`). Regret is the best answer less the
best among the k that are ranked highest; beside the scores stand a random order (its expectation), the largest model
first, and a linear head by five folds of the same 200 examples. `kept`: what the product's pruner keeps, and as many
drawn at random. What was trained stays in --folder, and a second call goes on.

    PYTHONPATH=. python evals/bench/shortlist.py --folder build/shortlist [--truths linear tuned] [--seconds 3000]
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from arms import zoo
from scipy.stats import kendalltau

from speciate.datasets import versions
from speciate.datasets.loading.loader import Example, load_examples
from speciate.errors import SpeciateError
from speciate.models import registry
from speciate.models.encoders import load_encoder
from speciate.settings import Settings
from speciate.tasks import predictor
from speciate.tasks.representations import Embeddings
from speciate.training.planning.transferability import Scores, h_score, indicators, logme, prune, rank_places, scaled
from speciate.workspace.workspace import Workspace
from tests.data import run_job

LABELLED, VALIDATION, TEST = 200, 100, 1000
HEAD = {"C": [1.0, 10.0, 100.0, 1000.0]}
TUNED = {"num_train_epochs": 8, "learning_rate": [1e-3], "precision": "float32"}
TRUTHS: dict[str, tuple[str, dict[str, Any]]] = {"linear": ("probe", HEAD), "tuned": ("full", TUNED)}
KEEPS = (3, 5)
Numbers = npt.NDArray[np.float64]


class Measured(NamedTuple):
    """Of the encoders, in their order: a value by each way of ranking, greater is better; and seconds for each."""

    values: dict[str, Numbers]
    seconds: dict[str, float]
    scores: list[Scores]


def encoders(workspace: Workspace, folder: Path) -> list[str]:
    """Their versions, trained where they are not there yet."""
    refs = []
    for shape, source in zoo.ENCODERS:
        try:
            refs.append(registry.resolve(workspace.database, workspace.folders, f"{shape}-{source}").ref)
        except SpeciateError:
            began = time.monotonic()
            refs.append(zoo.train(workspace, folder, shape, source))
            print(f"{refs[-1]}: {time.monotonic() - began:.0f} s", flush=True)
    return refs


def dataset(workspace: Workspace, make: Callable[[], str], name: str) -> str:
    try:
        return versions.resolve(workspace.database, name).ref
    except SpeciateError:
        return make()


def lay(workspace: Workspace, name: str, target: str) -> str:
    return zoo.lay(workspace, name, zoo.TARGETS[target](), (LABELLED, VALIDATION), test=True)


def answer(workspace: Workspace, name: str, ref: str, truth: str, held: Sequence[Example]) -> float:
    """On held-out examples, of a model that the product makes."""
    method, how = TRUTHS[truth]
    model = run_job(
        workspace, "train", name="answer", dataset=name, method=method, base_model=ref, hyperparameters=how
    )["model"]
    path = registry.resolve(workspace.database, workspace.folders, model).path
    found = [one.output for one in predictor.load(path, workspace.folders).predict(held)]
    true = [example.label for example in held]
    if isinstance(true[0], float):
        real, said = np.array(true, float), np.array(found, float)
        return float(1 - np.square(real - said).sum() / np.square(real - real.mean()).sum())
    return float(np.mean([one == other for one, other in zip(true, found, strict=True)]))


def measure(workspace: Workspace, name: str, refs: Sequence[str]) -> Measured:
    """On the training examples alone; the vectors' seconds come apart, as all but the largest-first need them."""
    manifest = versions.resolve(workspace.database, name)
    examples = load_examples(workspace.folders, manifest, ("train",))
    labels = [example.label for example in examples]
    codes = np.array(labels, float) if manifest.numeric else np.unique(labels, return_inverse=True)[1]
    columns = scaled(codes) if manifest.numeric else indicators(codes)
    ways: dict[str, Callable[[Any], float]] = {
        "LogME": lambda v: logme(v, columns),
        "LogME, centred": lambda v: logme(v - v.mean(0), columns - columns.mean(0)),
        "H-score": lambda v: h_score(v, columns),
        "H-score, not shrunk": lambda v: h_score(v, columns, 0.0),
        "linear head, 5 folds": lambda v: _folds(v, codes, manifest.numeric),
    }
    values: dict[str, list[float]] = {way: [] for way in ways}
    seconds, sizes = dict.fromkeys(["vectors", *ways], 0.0), list[int]()
    for ref in refs:
        began = time.perf_counter()
        encoder = load_encoder(ref, folder=registry.resolve(workspace.database, workspace.folders, ref).path)
        vectors = Embeddings(ref, encoder, workspace.folders).encode(examples).astype(np.float64)
        seconds["vectors"] += time.perf_counter() - began
        sizes.append(encoder.parameters)
        for way, score in ways.items():
            began = time.perf_counter()
            values[way].append(score(vectors))
            seconds[way] += time.perf_counter() - began
    scores = [Scores(*pair) for pair in zip(values["LogME"], values["H-score"], strict=True)]
    found = {way: np.array(column) for way, column in values.items()}
    found["LogME and H-score"] = -np.array(rank_places(scores, sizes), float)
    found["largest first"] = np.array(sizes, float)
    return Measured(found, seconds, scores)


def _folds(vectors: Numbers, codes: Numbers, numeric: bool) -> float:
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    head = Ridge(alpha=len(codes) ** 0.5) if numeric else LogisticRegression(C=0.1, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(np.mean(cross_val_score(make_pipeline(StandardScaler(), head), vectors, codes, cv=5)))


def regret(values: Numbers, truth: Numbers, k: int) -> float:
    """Of equal values the order of the encoders decides, as in a table."""
    return float(truth.max() - truth[np.argsort(-values, kind="stable")[:k]].max())


def by_chance(truth: Numbers, k: int) -> float:
    """The expected regret of k drawn at random: the i-th worst is the best of them in C(i, k - 1) of all draws."""
    chance = np.array([math.comb(place, k - 1) for place in range(len(truth))], float)
    return float(truth.max() - (np.sort(truth) * chance / chance.sum()).sum())


def rows(measured: Measured, truth: Numbers, refs: Sequence[str], sizes: dict[str, int]) -> dict[str, list[float]]:
    """Way -> Kendall's tau, regret of the first and of the first five; of the pruner regret alone."""
    found = {
        way: [float(kendalltau(values, truth).statistic), regret(values, truth, 1), regret(values, truth, 5)]
        for way, values in measured.values.items()
    }
    found["random order"] = [0.0, by_chance(truth, 1), by_chance(truth, 5)]
    place = {ref: number for number, ref in enumerate(refs)}
    for keep in KEEPS:
        kept = [one for one in prune(refs, dict(zip(refs, measured.scores, strict=True)), sizes, keep) if one.kept]
        best = max(truth[place[one.base_model]] for one in kept)
        found[f"kept {keep}"] = [np.nan, float(truth.max() - best), np.nan]
        found[f"random {keep}"] = [np.nan, by_chance(truth, keep), np.nan]
    return found


def show(title: str, table: dict[str, list[float]]) -> None:
    print(f"\n{title}\n{'':24s}{'tau':>8s}{'regret':>9s}{'of 5':>9s}")
    for way, (tau, first, five) in table.items():
        print(f"{way:24s}" + f"{tau:8.2f}{first:9.3f}{five:9.3f}".replace("nan", "   "), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--truths", nargs="*", default=list(TRUTHS), choices=list(TRUTHS))
    parser.add_argument("--targets", nargs="*", default=list(zoo.TARGETS), choices=list(zoo.TARGETS))
    parser.add_argument("--seconds", type=float, default=3600, help="no further answer is looked for after so long")
    given = parser.parse_args()
    began = time.monotonic()
    given.folder.mkdir(parents=True, exist_ok=True)
    workspace = Workspace(given.folder / "workspace", settings=Settings())
    dataset(workspace, lambda: zoo.sources(workspace), "source-stripes")
    refs, known = encoders(workspace, given.folder), given.folder / "answers.json"
    sizes = {ref: registry.resolve(workspace.database, workspace.folders, ref).card.parameters or 0 for ref in refs}
    answers: dict[str, float] = json.loads(known.read_text()) if known.is_file() else {}
    means: dict[str, list[dict[str, list[float]]]] = {truth: [] for truth in given.truths}
    for target in given.targets:
        name = f"target-{target.replace(' ', '-')}"
        dataset(workspace, partial(lay, workspace, name, target), name)
        measured = measure(workspace, name, refs)
        manifest = versions.resolve(workspace.database, name)
        held = load_examples(workspace.folders, manifest, ("test",))[:TEST]
        for truth in given.truths:
            for ref in refs:
                if (key := f"{target}/{truth}/{ref}") not in answers and time.monotonic() - began < given.seconds:
                    answers[key] = answer(workspace, name, ref, truth, held)
                    known.write_text(json.dumps(answers, indent=1))
            if any(f"{target}/{truth}/{ref}" not in answers for ref in refs):
                print(f"\n{target}, {truth}: left out, the time is over")
                continue
            true = np.array([answers[f"{target}/{truth}/{ref}"] for ref in refs])
            means[truth].append(rows(measured, true, refs, sizes))
            worst, best = refs[int(true.argmin())], refs[int(true.argmax())]
            show(f"{target}, {truth}: from {true.min():.3f} ({worst}) to {true.max():.3f} ({best})", means[truth][-1])
        spent = ", ".join(f"{way} {1000 * each / len(refs):.0f} ms" for way, each in measured.seconds.items())
        print(f"per encoder: {spent}", flush=True)
    for truth, tables in means.items():
        if tables:
            mean = {way: np.mean([table[way] for table in tables], 0).tolist() for way in tables[0]}
            show(f"mean of {len(tables)} targets, {truth}", mean)
    workspace.close()


if __name__ == "__main__":
    main()
