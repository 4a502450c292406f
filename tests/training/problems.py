"""The data of docs/training.md's table, by the words of its column `tried on`: small, real or made up, and no network.

Each goes through a real ingest. Made-up data have a rule that can be learned and noise that cannot.
"""

from __future__ import annotations

import csv
import io
import json
import wave
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import trimesh
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine

from speciate.modalities.geometry import ply, shape_descriptors
from speciate.workspace.workspace import Workspace
from tests.data import ingest
from tests.domains import lerobot_set, machine_parts
from tests.modalities import mesh_samples
from tests.modalities.nifti_samples import organ, packed, written
from tests.modalities.video_samples import DIRECTIONS, clip, encode
from tests.tasks import learning
from tests.tasks.learning import waves

Rows = list[dict[str, Any]]
_RATE = 16_000  # samples per second


class Problem(NamedTuple):
    """`make(workspace, folder, name)` registers the dataset; files may be written below `folder`."""

    make: Callable[[Workspace, Path, str], Any]
    terms: Mapping[str, Any] = {}
    """Hyperparameters that say what the task is, whatever the method."""
    learning: Mapping[str, Any] = {}
    """Hyperparameters of networks, where the test's own do not do."""
    by_base: Mapping[str, Mapping[str, Any]] = {}
    """The same for single base models."""


class Base(NamedTuple):
    """A model that a row goes on from: the method and the data of another row, or of one with other data."""

    task: str
    method: str
    base_model: str
    tried_on: str


def _generator() -> np.random.Generator:
    return np.random.default_rng(0)


def _dealt(rows: Rows) -> Rows:
    """Half learns, an eighth validates, the rest judges; nothing of it in order."""
    for place, row in enumerate(rows):
        row["split"] = "train" if place % 8 < 4 else "validation" if place % 8 == 4 else "test"
    return rows


def _rows(make: Callable[[], Rows], label: str | None, *inputs: str, **terms: Any) -> Problem:
    """Rows without splits of their own are dealt."""

    def register(workspace: Workspace, folder: Path, name: str) -> Any:
        made = make()
        rows = made if "split" in made[0] else _dealt(made)
        return ingest(workspace, name, rows=rows, label=label, inputs=inputs)

    return Problem(register, terms)


def _files(make: Callable[[], list[tuple[bytes, dict[str, Any]]]], suffix: str, **terms: Any) -> Problem:
    """Media with a `metadata.csv` of their columns."""

    def register(workspace: Workspace, folder: Path, name: str) -> Any:
        folder.mkdir(parents=True)
        rows = []
        for place, (data, columns) in enumerate(make()):
            (folder / f"{place:04}.{suffix}").write_bytes(data)
            rows.append({"file_name": f"{place:04}.{suffix}"} | columns)
        with (folder / "metadata.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return ingest(workspace, name, source=folder, label="label" if "label" in rows[0] else None)

    return Problem(register, terms)


# Texts

_TOPICS = {
    "sport": "football tennis goalkeeper marathon referee swimmer stadium coach hockey sprinter boxing league",
    "food": "bread soup cheese pasta salad butter pancake noodles omelette potato lemon chocolate",
    "money": "bank loan interest mortgage salary invoice tax currency pension dividend broker savings",
    "weather": "rain thunder snow hail drought breeze fog sunshine storm frost blizzard drizzle",
}
_FRAMES = (
    "we talked about the {} and the {} {}", "nobody expected the {} or the {} {}", "a story of {} and {} {}",
    "the {} came before the {} {}", "my aunt knows all about {} and {} {}", "first the {}, then the {} {}",
)  # fmt: skip
_PLACES = (
    "in the city", "at the harbour", "on the train", "in a small town", "in the mountains", "on the farm", "last year",
    "on Monday", "after lunch", "at noon", "with my brother", "in the evening",
)  # fmt: skip
_RANKS = {
    "awful": "awful terrible horrible dreadful disgusting",
    "poor": "poor weak dull clumsy boring",
    "decent": "decent fair acceptable solid reasonable",
    "superb": "superb excellent brilliant wonderful magnificent",
}
_NAMES = ("Ada", "Grace", "Alan", "Edsger", "Barbara", "Donald", "Margaret", "Linus", "Frances", "Radia", "Niklaus")
_CITIES = ("Paris", "Oslo", "Lima", "Cairo", "Delhi", "Kyoto", "Quito", "Perth", "Turin", "Ghent", "Porto", "Riga")


def _told(generator: np.random.Generator, words: Sequence[str]) -> str:
    """Of two of the words."""
    drawn = generator.choice(words, 2, replace=False)
    return str(generator.choice(_FRAMES)).format(*drawn, generator.choice(_PLACES))


def _topics(count: int = 320) -> Rows:
    generator, topics = _generator(), list(_TOPICS)
    drawn = [topics[place % 4] for place in generator.permutation(count)]
    return [{"text": _told(generator, _TOPICS[topic].split()), "label": topic} for topic in drawn]


def _few_topics() -> Rows:
    """Learned from the first words of each topic, asked about the others: who knows English is ahead."""
    generator, rows = _generator(), []
    for split, count, words in (
        ("train", 48, slice(0, 4)),
        ("validation", 24, slice(0, 8)),
        ("test", 160, slice(4, 12)),
    ):
        for place in range(count):
            topic = list(_TOPICS)[place % 4]
            text = _told(generator, _TOPICS[topic].split()[words])
            rows.append({"text": text, "label": topic, "split": split})
    return rows


def _topic_lists() -> Rows:
    generator, rows = _generator(), []
    for _ in range(320):
        topics = sorted(generator.choice(list(_TOPICS), int(generator.integers(0, 4)), replace=False).tolist())
        said = [f"{generator.choice(_TOPICS[topic].split())} {generator.choice(_PLACES)}" for topic in topics]
        rows.append({"text": ", ".join(["he said", *said, str(generator.choice(_PLACES))]), "topics": topics})
    return rows


def _graded() -> list[tuple[str, int]]:
    generator, made = _generator(), []
    for place in generator.permutation(320):
        rank = int(place) % 4
        words = [str(word) for word in generator.choice(list(_RANKS.values())[rank].split(), 2, replace=False)]
        thing = generator.choice(["film", "meal", "room", "book", "concert", "teacher"])
        made.append((f"a {words[0]} {thing} and {words[1]} company {generator.choice(_PLACES)}", rank))
    return made


def _ranked() -> Rows:
    return [{"text": text, "label": list(_RANKS)[rank]} for text, rank in _graded()]


def _rated() -> Rows:
    generator = _generator()
    return [
        {"text": text, "stars": round(1.0 + 3.0 * rank + float(generator.normal(0, 0.3)), 2)}
        for text, rank in _graded()
    ]


def _tagged() -> Rows:
    """Names and cities between words that are neither, some of them with a capital."""
    generator, rows = _generator(), []
    for _ in range(240):
        name, other = (str(each) for each in generator.choice(_NAMES, 2, replace=False))
        city = str(generator.choice(_CITIES))
        frame = str(generator.choice([
            "Yesterday NAME met NAME in CITY", "NAME left CITY before noon", "In CITY nobody knew NAME",
            "Then NAME wrote from CITY again", "CITY was cold and NAME stayed inside",
        ]))  # fmt: skip
        words, tags, names = [], [], iter((name, other))
        for word in frame.split():
            words.append(next(names) if word == "NAME" else city if word == "CITY" else word)
            tags.append({"NAME": "B-PER", "CITY": "B-LOC"}.get(word, "O"))
        rows.append({"text": " ".join(words), "tags": tags})
    return rows


# Proteins


def _peptides() -> Rows:
    """Antimicrobial ones and others, from modlamp where that is installed; else some rich in K and R, and others."""
    generator = _generator()
    try:
        from modlamp.datasets import load_AMPvsUniProt
    except ImportError:
        letters = {"antimicrobial": "KRKRWLFIGA", "other": "DESTNQGAVP"}
        return [
            {"sequence": "".join(generator.choice(list(letters[kind]), int(generator.integers(12, 30)))), "label": kind}
            for kind in list(letters) * 200
        ]
    data = load_AMPvsUniProt()
    short = [place for place, sequence in enumerate(data.sequences) if 10 <= len(sequence) <= 40]
    kept = generator.choice(short, min(480, len(short)), replace=False)
    return [
        {"sequence": data.sequences[place], "label": "antimicrobial" if data.target[place] else "other"}
        for place in kept
    ]


def _residues(generator: np.random.Generator, length: int) -> list[str]:
    return [str(letter) for letter in generator.choice(list("ACDEFGHIKLMNPQRSTVWY"), length)]


def _tailed() -> Rows:
    """Whether a peptide carries a motif of three residues anywhere."""
    generator, rows = _generator(), []
    for place in range(320):
        residues = _residues(generator, int(generator.integers(12, 24)))
        if place % 2:
            start = int(generator.integers(0, len(residues) - 3))
            residues[start : start + 3] = "KRK"
        rows.append({"sequence": "".join(residues), "label": "tailed" if place % 2 else "bare"})
    return [rows[place] for place in generator.permutation(len(rows))]


def _charged() -> Rows:
    """A tag a residue: its charge."""
    generator, rows = _generator(), []
    for _ in range(160):
        residues = _residues(generator, int(generator.integers(15, 30)))
        tags = ["+" if residue in "KR" else "-" if residue in "DE" else "o" for residue in residues]
        rows.append({"sequence": "".join(residues), "charges": "".join(tags)})
    return rows


# Pictures


def _png(pixels: npt.NDArray[Any]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def _digits(kept: Sequence[int], count: int) -> list[tuple[bytes, dict[str, Any]]]:
    """scikit-learn's handwritten digits, 8 x 8."""
    digits = load_digits()
    places = np.flatnonzero(np.isin(digits.target, kept))[:count]
    return [(_png(digits.images[place] * 15), {"label": f"digit {digits.target[place]}"}) for place in places]


def _shapes(count: int) -> list[tuple[bytes, dict[str, Any]]]:
    made = learning.images(count, 0)
    return [
        (_png(pixels), {"label": json.dumps(sorted({each["category"] for each in objects}))})
        for pixels, objects in made
    ]


def _noise(generator: np.random.Generator) -> npt.NDArray[np.int64]:
    return generator.integers(60, 120, (24, 24))


def _dots() -> list[tuple[bytes, dict[str, Any]]]:
    """One to four bright dots on noise."""
    generator, made = _generator(), []
    for place in range(320):
        pixels, count = _noise(generator), place % 4 + 1
        for cell in generator.choice(9, count, replace=False):
            y, x = 8 * (cell // 3) + generator.integers(1, 4), 8 * (cell % 3) + generator.integers(1, 4)
            pixels[y : y + 4, x : x + 4] = 240
        made.append((_png(pixels), {"label": ("one", "two", "three", "four")[count - 1]}))
    return made


def _bars() -> list[tuple[bytes, dict[str, Any]]]:
    """A bright bar on noise; its height in pixels, with half a pixel of noise."""
    generator, made = _generator(), []
    for _ in range(320):
        pixels, height, x = _noise(generator), int(generator.integers(2, 23)), int(generator.integers(2, 18))
        pixels[24 - height :, x : x + 4] = 240
        made.append((_png(pixels), {"label": round(height + float(generator.normal(0, 0.5)), 3)}))
    return made


def _scratched() -> list[tuple[bytes, dict[str, Any]]]:
    """Smooth surfaces; every eighth has a scratch."""
    generator, made = _generator(), []
    for place in range(320):
        rows, columns = np.mgrid[:24, :24] / 24
        slope = generator.uniform(-30, 30, 2)
        pixels = 130 + slope[0] * rows + slope[1] * columns + generator.normal(0, 4, (24, 24))
        if place % 4 == 0:
            start = generator.integers(3, 14)
            for step in range(8):
                pixels[start + step, (start + 2 * step) % 22] = 20
        made.append((_png(pixels.clip(0, 255)), {"label": "scratched" if place % 4 == 0 else "smooth"}))
    return made


def _coco(count: int) -> Problem:
    """Squares and discs in colours, one to three a picture, with boxes and outlines as COCO has them."""

    def register(workspace: Workspace, folder: Path, name: str) -> Any:
        folder.mkdir(parents=True)
        images: Rows = []
        annotations: Rows = []
        kinds = {"disc": 1, "square": 2}
        for place, (pixels, objects) in enumerate(learning.images(count, 0)):
            (folder / f"{place:04}.png").write_bytes(_png(pixels))
            height, width = pixels.shape[:2]
            images.append({"id": place, "file_name": f"{place:04}.png", "height": height, "width": width})
            annotations += [
                {"id": len(annotations) + one, "image_id": place, "category_id": kinds[each["category"]],
                 "bbox": each["bbox"], "segmentation": each["segmentation"], "iscrowd": 0}
                for one, each in enumerate(objects)
            ]  # fmt: skip
        categories = [{"id": number, "name": kind} for kind, number in kinds.items()]
        coco = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "annotations.json").write_text(json.dumps(coco))
        return ingest(workspace, name, source=folder)

    return Problem(register)


# Volumes


def _bodies(count: int = 240) -> list[tuple[bytes, dict[str, Any]]]:
    """A ball or a box of the same volume in noise, of many brightnesses, somewhere in 20 x 20 x 14 voxels."""
    generator, made = _generator(), []
    for place in range(count):
        kind = ("ball", "box")[place % 2]
        apart = np.abs(np.indices((20, 20, 14)) - generator.uniform((8, 8, 6), (12, 12, 8)).reshape(3, 1, 1, 1))
        radius = generator.uniform(4, 5.5)
        inside = np.square(apart).sum(0) < radius**2 if kind == "ball" else apart.max(0) < 0.806 * radius
        voxels = generator.uniform(50, 90) * inside + generator.normal(0, 12, inside.shape)
        made.append((packed(written(voxels.round().astype(np.int16))), {"label": kind}))
    return made


def _deep_digits() -> list[tuple[bytes, dict[str, Any]]]:
    """Handwritten digits as rods through 12 slices, which fade towards both ends, in noise."""
    generator, made = _generator(), []
    digits = load_digits()
    for place in np.flatnonzero(np.isin(digits.target, range(5, 10)))[:300].tolist():
        depth = 1 - np.abs(np.arange(12) - generator.uniform(4, 7)) / 12
        voxels = digits.images[place].T[..., np.newaxis] * 15 * depth + generator.normal(0, 8, (8, 8, 12))
        made.append((packed(written(voxels.round().astype(np.int16))), {"label": f"digit {digits.target[place]}"}))
    return made


def outlined(count: int) -> Problem:
    """Organs with lesions and their masks, in the folders of the Medical Segmentation Decathlon."""

    def register(workspace: Workspace, folder: Path, name: str) -> Any:
        for place in range(count):
            made = organ(place, side=20)
            for kind, voxels in (("imagesTr", made.voxels), ("labelsTr", made.labels)):
                (folder / kind).mkdir(parents=True, exist_ok=True)
                (folder / kind / f"{place:03}.nii.gz").write_bytes(packed(written(voxels)))
        labels = {"0": "background", "1": "organ", "2": "lesion"}
        (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
        return ingest(workspace, name, source=folder)

    return Problem(register)


# Sounds


def _wav(sound: npt.NDArray[Any]) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE)
        file.writeframes((32_000 * np.clip(sound, -1, 1)).astype("<i2").tobytes())
    return out.getvalue()


def _tone(generator: np.random.Generator, pitch: Any, seconds: float) -> npt.NDArray[np.float64]:
    """`pitch` in Hz, a number or from one to another."""
    count = int(seconds * _RATE)
    ends = np.broadcast_to(pitch, 2)
    phase = 2 * np.pi * np.cumsum(np.linspace(ends[0], ends[1], count)) / _RATE
    faded = np.minimum(1, np.minimum(np.arange(count), np.arange(count)[::-1]) / 160)
    sound: npt.NDArray[np.float64] = 0.4 * faded * np.sin(phase + generator.uniform(0, 7))
    return sound + generator.normal(0, 0.02, count)


def _sounds() -> list[tuple[bytes, dict[str, Any]]]:
    """Tones that stay, rise or fall, and hiss."""
    generator, made = _generator(), []
    for place in range(240):
        kind = ("steady", "rising", "falling", "hiss")[place % 4]
        low, high = generator.uniform(300, 700), generator.uniform(1200, 2500)
        ends = {"steady": (low, low), "rising": (low, high), "falling": (high, low), "hiss": (low, low)}[kind]
        sound = _tone(generator, ends, 0.4)
        if kind == "hiss":
            sound = generator.normal(0, generator.uniform(0.05, 0.2), len(sound))
        made.append((_wav(sound), {"label": kind}))
    return made


def _directions(count: int = 240) -> list[tuple[bytes, dict[str, Any]]]:
    """Whither a disc moves, which no single frame tells."""
    names = [*DIRECTIONS]
    speeds = _generator().uniform(1.5, 3, count)
    return [
        (clip(place, (speed * DIRECTIONS[name][0], speed * DIRECTIONS[name][1])), {"label": name})
        for place, speed in enumerate(speeds.tolist())
        for name in (names[(place * 5 + place // 8) % 4],)
    ]


def _moving_digits() -> list[tuple[bytes, dict[str, Any]]]:
    """Digits that tremble: in each frame elsewhere."""
    made, generator = [], _generator()
    digits = load_digits()
    for place in np.flatnonzero(np.isin(digits.target, range(5, 10)))[:300].tolist():
        pixels = np.kron(digits.images[place] * 15, np.ones((4, 4))).astype(np.uint8)[..., np.newaxis].repeat(3, axis=2)
        frames = [np.roll(pixels, generator.integers(-3, 4, 2), axis=(0, 1)) for _ in range(8)]
        made.append((encode(frames, crf="20"), {"label": f"digit {digits.target[place]}"}))
    return made


def _pairs_of_directions(count: int = 240) -> list[tuple[bytes, dict[str, Any]]]:
    """Whither two discs move: one to a side, one up or down, or only one of them."""
    generator, found = _generator(), list[tuple[bytes, dict[str, Any]]]()
    for place in range(count):
        aside, upright = generator.choice(["right", "left"]), generator.choice(["up", "down"])
        names = [[aside], [upright], [aside, upright]][int(generator.integers(3))]
        ways = [(2 * DIRECTIONS[name][0], 2 * DIRECTIONS[name][1]) for name in names]
        found.append((clip(place, *ways), {"label": "|".join(names)}))
    return found


def _speeds(count: int = 200) -> list[tuple[bytes, dict[str, Any]]]:
    """How fast a disc moves to the right, in pixels a frame."""
    speeds = _generator().uniform(0.5, 3, count).round(3).tolist()
    return [(clip(place, (speed, 0)), {"label": speed}) for place, speed in enumerate(speeds)]


def _paces() -> list[tuple[bytes, dict[str, Any]]]:
    def word(speed: float) -> str:
        return "slow" if speed < 1.2 else "steady" if speed < 2.1 else "fast"

    return [(data, {"label": word(row["label"])}) for data, row in _speeds()]


def _halted() -> list[tuple[bytes, dict[str, Any]]]:
    """Discs that move to the right, and a few that jump back and forth."""
    speeds = _generator().uniform(1.5, 3, 200).tolist()
    return [
        (clip(place, (24.0 if place % 5 == 4 else speed, 0)), {"label": "jumps" if place % 5 == 4 else "moves"})
        for place, speed in enumerate(speeds)
    ]


def _pitched() -> list[tuple[bytes, dict[str, Any]]]:
    """Steady tones; their pitch in octaves above 200 Hz."""
    generator, made = _generator(), []
    for _ in range(200):
        octaves = float(generator.uniform(0, 3))
        made.append((_wav(_tone(generator, 200 * 2**octaves, 0.4)), {"label": round(octaves, 4)}))
    return made


_SPELT = {"a": 400.0, "b": 1000.0, "c": 2500.0}


def _spoken() -> list[tuple[bytes, dict[str, Any]]]:
    """Words of which each letter is a tone, and each space a silence."""
    generator, made = _generator(), []
    for _ in range(240):
        words = ["".join(generator.choice(list(_SPELT), int(generator.integers(1, 3)))) for _ in range(2)]
        text, parts = " ".join(words), []
        for letter in text:
            seconds = float(generator.uniform(0.1, 0.14))
            if letter == " ":
                parts.append(generator.normal(0, 0.02, int(seconds * _RATE)))
            else:
                parts.append(_tone(generator, _SPELT[letter] * generator.uniform(0.95, 1.05), seconds))
            parts.append(generator.normal(0, 0.02, int(0.03 * _RATE)))
        made.append((_wav(np.concatenate(parts)), {"text": text}))
    return made


# Series


def _periodic(generator: np.random.Generator, period: float, form: str = "sine", steps: int = 64) -> list[float]:
    turns = np.arange(steps) / period + generator.uniform(0, 1)
    shape = {
        "sine": np.sin(2 * np.pi * turns), "square": np.sign(np.sin(2 * np.pi * turns)), "saw": 2 * (turns % 1) - 1,
    }[form]  # fmt: skip
    made: list[float] = np.round(shape + generator.normal(0, 0.2, steps), 4).tolist()
    return made


def _forms() -> Rows:
    generator = _generator()
    forms = [("sine", "square", "saw")[place % 3] for place in generator.permutation(300)]
    return [{"values": _periodic(generator, generator.uniform(8, 20), form), "label": form} for form in forms]


def _periods() -> Rows:
    generator = _generator()
    periods = [round(float(each), 3) for each in generator.uniform(6, 24, 300)]
    return [{"values": _periodic(generator, period), "period": period} for period in periods]


def _waves() -> Rows:
    return [{"left": one[0].tolist(), "right": one[1].tolist()} for one in waves(160, 0)]


def _rising() -> Rows:
    """A trend with a season of twelve steps: neither the last step nor the last season is what comes next."""
    generator, steps, rows = _generator(), np.arange(60), []
    for _ in range(160):
        season = np.sin(2 * np.pi * steps / 12 + generator.uniform(0, 7)) * generator.uniform(0.5, 2)
        values = generator.normal(0, 20) + generator.uniform(-0.5, 0.5) * steps + season
        rows.append({"values": np.round(values + generator.normal(0, 0.1, 60), 4).tolist()})
    return rows


def _bursts() -> Rows:
    """Sines; every fourth has four steps of another rhythm."""
    generator, rows = _generator(), []
    for place in generator.permutation(320):
        values = np.array(_periodic(generator, generator.uniform(12, 16)))
        if place % 4 == 0:
            start = int(generator.integers(0, 48))
            values[start : start + 12] += 1.5 * (-1.0) ** np.arange(12)
        rows.append({"values": values.tolist(), "label": "burst" if place % 4 == 0 else "calm"})
    return rows


def _signals() -> Rows:
    """MNIST-1D: the shapes of ten digits, shifted, stretched, sheared and noisy."""
    from mnist1d.data import get_dataset_args, make_dataset  # slow to import: matplotlib

    wanted = get_dataset_args()
    wanted.num_samples = 2000
    made = make_dataset(wanted)
    signals, digits = np.concatenate([made["x"], made["x_test"]]), np.concatenate([made["y"], made["y_test"]])
    return [
        {"values": np.round(signal, 4).tolist(), "label": f"digit {digit}"}
        for signal, digit in zip(signals, digits, strict=True)
    ]


# Tables


def _table(loaded: Any, label: Callable[[Any], Any], column: str) -> Rows:
    order = _generator().permutation(len(loaded.target))
    names = [str(name).replace(" ", "_").replace("/", "_") for name in loaded.feature_names]
    return [
        dict(zip(names, map(float, loaded.data[place]), strict=True)) | {column: label(loaded.target[place])}
        for place in order
    ]


def _tumours() -> Rows:
    return _table(load_breast_cancer(), lambda target: ("malignant", "benign")[target], "label")


def _progression() -> Rows:
    """Five ranks of how diabetes went on."""
    loaded = load_diabetes()
    bounds = np.quantile(loaded.target, [0.25, 0.5, 0.75])
    ranks = ("little", "some", "much", "most")
    return _table(loaded, lambda target: ranks[int(np.digitize(target, bounds))], "label")


def _acted(*, sight: bool) -> Problem:
    """Demonstrations of a scripted expert, whose hand trembles; `sight`: the camera alone knows where to go."""

    def register(workspace: Workspace, folder: Path, name: str) -> Any:
        source = lerobot_set.write(folder, lerobot_set.demonstrations(range(48), sight=sight, noise=0.3))
        return ingest(workspace, name, source=str(source))

    return Problem(register, learning={"num_train_epochs": 25, "batch_size": 16})


# Forms


def _scanned(part: trimesh.Trimesh, chance: np.random.Generator) -> trimesh.Trimesh:
    """Rough, turned and moved anyhow, of any size."""
    return machine_parts.turned(machine_parts.rough(part, chance, 0.002), chance, chance.uniform(0.5, 2))


def _families(*, as_clouds: bool = False) -> list[tuple[bytes, dict[str, Any]]]:
    chance, names, made = _generator(), list(machine_parts.FAMILIES), []
    for place in range(240):
        found = _scanned(machine_parts.FAMILIES[names[place % 6]](chance), chance)
        if as_clouds:
            points = shape_descriptors.sampled(np.asarray(found.triangles), 800, place).points
            data = ply.encode(points + chance.normal(0, 0.01 * found.scale, points.shape).astype(np.float32))
        else:
            data = mesh_samples.exported(found, "stl")
        made.append((data, {"label": names[place % 6]}))
    return made


def _bolts(label: Callable[[float], Any]) -> list[tuple[bytes, dict[str, Any]]]:
    """By how slender the shaft is: its length over its radius."""
    chance, made = _generator(), []
    for _ in range(240):
        radius, length = chance.uniform(0.25, 0.5), chance.uniform(2.0, 5.0)
        found = _scanned(
            machine_parts.bolt_of(radius, length, chance.uniform(0.6, 1.4), chance.uniform(0.3, 0.9)), chance
        )
        made.append((mesh_samples.exported(found, "stl"), {"label": label(length / radius)}))
    return made


def _together() -> list[tuple[bytes, dict[str, Any]]]:
    """One to three kinds of parts in one mesh, beside one another."""
    chance, made = _generator(), []
    for _ in range(240):
        names = sorted(chance.choice(["bolt", "gear", "spring"], chance.integers(1, 4), replace=False).tolist())
        there = [
            machine_parts.FAMILIES[name](chance).apply_translation([4 * at, 0, 0]) for at, name in enumerate(names)
        ]
        found = _scanned(trimesh.util.concatenate(there), chance)
        made.append((mesh_samples.exported(found, "stl"), {"label": json.dumps(names)}))
    return made


def _bent() -> list[tuple[bytes, dict[str, Any]]]:
    """Bolts; every fourth is bent."""
    chance, made = _generator(), []
    for place in range(240):
        found = machine_parts.bolt(chance).subdivide().subdivide()
        if place % 4 == 0:
            found.vertices[:, 0] += 0.12 * found.vertices[:, 2] ** 2
        data = mesh_samples.exported(_scanned(found, chance), "stl")
        made.append((data, {"label": "bent" if place % 4 == 0 else "straight"}))
    return made


PROBLEMS: dict[str, Problem] = {
    "topics": _rows(_topics, "label", "text"),
    "topics in unseen words": _rows(_few_topics, "label", "text"),
    "lists of topics": _rows(_topic_lists, "topics", "text"),
    "grades": _rows(_ranked, "label", "text", order=list(_RANKS)),
    "stars": _rows(_rated, "stars", "text"),
    "names and cities": _rows(_tagged, "tags", "text"),
    "peptides": _rows(_peptides, "label", "sequence"),
    "a motif": _rows(_tailed, "label", "sequence"),
    "charges": _rows(_charged, "charges", "sequence"),
    "digits": _files(lambda: _digits(range(10), 700), "png"),
    "digits 0 to 4": _files(lambda: _digits(range(5), 500), "png"),
    "digits 5 to 9": _files(lambda: _digits(range(5, 10), 300), "png"),
    "which shapes": _files(lambda: _shapes(320), "png"),
    "number of dots": _files(_dots, "png", order=["one", "two", "three", "four"]),
    "heights of bars": _files(_bars, "png"),
    "scratches": _files(_scratched, "png", positive_label="scratched"),
    "squares and discs": _coco(240)._replace(
        learning={"num_train_epochs": 6, "batch_size": 8}, by_base={"vit-of-boxes@v1": {"num_train_epochs": 3}}
    ),
    "balls and boxes": _files(_bodies, "nii.gz")._replace(learning={"batch_size": 16}),
    "digits in depth": _files(_deep_digits, "nii.gz"),
    "outlines of organs": outlined(72)._replace(learning={"batch_size": 6, "num_train_epochs": 10}),
    "sounds": _files(_sounds, "wav")._replace(by_base={"new:wav2vec2": {"num_train_epochs": 5}}),
    "pitches": _files(_pitched, "wav"),
    "words in tones": _files(_spoken, "wav")._replace(learning={"batch_size": 8, "num_train_epochs": 15}),
    "directions": _files(_directions, "mp4")._replace(by_base={"new:videomae": {"num_train_epochs": 40,
    "early_stopping_patience": 40}}),
    "digits that tremble": _files(_moving_digits, "mp4"),
    "directions of two": _files(_pairs_of_directions, "mp4"),
    "speeds": _files(_speeds, "mp4"),
    "paces": _files(_paces, "mp4", order=["slow", "steady", "fast"]),
    "jumps": _files(_halted, "mp4", positive_label="jumps"),
    "forms of waves": _rows(_forms, "label", "values"),
    "periods": _rows(_periods, "period", "values"),
    "signals": _rows(_signals, "label", "values"),
    "waves": _rows(_waves, None, "left", "right"),
    "trend and season": _rows(_rising, None, "values", horizon=6)._replace(learning={"num_train_epochs": 6}),
    "ways to a mark": _acted(sight=False),
    "ways to a mark by sight": _acted(sight=True),
    "bursts": _rows(_bursts, "label", "values", positive_label="burst"),
    "families of parts": _files(_families, "stl"),
    "families of clouds": _files(lambda: _families(as_clouds=True), "ply"),
    "slender bolts": _files(lambda: _bolts(lambda slender: round(slender, 3)), "stl"),
    "ranks of bolts": _files(
        lambda: _bolts(lambda slender: "short" if slender < 7 else "medium" if slender < 11 else "long"), "stl",
        order=["short", "medium", "long"],
    ),
    "what lies together": _files(_together, "stl"),
    "bent bolts": _files(_bent, "stl", positive_label="bent"),
    "breast cancer": _rows(_tumours, "label"),
    "malignant among benign": _rows(_tumours, "label", positive_label="malignant"),
    "wine": _rows(lambda: _table(load_wine(), lambda t: f"cultivar {t}", "label"), "label"),
    "diabetes": _rows(lambda: _table(load_diabetes(), float, "progression"), "progression"),
    "ranks of diabetes": _rows(_progression, "label", order=["little", "some", "much", "most"]),
}  # fmt: skip

BASES = {
    "vit-of-digits@v1": Base("image-classification", "full", "new:vit", "digits 0 to 4"),
    "esm-of-peptides@v1": Base("protein-classification", "full", "new:esm", "peptides"),
    "vit-of-boxes@v1": Base("object-detection", "full", "new:vit", "squares and discs"),
}
"""Base models of the table that are trained here first."""
