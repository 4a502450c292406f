"""One episode over images in a real workspace: half of what people are asked about, beside the random half, lies where
the labels that came by themselves say that it fails; one candidate learns from variants, which judge nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from speciate.loop.watch import report, rows
from speciate.loop.watch.definition import Policy, Trigger
from speciate.serving.predict import Input
from speciate.tools.datasets import create_dataset
from speciate.tools.evaluation import evaluate_models
from speciate.tools.predictions import Predictions, predict, record_feedback
from speciate.tools.promotion import Promotion, promote_model
from speciate.tools.training import train_model
from speciate.tools.use_cases import define_use_case
from speciate.tools.watches import watch_use_case
from speciate.use_cases import Objective
from tests.loop.watch import digits
from tests.loop.watch.digits import Loop, Source

pytestmark = pytest.mark.slow

USE_CASE = "bars"
KINDS = ("across", "down", "slanted", "blank")
_SIZE = 24
_MANIFESTS = "SELECT name, version, operation, manifest FROM dataset_versions ORDER BY created, version"


class Bars(Loop):
    """Bars across, down or slanted, or none. In production slanted ones are the wrong way round: dark on light."""

    name = USE_CASE

    def __init__(self, loop: Loop, folder: Path) -> None:
        super().__init__(loop.app, loop.clock)
        self.rng, self.folder = np.random.default_rng(3), folder
        self.kind_of: dict[str, str] = {}

    def draw(self, kind: str, path: Path, other: bool) -> Path:
        pixels = self.rng.normal(40, 12, (_SIZE, _SIZE))
        place = int(self.rng.integers(4, _SIZE - 6))
        if kind == "across":
            pixels[place : place + 3] += 150
        elif kind == "down":
            pixels[:, place : place + 3] += 150
        elif kind == "slanted":
            for row in range(_SIZE):
                pixels[row, max(0, row - 1) : row + 2] += 150
        if other and kind == "slanted":
            pixels = 255 - pixels
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
        return path

    def start(self, folder: Path, first: Source | None = None) -> None:
        for kind in KINDS:
            for place in range(90):
                self.draw(kind, folder / "bars" / kind / f"{place}.png", other=False)
        made = create_dataset(self.app, "bars-files", source=str(folder / "bars"), label="folder", modality="image")
        self.ended(made)
        define_use_case(self.app, USE_CASE, "image-classification", Objective(metric="accuracy", target=0.9))
        few = {"candidates": ["logistic"]}
        trained = self.ended(
            train_model(self.app, "bars-model", "bars-files", "classical", use_case=USE_CASE, hyperparameters=few)
        )
        model = str((trained.result or {})["model"])
        judged = self.ended(
            evaluate_models(self.app, [model], dataset="bars-files:test", use_case=USE_CASE, latency=False)
        )
        promoted = promote_model(self.app, USE_CASE, model, evaluation=str((judged.result or {})["evaluation"]))
        assert isinstance(promoted, Promotion)
        assert promoted.state == "applied", promoted

    def show(self, count: int) -> list[str]:
        """Production is asked; ids of the answers."""
        found: list[str] = []
        for begin in range(0, count, 50):
            kinds = [KINDS[int(self.rng.integers(4))] for _ in range(min(50, count - begin))]
            files = [
                self.draw(kind, self.folder / "asked" / f"{len(self.right) + place}-{begin}.png", other=True)
                for place, kind in enumerate(kinds)
            ]
            answered = predict(self.app, [Input(path=str(file)) for file in files], use_case=USE_CASE)
            assert isinstance(answered, Predictions)
            for each, kind in zip(answered.predictions, kinds, strict=True):
                assert each.prediction is not None
                self.right[each.prediction] = kind
                self.kind_of[each.prediction] = str(each.untrusted.output)
                found.append(each.prediction)
        return found


def test_an_episode_asks_where_it_fails_and_one_candidate_learns_from_variants(tmp_path: Path) -> None:
    with digits.loop(tmp_path, []) as bare:
        loop = Bars(bare, tmp_path)
        loop.start(tmp_path)
        watch_use_case(loop.app, USE_CASE, [Trigger(on="data_shift")], Policy(action="auto", labels=400))
        shown = loop.show(400)
        loop.days(2)
        loop.look()
        for name in shown[:80]:  # what users say by themselves
            record_feedback(loop.app, "human", name, label=loop.right[name])
        watch_use_case(loop.app, USE_CASE, [Trigger(on="now")], Policy(action="auto", labels=400))
        loop.days(1)
        loop.look()
        decision = loop.look()
        assert decision.memory.state == "labelling", decision.because
        workspace, database = loop.app.workspace, loop.app.workspace.database
        found = report.episode_report(workspace, USE_CASE, 1)
        wrong = {loop.kind_of[name] for name in shown if loop.kind_of[name] != loop.right[name]}
        assert wrong, "the first model fails somewhere"
        aimed = [gap for gap in found.gaps if gap.of == "production"]
        assert aimed, found.gaps
        assert any(gap.chosen > 0 and gap.rate > gap.rest for gap in aimed)
        asked = dict(database.read("SELECT prediction, drawn FROM label_requests"))
        failing = {
            drawn: [loop.kind_of[name] != loop.right[name] for name, how in asked.items() if how == drawn]
            for drawn in ("random", "uncertain")
        }
        assert np.mean(failing["uncertain"]) > np.mean(failing["random"])
        for _ in range(6):
            loop.label(200)
            loop.days(1)
            decision = loop.look()
            if decision.ended is not None or decision.memory.state == "baking":
                break
        learned = list(database.read("SELECT state, spec FROM jobs WHERE step = 'train/variants'"))
        assert learned
        assert {state for state, _ in learned} == {"succeeded"}
        versions = {
            f"{name}@v{version}": (json.loads(operation), json.loads(manifest))
            for name, version, operation, manifest in database.read(_MANIFESTS)
        }
        varied = {
            ref: manifest
            for ref, (operation, manifest) in versions.items()
            if [step.get("op") for step in operation.get("steps", ())] == ["variants"]
        }
        assert {json.loads(spec)["dataset"] for _, spec in learned} == set(varied)
        for manifest in varied.values():
            before = versions[f"bars-files@v{manifest['version'] - 1}"][1]
            assert manifest["splits"]["train"] > before["splits"]["train"]
            assert manifest["splits"]["test"] == before["splits"]["test"], "a suite has no variants"
        judges = [made for name, (_, made) in versions.items() if name.startswith("bars-judged@")]
        assert judges
        assert all(set(made["splits"]) == {"test"} for made in judges)
        [episode] = rows.episodes(database, USE_CASE)
        print(decision.because, episode)
        assert decision.memory.state == "baking" or episode.outcome in ("promoted", "hold", "inconclusive")
