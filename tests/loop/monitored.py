"""A use case in production whose log is filled by hand, and its monitoring jobs, under a clock that is moved."""

from __future__ import annotations

import io
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from speciate import use_cases
from speciate.jobs.engine import Engine
from speciate.loop.monitor import MonitorOutcome, Signal
from speciate.models import registry, sealed
from speciate.predictions import feedback
from speciate.predictions.log import AnsweringModel, AnswerLog
from speciate.predictions.log_files import log_folder
from speciate.promotion import aliases
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.loop.test_thirty_days import AtOnce
from tests.serving.world import USE_CASE, move, trained

WEEK = 7 * 86_400.0
_NOUNS = ("train", "harbour", "garden", "ticket", "window", "letter", "market", "bridge", "song", "winter")
_VERBS = ("waits", "opens", "falls", "turns", "sings", "closes", "burns", "sleeps")
_OTHER = ("invoice", "ledger", "tariff", "surcharge", "refund", "customs", "voucher", "deposit", "quota", "levy")


def sentence(chance: random.Random, nouns: Sequence[str] = _NOUNS) -> str:
    words = [f"the {chance.choice(nouns)} {chance.choice(_VERBS)}" for _ in range(chance.randint(2, 4))]
    return " and ".join(words)


def other_sentence(chance: random.Random) -> str:
    return sentence(chance, _OTHER)


def png(level: float, chance: np.random.Generator) -> bytes:
    """A small image around a level of gray, 0 to 1."""
    pixels = np.clip(255 * (level + 0.1 * chance.normal(size=(12, 12, 3))), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def promoted(workspace: Workspace) -> None:
    """`reviews`, of whose answers 10 % may be wrong, with a trained model in production."""
    version = trained(workspace)
    known = use_cases.get(workspace.database, USE_CASE).model_dump(exclude={"version", "created"})
    wanted = use_cases.Definition.model_validate({**known, "objective": {"metric": "accuracy", "target": 0.9}})
    workspace.database.transact(lambda tx: use_cases.define(tx, wanted))
    move(workspace, version.ref)


def promoted_root(folder: Path) -> Path:
    """A closed workspace in this folder with a model in production, to be copied."""
    workspace = Workspace(folder / "workspace", ManualClock(), Settings(policy="auto"))
    promoted(workspace)
    workspace.close()
    return folder / "workspace"


class Production:
    """What is in production; answers are written as a deployment would write them."""

    def __init__(self, workspace: Workspace, clock: ManualClock) -> None:
        """`workspace`: as `promoted` leaves it."""
        self.workspace, self.clock = workspace, clock
        alias = aliases.read(workspace.database, USE_CASE)
        assert alias is not None
        self._settle(alias.model)
        self.log = AnswerLog(log_folder(workspace.folders, USE_CASE), workspace.settings.log, clock)
        self.engine = Engine(workspace, executor=AtOnce(workspace))
        self.modality = "text"

    def _settle(self, model: str) -> None:
        alias = aliases.read(self.workspace.database, USE_CASE)
        assert alias is not None
        self.model, self.generation, self.begin = model, alias.generation, alias.changed

    def promote_again(self) -> None:
        """Another generation of the alias; its windows begin anew."""
        move(self.workspace, self.model)
        self._settle(self.model)

    def ask(
        self, items: Iterable[dict[str, Any]], *, output: Any = "good", confidence: float = 0.9,
        entity: str | None = None,
    ) -> list[str]:  # fmt: skip
        given = [{"id": str(place), **item} for place, item in enumerate(items)]
        ids = self.log.ids(len(given))
        answers = [{"output": output, "confidence": confidence, "error": None}] * len(given)
        about = AnsweringModel(self.model, self.generation, self.modality)
        assert self.log.note(ids, given, answers, about, 3.0, entity)
        return ids

    def label(self, prediction: str, right: bool = True, **more: Any) -> None:
        given = {"prediction": prediction, "source": "human", "label": "good" if right else "bad", "drawn": "random"}
        made = feedback.make_feedback(**{**given, **more})
        assert self.log.feedback(made.model_dump(exclude_none=True, exclude={"new_class"}))

    def end_week(self, number: int) -> MonitorOutcome:
        """Move to the end of this window, and look at it."""
        end = self.begin + (number + 1) * WEEK
        self.clock.advance(max(0.0, end - self.clock.now()))
        return self.look(number)

    def look(self, number: int, **more: Any) -> MonitorOutcome:
        spec = {
            "use_case": USE_CASE, "generation": self.generation, "number": number,
            "begin": self.begin + number * WEEK, "end": self.begin + (number + 1) * WEEK,
            "extractor": "descriptor" if self.modality == "text" else None, **more,
        }  # fmt: skip
        key = f"watch/{USE_CASE}/monitor/{self.generation}/{number}"
        job = self.engine.submit("monitor", spec, key=key).id
        for _ in range(4):
            self.engine.tick()
        return MonitorOutcome.model_validate(self.engine.get(job).result)

    def close(self) -> None:
        self.log.close()


def signal(outcome: MonitorOutcome, name: str) -> Signal | None:
    return next((each for each in outcome.signals if each.name == name), None)


def reads_images(production: Production) -> None:
    """From now on its model is registered as one of images: what is asked is files."""
    workspace = production.workspace
    like = registry.resolve(workspace.database, workspace.folders, production.model)
    staged = workspace.folders.runs / "staged-images"
    staged.mkdir()
    (staged / "weights").write_bytes(b"weights")
    identity = sealed.seal(staged)
    card = like.card.model_copy(
        update={
            "version": 0,
            "modality": "image",
            "task": "image-classification",
            "inputs": (),
            "id": identity,
        }
    )
    ref = workspace.database.transact(lambda tx: registry.register(tx, workspace.folders, card, staged)).ref
    move(workspace, ref)
    production._settle(ref)
    production.modality = "image"
