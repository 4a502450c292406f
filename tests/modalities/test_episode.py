"""What is special about episodes: cameras on clocks of their own, windows of several arrays, what recordings lack."""

from __future__ import annotations

import numpy as np
import pytest

from speciate.modalities.contract import DecodeError
from speciate.modalities.robotics.episode import EPISODE, Episode, frames_of_steps
from speciate.modalities.robotics.episode_files import EpisodeFiles, write
from speciate.modalities.video import footage
from tests.modalities import episode_samples
from tests.modalities.episode_samples import FILES, FPS, files, mcap_json, path, pictures


def refusal(data: bytes) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        EPISODE.decode(data)
    return caught.value


def test_steps_actions_and_frames_come_back() -> None:
    made, media = files(), EPISODE.decode(FILES["reach.episode"])
    assert (media["state"] == made.state).all()
    assert (media["action"] == made.action).all()
    assert media["times"] == pytest.approx(made.times)
    camera = media["cameras"]["top"]
    assert camera["steps"].tolist() == list(range(24))
    assert np.abs(camera["frames"].astype(int) - np.stack(pictures(path()))).mean() < 4  # compressed


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_window_reads_the_same_steps_as_the_whole(name: str) -> None:
    """Also where a video must be read from a keyframe before it."""
    whole = EPISODE.decode(FILES[name])
    for start, stop in ((0, 5), (3, 9), (7, 400)):
        part, cut = EPISODE.decode_window(FILES[name], start, stop), EPISODE.window(whole, start, stop)
        for key in ("state", "action"):
            assert (part[key] == cut[key]).all()
        for camera in whole["cameras"]:
            assert (seen(part, camera) == seen(cut, camera)).all()
            steps = slice(start, start + len(part["times"]))
            assert (seen(part, camera) == seen(whole, camera)[steps]).all()


def seen(media: Episode, camera: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return media["cameras"][camera]["frames"][frames_of_steps(media, camera)]


def test_windows_put_together_are_the_whole() -> None:
    media = EPISODE.decode(FILES["json.mcap"])
    parts = [EPISODE.window(media, start, stop) for start, stop in ((0, 7), (7, 8), (8, 24))]
    assert (np.concatenate([part["state"] for part in parts]) == media["state"]).all()
    assert (np.concatenate([seen(part, "camera.top") for part in parts]) == seen(media, "camera.top")).all()
    assert all(part["times"][0] == 0 for part in parts)


def test_a_camera_that_starts_late_and_runs_slower_shows_each_step_what_it_saw() -> None:
    """Its clock is its own: steps say when on it they were taken."""
    way = path(24)
    shown = pictures(way)[::2]
    video = footage.encode(shown, [place / 5 for place in range(12)], 5)
    times = np.repeat(np.arange(12) / 5, 2)
    made = files()._replace(videos={"top": video}, video_times={"top": times})
    media = EPISODE.decode(write(made))
    assert media["cameras"]["top"]["steps"].tolist() == list(range(0, 24, 2))
    late = seen(media, "top")
    assert np.abs(late[5].astype(int) - shown[2]).mean() < 4


def test_an_index_shared_by_cameras_would_show_the_wrong_frame() -> None:
    """The check of the checks: moved by two frames, the times no longer give what each step saw."""
    made = files()
    moved = made._replace(video_times={"top": np.maximum(made.times - 0.2, 0)})
    assert not (seen(EPISODE.decode(write(moved)), "top") == seen(EPISODE.decode(write(made)), "top")).all()


def test_a_long_episode_keeps_every_stride_th_frame_and_its_windows_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("speciate.modalities.robotics.episode._MOST_FRAME_BYTES", 3 * 32 * 32 * 10)
    media = EPISODE.decode(FILES["reach.episode"])
    assert media["cameras"]["top"]["steps"].tolist() == list(range(0, 24, 3))
    assert len(EPISODE.decode_window(FILES["reach.episode"], 4, 12)["cameras"]["top"]["frames"]) == 8


def test_copies_in_another_codec_are_the_same_episode_and_other_actions_another() -> None:
    made = files()
    again = made._replace(videos={"top": footage.encode([p // 2 for p in pictures(path())], made.times.tolist(), FPS)})
    other = made._replace(action=made.action + 0.01)
    one, two, three = (EPISODE.fingerprint(EPISODE.decode(write(each))) for each in (made, again, other))
    assert one == two != three


@pytest.mark.parametrize(
    ("changed", "quality", "said"),
    [
        ({"meta": {"steps": 30}}, "partial", "24 steps where 30 are declared"),
        ({"meta": {"cameras": ("top", "wrist")}}, "partial", "camera 'wrist' has no video"),
        ({"meta": {"faults": ("The video 'a.mp4' is missing.",)}}, "partial", "'a.mp4' is missing"),
        ({"video": slice(0, 20)}, "partial", "no frame for 4 of 24 steps, first for step 20"),
        ({"action": np.nan}, "error", "action is no number in 1 of 24 steps, first in 3"),
        ({"state": np.inf}, "error", "state is no number in 1 of 24 steps, first in 3"),
        ({"times": 0.0}, "error", "timestamp of step 3 is not later"),
    ],
)
def test_what_is_missing_is_named(changed: dict[str, object], quality: str, said: str) -> None:
    made = files()
    if "meta" in changed:
        made = made._replace(meta=made.meta.model_copy(update=changed["meta"]))  # type: ignore[arg-type]
        made = made if "cameras" not in changed["meta"] else with_camera(made)  # type: ignore[operator]
    if "video" in changed:
        part = changed["video"]
        assert isinstance(part, slice)
        video = footage.encode(pictures(path())[part], made.times[part].tolist(), FPS)
        made = made._replace(videos={"top": video})
    for name in ("action", "state", "times"):
        if name in changed:
            values = getattr(made, name).copy()
            values[3] = changed[name]
            made = made._replace(**{name: values})
    found = refusal(write(made))
    assert found.quality == quality
    assert said in found.detail


def with_camera(made: EpisodeFiles) -> EpisodeFiles:
    return made._replace(video_times={**made.video_times, "wrist": made.times})


def test_a_damaged_video_is_partial() -> None:
    made = files()
    video = bytearray(made.videos["top"])
    begin, end = video.index(b"mdat"), video.index(b"moov")
    video[(begin + end) // 2 : end - 8] = bytes(end - 8 - (begin + end) // 2)
    found = refusal(write(made._replace(videos={"top": bytes(video)})))
    assert found.quality in ("partial", "error")
    assert "'top'" in found.detail


def test_an_mcap_file_on_one_clock_holds_the_nearest_previous_values() -> None:
    """Commands at 10 Hz are the clock; joints at 20 Hz and images at 5 Hz count with their last message."""
    media, way = EPISODE.decode(FILES["json.mcap"]), path()
    assert media["about"]["action"] == ["arm/command.velocity.x", "arm/command.velocity.y"]
    assert media["about"]["state"] == ["joints.position.0", "joints.position.1"]
    assert media["about"]["fps"] == pytest.approx(10)
    assert media["state"] == pytest.approx(way)  # not those 50 ms later
    assert media["action"] == pytest.approx(way * [1, -1])
    assert seen(media, "camera.top").shape == (24, 32, 32, 3)


def test_a_truncated_mcap_file_is_partial_and_says_how_many_messages_there_are() -> None:
    data = mcap_json(200)
    found = refusal(data[: len(data) // 2])
    assert found.quality == "partial"
    count = int(found.detail.split(":")[1].split()[0].replace(",", ""))
    assert 100 < count < 900


def test_an_mcap_file_whose_chunk_does_not_match_its_checksum_is_refused() -> None:
    data = bytearray(mcap_json())
    data[len(data) // 4] ^= 0xFF
    assert refusal(bytes(data)).quality in ("partial", "error")


def test_an_mcap_file_without_numbers_says_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "speciate.modalities.robotics.mcap._DECODERS", {"protobuf": ("not.there", "mcap-protobuf-support")}
    )
    found = refusal(episode_samples.mcap_protobuf())
    assert found.quality == "error"
    assert "24 of protobuf" in found.detail
    assert "pip install mcap-protobuf-support" in found.detail


def test_a_row_of_numbers_is_an_episode_without_cameras() -> None:
    media = EPISODE.admit({"state": [[0.0, 1.0], [2.0, 3.0]], "fps": 5})
    assert media["state"].tolist() == [[0, 1], [2, 3]]
    assert media["action"].shape == (2, 0)
    with pytest.raises(DecodeError, match="2 steps of state and 1 of action"):
        EPISODE.admit({"state": [[0.0], [1.0]], "action": [[1.0]]})
