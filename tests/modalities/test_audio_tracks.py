"""The sound of videos as recordings: what is heard is what was put in, and a track that ends early is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from speciate.datasets.loading.loader import load_examples
from speciate.datasets.versions import resolve
from speciate.modalities.audio import AUDIO
from speciate.modalities.contract import DecodeError
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.operations.world import read
from tests.modalities.samples import chirp, sound
from tests.modalities.video_samples import encode, panned, sound_file


def alike(heard: npt.NDArray[np.float32], said: npt.NDArray[np.float32]) -> float:
    """The correlation of two recordings at the shift where it is largest: encoders put some silence in front."""
    size = len(heard) + len(said)
    spectra = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(said, size))
    return float(np.fft.irfft(spectra, size).max() / (np.linalg.norm(heard) * np.linalg.norm(said)))


@pytest.mark.parametrize(
    ("format_", "codec"), [("mp4", "libx264"), ("mov", "libx264"), ("webm", "libvpx-vp9"), ("avi", "mpeg4")]
)
def test_what_is_heard_of_a_video_is_what_was_said(format_: str, codec: str) -> None:
    film = encode(panned(), format_, codec, sound=chirp())
    assert alike(AUDIO.decode(film), chirp()) > 0.95
    fields = AUDIO.inspect(film).fields
    assert fields["seconds"] == pytest.approx(0.6, abs=0.4)
    assert fields["channels"] == 1
    assert not AUDIO.sniff(film[:4096], f"film.{format_}")


def test_a_file_of_sound_alone_is_a_recording() -> None:
    file = sound_file(chirp())
    assert alike(AUDIO.decode(file), chirp()) > 0.95
    assert AUDIO.inspect(file).fields["format"] == "aac in mp4"


def test_a_video_without_sound_is_none() -> None:
    with pytest.raises(DecodeError, match="It has no audio"):
        AUDIO.decode(encode(panned(4)))


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_a_track_that_ends_early_is_told(share: float) -> None:
    film = encode(panned(), sound=np.tile(chirp(), 3), index_first=True)
    with pytest.raises(DecodeError) as raised:
        AUDIO.decode(film[: int(len(film) * share)])
    assert raised.value.quality == "partial"


def test_packets_that_do_not_decode_are_counted() -> None:
    film = bytearray(encode(panned(4), sound=np.tile(chirp(), 3)))
    start = film.index(b"mdat") + 4
    film[start + 2000 : start + 6000 : 7] = bytes(len(range(start + 2000, start + 6000, 7)))
    with pytest.raises(DecodeError) as raised:
        AUDIO.decode(bytes(film))
    assert raised.value.quality == "partial"


def test_a_folder_of_videos_becomes_recordings_where_sound_is_asked_for(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    for number in range(4):
        said = chirp(0.5 + number / 10)
        (folder / f"{number}.mp4").write_bytes(encode(panned(6), sound=said))
    (folder / "four.wav").write_bytes(sound("WAV", chirp(0.3)))
    (folder / "labels.csv").write_text("file,kind\n0,a\n1,b\n2,a\n3,b\nfour,a\n")
    labels = {"path": str(folder / "labels.csv"), "key": "file", "column": "kind"}
    data.ingest(workspace, "set", source=folder, modality="audio", labels=labels)
    manifest = resolve(workspace.database, "set")
    assert manifest.modality == "audio"
    assert set(read(workspace, "set")["quality"].to_pylist()) == {"ok"}
    lengths = sorted(len(example.media) for example in load_examples(workspace.folders, manifest))
    assert lengths == pytest.approx([4800, 8000, 9600, 11200, 12800], abs=3200)
