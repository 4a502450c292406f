"""A PNG of 16 bits, written byte by byte, is answered elsewhere as here: by each kind of card, as the card stands."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from speciate.environment import clean_environment
from speciate.exports.card_check import compare, program_of
from speciate.modalities.image import IMAGE
from speciate.models import registry
from speciate.tasks import predictor
from speciate.workspace.workspace import Workspace
from tests.exports.test_elsewhere import NETWORKS, as_examples, exported, needs_onnx, registered

pytestmark = pytest.mark.slow
pytest.importorskip("torch")
_TOLD = """
import json
print("TOLD " + json.dumps({"answers": answers, "scores": globals().get("scores"), "found": globals().get("found")}))
"""


def png_of_16_bits(values: npt.NDArray[np.uint16]) -> bytes:
    """Of (H, W) gray values, with no library of images."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    high, wide = values.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    header = struct.pack(">IIBBBBB", wide, high, 16, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def told(folder: Path, inputs: str) -> dict[str, Any]:
    """What the card's lines give, with another line of inputs, in a process with an empty path of modules."""
    program, count = re.subn(r"^inputs = .*$", lambda _: inputs, program_of(folder), flags=re.MULTILINE)
    assert count == 1
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, '.')\n{program}\n{_TOLD}"], cwd=folder,
        env={**clean_environment(), "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("TOLD "))
    found: dict[str, Any] = json.loads(line.removeprefix("TOLD "))
    return found


@pytest.mark.parametrize(
    ("name", "form", "opened"),
    [
        ("image", "transformers", 'Image.open("{}")'),
        ("image", "onnx", 'Image.open("{}")'),
        ("boxes", "sealed", 'Path("{}")'),
    ],
)
@needs_onnx
def test_a_png_of_16_bits_is_answered_elsewhere_as_here(
    workspace: Workspace, tmp_path: Path, name: str, form: str, opened: str
) -> None:
    registered(workspace, tmp_path, NETWORKS[name])
    more = {"format": "onnx"} if form == "onnx" else {}
    assert exported(workspace, tmp_path / "out", **more)["report"]["form"] == form
    rng = np.random.default_rng(5)
    files = []
    for number in range(4):
        coarse = rng.integers(0, 65536, (5, 6)).astype(np.uint16) >> number  # ever darker
        files.append(tmp_path / f"deep{number}.png")
        files[-1].write_bytes(png_of_16_bits(np.kron(coarse, np.ones((7, 8), np.uint16))))
    media = [IMAGE.decode(file.read_bytes()) for file in files]
    assert len({int(each.max()) for each in media}) == 4, "none is clipped"
    version = registry.resolve(workspace.database, workspace.folders, "own")
    ours = predictor.load(version.path).predict(as_examples(media))
    listed = ", ".join(opened.format(file) for file in files)
    found = compare(told(tmp_path / "out", f"from pathlib import Path; inputs = [{listed}]"), ours)
    assert found.n == 4
