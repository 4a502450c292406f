"""Ten thousand damaged files through the tools: the daemon lives, nothing hangs, every file is accounted for.

Real files of every format are truncated, flipped, spliced and overwritten at random (seeded), ingested through a client
over a real daemon, and counted: each must be an item of some quality. The daemon must be the
same process at the end, and no job may take longer than its share.

    python evals/fuzz.py [--files 10000] [--seed 0] [--domains]

`--domains`: of the formats of videos, volumes, shapes, molecules, episodes and mixed rows instead, those that
tests/modalities/ has. Where an example is several files, one of them is damaged and the others are whole: a slice of a
series, the materials of a mesh, a part of a mixed row.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import soundfile
from PIL import Image

import speciate
from speciate.errors import SpeciateError
from speciate.modalities import MODALITIES
from speciate.modalities.bundles import is_bundle, members_of

ARCHIVES = 40
"""So many of each kind of archive: each is an ingest of its own."""
SECONDS = 600.0
"""Longest that one ingest may take."""


# Real files


def picture(format_: str, **options: Any) -> bytes:
    chance = np.random.default_rng(0)
    pixels = (chance.random((48, 64, 3)) * 255).astype(np.uint8)
    image = Image.fromarray(pixels).convert("P" if format_ == "GIF" else "RGB")
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def sound(format_: str) -> bytes:
    wave = np.sin(np.linspace(0, 2000, 16_000)).astype(np.float32) * 0.5
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, 16_000, format=format_)
    return buffer.getvalue()


def table() -> pa.Table:
    words = [f"the {i}th text of a table, with some words in it" for i in range(20)]
    return pa.table({"text": words, "label": ["ab"[i % 2] for i in range(20)], "x": [i / 3 for i in range(20)]})


def csv() -> bytes:
    return "\n".join(["text,label,x", *(f'"{r["text"]}",{r["label"]},{r["x"]}' for r in table().to_pylist())]).encode()


def parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table(), buffer)
    return buffer.getvalue()


def arrow() -> bytes:
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, table().schema) as writer:
        writer.write_table(table())
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(6):
            archive.writestr(f"{'ab'[i % 2]}/{i}.png", picture("PNG"))
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for i in range(6):
            member = tarfile.TarInfo(f"{'ab'[i % 2]}/{i}.png")
            member.size = len(picture("PNG"))
            archive.addfile(member, io.BytesIO(picture("PNG")))
    return buffer.getvalue()


SERIES = "@timeStamps false\n@dimensions 1\n@classLabel true a b\n@data\n" + "\n".join(
    ",".join(str((i * j) % 7) for j in range(20)) + f":{'ab'[i % 2]}" for i in range(12)
)
ARFF = "@relation r\n@attribute x numeric\n@attribute y numeric\n@attribute c {a,b}\n@data\n" + "\n".join(
    f"{i / 3},{i % 5},{'ab'[i % 2]}" for i in range(20)
)
MEDIA: dict[str, dict[str, Callable[[], bytes]]] = {
    "image": {
        ".png": lambda: picture("PNG"),
        ".jpg": lambda: picture("JPEG"),
        ".gif": lambda: picture("GIF"),
        ".bmp": lambda: picture("BMP"),
        ".tif": lambda: picture("TIFF", compression="tiff_lzw"),
        ".webp": lambda: picture("WEBP"),
    },
    "audio": {
        ".wav": lambda: sound("WAV"),
        ".flac": lambda: sound("FLAC"),
        ".ogg": lambda: sound("OGG"),
        ".mp3": lambda: sound("MP3"),
    },
    "text": {".txt": lambda: "A text with ümlauts, and more than a few words in it.\n".encode() * 3},
    "time-series": {".csv": lambda: "\n".join(f"{i},{i * i % 11}" for i in range(60)).encode()},
}
TABLES: dict[str, Callable[[], bytes]] = {
    ".csv": csv,
    ".jsonl": lambda: "\n".join(map(json.dumps, table().to_pylist())).encode(),
    ".json": lambda: json.dumps(table().to_pylist()).encode(),
    ".parquet": parquet,
    ".arrow": arrow,
    ".ts": SERIES.encode,
    ".arff": ARFF.encode,
    ".fasta": lambda: b"".join(b">p%d kind=%s\nMKWLLAGKRSTE\n" % (i, b"ab"[i % 2 : i % 2 + 1]) for i in range(12)),
}
PACKED: dict[str, Callable[[], bytes]] = {".zip": zipped, ".tar.gz": tarred}


def damaged(data: bytes, chance: random.Random) -> bytes:
    """One to three injuries."""
    for _ in range(chance.randint(1, 3)):
        data = chance.choice(INJURIES)(data, chance)
    return data


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _flip(data: bytes, chance: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(chance.randint(1, 30) if found else 0):
        found[chance.randrange(len(found))] = chance.randrange(256)
    return bytes(found)


def _flip_header(data: bytes, chance: random.Random) -> bytes:
    return _flip(data[:64], chance) + data[64:]


def _splice(data: bytes, chance: random.Random) -> bytes:
    at, size = chance.randrange(len(data) + 1), chance.randint(1, 200)
    return data[:at] + data[at + size :] if chance.random() < 0.5 else data[:at] + data[:size] + data[at:]


def _huge_number(data: bytes, chance: random.Random) -> bytes:
    """A length that says far too much."""
    at = chance.randrange(max(1, len(data) - 4))
    return data[:at] + b"\xff\xff\xff\x7f" + data[at + 4 :]


INJURIES = (_cut, _flip, _flip_header, _splice, _huge_number)


# The run


def write(folder: Path, suffix: str, make: Callable[[], bytes], count: int, chance: random.Random) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    whole = make()
    for i in range(count):
        (folder / f"{suffix[1:].replace('.', '-')}-{i:05}{suffix}").write_bytes(damaged(whole, chance))


def sources(root: Path, files: int, chance: random.Random) -> Iterator[tuple[str, Path, str]]:
    """(name, source, modality) of each dataset. One whole file stands in each folder, so that it is a dataset."""
    kinds = sum(len(formats) for formats in MEDIA.values()) + len(TABLES)
    each = -(-(files - len(PACKED) * ARCHIVES) // kinds)
    for modality, formats in MEDIA.items():
        folder = root / modality
        for suffix, make in formats.items():
            write(folder, suffix, make, each, chance)
            (folder / f"whole{suffix}").write_bytes(make())
        yield modality, folder, modality
    for suffix, make in TABLES.items():
        folder = root / f"tables{suffix}"
        write(folder, suffix, make, each, chance)
        (folder / f"whole{suffix}").write_bytes(make())
        yield f"table{suffix.replace('.', '-')}", folder, "auto"
    for suffix, make in PACKED.items():
        folder = root / f"packed{suffix}"
        write(folder, suffix, make, ARCHIVES, chance)
        for i, path in enumerate(sorted(folder.iterdir())):
            yield f"packed{suffix.replace('.', '-')}-{i}", path, "auto"


# Domains

_OLD = ("text", "tabular", "time-series", "image")
_GATHERED = ("dicom", "mesh")
"""Modalities whose bundles come from folders: the others' are files of their own."""


def of_domains(root: Path, files: int, chance: random.Random) -> Iterator[tuple[str, Path, str]]:
    """As `sources`. A third of the examples are several files."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.modalities.samples import SAMPLES

    ours = [sample for sample in SAMPLES if sample.modality in MODALITIES]
    found = [sample for sample in ours if sample.modality not in _OLD]
    single = [sample for sample in found if not (sample.modality in _GATHERED and is_bundle(sample.data))]
    several = [sample for sample in found if sample not in single]
    each = -(-files * 2 // (3 * len(single)))
    for modality in sorted({sample.modality for sample in single}):
        folder = root / modality
        folder.mkdir(parents=True)
        for kind, sample in enumerate(sample for sample in single if sample.modality == modality):
            suffix = "".join(Path(sample.file).suffixes)
            for i in range(each + 1):
                data = _own_series(sample.data, kind, i) if modality == "dicom" else sample.data
                name = f"whole-{kind}" if i == each else f"{kind}-{i:05}"
                (folder / f"{name}{suffix}").write_bytes(data if i == each else damaged(data, chance))
        yield modality, folder, modality
    rest = files - each * len(single)
    for sample in several:
        folder = root / f"folders-{sample.file.replace('.', '-')}"
        for i in range(count := max(1, rest // (2 * len(several)))):
            members = members_of(sample.data)
            hurt = chance.choice(sorted(members)) if i + 1 < count else None
            for name, data in members.items():
                own = _own_series(data, 100, i) if sample.modality == "dicom" else data
                path = folder / f"{i:05}" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(damaged(own, chance) if name == hurt else own)
        yield folder.name, folder, sample.modality
    folder = root / "mixed"
    for i in range(count := max(2, rest // 2)):
        chosen = chance.sample([sample for sample in ours if sample.modality != "multimodal"], 3)
        parts = {sample.modality: sample for sample in chosen}
        hurt = chance.choice(sorted(parts)) if i + 1 < count else None
        for modality, sample in parts.items():
            path = folder / f"{i:05}" / f"{modality}.{modality}{''.join(Path(sample.file).suffixes)}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(damaged(sample.data, chance) if modality == hurt else sample.data)
    yield "mixed", folder, "multimodal"


def _own_series(data: bytes, kind: int, number: int) -> bytes:
    """The same DICOM file in a series of its own: copies of one would be slices of one volume."""
    made = pydicom.dcmread(io.BytesIO(data), force=True)
    made.SeriesInstanceUID = f"1.2.826.0.1.3680043.8.498.{kind + 1}.{number + 1}"
    buffer = io.BytesIO()
    made.save_as(buffer)
    return buffer.getvalue()


def daemon_of(workspace: Path) -> int:
    """Its process id."""
    return next(
        process.pid
        for process in psutil.process_iter()
        if "speciate.server.daemon" in (line := _command_line(process)) and str(workspace) in line
    )


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def ingest(client: Any, name: str, source: Path, modality: str) -> dict[str, Any]:
    """The job at its end. A refusal of the call is one, too."""
    try:
        job = client.call("create_dataset", name=name, source=str(source), modality=modality)["job"]
    except SpeciateError as error:
        return {"state": "refused", "error": {"message": error.message}}
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        view: dict[str, Any] = client.call("wait_for_job", job=job, timeout_seconds=45)
        if view["state"] in ("succeeded", "failed", "dead", "cancelled"):
            return view
    raise SystemExit(f"{name} hangs: {view}")


def accounted(client: Any, name: str, source: Path) -> set[str]:
    """Files and folders of the folder that the dataset says nothing of."""
    left = {path.name for path in source.iterdir()}
    cursor: str | None = None
    sql = "SELECT DISTINCT split_part(source, '#', 1) AS file FROM examples ORDER BY file"
    while True:
        page = client.call("query_dataset", dataset=name, sql=sql, limit=500, cursor=cursor)
        left -= {row[0].partition("/")[0] for row in page["untrusted"]["rows"]}
        cursor = page.get("next_cursor")
        if cursor is None:
            break
    return left


def broke(client: Any, name: str) -> list[list[str]]:
    """[source, reason] of examples on which a sandboxed process crashed, ran out of memory or took too long."""
    sql = "SELECT source, reason FROM examples WHERE reason LIKE 'The decoder failed on this file%' ORDER BY source"
    found: list[list[str]] = client.call("query_dataset", dataset=name, sql=sql, limit=500)["untrusted"]["rows"]
    return found


def kept(source: Path, example: str, folder: Path) -> None:
    """Copies what an example was made from, for a test of its own."""
    path, target = source / example, folder / f"{source.name}-{example.replace('/', '-')}"
    folder.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, target, dirs_exist_ok=True)
    elif path.is_file():
        shutil.copy(path, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--domains", action="store_true", help="of videos, volumes, shapes, molecules, mixed rows")
    parser.add_argument("--keep", type=Path, help="a folder for the files on which a decoder's process broke")
    arguments = parser.parse_args()
    keep: Path | None = arguments.keep and arguments.keep.absolute()
    began, lost, total = time.monotonic(), 0, Counter[str]()
    with tempfile.TemporaryDirectory() as root:
        workspace = Path(root) / "workspace"
        workspace.mkdir(mode=0o700)
        os.chdir(root)  # tools read below the caller's folder
        client = speciate.connect(workspace)
        client.call("get_status")
        pid = daemon_of(workspace)
        made = of_domains if arguments.domains else sources
        for name, source, modality in made(Path(root) / "files", arguments.files, random.Random(arguments.seed)):
            view = ingest(client, name, source, modality)
            if view["state"] != "succeeded":
                total[f"whole source {view['state']}"] += 1
                total["files"] += 1 if source.is_file() else len(list(source.iterdir()))
                if source.is_dir():
                    lost += len(list(source.iterdir()))
                    print(f"{name:22}{view['state']}: {view['error']['message']}")
                continue
            report = view["result"]["report"]
            counts = {quality: report[quality] for quality in ("ok", "partial", "refused", "error")}
            total.update(counts)
            total["files"] += 1 if source.is_file() else len(list(source.iterdir()))
            if source.is_dir():
                missing = accounted(client, name, source)
                lost += len(missing)
                print(f"{name:22}{counts}" + (f"  LOST {sorted(missing)[:3]}" if missing else ""))
                for example, reason in broke(client, name):
                    total["decoder broke"] += 1
                    print(f"    {example}: {reason}")
                    if keep:
                        kept(source, example, keep)
        assert daemon_of(workspace) == pid, "the daemon died"
    print(f"{dict(total)}, {lost} files lost, {time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f}")
    raise SystemExit(1 if lost or total["decoder broke"] else 0)


if __name__ == "__main__":
    main()
