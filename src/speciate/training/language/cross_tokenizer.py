"""Distillation across tokenizers: a student's answer in the teacher's tokens, and which tokens and outcomes correspond.

Parts: the teacher's view of an answer; the bytes of each token; the alignment of two tokenizations and vocabularies;
the divergence between their probabilities."""

from __future__ import annotations

import itertools
import math
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.modalities.messages import Conversation
from speciate.models.language import chat_templates
from speciate.models.language.chat_templates import ChatFormat, TokenizedExample, completion_tokens

if TYPE_CHECKING:
    import torch


ANSWERS_INSTEAD = "hyperparameters={'answers': 'teacher', 'weight': 0}"
"""What works with any vocabulary."""

TokenBytes = dict[int, bytes]
"""Token -> the bytes that it writes; without ends, paddings and other marks.

A vocabulary names its tokens in an alphabet of its own: bytes as letters (GPT-2 and later), or `▁` for a space and
`<0x0A>` for a byte (SentencePiece)."""


class TokenizerSide(NamedTuple):
    tokenizer: Any
    spelling: TokenBytes
    ends: frozenset[int]
    rows: int
    """Rows of its model's head."""


class TokenGroups(NamedTuple):
    """For each token of both sides its group, numbered from 0 in the order of the text, or NOWHERE."""

    student: list[int]
    teacher: list[int]
    same: int
    """Groups that write the same. One more may stand behind them: a token of each that begins at the last place."""


class TeacherView(NamedTuple):
    """What the teacher reads, and the group of each token of the student's answer and of what the teacher reads."""

    ids: list[int]
    groups: TokenGroups
    spaced: bool
    """Whether one of the two alone puts a space before an answer that has none. What may come first is then written
    otherwise by each (`▁yes`, `yes`), and no word of what is meant: of the first group only the whole is compared."""


class SharedOutcomes(NamedTuple):
    """For each row of both heads the outcome that it counts for."""

    student: list[int]
    teacher: list[int]
    size: int
    """Outcomes that there are."""
    shared: int
    """Texts that a token of both writes."""


class CrossTokenizerTeacher(NamedTuple):
    model: str
    form: ChatFormat
    longest: int
    """Tokens that it can see."""
    student: TokenizerSide
    teacher: TokenizerSide
    outcomes: SharedOutcomes

    def render(self, said: Conversation) -> str:
        """The question in this teacher's template. INVALID where its template refuses it."""
        try:
            return chat_templates.render_prompt(self.teacher.tokenizer, said, self.form)
        except ValueError as error:
            raise SpeciateError(
                Code.INVALID,
                f"A question cannot be written as {self.model} reads it; untrusted says why.",
                "Call train_model again with another teacher, or without instructions (hyperparameters.system).",
                str(error),
            ) from error

    def shown(self, prompt: str, answer: Sequence[int]) -> TeacherView:
        """`answer`: tokens of the student, up to its end where it came to one. A mark in the middle ends the text."""
        spelling = self.student.spelling
        size = next((place for place, each in enumerate(answer) if each not in spelling), len(answer))
        more = size < len(answer)
        written = [spelling[each] for each in answer[:size]]
        mine = _puts_space(self.student.tokenizer, answer[:size], written)
        text = b"".join(_without_space(written, mine)).decode(errors="replace")
        question, own = _tokenize_apart(self.teacher.tokenizer, prompt, text)
        its_own = [self.teacher.spelling.get(each, b"") for each in own]
        its = bool(its_own) and its_own[0].startswith(b" ") and not text.startswith(" ")
        ended = more and answer[size] in self.student.ends
        found = align_tokens(_without_space(written, mine), _without_space(its_own, its), more, ended)
        rest = [NOWHERE] * (len(answer) - len(found.student))
        ids = [*question, *own, int(self.teacher.tokenizer.eos_token_id)]
        groups = TokenGroups([*found.student, *rest], [*[NOWHERE] * len(question), *found.teacher], found.same)
        cut = [each for each in groups.teacher[self.longest :] if each != NOWHERE]
        if cut:
            groups = groups_before(groups, min(cut))
        if mine != its and groups.same == 0:
            groups = groups_before(groups, 0)
        return TeacherView(ids[: self.longest], groups._replace(teacher=groups.teacher[: self.longest]), mine != its)


def _puts_space(tokenizer: Any, ids: Sequence[int], written: Sequence[bytes]) -> bool:
    """Whether the space that an answer begins with is the tokenizer's own: SentencePiece may put one before any text,
    and takes it away again where it decodes."""
    if not written or not written[0].startswith(b" "):
        return False
    return not tokenizer.decode(list(ids[:1]), clean_up_tokenization_spaces=False).startswith(" ")


def _without_space(written: Sequence[bytes], space: bool) -> list[bytes]:
    return [written[0][1:], *written[1:]] if space else list(written)


def _tokenize_apart(tokenizer: Any, question: str, answer: str) -> tuple[list[int], list[int]]:
    """Tokens of both, made of the whole text; apart where one would reach over the beginning of the answer."""
    ids, offsets = chat_templates.tokenize(tokenizer, question + answer)
    if any(begin < len(question) < end for begin, end in offsets):
        return chat_templates.tokenize(tokenizer, question)[0], chat_templates.tokenize(tokenizer, answer)[0]
    first = next((place for place, (begin, _) in enumerate(offsets) if begin >= len(question)), len(ids))
    return ids[:first], ids[first:]


def tokenizer_side(tokenizer: Any, model: Any, rows: int) -> TokenizerSide:
    return TokenizerSide(tokenizer, token_bytes(tokenizer), end_tokens(model, tokenizer), rows)


def cross_tokenizer_teacher(
    model: str,
    form: ChatFormat | None,
    system: str | None,
    longest: int,
    student: TokenizerSide,
    teacher: TokenizerSide,
) -> CrossTokenizerTeacher:
    """`form`: how it was trained to be asked; one that others made is asked by its template, with the student's
    instructions."""
    form = form or chat_templates.usual_format(teacher.tokenizer, system)
    chat_templates.check(teacher.tokenizer, form, model)
    mine, its = student.spelling, teacher.spelling
    begins = first_pieces(teacher.tokenizer, its, sorted({*mine.values()} - {*its.values()}))
    begins |= first_pieces(student.tokenizer, mine, sorted({*its.values()} - {*mine.values()}))
    found = shared_outcomes(mine, its, (student.ends, teacher.ends), (student.rows, teacher.rows), begins)
    return CrossTokenizerTeacher(model, form, longest, student, teacher, found)


def check_overlap(found: CrossTokenizerTeacher, taught: Iterable[tuple[TokenizedExample, str]]) -> list[str]:
    """What is to be said of the two vocabularies and of these answers with their questions as the teacher is asked.
    INVALID where there are answers, and of none a token stands in a common place."""
    own = {*found.student.spelling.values()} - {b""}
    shared = found.outcomes.shared
    said = f"{found.model} has another vocabulary: of the student's {len(own):,} tokens it has {shared:,}"
    said += f" ({shared / max(1, len(own)):.0%})"
    tokens = compared = places = unseen = 0
    for example, question in taught:
        answer = completion_tokens(example)
        if not answer:
            continue
        groups = found.shown(question, answer).groups
        tokens, places = tokens + len(groups.student), places + groups.same
        compared += sum(NOWHERE < each < groups.same for each in groups.student)
        unseen += groups.same == 0
    if not tokens:
        return [f"{said}."]
    if not compared:
        raise SpeciateError(
            Code.INVALID,
            f"{said}, and no token of the answers ends where one of the teacher's does: there is nothing to compare.",
            f"Call train_model again with {ANSWERS_INSTEAD}, or with another teacher.",
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


_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE = "▁"


def token_bytes(tokenizer: Any) -> TokenBytes:
    """Bytes of each token, by id. `tokenizer`: a fast one."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    alphabet: Any = bytes_to_unicode
    backend, added = tokenizer.backend_tokenizer, tokenizer.added_tokens_decoder
    marks = {*tokenizer.all_special_ids, *(number for number, token in added.items() if token.special)}
    how = f"{backend.normalizer!r} {backend.pre_tokenizer!r} {backend.decoder!r}"
    letters = {letter: byte for byte, letter in alphabet().items()} if "ByteLevel" in how else None
    spaces, fallback = _SPACE in how, "ByteFallback" in how

    def written(piece: str) -> bytes:
        if letters is not None:
            known = [letters.get(letter) for letter in piece]
            return piece.encode() if None in known else bytes(byte for byte in known if byte is not None)
        if fallback and (byte := _BYTE.fullmatch(piece)):
            return bytes([int(byte[1], 16)])
        return (piece.replace(_SPACE, " ") if spaces else piece).encode()

    return {
        number: added[number].content.encode() if number in added else written(piece)
        for piece, number in tokenizer.get_vocab().items()
        if number not in marks
    }


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end an answer: the tokenizer's, and those that the model's configuration for writing names."""
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed: Iterable[int] = named if isinstance(named, list | tuple) else () if named is None else (named,)
    return frozenset({int(tokenizer.eos_token_id), *listed})


def first_pieces(tokenizer: Any, spelling: TokenBytes, words: Sequence[bytes]) -> dict[bytes, bytes]:
    """What the first token writes, of each word that is whole characters and begins with that token's bytes."""
    texts = []
    for word in words:
        try:
            texts.append((word, word.decode()))
        except UnicodeDecodeError:
            continue
    if not texts:
        return {}
    found = tokenizer([text for _, text in texts], add_special_tokens=False)["input_ids"]
    firsts = ((word, spelling.get(ids[0], b"") if ids else b"") for (word, _), ids in zip(texts, found, strict=True))
    return {word: first for word, first in firsts if first and word.startswith(first)}


NOWHERE = -1
"""Stands for the group of a token that is in none."""
REST, END = 0, 1
"""Outcomes that are always there: whatever no text of the other side begins like, and the end of the answer."""


def align_tokens(student: Sequence[bytes], teacher: Sequence[bytes], more: bool, ended: bool) -> TokenGroups:
    """Cut two tokenizations of one text into groups that write the same text. Pure.

    `student`, `teacher`: what each token writes. The teacher has one more token, which ends its text; the student has
    one where there is `more`, an end if it `ended`. The sequences are cut where a token of both ends at the same byte.
    A place within a character is no cut, nor is one behind the first byte in which the texts differ. All tokens before
    the last place are in a group; of equal texts that is everything.

    >>> align_tokens([b"hel", b"lo", b"!"], [b"hello", b"!"], True, True)
    TokenGroups(student=[0, 0, 1, 2], teacher=[0, 1, 2], same=3)
    >>> align_tokens([b"a", b"b", b"c"], [b"a", b"d"], True, True)
    TokenGroups(student=[0, 1, -1, -1], teacher=[0, 1, -1], same=1)
    """
    one, other = b"".join(student), b"".join(teacher)
    differ = (place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1])
    same = next(differ, min(len(one), len(other)))
    ends, others = list(itertools.accumulate(map(len, student))), list(itertools.accumulate(map(len, teacher)))
    places = sorted(place for place in {*ends} & {*others} if 0 < place <= same and _ends_character(one, place))

    def group(end: int) -> int:
        found = bisect_left(places, end)
        return found if found < len(places) else NOWHERE

    mine, its = [*map(group, ends), *[NOWHERE] * more], [*map(group, others), NOWHERE]
    if NOWHERE in mine:  # the student went on from the last place
        mine[mine.index(NOWHERE)] = its[its.index(NOWHERE)] = len(places)
    return TokenGroups(mine, its, len(places) + (ended and one == other))


def _ends_character(text: bytes, place: int) -> bool:
    """Whether a character ends there: in UTF-8 all bytes of one but the first begin with 10."""
    return place == len(text) or text[place] & 0xC0 != 0x80


def groups_before(groups: TokenGroups, group: int) -> TokenGroups:
    """The groups without that one and those behind it."""

    def left(side: Sequence[int]) -> list[int]:
        return [each if each < group else NOWHERE for each in side]

    return TokenGroups(left(groups.student), left(groups.teacher), min(groups.same, group))


def shared_outcomes(
    student: Mapping[int, bytes], teacher: Mapping[int, bytes], ends: tuple[Set[int], Set[int]], rows: tuple[int, int],
    begins: Mapping[bytes, bytes],
) -> SharedOutcomes:  # fmt: skip
    """What may come next after the same text, as finely as both vocabularies can tell. Pure.

    A token that both have is an outcome of its own. A token of one side alone counts as the token with which the other
    side would begin to write it, as `begins` says; where it does not, or that is no shared token, as the longest shared
    token with which it begins. Sreenivas et al. 2026 ("X-Token", arXiv 2605.21699) project one vocabulary onto another
    by such rules. `ends`, `rows`: of student and teacher.
    """
    shared = {*student.values()} & {*teacher.values()} - {b""}
    number = {text: END + 1 + place for place, text in enumerate(sorted(shared))}

    def outcome(text: bytes) -> int:
        if text in number:
            return number[text]
        first = begins.get(text, b"")
        if first not in number:
            first = next((text[:size] for size in range(len(text) - 1, 0, -1) if text[:size] in number), b"")
        return number.get(first, REST)

    def side(spelling: Mapping[int, bytes], own: Set[int], size: int) -> list[int]:
        return [END if row in own else outcome(spelling.get(row, b"")) for row in range(size)]

    return SharedOutcomes(
        side(student, ends[0], rows[0]), side(teacher, ends[1], rows[1]), END + 1 + len(shared), len(shared)
    )


_LEAST_PROBABILITY = 1e-12
"""Added to the probability of each outcome: one side may have no token for it."""
_SUREST_LOG = -1e-6
"""The highest log probability of a text beside which there are others."""


def divergence(student: torch.Tensor, teacher: torch.Tensor, beta: float) -> torch.Tensor:
    """(N,), of log probabilities (N, K). `beta`: 0 the forward KL, 1 the reverse, between them the generalised
    Jensen-Shannon divergence (Agarwal et al. 2023, equation 1), as trl's beta.

    Two things can be compared across tokenizers. What may come next at a common place: both distributions, summed over
    outcomes that mean the same (`shared_outcomes`). And what was written until the next common place, where that took
    several tokens: its probability by the chain rule, beside that of anything else (the binarised divergence of
    Minixhofer et al. 2025, "Universal Cross-Tokenizer Distillation via Approximate Likelihood Matching", arXiv
    2503.20083). Both are divergences of true distributions: never below zero, and zero where the two agree.
    """
    import torch

    def kl(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return (one.exp() * (one - other)).sum(-1)

    if beta == 0:
        return kl(teacher, student)
    if beta == 1:
        return kl(student, teacher)
    mixed = torch.logaddexp(student + math.log1p(-beta), teacher + math.log(beta))
    return beta * kl(teacher, mixed) + (1 - beta) * kl(student, mixed)


def log_outcome_probabilities(logits: torch.Tensor, outcome: torch.Tensor, size: int) -> torch.Tensor:
    """Log probabilities of `size` outcomes (N, size). `logits`: (N, V). `outcome`: (V,), of each token."""
    probabilities = logits.softmax(-1)
    return (
        probabilities.new_zeros(len(probabilities), size).index_add(1, outcome, probabilities) + _LEAST_PROBABILITY
    ).log()


def log_token_probabilities(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log probabilities (N,) of the tokens (N,) that were written, of logits (N, V)."""
    return logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]


def log_written_or_else(written: torch.Tensor) -> torch.Tensor:
    """Log probabilities (N, 2) of what was written (N,) and of anything else."""
    import torch

    sure = written.clamp(max=_SUREST_LOG)
    return torch.stack([sure, torch.log(-torch.expm1(sure))], -1)
