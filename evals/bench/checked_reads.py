"""What it costs that files are compared with their hashes when a process first reads them: interleaved pairs.

    python evals/bench/checked_reads.py [ROWS] [PAIRS]

Each arm is a fresh process that reads the rows of one version (and, apart, the vectors of one extractor), once with the
check and once without; the file lies in the page cache for both. Also the cost of writing a seal.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from speciate import features
from speciate.datasets import version_rows
from speciate.datasets.content_hash import seal_rows
from speciate.datasets.versions import Manifest, Part
from speciate.workspace import integrity
from speciate.workspace.workspace import Folders

_WIDTH = 384


def prepare(root: Path, rows: int) -> None:
    folders = Folders(root)
    folders.make()
    chance = np.random.default_rng(0)
    words = np.array([f"word{number}" for number in range(20_000)])
    texts = [" ".join(line) for line in words[chance.integers(0, len(words), (rows, 12))]]
    columns = {
        "id": [f"example-{number:08d}" for number in range(rows)], "split": ["train"] * rows, "quality": ["ok"] * rows,
        "text": texts, "value": chance.normal(size=rows),
    }  # fmt: skip
    file = seal_rows(pa.table(columns), folders.datasets / "bench")
    manifest = Manifest(
        name="bench", version=1, id="bench", modality="text", rows=rows, columns={"text": "VARCHAR"},
        parts=(Part(file=file.relative_to(root).as_posix(), rows=rows),),
    )  # fmt: skip
    (root / "manifest.json").write_text(manifest.model_dump_json())
    vectors = chance.normal(size=(rows // 4, _WIDTH)).astype(np.float32)
    keys = [f"{number:08d}:" for number in range(len(vectors))]
    features.write(folders, "bench", keys, vectors)
    (root / "keys.json").write_text(json.dumps(keys))


def read(root: Path, checked: bool) -> None:
    """One arm: prints seconds of CPU for the rows and for the vectors."""
    if not checked:
        integrity.check = lambda *_, **__: None
    folders, manifest = Folders(root), Manifest.model_validate_json((root / "manifest.json").read_text())
    keys = json.loads((root / "keys.json").read_text())
    began = time.process_time()
    version_rows.read(folders, manifest)
    middle = time.process_time()
    features.read(folders, "bench", keys)
    print(json.dumps([middle - began, time.process_time() - middle]))


def main(rows: int, pairs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prepare(root, rows)
        found: dict[str, list[list[float]]] = {"checked": [], "unchecked": []}
        for number in range(2 * pairs):
            arm = ("checked", "unchecked")[(number + number // 2) % 2]
            argv = [sys.executable, __file__, "--arm", arm, folder]
            found[arm].append(json.loads(subprocess.run(argv, check=True, capture_output=True).stdout))
        sizes = [
            sum(path.stat().st_size for path in root.glob(f"{name}/*/*")) / 1e6 for name in ("datasets", "features")
        ]
        for place, what in enumerate(("rows", "vectors")):
            ratios = [a[place] / b[place] for a, b in zip(found["checked"], found["unchecked"], strict=True)]
            with_, without = (statistics.median(each[place] for each in found[arm]) for arm in found)
            print(
                f"{what}: {sizes[place]:.0f} MB, {with_:.3f} s of CPU with the check, {without:.3f} s without, "
                f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}, {pairs} pairs)"
            )


if __name__ == "__main__":
    if "--arm" in sys.argv:
        read(Path(sys.argv[3]), sys.argv[2] == "checked")
    else:
        given = [int(each) for each in sys.argv[1:]]
        main(*(given + [400_000, 8][len(given) :]))
