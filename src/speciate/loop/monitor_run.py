"""The worker's part of `monitor`: samples the window, compares it, and draws what a person looks at.

The same window gives the same result: what is drawn by chance is drawn with seeds that follow from the use case, the
generation, the number of the window and the signal. Nothing of what was asked is in the result, but in the contact
sheet, which shows media and never text.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate import features
from speciate.evaluation.reports import stored_answers
from speciate.jobs.folder import write_whole
from speciate.jobs.pool import Pool
from speciate.jobs.run import Run
from speciate.loop.drift import (
    change_point,
    evidence,
    kernel_features,
    label_free,
    label_quality,
    limits,
    permutation,
    shift_tests,
)
from speciate.loop.drift.dependence import Promise, Units, promise, units_of
from speciate.loop.drift.drawing import Trail, draw
from speciate.loop.drift.evidence import LogFactors
from speciate.loop.drift.permutation import Rows, ShiftTest, Values
from speciate.loop.monitor import MonitorOutcome, MonitorPayload, Signal, Use
from speciate.loop.monitor_sample import (
    Sample,
    Source,
    Window,
    extractor_id,
    input_of,
    join,
    sample,
    take,
    vectors_beside,
)
from speciate.modalities import find
from speciate.predictions import reading
from speciate.predictions.log_files import LogFolder, log_folder
from speciate.predictions.quality import AnswerOutput, wilson_interval
from speciate.serving.hourly_tallies import read_hours
from speciate.serving.routing import PRODUCTION
from speciate.settings import Settings

REFERENCE, LEAST_REFERENCE, LEAST = 600, 50, 20
"""Inputs before that a window is compared with; without so many there is no reference; without so many it waits."""
SHARES = {"inputs": 0.25, "quality": 0.4, "failed": 0.05, "failed_not_finite": 0.05, "slow": 0.05}
"""Share of all false alarms that each signal may make; they sum to 1 with six scalars."""
SCALAR_SHARE = 0.2 / 6
_MOST_DATED = 4
"""Windows up to the newest in which the moment of a change is looked for."""
_NOVEL, _TYPICAL = 12, 6
_LEAST_ERRORS, _LEAST_ERRORS_BEFORE = 5, 20
_MARGIN = 0.02
"""Beyond what an evaluation found wrong, where the use case says no target; as `not_worse` allows."""
_LEVEL = 0.95
_DRAW = "speciate.loop.monitor_describe:draw_sheet"
_DRAW_SECONDS = 60.0


def run(run: Run) -> dict[str, Any]:
    payload = run.read_payload(MonitorPayload)
    pool = Pool(run.folders, Settings(cage=payload.cage), size=1)
    try:
        return _Monitor(run, payload, pool).outcome().model_dump(mode="json")
    finally:
        pool.close()


class _Compared(NamedTuple):
    use: Use
    window: Sample
    reference: int
    signals: list[Signal]
    scores: Mapping[str, float]
    """Answer -> how novel its input is."""
    typical: tuple[str, ...]
    """Answers of before the change, if there is one."""
    notes: list[str]
    promise: Promise | None = None


class _Vectors(NamedTuple):
    rows: Rows
    ids: list[str]
    """Answers that have one, in the order of `rows`."""
    known: npt.NDArray[np.bool_]
    """Whether it has one, for each answer of the sample."""


class _Monitor:
    def __init__(self, run: Run, payload: MonitorPayload, pool: Pool) -> None:
        self._run, self._payload, self._spec = run, payload, payload.spec
        self._log: LogFolder = log_folder(run.folders, payload.spec.use_case)
        named = next((each.measures for each in payload.earlier if each.measures), None)
        self._source = Source(
            self._log, run.folders, pool, payload.modality, payload.extractor, named, self._spec.generation,
            payload.since,
        )  # fmt: skip

    def outcome(self) -> MonitorOutcome:
        spec, payload = self._spec, self._payload
        rows = self._rows()
        found = self._compare() if len(rows["id"]) or self._waiting() else _nothing()
        signals = [*found.signals, *self._quality(rows), *self._limits(rows)]
        estimate = self._estimate(rows, found.signals)
        signals += [estimate] if estimate else []
        novel = tuple(sorted(found.scores, key=lambda name: (-found.scores[name], name))[:_NOVEL])
        heard = any(_share(each) >= 0.5 for each in found.signals)
        outcome = MonitorOutcome(
            use_case=spec.use_case, generation=spec.generation, number=spec.number, window=(spec.begin, spec.end),
            n=len(rows["id"]), sampled=len(found.window.ids), reference=found.reference, use=found.use,
            model=payload.model, extractor=payload.extractor, measures=tuple(self._measures(found)),
            signals=tuple(signals), novel=novel, notes=tuple(found.notes), not_promised=_not_promised(found),
            promised=None if found.promise is None else found.promise.kept,
            dependence="" if found.promise is None else found.promise.because,
        )  # fmt: skip
        return outcome.model_copy(
            update={
                "plot": self._plot(outcome),
                "sheet": self._sheet(novel, found.typical) if heard and novel else None,
            }
        )

    def _rows(self) -> dict[str, list[Any]]:
        """Columns of all answers of the window."""
        columns = ["id", "at", "confidence", "error", "ms", "generation"]
        if not self._log.path.exists():
            return {name: [] for name in columns}
        table = reading.answers(self._log, since=max(self._spec.begin, self._payload.since), columns=columns)
        found = table.to_pydict()
        keep = [place for place, at in enumerate(found["at"]) if at < self._spec.end]
        return {name: [values[place] for place in keep] for name, values in found.items()}

    def _measures(self, found: _Compared) -> Sequence[str]:
        return self._source.measures or (self._found_measures if found.window.ids else ())

    # What is compared with what was before

    def _waiting(self) -> list[MonitorOutcome]:
        """Windows at the end that had too few answers to be tested: they are tested with this one."""
        found: list[MonitorOutcome] = []
        for each in reversed(self._payload.earlier):
            if each.use not in ("waits", "nothing"):
                break
            found.append(each)
        return [each for each in reversed(found) if each.use == "waits"]

    def _reference(self) -> list[MonitorOutcome]:
        """Windows since the promotion, or since the onset of the last alarm: what began then is what is usual now."""
        shifts = [
            signal.onset
            for each in self._payload.earlier
            for signal in each.signals
            if signal.alarm and signal.onset is not None and _is_shift(signal.name)
        ]
        begin = max(shifts, default=-math.inf)
        return [
            each for each in self._payload.earlier if each.use in ("reference", "tested") and each.window[1] > begin
        ]

    def _compare(self) -> _Compared:
        spec = self._spec
        own = Window(spec.number, spec.begin, spec.end)
        waiting = [_window(each) for each in self._waiting()]
        samples = []
        self._found_measures: Sequence[str] = ()
        for each in [*waiting, own]:
            made, names = sample(self._source, each)
            self._found_measures = self._found_measures or names
            samples.append(made)
        window = join(samples)
        windows = self._reference()
        before = [sample(self._source, _window(each))[0] for each in windows]
        total = sum(len(each.ids) for each in before)
        if total < LEAST_REFERENCE:
            use: Use = "reference" if window.ids else "nothing"
            return _Compared(use, window, total, [], {}, (), [
                f"{total} different inputs before are fewer than {LEAST_REFERENCE}: this window is part of what later "
                "ones are compared with."
            ])  # fmt: skip
        if len(window.ids) < LEAST:
            return _Compared("waits" if window.ids else "nothing", window, total, [], {}, (), [
                f"{len(window.ids)} different inputs are fewer than {LEAST}: they are tested together with the next "
                "window's."
            ])  # fmt: skip
        whole = join(before)
        drawn = self._rng("reference").permutation(len(whole.ids))[:REFERENCE]
        reference = take(whole, drawn.tolist())
        numbers = np.repeat(np.arange(len(before)), [len(each.ids) for each in before])[drawn]
        both = join([reference, window])
        who = both.entity, both.at, np.append(numbers, np.full(len(window.ids), len(before)))
        units = units_of(*who)
        inputs, scores = self._inputs(reference, window, units)
        inputs = [self._dated(each, list(zip(windows, before, strict=True)), window) for each in inputs]
        signals = [*inputs, *self._scalars(reference, window, units)]
        since = next((each.onset for each in inputs if each.onset is not None), self._spec.begin)
        usual = [name for each, one in zip(windows, before, strict=True) if each.window[1] <= since for name in one.ids]
        return _Compared(
            "tested",
            window,
            total,
            signals,
            scores,
            tuple(usual[:: max(1, len(usual) // _TYPICAL)][:_TYPICAL]),
            [],
            promise(*who),
        )

    def _inputs(
        self, reference: Sample, window: Sample, units: Units
    ) -> tuple[list[Signal], dict[str, float]]:  # fmt: skip
        """Embeddings, by their MMD."""
        extractor = extractor_id(self._source)
        if extractor is None:
            return [], {}
        beside = vectors_beside(self._run.folders, self._log)
        before, now = (self._vectors(beside, extractor, each) for each in (reference, window))
        old, new = before.rows, now.rows
        if len(old) < LEAST_REFERENCE or len(new) < LEAST or old.shape[1] != new.shape[1]:
            return [], {}
        described = units.take(np.append(before.known, now.known))
        test, novelty = kernel_features.compare(old, new, described, self._rng("inputs"))
        told = f"embeddings of {len(new)} inputs against {len(old)} before: AUC {novelty.auc:.2f} (0.5: alike)"
        return [self._tested("inputs", test, told)], dict(zip(now.ids, novelty.scores.tolist(), strict=True))

    def _dated(
        self, signal: Signal, windows: Sequence[tuple[MonitorOutcome, Sample]], window: Sample
    ) -> Signal:  # fmt: skip
        """With the moment of the answer since which inputs are other ones, in the place of its window's beginning."""
        extractor = extractor_id(self._source)
        if not signal.alarm or signal.onset is None or extractor is None:
            return signal
        beside = vectors_beside(self._run.folders, self._log)
        usual = [one for each, one in windows if each.window[1] <= signal.onset]
        since = [*(one for each, one in windows if each.window[0] >= signal.onset), window]
        if not usual:
            return signal
        drawn = join(usual)
        some = self._rng("usual").permutation(len(drawn.ids))[:REFERENCE]
        old = self._vectors(beside, extractor, take(drawn, some.tolist())).rows
        new, ids, _ = self._vectors(beside, extractor, join(since[-_MOST_DATED:]))
        if len(old) < LEAST_REFERENCE or len(new) < LEAST or old.shape[1] != new.shape[1]:
            return signal
        asked = self._times(signal.onset)
        order = sorted((place for place, name in enumerate(ids) if name in asked), key=lambda place: asked[ids[place]])
        scores = change_point.witness(old, new[order], self._rng("onset"))
        first = change_point.begin(scores.usual, scores.later)
        return signal.model_copy(update={"onset": asked[ids[order[first]]]}) if first else signal

    def _times(self, since: float) -> dict[str, float]:
        """When each answer was given."""
        table = reading.answers(self._log, since=max(since, self._payload.since), columns=["id", "at"])
        return dict(zip(table["id"].to_pylist(), table["at"].to_pylist(), strict=True))

    def _vectors(self, beside: Any, extractor: str, of: Sample) -> _Vectors:
        found = features.read(beside, extractor, of.keys)
        ids = [name for name, known in zip(of.ids, found.known.tolist(), strict=True) if known]
        return _Vectors(found.vectors, ids, found.known)

    def _scalars(self, reference: Sample, window: Sample, units: Units) -> list[Signal]:
        """Few, so that none has to be very surprising before it counts. What the version itself says (confidence,
        answers) is compared among its own answers."""
        found: list[Signal] = []
        own = np.append(reference.own, window.own)
        both = join([reference, window])
        confidence, number = (np.where(own, values, math.nan) for values in (both.confidence, both.number))
        followed = [("confidence", confidence), ("answers", number)]
        names = list(self._source.measures or self._found_measures)
        followed += [
            (f"measure_{name}", both.measures[:, place]) for place, name in enumerate(names[: window.measures.shape[1]])
        ]
        for name, values in followed:
            there = np.isfinite(values)
            before, now = (int(each.sum()) for each in np.split(there, [len(reference.ids)]))
            if before >= LEAST_REFERENCE and now >= LEAST:
                test = shift_tests.largest_gap(values[there], units.take(there), self._rng(name))
                told = f"{name} of {now} answers against {before} before: largest gap"
                found.append(self._tested(name, test, f"{told} {test.statistic:.2f}"))
        labelled = own & np.array([each != "" for each in both.label], np.bool_)
        if (labels := self._labels(both.label, labelled, len(reference.ids), units)) is not None:
            found.append(labels)
        return found

    def _labels(
        self, label: Sequence[str], labelled: npt.NDArray[np.bool_], cut: int, units: Units
    ) -> Signal | None:  # fmt: skip
        """The share of each answer, where answers are labels. `labelled`: which count; from `cut` on they are the
        window's."""
        before, now = (int(each.sum()) for each in np.split(labelled, [cut]))
        known, codes = np.unique(np.array(label, np.str_)[labelled], return_inverse=True)
        if before < LEAST_REFERENCE or now < LEAST or not 2 <= len(known) <= 200:
            return None
        test = shift_tests.share_distance(codes.astype(np.int64), units.take(labelled), self._rng("answers"))
        return self._tested("answers", test, f"shares of {len(known)} answers: {now} against {before} before")

    def _tested(self, name: str, test: ShiftTest, told: str) -> Signal:
        signal = Signal(name=name, statistic=_finite(test.statistic), p=test.p, because=f"{told}, p {test.p:.3g}")
        return self._judged(signal)

    # Labels, limits, estimates

    def _quality(self, rows: Mapping[str, list[Any]]) -> list[Signal]:
        """By labels that arrived in the window, of answers of this version whenever they were given."""
        spec, payload = self._spec, self._payload
        if not self._log.path.exists():
            return []
        given = reading.feedback(self._log, since=payload.since)
        if not any(spec.begin <= each.at < spec.end for each in given):
            return []
        outputs = self._outputs({each.prediction for each in given})
        said = label_quality.arrivals(outputs, given, spec.begin, spec.end)
        late = f"; {said.contradicted} that were counted before were judged otherwise now" if said.contradicted else ""
        if said.judged:
            allowed, why = self._allowed()
            if allowed is None:
                told = f"{said.wrong:g} of {said.judged} randomly drawn answers were wrong{late}; {why}"
                return [Signal(name="quality", bad=said.wrong, n=said.judged, because=told)]
            low, high = wilson_interval(said.wrong / said.judged, said.judged, _LEVEL)
            return [self._judged(Signal(
                name="quality", statistic=said.wrong / said.judged, bad=said.wrong, n=said.judged, allowed=allowed,
                interval=(low, high),
                because=f"{said.wrong:g} of {said.judged} randomly drawn answers were wrong, {100 * allowed:.3g} % are "
                f"allowed ({why}){late}",
            ))]  # fmt: skip
        before = label_quality.errors_before(outputs, given, spec.begin)
        if len(said.errors) < _LEAST_ERRORS or len(before) < _LEAST_ERRORS_BEFORE:
            return []
        test = permutation.higher_rank(np.array(before), np.array(said.errors), self._rng("quality"))
        told = f"errors of {len(said.errors)} randomly drawn answers against {len(before)} before{late}: larger in "
        return [self._tested("quality", test, f"{told}{100 * test.statistic:.0f} % of pairs")]

    def _outputs(self, wanted: set[str]) -> list[AnswerOutput]:
        columns = ["id", "model", "output", "generation"]
        rows = reading.answers(self._log, since=self._payload.since, columns=columns, of=sorted(wanted)).to_pylist()
        return [
            AnswerOutput(row["id"], row["model"], None if row["output"] is None else json.loads(row["output"]))
            for row in rows
            if row["generation"] == self._spec.generation
        ]

    def _allowed(self) -> tuple[float | None, str]:
        if self._payload.allowed_wrong is not None:
            return self._payload.allowed_wrong, "by the use case's target"
        seen = self._evaluated()
        if seen is None:
            return None, "no target and no evaluation of this version says how many may be"
        wrong = len(seen.right) - float(seen.right.sum())
        high = wilson_interval(wrong / len(seen.right), len(seen.right), _LEVEL)[1]
        return min(0.95, high + _MARGIN), "by its evaluation, and two points more"

    def _evaluated(self) -> _Evaluated | None:
        """What the last evaluation of this version found; None where answers are not right or wrong."""
        payload = self._payload
        if payload.evaluation is None or payload.model is None:
            return None
        folder = self._run.folders.evaluations / payload.evaluation
        try:
            answers = stored_answers.read_answers(folder, [payload.model])
            examples = stored_answers.read_examples(stored_answers.StoredRequest(folder=folder))
        except Exception:  # noqa: BLE001 - deleted or damaged: the estimate is left out
            return None
        pairs = [
            (each["confidence"], str(output).strip() == str(examples[each["example"]]["truth"]).strip())
            for each in answers
            if each["example"] in examples and isinstance(output := stored_answers.output_of(each), str)
        ]
        if len(pairs) < LEAST:
            return None
        known = [(confidence, right) for confidence, right in pairs if confidence is not None]
        return _Evaluated(
            np.array([right for _, right in pairs], np.float64), np.array([c for c, _ in known], np.float64),
            np.array([right for _, right in known], np.float64),
        )  # fmt: skip

    def _limits(self, rows: Mapping[str, list[Any]]) -> list[Signal]:
        """Signals of the limits, by what the deployment counted; where none did, by the log."""
        spec, payload = self._spec, self._payload
        hours = [
            each
            for each in read_hours(payload.hours, spec.begin, spec.end)
            if (each.alias, each.generation) == (PRODUCTION, spec.generation)
        ]
        counted = limits.of_hours(hours, payload.error_rate) if hours else (
            limits.of_log(rows["error"], rows["ms"], payload.p95_ms, payload.error_rate)
        )  # fmt: skip
        return [
            self._judged(Signal(
                name=each.name, statistic=each.seen.rate, bad=each.seen.bad, n=each.seen.n, allowed=each.allowed,
                because=f"{each.seen.bad} of {each.seen.n} requests {each.what}, {100 * each.allowed:.3g} % may be",
            ))
            for each in counted
        ]  # fmt: skip

    def _estimate(self, rows: Mapping[str, list[Any]], tested: Sequence[Signal]) -> Signal | None:
        """Shown, never decisive; unknown once inputs are half way to an alarm, for then it is what misleads."""
        confidence = np.array(
            [c for c, error, generation in zip(rows["confidence"], rows["error"], rows["generation"], strict=True)
             if c is not None and not error and generation == self._spec.generation and math.isfinite(c)], np.float64,
        )  # fmt: skip
        seen = self._evaluated() if len(confidence) >= LEAST else None
        if seen is None or len(seen.confidence) < LEAST:
            return None
        curve = label_free.calibrate(seen.confidence, seen.confident_right)
        expected = curve(confidence)
        mended = self._mended(curve, expected)
        if mended is not None:
            return Signal(
                name="estimate", statistic=mended.value, n=mended.labels,
                interval=(mended.low or 0.0, mended.high or 1.0),
                because=f"share of right answers by confidence, mended by {mended.labels} random labels "
                "(prediction-powered inference)",
            )  # fmt: skip
        if any(_share(each) >= 0.5 for each in tested if each.name == "inputs"):
            told = "unknown: inputs have changed, and an estimate by confidence assumes that they have not"
            return Signal(name="estimate", because=f"{told}; label answers that were drawn at random")
        value = label_free.confidence_based(expected).value
        return Signal(
            name="estimate", statistic=value, n=len(expected),
            because="share of right answers by confidence alone; it assumes that no input is of a new kind",
        )  # fmt: skip

    def _mended(self, curve: label_free.Calibration, expected: Values) -> label_free.Estimated | None:
        spec = self._spec
        given = reading.feedback(self._log, since=self._payload.since)
        if not any(spec.begin <= each.at < spec.end for each in given):
            return None
        said = label_quality.arrivals(self._outputs({each.prediction for each in given}), given, spec.begin, spec.end)
        answers = reading.find_many(self._log, list(said.ids))
        pairs = [
            (answers[name].confidence, right)
            for name, right in zip(said.ids, said.right, strict=True)
            if name in answers and answers[name].confidence is not None
        ]
        labelled = curve(np.array([confidence for confidence, _ in pairs], np.float64)) if pairs else np.zeros(0)
        return label_free.prediction_powered(expected, labelled, np.array([right for _, right in pairs], np.float64))

    # Evidence over windows

    def _judged(self, signal: Signal) -> Signal:
        """The signal with what its looks so far come to, since its last alarm."""
        spec = self._spec
        past = _since_alarm(signal.name, self._payload.earlier)
        looks = [factors for _, each in past if (factors := factors_of(each)) is not None]
        own = factors_of(signal)
        assert own is not None
        share = SHARES.get(signal.name, SCALAR_SHARE)
        verdict = evidence.judge([*looks, own], evidence.threshold(spec.end - spec.begin, share))
        begins = [*(each.window[0] for each, found in past if factors_of(found) is not None), spec.begin]
        onset = None if verdict.onset is None else begins[verdict.onset]
        if verdict.alarm and onset is None:
            onset = spec.begin
        told = f"; evidence {verdict.log_evidence:.2f} of {verdict.threshold:.2f}"
        return signal.model_copy(update={
            "e_value": math.exp(min(700.0, evidence.log_mean(own))), "log_evidence": verdict.log_evidence,
            "threshold": verdict.threshold, "alarm": verdict.alarm, "onset": onset, "because": signal.because + told,
        })  # fmt: skip

    def _rng(self, name: str) -> np.random.Generator:
        spec = self._spec
        text = f"{spec.use_case}/{spec.generation}/{spec.number}/{name}"
        return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))

    # What people look at

    def _plot(self, outcome: MonitorOutcome) -> str | None:
        windows = [*self._payload.earlier, outcome]
        trails = trails_of(windows)
        if not trails:
            return None
        spec = self._spec
        path = self._log.watched / "plots" / f"{spec.generation}-{spec.number}.svg"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, draw(trails, [each.window for each in windows], outcome.model or spec.use_case), 0o600)
        return self._relative(path)

    def _sheet(self, novel: Sequence[str], typical: Sequence[str]) -> str | None:
        """The most novel inputs, then some of before; of media that are shown as images alone: text is not quoted."""
        modality, spec = self._payload.modality, self._spec
        if not modality or modality in ("tabular", "mixed") or find(modality).analyzer is not None:
            return None
        answers = reading.find_many(self._log, [*novel, *typical])
        shown = [
            (given, caption)
            for names, word in ((novel, "new"), (typical, "before"))
            for place, name in enumerate(names, 1)
            if name in answers and (given := input_of(self._source, answers[name])) is not None
            for caption in [f"{word} {place}"]
        ]
        if not shown:
            return None
        request = {
            "modality": modality, "inputs": [given for given, _ in shown], "captions": [text for _, text in shown],
        }  # fmt: skip
        answer = self._source.pool.ask(_DRAW, request, _DRAW_SECONDS, readable=frozenset({self._log.media}))
        data = base64.b64decode(answer["png"])
        if not data.startswith(b"\x89PNG"):
            return None
        path = self._log.watched / "sheets" / f"{spec.generation}-{spec.number}.png"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(data)
        temporary.replace(path)
        return self._relative(path)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._run.folders.root).as_posix()


class _Evaluated(NamedTuple):
    right: Values
    confidence: Values
    confident_right: Values
    """`right` of the examples that have a confidence, in the order of `confidence`."""


def factors_of(signal: Signal) -> LogFactors | None:
    """The e-values of one look; None where it was none."""
    if signal.p is not None:
        return evidence.of_p(signal.p)
    if signal.bad is not None and signal.n and signal.allowed is not None:
        return evidence.of_counts(signal.bad, signal.n, signal.allowed)
    return None


def _since_alarm(name: str, windows: Sequence[MonitorOutcome]) -> list[tuple[MonitorOutcome, Signal]]:
    """The looks of one signal that count: after an alarm it begins anew, and so do all that say whether inputs have
    changed, as what is usual begins anew with them."""
    found: list[tuple[MonitorOutcome, Signal]] = []
    for window in windows:
        alarmed = any(each.alarm and (each.name == name or (_is_shift(name) and _is_shift(each.name)))
                      for each in window.signals)  # fmt: skip
        if alarmed:
            found = []
            continue
        found += [(window, each) for each in window.signals if each.name == name]
    return found


def _is_shift(name: str) -> bool:
    return name not in ("quality", "estimate", "failed", "failed_not_finite", "slow")


def _share(signal: Signal) -> float:
    """Evidence of the signal as a share of its threshold, both in logarithms."""
    if signal.log_evidence is None or not signal.threshold:
        return 0.0
    return signal.log_evidence / signal.threshold


def _window(outcome: MonitorOutcome) -> Window:
    return Window(outcome.number, *outcome.window)


def _not_promised(found: _Compared) -> str | None:
    """What the comparison does not promise. A window that was not compared is told what it lacks for the next one."""
    if found.promise is None:
        return _without_askers(found.window)
    because = found.promise.because
    return None if found.promise.kept else f"{because[0].upper()}{because[1:]}."


def _without_askers(window: Sample) -> str | None:
    unknown = sum(not each for each in window.entity)
    if not unknown:
        return None
    return (
        f"Who asked is not known of {unknown} of {len(window.ids)} answers that were compared. Answers to one user or "
        "session are alike, and may raise an alarm although nothing has changed: pass entity to predict, or send the "
        "header x-request-entity."
    )


def _nothing() -> _Compared:
    empty = Sample([], [], np.zeros(0), np.zeros(0), [], np.zeros((0, 0)), np.zeros(0, np.bool_), [], np.zeros(0))
    return _Compared("nothing", empty, 0, [], {}, (), ["Nothing was asked in this window."])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def trails_of(windows: Sequence[MonitorOutcome]) -> list[Trail]:
    """For each signal that accumulates, its evidence over windows as a share of its threshold."""
    names = dict.fromkeys(each.name for window in windows for each in window.signals if each.threshold)
    found: list[Trail] = []
    for name in names:
        points = [
            (window.window[1], max(0.0, _share(each)), each.alarm)
            for window in windows
            for each in window.signals
            if each.name == name and each.threshold
        ]
        newest = [each for window in windows for each in window.signals if each.name == name][-1]
        alarmed = [each for window in windows for each in window.signals if each.name == name and each.alarm]
        found.append(Trail(name, points, alarmed[-1].onset if alarmed else newest.onset))
    return found
