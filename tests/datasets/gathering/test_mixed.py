"""From files to mixed rows: every layout that people use, on real files, and what is excluded or refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from speciate.datasets.sources.labels import LabelsFile
from speciate.datasets.sources.listing import Listing
from speciate.datasets.sources.prepare import prepare_source
from speciate.datasets.sources.sandbox_calls import SourceContext
from speciate.errors import SpeciateError
from tests.datasets.source_context import source_context
from tests.modalities.samples import photo, sound

PNG, WAV, TEXT = photo(), sound("WAV"), b"a report of what was seen"
SERIES = b"x,y\n" + b"1,2\n" * 20


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SourceContext]:
    with source_context(tmp_path_factory.mktemp("work")) as found:
        yield found


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def mixed(place: SourceContext, source: Path, inputs: Sequence[str] = (), labels: LabelsFile | None = None) -> Listing:
    context = place._replace(work=source.parent / "work")
    return prepare_source(source, context, modality="multimodal", inputs=inputs, labels=labels, never=["label"])


def parts(found: Listing) -> dict[str, list[str]]:
    return {file.name: [name for name, _ in file.parts] for file in found.files}


def test_files_that_share_all_but_their_suffix_are_one_row(place: SourceContext, tmp_path: Path) -> None:
    files = {f"{i}.png": PNG for i in range(3)} | {f"{i}.txt": TEXT for i in range(3)} | {"0.wav": WAV, "2.csv": SERIES}
    labels = b"file_name,label\n0.png,a\n1.txt,b\n2,c\n"
    found = mixed(place, write(tmp_path / "rows", files | {"labels.csv": labels}))
    assert parts(found) == {
        "0": ["audio.audio", "image.image", "text.text", "missing/time-series.time-series"],
        "1": ["image.image", "text.text", "missing/audio.audio", "missing/time-series.time-series"],
        "2": ["image.image", "text.text", "time-series.time-series", "missing/audio.audio"],
    }
    assert found.labels is not None
    assert found.labels["label"].to_pylist() == ["a", "b", "c"]
    assert "2 of 3 rows lack the part 'audio'." in found.notes


def test_a_folder_for_each_part_names_it(place: SourceContext, tmp_path: Path) -> None:
    files = {f"train/images/{i}.png": PNG for i in range(3)} | {f"train/reports/{i}.txt": TEXT for i in range(2)}
    files |= {"test/images/0.png": PNG, "test/reports/0.txt": TEXT}
    found = mixed(place, write(tmp_path / "rows", files))
    assert parts(found)["train/0"] == ["images.image", "reports.text"]
    assert parts(found)["train/2"] == ["images.image", "missing/reports.text"]
    assert [file.split for file in found.files] == ["test", "train", "train", "train"]


def test_a_folder_for_each_example_may_lie_in_one_for_its_class(place: SourceContext, tmp_path: Path) -> None:
    files = {}
    for i in range(4):
        files |= {f"{'ab'[i % 2]}/p{i}/p{i}_scan.png": PNG, f"{'ab'[i % 2]}/p{i}/report.txt": TEXT}
    found = mixed(place, write(tmp_path / "rows", files))
    assert parts(found)["a/p0"] == ["report.text", "scan.image"]
    assert [file.folder for file in found.files] == ["a", "a", "b", "b"]
    assert all(file.path.is_dir() for file in found.files)


def test_a_folder_in_an_examples_folder_is_a_part_of_several_files(place: SourceContext, tmp_path: Path) -> None:
    files = {}
    for i in range(3):
        files |= {f"p{i}/views/1.png": PNG, f"p{i}/views/2.png": PNG, f"p{i}/note.txt": TEXT}
    found = mixed(place, write(tmp_path / "rows", files))
    assert parts(found)["p1"] == ["note.text", "views.image/1.png", "views.image/2.png"]


def test_the_same_kind_of_file_twice_is_two_parts(place: SourceContext, tmp_path: Path) -> None:
    eyes = {f"{side}/{i}.png": PNG for side in ("left", "right") for i in range(4)}
    found = mixed(place, write(tmp_path / "rows", eyes))
    assert parts(found) == {str(i): ["left.image", "right.image"] for i in range(4)}
    odd = {f"p{i}/{letter}{i * 7}.png": PNG for i in range(4) for letter in "xz"}
    found = mixed(place, write(tmp_path / "odd" / "rows", odd))
    assert parts(found)["p0"] == ["image.image", "image_2.image"]


def test_a_table_brings_files_and_texts_together(place: SourceContext, tmp_path: Path) -> None:
    rows = [f"pics/{i}.png,a caption that is long enough of {i},{'ab'[i % 2]}" for i in range(3)]
    table = "\n".join(["image,caption,label", *rows, "pics/9.png,a caption of an image that got lost,a", ",,b"])
    files = {f"pics/{i}.png": PNG for i in range(4)} | {"rows.csv": table.encode()}
    source = write(tmp_path / "rows", files)
    found = mixed(place, source)
    assert parts(found)["rows.csv#1"] == ["image.image", "caption.text"]
    assert parts(found)["rows.csv#4"] == ["caption.text", "missing/image.image"]
    assert found.labels is not None
    assert found.labels.to_pydict() == {"label": ["a", "b", "a", "a"]}
    assert {item.name: item.reason for item in found.excluded} == {
        "pics/3.png": "No row of 'rows.csv' names it.",
        "rows.csv#5": "None of its parts is there.",
    }
    alone = mixed(place, source / "rows.csv", inputs=["image", "caption"])
    assert parts(alone) == parts(found)


def test_columns_whose_names_differ_in_signs_alone_are_two_parts(place: SourceContext, tmp_path: Path) -> None:
    rows = [f"{i}.png,a caption that is long enough of {i},another one that is long enough of {i}" for i in range(3)]
    table = "\n".join(["image,words (en),words [en]", *rows])
    source = write(tmp_path / "rows", {f"{i}.png": PNG for i in range(3)} | {"rows.csv": table.encode()})
    found = mixed(place, source)
    assert parts(found)["rows.csv#1"] == ["image.image", "words_en.text", "words_en_2.text"]
    texts = {name: path.read_text() for name, path in found.files[2].parts if name.endswith(".text")}
    assert sorted(texts.values()) == [
        "a caption that is long enough of 2", "another one that is long enough of 2"
    ]  # fmt: skip


def test_a_table_reaches_nothing_outside_its_folder(place: SourceContext, tmp_path: Path) -> None:
    write(tmp_path, {"secret.png": PNG, "rows/in.png": PNG, "rows/.hidden/x.png": PNG})
    (tmp_path / "rows" / "link.png").symlink_to(tmp_path / "secret.png")
    names = ["in.png"] * 5
    names += ["../secret.png", str(tmp_path / "secret.png"), "link.png"]
    rows = [f"{name},a caption that is long enough of {i}" for i, name in enumerate([*names, ".hidden/x.png"])]
    write(tmp_path, {"rows/rows.csv": "\n".join(["image,caption", *rows]).encode()})
    found = mixed(place, tmp_path / "rows" / "rows.csv")
    present = ["missing/image.image" not in members for members in parts(found).values()]
    assert present == [True] * 5 + [False] * 4


def test_parts_are_chosen_by_name_and_strangers_are_excluded(place: SourceContext, tmp_path: Path) -> None:
    files = {f"p{i}/{name}": data for i in range(3) for name, data in (("a.png", PNG), ("b.txt", TEXT), ("c.wav", WAV))}
    source = write(tmp_path / "rows", files | {"p1/notes.docx": b"?", "overview.png": PNG})
    found = mixed(place, source, inputs=["a", "c"])
    assert parts(found)["p0"] == ["a.image", "c.audio"]
    assert sorted(item.name for item in found.excluded) == ["overview.png", "p1/notes.docx"]
    with pytest.raises(SpeciateError, match="make the parts a, b, c"):
        mixed(place, source, inputs=["d"])


def test_rows_may_have_few_parts_in_common(place: SourceContext, tmp_path: Path) -> None:
    kinds = [("a.png", PNG), ("b.txt", TEXT), ("c.wav", WAV), ("d.time-series.csv", SERIES), ("e.png", PNG)]
    files = {f"p{i}/{kinds[k % 5][0]}": kinds[k % 5][1] for i in range(5) for k in (i, i + 1)}
    found = mixed(place, write(tmp_path / "rows", files))
    assert [sum(not name.startswith("missing/") for name in members) for members in parts(found).values()] == [2] * 5
    assert len(parts(found)["p0"]) == 5


def test_a_labels_table_names_a_row_by_its_folder_or_its_files(place: SourceContext, tmp_path: Path) -> None:
    files = {f"rows/p{i}/{name}": data for i in range(3) for name, data in (("a.png", PNG), ("b.txt", TEXT))}
    write(tmp_path, files | {"labels.csv": b"who,finding\np0,x\np1/a.png,y\np2,z\n"})
    found = mixed(place, tmp_path / "rows", labels=LabelsFile(tmp_path / "labels.csv", "who"))
    assert found.labels is not None
    assert found.labels["finding"].to_pylist() == ["x", "y", "z"]


def test_files_without_company_are_no_mixed_rows(place: SourceContext, tmp_path: Path) -> None:
    with pytest.raises(SpeciateError, match="belong together as mixed rows"):
        mixed(place, write(tmp_path / "rows", {f"{i}.png": PNG for i in range(3)}))


def test_images_with_a_table_of_captions_stay_images(place: SourceContext, tmp_path: Path) -> None:
    captions = "\n".join(["file_name,caption", *(f"{i}.png,a caption that is long enough of {i}" for i in range(3))])
    source = write(tmp_path / "rows", {f"{i}.png": PNG for i in range(3)} | {"metadata.csv": captions.encode()})
    found = prepare_source(source, place._replace(work=tmp_path / "work"))
    assert found.modality == "image"
    assert parts(mixed(place, source))["metadata.csv#1"] == ["file_name.image", "caption.text"]
