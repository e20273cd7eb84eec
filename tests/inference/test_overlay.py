"""Overlays, their videos and contact sheets, pixel by pixel where they can be worked out."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest

from msst_keras.data import videos
from msst_keras.inference.overlay import OverlayWriter, contact_sheet, overlay

YELLOW, DARK_BLUE = np.array([254, 232, 56]), np.array([0, 34, 78])  # the ends of cividis


def read_video(path) -> tuple[list[np.ndarray], float]:
    """The RGB frames of a video and its frame rate."""
    return [frame.image for frame in videos.read_video(path)], float(videos.probe_video(path).frame_rate)


class TestOverlay:
    def test_opacity_and_brightness_follow_saliency(self):
        frame = np.full((2, 3, 3), 100, np.uint8)
        frame[..., 2] = 200
        saliency = np.array([[0, 0, 0], [1, 1, 0.5]], np.float32)
        drawn = overlay(frame, saliency, mask_threshold=None)
        np.testing.assert_array_equal(drawn[0], [[60, 60, 120]] * 3)  # dimmed to 0.6, no heat
        np.testing.assert_allclose(drawn[1, 0], 0.45 * np.array([100, 100, 200]) + 0.55 * YELLOW, atol=0.5)
        middle = (1 - 0.275) * 0.8 * np.array([100, 100, 200]) + 0.275 * np.array([125, 124, 120])
        np.testing.assert_allclose(drawn[1, 2], middle, atol=1)

    def test_outline_follows_the_threshold(self):
        frame = np.full((100, 120, 3), 100, np.uint8)
        columns = np.indices((100, 120))[1]
        saliency = (1 - columns / 119).astype(np.float32)  # 0.5 between columns 59 and 60, 0.25 between 89 and 90
        for threshold, border in ((0.5, 59), (0.25, 89)):
            drawn = overlay(frame, saliency, threshold)
            is_white = (drawn == 255).all(axis=2)
            assert is_white[:, border].all()
            assert not is_white[1:-1, 1:border].any() and not is_white[:, border + 1 :].any()
            assert (drawn[2:-2, border + 1] == 0).all()
        assert not (overlay(frame, saliency, None) == 255).any()

    def test_frame_is_left_alone(self):
        frame, saliency = np.full((8, 9, 3), 100, np.uint8), np.ones((8, 9), np.float32)
        overlay(frame, saliency)
        assert (frame == 100).all() and (saliency == 1).all()

    @pytest.mark.parametrize(
        "frame, saliency, threshold, message",
        [
            (np.zeros((4, 5), np.uint8), np.zeros((4, 5), np.float32), 0.5, "frame must be a .H, W, 3. uint8 array"),
            (np.zeros((4, 5, 3)), np.zeros((4, 5), np.float32), 0.5, "got shape .4, 5, 3. of float64"),
            (None, np.zeros((4, 5), np.float32), 0.5, "got NoneType"),
            (np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4), np.float32), 0.5, "frame's size .4, 5., got shape .5, 4."),
            (np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.uint8), 0.5, "got shape .4, 5. of uint8"),
            (np.zeros((4, 5, 3), np.uint8), np.full((4, 5), 2, np.float32), 0.5, "go from 2.0 to 2.0"),
            (np.zeros((4, 5, 3), np.uint8), np.full((4, 5), np.nan, np.float32), 0.5, "go from nan to nan"),
            (np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.float32), 1.5, "mask_threshold must lie in .0, 1."),
        ],
    )
    def test_wrong_inputs(self, frame, saliency, threshold, message):
        with pytest.raises(ValueError, match=message):
            overlay(frame, saliency, threshold)


class TestOverlayWriter:
    @pytest.mark.parametrize("size", [(48, 64), (47, 63)])
    def test_round_trip(self, tmp_path, size):
        path = tmp_path / "video.mp4"
        frames = []
        for number in range(5):
            frame = np.full((*size, 3), (200, 60, 20 + 40 * number), np.uint8)  # red: swapped channels would show
            frame[: size[0] // 2] //= 4
            frames.append(frame)
        with OverlayWriter(path, 29.97, size) as writer:
            for frame in frames:
                writer.write(frame)
            assert not path.exists()
        assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
        decoded, frame_rate = read_video(path)
        assert frame_rate == pytest.approx(29.97, abs=1e-4)
        assert len(decoded) == 5
        for frame, result in zip(frames, decoded, strict=True):
            assert result.shape == (48, 64, 3)
            expected = np.pad(frame, [(0, 48 - size[0]), (0, 64 - size[1]), (0, 0)], mode="edge").astype(int)
            assert np.abs(result - expected).mean() < 4

    def test_nothing_is_left_after_an_error(self, tmp_path):
        path = tmp_path / "video.mp4"
        path.write_bytes(b"an earlier video")
        with pytest.raises(RuntimeError, match="stop"), OverlayWriter(path, 24, (16, 16)) as writer:
            writer.write(np.zeros((16, 16, 3), np.uint8))
            raise RuntimeError("stop")
        assert path.read_bytes() == b"an earlier video"
        assert [entry.name for entry in tmp_path.iterdir()] == [path.name]

    def test_video_without_frames(self, tmp_path):
        with (
            pytest.raises(ValueError, match="video.mp4: a video needs at least one frame"),
            OverlayWriter(tmp_path / "video.mp4", 24, (16, 16)),
        ):
            pass
        assert not any(tmp_path.iterdir())

    def test_frames_are_shown_at_their_times_in_their_shape_and_colours(self, tmp_path):
        times = [0, 0.04, 0.08, 0.5, 0.54, 3.0]
        with OverlayWriter(tmp_path / "video.mp4", 25, (48, 64), Fraction(3, 2)) as writer:
            for seconds in times:
                writer.write(np.full((48, 64, 3), (200, 60, 20), np.uint8), seconds)
        np.testing.assert_allclose([frame.seconds for frame in videos.read_video(tmp_path / "video.mp4")], times)
        assert videos.probe_video(tmp_path / "video.mp4").sample_aspect == Fraction(3, 2)
        with av.open(str(tmp_path / "video.mp4")) as container:
            frame = next(container.decode(video=0))
            assert (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc) == (1, 1, 1, 1)
            np.testing.assert_allclose(frame.to_ndarray(format="rgb24")[24, 32], (200, 60, 20), atol=5)

    def test_times_that_stand_still_lose_no_frame(self, tmp_path):
        with OverlayWriter(tmp_path / "video.mp4", 25, (48, 64)) as writer:
            for seconds in (0, 0, 0, 1e-7, 0.5):
                writer.write(np.zeros((48, 64, 3), np.uint8), seconds)
        assert videos.probe_video(tmp_path / "video.mp4").num_frames == 5

    @pytest.mark.parametrize("name", ["12:30.mp4", "http:a.mp4", "%d a,b.mp4"])
    def test_a_name_is_a_name(self, tmp_path, monkeypatch, name):
        monkeypatch.chdir(tmp_path)
        with OverlayWriter(name, 24, (16, 16)) as writer:
            writer.write(np.zeros((16, 16, 3), np.uint8))
        assert [entry.name for entry in tmp_path.iterdir()] == [name]

    def test_a_full_disk_is_one_sentence(self, tmp_path):
        """/dev/full stands for it: what is written there fails as on a full disk."""
        writer = OverlayWriter(tmp_path / "video.mp4", 24, (240, 320))
        generator = np.random.default_rng(0)
        with pytest.raises(OSError, match="video.mp4: the video cannot be written .*; is the disk full?"):
            with writer:
                writer._unfinished_path.symlink_to("/dev/full")
                for _ in range(100):
                    writer.write(generator.integers(0, 256, (240, 320, 3), np.uint8))
        assert not any(tmp_path.iterdir())

    def test_a_folder_that_cannot_be_written_is_one_sentence(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="file"), OverlayWriter(tmp_path / "file/video.mp4", 24, (16, 16)):
            pass

    def test_lost_frame(self, tmp_path):
        frame = np.full((16, 16, 3), 90, np.uint8)
        with (
            pytest.raises(OSError, match="3 frames were given and 2 are in the video"),
            OverlayWriter(tmp_path / "video.mp4", 24, (16, 16)) as writer,
        ):
            writer.write(frame)
            encoder, writer._stream = writer._stream, SimpleNamespace(encode=lambda frame: [])
            writer.write(frame * 0)
            writer._stream = encoder
            writer.write(frame)
        assert not any(tmp_path.iterdir())

    @pytest.mark.parametrize(
        "name, frame_rate, size, message",
        [
            ("video.webm", 24, (16, 16), "video.webm: a video's name must end with .mp4"),
            ("video.mp4", 0, (16, 16), "frame rate must be a positive number, got 0"),
            ("video.mp4", float("nan"), (16, 16), "frame rate must be a positive number, got nan"),
            ("video.mp4", 24, (16, 0), "frame size must be positive, got .16, 0."),
        ],
    )
    def test_wrong_arguments(self, tmp_path, name, frame_rate, size, message):
        with pytest.raises(ValueError, match=message):
            OverlayWriter(tmp_path / name, frame_rate, size)

    def test_wrong_sample_aspect(self, tmp_path):
        with pytest.raises(ValueError, match="video.mp4: the sample aspect ratio must be positive, got 0"):
            OverlayWriter(tmp_path / "video.mp4", 24, (16, 16), 0)

    @pytest.mark.parametrize(
        "frame, message",
        [
            (np.zeros((16, 18, 3), np.uint8), "frames must be of the video's size .16, 16., got .16, 18."),
            (np.zeros((16, 16), np.uint8), "a frame of the video must be a .H, W, 3. uint8 array, got shape .16, 16."),
        ],
    )
    def test_wrong_frame(self, tmp_path, frame, message):
        with pytest.raises(ValueError, match=message), OverlayWriter(tmp_path / "video.mp4", 24, (16, 16)) as writer:
            writer.write(frame)


class TestContactSheet:
    def test_images_lie_in_a_table(self):
        red, blue = (np.full((20, 40, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
        grey = np.full((60, 30), 77, np.uint8)
        sheet = contact_sheet([[red, grey], [blue, grey]], cell_height=30)
        # Columns of 60 and 15 pixels and rows of 30, with 4 between and around.
        assert sheet.shape == (4 + 30 + 4 + 30 + 4, 4 + 60 + 4 + 15 + 4, 3)
        expected = np.full_like(sheet, 255)
        expected[4:34, 4:64], expected[38:68, 4:64] = (255, 0, 0), (0, 0, 255)
        expected[4:34, 68:83] = expected[38:68, 68:83] = 77
        np.testing.assert_array_equal(sheet, expected)

    def test_narrow_image_is_centred_in_its_column(self):
        wide, narrow = np.zeros((10, 40), np.uint8), np.zeros((10, 10), np.uint8)
        sheet = contact_sheet([[wide], [narrow]], cell_height=10)
        assert (sheet[18:28, 4 + 15 : 4 + 25] == 0).all()
        assert (sheet[18:28, :19] == 255).all() and (sheet[18:28, 29:] == 255).all()

    def test_labels_stand_above_their_columns(self):
        image = np.full((40, 60), 128, np.uint8)
        plain = contact_sheet([[image, image]], cell_height=40)
        sheet = contact_sheet([[image, image]], labels=["map", ""], cell_height=40)
        np.testing.assert_array_equal(sheet[-44:], plain[-44:])
        header = sheet[:-44]
        dark_columns = np.flatnonzero((header < 200).any(axis=(0, 2)))
        assert 10 < np.ptp(dark_columns) < 40
        assert (dark_columns[0] + dark_columns[-1]) / 2 == pytest.approx(4 + 30, abs=2)

    def test_shrinking_averages(self):
        stripes = np.zeros((100, 100), np.uint8)
        stripes[::2] = 200
        cell = contact_sheet([[stripes]], cell_height=10)[4:14, 4:14]
        np.testing.assert_allclose(cell, 100, atol=12)

    @pytest.mark.parametrize(
        "rows, options, message",
        [
            ([], {}, r"rows must be equally long and not empty, their lengths are \[\]"),
            ([[]], {}, r"their lengths are \[0\]"),
            ([[np.zeros((2, 2), np.uint8)] * 2, [np.zeros((2, 2), np.uint8)]], {}, r"their lengths are \[2, 1\]"),
            ([[np.zeros((2, 2), np.uint8)]], {"labels": ["a", "b"]}, "labels must be one for each of the 1 columns"),
            ([[np.zeros((2, 2), np.uint8)]], {"cell_height": 0}, "cell_height must be at least 1 pixel, got 0"),
            ([[np.zeros((2, 2), bool)]], {}, "an image of the sheet must be a .H, W, 3. or .H, W. uint8 array"),
            ([[np.zeros((2, 2, 4), np.uint8)]], {}, "got shape .2, 2, 4. of uint8"),
        ],
    )
    def test_wrong_inputs(self, rows, options, message):
        with pytest.raises(ValueError, match=message):
            contact_sheet(rows, **options)
