"""The worker's side of a judge: asks it about every answer, each question once, and makes scores of its verdicts.

An answer that is an error gets the worst grade, and loses against any other, without the judge. Equal answers are a
tie. Of a pair both orders are asked: what is preferred in both wins, all else is a tie. Where the judge itself fails
there is no score, and the example does not count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from speciate.datasets.loading import keys
from speciate.datasets.loading.loader import Example
from speciate.evaluation import recorded
from speciate.evaluation.answers import Answer, Tell
from speciate.evaluation.endpoints.readings import Unreadable
from speciate.evaluation.endpoints.talk import Talk, served_models
from speciate.evaluation.judges import agreement, kinship, questions
from speciate.evaluation.judges.questions import FIRST, SECOND, TIE, Matter
from speciate.evaluation.judges.spec import Judge
from speciate.evaluation.marks import Marks
from speciate.evaluation.predictors.contract import Sheet
from speciate.evaluation.recorded import Kept, Key
from speciate.evaluation.report import Agreement, Verdicts, interval, number
from speciate.evaluation.statistics import Codes, Floats
from speciate.evaluation.task import EvaluationTask
from speciate.jobs.run import Run

_PREFERENCES = ("baseline", TIE, "candidate")


class Case(NamedTuple):
    """What was answered to everything, and by whom."""

    run: Run
    task: EvaluationTask
    judge: Judge
    examples: Sequence[Example]
    truths: Sequence[Any]
    sheets: Sequence[Sheet]
    clusters: Codes
    tell: Tell


def mark(case: Case) -> Marks:
    """Raises Stopped, or SpeciateError where the judge cannot be asked; verdicts that it gave until then are kept."""
    _check_served(case)
    bench = _Bench(case)
    repeats = bench.preferences() if case.judge.asked.mode == "pairwise" else bench.graded()
    verdicts = bench.verdicts(repeats)
    return Marks(case.judge.metric, repeats, bench.notes(verdicts), verdicts)


def _check_served(case: Case) -> None:
    """What endpoints and logs say that they served may tell a family that their names did not."""
    if case.judge.asked.same_family:
        return
    for sheet in case.sheets:
        if sheet.served:
            name = sheet.contestant.name
            kinship.check_names(case.judge.name, [case.judge.endpoint.model], name, sheet.served)


class _Bench:
    """One judge at work on one evaluation's answers."""

    def __init__(self, case: Case) -> None:
        self._case, self._judge = case, case.judge
        self._talk = Talk(case.run, case.task, case.judge.endpoint, case.judge.form)
        self._kept: dict[Key, Kept] = {}
        self._pairs = self._turned = self._for_first = 0

    # Grades

    def graded(self) -> dict[str, list[Floats]]:
        """Scores: the worst grade 0, the best 1, the others as far between as they are on the scale."""
        known = questions.verdicts(self._judge)
        asked = {
            sheet.contestant.name: [self._gradable(answers) for answers in sheet.repeats] for sheet in self._case.sheets
        }
        self._ask({key: matter for times in asked.values() for time in times for key, matter in time if key})
        return {
            name: [np.array([self._grade(key, known) if key else 0.0 for key, _ in time], np.float64) for time in times]
            for name, times in asked.items()
        }

    def _gradable(self, answers: Sequence[Answer]) -> list[tuple[Key | None, Matter | None]]:
        """Keys are None where there is no answer to grade."""
        found: list[tuple[Key | None, Matter | None]] = []
        for place, answer in enumerate(answers):
            matter = None if answer.output is None else self._matter(place, answer.output)
            found.append((matter and self._key(matter), matter))
        return found

    def _grade(self, key: Key, known: Sequence[str]) -> float:
        verdict = self._verdict(key)
        return math.nan if verdict is None else known.index(verdict) / (len(known) - 1)

    # Preferences

    def preferences(self) -> dict[str, list[Floats]]:
        """1 where the candidate is preferred to the baseline, 0 where the baseline is, else 0.5."""
        sheets = {sheet.contestant.name: sheet for sheet in self._case.sheets}
        baseline = sheets.pop(str(self._judge.baseline))
        pairs = {
            name: [
                self._pairs_of(answers, baseline.repeats[time % len(baseline.repeats)])
                for time, answers in enumerate(sheet.repeats)
            ]
            for name, sheet in sheets.items()
        }
        self._ask(
            {key: matter for times in pairs.values() for time in times for pair in time if pair.keys
             for key, matter in zip(pair.keys, pair.matters, strict=True)}
        )  # fmt: skip
        found = {
            name: [np.array([self._preferred(pair) for pair in time], np.float64) for time in times]
            for name, times in pairs.items()
        }
        own = [np.full(len(self._case.examples), 0.5) for _ in baseline.repeats]
        return {baseline.contestant.name: own} | found

    def _pairs_of(self, mine: Sequence[Answer], theirs: Sequence[Answer]) -> list[_Pair]:
        found = []
        for place, (candidate, baseline) in enumerate(zip(mine, theirs, strict=True)):
            if candidate.output is None or baseline.output is None or candidate.output == baseline.output:
                settled = 0.5 + 0.5 * (baseline.output is None) - 0.5 * (candidate.output is None)
                found.append(_Pair(settled))
                continue
            matters = (
                self._matter(place, candidate.output, baseline.output),
                self._matter(place, baseline.output, candidate.output),
            )
            found.append(_Pair(None, (self._key(matters[0]), self._key(matters[1])), matters))
        return found

    def _preferred(self, pair: _Pair) -> float:
        if pair.keys is None:
            return float(pair.settled if pair.settled is not None else math.nan)
        verdicts = [self._verdict(key) for key in pair.keys]
        if None in verdicts:
            return math.nan
        self._pairs += 1
        if verdicts in ([FIRST, SECOND], [SECOND, FIRST], [TIE, TIE]):
            return {FIRST: 1.0, SECOND: 0.0, TIE: 0.5}[str(verdicts[0])]
        self._turned += 1
        self._for_first += verdicts.count(FIRST) > verdicts.count(SECOND)
        return 0.5

    # Asking

    def _matter(self, place: int, *answers: Any) -> Matter:
        case = self._case
        return Matter(case.examples[place], str(case.truths[place]), tuple(map(str, answers)))

    def _key(self, matter: Matter) -> Key:
        """The example's id, by which it is forgotten, and what is judged."""
        said = "\x1f".join([keys.digest(matter.example.media), matter.reference, *matter.answers])
        return Key(f"{matter.example.id}:{recorded.digest(said)}")

    def _ask(self, wanted: dict[Key, Any]) -> None:
        modality = self._case.task.dataset.modality
        self._kept = self._talk.answers(
            wanted, lambda key: questions.request(self._judge, modality, wanted[key]), self._case.tell
        )

    def _verdict(self, key: Key) -> str | None:
        kept = self._kept[key]
        if kept.error is not None or kept.output is None:
            return None
        try:
            return questions.read(self._judge, kept.output)
        except Unreadable:
            return None

    # What is said of it

    def verdicts(self, repeats: dict[str, list[Floats]]) -> Verdicts:
        judge, costs = self._judge, [kept.usd for kept in self._kept.values()]
        known = [usd for usd in costs if usd is not None]
        judged = [scores for name, times in repeats.items() if name != judge.baseline for scores in times]
        return Verdicts(
            judge=judge.name,
            metric=judge.metric,
            mode=judge.asked.mode,
            scale=judge.asked.scale if judge.asked.mode == "graded" else None,
            questions=len(self._kept),
            answers=sum(len(scores) for scores in judged),
            without=int(sum(np.isnan(scores).sum() for scores in judged)),
            usd=number(sum(known)) if len(known) == len(costs) else None,
            turned=round(self._turned / self._pairs, 6) if self._pairs else None,
            for_first=round(self._for_first / self._turned, 6) if self._turned else None,
            agreement=tuple(self._agreement(name, column, repeats[name][0]) for name, column in judge.human.items()),
        )

    def _agreement(self, name: str, column: str, scores: Floats) -> Agreement:
        pairwise = self._judge.asked.mode == "pairwise"
        kinds = _PREFERENCES if pairwise else questions.verdicts(self._judge)
        cells = [example.columns.get(column) for example in self._case.examples]
        people = [None if cell is None else agreement.coded(cell, kinds) for cell in cells]
        both = [place for place, code in enumerate(people) if code is not None and not math.isnan(scores[place])]
        facts: dict[str, Any] = {
            "model": name,
            "column": column,
            "n": len(both),
            "unreadable": sum(cell is not None and code is None for cell, code in zip(cells, people, strict=True)),
            "weights": "none" if pairwise or len(kinds) == 2 else "quadratic",
        }
        if len(both) < 2:
            return Agreement(**facts)
        mine = [round(scores[place] * (len(kinds) - 1)) for place in both]
        theirs = [code for place in both if (code := people[place]) is not None]
        found = agreement.kappa(
            mine, theirs, len(kinds), self._case.clusters[both], ordered=facts["weights"] == "quadratic"
        )
        same = sum(a == b for a, b in zip(mine, theirs, strict=True)) / len(both)
        return Agreement(
            **facts, kappa=number(found.value), interval=interval(found.low, found.high), same=round(same, 6)
        )

    def notes(self, found: Verdicts) -> list[str]:
        judge, notes = self._judge, []
        how = f"on the scale {found.scale}, 0 the worst and 1 the best" if found.scale else "in both orders"
        cost = "" if found.usd is None else f", which cost ${found.usd:.4g} when they were asked"
        judged = f"{found.answers - found.without} of {found.answers} answers"
        notes.append(f"{found.metric}: {found.judge} judged {judged} {how}, by {found.questions} questions{cost}.")
        if found.without:
            notes.append(f"{found.metric}: {found.judge} gave no verdict on {found.without}; these do not count.")
        if found.turned:
            notes.append(
                f"{found.metric}: {100 * found.turned:.3g} % of {self._pairs} pairs were judged otherwise in the other "
                f"order, {100 * (found.for_first or 0):.3g} % of these for what stood first; they count as ties."
            )
        notes += [_agreed(found, each) for each in found.agreement]
        return notes + self._talk.notes(judge.name, served_models(self._kept.values()))


class _Pair(NamedTuple):
    """`settled` where no judge is needed; else both orders, the candidate's answer first and then second."""

    settled: float | None
    keys: tuple[Key, Key] | None = None
    matters: tuple[Matter, ...] = ()


def _agreed(found: Verdicts, each: Agreement) -> str:
    lost = f"; {each.unreadable} cells of {each.column!r} hold no such verdict" if each.unreadable else ""
    if each.kappa is None:
        return f"{found.metric}: {each.n} verdicts of people on {each.model} tell nothing about {found.judge}{lost}."
    span = f" ({each.interval[0]:.3g} to {each.interval[1]:.3g})" if each.interval else ""
    weighted = ", weighted by squared distance" if each.weights == "quadratic" else ""
    return (
        f"{found.metric}: on {each.n} answers of {each.model}, {found.judge} and people agree with Cohen's kappa "
        f"{each.kappa:.3g}{span}{weighted}{lost}."
    )
