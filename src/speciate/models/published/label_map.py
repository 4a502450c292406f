"""From the labels that a model was published with to the labels of the user.

`propose` gives a proposal for each published label. Spelling and the visible table of synonyms decide, and so does
WordNet where it is installed: a published label that is a kind of exactly one wanted one. Likeness only proposes, and
never decides: on 241 labels of ImageNet the nearest name by meaning was right 7 times in 10. What no published label
means is `uncovered`: it counts as wrong and is told.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar

from speciate.models.published import ontology
from speciate.models.published.ontology import Ontology

How = Literal["given", "same", "spelling", "synonym", "ontology", "likeness", "unnamed", "none"]

SYNONYMS = (
    ("positive", "pos", "good", "favourable", "favorable"),
    ("negative", "neg", "bad", "unfavourable", "unfavorable"),
    ("neutral", "neu"),
    ("person", "per", "people", "human"),
    ("location", "loc"),
    ("organization", "org", "organisation"),
    ("miscellaneous", "misc"),
    ("entailment", "entails", "entailed"),
    ("contradiction", "contradicts", "contradictory"),
    ("car", "automobile"),
    ("bicycle", "bike"),
    ("motorcycle", "motorbike"),
    ("airplane", "aeroplane", "plane"),
    ("sofa", "couch"),
    ("tv", "television", "tv monitor", "tvmonitor"),
    ("spam", "junk"),
    ("ham", "not spam"),
    ("anger", "angry"),
    ("joy", "happy", "happiness", "joyful"),
    ("sadness", "sad"),
    ("fear", "afraid", "scared", "fearful"),
    ("surprise", "surprised"),
    ("disgust", "disgusted"),
    ("male", "man"),
    ("female", "woman"),
    ("true", "yes"),
    ("false", "no"),
)
"""What public models call the same thing. A row holds names of one thing, never a wider one (`vehicle` for `car`)."""
_UNNAMED = re.compile(r"(label|class|category|cls|lbl)?[_\s\-]*\d+", re.IGNORECASE)
_TAG = re.compile(r"[BIESLU]-(?=\S)")
_LIKE = 0.6
"""Ratio of difflib from which on a likeness is proposed."""
_DECIDING: tuple[How, ...] = ("given", "same", "spelling", "synonym", "ontology")
_BY_SYNSET = 0.2
"""Share of labels with commas from which on they are taken for whole synsets of WordNet, as ImageNet's are."""


class Proposal(NamedTuple):
    """`label` None: none was found."""

    label: str | None
    how: How

    @property
    def decided(self) -> bool:
        return self.label is not None and self.how in _DECIDING


class LabelMap(NamedTuple):
    pairs: Mapping[str, str]
    """Published label -> the user's. A label that is not here lies elsewhere."""
    wanted: tuple[str, ...]

    @property
    def uncovered(self) -> tuple[str, ...]:
        covered = set(self.pairs.values())
        return tuple(label for label in self.wanted if label not in covered)

    def ceiling(self, references: Collection[str]) -> float | None:
        """The share of these references that a perfect model with these labels could get right."""
        uncovered = set(self.uncovered)
        return sum(each not in uncovered for each in references) / len(references) if references else None


class ClassAnswer(NamedTuple):
    label: str | None
    """None where all of the probability lies elsewhere."""
    probabilities: dict[str, float]
    elsewhere: float
    """Probability of labels outside the table."""


def propose(published: Sequence[str], wanted: Sequence[str], wordnet: Ontology | None = None) -> dict[str, Proposal]:
    """Each published label with the wanted one that it means. `wordnet`: what knows kinds of things."""
    by_sense = _unambiguous((sense, label) for label in wanted for sense in _senses(label))
    by_group = _unambiguous((group, label) for label in wanted for group in _groups(label))
    by_synset = sum("," in name for name in published) >= _BY_SYNSET * len(published)

    def kinds(name: str) -> list[str]:
        return wordnet.kinds(name, wanted, by_synset=by_synset) if wordnet is not None else []

    return {name: _proposal(name, wanted, by_sense, by_group, kinds) for name in published}


def decide(published: Sequence[str], wanted: Sequence[str], given: Mapping[str, str] | None = None) -> LabelMap:
    """The table that is `given`, or else the proposals that are decided."""
    if given is not None:
        known = set(published)
        return LabelMap({name: label for name, label in given.items() if name in known}, tuple(wanted))
    found = propose(published, wanted, ontology.find())
    return LabelMap({name: str(each.label) for name, each in found.items() if each.decided}, tuple(wanted))


def is_unnamed(label: str) -> bool:
    """Whether a name says nothing of what it means: LABEL_0, class 3, 7."""
    return _UNNAMED.fullmatch(label.strip()) is not None


def map_class(table: LabelMap, probabilities: Mapping[str, float]) -> ClassAnswer:
    """The most probable wanted label. What occurs are the wanted labels, so probabilities of labels that mean the same
    are added, those outside the table are left out, and the rest is scaled to 1; `elsewhere` says how much was left
    out.

    >>> table = LabelMap({"tabby": "cat", "tiger cat": "cat", "beagle": "dog"}, ("cat", "dog"))
    >>> map_class(table, {"tabby": 0.3, "tiger cat": 0.1, "beagle": 0.35, "tripod": 0.25}).label
    'cat'
    """
    shares = dict.fromkeys(table.wanted, 0.0)
    for name, share in probabilities.items():
        if name in table.pairs:
            shares[table.pairs[name]] += share
    inside = sum(shares.values())
    elsewhere = min(max(1.0 - inside, 0.0), 1.0)
    if inside <= 0:
        return ClassAnswer(None, shares, elsewhere)
    scaled = {label: share / inside for label, share in shares.items()}
    return ClassAnswer(max(scaled, key=lambda label: scaled[label]), scaled, elsewhere)


def map_labels(table: LabelMap, given: Sequence[str]) -> tuple[list[str], int]:
    """Several labels of one example -> the wanted ones, and how many lie elsewhere."""
    mapped = {table.pairs[name] for name in given if name in table.pairs}
    return sorted(mapped), sum(name not in table.pairs for name in given)


def tag_stem(tag: str) -> str:
    """`B-PER` -> `PER`."""
    return _TAG.sub("", tag)


def map_tags(table: LabelMap, tags: Sequence[str], outside: str, *, prefixed: bool) -> tuple[list[str], int]:
    """Tags of one text -> the wanted ones, and how many lie elsewhere: these become `outside`.

    `table`: of tags without prefixes. `prefixed`: whether references have prefixes (`B-person`).

    >>> table = LabelMap({"PER": "person", "O": "O"}, ("person", "O"))
    >>> map_tags(table, ["B-PER", "I-PER", "O", "B-MISC"], "O", prefixed=False)
    (['person', 'person', 'O', 'O'], 1)
    """
    mapped, elsewhere, before = [], 0, outside
    for tag in tags:
        stem = tag_stem(tag)
        label = table.pairs.get(stem, outside)
        elsewhere += stem not in table.pairs and stem != outside
        if prefixed and label != outside:
            prefix = tag[:2] if tag != stem else "I-" if label == before else "B-"
            mapped.append(f"{prefix}{label}")
        else:
            mapped.append(label)
        before = label
    return mapped, elsewhere


def has_prefix(tag: str) -> bool:
    return _TAG.match(tag) is not None


def _proposal(
    name: str,
    wanted: Sequence[str],
    by_sense: Mapping[str, str],
    by_group: Mapping[int, str],
    kinds: Callable[[str], list[str]],
) -> Proposal:
    if name in wanted:
        return Proposal(name, "same")
    if is_unnamed(name):
        return Proposal(None, "unnamed")
    senses = _senses(name)
    if (label := next((by_sense[each] for each in senses if each in by_sense), None)) is not None:
        return Proposal(label, "spelling")
    if (label := next((by_group[each] for each in _groups(name) if each in by_group), None)) is not None:
        return Proposal(label, "synonym")
    if len(above := kinds(name)) == 1:
        return Proposal(above[0], "ontology")
    likeness = {label: _likeness(senses, _senses(label)) for label in wanted}
    best = max(likeness, key=lambda label: likeness[label], default=None)
    if best is not None and likeness[best] >= _LIKE:
        return Proposal(best, "likeness")
    return Proposal(None, "none")


def _senses(name: str) -> list[str]:
    """`tabby, tabby cat` has two; plural or not is one."""
    found = [_plain(part) for part in name.split(",")]
    singular = [each[:-1] for each in found if len(each) > 3 and each.endswith("s") and not each.endswith("ss")]
    return [each for each in dict.fromkeys([*found, *singular]) if each]


def _plain(name: str) -> str:
    """A name in lower case, with blanks for all that is neither letter nor digit, also between `carSeat`'s words."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", tag_stem(name.strip())).lower()
    return " ".join(re.sub(r"[^\w]+|_", " ", name).split())


def _groups(name: str) -> list[int]:
    senses = set(_senses(name))
    return [number for number, words in enumerate(SYNONYMS) if senses & set(words)]


Key = TypeVar("Key")


def _unambiguous(pairs: Iterable[tuple[Key, str]]) -> dict[Key, str]:
    """The pairs without keys of two labels, which decide nothing."""
    every = set(pairs)
    counts = Counter(key for key, _ in every)
    return {key: label for key, label in every if counts[key] == 1}


def _likeness(senses: Sequence[str], others: Sequence[str]) -> float:
    """Likeness of the nearest two senses, 0 to 1: of their letters, or of their words."""
    best = 0.0
    for one in senses:
        for other in others:
            words, more = set(one.split()), set(other.split())
            best = max(best, difflib.SequenceMatcher(None, one, other).ratio(), len(words & more) / len(words | more))
    return best
