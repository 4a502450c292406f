"""What is asked of a contestant, and what it hands in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from speciate.datasets.loading.loader import Example
from speciate.evaluation.answers import Answer, Tell
from speciate.evaluation.compare import Cost
from speciate.evaluation.contestants import Contestant
from speciate.evaluation.task import EvaluationTask
from speciate.jobs.run import Run
from speciate.tasks.contract import Posed


class Asked(NamedTuple):
    run: Run
    task: EvaluationTask
    contestant: Contestant
    examples: list[Example]
    """With what this contestant may see of them."""
    labels: tuple[str, ...]
    """Those that an answer can have; empty where answers are no labels."""
    learned: Sequence[Any]
    """Truths of the training split; where there is none, of the examples themselves."""
    lessons: Sequence[Posed]
    """Training examples with their truths, to show as examples of how to answer."""
    tell: Tell


class Sheet(NamedTuple):
    """`repeats`: a list of answers, one per example, for each time that all were asked."""

    contestant: Contestant
    repeats: tuple[list[Answer], ...]
    cost: Cost = Cost()
    served: tuple[str, ...] = ()
    """What an endpoint said that it served; more than one: it changed meanwhile."""
    notes: tuple[str, ...] = ()
