"""Whether a judge is of the family of a model that it judges: models prefer what is like their own words (Panickssery
et al. 2024), so such a judge is refused unless the caller wants it.

A family is known by a word in a model's name, whoever serves it. What a name does not tell cannot be known: a model
that goes by a name of its own, or that learned from another one's answers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from speciate.errors import Code, SpeciateError
from speciate.evaluation.evaluated_models import EvaluatedModel
from speciate.models.endpoints import Endpoint

FAMILIES = (
    "claude", "codestral", "command", "deepseek", "devstral", "falcon", "gemini", "gemma", "glm", "gpt", "granite",
    "grok", "internlm", "jamba", "kimi", "llama", "magistral", "ministral", "mistral", "mixtral", "nemotron", "nova",
    "olmo", "phi", "qwen", "qwq", "smollm", "yi",
)  # fmt: skip
_SAME_MAKER = {
    "gemma": "gemini", "qwq": "qwen", "codestral": "mistral", "devstral": "mistral", "magistral": "mistral",
    "ministral": "mistral", "mixtral": "mistral",
}  # fmt: skip
_GPT = re.compile(r"(chatgpt|codex|o[1-9])(?![a-z0-9])")
_WORD = re.compile(r"[a-z]+")


def families(model: str) -> frozenset[str]:
    """The model families that a model's name at its provider tells.

    >>> sorted(families("deepseek-ai/DeepSeek-R1-Distill-Llama-70B"))
    ['deepseek', 'llama']
    >>> families("openai/o3-mini") == families("gpt-5") == {"gpt"}
    True
    """
    name = model.lower().rsplit("/", 1)[-1]
    words = _WORD.findall(name)
    known = {_SAME_MAKER.get(each, each) for each in FAMILIES if each in words or (len(each) > 3 and each in name)}
    if _GPT.match(name):
        known.add("gpt")
    return frozenset(known or words[:1])


def check_same_family(judge: str, endpoint: Endpoint, models: Iterable[EvaluatedModel]) -> None:
    """INVALID where the judge is of the family of one of them, or is one of them."""
    for each in (one for evaluated_model in models for one in (evaluated_model, *evaluated_model.members)):
        if each.endpoint is not None and each.endpoint.identity == endpoint.identity:
            raise _same_family_error(judge, each.name, "it is the same model")
        own = each.endpoint.model if each.endpoint is not None else each.base_model
        if own:
            check_same_family_names(judge, [endpoint.model], each.name, [own])


def check_same_family_names(judge: str, mine: Collection[str], judged: str, theirs: Collection[str]) -> None:
    """Refuses a judge of the family that it judges, by names alone. Each side may have several: what was asked for, and
    what is said to serve."""
    both = _all_families(mine) & _all_families(theirs)
    if both:
        raise _same_family_error(
            judge, judged, f"both are of the family {' and '.join(sorted(both))!r}, by their names"
        )


def _all_families(names: Collection[str]) -> frozenset[str]:
    return frozenset().union(*map(families, names))


def _same_family_error(judge: str, judged: str, why: str) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"{judge} would judge {judged}: {why}, and models prefer their own kind.",
        "Name a judge of another family; or call again with judge.same_family=true if it is meant so.",
    )
