"""Near-copies that are appended never cross a split, in every medium that claims it; a random split lets them cross."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import trimesh
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine

from speciate.datasets import version_rows
from speciate.datasets.operations.split import SPLIT
from speciate.datasets.splits import NOT_CHECKED, audit_split, members_of, split_rows
from speciate.datasets.versions import Manifest, version
from speciate.modalities.row_similarity import ROWS, sketch_row
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.operations.world import curate
from tests.modalities import nifti_samples, protein_samples, video_samples

Chance = np.random.Generator
RESIDUES = "ACDEFGHIKLMNPQRSTVWY"


class Copied(NamedTuple):
    """Originals, and a near-copy of each: files by suffix, or rows."""

    originals: list[Any]
    copies: list[Any]
    suffixes: tuple[str, str] = ("", "")
    inputs: tuple[str, ...] = ()


def texts(chance: Chance, count: int) -> Copied:
    words = np.array([f"word{place}" for place in range(400)])
    found = [chance.choice(words, 60).tolist() for _ in range(count)]
    rows = [{"text": " ".join(each)} for each in found]
    return Copied(rows, [{"text": " ".join([*each[:59], "changed"])} for each in found], inputs=("text",))


def short_texts(chance: Chance, count: int) -> Copied:
    """Of 8 to 19 words. A copy has another letter somewhere, or a word more, and other case and punctuation."""
    letters = np.array(list("aeioubcdfghlmnprst"))
    words = np.array(["".join(chance.choice(letters, int(chance.integers(3, 10)))) for _ in range(400)])
    found = [" ".join(chance.choice(words, int(chance.integers(8, 20)))) for _ in range(count)]
    copies = []
    for number, each in enumerate(found):
        at = int(chance.integers(len(each)))
        mistyped = f"{each[:at]}x{each[at + 1 :]}"
        copies.append(f"{each.capitalize()}, also!" if number % 2 and len(each) > 60 else f"{mistyped.title()}.")
    return Copied([{"text": each} for each in found], [{"text": each} for each in copies], inputs=("text",))


def images(chance: Chance, count: int) -> Copied:
    """A copy is smaller and compressed again."""
    originals, copies = [], []
    for _ in range(count):
        coarse = Image.fromarray(chance.integers(0, 255, (7, 7, 3), np.uint8).astype(np.uint8))
        image = coarse.resize((120, 120), Image.Resampling.BICUBIC)
        originals.append(_saved(image, "PNG"))
        copies.append(_saved(image.resize((80, 80), Image.Resampling.LANCZOS), "JPEG"))
    return Copied(originals, copies, ("png", "jpg"))


def _saved(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def audio(chance: Chance, count: int) -> Copied:
    """Syllables. A copy is less loud, has some noise, and is compressed."""
    originals, copies = [], []
    for _ in range(count):
        sound = chance.normal(size=24_000) * 0.003
        for _ in range(int(chance.integers(4, 8))):
            length = int(chance.integers(1500, 5000))
            at, pitch, formant = (
                int(chance.integers(0, 24_000 - length)),
                chance.uniform(90, 250),
                chance.uniform(3, 30),
            )
            time = np.arange(length) / 16_000
            waves = [np.sin(2 * np.pi * pitch * k * time) * np.exp(-(((pitch * k / 100 - formant) / 8) ** 2))
                     for k in range(1, 15)]  # fmt: skip
            sound[at : at + length] += 0.1 * np.sum(waves, axis=0) * np.hanning(length)
        copy = 0.6 * sound + chance.normal(size=len(sound)) * 0.0005
        originals.append(_recorded(sound, "WAV"))
        copies.append(_recorded(copy, "OGG"))
    return Copied(originals, copies, ("wav", "ogg"))


def _recorded(sound: npt.NDArray[np.float64], kind: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sound.astype(np.float32), 16_000, format=kind)
    return file.getvalue()


def videos(chance: Chance, count: int) -> Copied:
    """A copy is of another codec and container, or smaller and compressed more."""
    originals, copies = [], []
    for number in range(count):
        coarse = [Image.fromarray(chance.integers(0, 255, (6, 6, 3), np.uint8).astype(np.uint8)) for _ in range(2)]
        ends = [np.asarray(each.resize((96, 96), Image.Resampling.BICUBIC), np.float64) for each in coarse]
        frames = [(ends[0] * (1 - part) + ends[1] * part).astype(np.uint8) for part in np.linspace(0, 0.3, 24)]
        originals.append(video_samples.encode(frames))
        if number % 2:
            copies.append(video_samples.encode(frames, "matroska", "mpeg4", qscale="2"))
        else:
            copies.append(video_samples.encode(frames, "matroska", size=(64, 64), crf="30"))
    return Copied(originals, copies, ("mp4", "mkv"))


def tables(chance: Chance, count: int) -> Copied:
    """Of very different scales, one of them with many zeros. A copy differs by a third of a percent of the spread."""
    numbers = chance.normal(size=(count, 6)) * (1, 1e-3, 1e4, 50, 1, 7)
    numbers[:, 4] = np.where(chance.random(count) < 0.7, 0, numbers[:, 4])
    near = numbers + chance.normal(size=numbers.shape) * numbers.std(axis=0) * 0.003
    kinds = chance.choice(["a", "b", "c"], count).tolist()
    rows = [
        [dict(columns_of(row)) | {"kind": kind} for row, kind in zip(each.tolist(), kinds, strict=True)]
        for each in (numbers, near)
    ]
    return Copied(*rows, inputs=(*(f"x{at}" for at in range(6)), "kind"))


def columns_of(row: list[float]) -> Iterator[tuple[str, float]]:
    return ((f"x{at}", x) for at, x in enumerate(row))


def series(chance: Chance, count: int) -> Copied:
    """Two channels. A copy has another level and scale, and some noise; every third one is an excerpt."""
    walks = np.cumsum(chance.normal(size=(count, 2, 120)), axis=2)
    near = 1.7 * walks + 5 + chance.normal(size=walks.shape) * walks.std(axis=2, keepdims=True) * 0.02
    cut = [each[:, 10:100] if number % 3 == 0 else each for number, each in enumerate(near)]
    return Copied([{"way": each.tolist()} for each in walks], [{"way": each.tolist()} for each in cut], inputs=("way",))


def meshes(chance: Chance, count: int) -> Copied:
    """A ball with waves. A copy is turned, scaled and a little rough."""
    originals, copies = [], []
    ball = trimesh.creation.icosphere(subdivisions=2)
    for _ in range(count):
        waves = chance.normal(size=(4, 3)) * 1.5
        stretch = 1 + 0.25 * np.sin(ball.vertices @ waves.T + chance.uniform(0, 6, 4)).sum(axis=1)
        points = ball.vertices * stretch[:, np.newaxis] * chance.uniform(0.6, 1.4, 3)
        turned = trimesh.transformations.random_rotation_matrix(chance.random(3))[:3, :3]
        rough = (points + chance.normal(size=points.shape) * 0.001) @ turned.T * 2.5
        for vertices, found, kind in ((points, originals, "ply"), (rough, copies, "stl")):
            exported = trimesh.Trimesh(vertices, ball.faces, process=False).export(file_type=kind)
            found.append(exported.encode() if isinstance(exported, str) else exported)
    return Copied(originals, copies, ("ply", "stl"))


def peptides(chance: Chance, count: int) -> Copied:
    """Of 8 to 40 residues. A copy has other residues in at most a fifth of the places."""
    found = [chance.choice(list(RESIDUES), int(chance.integers(8, 40))).tolist() for _ in range(count)]
    copies = []
    for each in found:
        copy = list(each)
        for at in chance.choice(len(each), max(1, int(0.2 * len(each))), replace=False):
            copy[at] = chance.choice([letter for letter in RESIDUES if letter != copy[at]])
        copies.append(copy)
    rows = [[{"sequence": "".join(each)} for each in group] for group in (found, copies)]
    return Copied(*rows, inputs=("sequence",))


def molecules(chance: Chance, count: int) -> Copied:
    """Chains of fragments. A copy has another halogen at its end."""
    pieces = ["c1ccc(cc1)", "C(=O)N", "CC(O)", "c1ccc(nc1)", "S(=O)(=O)N", "CCN(C)", "C1CCC(CC1)", "OC", "c1sc(cc1)",
              "C(C)(C)", "c1cnc(nc1)", "C(C#N)"]  # fmt: skip
    originals, copies = [], []
    for _ in range(count):
        chain = "".join(chance.choice(pieces, 14))
        originals.append({"smiles": f"C{chain}F"})
        copies.append({"smiles": f"C{chain}Cl"})
    return Copied(originals, copies, inputs=("smiles",))


def volumes(chance: Chance, count: int) -> Copied:
    """An organ of several parts. A copy has noise of its own."""
    originals, copies = [], []
    for _ in range(count):
        place = np.stack(np.meshgrid(*[np.linspace(-1, 1, side) for side in (24, 28, 20)], indexing="ij"), axis=-1)
        voxels = sum(
            chance.uniform(60, 160)
            * np.exp(-(((place - chance.uniform(-0.5, 0.5, 3)) / chance.uniform(0.2, 0.5, 3)) ** 2).sum(-1))
            for _ in range(5)
        )
        for found, noise in ((originals, 0.5), (copies, 1.0)):
            noisy = np.asarray(voxels + chance.normal(size=place.shape[:3]) * noise)
            found.append(nifti_samples.packed(nib.Nifti1Image(noisy.astype(np.float32), np.eye(4))))
    return Copied(originals, copies, ("nii.gz", "nii.gz"))


MEDIA: dict[str, Callable[[Chance, int], Copied]] = {
    "text": texts,
    "text, short": short_texts,
    "image": images,
    "audio": audio,
    "video": videos,
    "tabular": tables,
    "time-series": series,
    "mesh": meshes,
    "protein": peptides,
    "molecule": molecules,
    "nifti": volumes,
}


MISSED = {"text, short": 0.03}
"""Share of the copies that may cross: in eight words a mistyped letter counts for much (evals/LOG.md has figures)."""


def given(made: Copied, folder: Path) -> Iterator[dict[str, Any]]:
    """What is handed to create_dataset, and then to add_examples."""
    for name, items, suffix in zip(("originals", "copies"), made[:2], made.suffixes, strict=True):
        if suffix:
            (folder / name).mkdir()
            for number, item in enumerate(items):
                (folder / name / f"{name}-{number:03}.{suffix}").write_bytes(item)
            yield {"source": folder / name}
        else:
            yield {"rows": tuple({**item, "about": number} for number, item in enumerate(items))}


def numbered(workspace: Workspace, manifest: Manifest) -> list[tuple[int, str | None]]:
    """The number of the original of each row, and its split."""
    rows = version_rows.read(workspace.folders, manifest).to_pylist()
    assert all(row["quality"] in ("ok", "refused") for row in rows)
    number = [int(row["about"]) if "about" in row else int(row["source"].rpartition("-")[2][:3]) for row in rows]
    return list(zip(number, (row["split"] for row in rows), strict=True))


def crossing(found: list[tuple[int, str | None]]) -> int:
    splits: dict[int, set[str]] = {}
    for number, split in found:
        if split is not None:
            splits.setdefault(number, set()).add(split)
    return sum(len(names) > 1 for names in splits.values())


def never_cross(workspace: Workspace, folder: Path, medium: str, count: int) -> None:
    made = MEDIA[medium](np.random.default_rng(7), count)
    first, more = given(made, folder)
    roles = {"inputs": made.inputs} if made.inputs else {}
    missed, medium = MISSED.get(medium, 0), medium.partition(",")[0]
    data.ingest(workspace, "set", modality=medium, **roles, **first)
    manifest = data.ingest(workspace, "set", add=True, **more)
    found = numbered(workspace, manifest)
    assert len(found) == 2 * count
    assert crossing(found) <= missed * count
    kept = {name for _, name in found if name}
    assert kept == {"train", "validation", "test"}
    assert sum(name is not None for _, name in found) > 1.9 * count  # and none is refused to keep it so
    audit = version(workspace.database, "set").report["split"]
    assert audit["near_duplicates_across"] == 0

    drawn = random.Random(0)
    plain = [drawn.choices(["train", "validation", "test"], (70, 15, 15))[0] for _ in found]
    assert crossing([(number, name) for (number, _), name in zip(found, plain, strict=True)]) > 0.3 * count
    rows = version_rows.read(workspace.folders, manifest, usable=True)
    assert audit_split(members_of(rows, medium), plain[: rows.num_rows])["near_duplicates_across"] > 0.25 * count


@pytest.mark.parametrize("medium", ["tabular", "time-series", "protein", "text, short"])
def test_thirty_appended_near_copies_never_cross_a_split(workspace: Workspace, tmp_path: Path, medium: str) -> None:
    never_cross(workspace, tmp_path, medium, 30)


@pytest.mark.slow
@pytest.mark.parametrize("medium", MEDIA)
def test_two_hundred_appended_near_copies_never_cross_a_split(
    workspace: Workspace, tmp_path: Path, medium: str
) -> None:
    never_cross(workspace, tmp_path, medium, 200)


@pytest.mark.parametrize("load", [load_iris, load_wine, load_diabetes, load_breast_cancer])
def test_rows_of_an_ordinary_table_are_not_taken_for_copies(load: Callable[[], Any]) -> None:
    codes = {sketch_row({f"x{at}": float(x) for at, x in enumerate(row)}) for row in load().data}
    assert len(ROWS.pairs(sorted(code for code in codes if code))) == 0


@pytest.mark.parametrize(("columns", "levels"), [(6, 5), (4, 100), (1, 1000), (2, 1000)])
def test_rows_of_whole_numbers_are_hardly_ever_taken_for_copies(columns: int, levels: int) -> None:
    rows = np.unique(np.random.default_rng(3).integers(0, levels, (3000, columns)), axis=0)
    codes = sorted(code for row in rows.tolist() if (code := sketch_row(dict(columns_of(row)))))
    assert len(ROWS.pairs(codes)) < 0.01 * len(codes)


def test_a_tight_class_is_not_one_copy_of_another() -> None:
    """Two clouds a hundred times as far apart as they are wide."""
    chance = np.random.default_rng(4)
    points = np.concatenate([chance.normal(size=(200, 5)), 300 + chance.normal(size=(200, 5))])
    codes = sorted(code for row in points.tolist() if (code := sketch_row(dict(columns_of(row)))))
    assert len(ROWS.pairs(codes)) < 20


def test_where_no_near_duplicates_are_known_the_audit_says_so(workspace: Workspace) -> None:
    """Rows of categories alone, and texts of a few words, have no sketch."""
    kinds = tuple({"a": "pqr"[at % 3], "b": "xyz"[at // 3 % 3], "c": f"{at}"} for at in range(40))
    data.ingest(workspace, "kinds", rows=kinds)
    assert version(workspace.database, "kinds").report["split"]["near_duplicates_across"] == NOT_CHECKED
    long = " ".join(f"word{at}" for at in range(40))
    data.ingest(workspace, "texts", rows=tuple({"text": f"short {at}"} for at in range(30)), modality="text")
    assert version(workspace.database, "texts").report["split"]["near_duplicates_across"] == NOT_CHECKED
    data.ingest(workspace, "texts", add=True, rows=({"text": long},))
    audit = version(workspace.database, "texts").report["split"]
    assert (audit["near_duplicates_across"], audit["near_duplicates_not_checked"]) == (0, 30)


@pytest.mark.parametrize("entry", ["2gtl", "7ok9"])
def test_one_entry_as_pdb_and_as_mmcif_is_one(workspace: Workspace, tmp_path: Path, entry: str) -> None:
    """Also if the PDB file lists no sequence, so that unresolved residues are not known."""
    whole = protein_samples.deposited(f"{entry}.pdb")
    bare = b"".join(line for line in whole.splitlines(True) if not line.startswith((b"SEQRES", b"MASTER")))
    files = {f"{entry}.pdb": whole, "bare.pdb": bare, f"{entry}.cif": protein_samples.deposited(f"{entry}.cif")}
    (tmp_path / "files").mkdir()
    for name, content in files.items():
        (tmp_path / "files" / name).write_bytes(content)
    made = data.ingest(workspace, "structures", source=tmp_path / "files", modality="protein")
    assert made.rows == 3
    assert len(made.splits) == 1
    kept = curate(workspace, "structures", {"op": "deduplicate", "by": "perceptual", "threshold": 0.95})
    assert kept.manifest.rows == 1


def test_split_keeps_jittered_copies_together(workspace: Workspace) -> None:
    made = tables(np.random.default_rng(8), 60)
    rows = [{**item, "about": number} for group in made[:2] for number, item in enumerate(group)]
    data.ingest(workspace, "set", rows=tuple(rows), inputs=made.inputs)
    again = curate(workspace, "set", {"op": SPLIT.name, "seed": 5})
    assert crossing([(row["about"], row["split"]) for row in again.rows.to_pylist()]) == 0
    assert split_rows(again.rows, "tabular").audit["near_duplicates_across"] == 0
    assert curate(workspace, "set", {"op": "deduplicate", "by": "perceptual"}).manifest.rows == 60
