"""How motion was made: what is written comes back, and one clause says how two settings differ."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest

from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.settings import MotionOptions, MotionSettings, PriorSettings
from msst_keras.motion.superpixels import SuperpixelSettings

FLOW = FlowSettings(motion_size=(32, 48))


def test_the_prior_of_each_kind_is_written_as_readers_know_it(tmp_path):
    path = tmp_path / "prior.keras"
    path.write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    for prior, written, channels in (
        ("none", {"kind": "none"}, 1),
        ("magnitude", {"kind": "magnitude"}, 1),
        ("flow", {"kind": "flow", "channels": 3}, 3),
        (str(path), {"kind": "network", "sha256": sha256}, 1),
    ):
        settings = MotionOptions(FLOW, SuperpixelSettings(), prior, store_flow=True).settings()
        assert settings.prior.channels == channels
        found = settings.to_dict()
        assert list(found) == ["flow", "superpixels", "prior", "flow_stored"]
        assert found["prior"] == written and found["flow_stored"] is True
        assert MotionSettings.from_dict(json.loads(json.dumps(found))) == settings
        assert settings.flow_settings == FLOW and settings.superpixel_settings == SuperpixelSettings()


def test_a_run_and_a_model_do_not_speak_of_stored_flow():
    written = {"flow": {"method": "somebody's"}, "superpixels": None, "prior": {"kind": "magnitude"}}
    settings = MotionSettings.from_dict(written)
    assert settings.to_dict() == written
    assert settings.superpixel_settings is None
    with pytest.raises(ValueError, match="flow method must be one of"):
        _ = settings.flow_settings


def test_what_is_missing_or_of_another_type_is_refused():
    right = MotionOptions(FLOW).to_dict()
    for wrong in (
        None, [], {}, {**right, "flow": None}, {**right, "superpixels": 3}, {**right, "prior": "none"},
        {**right, "prior": {"kind": 3}}, {**right, "prior": {"kind": "../p"}}, {**right, "prior": {"kind": []}},
        {**right, "prior": {"kind": "network", "sha256": 1}},
        {**right, "flow_stored": "yes"}, {key: value for key, value in right.items() if key != "superpixels"},
    ):  # fmt: skip
        with pytest.raises(
            ValueError, match="expected motion settings .flow, superpixels, prior .*, flow_stored., found"
        ):
            MotionSettings.from_dict(wrong)


def test_differences_are_named():
    first = MotionOptions(FLOW, None, "magnitude").settings()
    backward = FlowSettings(motion_size=(32, 48), direction="backward", stride=2)
    assert first.differences(first) == ""
    assert first.differences(MotionOptions(FLOW, None, "magnitude", store_flow=True).settings()) == ""
    other = MotionOptions(backward, SuperpixelSettings(), "none").settings()
    assert first.differences(other, ("flow",)) == (
        "flow direction backward instead of forward; flow stride 2 instead of 1"
    )
    assert first.differences(other, ("prior",)) == "prior kind none instead of magnitude"
    assert "superpixels num_levels 3 instead of none" in first.differences(other)
    assert (
        first.without_flow(("direction", "stride")).differences(other.without_flow(("direction", "stride")), ("flow",))
        == ""
    )
    network = MotionSettings(first.flow, None, PriorSettings("network", "abc"))
    assert first.differences(network) == "prior kind network instead of magnitude; prior sha256 abc instead of none"


def test_settings_bring_neither_keras_nor_tensorflow():
    program = "import sys, msst_keras.motion.settings; print(sorted({'keras', 'tensorflow'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"
