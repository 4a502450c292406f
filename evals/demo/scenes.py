"""The demo's use cases as data: what is wanted, what there is, and what is tried in which order."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import data


class Round(NamedTuple):
    """One dataset and one `specialize` on it."""

    why: str
    dataset: dict[str, Any]
    """Arguments of create_dataset."""
    specialize: dict[str, Any]
    """Arguments beside use_case and dataset."""


class Scene(NamedTuple):
    title: str
    story: str
    use_case: dict[str, Any]
    """Arguments of define_use_case."""
    rounds: tuple[Round, ...]
    ask: tuple[dict[str, Any], ...]
    """Inputs that production answers."""
    roll_back: str = ""
    """Why the last promotion is undone at the end; empty: it stays."""

    @property
    def name(self) -> str:
        return str(self.use_case["name"])


def scenes(cache: Path) -> list[Scene]:
    """Builds the data where they are not there yet."""
    return [_products(cache), _movies(cache), _digits(cache), _peptides(cache)]


def without_torch(scene: Scene) -> Scene:
    """The rounds with `classical` alone; a round that has other methods only is left out."""
    rounds = tuple(
        round_._replace(specialize={**round_.specialize, "methods": ["classical"]})
        for round_ in scene.rounds
        if "classical" in round_.specialize["methods"]
    )
    return scene._replace(rounds=rounds)


def _products(cache: Path) -> Scene:
    source = str(data.products(cache))
    return Scene(
        "Product reviews",
        "A word list judges the sentences of product reviews today. Is a model of our own better, on documents that it "
        "has never seen?",
        {
            "name": "products",
            "task": "text-classification",
            "objective": {"metric": "accuracy"},
            "incumbent": "column:lexicon",
            "limits": {"p95_latency_ms": 200.0, "offline": True},
        },
        (
            Round(
                "Word counts, then a pretrained encoder: the cheapest that beats the word list.",
                {
                    "name": "products",
                    "source": source,
                    "modality": "text",
                    "label": "label",
                    "inputs": ["text"],
                    "group_by": "document",
                },
                {"budget_minutes": 3, "methods": ["classical", "probe"]},
            ),
        ),
        (
            {"text": "The battery died after two days and support never answered."},
            {"text": "Love it, works like a charm!"},
        ),
    )


def _movies(cache: Path) -> Scene:
    dataset = {
        "name": "movies", "source": str(data.movies(cache)), "modality": "text", "label": "label", "inputs": ["text"],
    }  # fmt: skip
    return Scene(
        "Movie reviews: where the dearer model does not earn its place",
        "Word counts go into production first. Then a pretrained encoder (22 million parameters) is tried.",
        {
            "name": "movies",
            "task": "text-classification",
            "objective": {"metric": "accuracy"},
            "limits": {"offline": True},
        },
        (
            Round("Word counts with a linear model.", dataset, {"budget_minutes": 2, "methods": ["classical"]}),
            Round(
                "A linear head on the frozen MiniLM encoder.",
                dataset,
                {"budget_minutes": 3, "methods": ["probe"], "base_models": ["pkg:minilm"]},
            ),
        ),
        ({"text": "A tender, funny film with a heart."}, {"text": "Two hours that I will never get back."}),
    )


def _digits(cache: Path) -> Scene:
    pilot, everything = data.digits(cache)
    digits = {"modality": "image", "label": "folder"}
    return Scene(
        "Handwritten digits",
        "A pilot with 60 images a class goes into production; nearly six times as many arrive later.",
        {
            "name": "digits",
            "task": "image-classification",
            "objective": {"metric": "accuracy", "target": 0.8},
            "limits": {"p95_latency_ms": 100.0, "offline": True},
        },
        (
            Round(
                "The pilot.",
                {"name": "digits", "source": str(pilot), **digits},
                {"budget_minutes": 2, "methods": ["classical"]},
            ),
            Round(
                "All of them, against what serves.",
                {"name": "digits", "source": str(everything), **digits},
                {"budget_minutes": 2, "methods": ["classical"]},
            ),
        ),
        tuple({"path": str(everything / "test" / str(digit) / "0000.png")} for digit in (3, 7)),
        roll_back="to show that the version before serves again at once",
    )


def _peptides(cache: Path) -> Scene:
    return Scene(
        "Antimicrobial peptides",
        "Nobody predicts anything yet, so the incumbent is the most frequent answer.",
        {
            "name": "peptides",
            "task": "protein-classification",
            "objective": {"metric": "accuracy", "target": 0.85},
            "limits": {"p95_latency_ms": 100.0, "offline": True},
        },
        (
            Round(
                "Runs of amino acids, and measured properties of the chain.",
                {
                    "name": "peptides", "source": str(data.peptides(cache)), "modality": "protein", "label": "label",
                    "inputs": ["sequence"],
                },
                {"budget_minutes": 2, "methods": ["classical"]},
            ),
        ),
        ({"text": "GLWSKIKEVGKEAAKAAAKAAGKAALGAVSEAV"},),
    )  # fmt: skip
