"""The loop in five modalities, alone: one sentence and a folder each, then production changes in waves.

    python evals/loop_modalities.py [MODALITY ...] [--seeds N] [--days N] [--out FILE.jsonl]

For each modality and seed: `define_use_case` by a sentence and a target, `create_dataset` of a folder,
`specialize`, then a watch with `action=auto` that nobody touches again. The clock is set, jobs are real (monitoring,
too). A person answers 30 labels a day, and nothing else. Two weeks of the first source, then waves of a second one
(a quarter, half, three quarters of what is asked, a week each), then it alone.

Data, all from installed packages: letters drawn in matplotlib's fonts (images; sans, then serif and italic), xkcd's
named colours (a table; daylight, then a dim yellow lamp), lines of source code by language (text; whole lines, then
fragments in small letters), pendulums of gymnasium under four controllers (series; earth, then the moon with coarse
sensors), the components of structures in biotite (molecules; small, then large ones).

Measured on fresh rows that nobody was asked about, 400 of each source: before, after the change, at the end. A
promotion is a false "better" where the new version is right less often on rows of production than the one before.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from speciate.loop.watch import rows
from speciate.loop.watch.definition import Policy, Trigger
from speciate.predictions.label_queue import next_labels
from speciate.serving.predict import Input
from speciate.tools.datasets import create_dataset
from speciate.tools.predictions import Predictions, predict, record_feedback
from speciate.tools.training import specialize
from speciate.tools.use_cases import define_use_case
from speciate.tools.watches import watch_use_case
from speciate.use_cases import Objective
from tests.loop.watch import digits
from tests.loop.watch.digits import Loop

DAY = 86_400.0
QUIET, A_DAY, LABELS_A_DAY, FRESH = 14, 40, 30, 400
WAVES = (0.25, 0.5, 0.75)
"""Share of the second source in the weeks after the quiet ones; 1 from then on."""
Rng = np.random.Generator


class Example(NamedTuple):
    value: Any
    """A text, a row, or a file."""
    label: str


class Scenario(NamedTuple):
    modality: str
    task: str
    sentence: str
    target: float
    rows: int
    """Of the folder."""
    make: Callable[[Path, Rng, int, bool], list[Example]]
    """(folder for files, chance, how many, whether of the second source) -> examples."""
    inputs: tuple[str, ...]
    """Columns of the table in the folder; () where it has files."""


# Data


def letters(folder: Path, rng: Rng, count: int, second: bool) -> list[Example]:
    """28 x 28, a letter in a font, moved and grained."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    first = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSansMono-Bold", "cmss10")
    other = ("STIXGeneralItalic", "STIXGeneralBolIta", "DejaVuSerif-BoldItalic", "cmti10", "DejaVuSerif-Italic")
    found: list[Example] = []
    for place in range(count):
        letter = "aehkmnrstz"[int(rng.integers(10))]
        name = (other if second else first)[int(rng.integers(5))]
        font = ImageFont.truetype(str(fonts / f"{name}.ttf"), int(rng.integers(16, 23)))
        image = Image.new("L", (28, 28), 255)
        ImageDraw.Draw(image).text(
            (14 + int(rng.integers(-3, 4)), 14 + int(rng.integers(-3, 4))), letter, fill=0, font=font, anchor="mm"
        )
        pixels = np.asarray(image, np.float64) + rng.normal(0, 18, (28, 28))
        path = folder / f"{'second' if second else 'first'}-{rng.integers(1 << 40):010x}-{place}.png"
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
        found.append(Example(path, letter))
    return found


def colours(folder: Path, rng: Rng, count: int, second: bool) -> list[Example]:
    """Red, green and blue as a sensor counts them, and the colour's last word as people named it."""
    import matplotlib.colors

    families = ("green", "blue", "pink", "purple", "brown", "yellow", "red", "grey", "orange")
    named = [(matplotlib.colors.to_rgb(code), name.split(":")[1].split()[-1])
             for name, code in sorted(matplotlib.colors.XKCD_COLORS.items())]  # fmt: skip
    known = [(np.array(rgb), word) for rgb, word in named if word in families]
    lamp = np.array([0.75, 0.6, 0.25]) if second else np.ones(3)
    found: list[Example] = []
    for place in rng.integers(len(known), size=count):
        rgb, word = known[place]
        seen = np.clip(rgb * lamp + rng.normal(0, 0.012, 3), 0, 1) * 4095
        found.append(Example({name: int(value) for name, value in zip(("r", "g", "b"), seen, strict=True)}, word))
    return found


def code(folder: Path, rng: Rng, count: int, second: bool) -> list[Example]:
    """A line of a file that lies in an installed package, and its language."""
    if not _LINES:
        packages = Path(np.__file__).parents[1]
        languages = {"python": "sklearn/**/*.py", "cpp": "torch/include/ATen/**/*.h", "cmake": "torch/share/**/*.cmake",
                     "javascript": "**/*.js", "html": "**/*.html"}  # fmt: skip
        for language, pattern in languages.items():
            lines: dict[str, None] = {}
            for path in sorted(packages.glob(pattern))[:150]:
                if path.stat().st_size < 1 << 20:
                    text = path.read_text(errors="ignore").splitlines()
                    lines |= dict.fromkeys(line.strip()[:200] for line in text if len(line.strip()) >= 24)
            _LINES[language] = list(lines)[:4000]
    found: list[Example] = []
    for _ in range(count):
        language = list(_LINES)[int(rng.integers(len(_LINES)))]
        line = _LINES[language][int(rng.integers(len(_LINES[language])))]
        if second:
            begin = int(rng.integers(0, max(1, len(line) - 24)))
            line = re.sub(r"\d+", "0", line[begin : begin + 24]).lower()
        found.append(Example(line if line.strip() else "0", language))
    return found


_LINES: dict[str, list[str]] = {}


def pendulums(folder: Path, rng: Rng, count: int, second: bool) -> list[Example]:
    """48 steps of cos, sin and speed of a pendulum; which of four controllers drove it."""
    import gymnasium

    env = gymnasium.make("Pendulum-v1", g=1.6 if second else 9.8)
    found: list[Example] = []
    for place in range(count):
        kind = ("still", "waves", "noise", "damper")[int(rng.integers(4))]
        state, _ = env.reset(seed=int(rng.integers(1 << 30)))
        phase, period = rng.uniform(0, 6.28), rng.uniform(4, 9)
        steps: list[list[float]] = []
        for step in range(48):
            force = {"still": 0.0, "waves": 2 * np.sin(phase + step * 6.28 / period), "noise": rng.uniform(-2, 2),
                     "damper": -0.6 * state[2]}[kind]  # fmt: skip
            state, *_ = env.step(np.array([force], np.float32))
            steps.append([float(value) for value in state + rng.normal(0, 0.03, 3)])
        if second:
            steps = [[round(value * 4) / 4 for value in each] for each in steps]
        path = folder / f"{'second' if second else 'first'}-{rng.integers(1 << 40):010x}-{place}.csv"
        lines = ["c,s,speed", *(",".join(f"{value:.4f}" for value in each) for each in steps)]
        path.write_text("\n".join(lines) + "\n")
        found.append(Example(path, kind))
    env.close()
    return found


def components(folder: Path, rng: Rng, count: int, second: bool) -> list[Example]:
    """SMILES of a component of structures, and what it is."""
    pool = [each for each in _components() if (each[2] > _SMALL_ATOMS) == second]
    kinds = sorted({kind for _, kind, _ in pool})
    found: list[Example] = []
    for place in rng.integers(len(kinds), size=count):
        same = [each for each in pool if each[1] == kinds[place]]
        text, kind, _ = same[int(rng.integers(len(same)))]
        found.append(Example(text, kind))
    return found


_SMALL_ATOMS = 22
"""Heavy atoms of the largest small one; below 20 there are hardly any nucleotides."""


_COMPONENTS: list[tuple[str, str, int]] = []
_EACH = 500
"""Components of each kind: reading one takes a tenth of a second."""


def _components() -> list[tuple[str, str, int]]:
    if _COMPONENTS:
        return _COMPONENTS
    import biotite.structure.info as info
    from biotite.interface.rdkit import to_mol
    from rdkit import Chem, RDLogger

    RDLogger.DisableLog("rdApp.*")
    kinds = {"amino-acid": info.amino_acid_names(), "nucleotide": info.nucleotide_names(),
             "carbohydrate": info.carbohydrate_names()}  # fmt: skip
    for kind, names in kinds.items():
        for name in sorted(names)[:: max(1, len(names) // _EACH)]:
            try:
                molecule = Chem.RemoveHs(to_mol(info.residue(name)))
                text = Chem.MolToSmiles(molecule)
            except Exception:  # noqa: BLE001 - a component that RDKit cannot hold is none of ours
                continue
            if 4 <= molecule.GetNumHeavyAtoms() <= 60 and "." not in text:
                _COMPONENTS.append((text, kind, molecule.GetNumHeavyAtoms()))
    return _COMPONENTS


SCENARIOS = (
    Scenario("image", "image-classification", "Tell which letter a scanned label shows; right in 85 of 100.", 0.85,
             700, letters, ()),
    Scenario("tabular", "tabular-classification", "Name the colour that a sensor counted as people would; right in "
             "65 of 100.", 0.65, 900, colours, ("r", "g", "b")),
    Scenario("text", "text-classification", "Say in which language a line of source code is written; right in 70 of "
             "100.", 0.7, 1200, code, ("line",)),
    Scenario("time-series", "time-series-classification", "Say how a pendulum is driven; right in 70 of 100.", 0.7,
             500, pendulums, ()),
    Scenario("molecule", "molecule-classification", "Say what kind of component a molecule is; right in 75 of 100.",
             0.75, 900, components, ("smiles",)),
)  # fmt: skip


# A life


class Life(NamedTuple):
    modality: str
    seed: int
    target: float
    first_before: float
    second_before: float
    """Of the first model, on each source."""
    first_after: float
    second_after: float
    promotions: int
    false_better: int
    labels: int
    episodes: tuple[str, ...]
    met: bool
    """Whether the target holds on what production is asked at the end."""
    cpu_seconds: float
    method: str


class Watched(Loop):
    """A use case of any modality, with everything that a daemon would do for it."""

    def __init__(self, loop: Loop, scenario: Scenario, folder: Path, seed: int) -> None:
        super().__init__(loop.app, loop.clock)
        self.scenario, self.folder, self.name = scenario, folder, scenario.modality
        self.rng = np.random.default_rng([seed, 5])
        self.files = folder / "asked"
        self.files.mkdir()

    def input_of(self, value: Any) -> Input:
        if isinstance(value, Path):
            return Input(path=str(value))
        return Input(row=value) if isinstance(value, dict) else Input(text=value)

    def begin(self, budget: float) -> str:
        """One sentence and a folder; what serves, or an error."""
        scenario, source = self.scenario, self.folder / "data"
        source.mkdir()
        examples = scenario.make(source, self.rng, scenario.rows, False)
        if scenario.inputs:
            with (source / "rows.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow([*scenario.inputs, "answer"])
                for value, label in examples:
                    cells = list(value.values()) if isinstance(value, dict) else [value]
                    writer.writerow([*cells, label])
            made = create_dataset(
                self.app, f"{self.name}-rows", source=str(source / "rows.csv"), label="answer",
                inputs=list(scenario.inputs), modality=scenario.modality,
            )  # fmt: skip
        else:
            for path, label in examples:
                (source / label).mkdir(exist_ok=True)
                path.rename(source / label / path.name)
            made = create_dataset(
                self.app, f"{self.name}-rows", source=str(source), label="folder", modality=scenario.modality
            )
        self.ended(made)
        define_use_case(
            self.app, self.name, scenario.task, Objective(metric="accuracy", target=scenario.target),
            description=scenario.sentence,
        )  # fmt: skip
        done = self.ended(specialize(self.app, self.name, f"{self.name}-rows", budget), timeout=1200)
        return str((done.result or {}).get("model"))

    def serving(self) -> str:
        """The version in production. Ends the program, with the reasons, where none passed."""
        if (row := self.app.workspace.database.read_one(_SERVING, [self.name])) is None:
            said = self.app.workspace.database.read_one("SELECT evidence FROM decisions ORDER BY created DESC LIMIT 1")
            sys.exit(f"{self.name}: no model came into production: {said[0] if said else 'nothing was decided'}")
        return str(row[0])

    def right_share(self, model: str, examples: Sequence[Example]) -> float:
        """Of rows that are not logged: the evaluation's own business."""
        answers = self._answers(examples, model)
        return float(np.mean([answer == label for answer, (_, label) in zip(answers, examples, strict=True)]))

    def asked(self, examples: Sequence[Example]) -> None:
        """By production, and logged."""
        self._answers(examples, None)

    def _answers(self, examples: Sequence[Example], model: str | None) -> list[object]:
        found: list[object] = []
        for begin in range(0, len(examples), 100):
            part = examples[begin : begin + 100]
            inputs = [self.input_of(value) for value, _ in part]
            answered = predict(self.app, inputs, model=model, use_case=None if model else self.name)
            assert isinstance(answered, Predictions)
            for each, (_, label) in zip(answered.predictions, part, strict=True):
                found.append(each.untrusted.output)
                if each.prediction is not None and model is None:
                    self.right[each.prediction] = label
        return found

    def answer_queue(self) -> int:
        queue = next_labels(self.app.workspace, self.name, count=LABELS_A_DAY)
        asked = {row[0] for row in self.app.workspace.database.read("SELECT prediction FROM label_requests")}
        done = [item for item in queue.items if item.prediction in asked]
        for item in done:
            record_feedback(self.app, item.prediction, "human", label=self.right[item.prediction])
        return len(done)


_SERVING = "SELECT model FROM aliases WHERE use_case = ? AND alias = 'production'"


def live(scenario: Scenario, seed: int, days: int, budget: float, verbose: bool) -> Life:
    began = _cpu()
    with tempfile.TemporaryDirectory(prefix="loop-") as place, digits.loop(Path(place), []) as bare:
        folder = Path(place)
        loop = Watched(bare, scenario, folder, seed)
        loop.begin(budget)
        first = loop.serving()
        watch_use_case(
            loop.app, loop.name, [Trigger(on="data_shift"), Trigger(on="quality_regression")],
            Policy(action="auto", labels=300, cooldown_hours=72),
        )  # fmt: skip
        old, new = (scenario.make(loop.files, loop.rng, FRESH, second) for second in (False, True))
        before = loop.right_share(first, old), loop.right_share(first, new)
        promotions, false, labels, serves = 0, 0, 0, first
        for day in range(days):
            week = (day - QUIET) // 7
            share = 0.0 if day < QUIET else WAVES[week] if week < len(WAVES) else 1.0
            count = int(loop.rng.binomial(A_DAY, share))
            loop.asked([*scenario.make(loop.files, loop.rng, A_DAY - count, False),
                        *scenario.make(loop.files, loop.rng, count, True)])  # fmt: skip
            loop.days(1)
            decision = loop.look()
            if decision.memory.state == "labelling":
                labels += loop.answer_queue()
            if (now := loop.serving()) != serves:
                promotions += 1
                weights = (1 - share, share)
                mine, theirs = (
                    sum(w * loop.right_share(model, rows_) for w, rows_ in zip(weights, (old, new), strict=True))
                    for model in (now, serves)
                )
                false += mine < theirs
                serves = now
            if verbose and decision.taken:
                print(f"    day {day}: {decision.because}", file=sys.stderr, flush=True)
            if verbose and decision.ended:
                print(f"    day {day}: {decision.because}", file=sys.stderr, flush=True)
        after = loop.right_share(serves, old), loop.right_share(serves, new)
        method = loop.app.workspace.database.read_one(
            "SELECT card FROM model_versions WHERE name || '@v' || version = ?", [serves]
        )
        ended = rows.episodes(loop.app.workspace.database, loop.name, limit=50)
        return Life(
            scenario.modality, seed, scenario.target, *before, *after, promotions, false, labels,
            tuple(str(each.outcome) for each in reversed(ended)), after[1] >= scenario.target, _cpu() - began,
            str(json.loads(method[0])["method"]) if method else "",
        )  # fmt: skip


def _cpu() -> float:
    """Of this process and of the runs that it has ended."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("modalities", nargs="*", default=[])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--days", type=int, default=84)
    parser.add_argument("--minutes", type=float, default=2.0, help="for the first model")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    found: list[Life] = []
    print("modality     seed target first before/after second before/after promoted false labels met  CPU s  episodes")
    for scenario in SCENARIOS:
        if asked.modalities and scenario.modality not in asked.modalities:
            continue
        for seed in range(asked.first_seed, asked.first_seed + asked.seeds):
            life = live(scenario, seed, asked.days, asked.minutes, verbose=True)
            found.append(life)
            print(
                f"{life.modality:12} {seed:4} {life.target:6.2f} {life.first_before:12.3f} {life.first_after:5.3f} "
                f"{life.second_before:13.3f} {life.second_after:5.3f} {life.promotions:8} {life.false_better:5} "
                f"{life.labels:6} {'yes' if life.met else 'no':3} {life.cpu_seconds:6.0f}  {', '.join(life.episodes)}",
                flush=True,
            )
            if asked.out:
                with asked.out.open("a") as file:
                    file.write(json.dumps({**life._asdict(), "at": time.strftime("%Y-%m-%d")}) + "\n")
    met, promoted = sum(life.met for life in found), sum(life.promotions for life in found)
    wrong = sum(life.false_better > 0 for life in found)
    print(
        f"\nThe target is met in {met} of {len(found)} loops; {promoted} promotions, in {wrong} loops a false better."
    )


if __name__ == "__main__":
    main()
