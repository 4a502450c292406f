"""The loader beside torchvision's ImageFolder and Hugging Face `datasets`: images per second with as many workers.

All three give shuffled batches of 64 as one torch tensor from the same JPEG files, decoded by Pillow: as they are
(uint8), and brought to 224 pixels and scaled to [0, 1] (float32, Resize and ToTensor), where the values are first
checked to be equal. Ours decodes in a sandbox and checks every file's sha256; the others do neither. Workers stay alive
between epochs; the first epoch, which starts them, is not counted. Rounds are interleaved in an order that turns.

Then a table of a million rows, shuffled, each side in a process of its own: rows per second and the peak of memory.

    pip install torchvision datasets
    python evals/bench/loader.py [--images 3000] [--rounds 5] [--workers 2] [--rows 1000000]
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from figures import note
from PIL import Image
from torch.utils.data import DataLoader

from speciate.datasets.columns import CONTENT, FINGERPRINT, KEY, SKETCH, START, STOP
from speciate.datasets.loading.stream import Stream
from speciate.datasets.next_version import seal_first
from speciate.datasets.versions import Manifest
from speciate.workspace.packs import PackWriter
from speciate.workspace.workspace import Folders

BATCH, SIDE, SMALL = 64, 256, 224
Epoch = Callable[[], Iterable[torch.Tensor]]


def make_images(folder: Path, count: int) -> None:
    """JPEGs of SIDE pixels with some structure and some noise, in ten folders."""
    chance = np.random.default_rng(0)
    rough = [chance.integers(0, 256, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8) for _ in range(40)]
    bases = [np.asarray(Image.fromarray(values).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for values in rough]
    for i in range(count):
        noisy = bases[i % 40].astype(np.int16) + chance.integers(-12, 13, (SIDE, SIDE, 3), dtype=np.int16)
        path = folder / str(i % 10) / f"{i:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(noisy.clip(0, 255).astype(np.uint8), i, axis=1)).save(path, quality=90)


def sealed(folders: Folders, modality: str, rows: dict[str, Any], **roles: Any) -> Manifest:
    """A version of these rows, all in the split `train`."""
    count = len(rows["id"])
    fixed = {"split": ["train"] * count, "quality": ["ok"] * count, "source": rows["id"], FINGERPRINT: rows["id"]}
    text = {"label": None, "group_key": None, "reason": None, CONTENT: None, KEY: None} | fixed | rows
    empty = {name: pa.nulls(count, pa.string()) for name, cells in text.items() if cells is None}
    table = pa.table(
        text
        | empty
        | {SKETCH: pa.nulls(count, pa.binary())}
        | {name: pa.nulls(count, pa.float64()) for name in (START, STOP)}
    )
    blank = Manifest(name="bench", version=0, id="", modality=modality, parts=(), columns={}, rows=0, **roles)
    return seal_first(folders, table, blank).manifest


def image_version(folders: Folders, folder: Path) -> Manifest:
    files = sorted(folder.rglob("*.jpg"))
    with PackWriter(folders.packs) as writer:
        contents = [writer.add(file.read_bytes()) for file in files]
        pack = writer.seal().relative_to(folders.root).as_posix()
    names = [file.relative_to(folder).as_posix() for file in files]
    return sealed(
        folders, "image", {"id": names, "label": [file.parent.name for file in files], CONTENT: contents}, packs=(pack,)
    )


def ours(stream: Stream, small: bool) -> Iterator[torch.Tensor]:
    for batch in stream:
        pixels = torch.from_numpy(np.stack([example.media for example in batch]))
        yield (
            pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255)
            if small
            else pixels
        )


def image_folder(folder: Path, workers: int, small: bool) -> Epoch:
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    steps = [transforms.Resize(SMALL), transforms.ToTensor()] if small else [np.array]
    return _epochs(ImageFolder(str(folder), transforms.Compose(steps)), workers, 0)


def hugging_face(folder: Path, workers: int, small: bool, cache: Path) -> Epoch:
    from datasets import disable_progress_bars, load_dataset
    from torchvision import transforms

    disable_progress_bars()
    steps = [transforms.Resize(SMALL), transforms.ToTensor()] if small else [np.array]
    transform = transforms.Compose(steps)
    loaded = load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(cache), split="train")
    loaded.set_transform(partial(_transformed, transform))
    return _epochs(loaded, workers, "image")


def _transformed(transform: Callable[[Any], Any], batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {"image": [transform(image.convert("RGB")) for image in batch["image"]], "label": batch["label"]}


def _epochs(data: Any, workers: int, which: int | str) -> Epoch:
    loader = DataLoader(data, BATCH, shuffle=True, num_workers=workers, persistent_workers=True)
    return lambda: (batch[which] for batch in loader)


def rate(epoch: Epoch, count: int) -> float:
    """Images per second; every batch is touched."""
    began, seen = time.perf_counter(), 0
    for pixels in epoch():
        seen += len(pixels)
    assert seen == count
    return count / (time.perf_counter() - began)


def check_equal(folder: Path, stream: Stream) -> None:
    from torchvision import transforms

    theirs = transforms.Compose([transforms.Resize(SMALL), transforms.ToTensor()])
    for example in next(iter(stream)):
        mine = torch.from_numpy(example.media).permute(2, 0, 1).float().div(255)
        assert torch.equal(mine, theirs(Image.open(folder / example.id).convert("RGB")))


def race_images(folders: Folders, folder: Path, count: int, rounds: int, workers: int) -> None:
    manifest = image_version(folders, folder)
    for small in (False, True):
        size = (SMALL, SMALL) if small else None
        if small and importlib.util.find_spec("torchvision"):
            with Stream(folders, manifest, batch=BATCH, workers=workers, size=size) as stream:
                check_equal(folder, stream)
        with Stream(folders, manifest, batch=BATCH, workers=workers, size=size) as stream:
            sides: dict[str, Epoch] = {"speciate": partial(ours, stream, small)}
            if importlib.util.find_spec("torchvision"):  # else both peers are left out
                sides["ImageFolder"] = image_folder(folder, workers, small)
                sides["datasets"] = hugging_face(folder, workers, small, folders.cache / "hf")
            for epoch in sides.values():
                rate(epoch, count)
            names, rates = list(sides), []
            for number in range(rounds):
                turned = names[number % len(names) :] + names[: number % len(names)]
                rates.append({name: rate(sides[name], count) for name in turned})
        print("224 pixels, float32:" if small else "as they are, uint8:")
        for name in names:
            ratio = statistics.median(each["speciate"] / each[name] for each in rates)
            if name != "speciate":
                size = f"{SMALL} pixels" if small else "as they are"
                mine, theirs = ([each[one] for each in rates] for one in ("speciate", name))
                note(f"loader, {size}", mine, theirs, unit="images/s", peer=name, more=True, goal=1.0)
            print(
                f"  {name:12} {statistics.median(each[name] for each in rates):7.0f} images/s, "
                f"speciate / it {ratio:.2f}"
            )


def table_version(folders: Folders, count: int) -> Manifest:
    chance = np.random.default_rng(0)
    numbers = {f"x{i}": chance.random(count) for i in range(5)}
    rows = {"id": [f"{i:016x}" for i in range(count)], "label": chance.choice(["a", "b", "c"], count), **numbers}
    return sealed(folders, "tabular", rows, inputs=tuple(numbers))


def stream_tables(root: Path, manifest: Manifest) -> Iterator[int]:
    with Stream(Folders(root), manifest, batch=1024) as stream:
        yield from (table.num_rows for table in stream.tables())


def stream_examples(root: Path, manifest: Manifest) -> Iterator[int]:
    with Stream(Folders(root), manifest, batch=1024) as stream:
        yield from map(len, stream)


def datasets_rows(root: Path, manifest: Manifest, kind: str | None) -> Iterator[int]:
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    files = [str(root / part.file) for part in manifest.parts]
    loaded = Dataset.from_parquet(files, cache_dir=str(root / "cache" / "hf")).shuffle(seed=0)
    for batch in loaded.with_format(kind).iter(1024):
        yield len(batch["id"])


def measured(side: Callable[[Path, Manifest], Iterator[int]], root: Path, manifest: Manifest, answer: Any) -> None:
    """Rows per second from opening on, seconds to the first batch, and the peak of private memory in MiB."""
    before, peak, ended = _private(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.005):
            peak = max(peak, _private())

    threading.Thread(target=watch, daemon=True).start()
    began = time.perf_counter()
    counts = side(root, manifest)
    seen = next(counts)
    opened = time.perf_counter()
    seen += sum(counts)
    done = time.perf_counter()
    ended.set()
    answer.put((seen / (done - began), opened - began, (peak - before) / 2**20))


def _private() -> int:
    """Bytes of this process's memory that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def race_rows(folders: Folders, count: int, rounds: int) -> None:
    manifest = table_version(folders, count)
    sides = {
        "speciate, tables": stream_tables,
        "datasets, arrow": partial(datasets_rows, kind="arrow"),
        "speciate, examples": stream_examples,
        "datasets, python": partial(datasets_rows, kind=None),
    }
    spawn = multiprocessing.get_context("spawn")
    results: dict[str, list[tuple[float, float, float]]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            answer = spawn.Queue()
            process = spawn.Process(target=measured, args=(side, folders.root, manifest, answer))
            process.start()
            results[name].append(answer.get(timeout=300))
            process.join()
    print(
        f"{count:,} rows of 5 numbers, batches of 1024, shuffled; opening included, memory above that of the imports; "
        "the first run of datasets fills its cache"
    )
    for name, runs in results.items():
        speed, opening, peak = (statistics.median(values) for values in zip(*runs, strict=True))
        print(f"  {name:18} {speed:9,.0f} rows/s, first batch after {opening:.2f} s, peak {peak:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"images": 3000, "rounds": 5, "workers": 2, "rows": 1_000_000}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {wanted.workers} workers, {wanted.rounds} rounds, "
        "medians"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folders = Folders(Path(temporary) / "workspace")
        folders.make()
        if wanted.images:
            make_images(Path(temporary) / "images", wanted.images)
            race_images(folders, Path(temporary) / "images", wanted.images, wanted.rounds, wanted.workers)
        if wanted.rows:
            race_rows(folders, wanted.rows, min(wanted.rounds, 3))


if __name__ == "__main__":
    main()
