"""A training that is killed or stopped, over and over, ends in the same bits as one that is left alone.

First as a user has it: a job `train` whose worker dies or is told to leave ends in the same model id, which is the
sha256 of its files. Then VideoMAE, whose modality has no backbone here yet, through the loop itself. At last
transformers' own Trainer, which loses weights where the loop does not.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import json
import os
import random
import signal
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch

from speciate.jobs.engine import Engine
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import ENDED, Job
from speciate.jobs.process_identity import signal_group
from speciate.jobs.run import Stopped
from speciate.modalities.geometry import ply
from speciate.modalities.robotics.episode_files import write
from speciate.models import packaged, registry
from speciate.models.backbones import architectures
from speciate.models.backbones.contract import Item, States
from speciate.models.model_card import ModelCard
from speciate.settings import Capacity, Settings
from speciate.training.networks import durable_training
from speciate.training.networks.batches import Items, PreparedItems
from speciate.training.networks.optimizer import LoopParameters
from speciate.training.networks.training_checkpoints import Checkpoints, TrainingState
from speciate.training.networks.training_log import read_metrics
from speciate.training.networks.training_loop import Training
from speciate.vocabulary import find_metric
from speciate.workspace.workspace import Workspace
from tests.crash import saving
from tests.modalities.episode_samples import files
from tests.modalities.nifti_samples import packed, written
from tests.modalities.video_samples import clip
from tests.training.networks.world import TwoLabels, new_run
from tests.training.problems import outlined
from tests.training.world import make_dataset, model_path, png, thirds, train_now

pytestmark = pytest.mark.durable

COUNT = 48
TINY: dict[str, Any] = {"num_train_epochs": 8, "learning_rate": [3e-4], "batch_size": 8, "folds": 3}
OTHERWISE: dict[str, dict[str, Any]] = {
    "new:bert": {"learning_rate": [1e-4]},
    "new:patchtst": {
        "num_train_epochs": 30,
        "early_stopping_patience": 30,
        "learning_rate": [1e-4],
    },  # quick: requests came too late
    "new:tab-resnet": {
        "num_train_epochs": 100,
        "early_stopping_patience": 100,
        "learning_rate": [2e-5],
    },  # quick: requests came too late
}
"""So slow that the best weights come late: what was there before the first break would prove nothing."""
ASKED: dict[str, dict[str, str]] = {
    "new:unet3d": {"task": "volume-segmentation", "target": "mask"},
    "new:bc-mlp": {"task": "behaviour-cloning"},
    "new:bc-cnn": {"task": "behaviour-cloning"},
}
"""What is learned, where it is no number."""
KILLS, PAUSES = 3, 2
STOP = 5
PATIENCE = 240.0
"""Seconds that a job may take."""


# Data: two kinds for each modality, and a number to learn, since an error falls until the end where accuracy is soon 1


def _tone(low: bool, at: int) -> bytes:
    """A quarter of a second or a little more, as WAV."""
    moments = np.arange(4000 + 40 * at) / 16_000
    sound = 0.4 * np.sin(2 * np.pi * (220 if low else 1800) * moments) + 0.01 * np.sin(at * moments)
    with io.BytesIO() as file:
        with wave.open(file, "wb") as out:
            out.setparams((1, 2, 16_000, len(sound), "NONE", ""))
            out.writeframes((sound * 32767).astype("<i2").tobytes())
        return file.getvalue()


def _data(modality: str) -> dict[str, Any]:
    """`columns`, `inputs` and `media` of `make_dataset`."""
    chance, first = np.random.default_rng(0), [i // 4 % 2 == 0 for i in range(COUNT)]
    match modality:
        case "image":
            pixels = [chance.integers(0, 90, (16, 16, 3), np.uint8) + np.uint8(90 * one) for one in first]
            return {"columns": {}, "media": [png(each) for each in pixels]}
        case "audio":
            return {"columns": {}, "media": [_tone(one, at) for at, one in enumerate(first)]}
        case "time-series":
            steps = np.arange(32)
            left = [(np.sin(steps * (0.3 if one else 1.2)) + chance.normal(0, 0.1, 32)).tolist() for one in first]
            columns: dict[str, list[Any]] = {"left": left, "right": [list(reversed(each)) for each in left]}
        case "tabular":
            columns = {
                "size": [float(one + chance.normal(0, 0.3)) for one in first],
                "colour": [("red", "blue")[int(chance.integers(2))] for _ in first],
            }
        case "protein":
            letters = ["KRWLFIGA" if one else "DESTNQGP" for one in first]
            columns = {"sequence": ["".join(chance.choice(list(each), 6 + at % 9)) for at, each in enumerate(letters)]}
        case "text":
            words = ["a joy, warm and clever" if one else "dull, cold and too long" for one in first]
            columns = {"text": [f"{each}, number {at}" for at, each in enumerate(words)]}
        case "video":
            clips = [clip(at, (3, 0) if one else (0, 3)) for at, one in enumerate(first)]
            return {"columns": {}, "media": clips}
        case "volume":
            voxels = [chance.normal(100 + 20 * one, 12, (12, 12, 8)).round().astype(np.int16) for one in first]
            return {"columns": {}, "media": [packed(written(each)) for each in voxels]}
        case "point-cloud":
            clouds = [chance.normal(size=(200, 3)) * (1, 1, 1.0 if one else 0.2) for one in first]
            return {"columns": {}, "media": [ply.encode(each.astype(np.float32)) for each in clouds]}
        case "episode":
            return {"columns": {}, "media": [write(files(12, at)) for at in range(COUNT)]}
        case _:
            raise AssertionError(f"this test has no {modality} yet")
    return {"columns": columns, "inputs": list(columns)}


# Jobs


Ready = Callable[[Job, RunFolder], bool]


class World(NamedTuple):
    workspace: Workspace
    engine: Engine
    numbers: Iterator[int]

    def submit(self, kind: str, spec: dict[str, Any]) -> str:
        """The job; each makes a model of its own."""
        return str(self.engine.submit(kind, {**spec, "name": f"net-{next(self.numbers)}"}).id)

    def learn_from(self, modality: str, splits: Sequence[str] = ("train", "validation", "test")) -> str:
        """The name of a dataset."""
        name = "-".join((modality, *splits))
        stored = "nifti" if modality == "volume" else modality
        if self.workspace.database.read_one("SELECT 1 FROM dataset_versions WHERE name = ?", [name]) is None:
            labels = [float(i // 4 % 2) for i in range(COUNT)]
            make_dataset(self.workspace, name, stored, labels=labels, splits=thirds(COUNT, splits), **_data(modality))
        return name

    def outlines(self, folder: Path) -> str:
        """The name of a dataset of volumes whose every voxel has a label."""
        return str(outlined(COUNT // 2).make(self.workspace, folder, "outlines").name)

    def ended(self, job: str) -> Job:
        found = self.engine.wait(job, timeout=PATIENCE)
        assert found.state == "succeeded", (found.state, found.error, self.engine.folder(found).log_tail(20))
        return found

    def card(self, job: Job) -> ModelCard:
        assert job.result
        return registry.resolve(self.workspace.database, self.workspace.folders, job.result["model"]).card

    def wait_for(self, job: str, ready: Ready, chance: random.Random) -> Job | None:
        """The job, a random moment after its newest attempt lives and is `ready`; None where it ends before."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            found = self.engine.get(job)
            if found.state in ENDED:
                return None
            if found.state == "running" and ready(found, self.engine.folder(found)):
                time.sleep(chance.uniform(0, 0.05))
                return found
            time.sleep(0.002)
        raise AssertionError(f"{job} came nowhere")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    settings = Settings(policy="auto", capacity=Capacity(cpu=2))
    workspace = Workspace(tmp_path_factory.mktemp("resume") / "workspace", settings=settings)
    engine = Engine(workspace)
    for kind in (saving.KIND, saving.BY_TWO):
        engine.kinds.add(kind)
    engine.start()
    yield World(workspace, engine, itertools.count())
    engine.stop()
    workspace.close()


def _done(folder: RunFolder) -> float:
    progress = folder.progress()
    return progress.done if progress else 0.0


def _further(folders: Sequence[RunFolder], by: int) -> Ready:
    """Once it has come so many steps further than any attempt before it."""
    goal = max((_done(folder) for folder in folders), default=0.0) + by
    return lambda job, folder: _done(folder) >= goal


def _after(attempt: Job) -> Ready:
    return lambda job, _: job.attempt > attempt.attempt


def _both(one: Ready, other: Ready) -> Ready:
    return lambda job, folder: one(job, folder) and other(job, folder)


def _kill(folder: RunFolder, *, supervisor: bool) -> bool:
    """kill -9 of the worker; where the supervisor dies with it, nobody is left to write how the run ended."""
    victims = ("supervisor", "worker") if supervisor else ("worker",)
    sent = [signal_group((folder.path / who).read_text(), signal.SIGKILL) for who in victims]
    return any(sent)


def _attempts(world: World, job: str) -> list[RunFolder]:
    return [RunFolder(path) for path in world.workspace.folders.runs.glob(f"{job}.*")]


class Broken(NamedTuple):
    job: Job
    at: list[float]
    """Steps that were told when it was killed or left."""


def _killed(world: World, spec: dict[str, Any], total: int, kills: int, chance: random.Random) -> Broken:
    job, at = world.submit(saving.KIND.name, spec), []
    for number in range(kills):
        ready = _further(_attempts(world, job), chance.randint(1, total // (kills + 1)) if number else 1)
        if (found := world.wait_for(job, ready, chance)) is None:
            break
        if _kill(folder := world.engine.folder(found), supervisor=chance.random() < 0.5):
            at.append(_done(folder))
        world.wait_for(job, _after(found), chance)
    return Broken(world.ended(job), at)


def _paused(world: World, spec: dict[str, Any], total: int, pauses: int, chance: random.Random) -> Broken:
    job, at = world.submit("train", spec), []
    for number in range(pauses):
        ready = _further(_attempts(world, job), chance.randint(1, total // (pauses + 1)) if number else 1)
        if world.wait_for(job, ready, chance) is None:
            break
        world.engine.control(job, "pause")
        while (now := world.engine.get(job)).state not in {*ENDED, "paused"}:
            time.sleep(0.01)
        if now.state == "paused":
            at.append(_done(world.engine.folder(now)))
            world.engine.control(job, "resume")
    return Broken(world.ended(job), at)


def _check(world: World, dataset: str, method: str, base_model: str, kills: int, pauses: int, **more: Any) -> ModelCard:
    """That the three ways to the end lead to one model; its card."""
    settings = TINY | OTHERWISE.get(base_model, {}) | more
    spec = {"dataset": dataset, "method": method, "base_model": base_model, "hyperparameters": settings}
    spec |= ASKED.get(base_model, {})
    chance, started = random.Random(base_model), time.monotonic()
    whole = world.ended(world.submit("train", spec))
    card, total, best = world.card(whole), _steps(whole), _best(world.engine.folder(whole), _metric(whole))
    said = [f"best after step {best} of {total}"]
    for interrupted, times in ((_killed, kills), (_paused, pauses)):
        job, at = interrupted(world, spec, total, times, chance)
        said.append(f"{interrupted.__name__[1:]} at {at}, {_steps(job)} steps in all attempts")
        assert len(at) >= max(1, times - 1), said
        assert at[0] < best, said  # else the weights that count were there before
        assert _steps(job) <= total + len(at), said  # each kill repeats a step at most, unless it began anew
        assert job.shrinks == 0, said
        assert world.card(job).id == card.id, said
    print(f"{method} {base_model}: {'; '.join(said)}; {time.monotonic() - started:.0f} s")
    return card


def _best(folder: RunFolder, metric: str) -> int:
    """The step whose weights were kept."""
    judged = [line for line in read_metrics(folder.path / "metrics.jsonl") if "held_value" in line]
    return int(max(judged, key=lambda line: find_metric(metric).sign * line["held_value"])["step"])


def _metric(job: Job) -> str:
    assert job.result
    return str(job.result["report"]["metric"])


def _steps(job: Job) -> int:
    """Those of all its attempts."""
    assert job.result
    return int(job.result["report"]["cost"]["steps"])


@pytest.mark.slow
def test_a_training_that_was_killed_and_paused_ends_in_the_same_model(world: World) -> None:
    _check(world, world.learn_from("protein"), "full", "new:esm", 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("base_model", [*architectures.ARCHITECTURES, "timm:resnet10t"])
def test_every_architecture_ends_in_the_same_model(world: World, base_model: str, tmp_path: Path) -> None:
    modality = architectures.modality_of(base_model)
    assert modality
    if modality == "audio":
        pytest.importorskip("soundfile")
    if base_model.startswith("timm:"):
        pytest.importorskip("timm")
    dataset = world.outlines(tmp_path) if base_model == "new:unet3d" else world.learn_from(modality)
    _check(world, dataset, "full", base_model, KILLS, PAUSES)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["lora", "dora", "ia3"])
def test_small_changes_are_merged_into_the_same_model(world: World, form: str, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    from transformers import BertConfig

    from tests.models.backbones.folders import SMALL, text_folder

    base_model = f"path:{text_folder(tmp_path / 'base', BertConfig(vocab_size=400, **SMALL))}"
    _check_merged(world, base_model, form)


@pytest.mark.slow
@pytest.mark.skipif(not packaged.installed("minilm"), reason="the package of pkg:minilm is not installed")
def test_small_changes_to_published_weights_are_merged_into_the_same_model(world: World) -> None:
    pytest.importorskip("peft")
    _check_merged(world, "pkg:minilm", "lora")


def _check_merged(world: World, base_model: str, form: str) -> None:
    from safetensors import safe_open

    rate = [1e-3]
    card = _check(
        world,
        world.learn_from("text"),
        "lora",
        base_model,
        KILLS,
        PAUSES,
        adapter_type=form,
        lora_dropout=0.1,
        learning_rate=rate,
    )
    with safe_open(model_path(world.workspace, card.ref) / "backbone.safetensors", "pt") as file:
        names = list(file.keys())
    assert names
    assert not [name for name in names if "lora" in name or "ia3" in name or "base_layer" in name]


@pytest.mark.slow
@pytest.mark.parametrize("part", ["fold-2", "fold-3", "whole"])
def test_without_a_validation_split_a_kill_in_any_part_ends_in_the_same_model(world: World, part: str) -> None:
    """The folds after the search, and the training on everything after them."""
    dataset, chance = world.learn_from("tabular", ("train", "test")), random.Random(part)
    settings = TINY | {"learning_rate": [1e-3, 2e-3]}
    spec = {"dataset": dataset, "method": "full", "base_model": "new:tab-resnet", "hyperparameters": settings}
    whole = world.ended(world.submit("train", spec))
    job = world.submit(saving.KIND.name, spec)
    for _ in range(2):  # and again where the first left it
        further = _further(_attempts(world, job), 1)
        found = world.wait_for(job, _both(further, lambda _, folder: _saved(folder, part)), chance)
        assert found, "it ended before it could be killed"
        assert _kill(world.engine.folder(found), supervisor=True)
        world.wait_for(job, _after(found), chance)
    killed = world.ended(job)
    assert killed.shrinks == 0
    assert _steps(killed) <= _steps(whole) + 10  # it repeats the last step of each part, and not the search
    assert world.card(killed).id == world.card(whole).id


@pytest.mark.slow
@pytest.mark.parametrize("splits", [("train", "validation", "test"), ("train", "test")])
def test_two_processes_of_which_any_is_killed_end_in_the_same_model(world: World, splits: Sequence[str]) -> None:
    """By the leader's death and by the follower's; with the folds and the training on everything after the search."""
    pytest.importorskip("accelerate")
    dataset, chance, kind = world.learn_from("protein", splits), random.Random(0), saving.BY_TWO.name
    settings = TINY | {"learning_rate": [3e-4, 1e-4], "num_train_epochs": 6, "folds": 2}
    spec = {"dataset": dataset, "method": "full", "base_model": "new:esm", "hyperparameters": settings}
    whole = world.ended(world.submit(kind, spec))
    job = world.submit(kind, spec)
    for victim in ("leader", "follower"):
        found = world.wait_for(job, _further(_attempts(world, job), 5), chance)
        assert found, "it ended before it could be killed"
        folder = world.engine.folder(found)
        leader = int((folder.path / "worker").read_text().split()[0])
        followers = _forks(leader)
        assert len(followers) == 1
        os.kill(leader if victim == "leader" else followers[0], signal.SIGKILL)
        world.wait_for(job, _after(found), chance)
        assert not folder.alive()
    killed = world.ended(job)
    assert killed.shrinks == 0
    assert _steps(killed) <= _steps(whole) + 2  # it did not begin anew
    assert world.card(killed).id == world.card(whole).id
    assert killed.result
    assert killed.result["report"]["cost"]["processes"] == 2


def _forks(of: int) -> list[int]:
    """Children of a process that have its own program."""
    program = Path(f"/proc/{of}/cmdline").read_bytes()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == of and (path / "cmdline").read_bytes() == program:
                found.append(int(path.name))
    return found


def _saved(folder: RunFolder, part: str) -> bool:
    return any((folder.checkpoints / part).glob("checkpoint-*"))


def test_progress_never_goes_back_from_part_to_part(workspace: Workspace) -> None:
    """Two kills without any would count as want of memory, and halve the micro-batch."""
    labels = [float(i % 7) for i in range(COUNT)]
    make_dataset(
        workspace, "data", "tabular", labels=labels, splits=thirds(COUNT, ["train", "test"]), **_data("tabular")
    )
    settings = TINY | {"learning_rate": [1e-3, 2e-3], "num_train_epochs": 2}
    train_now(
        workspace, "job-x", name="net", dataset="data", method="full", base_model="new:tab-resnet",
        hyperparameters=settings,
    )  # fmt: skip
    lines = (workspace.folders.runs / "job-x.1" / "progress.jsonl").read_text().splitlines()
    told = [line for line in map(json.loads, lines) if line["unit"] == "steps"]
    done = [line["done"] for line in told]
    assert done == sorted(set(done))
    assert {line["total"] for line in told} == {told[0]["total"]}
    assert done[-1] <= told[0]["total"]
    assert any("all examples" in line["message"] for line in told)


# The loop itself


class Pictures:
    """A backbone of a transformers model that reads `pixel_values`: pictures (C, H, W) or clips (T, C, H, W)."""

    modality, unit = "image", None

    def __init__(self, module: torch.nn.Module) -> None:
        self.module, self.base_model, self.width = module, "new:pictures", int(module.config.hidden_size)

    def prepare(self, media: Sequence[Any], *, per_unit: bool = False) -> list[Item]:
        return [{"pixels": medium} for medium in media]

    def length(self, item: Item) -> int:
        return len(item["pixels"])

    def collate(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        return {"pixels": torch.from_numpy(np.stack([item["pixels"] for item in items]))}

    def states(self, batch: dict[str, torch.Tensor]) -> States:
        sequence = self.module(pixel_values=batch["pixels"]).last_hidden_state
        return States(sequence, torch.ones(sequence.shape[:2], dtype=torch.bool), sequence.mean(1))

    def settings(self) -> dict[str, Any]:
        return {}

    def files(self) -> dict[str, bytes]:
        return {}


class Leaving:
    """Items at which the process is told to leave when they are taken for the `at`th time."""

    def __init__(self, items: Items, at: int) -> None:
        self._items, self._left, self.lengths = items, at, items.lengths

    def take(self, places: npt.NDArray[np.int64]) -> list[Item]:
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGTERM)
        return self._items.take(places)


SMALL = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
}  # fmt: skip
Module = Callable[[], Any]


VIDEO = (4, 3, 8, 8)


def _videomae() -> Any:
    from transformers import VideoMAEConfig, VideoMAEModel

    return VideoMAEModel(VideoMAEConfig(image_size=8, patch_size=4, num_frames=4, tubelet_size=2, **SMALL))


def _training(make: Module, shape: tuple[int, ...], leave_at: int = 0) -> Training:
    """24 examples of random pixels; what it makes is the same each time."""
    chance, targets = np.random.default_rng(0), np.arange(24) % 2
    media = list(chance.normal(targets.reshape(-1, *[1] * len(shape)), 1.0, (24, *shape)).astype(np.float32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = Pictures(make())
        head = torch.nn.Linear(backbone.width, 2)
    items = Leaving(PreparedItems(media, backbone.prepare, backbone.length), leave_at)
    parameters = LoopParameters(num_train_epochs=3, batch_size=6, per_device_train_batch_size=3, learning_rate=3e-3)
    return Training(backbone, head, TwoLabels(), items, targets, parameters, 0)


@functools.cache
def _whole() -> str:
    """The digest of VideoMAE trained at once."""
    whole = _training(_videomae, VIDEO)
    before = whole.digest()
    whole.run_until(whole.total)
    assert whole.digest() != before
    return whole.digest()


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_videomae_stopped_at_random_steps_ends_in_the_same_bits(tmp_path: Path, seed: int) -> None:
    chance, steps, total = random.Random(seed), [0], _training(_videomae, VIDEO).total
    while steps[-1] < total:
        learning = _training(_videomae, VIDEO, chance.randint(1, 8))  # two parts a step
        with contextlib.suppress(Stopped):
            durable_training.train_durably(new_run(tmp_path, len(steps)), learning)
        steps.append(learning.step)
    assert len(steps) > 3
    assert steps == sorted(steps)
    assert learning.digest() == _whole()


@pytest.mark.parametrize(
    "forgotten",
    ["nothing", "one weight", *(pytest.param(part, marks=pytest.mark.slow) for part in ("chance", "optimizer"))],
)
def test_whatever_is_not_restored_shows(forgotten: str) -> None:
    """The control: each part of a state is needed for the same bits."""
    first, again, fresh = [_training(_videomae, VIDEO) for _ in range(3)]
    first.run_until(STOP)
    facts, tensors = first.state()
    match forgotten:
        case "chance":
            facts["chance"] = fresh.random_states.state
        case "optimizer":
            tensors["optimizer"] = {name: torch.zeros_like(each) for name, each in tensors["optimizer"].items()}
        case "one weight":
            name = next(iter(tensors["weights"]))
            tensors["weights"] = {**tensors["weights"], name: fresh.state().tensors["weights"][name]}
    again.restore(TrainingState(facts, tensors))
    again.run_until(again.total)
    assert (again.digest() == _whole()) == (forgotten == "nothing")


# transformers' Trainer


STEPS = 12


def _vit() -> Any:
    from transformers import ViTConfig, ViTModel

    return ViTModel(ViTConfig(image_size=8, patch_size=4, **SMALL), add_pooling_layer=False)


class Resumed(NamedTuple):
    lost: list[str]
    """Parameters that were not what they had been at the stop, when the training went on."""
    exact: bool
    """Whether the end has the same bits as without the stop."""


def _with_trainer(folder: Path, *, mended: bool) -> Resumed:
    """Twelve steps at once, and five, a checkpoint and a new process's worth of objects for the rest.

    `mended`: the weights are read by `from_pretrained`, which knows that a ViT's names on disk are not those in memory.
    """
    from transformers import (
        Trainer,
        TrainerCallback,
        TrainingArguments,
        ViTConfig,
        ViTForImageClassification,
        set_seed,
    )

    chance = np.random.default_rng(0)
    examples = [
        {"pixel_values": torch.from_numpy(chance.normal(at % 2, 1, (3, 8, 8)).astype(np.float32)), "labels": at % 2}
        for at in range(24)
    ]

    class Mended(Trainer):
        def _load_from_checkpoint(self, checkpoint: str, model: Any = None) -> None:
            model = model or self.model
            model.load_state_dict(type(model).from_pretrained(checkpoint).state_dict(), strict=True)

    class Watch(TrainerCallback):
        """Stops after step `stop`, and keeps the weights that a training begins with."""

        def __init__(self, stop: int) -> None:
            self._stop = stop

        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            self.first = _weights(model)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == self._stop:
                control.should_save = control.should_training_stop = True

    def train(name: str, stop: int = 0, resume: bool = False) -> tuple[dict[str, bytes], dict[str, bytes]]:
        set_seed(0)
        model = ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, num_labels=2, **SMALL))
        arguments = TrainingArguments(
            str(folder / name), max_steps=STEPS, per_device_train_batch_size=6, learning_rate=3e-3, use_cpu=True,
            report_to="none", save_strategy="no", disable_tqdm=True, dataloader_pin_memory=False,
            remove_unused_columns=False,
        )  # fmt: skip
        watch = Watch(stop)
        trainer = (Mended if mended else Trainer)(model, arguments, train_dataset=examples, callbacks=[watch])
        trainer.train(resume_from_checkpoint=resume or None)
        return watch.first, _weights(trainer.model)

    _, whole = train("whole")
    _, left = train("stopped", stop=STOP)
    found, end = train("stopped", resume=True)
    return Resumed([name for name in left if left[name] != found[name]], end == whole)


def _weights(model: Any) -> dict[str, bytes]:
    return {name: each.detach().numpy().tobytes() for name, each in model.named_parameters()}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_stock_trainer_loses_weights_of_a_vit_where_the_loop_does_not(tmp_path: Path) -> None:
    import transformers

    pytest.importorskip("accelerate")
    ours, whole = [_training(_vit, (3, 8, 8)) for _ in range(2)]
    whole.run_until(whole.total)
    ours.run_until(STOP)
    Checkpoints(tmp_path / "ours").save(ours.state(), {})
    saved = Checkpoints(tmp_path / "ours").newest()
    assert saved
    again = _training(_vit, (3, 8, 8))
    again.restore(saved.state)
    again.run_until(again.total)
    assert again.digest() == whole.digest()

    assert _with_trainer(tmp_path / "mended", mended=True) == Resumed([], True)  # the comparison is fair
    stock = _with_trainer(tmp_path / "stock", mended=False)
    if stock == Resumed([], True):
        pytest.skip(f"transformers {transformers.__version__} restores a ViT's weights: its Trainer was mended")
    print(f"transformers {transformers.__version__}: {len(stock.lost)} weights not restored, and no error")
    assert stock.lost
    assert not stock.exact
