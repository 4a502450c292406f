"""A base model that comes later, end to end: real folders of weights, a real workspace, nobody but who answers labels.

Words of vaderSentiment's lexicon are kind or unkind. Production knows them by their letters alone. Then come, a day
apart: MiniLM where a smaller model is asked for, a small network with weights of chance, and MiniLM where it may serve.
"""

from __future__ import annotations

import csv
import json
import random
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from speciate.loop.watch import report, rows
from speciate.loop.watch.definition import Policy, Trigger
from speciate.loop.watch.facts import Decision
from speciate.models import packaged, registry
from speciate.serving.predict import Input
from speciate.tools.datasets import create_dataset
from speciate.tools.evaluation import evaluate_models
from speciate.tools.models import register_model
from speciate.tools.predictions import Predictions, predict
from speciate.tools.promotion import Promotion, promote_model
from speciate.tools.training import train_model
from speciate.tools.use_cases import define_use_case
from speciate.tools.watches import watch_use_case
from speciate.use_cases import Objective, Suites, UseCaseLimits
from tests.loop.watch import digits
from tests.loop.watch.digits import Loop, Source

_LEXICON = find_spec("vaderSentiment")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not packaged.installed("minilm"), reason="the weights come as a package: make install"),
    pytest.mark.skipif(_LEXICON is None, reason="the words come as a package: make install"),
]
USE_CASE = "tone"
_SPLITS = {"train": 300, "validation": 200, "test": 400}


def words() -> list[tuple[str, str]]:
    """In an order of chance, as many kind ones as unkind ones."""
    assert _LEXICON is not None
    assert _LEXICON.origin is not None
    found: dict[str, list[str]] = {"kind": [], "unkind": []}
    for line in (Path(_LEXICON.origin).parent / "vader_lexicon.txt").read_text(encoding="utf-8").splitlines():
        word, valence, *_ = line.split("\t")
        if word.isalpha() and abs(float(valence)) >= 1.5:
            found["kind" if float(valence) > 0 else "unkind"].append(word)
    few = min(map(len, found.values()))
    chance = random.Random(0)
    listed = [(word, label) for label, each in found.items() for word in chance.sample(each, few)]
    chance.shuffle(listed)
    return listed


class Tone(Loop):
    name = USE_CASE

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop.app, loop.clock)
        self.words = words()

    def start(self, folder: Path, first: Source | None = None) -> None:
        splits = [split for split, count in _SPLITS.items() for _ in range(count)]
        with (folder / "words.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("text", "tone", "split"))
            writer.writerows((*self.words.pop(), split) for split in splits)
        made = create_dataset(
            self.app, "tone-words", source=str(folder / "words.csv"), label="tone", inputs=["text"], modality="text"
        )
        self.ended(made)
        self.define(most=10_000_000)
        trained = self.ended(train_model(self.app, "tone-letters", "tone-words", "classical", use_case=USE_CASE))
        model = str((trained.result or {})["model"])
        judged = self.ended(evaluate_models(self.app, [model], use_case=USE_CASE, suite="core", latency=False))
        promoted = promote_model(self.app, USE_CASE, model, evaluation=str((judged.result or {})["evaluation"]))
        assert isinstance(promoted, Promotion)
        assert promoted.state == "applied", promoted

    def define(self, most: int) -> None:
        define_use_case(
            self.app, USE_CASE, "text-classification", Objective(metric="accuracy", target=0.6),
            suites=Suites(core="tone-words:test"), limits=UseCaseLimits(max_parameters=most),
        )  # fmt: skip

    def show(self, count: int) -> None:
        """Words that no dataset holds."""
        shown = [self.words.pop() for _ in range(count)]
        answered = predict(self.app, [Input(text=word) for word, _ in shown], use_case=USE_CASE)
        assert isinstance(answered, Predictions)
        for each, (_, label) in zip(answered.predictions, shown, strict=True):
            assert each.prediction is not None
            self.right[each.prediction] = label

    def day(self) -> Decision:
        """A day and its looks: the first begins what the second finds ended."""
        self.days(1)
        first = self.look()
        if first.memory.state == "labelling":
            self.label(100)
        return self.look()

    def fetch(self, name: str, source: Path) -> str:
        made = self.ended(register_model(self.app, name, source=f"path:{source}"))
        return str((made.result or {})["model"])

    def children(self, episode: int, round_: int = 1) -> dict[str, float]:
        """Steps of an episode's `relearn`, with their seconds."""
        key = f"watch/{USE_CASE}/{episode}/relearn" + (f".{round_}" if round_ > 1 else "")
        found = self.app.workspace.database.read(
            "SELECT step, run_seconds FROM jobs WHERE parent IN (SELECT id FROM jobs WHERE key = ?) ORDER BY created",
            [key],
        )
        return {str(step): float(seconds) for step, seconds in found}


def published(target: Path) -> Path:
    return Path(shutil.copytree(packaged.locate("minilm"), target))


def of_chance(target: Path) -> Path:
    """A smaller network of the same kind, which has learned nothing."""
    from transformers import BertConfig, BertModel

    published(target)
    config = BertConfig.from_pretrained(target)
    config.update({"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 192})
    BertModel(config).save_pretrained(target)
    pooling = target / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({**json.loads(pooling.read_text()), "word_embedding_dimension": 96}))
    return target


def test_a_base_model_is_screened_on_validation_and_only_one_that_may_be_better_costs_labels(tmp_path: Path) -> None:
    with digits.loop(tmp_path, []) as bare:
        loop = Tone(bare)
        loop.start(tmp_path)
        database = loop.app.workspace.database
        watch_use_case(
            loop.app, USE_CASE, [Trigger(on="new_base_model")], Policy(action="auto", labels=300, budget_minutes=60)
        )
        loop.show(100)
        assert loop.day().because == "no trigger fired", "what was there at first is no news"

        base = loop.fetch("minilm-copy", published(tmp_path / "published"))
        assert loop.day().because == "no trigger fired", "it is too large: it is not even tried"

        useless = loop.fetch("useless", of_chance(tmp_path / "useless"))
        loop.show(100)
        screened_out = loop.day()
        [episode] = rows.episodes(database, USE_CASE)
        assert (episode.outcome, episode.causes) == ("hold", ("new_base_model",)), episode
        assert episode.because.startswith("0 of 1 new base models may be better on 200 validation rows")
        assert useless in episode.because
        assert set(loop.children(1)) == {"screen/probe-0", "screen"}
        assert sum(loop.children(1).values()) < 300
        assert database.read("SELECT count(*) FROM label_requests") == [(0,)], "no label was asked for"
        assert screened_out.memory.fruitless == 0

        loop.define(most=30_000_000)
        loop.show(200)
        for _ in range(12):
            decision = loop.day()
            if decision.ended is not None or rows.episodes(database, USE_CASE)[0].outcome == "promoted":
                break
        episode = rows.episodes(database, USE_CASE)[0]
        print(episode, loop.children(2), loop.children(2, 2), loop.children(2, 3), sep="\n")
        assert (episode.number, episode.outcome) == (2, "promoted"), episode
        assert set(loop.children(2)) == {"screen/probe-0", "screen"}, "then labels were asked for"
        assert sum(loop.children(2).values()) < 300
        serving = database.read("SELECT model FROM aliases WHERE use_case = ? AND alias = 'production'", [USE_CASE])
        [[card]] = database.read(
            "SELECT card FROM model_versions WHERE name || '@v' || version = ?", [str(serving[0][0])]
        )
        assert json.loads(card)["base_model"] == base
        asked = report.episode_report(loop.app.workspace, USE_CASE, 2).labels_asked
        assert 0 < asked <= 200
        names = {card.ref for name in registry.names(database) for card in registry.versions(database, name)}
        assert f"{USE_CASE}-model@v1" in names
