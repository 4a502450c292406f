"""A teacher of another vocabulary, as it is shown a student's answers: the same question in its own words, the same
text in its own tokens, and which tokens of the two belong together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.language import forms
from speciate.language.forms import Form, Lesson, answer_of
from speciate.modalities.messages import Conversation
from speciate.training.language.distillation.alignment import NOWHERE, Groups, Outcomes, aligned, before, outcomes
from speciate.training.language.distillation.pieces import Spelling, begun, ends, spelled

INSTEAD = "hyperparameters={'answers': 'teacher', 'weight': 0}"
"""What works with any vocabulary."""


class Side(NamedTuple):
    tokenizer: Any
    spelling: Spelling
    ends: frozenset[int]
    rows: int
    """Of its head."""


class Shown(NamedTuple):
    """What the teacher reads, and the group of each token of the student's answer and of what the teacher reads."""

    ids: list[int]
    groups: Groups
    spaced: bool
    """Whether one of the two alone puts a space before an answer that has none. What may come first is then written
    otherwise by each (`▁yes`, `yes`), and no word of what is meant: of the first group only the whole is compared."""


class Stranger(NamedTuple):
    model: str
    form: Form
    longest: int
    """Tokens that it can see."""
    student: Side
    teacher: Side
    outcomes: Outcomes

    def asked(self, said: Conversation) -> str:
        """The question as this teacher is asked it. INVALID where its template refuses it."""
        try:
            return forms.asked(self.teacher.tokenizer, said, self.form)
        except ValueError as error:
            raise SpeciateError(
                Code.INVALID,
                f"A question cannot be written as {self.model} reads it; untrusted says why.",
                "Call train_model again with another teacher, or without instructions (hyperparameters.system).",
                str(error),
            ) from error

    def shown(self, asked: str, answer: Sequence[int]) -> Shown:
        """`answer`: tokens of the student, up to its end where it came to one. A mark in the middle ends the text."""
        spelling = self.student.spelling
        size = next((place for place, each in enumerate(answer) if each not in spelling), len(answer))
        more = size < len(answer)
        written = [spelling[each] for each in answer[:size]]
        mine = _puts_space(self.student.tokenizer, answer[:size], written)
        text = b"".join(_without(written, mine)).decode(errors="replace")
        question, own = _divided(self.teacher.tokenizer, asked, text)
        its_own = [self.teacher.spelling.get(each, b"") for each in own]
        its = bool(its_own) and its_own[0].startswith(b" ") and not text.startswith(" ")
        ended = more and answer[size] in self.student.ends
        found = aligned(_without(written, mine), _without(its_own, its), more, ended)
        rest = [NOWHERE] * (len(answer) - len(found.student))
        ids = [*question, *own, int(self.teacher.tokenizer.eos_token_id)]
        groups = Groups([*found.student, *rest], [*[NOWHERE] * len(question), *found.teacher], found.same)
        cut = [each for each in groups.teacher[self.longest :] if each != NOWHERE]
        if cut:
            groups = before(groups, min(cut))
        if mine != its and groups.same == 0:
            groups = before(groups, 0)
        return Shown(ids[: self.longest], groups._replace(teacher=groups.teacher[: self.longest]), mine != its)


def _puts_space(tokenizer: Any, ids: Sequence[int], written: Sequence[bytes]) -> bool:
    """Whether the space that an answer begins with is the tokenizer's own: SentencePiece may put one before any text,
    and takes it away again where it decodes."""
    if not written or not written[0].startswith(b" "):
        return False
    return not tokenizer.decode(list(ids[:1]), clean_up_tokenization_spaces=False).startswith(" ")


def _without(written: Sequence[bytes], space: bool) -> list[bytes]:
    return [written[0][1:], *written[1:]] if space else list(written)


def _divided(tokenizer: Any, asked: str, answer: str) -> tuple[list[int], list[int]]:
    """Tokens of both, made of the whole text; apart where one would reach over the beginning of the answer."""
    ids, offsets = forms.tokens(tokenizer, asked + answer)
    if any(begin < len(asked) < end for begin, end in offsets):
        return forms.tokens(tokenizer, asked)[0], forms.tokens(tokenizer, answer)[0]
    first = next((place for place, (begin, _) in enumerate(offsets) if begin >= len(asked)), len(ids))
    return ids[:first], ids[first:]


def side(tokenizer: Any, model: Any, rows: int) -> Side:
    return Side(tokenizer, spelled(tokenizer), ends(model, tokenizer), rows)


def stranger(model: str, form: Form | None, system: str | None, longest: int, student: Side, teacher: Side) -> Stranger:
    """`form`: how it was trained to be asked; one that others made is asked by its template, with the student's
    instructions."""
    form = form or forms.usual_form(teacher.tokenizer, system)
    forms.check(teacher.tokenizer, form, model)
    mine, its = student.spelling, teacher.spelling
    begins = begun(teacher.tokenizer, its, sorted({*mine.values()} - {*its.values()}))
    begins |= begun(student.tokenizer, mine, sorted({*its.values()} - {*mine.values()}))
    found = outcomes(mine, its, (student.ends, teacher.ends), (student.rows, teacher.rows), begins)
    return Stranger(model, form, longest, student, teacher, found)


def check(found: Stranger, taught: Iterable[tuple[Lesson, str]]) -> list[str]:
    """What is to be said of the two vocabularies and of these answers with their questions as the teacher is asked.
    INVALID where there are answers, and of none a token stands in a common place."""
    own = {*found.student.spelling.values()} - {b""}
    shared = found.outcomes.shared
    said = f"{found.model} has another vocabulary: of the student's {len(own):,} tokens it has {shared:,}"
    said += f" ({shared / max(1, len(own)):.0%})"
    tokens = compared = places = unseen = 0
    for lesson, asked in taught:
        answer = answer_of(lesson)
        if not answer:
            continue
        groups = found.shown(asked, answer).groups
        tokens, places = tokens + len(groups.student), places + groups.same
        compared += sum(NOWHERE < each < groups.same for each in groups.student)
        unseen += groups.same == 0
    if not tokens:
        return [f"{said}."]
    if not compared:
        raise SpeciateError(
            Code.INVALID,
            f"{said}, and no token of the answers ends where one of the teacher's does: there is nothing to compare.",
            f"Call train_model again with {INSTEAD}, or with another teacher.",
        )
    notes = [
        f"{said}. Of the {tokens:,} tokens of the training answers {compared:,} ({compared / tokens:.0%}) are "
        f"compared, at {places:,} places."
    ]
    if unseen:
        notes.append(
            f"Of {unseen} training answers no part is the same for {found.model}: it writes their text otherwise, or "
            f"sees no more than {found.longest:,} tokens."
        )
    return notes
