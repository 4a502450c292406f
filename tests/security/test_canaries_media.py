"""What files say of themselves (titles, comments, names of patients, names of members) comes back below `untrusted`
alone, of every medium that has such fields. Each is ingested for real, and then all that shows a dataset is asked.
"""

from __future__ import annotations

import io
import tarfile
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from speciate.jobs.engine import Engine
from speciate.jobs.pool import Pool
from speciate.sandbox import is_complete
from speciate.server.mcp.app import Server
from speciate.server.tool_api import App
from speciate.server.untrusted import clean
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests import data
from tests.modalities import dicom_samples, video_samples
from tests.security.canaries import leaks, planted
from tests.security.test_canaries import wrong

pytestmark = [
    pytest.mark.slow, pytest.mark.skipif(not is_complete(), reason="this kernel lacks a layer of the sandbox"),
]  # fmt: skip


def png(number: int) -> bytes:
    out, told = io.BytesIO(), PngInfo()
    told.add_text("Title", planted("title"))
    told.add_itxt("Description", planted("description"))
    pixels = np.random.default_rng(number).integers(0, 255, (32, 32), np.uint8)
    Image.fromarray(pixels).save(out, "PNG", pnginfo=told)
    return out.getvalue()


def wav(number: int) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        tone = np.sin(np.arange(16_000) * (0.02 + number / 50)) * 9000
        file.writeframes(tone.astype(np.int16).tobytes())
    said = planted("artist").encode()
    said += b"\0" * (2 - len(said) % 2)
    info = b"INFOIART" + len(said).to_bytes(4, "little") + said
    whole = out.getvalue() + b"LIST" + len(info).to_bytes(4, "little") + info
    return whole[:4] + (len(whole) - 8).to_bytes(4, "little") + whole[8:]


def mp4(number: int) -> bytes:
    import av

    whole = video_samples.encode(video_samples.moving(number, (1, 0), count=12))
    out = io.BytesIO()
    with av.open(io.BytesIO(whole)) as read, av.open(out, "w", format="mp4") as written:
        written.metadata["title"] = planted("film")
        stream = written.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                written.mux(packet)
    assert b"zqfilmqz" in out.getvalue()
    return out.getvalue()


def dicom(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 900, (16, 16)).astype(np.int16)
    said = {each: planted(each.lower())[:60].replace("\u202e", "") for each in ("PatientName", "StudyDescription")}
    uids = {
        "SOPInstanceUID": dicom_samples.uid(9, 1, number + 1),
        "SeriesInstanceUID": dicom_samples.uid(8, number + 1),
    }
    return dicom_samples.encoded(dicom_samples.dataset(pixels, SpecificCharacterSet="ISO_IR 192", **said, **uids))


ASKED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("describe_dataset", {}),
    ("query_dataset", {"limit": 100}),
    ("preview_dataset", {}),
    ("preview_dataset", {"where": "quality <> 'ok'"}),
    ("curate_dataset", {"steps": [{"op": "sample", "n": 2}]}),
    ("plan_training", {"task": "image-classification"}),
)
MAKERS: dict[str, Callable[[int], bytes]] = {"png": png, "wav": wav, "mp4": mp4, "dcm": dicom}


@pytest.mark.parametrize("suffix", MAKERS)
def test_what_a_file_says_of_itself_is_data(suffix: str, tmp_path: Path) -> None:
    source = tmp_path / "set.tar.gz"
    with tarfile.open(source, "w:gz") as file:
        for number in range(4):
            content = MAKERS[suffix](number)
            member = tarfile.TarInfo(f"{'ab'[number % 2]}/{planted('member')} {number}.{suffix}")
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
        lost = tarfile.TarInfo(f"a/{planted('cut')}.{suffix}")
        content = MAKERS[suffix](9)[:150]
        lost.size = len(content)
        file.addfile(lost, io.BytesIO(content))
    workspace = Workspace(tmp_path / "workspace", settings=Settings())
    pool = Pool(workspace.folders, workspace.settings, size=1)
    server = Server(App(workspace, Engine(workspace), pool))
    try:
        assert leaks(clean(data.run_job(workspace, "ingest", name="set", source=str(source)), 12_000)) == []
        for tool, more in ASKED:
            result = server.call(tool, {"dataset": "set", **more})
            assert wrong(result) == [], result
            if tool == "query_dataset":
                assert result.structured_content is not None
                rows = result.structured_content["untrusted"]["rows"]
                assert sum("zqmemberqz" in str(row) for row in rows) == 4
    finally:
        pool.close()
        workspace.close()
