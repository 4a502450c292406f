"""Which rows an evaluation judges: the suite of a use case, or a dataset, and which version of it.

A name without a version means the newest version. For a use case that has decided before it means the newest version
that still holds all rows it stands on. So a sample or a filter for looking may become the newest version of a
dataset without becoming the suite. Who names the version gets it, and is told what it lacks.
"""

from __future__ import annotations

from typing import NamedTuple

from speciate import use_cases
from speciate.datasets import versions
from speciate.datasets.versions import Manifest
from speciate.errors import CallAgain, Code, SpeciateError
from speciate.evaluation import decisions, suites
from speciate.evaluation.reports.report import Suite, SuiteChange, learning_split, learning_split_words
from speciate.evaluation.suites import Line
from speciate.refs import DatasetRef, dataset_ref
from speciate.use_cases import UseCase, incumbent_of
from speciate.vocabulary import find_task
from speciate.workspace.database import Database
from speciate.workspace.workspace import Workspace

_ROLES: tuple[Suite, ...] = ("core", "heldout", "regression")
_MOST_VERSIONS = 50
"""Versions that are looked through for one that holds all judged rows."""


class SuiteChoice(NamedTuple):
    ref: DatasetRef
    """With split; the version is the one that was asked for or chosen, None: the newest."""
    role: Suite
    line: Line | None
    """The suite that the use case stands on in this role."""
    remarks: tuple[str, ...] = ()


def choose(
    workspace: Workspace, use_case: UseCase | None, dataset: str | None, suite: Suite | None, scorer: str | None = None
) -> SuiteChoice:
    """`suite` names one of the use case's; where it has none, `dataset` stands in. The core suite of a use case that
    names none is the dataset of its first decision. `scorer` of the evaluation, which reads columns, too.

    Raises INVALID where neither is there.
    """
    role: Suite = suite if suite and use_case and getattr(use_case.suites, suite) else "core"
    asked = _dataset_ref(workspace.database, use_case, dataset, suite)
    ref = asked if asked.split else asked._replace(split="test")
    suites.record_missing(workspace, ref.name)
    line = suites.line(workspace.database, use_case.name, role) if use_case else None
    stands_in = dataset is not None and suite is not None and use_case is not None and use_case.suites.core is None
    if use_case is None or line is None or ref.tag or not (ref.version is None or stands_in):
        return SuiteChoice(ref, role, line)
    stood = dataset_ref(line.dataset)
    if (stood.name, stood.split) != (ref.name, ref.split):
        return SuiteChoice(ref, role, line)
    return _newest_that_holds(workspace, _Judgement(use_case, role, scorer, line), ref)


def left_behind(workspace: Workspace, manifest: Manifest) -> tuple[str, ...]:
    """Which use cases go on judging on an older version of this dataset, since this one lacks or changed rows that they
    judged: a sentence each, in the order of their names."""
    told = []
    for name, use_case in sorted(use_cases.in_force(workspace.database).items()):
        for role in _ROLES:
            line = suites.line(workspace.database, name, role)
            stood = dataset_ref(line.dataset) if line else None
            if line is None or stood is None or stood.name != manifest.name or stood.version == manifest.version:
                continue
            named = getattr(use_case.suites, role)
            if named is not None and dataset_ref(named).name != manifest.name:
                continue
            change = _change(workspace, _Judgement(use_case, role, None, line), manifest, stood.split)
            if change.is_another:
                ref = f"{manifest.ref}:{stood.split}" if stood.split else manifest.ref
                told.append(
                    f"{name} keeps judging on {line.dataset}: {ref} {change}. To judge on it all the same, name it: "
                    f"dataset={ref!r}. A promotion on it then waits for a person."
                )
    return tuple(told)


class _Judgement(NamedTuple):
    """What a version is read for."""

    use_case: UseCase
    role: Suite
    scorer: str | None
    line: Line


def _newest_that_holds(workspace: Workspace, judgement: _Judgement, ref: DatasetRef) -> SuiteChoice:
    """The newest version, or, where that lacks judged rows, the newest before it that has them all."""
    use_case, role, _, line = judgement
    newest = versions.resolve(workspace.database, ref._replace(split=None))
    change = _change(workspace, judgement, newest, ref.split)
    if not change.is_another:
        return SuiteChoice(ref._replace(version=newest.version), role, line)
    stood = dataset_ref(line.dataset)
    for step in versions.history(workspace.database, ref.name, _MOST_VERSIONS):
        joined = (stood.version or 0) <= step.version < newest.version
        if not joined and step.version != stood.version:
            continue
        older = versions.resolve(workspace.database, DatasetRef(ref.name, version=step.version))
        if step.version == stood.version or not _change(workspace, judgement, older, ref.split).is_another:
            remark = (
                f"{newest.ref}:{ref.split} {change}, so it is another suite, and {use_case.name} goes on with "
                f"{older.ref}:{ref.split}. To judge on the other one, name it: dataset='{newest.ref}:{ref.split}'. "
                "A promotion on it then waits for a person"
            )
            return SuiteChoice(ref._replace(version=step.version), role, line, (remark,))
    return SuiteChoice(ref._replace(version=newest.version), role, line)  # the version that it stands on was deleted


def _change(workspace: Workspace, judgement: _Judgement, manifest: Manifest, split: str | None) -> SuiteChange:
    use_case, role, scorer, line = judgement
    family, incumbent = find_task(use_case.task).family, incumbent_of(workspace.database, use_case)
    read = suites.columns_read(manifest, use_case.task, use_case, role, scorer)
    found = suites.read_suite(workspace.folders, manifest, split, family, line.target, [incumbent], read)
    return suites.suite_change(workspace.database, line, found)


def other_suite(database: Database, use_case: UseCase | None, role: Suite, ref: DatasetRef) -> str | None:
    """Why this is not the suite that the use case decides on: its core suite, else the first decision's dataset."""
    if use_case is None or role != "core":
        return None
    core = dataset_ref(use_case.suites.core) if use_case.suites.core else None
    if core and (core.name, core.version or ref.version, core.split or "test") != (ref.name, ref.version, ref.split):
        return f"{ref} is not the core suite {core} of {use_case.name}"
    first = None if core else decisions.first_dataset(database, use_case.name)
    if first and (dataset_ref(first).name, dataset_ref(first).split) != (ref.name, ref.split):
        return (
            f"{use_case.name} has decided on {first} before, and {ref} is another suite; to decide on it, make it "
            f"the core suite: define_use_case(suites={{'core': '{ref.name}:{ref.split}'}}, ...)"
        )
    return None


def no_test_rows(ref: DatasetRef) -> str | None:
    """Why no verdict rests on these rows: models learn from such ones, or are chosen by them."""
    words = learning_split_words(learning_split(ref.split))
    return f"{ref} holds {words.partition(':')[0]}; name its test split: dataset='{ref.name}:test'" if words else None


def learning_split_notes(ref: DatasetRef) -> tuple[str, ...]:
    words = learning_split_words(learning_split(ref.split))
    return (f"{ref} holds {words}. No verdict rests on them.",) if words else ()


def suite_remarks(use_case: UseCase | None, ref: DatasetRef, change: SuiteChange | None) -> tuple[str, ...]:
    """What a reader must know of a suite that lost judged rows."""
    if use_case is None or change is None or not change.is_another:
        return ()
    return (f"{ref} {change}: another suite, on which a promotion of {use_case.name} waits for a person",)


def _dataset_ref(database: Database, use_case: UseCase | None, dataset: str | None, suite: Suite | None) -> DatasetRef:
    named: str | None = getattr(use_case.suites, suite or "core") if use_case else None
    if dataset and (named is None or suite is None):
        return dataset_ref(dataset)
    if named is None and use_case is not None and suite in (None, "core"):
        first = decisions.first_dataset(database, use_case.name)
        named = str(dataset_ref(first)._replace(version=None)) if first else None
    if named is None:
        raise _no_suite(use_case, suite)
    return dataset_ref(named)


def _no_suite(use_case: UseCase | None, suite: Suite | None) -> SpeciateError:
    if use_case is None:
        whose = f"the suite {suite!r} is of a use case, and use_case names none" if suite else "there is no use_case"
        return SpeciateError(
            Code.INVALID,
            f"No dataset was named, and {whose}.",
            next=[
                CallAgain("evaluate_models", {"dataset": "NAME"}),
                CallAgain("evaluate_models", {"use_case": "NAME"}),
            ],
        )
    if suite in (None, "core"):
        return SpeciateError(
            Code.INVALID,
            f"No dataset was named, and {use_case.name!r} has no core suite yet: its first decision makes one of the "
            "dataset that it rests on, or define_use_case names it in suites.",
            next=[CallAgain("evaluate_models", {"dataset": "NAME"})],
        )
    return SpeciateError(
        Code.INVALID,
        f"No dataset was named, and the use case {use_case.name!r} has no suite {suite!r}.",
        f"Name it with define_use_case(suites={{{suite!r}: 'NAME:test'}}, ...).",
        next=[CallAgain("evaluate_models", {"dataset": "NAME"})],
    )
