"""A SavedModel is checked before it is loaded: its operations against a list, its settings against its signatures."""

from __future__ import annotations

import json
import shutil

import pytest
from tensorflow.core.protobuf import saved_model_pb2

from msst_keras.inference import SHIPPED_MODEL, saved_models
from msst_keras.inference.stream import SaliencyModel


@pytest.fixture
def model(tmp_path):
    """A copy of the installed model."""
    folder = tmp_path / "model" / "1"
    shutil.copytree(SHIPPED_MODEL / "1", folder)
    return folder


def test_the_installed_model_holds_arithmetic_alone(model):
    settings, motion = saved_models.read_settings(model)
    saved_models.check_model(model, 1, motion)
    assert settings["num_frames"] == 1 and motion.prior.kind == "flow"


def test_the_file_of_a_model_is_parsed_once(model, monkeypatch):
    parsed = []
    read = saved_models._read
    monkeypatch.setattr(saved_models, "_read", lambda path: parsed.append(path) or read(path))
    SaliencyModel(model)
    assert parsed == [model]


def test_the_newest_version_is_that_of_the_largest_number(tmp_path):
    for name in ("9", "10", "\N{SUPERSCRIPT TWO}", "10.old", "-11", "twelve"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").touch()
    (tmp_path / "13").mkdir()  # which is empty
    assert saved_models.find_version(tmp_path) == tmp_path / "10"
    assert saved_models.find_version(tmp_path / "9") == tmp_path / "9"


def change(model, spoil):
    parsed = saved_model_pb2.SavedModel()
    parsed.ParseFromString((model / "saved_model.pb").read_bytes())
    spoil(parsed.meta_graphs[0])
    (model / "saved_model.pb").write_bytes(parsed.SerializeToString())


def find_function(graph, start):
    return next(f for f in graph.graph_def.library.function if f.signature.name.startswith(start))


def write_a_file(graph):
    signature = find_function(graph, "__inference_signature_wrapper_")
    signature.node_def.add(name="w", op="WriteFile")


def write_a_file_when_loaded(graph):
    graph.graph_def.node.add(name="w", op="WriteFile")


def write_through_a_function_named_like_tensorflows_own(graph):
    """A signature that calls a function which may save because of its name."""
    signature = find_function(graph, "__inference_signature_wrapper_")
    call = signature.node_def.add(name="c", op="StatefulPartitionedCall")
    call.attr["f"].func.name = find_function(graph, "__inference__traced_save_").signature.name


def run_python(graph):
    graph.graph_def.library.function.add().node_def.add(name="p", op="EagerPyFunc")


@pytest.mark.parametrize(
    "spoil, operation",
    [
        (write_a_file, "WriteFile"),
        (write_a_file_when_loaded, "WriteFile"),
        (write_through_a_function_named_like_tensorflows_own, "(SaveV2|MergeV2Checkpoints|ShardedFilename|Dis.*)"),
        (run_python, "EagerPyFunc"),
    ],
)
def test_any_other_operation_is_refused_before_it_runs(model, spoil, operation):
    change(model, spoil)
    with pytest.raises(ValueError, match=f"holds the operation {operation}, which no model of `msst export` does"):
        SaliencyModel(model)


@pytest.mark.parametrize("name", ["saved_model.cpb", "saved_model.pbtxt"])
def test_no_other_file_is_read_in_place_of_the_checked_one(model, name):
    (model / name).write_bytes(b"")
    with pytest.raises(ValueError, match=f"{name}: `msst export` writes no such file"):
        SaliencyModel(model)


EDITS = {
    "no frames": ({"num_frames": 0}, "expected a whole number of 1 to 64 in num_frames, found 0"),
    "frames as text": ({"num_frames": "4"}, "in num_frames, found 4"),
    "endless frames": ({"num_frames": 10**9}, "in num_frames, found 1000000000"),
    "a size of one": ({"image_size": [288]}, "expected height and width, up to 16384 in image_size"),
    "a size of text": ({"image_size": "288x512"}, "expected height and width"),
    "motion is a list": ({"motion": [1]}, "expected motion settings, or null in motion"),
    "a shift of text": ({"logit_shift": "-1"}, "expected a number of -10 to 10 in logit_shift, found -1"),
    "motion is empty": ({"motion": {}}, "damaged .expected motion settings"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_settings_out_of_all_range_are_refused(model, edit):
    changes, message = EDITS[edit]
    path = model / "assets" / "msst.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ValueError, match=f"msst.json: damaged .*{message}|msst.json: {message}"):
        SaliencyModel(model)


def test_missing_and_unreadable_settings(model):
    path = model / "assets" / "msst.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in settings.items() if key != "motion"}))
    with pytest.raises(ValueError, match="msst.json: damaged .expected motion settings, or null in motion, found noth"):
        SaliencyModel(model)
    for text in ("{", "[1]", "7", "[" * 10**5):
        path.write_text(text)
        with pytest.raises(ValueError, match="msst.json: damaged .*; export the model again"):
            SaliencyModel(model)
    settings["motion"]["flow"]["motion_size"] = [50000, 50000]
    path.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="expected a motion_size up to 16384 in motion"):
        SaliencyModel(model)


def test_settings_that_contradict_the_signatures(model):
    path = model / "assets" / "msst.json"
    settings = json.loads(path.read_text())
    settings["motion"]["flow"]["motion_size"] = [64, 64]
    path.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="settings in assets/msst.json .* are not those of the model"):
        SaliencyModel(model)
