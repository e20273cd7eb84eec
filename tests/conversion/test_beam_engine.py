"""Apache Beam as engine: the same bytes, the same faults. Skipped without the extra `beam`."""

from __future__ import annotations

import sys
import warnings

import pytest

from msst_keras.conversion import convert
from msst_keras.conversion.work_report import WorkReport
from msst_keras.data.datasets import find_sequences
from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.settings import MotionOptions
from msst_keras.synthetic import videos

MOTION = MotionOptions(FlowSettings("dis_fast", motion_size=(32, 48)), None, "magnitude", store_flow=True)


def test_without_beam_the_engine_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.delitem(sys.modules, "msst_keras.conversion.beam_engine", raising=False)
    with pytest.raises(ValueError, match="needs Apache Beam .*pip install 'msst-keras\\[beam\\]'"):
        convert.convert([], tmp_path, MOTION, {}, engine="beam")


@pytest.mark.filterwarnings("ignore")  # Beam's own
def test_beam_makes_the_same_bytes_and_the_same_faults(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("apache_beam")
    videos.write_davis(tmp_path / "davis", 3, 4, (48, 64), seed=0)
    path = tmp_path / "davis/JPEGImages/480p/generated_001/00002.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[:300])
    sequences = find_sequences("davis", tmp_path / "davis")
    with pytest.raises(ValueError, match="generated_001/00002.jpg: cut off or damaged"):
        convert.convert(sequences, tmp_path / "beam", MOTION, {}, engine="beam")
    left = sorted(path.name for path in (tmp_path / "beam").iterdir())
    assert left == ["plan.json", "shard-00000-of-00003.tfrecord", "shard-00002-of-00003.tfrecord"]
    path.write_bytes(whole)
    report = WorkReport()
    manifest = convert.convert(sequences, tmp_path / "beam", MOTION, {}, engine="beam", report=report)
    assert report.num_frames == 4  # those of the one shard that was missing
    assert convert.convert(sequences, tmp_path / "local", MOTION, {}) == manifest
    found, expected = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("beam", "local")
    )
    assert found == expected
