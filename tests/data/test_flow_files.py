"""Flow in files: round trips, what other decoders make of the same bytes, and what is refused."""

from __future__ import annotations

import struct
import types
import unicodedata

import cv2
import numpy as np
import pytest

from msst_keras.data import flow_files, images
from msst_keras.data.sequences import FileSequence


def make_flow():
    flow = np.random.default_rng(1).normal(0, 5, (6, 9, 2)).astype(np.float32)
    flow[0, 0], flow[1, 2] = (-2048, 2047.9375), np.nan
    return flow


def test_flow_png_holds_the_rounded_flow():
    flow = make_flow()
    decoded = flow_files.decode_flow_png(flow_files.encode_flow_png(flow), "flow.png")
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, flow_files.round_flow(flow))
    assert np.nanmax(np.abs(decoded - flow)) <= flow_files.FLOW_STEP / 2
    np.testing.assert_array_equal(flow_files.decode_flow_png(flow_files.encode_flow_png(decoded), "flow.png"), decoded)


def test_flow_png_channels_are_x_y_and_steps_per_pixel():
    encoded = flow_files.encode_flow_png(np.array([[[1.0, -2.0], [np.nan, 0]]]))
    blue_green_red = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    assert blue_green_red.tolist() == [[[16, 2**15 - 32, 2**15 + 16], [0, 0, 0]]]


@pytest.mark.parametrize("name", ["flow.flo", "flow.png"])
def test_flow_file_round_trip(tmp_path, name):
    flow = make_flow()
    flow_files.write_flow(tmp_path / name, flow)
    expected = flow if name.endswith("flo") else flow_files.round_flow(flow)
    np.testing.assert_array_equal(flow_files.read_flow(tmp_path / name), expected)


def test_middlebury_flow_is_read_as_opencv_reads_it(real_data):
    path = real_data / "flow/rubberwhale/flow10.flo"
    ours, opencv = flow_files.read_flow(path), cv2.readOpticalFlow(str(path))
    known = np.abs(opencv).max(axis=2) < 1e9
    np.testing.assert_array_equal(ours[known], opencv[known])
    assert 0 < np.isnan(ours).any(axis=2).sum() == (~known).sum()


def test_flow_that_does_not_fit_is_refused(tmp_path):
    for value in (2048, -2048.1, np.inf):
        with pytest.raises(ValueError, match=r"flow must lie in \[-2048, 2048\) px, found"):
            flow_files.encode_flow_png(np.full((2, 2, 2), value))
    for write in (flow_files.encode_flow_png, lambda flow: flow_files.write_flow(tmp_path / "a.flo", flow)):
        with pytest.raises(ValueError, match=r"flow must be \(H, W, 2\), x then y, not \(2, 2\)"):
            write(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="flow files are .flo or .png, not '.npy'"):
        flow_files.write_flow(tmp_path / "flow.npy", make_flow())


def test_damaged_flow_files_are_refused(tmp_path):
    path = tmp_path / "flow.flo"
    flow_files.write_flow(path, make_flow())
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:7], b"PNGX" + whole[4:], whole[:4] + struct.pack("<ii", -9, -6) + whole[12:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="flow.flo: expected 'PIEH'.* damaged"):
            flow_files.read_flow(path)
    encoded = flow_files.encode_flow_png(make_flow())
    with pytest.raises(ValueError, match="f.png: cut off or damaged"):
        flow_files.decode_flow_png(encoded[:-30], "f.png")
    with pytest.raises(ValueError, match="f.png: a flow PNG has 16 bits and three channels"):
        flow_files.decode_flow_png(images.encode_png(np.zeros((4, 6, 3), np.uint8)), "f.png")
    kitti = cv2.imencode(".png", np.full((2, 2, 3), 1, np.uint16))[1].tobytes()
    with pytest.raises(ValueError, match="f.png: the third channel .* must be 16 .* found 1; KITTI"):
        flow_files.decode_flow_png(kitti, "f.png")


def test_flow_that_no_flow_png_can_hold_is_refused(tmp_path):
    (tmp_path / "ball").mkdir()
    flow = np.zeros((4, 6, 2), np.float32)
    flow[1, 2, 0] = 2047
    flow_files.write_flow(tmp_path / "ball" / "0.flo", flow)
    (read,) = flow_files.read_flows(tmp_path, "ball", ["0"], (4, 6))
    np.testing.assert_array_equal(read, flow)
    flow[1, 2, 0] = -1e8
    flow_files.write_flow(tmp_path / "ball" / "0.flo", flow)
    with pytest.raises(ValueError, match="0.flo: flow of 1e[+]08 px, expected less than 2048"):
        list(flow_files.read_flows(tmp_path, "ball", ["0"], (4, 6)))


@pytest.mark.parametrize("ours, theirs", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_spelled_otherwise(tmp_path, ours, theirs):
    """A Mac takes the accents of names apart; what is read by another spelling is also what a run remembers."""
    from msst_keras.jobs import predict

    names = [unicodedata.normalize(ours, name) for name in ("caf\u00e9", "\u00e9_0", "\u00e9_1")]
    folder = tmp_path / "flow" / unicodedata.normalize(theirs, names[0])
    flows = [np.full((4, 6, 2), value, np.float32) for value in (1, 2)]
    for name, suffix, flow in zip(names[1:], ("flo", "png"), flows, strict=True):
        flow_files.write_flow(folder / f"{unicodedata.normalize(theirs, name)}.{suffix}", flow)
    np.testing.assert_array_equal(list(flow_files.read_flows(tmp_path / "flow", names[0], names[1:], (4, 6))), flows)

    video = tmp_path / "video.mp4"
    video.touch()
    model = types.SimpleNamespace(identify=lambda: "model")
    options = predict.PredictOptions(input=(str(video),), output_dir="", flow_dir=str(tmp_path / "flow"))
    before = predict._describe(options, model, FileSequence(names[0], video_path=video))
    flow_files.write_flow(next(folder.glob("*.flo")), flows[1])
    after = predict._describe(options, model, FileSequence(names[0], video_path=video))
    assert [key for key in before if before[key] != after[key]] == ["flow_dir"]


def test_flow_of_another_shape_is_scaled_by_columns_in_x_and_by_rows_in_y(tmp_path):
    flow = np.full((24, 60, 2), (15, -6), np.float32)
    for name in ("00000", "00001"):
        flow_files.write_flow(tmp_path / "s" / f"{name}.flo", flow)
    for stride, expected in ((1, (5, -3)), (2, (2.5, -1.5))):  # of 20 columns and 12 rows; pixels per frame
        found = list(flow_files.read_flows(tmp_path, "s", ["00000", "00001"], (12, 20), stride))
        np.testing.assert_array_equal(found, np.broadcast_to(np.float32(expected), (2, 12, 20, 2)))
