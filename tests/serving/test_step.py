"""The export through TensorFlow's C++ loader: right answers, independent rows, and a sentence for everything else."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import cpp_model
import cv2
import numpy as np
import pytest
import tensorflow as tf
from cpp_model import CppModel, ModelError
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from msst_keras.data.flow_files import encode_flow_png
from msst_keras.data.images import encode_jpeg, encode_png
from msst_keras.serving import warm_up, wire

NUM_ROWS = (1, 3, 8)


def texts(*values):
    return np.array(values, object)


def step_inputs(exported, num_rows):
    """Inputs of `step` that start as many streams, from `serving_default`'s."""
    clips = exported.inputs(num_rows)
    files = {
        "frame_bytes": texts(*(encode_png(frames[0]) for frames in clips["frames"])),
        "flow_bytes": texts(*(encode_flow_png(flow[0]) for flow in clips["flow"])),
    }
    if "superpixels" in clips:
        files["superpixels_bytes"] = texts(*(wire.encode_superpixels(labels[0]) for labels in clips["superpixels"]))
    return files | {"state_bytes": texts(*[b""] * num_rows)}


def read_png(encoded):
    return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)


def make_requests(exported):
    """(signature, inputs) of every signature for every number of rows."""
    for rows in NUM_ROWS:
        clips = exported.inputs(rows)
        yield "serving_default", clips
        frame = {name.replace("frames", "frame"): value[:, -1] for name, value in clips.items()}
        yield "encode", frame
        maps = {}
        for index in range(3):
            steps = {name.replace("frames", "frame"): value[:, index] for name, value in clips.items()}
            for name, value in exported.cpp.run("encode", steps).items():
                maps.setdefault(name, []).append(value)
        ranks = exported.cpp.ranks["fuse"]
        fused = {name: np.stack(v, axis=1) if ranks[name] == 5 else v[-1] for name, v in maps.items()}
        yield "fuse", fused | {"frame_size": np.array([[80, 112]] * rows, np.int32)}
        first = step_inputs(exported, rows)
        yield "step", first
        yield "step", first | {"state_bytes": exported.cpp.run("step", first)["state_bytes"]}
        yield "describe", {"client_bytes": texts(*[b"test"] * rows)}


@pytest.fixture(scope="module")
def requests(exported_step):
    return list(make_requests(exported_step))


def assert_alike(found, expected):
    """Arrays to 1e-5 of their largest value; maps as PNG to one grey level; states to one level of theirs."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name == "saliency_bytes":
            for first, second in zip(found[name], value, strict=True):
                assert np.abs(read_png(first).astype(int) - read_png(second)).max() <= 1
        elif name == "settings_bytes":
            assert list(found[name]) == list(value)
        elif name == "state_bytes":
            for first, second in zip(found[name], value, strict=True):
                assert_alike_states(first, second)
        else:
            np.testing.assert_allclose(found[name], value, atol=1e-5 * max(1, np.abs(value).max()), rtol=0)


def assert_alike_states(first, second):
    """One level of each value at most; the ranges of 2 frames' 4 or 8 channels, behind all values, alike."""
    (token, first), (other, second) = (state.split(b"\n", 1) for state in (first, second))
    assert token == other
    images = [read_png(image) for image in (first, second)]
    assert images[0].shape == images[1].shape and images[0].dtype == images[1].dtype
    num_channels = 2 * 8 if images[0].dtype == np.uint8 else 2 * 4
    num_rows = -(-num_channels * 8 // (images[0].itemsize * images[0].shape[1]))
    levels = [image[:-num_rows].astype(int) for image in images]
    assert np.abs(levels[0] - levels[1]).max() <= 1
    ranges = [image[-num_rows:].tobytes()[: num_channels * 8] for image in images]
    np.testing.assert_allclose(*(np.frombuffer(values, np.float32) for values in ranges), rtol=1e-4, atol=1e-5)


def test_c_and_python_answer_alike(exported_step, requests):
    loaded = tf.saved_model.load(str(exported_step.path))
    for signature, inputs in requests:
        given = {name: tf.constant(list(x) if x.dtype == object else x) for name, x in inputs.items()}
        expected = {name: value.numpy() for name, value in loaded.signatures[signature](**given).items()}
        assert_alike(exported_step.cpp.run(signature, inputs), expected)


def test_c_answers_what_keras_does(exported_step, requests):
    for signature, inputs in requests:
        if signature == "serving_default":
            found = exported_step.cpp.run(signature, inputs)["saliency"][..., 0]
            np.testing.assert_allclose(found, exported_step.live(inputs), atol=1e-5)
            assert found.std() > 0.01


def test_steps_give_the_maps_of_the_window(exported_step):
    """Three steps, the state going back and forth, for the map of a clip of three; at the network's size."""
    clips = exported_step.inputs(2)
    size = json.loads((exported_step.path / "assets" / "msst.json").read_text())["image_size"]
    small = [[cv2.resize(frame, size[::-1]) for frame in frames] for frames in clips["frames"]]
    clips["frames"] = np.array(small)
    states = texts(b"", b"")
    for index in range(3):
        files = {
            "frame_bytes": texts(*(encode_png(frames[index]) for frames in clips["frames"])),
            "flow_bytes": texts(*(encode_flow_png(flow[index]) for flow in clips["flow"])),
            "state_bytes": states,
        }
        if "superpixels" in clips:
            labels = (wire.encode_superpixels(labels[index]) for labels in clips["superpixels"])
            files["superpixels_bytes"] = texts(*labels)
        answer = exported_step.cpp.run("step", files)
        states = answer["state_bytes"]
    maps = exported_step.cpp.run("serving_default", clips)["saliency"][..., 0]
    for encoded, expected in zip(answer["saliency_bytes"], maps, strict=True):
        assert np.abs(read_png(encoded) - 255 * expected).max() <= 0.6


def test_warm_up_requests_are_of_every_signature_and_run(exported_step):
    requests = warm_up.read(exported_step.path)
    assert {signature for signature, _ in requests} == exported_step.cpp.signatures.keys()
    states = [inputs["state_bytes"][0] for signature, inputs in requests if signature == "step"]
    assert states[0] == b"" and len(states[1]) > 0
    for signature, inputs in requests:
        exported_step.cpp.run(signature, inputs)


def test_the_warm_up_lies_where_a_server_looks_for_it_and_asks_each_thing_twice(exported_step):
    records = tf.data.TFRecordDataset(str(exported_step.path / "assets.extra" / "tf_serving_warmup_requests"))
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records.as_numpy_iterator()]
    half = len(logs) // 2
    assert half == len(exported_step.cpp.signatures) + 1 and logs[:half] == logs[half:]  # `step` is asked two things


def test_signatures_say_what_they_want(exported_step):
    saved = saved_model_pb2.SavedModel.FromString((exported_step.path / "saved_model.pb").read_bytes())
    signatures = saved.meta_graphs[0].signature_def
    shape = [side.size for side in signatures["serving_default"].inputs["flow"].tensor_shape.dim]
    assert shape == [-1, 3, 32, 48, 2]
    names = ["flow_bytes", "frame_bytes", "state_bytes"] + ["superpixels_bytes"] * (exported_step.kind == "paper")
    assert sorted(signatures["step"].inputs) == names
    assert sorted(signatures["step"].outputs) == ["saliency_bytes", "state_bytes"]


def test_describe_gives_the_settings(exported_step):
    (text,) = exported_step.cpp.run("describe", {"client_bytes": texts(b"")})["settings_bytes"]
    assert json.loads(text) == json.loads((exported_step.path / "assets" / "msst.json").read_text())


def test_each_weight_is_stored_once(exported_step):
    names = [name for name, _ in tf.train.list_variables(str(exported_step.path / "variables" / "variables"))]
    parts = [exported_step.model, exported_step.prior]
    weights = {id(weight) for part in parts for weight in part.weights if "side" not in weight.path}
    assert 0.9 * len(weights) <= len([name for name in names if "VARIABLE_VALUE" in name]) <= len(weights)


def test_rows_do_not_know_of_each_other(exported_step):
    inputs = step_inputs(exported_step, 3)
    before = exported_step.cpp.run("step", inputs)
    others = {
        "frame_bytes": encode_jpeg(np.full((200, 30, 3), 250, np.uint8)),
        "flow_bytes": encode_flow_png(np.full((32, 48, 2), 900.0)),
        "state_bytes": before["state_bytes"][1],
    }
    if exported_step.kind == "paper":
        others["superpixels_bytes"] = wire.encode_superpixels(np.full((32, 48, 2), 31))
    changed = {name: value.copy() for name, value in inputs.items()}
    for name, value in others.items():
        changed[name][1] = value
    after = exported_step.cpp.run("step", changed)
    for row in (0, 2):
        first, second = (read_png(answer["saliency_bytes"][row]).astype(int) for answer in (before, after))
        assert np.abs(first - second).max() <= 1
    assert (read_png(before["saliency_bytes"][1]) != read_png(after["saliency_bytes"][1])).any()
    clips = exported_step.inputs(2)
    whole = exported_step.cpp.run("serving_default", clips)["saliency"]
    clips["frames"][1], clips["flow"][1] = 0, 2000
    if exported_step.kind == "paper":
        clips["superpixels"][1] = 31
    np.testing.assert_allclose(
        exported_step.cpp.run("serving_default", clips)["saliency"][0], whole[0], atol=1e-6, rtol=0
    )


def claim_size(jpeg, height, width):
    """The JPEG with another size in its frame header."""
    place = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:place] + bytes([height >> 8, height & 255, width >> 8, width & 255]) + jpeg[place + 4 :]


def hostile(exported, requests):
    """(signature, inputs, part of the sentence) of requests that are to be refused."""
    step, clips = step_inputs(exported, 2), exported.inputs(2)
    frame = {name.replace("frames", "frame"): value[:, -1] for name, value in clips.items()}
    picture = clips["frames"][0, 0]
    jpeg, png = encode_jpeg(picture), encode_png(picture)
    progressive = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    giant_png = png[:16] + (60000).to_bytes(4) * 2 + png[24:]
    state = exported.cpp.run("step", step)["state_bytes"][0]

    def second_row(name, value):
        changed = step[name].copy()
        changed[1] = value
        return step | {name: changed}

    for value, sentence in (
        (b"", "must be a JPEG or PNG"), (b"GIF89a", "must be a JPEG or PNG"), (jpeg[:2], "must be a JPEG or PNG"),
        (b"\xff\xd8\xff" + bytes(1000), "no picture"), (b"\xff\xd8\xff\xe0" * 3000, "no picture"),
        (jpeg[:-100], "cut off"), (png[:-1], "cut off"), (progressive, "progressive"),
        (claim_size(jpeg, 60000, 60000), "pixels high and wide"), (claim_size(jpeg, 8192, 8192), "pixels high and"),
        (claim_size(jpeg, 0, 10), "pixels high and wide"), (giant_png, "pixels high and wide"),
        (jpeg[:-2] + jpeg[jpeg.index(b"\xff\xda") :] * 20, "progressive"),
        (encode_flow_png(clips["flow"][0, 0]), "8-bit RGB or grey"),
    ):  # fmt: skip
        yield "step", second_row("frame_bytes", value), sentence
    for value, sentence in (
        (b"", "must be a 16-bit PNG"), (png, "must be a 16-bit PNG"),
        (encode_flow_png(np.zeros((30, 48, 2))), "32x48"), (encode_flow_png(np.full((32, 48, 2), np.nan)), "unknown"),
    ):  # fmt: skip
        yield "step", second_row("flow_bytes", value), sentence
    token, image = state.split(b"\n", 1)
    other = token[:-16] + b"0123456789abcdef\n" + image
    chunk = (2**20).to_bytes(4) + b"teXt" + bytes(2**20 + 4)
    for value in (
        b"x", token, token + b"\n", state[:-1], state + b"x", other, token + b"\n" + png, token + b"\n" + giant_png,
        state[:-12] + chunk + state[-12:],
    ):  # fmt: skip
        yield "step", second_row("state_bytes", value), "start a stream"
    levels = read_png(image)
    levels[-4:] = np.iinfo(levels.dtype).max  # as a number: none
    poisoned = token + b"\n" + cv2.imencode(".png", levels)[1].tobytes()
    yield "step", second_row("state_bytes", poisoned), "finite"
    yield "step", {name: value[:0] for name, value in step.items()}, "1 to 16 rows"
    yield "step", {name: value.repeat(9) for name, value in step.items()}, "1 to 16 rows"
    yield "step", step | {"state_bytes": texts(b"")}, "as many rows"
    yield "step", step | {"state_bytes": texts(b"", b"")[:, None]}, "must have the shape (B)"
    for signature, inputs in (("serving_default", clips), ("encode", frame)):
        for value in (np.nan, np.inf, 1e6):
            flow = inputs["flow"].copy()
            flow.reshape(-1)[-1] = value
            yield signature, inputs | {"flow": flow}, "flow must be finite"
        yield signature, inputs | {"flow": inputs["flow"][..., :30, :, :]}, "flow must have the shape"
        yield signature, inputs | {"flow": inputs["flow"][:1]}, "as many rows"
        yield signature, {name: value[:0] for name, value in inputs.items()}, "1 to 16 rows"
        name = "frames" if signature == "serving_default" else "frame"
        yield signature, inputs | {name: inputs[name][..., :0, :]}, "pixels high and wide"
        yield signature, inputs | {name: inputs[name][..., 0]}, f"{name} must have the shape"
        if "superpixels" in inputs:
            for value in (-1, 32, 20_000, 2**31 - 1):
                labels = inputs["superpixels"].copy()
                labels.reshape(-1)[0] = value
                yield signature, inputs | {"superpixels": labels}, "labels of 0 to 31"
    yield "serving_default", clips | {"frames": clips["frames"][:, :2]}, "frames must have the shape (B, 3"
    if exported.kind == "paper":
        labels = np.full((32, 48, 2), 32)
        yield "step", second_row("superpixels_bytes", wire.encode_superpixels(labels)), "labels of 0 to 31"
    fuse = next(inputs for signature, inputs in requests if signature == "fuse")
    for size in ([30000, 30000], [0, 5], [-1, 5], [2**31 - 1, 2**31 - 1], [8192, 8192]):
        yield "fuse", fuse | {"frame_size": np.array([size], np.int32)}, "frame_size must be"
    double = {name: value.repeat(2, axis=0) for name, value in fuse.items()}
    yield "fuse", double | {"frame_size": np.array([[80, 112], [80, 113]], np.int32)}, "alike in all rows"
    yield "fuse", double | {"frame_size": fuse["frame_size"]}, "as many rows"
    many = {name: value.repeat(16, axis=0) for name, value in fuse.items()}
    yield "fuse", many | {"frame_size": np.array([[2000, 2000]] * 16, np.int32)}, "send fewer rows"
    for name, value in fuse.items():
        if name != "frame_size":
            yield "fuse", fuse | {name: value[..., :-1, :, :]}, f"{name} must have the shape"
            yield "fuse", fuse | {name: np.full_like(value, np.nan)}, f"{name} must hold finite"


def test_what_is_wrong_is_refused_by_a_sentence_in_no_time(exported_step, requests):
    for signature, inputs in dict(requests).items():  # as a server's warm-up does: each first call takes seconds
        exported_step.cpp.run(signature, inputs)
    good = step_inputs(exported_step, 2)
    expected = exported_step.cpp.run("step", good)
    cases = list(hostile(exported_step, requests))
    assert len(cases) > 45
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for signature, inputs, sentence in cases:
        start = time.process_time()
        with pytest.raises(ModelError) as refused:
            exported_step.cpp.run(signature, inputs)
        assert sentence in str(refused.value) and "assertion failed" in str(refused.value), (signature, sentence)
        assert refused.value.code == 3, sentence
        assert time.process_time() - start < 1, sentence
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200 * 1024  # KB
    assert_alike(exported_step.cpp.run("step", good), expected)


def test_a_damaged_file_is_refused_by_the_decoder(exported_step):
    inputs = step_inputs(exported_step, 1)
    png = inputs["frame_bytes"][0]
    broken = png[:60] + bytes(40) + png[100:]
    state = exported_step.cpp.run("step", inputs)["state_bytes"][0]
    for changed in ({"frame_bytes": texts(broken)}, {"state_bytes": texts(state[:-80] + bytes(40) + state[-40:])}):
        with pytest.raises(ModelError, match="Invalid PNG data") as refused:
            exported_step.cpp.run("step", inputs | changed)
        assert refused.value.code == 3


def test_garbage_of_one_thread_harms_no_other(exported_step):
    inputs = step_inputs(exported_step, 1)
    expected, failures, refused = exported_step.cpp.run("step", inputs), [], []

    def ask(given, results):
        for _ in range(8):
            try:
                results.append(exported_step.cpp.run("step", given))
            except ModelError as error:
                refused.append(error)

    answers = [[] for _ in range(3)]
    threads = [threading.Thread(target=ask, args=(inputs, results)) for results in answers]
    threads.append(threading.Thread(target=ask, args=(inputs | {"frame_bytes": texts(b"x")}, failures)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 8 and not failures
    for answer in sum(answers, []):
        assert_alike(answer, expected)
    assert sum(map(len, answers)) == 24


@pytest.mark.slow
def test_the_first_request_after_the_warm_up_is_not_slow(exported_step):
    model = CppModel(exported_step.path, Path(tf.__file__).parent)
    for signature, inputs in warm_up.read(exported_step.path):
        model.run(signature, inputs)
    inputs, times = step_inputs(exported_step, 1), []
    for _ in range(21):
        start = time.perf_counter()
        model.run("step", inputs)
        times.append(time.perf_counter() - start)
    assert times[0] <= 2 * np.median(times), times


@pytest.mark.slow
def test_the_loader_of_tensorflow_2_20_answers_alike(exported_step, requests, tmp_path_factory):
    """2.20 is the TensorFlow of the server that serving/compose.yaml pins.

    MSST_TENSORFLOW_2_20 names a folder with it (`pip install --no-deps --target`), else it is installed for the test.
    """
    folder = Path(os.environ.get("MSST_TENSORFLOW_2_20") or tmp_path_factory.getbasetemp() / "tensorflow2.20")
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", f"--target={folder}"]
        if subprocess.run([*command, "tensorflow-cpu==2.20.0"], check=False).returncode:
            pytest.skip("tensorflow-cpu 2.20.0 cannot be installed here")
    work = tmp_path_factory.mktemp("requests")
    arrays = {
        f"{signature}/{number}/{name}": value
        for number, (signature, inputs) in enumerate(requests)
        for name, value in inputs.items()
    }
    np.savez(work / "requests.npz", **arrays)
    command = [
        sys.executable, cpp_model.__file__, folder / "tensorflow", exported_step.path, work / "requests.npz",
        work / "answers.npz",
    ]  # fmt: skip
    subprocess.run(list(map(str, command)), check=True)
    found = {}
    with np.load(work / "answers.npz", allow_pickle=True) as file:
        for key in file:
            signature, number, name = key.split("/")
            found.setdefault(int(number), {})[name] = file[key]
    assert found.keys() == set(range(len(requests)))
    for number, (signature, inputs) in enumerate(requests):
        assert_alike(found[number], exported_step.cpp.run(signature, inputs))
