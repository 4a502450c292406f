"""Recipe `distill` of language models: a student learns from one larger model, or from several.

It learns the dataset's answers, those that a teacher writes to the same questions, or its own (on-policy; Agarwal et
al. 2023); and of them the teacher's next-token probabilities, across tokenizers where the vocabularies differ, or the
answers word by word (Kim and Rush 2016). The student is a base model, or one cut from a larger one (`layers`)."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from speciate.datasets.ingest.draft import WITHOUT_LABEL
from speciate.datasets.loading.loader import Example, load_unlabelled
from speciate.errors import CallAgain, Code, SpeciateError
from speciate.modalities.messages import Conversation, conversation
from speciate.models.language import causal_lm, chat_templates
from speciate.models.language.chat_templates import IGNORED, ChatFormat, TokenizedExample
from speciate.tasks.example_targets import is_label
from speciate.tasks.language_predictor import LanguagePredictor, saved_form
from speciate.tasks.task import Prediction
from speciate.training.held_out import measure_answers
from speciate.training.language import answer_validation, cross_tokenizer, distillation_trainer, tokenized_examples
from speciate.training.language.cross_tokenizer import CrossTokenizerTeacher
from speciate.training.language.distillation_trainer import (
    SCALED,
    head_rows,
    same_vocabulary,
    teacher_ensemble,
    with_cross_tokenizer_teacher,
)
from speciate.training.language.durable_trainer import TrainerEnding, make_durable
from speciate.training.language.model_setup import (
    LoadedModel,
    digest,
    finished_predictor,
    load_base_model,
    lora_config,
    make_session,
    trainer_arguments,
)
from speciate.training.language.tokenized_examples import TokenizedSplits, TokenizedTurn, Turn, find_turns
from speciate.training.language_hyperparameters import LanguageDistillParameters, learns_unlabelled
from speciate.training.networks.training_checkpoints import Tensors
from speciate.training.recipes.teachers import (
    FrontierRow,
    answered_examples,
    compare_models,
    language_teacher,
    teacher_answers,
    teacher_context_length,
    teacher_folder,
    teacher_prompt_form,
)
from speciate.training.selection.selected_model import SelectedModel
from speciate.training.training_context import TrainingContext
from speciate.training.training_report import MethodReport
from speciate.vocabulary import find_metric

_USUAL_RATE = 5e-5
_TIMED_ANSWERS = 8
"""Held-out examples whose answers are timed."""
Columns = dict[str, list[str]]
_CONTROL_NAME = "control"
"""The name of its training."""


class DistillationSetup(NamedTuple):
    """All that is settled before a step is made."""

    chat_format: ChatFormat
    found: TokenizedSplits
    weight: float
    longest: int
    across: tuple[list[Conversation], list[Conversation]] | None
    """The questions of what is learned and held out, where they are put to a teacher of another vocabulary anew."""


def fit_distill_language(context: TrainingContext, parameters: LanguageDistillParameters) -> SelectedModel:
    began = time.monotonic()
    context.progress(0, None, "", "loading the student")
    with context.meter.stage("preparing"):
        learner = load_student(context, parameters)
        plan = prepare_distillation(context, learner, parameters)
        parameters = _whole_batches(parameters, plan.found)
        trainer = _logit_trainer(context, learner, parameters, plan) if plan.weight else _word_trainer(
            context, learner, parameters, plan.found, plan.chat_format
        )  # fmt: skip
    ending = trainer.go()
    predictor = finished_predictor(context, trainer, learner, plan.chat_format, parameters)
    del trainer  # teachers and moments leave the memory
    chosen = answer_validation.select_trained(context, predictor, parameters, ending, began)
    context.report["distillation"] |= {"answers": parameters.answers, "weight": plan.weight}
    parameters = parameters.model_copy(update={"max_steps": ending.steps})  # a control takes as many
    context.report["distillation"] |= _compare_with_teachers(context, chosen, predictor, parameters, plan)
    return chosen


def load_student(context: TrainingContext, parameters: LanguageDistillParameters) -> LoadedModel:
    """The base model, or what is cut from it."""
    learner = load_base_model(context, parameters)
    known = context.report.setdefault("distillation", {})
    if parameters.num_hidden_layers is None:
        return learner
    made = cut_layers(learner.model, parameters.num_hidden_layers, str(context.payload.spec.base_model))
    made.model.config.use_cache = False
    known |= {"layers": list(made.kept), "of_layers": made.of}
    return learner._replace(model=made.model)


def prepare_distillation(
    context: TrainingContext, learner: LoadedModel, parameters: LanguageDistillParameters
) -> DistillationSetup:
    folders = [teacher_folder(context, each) for each in context.payload.teachers]
    tokenizers = [causal_lm.load_tokenizer(each) for each in folders]
    other_vocabularies = [
        each.model
        for each, tokenizer in zip(context.payload.teachers, tokenizers, strict=True)
        if not same_vocabulary(learner.tokenizer, tokenizer)
    ]
    weight = _logit_weight(parameters, other_vocabularies, len(folders))
    apart = bool(weight and other_vocabularies)
    chat_format = _prompt_form(context, learner, [] if apart else tokenizers, parameters)
    longest = learner.longest
    if weight and not apart:
        longest = min(learner.longest, *(teacher_context_length(each) for each in folders))
        if longest < learner.longest:
            context.notes.append(f"Examples are cut at {longest:,} tokens, which is all that a teacher can see.")
    said, unanswered = _teacher_turns(context, parameters)
    train, held = tokenized_examples.tokenize_turns(
        context, learner.tokenizer, chat_format, parameters, "completion", longest, said
    )
    if parameters.answers == "student":
        train += [_tokenize_question(learner, conversation(str(each.media)), chat_format) for each in unanswered]
        train = _with_room_for_answer(context, train, parameters, longest)
    if not train:
        raise SpeciateError(
            Code.INVALID,
            f"No training example of {context.payload.dataset} is left to learn from: {'; '.join(context.notes[-3:])}",
            "Or take another teacher.",
            next=[CallAgain("train_model", {"hyperparameters": {"answers": "given"}})],
        )
    found = TokenizedSplits([each.example for each in train], [each.example for each in held])
    questions = [each.prompt for each in train], [each.prompt for each in held]
    return DistillationSetup(chat_format, found, weight, longest, questions if apart else None)


def _logit_weight(parameters: LanguageDistillParameters, other_vocabularies: Sequence[str], teachers: int) -> float:
    """Weight of the teachers' probabilities. INVALID for teachers of several vocabularies, or where nothing is
    learned."""
    weight = parameters.weight
    if weight is None:
        weight = 0.0 if other_vocabularies and parameters.answers == "teacher" else 1.0
    if weight and other_vocabularies and teachers > 1:
        raise SpeciateError(
            Code.INVALID,
            f"{' and '.join(other_vocabularies)} has another vocabulary than the student: of such teachers "
            f"the probabilities of one alone can be learned, and {teachers} are named.",
            f"Call train_model again with one teacher; or with {cross_tokenizer.ANSWERS_INSTEAD}: the student learns "
            "the answers of them all word by word.",
        )
    if not weight and parameters.answers == "given":
        raise SpeciateError(
            Code.INVALID,
            "With weight 0 and the dataset's own answers the teacher teaches nothing.",
            next=[
                CallAgain("train_model", {"method": "sft", "teacher": None}),
                CallAgain("train_model", {"hyperparameters": {"answers": "teacher"}}),
            ],
        )
    return weight


def _prompt_form(
    context: TrainingContext, learner: LoadedModel, tokenizers: Sequence[Any], parameters: LanguageDistillParameters
) -> ChatFormat:
    """As asked for, else as the student's base model was, else as its first teacher: what that says depends on it.
    `tokenizers`: of teachers that are asked as the student is."""
    teacher = context.payload.teachers[0]
    before = teacher_prompt_form(teacher)
    own = saved_form(Path(context.payload.base_folder or ""))
    open_ = parameters.template == "auto" and parameters.system is None and parameters.chat_template is None
    if open_ and own is None and before is not None and (before.template == "plain" or learner.tokenizer.chat_template):
        chat_templates.check(learner.tokenizer, before, str(context.payload.spec.base_model))
        found = before
    else:
        found = tokenized_examples.choose_prompt_form(
            context, learner.tokenizer, parameters, [each.prompt for each in find_turns(context, context.train)]
        )
    for each, tokenizer in zip(context.payload.teachers, tokenizers, strict=False):
        other = teacher_prompt_form(each)
        templates = found.template == "chat" and tokenizer.chat_template != learner.tokenizer.chat_template
        if templates or (other is not None and other != found):
            context.notes.append(
                f"{each.model} was trained to be asked in another way than its student is (template or instructions): "
                "its probabilities may be less sure for that."
            )
    return found


def _teacher_turns(
    context: TrainingContext, parameters: LanguageDistillParameters
) -> tuple[list[Turn] | None, list[Example]]:
    """What is learned in place of the dataset's answers, and unanswered that have none."""
    unanswered: list[Example] = []
    if learns_unlabelled(parameters):
        unanswered = list(context.unlabelled_train)
        if is_label(context.payload.manifest, context.payload.target):
            unanswered += load_unlabelled(context.folders, context.payload.manifest, WITHOUT_LABEL)
    if unanswered:
        context.unlabelled = {each.id for each in unanswered}
        context.notes = [note for note in context.notes if not note.endswith("were excluded.")]
        context.notes.append(f"{len(unanswered)} unanswered without an answer were learned from the teacher alone.")
    if parameters.answers != "teacher":
        return None, unanswered
    told = answered_examples(context, [*context.train, *unanswered], parameters.max_new_tokens)
    return [Turn(each.example, conversation(str(each.example.media)), each.answer) for each in told], unanswered


def _tokenize_question(learner: LoadedModel, said: Conversation, chat_format: ChatFormat) -> TokenizedTurn:
    ids, _ = chat_templates.tokenize(
        learner.tokenizer, chat_templates.render_prompt(learner.tokenizer, said, chat_format)
    )
    return TokenizedTurn(said, TokenizedExample(ids, [IGNORED] * len(ids)))


def _with_room_for_answer(
    context: TrainingContext, found: list[TokenizedTurn], parameters: LanguageDistillParameters, longest: int
) -> list[TokenizedTurn]:
    """Questions after which an answer of the student has room."""
    most = longest - parameters.max_new_tokens
    left = [each for each in found if 0 < len(chat_templates.prompt_tokens(each.example)) <= most]
    if len(left) < len(found):
        context.notes.append(
            f"{len(found) - len(left)} questions are longer than {max(0, most)} tokens, after which an answer of "
            f"{parameters.max_new_tokens} has no room, and are excluded."
        )
    return left


def _whole_batches(parameters: LanguageDistillParameters, found: TokenizedSplits) -> LanguageDistillParameters:
    """trl leaves out what is less than a batch: of few examples that would be all."""
    return parameters.model_copy(update={"batch_size": min(parameters.batch_size, len(found.train))})


def _logit_trainer(
    context: TrainingContext, learner: LoadedModel, parameters: LanguageDistillParameters, plan: DistillationSetup
) -> Any:
    """The trainer of a student that learns what teachers give each next token."""
    from trl.trainer.distillation_config import DistillationConfig
    from trl.trainer.distillation_trainer import DistillationTrainer

    teachers, found = context.payload.teachers, plan.found
    if plan.weight < 1 and any(getattr(learner.model.config, name, None) not in (None, 1.0) for name in SCALED):
        raise SpeciateError(
            Code.INVALID,
            f"{context.payload.spec.base_model} scales its logits, and trl does that to the teacher's alone.",
            next=[CallAgain("train_model", {"hyperparameters": {"weight": 1}})],
        )
    models = [causal_lm.load_model(teacher_folder(context, each)) for each in teachers]
    size = head_rows(models[0] if plan.across else learner.model)
    together = teacher_ensemble(models, [each.model for each in teachers], size)
    cross_teacher, cross_questions = (
        _cross_tokenizer_teacher(context, learner, models[0], plan) if plan.across else (None, ({}, {}))
    )
    share = parameters.lmbda if parameters.answers == "student" else 0.0
    beta = parameters.beta if parameters.beta is not None else float(share > 0)
    taught = with_cross_tokenizer_teacher if cross_teacher else distillation_trainer.with_given_answers
    trainer = make_durable(taught(DistillationTrainer))(
        model=learner.model,
        teacher_model=None if cross_teacher else together,
        processing_class=learner.tokenizer,
        args=DistillationConfig(
            **trainer_arguments(context, parameters, _USUAL_RATE),
            beta=beta,
            temperature=parameters.temperature,
            max_completion_length=parameters.max_new_tokens,
        ),
        train_dataset=distillation_trainer.answer_rows(found.train, **cross_questions[0]),
        eval_dataset=distillation_trainer.answer_rows(found.held, **cross_questions[1]) if found.held else None,
        peft_config=lora_config(parameters),
    )
    trainer.learn(share, plan.weight)
    if cross_teacher:
        trainer.learn_across(together, cross_teacher)
    known = digest(
        found, plan.chat_format, [each.id for each in teachers], *([cross_questions] if cross_teacher else [])
    )
    trainer.begin(make_session(context, parameters, learner, known, watch_loss=not share))
    return trainer


def _cross_tokenizer_teacher(
    context: TrainingContext, learner: LoadedModel, model: Any, plan: DistillationSetup
) -> tuple[CrossTokenizerTeacher, tuple[Columns, Columns]]:
    """The teacher as it is shown answers, and the questions as it is asked them, as columns."""
    assert plan.across is not None
    teacher, found = context.payload.teachers[0], plan.found
    tokenizer = causal_lm.load_tokenizer(teacher_folder(context, teacher))
    own = cross_tokenizer.tokenizer_side(learner.tokenizer, learner.model, head_rows(learner.model))
    its = cross_tokenizer.tokenizer_side(tokenizer, model, head_rows(model))
    form = teacher_prompt_form(teacher)
    made = cross_tokenizer.cross_tokenizer_teacher(
        teacher.model, form, plan.chat_format.system, causal_lm.longest(model), own, its
    )
    train, held = ([made.render(each) for each in questions] for questions in plan.across)
    context.notes += cross_tokenizer.check_overlap(made, zip(found.train, train, strict=True))
    return made, ({"asked": train}, {"asked": held})


def _word_trainer(
    context: TrainingContext,
    learner: LoadedModel,
    parameters: LanguageDistillParameters,
    found: TokenizedSplits,
    chat_format: ChatFormat,
    name: str = "",
) -> Any:
    """The trainer of a student that learns answers word by word."""
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    trainer = make_durable(SFTTrainer)(
        model=learner.model,
        processing_class=learner.tokenizer,
        args=SFTConfig(**trainer_arguments(context, parameters, _USUAL_RATE), max_length=None),
        train_dataset=tokenized_examples.token_rows(found.train),
        eval_dataset=tokenized_examples.token_rows(found.held) if found.held else None,
        peft_config=lora_config(parameters),
    )
    trainer.begin(make_session(context, parameters, learner, digest(found, chat_format), name=name))
    return trainer


def _compare_with_teachers(
    context: TrainingContext,
    chosen: SelectedModel,
    predictor: LanguagePredictor,
    parameters: LanguageDistillParameters,
    plan: DistillationSetup,
) -> MethodReport:
    """Student, the same one taught by the dataset's answers alone where that is asked for, and teachers."""
    held = sorted(context.validation, key=lambda each: each.id)[: parameters.judged]
    name = context.payload.spec.name
    mine: list[float] = []
    found: list[FrontierRow] = []
    if parameters.control:
        other, ending = _train_control(context, parameters, plan)
        value = answer_validation.score_on_validation(context, other, held).value if held else None
        times = _paired_latency_ratio(predictor, other, held, mine)
        found.append(FrontierRow(f"{name} by labels alone", "control", value, other.parameters, times))
        context.report["distillation"]["control"] = {"steps": ending.steps, "held_loss": ending.held_loss}
    for teacher in context.payload.teachers:
        said = teacher_answers(context, teacher, held, parameters.max_new_tokens)
        texts = [Prediction("" if each.output is None else each.output, None, None) for each in said]
        value = measure_answers(context, context.task_head, held, texts).value if held else None
        model = language_teacher(context, teacher, parameters.max_new_tokens)
        times = _paired_latency_ratio(predictor, model, held, mine)
        found.append(FrontierRow(teacher.model, "teacher", value, model.parameters, times))
    p50 = statistics.median(mine) if mine else None  # of the others it says until here how many times as long
    found = [each._replace(p50_ms=p50 * each.p50_ms if p50 and each.p50_ms else None) for each in found]
    own = chosen.best.value if held else None
    found.insert(0, FrontierRow(name, "student", own, predictor.parameters, p50))
    how = {"judged_on": context.how if held else "not judged", "n": len(held), "unlabelled": len(context.unlabelled)}
    return {**compare_models(found, find_metric(context.payload.objective.metric)), **how}


def _train_control(
    context: TrainingContext, parameters: LanguageDistillParameters, plan: DistillationSetup
) -> tuple[LanguagePredictor, TrainerEnding]:
    """As many steps on the dataset's answers, by a student that begins as the other did."""
    notes = list(context.notes)
    with context.meter.stage("preparing"):
        learner = load_student(context, parameters)
        found = tokenized_examples.tokenize_splits(
            context, learner.tokenizer, plan.chat_format, parameters, "completion", plan.longest
        )
        context.notes = notes  # they were said of the same examples
        trainer = _word_trainer(context, learner, parameters, found, plan.chat_format, _CONTROL_NAME)
    ending = trainer.go()
    return finished_predictor(context, trainer, learner, plan.chat_format, parameters), ending


def _paired_latency_ratio(
    student: LanguagePredictor, other: LanguagePredictor, held: Sequence[Example], mine: list[float]
) -> float | None:
    """How many times as long the other takes, median of few answers, for one may take seconds. Milliseconds of the
    student go to `mine`.

    Each example is asked of both, one right after the other: else a machine that is busy for a moment makes one of them
    look slow. And of no more than two models, which are all that need be in memory.
    """
    ratios: list[float] = []
    for place, example in enumerate([*held[:1], *held[:_TIMED_ANSWERS]]):
        own, its = _milliseconds(student, example), _milliseconds(other, example)
        if place:  # the first is asked twice, and counts once it is warm
            mine.append(own)
            ratios.append(its / own)
    return statistics.median(ratios) if ratios else None


def _milliseconds(model: LanguagePredictor, example: Example) -> float:
    began = time.perf_counter()
    model.predict([example])
    return 1000 * (time.perf_counter() - began)


class CutModel(NamedTuple):
    """A smaller language model cut from a larger one.

    It begins with the weights of the kept layers: the first, the last, and others evenly between (as Sanh et al. 2019
    and Shleifer and Rush 2020 begin their students). It writes badly until it has learned again.
    """

    model: Any
    kept: tuple[int, ...]
    """Layers of the larger one, from 0."""
    of: int


def kept_layers(layers: int, wanted: int) -> tuple[int, ...]:
    """Which of so many layers are kept, in their order.

    >>> kept_layers(30, 4), kept_layers(6, 6), kept_layers(5, 1)
    ((0, 10, 19, 29), (0, 1, 2, 3, 4, 5), (0,))
    """
    if wanted == 1:
        return (0,)
    return tuple(round(at * (layers - 1) / (wanted - 1)) for at in range(wanted))


def cut_layers(model: Any, wanted: int, ref: str) -> CutModel:
    """A new model with so many of its layers. INVALID where it has no more, or they are not one list."""
    path = _layer_stack(model)
    if path is None:
        raise SpeciateError(
            Code.INVALID,
            f"The layers of {ref} ({type(model).__name__}) are not one list, so none can be left out.",
            "Call train_model again with a smaller base_model, and without hyperparameters.num_hidden_layers.",
        )
    layers = len(model.get_submodule(path))
    if wanted >= layers:
        raise SpeciateError(
            Code.INVALID,
            f"hyperparameters.num_hidden_layers is {wanted}, and {ref} has {layers}: a student of it has fewer.",
            next=[CallAgain("train_model", {"hyperparameters": {"num_hidden_layers": max(1, layers // 2)}})],
        )
    kept = kept_layers(layers, wanted)
    made = type(model)(_cut_config(model.config, layers, kept)).to(next(model.parameters()).dtype)
    made.load_state_dict(_weight_bytes_of(model.state_dict(), path, kept))
    made.generation_config = copy.deepcopy(model.generation_config)
    causal_lm.number_positions_by_mask(made)
    return CutModel(made.eval(), kept, layers)


def _layer_stack(model: Any) -> str | None:
    """The name of the list of layers: the outermost that is as long as the configuration says."""
    import torch

    layers = getattr(model.config, "num_hidden_layers", None)
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == layers
    ]
    shortest = min((name.count(".") for name in found), default=0)
    outermost = [name for name in found if name.count(".") == shortest]
    return outermost[0] if len(outermost) == 1 else None


def _cut_config(config: Any, layers: int, kept: tuple[int, ...]) -> Any:
    """What it says of each layer, such as its kind of attention, goes with that layer."""
    made = copy.deepcopy(config)
    for name, value in vars(made).items():
        if isinstance(value, list | tuple) and len(value) == layers and not name.startswith("_"):
            setattr(made, name, [value[place] for place in kept])
    made.num_hidden_layers = len(kept)
    return made


def _weight_bytes_of(found: Tensors, path: str, kept: tuple[int, ...]) -> Tensors:
    renamed = {}
    for name, tensor in found.items():
        if not name.startswith(f"{path}."):
            renamed[name] = tensor
            continue
        number, _, rest = name.removeprefix(f"{path}.").partition(".")
        if int(number) in kept:
            renamed[f"{path}.{kept.index(int(number))}.{rest}"] = tensor
    return renamed
