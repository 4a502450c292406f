"""The worker's side of a judge: asks it about every answer, each question once, and turns its verdicts into scores.

An error gets the worst grade, and loses against any answer, without the judge. Equal answers are a tie. A pair is
judged in both orders: an answer that is preferred in both wins, anything else is a tie. If the judge itself fails,
there is no score, and the example does not count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from speciate.datasets.loading.loader import Example
from speciate.evaluation import answer_cache, statistics
from speciate.evaluation.answer_cache import AnswerKey, CachedAnswer
from speciate.evaluation.compare_models import ExtraScores
from speciate.evaluation.endpoints.answer_parsing import UnreadableAnswer
from speciate.evaluation.endpoints.cached_client import CachedClient, served_models
from speciate.evaluation.judges import judge_prompts, same_family
from speciate.evaluation.judges.judge_plan import Judge
from speciate.evaluation.judges.judge_prompts import FIRST, SECOND, TIE, JudgedAnswers
from speciate.evaluation.payload import EvaluationPayload
from speciate.evaluation.predictors.answering import Answer, ModelAnswers, OnProgress
from speciate.evaluation.reports.report import Agreement, Verdicts, interval, number
from speciate.evaluation.statistics import Codes, Estimate, Floats
from speciate.features import media_digest
from speciate.jobs.run import Run

_PREFERENCES = ("baseline", TIE, "candidate")


class JudgeCase(NamedTuple):
    """All models' answers, and the judge."""

    run: Run
    task: EvaluationPayload
    judge: Judge
    examples: Sequence[Example]
    references: Sequence[Any]
    all_answers: Sequence[ModelAnswers]
    clusters: Codes
    on_progress: OnProgress


def judge_answers(case: JudgeCase) -> ExtraScores:
    """Raises Stopped, or SpeciateError if the judge cannot be asked. Verdicts until then are in the cache."""
    _check_served(case)
    run = _JudgeRun(case)
    repeats = run.preferences() if case.judge.asked.mode == "pairwise" else run.graded()
    verdicts = run.verdicts(repeats)
    return ExtraScores(case.judge.metric, repeats, run.notes(verdicts), verdicts)


def _check_served(case: JudgeCase) -> None:
    """Model names that endpoints and logs report may reveal a family that the refs did not."""
    if case.judge.asked.same_family:
        return
    for model_answers in case.all_answers:
        if model_answers.served:
            name = model_answers.evaluated_model.name
            same_family.check_same_family_names(
                case.judge.name, [case.judge.endpoint.model], name, model_answers.served
            )


class _JudgeRun:
    """One judge at work on one evaluation's answers."""

    def __init__(self, case: JudgeCase) -> None:
        self._case, self._judge = case, case.judge
        self._client = CachedClient(case.run, case.task, case.judge.endpoint, case.judge.form)
        self._answers: dict[AnswerKey, CachedAnswer] = {}
        self._pairs = self._turned = self._for_first = 0

    def graded(self) -> dict[str, list[Floats]]:
        """Scores: the worst grade 0, the best 1, the others as far between as they are on the scale."""
        known = judge_prompts.verdicts(self._judge)
        asked = {
            model_answers.evaluated_model.name: [self._gradable(answers) for answers in model_answers.repeats]
            for model_answers in self._case.all_answers
        }
        self._ask(
            {key: judged_answers for times in asked.values() for time in times for key, judged_answers in time if key}
        )
        return {
            name: [np.array([self._grade(key, known) if key else 0.0 for key, _ in time], np.float64) for time in times]
            for name, times in asked.items()
        }

    def _gradable(self, answers: Sequence[Answer]) -> list[tuple[AnswerKey | None, JudgedAnswers | None]]:
        """Keys are None where there is no answer to grade."""
        found: list[tuple[AnswerKey | None, JudgedAnswers | None]] = []
        for place, answer in enumerate(answers):
            judged_answers = None if answer.output is None else self._judged_answers(place, answer.output)
            found.append((judged_answers and self._key(judged_answers), judged_answers))
        return found

    def _grade(self, key: AnswerKey, known: Sequence[str]) -> float:
        verdict = self._verdict(key)
        return math.nan if verdict is None else known.index(verdict) / (len(known) - 1)

    def preferences(self) -> dict[str, list[Floats]]:
        """1 where the candidate is preferred to the baseline, 0 where the baseline is, else 0.5."""
        all_answers = {model_answers.evaluated_model.name: model_answers for model_answers in self._case.all_answers}
        baseline = all_answers.pop(str(self._judge.baseline))
        pairs = {
            name: [
                self._pairs_of(answers, baseline.repeats[time % len(baseline.repeats)])
                for time, answers in enumerate(model_answers.repeats)
            ]
            for name, model_answers in all_answers.items()
        }
        self._ask(
            {key: judged_answers for times in pairs.values() for time in times for pair in time if pair.keys
             for key, judged_answers in zip(pair.keys, pair.questions, strict=True)}
        )  # fmt: skip
        found = {
            name: [np.array([self._preferred(pair) for pair in time], np.float64) for time in times]
            for name, times in pairs.items()
        }
        own = [np.full(len(self._case.examples), 0.5) for _ in baseline.repeats]
        return {baseline.evaluated_model.name: own} | found

    def _pairs_of(self, mine: Sequence[Answer], theirs: Sequence[Answer]) -> list[_Pair]:
        found = []
        for place, (candidate, baseline) in enumerate(zip(mine, theirs, strict=True)):
            if candidate.output is None or baseline.output is None or candidate.output == baseline.output:
                settled = 0.5 + 0.5 * (baseline.output is None) - 0.5 * (candidate.output is None)
                found.append(_Pair(settled))
                continue
            questions = (
                self._judged_answers(place, candidate.output, baseline.output),
                self._judged_answers(place, baseline.output, candidate.output),
            )
            found.append(_Pair(None, (self._key(questions[0]), self._key(questions[1])), questions))
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

    def _judged_answers(self, place: int, *answers: Any) -> JudgedAnswers:
        case = self._case
        return JudgedAnswers(case.examples[place], str(case.references[place]), tuple(map(str, answers)))

    def _key(self, judged_answers: JudgedAnswers) -> AnswerKey:
        """The example's id, by which a purge finds it, and a digest of the judged texts."""
        text = "\x1f".join(
            [media_digest(judged_answers.example.media), judged_answers.reference, *judged_answers.answers]
        )
        return AnswerKey(f"{judged_answers.example.id}:{answer_cache.digest(text)}")

    def _ask(self, questions: dict[AnswerKey, Any]) -> None:
        modality = self._case.task.dataset.modality
        self._answers = self._client.answers(
            questions, lambda key: judge_prompts.request(self._judge, modality, questions[key]), self._case.on_progress
        )

    def _verdict(self, key: AnswerKey) -> str | None:
        answer = self._answers[key]
        if answer.error is not None or answer.output is None:
            return None
        try:
            return judge_prompts.parse_verdict(self._judge, answer.output)
        except UnreadableAnswer:
            return None

    def verdicts(self, repeats: dict[str, list[Floats]]) -> Verdicts:
        judge, costs = self._judge, [answer.usd for answer in self._answers.values()]
        known = [usd for usd in costs if usd is not None]
        judged = [scores for name, times in repeats.items() if name != judge.baseline for scores in times]
        return Verdicts(
            judge=judge.name,
            metric=judge.metric,
            mode=judge.asked.mode,
            scale=judge.asked.scale if judge.asked.mode == "graded" else None,
            questions=len(self._answers),
            answers=sum(len(scores) for scores in judged),
            without=int(sum(np.isnan(scores).sum() for scores in judged)),
            usd=number(sum(known)) if len(known) == len(costs) else None,
            turned=round(self._turned / self._pairs, 6) if self._pairs else None,
            for_first=round(self._for_first / self._turned, 6) if self._turned else None,
            agreement=tuple(self._agreement(name, column, repeats[name][0]) for name, column in judge.human.items()),
        )

    def _agreement(self, name: str, column: str, scores: Floats) -> Agreement:
        pairwise = self._judge.asked.mode == "pairwise"
        kinds = _PREFERENCES if pairwise else judge_prompts.verdicts(self._judge)
        cells = [example.columns.get(column) for example in self._case.examples]
        people = [None if cell is None else verdict_code(cell, kinds) for cell in cells]
        both = [place for place, code in enumerate(people) if code is not None and not math.isnan(scores[place])]
        facts: Mapping[str, Any] = {
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
        found = cohen_kappa(
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
        notes += [_agreement_note(found, each) for each in found.agreement]
        return notes + self._client.notes(judge.name, served_models(self._answers.values()))


class _Pair(NamedTuple):
    """`settled` where no judge is needed; else both orders, the candidate's answer first and then second."""

    settled: float | None
    keys: tuple[AnswerKey, AnswerKey] | None = None
    questions: tuple[JudgedAnswers, ...] = ()


def _agreement_note(found: Verdicts, each: Agreement) -> str:
    lost = f"; {each.unreadable} cells of {each.column!r} hold no such verdict" if each.unreadable else ""
    if each.kappa is None:
        return f"{found.metric}: {each.n} verdicts of people on {each.model} tell nothing about {found.judge}{lost}."
    span = f" ({each.interval[0]:.3g} to {each.interval[1]:.3g})" if each.interval else ""
    weighted = ", weighted by squared distance" if each.weights == "quadratic" else ""
    return (
        f"{found.metric}: on {each.n} answers of {each.model}, {found.judge} and people agree with Cohen's kappa "
        f"{each.kappa:.3g}{span}{weighted}{lost}."
    )


def cohen_kappa(mine: Sequence[int], theirs: Sequence[int], kinds: int, clusters: Codes, *, ordered: bool) -> Estimate:
    """Agreement of a judge with people: Cohen's kappa, with squared distances as weights for ordered grades.

    `mine` and `theirs` (n,): codes below `kinds`. Cohen (1960), weighted as in Cohen (1968): scikit-learn's
    `cohen_kappa_score`, with a bootstrap over clusters. NaN if both give every answer the same verdict.
    """
    table = np.zeros((len(mine), kinds * kinds))
    table[np.arange(len(mine)), np.asarray(mine) * kinds + np.asarray(theirs)] = 1.0
    codes = np.unique(clusters, return_inverse=True)[1].astype(np.int64)
    sums = np.zeros((int(codes.max()) + 1, kinds * kinds))
    np.add.at(sums, codes, table)
    grid = np.arange(kinds, dtype=float)
    costs = (grid[:, None] - grid) ** 2 if ordered else 1.0 - np.eye(kinds)

    def value(weights: Floats) -> Floats:
        counts = (weights @ sums).reshape(-1, kinds, kinds)
        chance = counts.sum(2)[:, :, None] * counts.sum(1)[:, None, :]
        with np.errstate(invalid="ignore", divide="ignore"):
            chance /= counts.sum((1, 2))[:, None, None]
            expected = (costs * chance).sum((1, 2))
            return np.where(expected > 0, 1 - (costs * counts).sum((1, 2)) / expected, math.nan)

    return statistics.bootstrap(statistics.resample(value, codes))._replace(n=len(mine))


def verdict_code(cell: Any, verdicts: Sequence[str]) -> int | None:
    """Which of the verdicts a cell of a person's names; None: none of them.

    >>> verdict_code(4.0, ("1", "2", "3", "4", "5")), verdict_code("Yes", ("no", "yes")), verdict_code("6", ("1", "2"))
    (3, 1, None)
    """
    if isinstance(cell, bool):
        cell = "yes" if cell else "no"
    text = str(cell).strip().casefold()
    if text.endswith(".0"):
        text = text[:-2]
    if tuple(verdicts) == ("no", "yes") and text in ("0", "1"):
        return int(text)
    known = [verdict.casefold() for verdict in verdicts]
    return known.index(text) if text in known else None
