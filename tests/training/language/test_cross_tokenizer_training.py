"""A student learns the chances of a teacher whose tokenizer cuts the same text otherwise."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from speciate.errors import SpeciateError
from speciate.evaluation.predictors.answering import Answer
from speciate.modalities.messages import conversation
from speciate.models.language.chat_templates import ChatFormat, tokenize_example
from speciate.training.language import cross_tokenizer, distillation_trainer
from speciate.training.language.cross_tokenizer import NOWHERE, CrossTokenizerTeacher, shared_outcomes
from speciate.training.networks.training_log import read_metrics
from speciate.training.recipes import distill_language, teachers
from speciate.workspace.workspace import Workspace
from tests.models.language.world import sums, tiny_tokenizer
from tests.training.language.tokenizers_world import STRANGERS, spaced_pieces, strange
from tests.training.language.world import attempt, base, ends_alike, make_sums, payload, run
from tests.training.world import make_dataset, train_now

GIVEN = {"num_train_epochs": 2, "batch_size": 10, "learning_rate": 3e-3, "max_new_tokens": 3, "judged": 4}
WRITTEN = ["7", "10", "privet привет", "👍🏽 ок", " 10 isis", "▁<0x0A>", ""]


@cache
def _stranger(kind: str = "byte pairs", longest: int = 256) -> CrossTokenizerTeacher:
    made = STRANGERS[kind]()
    sides = [
        cross_tokenizer.tokenizer_side(each, SimpleNamespace(), len(each) + 3) for each in (tiny_tokenizer(), made)
    ]
    return cross_tokenizer.cross_tokenizer_teacher("path:/teacher", None, None, longest, *sides)


def _tokens(text: str) -> list[int]:
    tokenizer = tiny_tokenizer()
    return [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


@pytest.mark.parametrize("kind", STRANGERS)
@pytest.mark.parametrize("text", WRITTEN)
def test_a_teacher_reads_the_same_text_after_the_question_as_it_is_asked(kind: str, text: str) -> None:
    stranger = _stranger(kind)
    asked = stranger.render(conversation("what is 7 plus 3?"))
    assert asked == "<user> what is 7 plus 3?\n<assistant> "
    shown = stranger.shown(asked, _tokens(text))
    its = stranger.teacher.tokenizer
    if kind == "byte pairs" or "▁" not in text:
        assert its.decode(shown.ids) == f"{asked}{text}{its.eos_token}"
        assert NOWHERE not in shown.groups.student
        assert shown.groups.same == max(shown.groups.student) + 1
    assert len(shown.ids) == len(shown.groups.teacher)
    assert max(shown.groups.student) == max(shown.groups.teacher)
    before = [its.decode([each]) for each, group in zip(shown.ids, shown.groups.teacher, strict=True) if group < 0]
    assert "".join(before).startswith("<user>")


def test_a_number_that_is_one_token_of_the_teacher_is_a_group_of_two_of_the_student() -> None:
    stranger = _stranger()
    shown = stranger.shown("?", _tokens("10"))
    assert shown.groups.student == [0, 0, 1]
    assert [each for each in shown.groups.teacher if each != NOWHERE] == [0, 1]


def test_an_answer_that_came_to_no_end_or_ends_within_a_character_is_compared_as_far_as_it_goes() -> None:
    stranger = _stranger()
    whole = _tokens("7 привет")
    assert stranger.shown("?", whole[:1]).groups.student == [0]
    assert stranger.shown("?", whole[:4]).groups.student == [0, 1, 2, 2]  # 7, a space, two halves of a letter
    half = stranger.shown("?", [*whole[:3], *whole]).groups
    assert half.student == [0, 1, 2, *[NOWHERE] * len(whole)]  # what comes after the space, and no more
    assert half.same == 2
    mark = tiny_tokenizer().convert_tokens_to_ids("<|im_start|>")
    assert stranger.shown("?", [whole[0], mark, *whole]).groups.student == [0, 1, *[NOWHERE] * len(whole)]
    assert stranger.shown("?", [whole[-1]]).groups.student == [0]


def test_what_the_teacher_cannot_see_is_not_compared() -> None:
    asked, answer = "what is what is ", _tokens("7, 8")
    full = _stranger().shown(asked, answer)
    for seen in range(len(full.ids)):
        part = _stranger(longest=seen).shown(asked, answer)
        assert len(part.ids) == len(part.groups.teacher) == seen
        left = {*part.groups.student} - {NOWHERE}
        assert left == {*part.groups.teacher} - {NOWHERE} == {*range(len(left))}
        for own, all_ in zip(part.groups[:2], full.groups[:2], strict=True):
            assert all(own.count(group) == all_.count(group) for group in left)  # whole, or not at all
        assert part.groups.same == len(left)
    assert left == {*range(max(full.groups.student))}


def _beside(student: Any, teacher: Any) -> CrossTokenizerTeacher:
    sides = [cross_tokenizer.tokenizer_side(each, SimpleNamespace(), len(each)) for each in (student, teacher)]
    return cross_tokenizer.cross_tokenizer_teacher("path:/teacher", ChatFormat(template="plain"), None, 64, *sides)


def test_a_space_that_a_tokenizer_puts_before_a_text_is_no_difference() -> None:
    spaced, without = spaced_pieces(), tiny_tokenizer()
    taught = _beside(without, spaced).shown("", _tokens("what"))
    assert NOWHERE not in taught.groups.student
    assert taught.spaced  # `▁w` may come first of the one where `w` may of the other
    own = [*spaced("what", add_special_tokens=False)["input_ids"], spaced.eos_token_id]
    assert spaced.convert_ids_to_tokens(own)[0] == "▁w"
    shown = _beside(spaced, without).shown("I say:", own)
    assert without.decode(shown.ids) == f"I say:what{without.eos_token}"
    assert NOWHERE not in shown.groups.student
    assert shown.spaced
    both = _beside(spaced, spaced_pieces()).shown("", own)
    assert both.groups.student == [*range(len(own))]
    assert not both.spaced
    assert not _beside(without, STRANGERS["byte pairs"]()).shown("", _tokens(" what")).spaced


def test_where_a_space_was_put_before_an_answer_only_what_was_written_is_compared() -> None:
    """A student that is as sure of `yes` as its teacher is of `▁yes` has nothing to learn, a space least of all."""
    import torch

    of = shared_outcomes({1: b"yes", 2: b"no", 3: b" yes"}, {1: b" yes", 2: b" no", 3: b"yes"}, ({0}, {0}), (4, 4), {})
    learner = SimpleNamespace(_view=SimpleNamespace(outcomes=of), temperature=1.0, beta=0.0)
    sides = [
        distillation_trainer._TeacherSide(
            states=torch.tensor([[-9.0, 2.0, 1.0, -9.0]]), tokens=torch.tensor([1]), number=torch.tensor([0]),
            places=torch.tensor([0]), sizes=torch.tensor([1]), head=SimpleNamespace(weight=torch.eye(4), bias=None),
            scale=1.0, softcap=None, outcome=torch.tensor(rows),
        )
        for rows in (of.student, of.teacher)
    ]  # fmt: skip

    def lost(*alike: bool) -> float:
        return float(distillation_trainer._CrossTokenizer._lost(learner, *sides, torch.tensor(alike))[0])  # type: ignore[arg-type]

    assert lost(False) == pytest.approx(0, abs=1e-6)
    assert lost(True) > 1
    sides[0] = sides[0]._replace(states=torch.tensor([[-9.0, 1.0, 2.0, -9.0]]))
    assert lost(False) > 0.1  # says `no`


def test_shares_are_said_and_where_nothing_can_be_compared_it_is_refused() -> None:
    stranger = _stranger()
    taught = [tokenize_example(tiny_tokenizer(), conversation(q), a, ChatFormat(), "completion") for q, a in sums(40)]
    [note] = cross_tokenizer.check_overlap(stranger, [(each, "?") for each in taught])
    assert "of the student's 289 tokens it has 2" in note
    assert "(100%) are compared, at 80 places" in note  # 40 answers and their ends
    assert cross_tokenizer.check_overlap(stranger, [])[0].endswith("%).")
    blind = stranger._replace(longest=1)
    with pytest.raises(SpeciateError, match="there is nothing to compare") as refusal:
        cross_tokenizer.check_overlap(blind, [(each, "?") for each in taught])
    assert "'weight': 0" in refusal.value.recovery


# Trained


def _asked(workspace: Workspace, folder: Path, teacher: str | None = None, **given: Any) -> Any:
    if teacher is None:
        make_sums(workspace, count=40)
    return payload(
        workspace, name="small", dataset="sums", method="distill", teacher=teacher or strange(folder / "teacher"),
        base_model=base(folder / "student", hidden=32), hyperparameters=GIVEN | given, resources={"cpu": 1},
    )  # fmt: skip


def _held(folder: Any) -> list[float]:
    return [
        line["held_loss"] for line in read_metrics(folder.path / "metrics.jsonl") if line.get("held_loss") is not None
    ]


def test_a_student_learns_the_chances_of_a_stranger(workspace: Workspace, tmp_path: Path) -> None:
    folder = attempt(workspace, _asked(workspace, tmp_path, per_device_train_batch_size=5, temperature=1.5), "job-a")
    report = run(folder)["report"]
    held = _held(folder)
    assert 0 < held[-1] < held[0]
    assert report["distillation"]["weight"] == 1.0
    assert report["training"]["held"]["compared"] == 1.0
    assert any("path:" in note and "(100%) are compared" in note for note in report["notes"])


def test_a_student_learns_of_what_it_writes_itself_in_letters_of_several_bytes(
    workspace: Workspace, tmp_path: Path
) -> None:
    asked = [f"скажи {at} 👍🏽" for at in range(12)]
    splits = ["validation" if at % 4 == 3 else "train" for at in range(12)]
    make_dataset(
        workspace, "sums", "text", {"question": asked, "answer": ["привет 😀"] * 12}, labels=[""] * 12, splits=splits,
        inputs=["question"],
    )  # fmt: skip
    teacher = strange(tmp_path / "teacher", "sentence pieces")
    given = {"answers": "student", "max_steps": 2, "per_device_train_batch_size": 3, "batch_size": 9}
    folder = attempt(workspace, _asked(workspace, tmp_path, teacher, **given), "job-a")
    report = run(folder)["report"]
    assert report["training"]["steps"] == 2
    assert report["training"]["held"]["compared"] == 1.0
    assert all(each == each and each >= 0 for each in _held(folder))


def test_a_vocabulary_that_is_the_same_after_all_gives_the_same_loss_in_smaller_parts_too(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_sums(workspace, count=40)
    teacher = base(tmp_path / "teacher")
    plain = run(attempt(workspace, _asked(workspace, tmp_path, teacher, max_steps=2), "job-a"))["report"]
    monkeypatch.setattr(distill_language, "same_vocabulary", lambda one, other: False)
    monkeypatch.setattr(distillation_trainer, "_CELLS", 1000)
    asked = _asked(workspace, tmp_path, teacher, max_steps=2, per_device_train_batch_size=2)
    again = run(attempt(workspace, asked, "job-b"))["report"]
    held = plain["training"]["held_loss"]
    assert again["training"]["held_loss"] == pytest.approx(held, rel=0.02)  # marks that write no text count together


def test_a_student_that_is_its_teacher_has_nothing_to_learn(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distill_language, "same_vocabulary", lambda one, other: False)
    make_sums(workspace, count=40)
    asked = _asked(workspace, tmp_path, base(tmp_path / "teacher", hidden=32), max_steps=1)
    assert run(attempt(workspace, asked, "job-a"))["report"]["training"]["held_loss"] == pytest.approx(0, abs=1e-5)


def test_a_teachers_own_answers_are_learned_by_its_chances_where_that_is_asked_for(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        teachers, "teacher_answers", lambda context, teacher, some, longest: [Answer("10") for _ in some]
    )
    asked = _asked(workspace, tmp_path, answers="teacher", weight=0.5, max_steps=1)
    report = run(attempt(workspace, asked, "job-a"))["report"]
    assert report["distillation"]["weight"] == 0.5
    assert any(
        "Of the 96 tokens of the training answers 96 (100%) are compared, at 64 places" in note
        for note in report["notes"]
    )


# In full


def _learned(workspace: Workspace, folder: Path, kind: str) -> str:
    """A teacher that answers with numbers, right or wrong."""
    make_sums(workspace, count=40)
    train_now(
        workspace, "job-t", name="router", dataset="sums", method="sft", base_model=strange(folder / "base", kind),
        hyperparameters=GIVEN | {"num_train_epochs": 12, "changes": "full"},
    )  # fmt: skip
    return "router@v1"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "kind"),
    [
        ({}, "byte pairs"),
        ({"answers": "student"}, "byte pairs"),
        ({"answers": "student", "lmbda": 0.5}, "sentence pieces"),
        ({"beta": 0.5, "weight": 0.7}, "sentence pieces"),
        ({"answers": "student", "lmbda": 0.5}, "spaced pieces"),
    ],
)
def test_a_student_comes_near_a_stranger(workspace: Workspace, tmp_path: Path, way: dict[str, Any], kind: str) -> None:
    teacher = _learned(workspace, tmp_path, kind)
    folder = attempt(workspace, _asked(workspace, tmp_path, teacher, **{**way, "num_train_epochs": 10}), "job-a")
    run(folder)
    held = _held(folder)
    assert held[-1] < 0.7 * held[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "breaks"),
    [
        ({"weight": 0.7, "per_device_train_batch_size": 5}, [("kill", 2), ("pause", 4)]),
        ({"answers": "student", "lmbda": 0.6, "temperature": 1.3, "lora_dropout": 0.2}, [("pause", 1), ("kill", 5)]),
    ],
)
def test_a_training_across_tokenizers_that_is_broken_off_ends_in_the_same_bits(
    workspace: Workspace, tmp_path: Path, way: dict[str, Any], breaks: list[tuple[str, int]]
) -> None:
    teacher = _learned(workspace, tmp_path, "byte pairs")
    ends_alike(workspace, _asked(workspace, tmp_path, teacher, **way), breaks)
