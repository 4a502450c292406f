"""The modality of a third party, as docs/adding-a-modality.md shows it: found, ingested, trained."""

from __future__ import annotations

import io
import re
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from speciate import modalities, sandbox
from speciate.datasets.versions import version
from speciate.jobs import pool
from speciate.modalities.contract import DecodeError
from speciate.training.options import options, refused
from speciate.workspace.workspace import Workspace
from tests import data
from tests.training.world import train_now

PLUGIN = Path(__file__).parent / "plugin"
DOCS = Path(__file__).parents[2] / "docs" / "adding-a-modality.md"


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """On the path of this process and, as a package in site-packages would be, of every caged one."""
    readable = sandbox._readable
    start = f"import sys, runpy; sys.path.append({str(PLUGIN)!r}); sys.argv[0] = ''; "
    monkeypatch.setattr(sandbox, "_readable", lambda: [*readable(), PLUGIN])
    monkeypatch.setattr(
        pool,
        "python",
        lambda module, *arguments: [
            sys.executable, "-I", "-c", f"{start}runpy.run_module({module!r}, run_name='__main__')", *arguments
        ],
    )  # fmt: skip
    monkeypatch.syspath_prepend(PLUGIN)
    modalities._third_parties.cache_clear()
    yield
    modalities._third_parties.cache_clear()
    modalities._loaded.pop("audio", None)
    sys.modules.pop("speciate_audio", None)


def tone(pitch: float, seed: int = 0) -> bytes:
    """A fifth of a second at 8 kHz, with noise."""
    chance = np.random.default_rng(seed)
    sound = np.sin(2 * np.pi * pitch * np.arange(1600) / 8000) + chance.normal(0, 0.3, 1600)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes((sound * 8000).astype("<i2").tobytes())
    return buffer.getvalue()


def test_it_is_found_and_can_be_trained() -> None:
    assert modalities.find("audio").name == "audio"
    assert "classical" in {option.method for option in options("audio")}
    assert "classical" not in {option.method for option, _ in refused("audio")}


def test_what_cannot_describe_itself_is_not_trained_classically(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(modalities.find("audio")), "describe", None)
    assert options("audio") == []
    assert "classical" in {option.method for option, _ in refused("audio")}


def test_it_quarantines_what_is_shorter_than_declared() -> None:
    with pytest.raises(DecodeError) as raised:
        modalities.find("audio").decode(tone(440)[:2000])
    assert raised.value.quality == "partial"


def test_it_is_ingested_and_learned(workspace: Workspace, tmp_path: Path) -> None:
    for i in range(60):
        path = tmp_path / "tones" / ("low", "high")[i % 2] / f"{i:02}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tone(1500 if i % 2 else 300, seed=i))
    path.write_bytes(path.read_bytes()[:2000])
    manifest = data.ingest(workspace, "tones", source=tmp_path / "tones", label="folder")
    assert manifest.modality == "audio"
    assert version(workspace.database, "tones").report["partial"] == 1
    report = train_now(workspace, name="ear", dataset="tones", method="classical")["report"]
    assert report["validation"]["value"] > 0.9


def test_the_page_shows_this_very_file() -> None:
    shown = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert shown == [(PLUGIN / "speciate_audio.py").read_text()]
    assert (PLUGIN / "speciate_audio-0.1.dist-info" / "entry_points.txt").read_text().splitlines()[
        1
    ] in DOCS.read_text().replace('"', "")
    assert len(shown[0].splitlines()) < 80
