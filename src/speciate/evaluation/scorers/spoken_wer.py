"""The scorer `spoken_wer:MODEL`: whether speech is understood, by a registered model that writes down what it hears.

The transcript and the text are compared as they are spoken: without case and punctuation, numerals as words. The score
is that recogniser's: its own mistakes count, and what it guesses right from the words around counts as spoken. Name one
that was not trained on the voice that is judged, and see what it makes of the recordings (evaluate it on them) first.

A plan resolves the model (`settle`), so that the run needs nothing of the catalog: `spoken_wer:NAME@v1|FOLDER`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from speciate.datasets.loading.loader import Example
from speciate.errors import Call, Code, SpeciateError
from speciate.evaluation.scorers.sandboxed_scorers import ScorerError, ScoreResult
from speciate.evaluation.spoken_words import edit_distance, spoken_words
from speciate.modalities.audio import SAMPLE_RATE
from speciate.modalities.audio_answers import decode_audio, is_audio_answer, resample
from speciate.models import registry
from speciate.tasks.predictor import load
from speciate.tasks.task import Predictor
from speciate.vocabulary import Task
from speciate.workspace.workspace import Workspace

PREFIX, _BAR = "spoken_wer:", "|"
_TASK = "automatic-speech-recognition"
_FIRST_SIGN = 0x4E00


def settle(workspace: Workspace, ref: str | None, task: Task) -> str | None:
    """Any other scorer as it is. Raises NOT_FOUND for the model, INVALID where it is no recogniser, or where nothing is
    spoken."""
    if ref is None or not ref.startswith(PREFIX) or _BAR in ref:
        return ref
    if task.family != "speech-synthesis":
        raise SpeciateError(
            Code.INVALID,
            f"{ref!r} scores speech that was made from texts, and this evaluation is of {task.name!r}.",
            "Call again without scorer, or with another one.",
        )
    version = registry.resolve(workspace.database, workspace.folders, ref.removeprefix(PREFIX))
    if version.card.task != _TASK or version.path is None:
        raise SpeciateError(
            Code.INVALID,
            f"{version.ref} is no model that writes down what is spoken: its task is {version.card.task!r}.",
            "Register one, register_model(name='listener', source='path:/dir' or 'hf:ORG/NAME'), or train one, and "
            "name it.",
            next=[Call("search_models", {"task": _TASK}, "for some")],
        )
    return f"{PREFIX}{version.ref}{_BAR}{version.path}"


def metric_of(ref: str) -> str:
    """`spoken_wer:NAME@v1`"""
    return ref.partition(_BAR)[0]


def score_speech(ref: str, run_folder: Path, rows: Sequence[Mapping[str, Any]]) -> list[ScoreResult]:
    """The word errors of each answer per word of its text. An answer that failed says no word: each one is an error."""
    name, model = metric_of(ref), _model(ref.partition(_BAR)[2])
    found: list[ScoreResult] = []
    for row in rows:
        wanted = spoken_words(row["example"]["input"]).split()
        if not wanted:
            found.append(ScorerError("raised", "its text has no word that is spoken"))
            continue
        heard = spoken_words(_transcript(model, row["prediction"]["output"])).split()
        found.append({name: word_distance(wanted, heard) / len(wanted)})
    return found


def word_distance(wanted: Sequence[str], heard: Sequence[str]) -> int:
    """The fewest words that are inserted, left out or replaced.

    >>> word_distance("he is here".split(), "he was here too".split())
    2
    """
    signs = {word: chr(_FIRST_SIGN + place) for place, word in enumerate(dict.fromkeys([*wanted, *heard]))}
    return edit_distance("".join(signs[word] for word in wanted), "".join(signs[word] for word in heard))


def _transcript(model: Predictor, output: object) -> str:
    """Nothing, where there is no audio that can be read."""
    try:
        if not is_audio_answer(output):
            return ""
        samples = resample(*decode_audio(output), SAMPLE_RATE)
    except ValueError:
        return ""
    return str(model.predict([Example("spoken", samples, None, "spoken", "test", {})])[0].output)


@cache
def _model(folder: str) -> Predictor:
    return load(Path(folder))
