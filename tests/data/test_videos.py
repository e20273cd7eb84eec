"""Videos of every kind that people have, against the pictures that they were made of."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from made_videos import pictures, shift_packets, write_video

from msst_keras.data import image_files, videos

TURN = 65536
# What phones write -> the picture that is shown of a stored one.
TURNS = {
    (0, TURN, 0, -TURN, 0, 0, 0, 0, 1 << 30): lambda image: np.rot90(image, -1),
    (-TURN, 0, 0, 0, -TURN, 0, 0, 0, 1 << 30): lambda image: np.rot90(image, 2),
    (0, -TURN, 0, TURN, 0, 0, 0, 0, 1 << 30): lambda image: np.rot90(image),
    (-TURN, 0, 0, 0, TURN, 0, 0, 0, 1 << 30): lambda image: image[:, ::-1],
    (TURN, 0, 0, 0, -TURN, 0, 0, 0, 1 << 30): lambda image: image[::-1],
    (0, TURN, 0, TURN, 0, 0, 0, 0, 1 << 30): lambda image: image.swapaxes(0, 1),
    (0, -TURN, 0, -TURN, 0, 0, 0, 0, 1 << 30): lambda image: np.rot90(image.swapaxes(0, 1), 2),
}


def read(path):
    frames = list(videos.read_video(path))
    return [frame.image for frame in frames], [frame.seconds for frame in frames]


def assert_alike(decoded, expected, tolerance=3.0):
    assert len(decoded) == len(expected)
    for one, other in zip(decoded, expected, strict=True):
        assert one.dtype == np.uint8 and one.shape == other.shape and one.flags.c_contiguous
        assert np.abs(one.astype(float) - other).mean() < tolerance


@pytest.mark.parametrize(
    "name, codec, pixels, options",
    [
        ("h264.mp4", "libx264", "yuv420p", {}),
        ("full.mp4", "libx264", "yuvj420p", {}),
        ("444.mp4", "libx264", "yuv444p", {}),
        ("ten.mp4", "libx265", "yuv420p10le", {"x265-params": "log-level=none"}),
        ("vp9.webm", "libvpx-vp9", "yuv420p", {}),
        ("jpeg.avi", "mjpeg", "yuvj420p", {"q:v": "2", "b": "9000000"}),
        ("exact.mkv", "ffv1", "bgr0", {}),
        ("dvd.mpg", "mpeg2video", "yuv420p", {"b": "4000000"}),
        ("raw.h264", "libx264", "yuv420p", {}),
        ("stream.ts", "libx264", "yuv420p", {}),
    ],
)
def test_frames_are_those_that_were_encoded(tmp_path, name, codec, pixels, options):
    rate = 25 if name == "dvd.mpg" else 10
    expected = list(pictures(12))
    path = write_video(tmp_path / name, expected, rate, codec=codec, pixels=pixels, options=options)
    decoded, seconds = read(path)
    assert_alike(decoded, expected, 0.1 if codec == "ffv1" else 5.0)
    np.testing.assert_allclose(seconds, np.arange(12) / rate, atol=0.002)
    facts = videos.probe_video(path)
    assert (facts.num_frames, facts.frame_rate, facts.sample_aspect) == (12, rate, 1)


@pytest.mark.parametrize("matrix, turn", TURNS.items())
def test_turned_and_mirrored_videos_are_shown_as_players_do(tmp_path, matrix, turn):
    expected = list(pictures(3))
    path = write_video(tmp_path / "phone.mp4", expected, matrix=matrix, aspect=Fraction(3, 2))
    assert_alike(read(path)[0], [turn(image) for image in expected])
    is_upright = turn(expected[0]).shape == expected[0].shape
    assert videos.probe_video(path).sample_aspect == (Fraction(3, 2) if is_upright else Fraction(2, 3))


def test_an_oblique_turn_is_refused(tmp_path):
    matrix = (56756, 32768, 0, -32768, 56756, 0, 0, 0, 1 << 30)
    path = write_video(tmp_path / "oblique.mp4", pictures(2), matrix=matrix)
    with pytest.raises(ValueError, match="oblique.mp4: is to be shown turned by an angle that is no multiple of 90"):
        read(path)


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_interlaced_frames_are_written_and_show_one_moment(tmp_path, codec):
    moments = list(pictures(40, (96, 128)))
    woven = []
    for first, second in zip(moments[::2], moments[1::2], strict=True):
        woven.append(first.copy())
        woven[-1][1::2] = second[1::2]
    path = write_video(
        tmp_path / "camcorder.mp4", woven, 25, codec=codec, options={"flags": "+ildct+ilme", "b": "8000000", "crf": "1"}
    )
    decoded, _ = read(path)
    assert_alike(decoded, woven)
    assert _comb(decoded) < 0.6 * _comb(woven)
    np.testing.assert_array_equal(decoded, read(path)[0])


def _comb(frames):
    """How much each line differs from those above and below it, where the square moves."""
    lines = np.asarray(frames)[:, 26:46].astype(float)
    return np.abs(2 * lines[:, 1:-1] - lines[:, :-2] - lines[:, 2:]).mean()


def test_an_edit_list_hides_frames_and_is_no_damage(tmp_path):
    expected = list(pictures(40))
    whole = write_video(tmp_path / "whole.mp4", expected, options={"bf": "0", "g": "40"})
    path = shift_packets(whole, tmp_path / "trimmed.mp4", -1.5)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 40  # what the header counts
    decoded, seconds = read(path)
    assert_alike(decoded, expected[15:])
    np.testing.assert_allclose(seconds, np.arange(25) / 10, atol=1e-6)
    assert videos.probe_video(path) == videos.VideoFacts(25, Fraction(10), Fraction(1))


@pytest.mark.parametrize("name", ["screen.mkv", "screen.mp4", "screen.webm"])
def test_times_of_a_variable_rate_are_kept(tmp_path, name):
    times = [0, 0.04, 0.08, 0.5, 0.54, 3.0]
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    path = write_video(tmp_path / name, pictures(6), 25, times, codec)
    np.testing.assert_allclose(read(path)[1], times, atol=0.001)
    facts = videos.probe_video(path)
    assert facts.num_frames == 6 and facts.frame_rate == pytest.approx(5 / 3, rel=0.001)


def test_a_frame_an_hour_is_a_rate(tmp_path):
    """The nearest fraction of a denominator up to 1001 is 0 here, which no overlay can have."""
    path = write_video(tmp_path / "slow.mkv", pictures(3), 25, [0, 3600, 7200])
    assert read(path)[1] == [0, 3600, 7200]
    assert videos.probe_video(path).frame_rate == Fraction(1, 3600)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(tmp_path):
    path = write_video(tmp_path / "long.mp4", pictures(10_000), options={"preset": "ultrafast"})
    resident, count = {}, 0
    for count, _ in enumerate(videos.read_video(path), 1):  # noqa: B007
        if count in (1000, 10_000):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident[count] = pages * os.sysconf("SC_PAGE_SIZE")
    assert count == 10_000
    assert resident[10_000] - resident[1000] < 10 << 20


def test_longer_sound_is_no_damage(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream, sound = container.add_stream("libx264", rate=10), container.add_stream("aac", rate=8000)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for image in pictures(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode(None))
        for start in range(0, 5 * 8000, 1000):
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.float32), "fltp", "mono")
            samples.sample_rate, samples.pts = 8000, start
            container.mux(sound.encode(samples))
        container.mux(sound.encode(None))
    assert len(read(path)[0]) == 5 and videos.probe_video(path).num_frames == 5


def test_frames_that_change_their_size_become_those_of_the_first(tmp_path):
    parts = [write_video(tmp_path / f"{size[0]}.ts", pictures(5, size)) for size in ((48, 64), (96, 128))]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    decoded, seconds = read(path)
    assert [image.shape for image in decoded] == [(48, 64, 3)] * 10
    assert (np.diff(seconds) > 0).all()  # though the second part's times begin anew


def test_what_lies_before_the_first_key_frame_is_left_out(tmp_path):
    whole = write_video(tmp_path / "whole.ts", pictures(20), options={"g": "10", "bf": "0", "sc_threshold": "0"})
    path = tmp_path / "cut.ts"
    with av.open(str(whole)) as container:
        start = [packet.pos for packet in container.demux(video=0) if packet.size][3] // 188 * 188
    path.write_bytes(whole.read_bytes()[:376] + whole.read_bytes()[start:])
    decoded, _ = read(path)
    assert_alike(decoded, list(pictures(20))[10:])
    assert videos.probe_video(path).num_frames == 10


@pytest.mark.parametrize(
    "suffix, codec", [("mp4", "libx264"), ("mkv", "libx264"), ("avi", "mjpeg"), ("webm", "libvpx")]
)
def test_a_file_that_lacks_bytes_is_refused_at_once(tmp_path, suffix, codec):
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    muxer = {"movflags": "+faststart"} if suffix == "mp4" else {}
    path = write_video(tmp_path / f"clip.{suffix}", pictures(30), codec=codec, pixels=pixels, muxer=muxer)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(ValueError, match=rf"clip.{suffix}: cut off or damaged: has \d+ bytes, and its parts need \d+"):
        videos.probe_video(path)


def test_a_gif_that_lacks_frames_is_refused(tmp_path):
    path = write_video(tmp_path / "clip.gif", pictures(8), codec="gif", pixels="rgb8")
    assert len(read(path)[0]) == 8
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="clip.gif: cut off or damaged"):
        read(path)


def test_damage_in_the_middle_is_refused(tmp_path):
    path = write_video(tmp_path / "clip.mp4", pictures(20, (96, 128)), codec="mpeg4", options={"g": "5"})
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    position, size = packets[10]
    content[position : position + size] = bytes(size)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"clip.mp4: cut off or damaged: cannot be decoded after frame \d+"):
        read(path)


@pytest.mark.parametrize(
    "name", ["12:30:05.mp4", "http:127.0.0.1:9?x.mp4", "concat:a.mp4", "a,b %d [x].mp4", "pipe:0.mp4"]
)
def test_a_name_is_a_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "plain.mp4", pictures(2))
    os.rename(tmp_path / "plain.mp4", tmp_path / name)
    assert len(read(name)[0]) == 2 and videos.probe_video(name).num_frames == 2


@pytest.mark.parametrize(
    "name, text",
    [
        ("list.mp4", "ffconcat version 1.0\nfile secret.mp4\n"),
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n"),
        ("list.mpd", '<?xml version="1.0"?><MPD></MPD>'),
        ("list.sdp", "v=0\nm=video 9 RTP/AVP 96\n"),
    ],
)
def test_lists_of_other_files_are_refused(tmp_path, name, text):
    write_video(tmp_path / "secret.mp4", pictures(2))
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name}: a list of other files, not a video; give the video files"):
        videos.probe_video(tmp_path / name)


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "frame.JPG").write_bytes(b"text")
    with pytest.raises(ValueError, match="frame.JPG: an image; put a video's frames into a folder"):
        videos.probe_video(tmp_path / "frame.JPG")
    with pytest.raises(ValueError, match="text.mp4: not a readable video; expected a file that FFmpeg decodes"):
        videos.probe_video(tmp_path / "text.mp4")
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(ValueError, match="empty.mp4: this file is empty"):
        videos.probe_video(tmp_path / "empty.mp4")
    with pytest.raises(FileNotFoundError, match="gone.mp4: no such video file"):
        read(tmp_path / "gone.mp4")
    with pytest.raises(FileNotFoundError, match="no such video file"):
        read(tmp_path)
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=8000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        samples.sample_rate = 8000
        container.mux([*sound.encode(samples), *sound.encode(None)])
    with pytest.raises(ValueError, match="sound.mp4: holds no video that can be decoded"):
        videos.probe_video(tmp_path / "sound.mp4")


def test_frames_of_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    path = write_video(tmp_path / "large.mp4", pictures(2))
    monkeypatch.setattr(image_files, "MAX_PIXELS", 48 * 64 - 1)
    with pytest.raises(ValueError, match="large.mp4: 48x64 pixels, more than the limit"):
        videos.probe_video(path)
