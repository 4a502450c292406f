"""A language model learns from others: from their chances, from their answers, from its own; and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.evaluation.predictors.answering import Answer
from speciate.jobs.run import Run
from speciate.server.tool_api import Caller
from speciate.tasks.language_predictor import LanguagePredictor
from speciate.tasks.task import Prediction
from speciate.tools.training import train_model
from speciate.training.language import distillation_trainer
from speciate.training.language.distillation_trainer import teacher_ensemble
from speciate.training.networks.training_log import read_metrics
from speciate.training.planning import prior_model_checks
from speciate.training.recipes import distill_language, teachers
from speciate.training.recipes.distill_language import cut_layers
from speciate.training.train_spec import Payload, TrainSpec
from speciate.vocabulary import find_task
from speciate.workspace.workspace import Workspace
from tests.models.language.world import sums
from tests.training.language.world import (
    attempt,
    base,
    ends_alike,
    make_sums,
    payload,
    run,
)  # fmt: skip
from tests.training.world import make_dataset, train_now

GIVEN = {"num_train_epochs": 2, "batch_size": 10, "learning_rate": 3e-3, "max_new_tokens": 3, "judged": 4}


def _asked(workspace: Workspace, folder: Path, *, teacher: Any = None, student: str | None = None, **given: Any) -> Any:
    if teacher is None or "router" not in str(teacher):
        make_sums(workspace, count=40)
    teacher = teacher or base(folder / "teacher")
    student = student or (None if "layers" in given else base(folder / "student", hidden=32))
    return payload(
        workspace, name="small", dataset="sums", method="distill", teacher=teacher, base_model=student,
        hyperparameters=GIVEN | given, resources={"cpu": 1},
    )  # fmt: skip


def test_a_student_cut_from_its_teacher_learns_its_chances(workspace: Workspace, tmp_path: Path) -> None:
    report = run(attempt(workspace, _asked(workspace, tmp_path, num_hidden_layers=1, max_steps=2), "job-a"))["report"]
    found = report["distillation"]
    assert (found["layers"], found["of_layers"], found["weight"]) == ([0], 2, 1.0)
    student, teacher = found["frontier"]
    assert (student["role"], teacher["role"]) == ("student", "teacher")
    assert student["parameters"] < teacher["parameters"]
    assert report["training"]["steps"] == 2
    assert set(report["training"]["held"]) == {"entropy"}


def test_a_teacher_of_another_vocabulary_teaches_by_its_answers(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _asked(workspace, tmp_path, teacher=_stranger(tmp_path / "stranger"), answers="teacher", max_steps=1)
    monkeypatch.setattr(
        teachers, "teacher_answers", lambda context, teacher, some, longest: [Answer("7") for _ in some]
    )
    report = run(attempt(workspace, asked, "job-a"))["report"]
    assert report["distillation"]["weight"] == 0.0
    assert any("100% of the training examples have the same answer, '7'" in note for note in report["notes"])


@pytest.mark.parametrize("given", [{"answers": "student"}, {"weight": 0.5}, {"answers": "teacher", "weight": 1.0}])
def test_chances_of_several_teachers_are_refused_where_one_has_another_vocabulary(
    workspace: Workspace, tmp_path: Path, given: dict[str, Any]
) -> None:
    teachers = [base(tmp_path / "teacher"), _stranger(tmp_path / "stranger")]
    asked = _asked(workspace, tmp_path, teacher=teachers, max_steps=1, **given)
    with pytest.raises(
        SpeciateError, match="of such teachers the probabilities of one alone can be learned"
    ) as refusal:
        run(attempt(workspace, asked, "job-a"))
    assert "'answers': 'teacher', 'weight': 0" in refusal.value.recovery


@pytest.mark.parametrize(
    ("more", "given", "words"),
    [
        ({"teacher": "api:openai/gpt-5-mini"}, {}, "is served by others"),
        ({}, {"answers": "student", "weight": 0.5}, "have no SFT loss"),
        ({}, {"lmbda": 0.5}, "lmbda applies only to answers='student'"),
        ({"teacher": "nobody@v1"}, {}, "nobody"),
    ],
)
def test_what_cannot_be_taught_is_refused_before_there_is_a_job(
    workspace: Workspace, tmp_path: Path, more: dict[str, Any], given: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpeciateError, match=words):
        _asked(workspace, tmp_path, **more, **given)


@pytest.mark.parametrize("teacher", ["path:/etc/weights", ["router@v1", "path:../weights"]])
def test_a_teacher_outside_the_callers_roots_is_refused(
    workspace: Workspace, tmp_path: Path, teacher: str | list[str]
) -> None:
    (tmp_path / "mine").mkdir()
    app: Any = SimpleNamespace(workspace=workspace, caller=Caller(tmp_path / "mine", "test", "python"))
    with pytest.raises(SpeciateError) as refusal:
        train_model(app, name="small", dataset="sums", method="distill", teacher=teacher)
    assert refusal.value.code is Code.REFUSED


def test_a_student_that_reads_pictures_is_refused(workspace: Workspace) -> None:
    spec, manifest = TrainSpec(method="distill", teacher=("eyes@v1",)), cast(Any, None)
    with pytest.raises(SpeciateError, match="does not do 'image-text-to-text' yet"):
        prior_model_checks.check_prior_models(spec, manifest, find_task("image-text-to-text"), None, workspace)


def test_without_a_student_or_layers_of_its_teacher_it_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    make_sums(workspace, count=40)
    with pytest.raises(SpeciateError, match="base_model names none") as refusal:
        payload(workspace, name="small", dataset="sums", method="distill", teacher=base(tmp_path / "teacher"))
    assert "'num_hidden_layers'" in refusal.value.recovery


def test_a_teacher_that_teaches_nothing_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    asked = _asked(workspace, tmp_path, weight=0.0, max_steps=1)
    with pytest.raises(SpeciateError, match="the teacher teaches nothing"):
        run(attempt(workspace, asked, "job-a"))


def test_no_more_layers_than_there_are_can_be_kept(workspace: Workspace, tmp_path: Path) -> None:
    asked = _asked(workspace, tmp_path, num_hidden_layers=2, max_steps=1)
    with pytest.raises(SpeciateError, match=r"layers is 2, and .* has 2"):
        run(attempt(workspace, asked, "job-a"))


def test_questions_without_an_answer_of_the_teacher_are_set_aside_with_the_reason(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One comes back empty, one fails; the next attempt asks again the one that failed, and no other."""
    asked = Payload.model_validate(_asked(workspace, tmp_path, answers="teacher"))
    seen: list[str] = []

    def predict(self: LanguagePredictor, examples: Sequence[Example]) -> list[Prediction]:
        seen.extend(str(each.media) for each in examples)
        if "fails" in [each.media for each in examples]:
            raise RuntimeError("no room")
        return [Prediction(" " if each.media == "empty" else "7", None, None) for each in examples]

    monkeypatch.setattr(LanguagePredictor, "predict", predict)
    examples = [Example(f"ex-{at}", text, None, "", "train", {}) for at, text in enumerate(["good", "empty", "fails"])]

    def said(job: str) -> tuple[list[tuple[str, str]], list[str]]:
        context: Any = SimpleNamespace(run=Run(attempt(workspace, asked.model_dump(mode="json"), job)), payload=asked)
        context.folders, context.notes, context.progress = workspace.folders, [], lambda *given: None
        return [
            (each.example.id, each.answer) for each in teachers.answered_examples(context, examples, 3)
        ], context.notes

    answers, notes = said("job-a")
    assert answers == [("ex-0", "7")]
    assert [note.partition(" of path:")[0] for note in notes] == ["1 questions got no answer"] * 2
    assert {note.rpartition(": ")[2] for note in notes} == {"the answer is empty.", "no room."}
    seen.clear()
    assert said("job-b")[0] == answers
    assert set(seen) == {"fails"}


def test_a_student_learns_from_what_it_writes_itself_to_questions_without_an_answer_too(
    workspace: Workspace, tmp_path: Path
) -> None:
    pairs = sums(40)
    splits = ["validation" if at % 10 == 5 else "train" for at in range(40)]
    known = [answer if splits[at] == "validation" else None for at, (_, answer) in enumerate(pairs)]
    make_dataset(
        workspace, "half", "text", {"question": [q for q, _ in pairs], "answer": known},
        labels=[""] * 40, splits=splits, inputs=["question"],
    )  # fmt: skip
    asked = payload(
        workspace, name="small", dataset="half", method="distill", teacher=base(tmp_path / "teacher"),
        hyperparameters=GIVEN | {"num_hidden_layers": 1, "answers": "student", "max_steps": 2}, resources={"cpu": 1},
    )  # fmt: skip
    folder = attempt(workspace, asked, "job-a")
    report = run(folder)["report"]
    assert report["distillation"]["unlabelled"] == known.count(None)
    assert any("learned from the teacher alone" in note for note in report["notes"])
    lengths = [line["completions/mean_length"] for line in read_metrics(folder.path / "metrics.jsonl")]
    assert all(0 < length <= GIVEN["max_new_tokens"] for length in lengths)


# What it is made of


def test_layers_that_are_kept_have_their_weights_and_kinds(tmp_path: Path) -> None:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    kinds = ["full_attention", "sliding_attention", "full_attention", "sliding_attention", "full_attention"]
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=5, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8, layer_types=kinds, use_sliding_window=True, sliding_window=8,
            max_window_layers=0, tie_word_embeddings=True,
        )
    )  # fmt: skip
    made = cut_layers(model, 3, "big")
    assert made.kept == (0, 2, 4)
    assert made.model.config.layer_types == ["full_attention"] * 3
    for place, layer in zip(made.kept, made.model.model.layers, strict=True):
        assert all(
            torch.equal(a, b) for a, b in zip(layer.parameters(), model.model.layers[place].parameters(), strict=True)
        )
    assert [layer.self_attn.layer_idx for layer in made.model.model.layers] == [0, 1, 2]
    made.model.save_pretrained(tmp_path)
    ids = torch.arange(12)[None]
    again = Qwen3ForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(again(ids).logits, made.model(ids).logits)
    assert made.model.generate(ids, max_new_tokens=3, do_sample=False).shape == (1, 15)


def test_several_teachers_speak_as_the_mean_of_their_logits(tmp_path: Path) -> None:
    """Of different widths, and of one whose head has rows that only pad its vocabulary."""
    import torch

    from speciate.models.language.causal_lm import load_model

    refs = [base(tmp_path / "a"), base(tmp_path / "b", hidden=32)]
    models: list[Any] = [load_model(Path(ref.removeprefix("path:"))) for ref in refs]
    tokens = models[0].config.vocab_size
    models[1].resize_token_embeddings(tokens + 7)
    ids = torch.arange(10)[None]
    together = teacher_ensemble(models, refs, tokens)
    head = together.get_output_embeddings()
    said = head(together.base_model(input_ids=ids, logits_to_keep=3).last_hidden_state)
    mean = sum(model(ids).logits[..., :tokens] for model in models) / 2
    assert torch.allclose(said, mean, atol=1e-5)
    assert together.config.get_text_config().vocab_size == tokens


def test_a_head_that_lacks_tokens_of_the_student_is_refused(tmp_path: Path) -> None:
    from speciate.models.language.causal_lm import load_model

    model = load_model(Path(base(tmp_path / "a").removeprefix("path:")))
    with pytest.raises(SpeciateError, match="tokens a probability"):
        teacher_ensemble([model], ["big@v1"], 10_000)


# In full


def _learned(workspace: Workspace, folder: Path) -> str:
    """A teacher that answers with numbers, right or wrong."""
    make_sums(workspace, count=40)
    given = GIVEN | {"num_train_epochs": 12, "changes": "full"}
    train_now(
        workspace, "job-t", name="router", dataset="sums", method="sft", base_model=base(folder / "base"),
        hyperparameters=given,
    )  # fmt: skip
    return "router@v1"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "breaks"),
    [
        ({"weight": 0.7, "num_hidden_layers": 1}, [("kill", 2), ("pause", 4)]),
        ({"answers": "student", "lmbda": 0.6, "temperature": 1.3}, [("pause", 1), ("kill", 5)]),
        (
            {"answers": "student", "per_device_train_batch_size": 5, "changes": "lora", "lora_dropout": 0.2},
            [("kill", 3)],
        ),
        ({"answers": "teacher", "control": True}, [("kill", 3)]),
    ],
)
def test_a_distillation_that_is_broken_off_ends_in_the_same_bits(
    workspace: Workspace, tmp_path: Path, way: dict[str, Any], breaks: list[tuple[str, int]]
) -> None:
    asked = _asked(workspace, tmp_path, teacher=_learned(workspace, tmp_path), **way)
    ends_alike(workspace, asked, breaks)


@pytest.mark.slow
@pytest.mark.parametrize("way", [{}, {"answers": "student"}, {"answers": "teacher"}, {"beta": 0.5}])
def test_a_student_comes_near_its_teacher(workspace: Workspace, tmp_path: Path, way: dict[str, Any]) -> None:
    """Of two teachers, too: the divergence on held-out answers falls."""
    teachers = [_learned(workspace, tmp_path), base(tmp_path / "other", hidden=32)]
    asked = _asked(
        workspace, tmp_path, teacher=teachers, num_hidden_layers=1, control=True, **{**way, "num_train_epochs": 8}
    )
    folder = attempt(workspace, asked, "job-a")
    report = run(folder)["report"]
    held = [
        line["held_loss"] for line in read_metrics(folder.path / "metrics.jsonl") if line.get("held_loss") is not None
    ]
    assert held[-1] < 0.7 * held[0]
    roles = [row["role"] for row in report["distillation"]["frontier"]]
    assert roles == ["student", "control", "teacher", "teacher"]
    assert report["distillation"]["control"]["steps"] == report["training"]["steps"]
    assert all(math.isfinite(row["p50_ms"]) for row in report["distillation"]["frontier"])


@pytest.mark.slow
def test_a_registered_model_teaches_and_says_how_it_is_asked(workspace: Workspace, tmp_path: Path) -> None:
    make_sums(workspace, count=40)
    make_sums(workspace, name="more", count=60)
    train_now(
        workspace, "job-t", name="router", dataset="sums", method="sft", base_model=base(tmp_path / "base"),
        hyperparameters={**GIVEN, "system": "Add.", "changes": "full"},
    )  # fmt: skip
    report = train_now(
        workspace, "job-s", name="small", dataset="more", method="distill", teacher="router@v1",
        base_model=base(tmp_path / "student", hidden=32), hyperparameters=GIVEN | {"max_steps": 2},
    )["report"]  # fmt: skip
    assert [row["model"] for row in report["distillation"]["frontier"]] == ["small", "router@v1"]
    assert not any("asked in another way" in note for note in report["notes"])


@pytest.mark.slow
def test_examples_are_cut_where_the_teacher_sees_no_more(workspace: Workspace, tmp_path: Path) -> None:
    asked = _asked(workspace, tmp_path, teacher=base(tmp_path / "teacher"), max_steps=1)
    config = tmp_path / "teacher" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 20}))
    notes = run(attempt(workspace, asked, "job-a"))["report"]["notes"]
    assert "Examples are cut at 20 tokens, which is all that a teacher can see." in notes


def _stranger(folder: Path) -> str:
    """A teacher whose tokenizer knows a word more."""
    from transformers import AutoTokenizer

    ref = base(folder)
    make: Any = AutoTokenizer.from_pretrained
    tokenizer = make(folder)
    tokenizer.add_tokens(["zzz"])
    tokenizer.save_pretrained(folder)
    return ref


def test_softened_chances_weigh_as_much_as_others() -> None:
    """trl divides logits by the temperature, and the gradient falls with its square."""

    class Plain:
        def _compute_loss(self, student: Any, inputs: Any, items: Any) -> tuple[float, float, int]:
            return 0.5, 0.0, 1

    made = distillation_trainer.with_given_answers(Plain)()
    made.temperature = 2.0
    assert made._compute_loss(None, {}, None)[0] == 2.0


def test_student_and_others_are_timed_by_turns() -> None:
    """Each example of both, one right after the other; the first, of cold models, does not count."""
    asked: list[tuple[str, int]] = []

    class Writes:
        def __init__(self, name: str) -> None:
            self.name = name

        def predict(self, examples: list[Any]) -> None:
            asked.extend((self.name, example) for example in examples)

    mine: list[float] = []
    held: Any = list(range(3))
    times = distill_language._paired_latency_ratio(cast(Any, Writes("small")), cast(Any, Writes("large")), held, mine)
    assert times is not None
    assert asked == [(name, at) for at in (0, 0, 1, 2) for name in ("small", "large")]
    assert len(mine) == 3
    assert (
        distill_language._paired_latency_ratio(cast(Any, Writes("small")), cast(Any, Writes("large")), [], []) is None
    )
