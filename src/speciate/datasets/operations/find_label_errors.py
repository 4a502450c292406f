"""Find labels that are probably wrong, by confident learning over out-of-fold probabilities.

Northcutt, Jiang and Chuang, "Confident Learning" (2021), as cleanlab has it, pruned by noise rate. The probabilities
come from a logistic regression over standardised vectors, which never saw the example nor one of its component:
groups, copies and near-duplicates lie in one fold (StratifiedGroupKFold). A class with fewer than three components is
not assessed. `splits` says which rows are flagged or dropped.

Only labels of the training split are learned from, in folds of that split alone, and so are the thresholds of confident
learning. A row of another split is assessed by one model of the whole training split, without components that reach
into other splits: its label decides nothing but its own verdict.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from speciate.datasets.columns import clean, with_column
from speciate.datasets.operations.context import Context, Vectors
from speciate.datasets.operations.operation import (
    LEARNED,
    Mask,
    Operation,
    Others,
    Outcome,
    Parameters,
    Splits,
    check_classes,
    keep_rows,
    refusal,
    usable_rows,
    usable_rows_in,
)
from speciate.datasets.splits import components, members_of
from speciate.datasets.versions import Manifest

ISSUE, SUGGESTION, QUALITY = "label_issue", "label_suggestion", "label_quality"
_FOLDS, _LEAST = 5, 3
_SHOWN = 10

Codes = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]  # (N, C)


class LabelErrorParameters(Parameters):
    action: Literal["flag", "drop"] = Field("flag", description=f"flag: columns {ISSUE}, {SUGGESTION}, {QUALITY}.")
    extractor: str | None = Field(None, description="Default: the modality's own features.")
    splits: Splits | None = Field(
        None, min_length=1, description="Only rows of these; default: flag every split, drop from train."
    )
    seed: int = 0


class LabelQuality(NamedTuple):
    """What was found about N labels. `quality` is the out-of-fold probability of the given label, NaN if it was not
    assessed."""

    issue: Mask
    suggestion: Codes
    quality: npt.NDArray[np.float64]


def preflight(parameters: LabelErrorParameters, manifest: Manifest, others: Others) -> Manifest:
    check_classes(manifest, "find_label_errors")
    if parameters.action == "drop":
        return manifest
    for name in (ISSUE, SUGGESTION, QUALITY):
        if name in manifest.inputs or name == manifest.label:
            raise refusal(f"The column {name!r} plays a role here and cannot be replaced.", "Use action='drop'.")
    return manifest.model_copy(
        update={"columns": {**manifest.columns, ISSUE: "BOOLEAN", SUGGESTION: "VARCHAR", QUALITY: "DOUBLE"}}
    )


def check_rows(rows: pa.Table, parameters: LabelErrorParameters, manifest: Manifest) -> None:
    """By groups alone: that copies count once is only known where all of a row is read."""
    learned = rows.filter(pa.array(usable_rows_in(rows, LEARNED)))
    pairs = zip(
        learned["label"].to_pylist(),
        pc.coalesce(learned["group_key"].cast(pa.string()), learned["id"]).to_pylist(),
        strict=True,
    )
    groups: dict[str, set[str]] = {}
    for label, group in pairs:
        if label is not None:
            groups.setdefault(str(label), set()).add(group)
    names = sorted(groups)
    _check_units(np.array([len(groups[name]) for name in names]), np.array(names, object))


def apply(rows: pa.Table, parameters: LabelErrorParameters, context: Context) -> Outcome:
    labels = rows["label"].to_pylist()
    usable = np.flatnonzero(usable_rows(rows))
    labelled = np.array([labels[place] is not None for place in usable], bool)
    group = components(members_of(rows.take(pa.array(usable)), context.manifest.modality))[labelled]
    places = usable[labelled]
    chosen = rows.take(pa.array(places))
    given = np.array([str(labels[place]) for place in places], object)
    learned = usable_rows_in(chosen, LEARNED)
    names = np.unique(given[learned])
    codes = _codes(given, names)
    wanted = _learnable(np.where(learned, codes, -1), group, names)[codes] & (codes >= 0)
    vectors = context.vectors(chosen.filter(pa.array(wanted)), parameters.extractor)
    assessed = _scatter(find_issues(vectors, codes[wanted], group[wanted], parameters.seed, learned[wanted]), wanted)
    audit = _audit(chosen, names, codes, assessed, rare=given[~wanted])
    if parameters.action == "drop":
        kept = np.ones(rows.num_rows, bool)
        kept[places[assessed.issue & usable_rows_in(chosen, parameters.splits or LEARNED)]] = False
        return Outcome(keep_rows(rows, kept), audit, only_removes=True)
    flagged = usable_rows_in(chosen, parameters.splits) if parameters.splits else np.ones(len(places), bool)
    flags = LabelQuality(assessed.issue[flagged], assessed.suggestion[flagged], assessed.quality[flagged])
    return Outcome(_flag_rows(rows, places[flagged], names, flags), audit, flagged_column=ISSUE)


def find_issues(vectors: Vectors, codes: Codes, groups: Codes, seed: int, learned: Mask) -> LabelQuality:
    """`codes`: (N,) classes, any numbers; `groups`: (N,) components; `learned`: (N,) rows whose labels are learned.

    Learned rows are assessed out of fold, each component wholly in training or in the held-out fold. The others are
    assessed by a model of the learned ones, of components that none of the others belongs to.
    """
    from cleanlab.filter import find_label_issues

    kinds, own = np.unique(codes[learned], return_inverse=True)
    labels = np.searchsorted(kinds, codes)
    probabilities, assessed = np.zeros((len(labels), len(kinds))), np.zeros(len(labels), bool)
    probabilities[learned], assessed[learned] = out_of_fold(vectors[learned], own, groups[learned], seed)
    issue = np.zeros(len(labels), bool)
    judged = learned & assessed
    issue[judged] = find_label_issues(labels[judged], probabilities[judged], n_jobs=1)
    others = np.flatnonzero(~learned)
    if len(others):
        apart = learned & ~np.isin(groups, groups[others])
        probabilities[others], assessed[others] = _held_out(vectors, labels, apart, others, len(kinds))
        least = np.array([probabilities[judged & (labels == kind), kind].mean() for kind in range(len(kinds))])
        issue[others] = assessed[others] & _is_confidently_other(probabilities[others], labels[others], least)
    quality = np.where(assessed, probabilities[np.arange(len(labels)), labels], np.nan)
    return LabelQuality(issue, kinds[probabilities.argmax(axis=1)], quality)


def _held_out(vectors: Vectors, labels: Codes, learn: Mask, held: Codes, classes: int) -> tuple[Probabilities, Mask]:
    """(H, C) by one model of the rows `learn`, and which rows have a class that it knows."""
    probabilities = np.zeros((len(held), classes))
    known = np.unique(labels[learn])
    if len(known) < 2:
        return probabilities, np.zeros(len(held), bool)
    probabilities[:, known] = _fit(vectors[learn], labels[learn]).predict_proba(vectors[held])
    return probabilities, np.isin(labels[held], known)


def _is_confidently_other(probabilities: Probabilities, labels: Codes, least: npt.NDArray[np.float64]) -> Mask:
    """(H,) where another class is the likeliest of those that reach their own threshold (C,), as for an entry off the
    diagonal of the confident joint."""
    reached = np.where(probabilities >= least, probabilities, -1.0)
    likeliest = reached.argmax(axis=1)
    return np.asarray((reached.max(axis=1) >= 0) & (likeliest != labels), bool)


def _fit(vectors: Vectors, labels: Codes) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # probabilities good enough to rank by
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(vectors, labels)


def out_of_fold(vectors: Vectors, labels: Codes, groups: Codes, seed: int) -> tuple[Probabilities, Mask]:
    """(N, C) probabilities of the classes 0..C-1, and for which rows the own class was among those learned."""
    from sklearn.model_selection import StratifiedGroupKFold

    fewest = min(len(np.unique(groups[labels == label])) for label in np.unique(labels))
    folds = StratifiedGroupKFold(min(_FOLDS, fewest), shuffle=True, random_state=seed)
    probabilities = np.zeros((len(labels), int(labels.max()) + 1))
    assessed = np.zeros(len(labels), bool)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a fold may lack a rare class
        for learn, hold in folds.split(vectors, labels, groups):
            classes = np.unique(labels[learn])
            if len(classes) < 2:
                continue
            probabilities[np.ix_(hold, classes)] = _fit(vectors[learn], labels[learn]).predict_proba(vectors[hold])
            assessed[hold] = np.isin(labels[hold], classes)
    return probabilities, assessed


def _codes(given: npt.NDArray[Any], names: npt.NDArray[Any]) -> Codes:
    """(N,) the place of each label among the sorted `names`; -1 for one that is not among them."""
    number = {name: place for place, name in enumerate(names)}
    return np.array([number.get(label, -1) for label in given], np.int64)


def _learnable(codes: Codes, groups: Codes, names: npt.NDArray[Any]) -> Mask:
    """(C,) which classes have enough components; `codes`: -1 for rows that are not learned.

    INVALID if fewer than two have.
    """
    return _check_units(np.array([len(np.unique(groups[codes == code])) for code in range(len(names))]), names)


def _check_units(units: npt.NDArray[Any], names: npt.NDArray[Any]) -> Mask:
    """(C,) which classes have enough independent examples."""
    enough = np.asarray(units >= _LEAST, bool)
    if enough.sum() < 2:
        shown = ", ".join(
            f"{clean(str(name))} {count}" for name, count in list(zip(names, units, strict=True))[:_SHOWN]
        )
        raise refusal(
            f"find_label_errors needs two classes with at least {_LEAST} independent examples in the training split "
            f"(groups and copies count once); there are: {shown or 'none'}.",
            "Leave the step out, or add examples.",
        )
    return enough


def _scatter(assessed: LabelQuality, wanted: Mask) -> LabelQuality:
    """The result over all rows again."""
    issue, suggestion, quality = np.zeros(len(wanted), bool), np.full(len(wanted), -1), np.full(len(wanted), np.nan)
    issue[wanted], suggestion[wanted], quality[wanted] = assessed
    return LabelQuality(issue, suggestion, quality)


def _flag_rows(rows: pa.Table, places: Codes, names: npt.NDArray[Any], assessed: LabelQuality) -> pa.Table:
    """Null for rows that were not assessed; a suggestion only if there is an issue."""
    issue: list[bool | None] = [None] * rows.num_rows
    suggestion: list[str | None] = [None] * rows.num_rows
    quality: list[float | None] = [None] * rows.num_rows
    for place, bad, code, probability in zip(places.tolist(), *map(np.ndarray.tolist, assessed), strict=True):
        if not np.isnan(probability):
            issue[place], quality[place] = bad, round(probability, 6)
            suggestion[place] = str(names[code]) if bad else None
    rows = with_column(rows, ISSUE, pa.array(issue, pa.bool_()))
    rows = with_column(rows, SUGGESTION, pa.array(suggestion, pa.string()))
    return with_column(rows, QUALITY, pa.array(quality, pa.float64()))


class LabelIssue(TypedDict):
    id: str
    label: str
    suggestion: str
    quality: float


class _Audit(TypedDict):
    judged: int
    issues: int
    worst: list[LabelIssue]
    too_rare_to_judge: NotRequired[list[str]]
    """Labels."""


def _audit(
    rows: pa.Table, names: npt.NDArray[Any], codes: Codes, assessed: LabelQuality, *, rare: npt.NDArray[Any]
) -> _Audit:
    found = np.flatnonzero(assessed.issue)
    worst = found[np.argsort(assessed.quality[found], kind="stable")][:_SHOWN]
    audit: _Audit = {
        "judged": int((~np.isnan(assessed.quality)).sum()),
        "issues": len(found),
        "worst": [
            {
                "id": rows["id"][int(place)].as_py(),
                "label": clean(str(names[codes[place]])),
                "suggestion": clean(str(names[assessed.suggestion[place]])),
                "quality": round(float(assessed.quality[place]), 4),
            }
            for place in worst
        ],
    }
    if len(rare):
        audit["too_rare_to_judge"] = [clean(str(name)) for name in np.unique(rare)][:_SHOWN]
    return audit


FIND_LABEL_ERRORS = Operation(
    name="find_label_errors",
    what="flag or drop examples whose label is probably wrong",
    parameters=LabelErrorParameters,
    preflight=preflight,
    apply=apply,
    check_rows=check_rows,
    unchecked="whether two classes have enough examples to learn from where copies count once",
    refers={"extractor": "extractor"},
    needs=("sklearn", "cleanlab"),
)
