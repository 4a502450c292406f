"""`distill` where the task is to write: a language model learns from one that is larger, or from several.

What is learned from are the dataset's answers, those that a teacher writes to the same questions, or those that the
student writes meanwhile (on-policy; Agarwal et al. 2023); what is learned of them are the teacher's chances of what
comes next, across tokenizers where the two have other vocabularies (across.py), or the answers word by word (Kim and
Rush 2016). The student is a base model, or one cut from a larger one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from speciate.datasets.intake.rows import WITHOUT_LABEL
from speciate.datasets.loading.loader import Example, load_unlabelled
from speciate.errors import Code, SpeciateError
from speciate.language import bases, forms
from speciate.language.forms import IGNORED, Form, Lesson
from speciate.modalities.messages import Conversation, conversation
from speciate.tasks.contract import Prediction
from speciate.tasks.truth import is_label
from speciate.tasks.writing import WritingPredictor, form_of
from speciate.training.frontier import Measured, compared
from speciate.training.language import judging, lessons
from speciate.training.language.distillation import across, taught_trainer, tutors
from speciate.training.language.distillation.across import Stranger
from speciate.training.language.distillation.across_trainer import taught_across
from speciate.training.language.distillation.chorus import SCALED, chorus, rows, same_vocabulary
from speciate.training.language.distillation.cutting import cut
from speciate.training.language.distillation.specs import LanguageDistillParameters, learns_without
from speciate.training.language.durable_trainer import Ending, durable
from speciate.training.language.lessons import Exercise, Lessons, Turn, turns
from speciate.training.language.pupil import Pupil, changes, digest, finished, pupil, session, settings
from speciate.training.selection import Chosen, measure_answers
from speciate.training.study import Study
from speciate.vocabulary import find_metric

_USUAL_RATE = 5e-5
_TIMED = 8
"""Held-out examples whose answers are timed."""
Columns = dict[str, list[str]]
_CONTROL = "control"
"""The name of its training."""


class Taught(NamedTuple):
    """All that is settled before a step is made."""

    asked: Form
    found: Lessons
    weight: float
    longest: int
    across: tuple[list[Conversation], list[Conversation]] | None
    """The questions of what is learned and held out, where they are put to a teacher of another vocabulary anew."""


def fit(study: Study, parameters: LanguageDistillParameters) -> Chosen:
    began = time.monotonic()
    study.progress(0, None, "", "loading the student")
    with study.tally.stage("preparing"):
        learner = student(study, parameters)
        plan = prepared(study, learner, parameters)
        parameters = _whole_batches(parameters, plan.found)
        trainer = _of_chances(study, learner, parameters, plan) if plan.weight else _of_words(
            study, learner, parameters, plan.found, plan.asked
        )  # fmt: skip
    ending = trainer.go()
    predictor = finished(study, trainer, learner, plan.asked, parameters)
    del trainer  # teachers and moments leave the memory
    chosen = judging.chosen(study, predictor, parameters, ending, began)
    study.found["distillation"] |= {"answers": parameters.answers, "weight": plan.weight}
    parameters = parameters.model_copy(update={"steps": ending.steps})  # a control takes as many
    study.found["distillation"] |= _compared(study, chosen, predictor, parameters, plan)
    return chosen


def student(study: Study, parameters: LanguageDistillParameters) -> Pupil:
    """The base model, or what is cut from it."""
    learner = pupil(study, parameters)
    known = study.found.setdefault("distillation", {})
    if parameters.layers is None:
        return learner
    made = cut(learner.model, parameters.layers, str(study.payload.spec.base_model))
    made.model.config.use_cache = False
    known |= {"layers": list(made.kept), "of_layers": made.of}
    return learner._replace(model=made.model)


def prepared(study: Study, learner: Pupil, parameters: LanguageDistillParameters) -> Taught:
    folders = [tutors.folder(study, each) for each in study.payload.teachers]
    tokenizers = [bases.load_tokenizer(each) for each in folders]
    strangers = [
        each.model
        for each, tokenizer in zip(study.payload.teachers, tokenizers, strict=True)
        if not same_vocabulary(learner.tokenizer, tokenizer)
    ]
    weight = _weight(parameters, strangers, len(folders))
    apart = bool(weight and strangers)
    asked = _asked(study, learner, [] if apart else tokenizers, parameters)
    longest = learner.longest
    if weight and not apart:
        longest = min(learner.longest, *(tutors.longest(each) for each in folders))
        if longest < learner.longest:
            study.notes.append(f"Examples are cut at {longest:,} tokens, which is all that a teacher can see.")
    said, silent = _said(study, parameters)
    train, held = lessons.exercises(study, learner.tokenizer, asked, parameters, "completion", longest, said)
    if parameters.answers == "student":
        train += [_question(learner, conversation(str(each.media)), asked) for each in silent]
        train = _with_room(study, train, parameters, longest)
    if not train:
        raise SpeciateError(
            Code.INVALID,
            f"No training example of {study.payload.dataset} is left to learn from: {'; '.join(study.notes[-3:])}",
            "Call train_model again with hyperparameters={'answers': 'given'}, or with another teacher.",
        )
    found = Lessons([each.lesson for each in train], [each.lesson for each in held])
    questions = [each.asked for each in train], [each.asked for each in held]
    return Taught(asked, found, weight, longest, questions if apart else None)


def _weight(parameters: LanguageDistillParameters, strangers: Sequence[str], teachers: int) -> float:
    """Of chances. INVALID where those of several vocabularies are to be learned, or where nothing is taught."""
    weight = parameters.weight
    if weight is None:
        weight = 0.0 if strangers and parameters.answers == "teacher" else 1.0
    if weight and strangers and teachers > 1:
        raise SpeciateError(
            Code.INVALID,
            f"{' and '.join(strangers)} has another vocabulary than the student: of such teachers the chances of one "
            f"alone can be learned, and {teachers} are named.",
            f"Call train_model again with one teacher; or with {across.INSTEAD}: the student learns the answers of "
            "them all word by word.",
        )
    if not weight and parameters.answers == "given":
        raise SpeciateError(
            Code.INVALID,
            "With weight 0 and the dataset's own answers the teacher teaches nothing.",
            "Call train_model with method='sft', or with hyperparameters={'answers': 'teacher'}.",
        )
    return weight


def _asked(study: Study, learner: Pupil, tokenizers: Sequence[Any], parameters: LanguageDistillParameters) -> Form:
    """As asked for, else as the student's base model was, else as its first teacher: what that says depends on it.
    `tokenizers`: of teachers that are asked as the student is."""
    teacher = study.payload.teachers[0]
    before = tutors.asked_as(teacher)
    own = form_of(Path(study.payload.base_folder or ""))
    open_ = parameters.template == "auto" and parameters.system is None and parameters.chat_template is None
    if open_ and own is None and before is not None and (before.template == "plain" or learner.tokenizer.chat_template):
        forms.check(learner.tokenizer, before, str(study.payload.spec.base_model))
        found = before
    else:
        found = lessons.form(study, learner.tokenizer, parameters, [each.asked for each in turns(study, study.train)])
    for each, tokenizer in zip(study.payload.teachers, tokenizers, strict=False):
        other = tutors.asked_as(each)
        templates = found.template == "chat" and tokenizer.chat_template != learner.tokenizer.chat_template
        if templates or (other is not None and other != found):
            study.notes.append(
                f"{each.model} was trained to be asked in another way than its student is (template or instructions): "
                "its chances may be less sure for that."
            )
    return found


def _said(study: Study, parameters: LanguageDistillParameters) -> tuple[list[Turn] | None, list[Example]]:
    """What is learned in place of the dataset's answers, and questions that have none."""
    silent: list[Example] = []
    if learns_without(parameters):
        silent = list(study.silent)
        if is_label(study.payload.manifest, study.payload.target):
            silent += load_unlabelled(study.folders, study.payload.manifest, WITHOUT_LABEL)
    if silent:
        study.untold = {each.id for each in silent}
        study.notes = [note for note in study.notes if not note.endswith("were left out.")]
        study.notes.append(f"{len(silent)} questions without an answer were learned from the teacher alone.")
    if parameters.answers != "teacher":
        return None, silent
    told = tutors.lessons_of(study, [*study.train, *silent], parameters.max_new_tokens)
    return [Turn(each.example, conversation(str(each.example.media)), each.answer) for each in told], silent


def _question(learner: Pupil, said: Conversation, asked: Form) -> Exercise:
    ids, _ = forms.tokens(learner.tokenizer, forms.asked(learner.tokenizer, said, asked))
    return Exercise(said, Lesson(ids, [IGNORED] * len(ids)))


def _with_room(
    study: Study, found: list[Exercise], parameters: LanguageDistillParameters, longest: int
) -> list[Exercise]:
    """Questions after which an answer of the student has room."""
    most = longest - parameters.max_new_tokens
    left = [each for each in found if 0 < len(forms.asked_of(each.lesson)) <= most]
    if len(left) < len(found):
        study.notes.append(
            f"{len(found) - len(left)} questions are longer than {max(0, most)} tokens, after which an answer of "
            f"{parameters.max_new_tokens} has no room, and are left out."
        )
    return left


def _whole_batches(parameters: LanguageDistillParameters, found: Lessons) -> LanguageDistillParameters:
    """trl leaves out what is less than a batch: of few examples that would be all."""
    return parameters.model_copy(update={"batch_size": min(parameters.batch_size, len(found.train))})


def _of_chances(study: Study, learner: Pupil, parameters: LanguageDistillParameters, plan: Taught) -> Any:
    """The trainer of a student that learns what teachers give each next token."""
    from trl.trainer.distillation_config import DistillationConfig
    from trl.trainer.distillation_trainer import DistillationTrainer

    teachers, found = study.payload.teachers, plan.found
    if plan.weight < 1 and any(getattr(learner.model.config, name, None) not in (None, 1.0) for name in SCALED):
        raise SpeciateError(
            Code.INVALID,
            f"{study.payload.spec.base_model} scales its logits, which trl does to the teacher's chances alone.",
            "Call train_model again with hyperparameters={'weight': 1}.",
        )
    models = [bases.load_model(tutors.folder(study, each)) for each in teachers]
    size = rows(models[0] if plan.across else learner.model)
    together = chorus(models, [each.model for each in teachers], size)
    stranger, asked = _stranger(study, learner, models[0], plan) if plan.across else (None, ({}, {}))
    share = parameters.share if parameters.answers == "student" else 0.0
    towards = parameters.divergence if parameters.divergence is not None else float(share > 0)
    taught = taught_across if stranger else taught_trainer.taught
    trainer = durable(taught(DistillationTrainer))(
        model=learner.model,
        teacher_model=None if stranger else together,
        processing_class=learner.tokenizer,
        args=DistillationConfig(
            **settings(study, parameters, _USUAL_RATE),
            beta=towards,
            temperature=parameters.temperature,
            max_completion_length=parameters.max_new_tokens,
        ),
        train_dataset=taught_trainer.rows(found.train, **asked[0]),
        eval_dataset=taught_trainer.rows(found.held, **asked[1]) if found.held else None,
        peft_config=changes(parameters),
    )
    trainer.learn(share, plan.weight)
    if stranger:
        trainer.learn_across(together, stranger)
    known = digest(found, plan.asked, [each.id for each in teachers], *([asked] if stranger else []))
    trainer.begin(session(study, parameters, learner, known, watch_loss=not share))
    return trainer


def _stranger(study: Study, learner: Pupil, model: Any, plan: Taught) -> tuple[Stranger, tuple[Columns, Columns]]:
    """The teacher as it is shown answers, and the questions as it is asked them, as columns."""
    assert plan.across is not None
    teacher, found = study.payload.teachers[0], plan.found
    tokenizer = bases.load_tokenizer(tutors.folder(study, teacher))
    own = across.side(learner.tokenizer, learner.model, rows(learner.model))
    its = across.side(tokenizer, model, rows(model))
    form = tutors.asked_as(teacher)
    made = across.stranger(teacher.model, form, plan.asked.system, bases.longest(model), own, its)
    train, held = ([made.asked(each) for each in questions] for questions in plan.across)
    study.notes += across.check(made, zip(found.train, train, strict=True))
    return made, ({"asked": train}, {"asked": held})


def _of_words(
    study: Study, learner: Pupil, parameters: LanguageDistillParameters, found: Lessons, asked: Form, name: str = ""
) -> Any:
    """The trainer of a student that learns answers word by word."""
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    trainer = durable(SFTTrainer)(
        model=learner.model,
        processing_class=learner.tokenizer,
        args=SFTConfig(**settings(study, parameters, _USUAL_RATE), max_length=None),
        train_dataset=lessons.rows(found.train),
        eval_dataset=lessons.rows(found.held) if found.held else None,
        peft_config=changes(parameters),
    )
    trainer.begin(session(study, parameters, learner, digest(found, asked), name=name))
    return trainer


def _compared(
    study: Study, chosen: Chosen, predictor: WritingPredictor, parameters: LanguageDistillParameters, plan: Taught
) -> dict[str, Any]:
    """Student, the same one taught by the dataset's answers alone where that is asked for, and teachers."""
    held = sorted(study.validation, key=lambda each: each.id)[: parameters.judged]
    name = study.payload.spec.name
    mine: list[float] = []
    found: list[Measured] = []
    if parameters.control:
        other, ending = _control(study, parameters, plan)
        value = judging.judged(study, other, held).value if held else None
        times = _by_turns(predictor, other, held, mine)
        found.append(Measured(f"{name} by labels alone", "control", value, other.parameters, times))
        study.found["distillation"]["control"] = {"steps": ending.steps, "held_loss": ending.held_loss}
    for teacher in study.payload.teachers:
        said = tutors.answers(study, teacher, held, parameters.max_new_tokens)
        texts = [Prediction("" if each.output is None else each.output, None, None) for each in said]
        value = measure_answers(study, study.readout, held, texts).value if held else None
        model = tutors.predictor(study, teacher, parameters.max_new_tokens)
        times = _by_turns(predictor, model, held, mine)
        found.append(Measured(teacher.model, "teacher", value, model.parameters, times))
    p50 = statistics.median(mine) if mine else None  # of the others it says until here how many times as long
    found = [each._replace(p50_ms=p50 * each.p50_ms if p50 and each.p50_ms else None) for each in found]
    own = chosen.best.value if held else None
    found.insert(0, Measured(name, "student", own, predictor.parameters, p50))
    how = {"judged_on": study.how if held else "not judged", "n": len(held), "unlabelled": len(study.untold)}
    return {**compared(found, find_metric(study.payload.objective.metric)), **how}


def _control(study: Study, parameters: LanguageDistillParameters, plan: Taught) -> tuple[WritingPredictor, Ending]:
    """As many steps on the dataset's answers, by a student that begins as the other did."""
    notes = list(study.notes)
    with study.tally.stage("preparing"):
        learner = student(study, parameters)
        found = lessons.lessons(study, learner.tokenizer, plan.asked, parameters, "completion", plan.longest)
        study.notes = notes  # they were said of the same examples
        trainer = _of_words(study, learner, parameters, found, plan.asked, _CONTROL)
    ending = trainer.go()
    return finished(study, trainer, learner, plan.asked, parameters), ending


def _by_turns(
    student: WritingPredictor, other: WritingPredictor, held: Sequence[Example], mine: list[float]
) -> float | None:
    """How many times as long the other takes, median of few answers, for one may take seconds. Milliseconds of the
    student go to `mine`.

    Each example is asked of both, one right after the other: else a machine that is busy for a moment makes one of them
    look slow. And of no more than two models, which are all that need be in memory.
    """
    ratios: list[float] = []
    for place, example in enumerate([*held[:1], *held[:_TIMED]]):
        own, its = _milliseconds(student, example), _milliseconds(other, example)
        if place:  # the first is asked twice, and counts once it is warm
            mine.append(own)
            ratios.append(its / own)
    return statistics.median(ratios) if ratios else None


def _milliseconds(model: WritingPredictor, example: Example) -> float:
    began = time.perf_counter()
    model.predict([example])
    return 1000 * (time.perf_counter() - began)
