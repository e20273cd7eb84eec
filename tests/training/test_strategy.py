"""Which devices a strategy finds, and what it refuses. (What they learn: tests/tools/test_train.py.)"""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

from msst_keras.data.pipeline import Share
from msst_keras.training.strategy import make_devices


def test_alone_on_a_cpu_auto_is_one_device(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    devices = make_devices("auto", 3)
    assert (devices.num_replicas, devices.is_chief, devices.share) == (1, True, Share())
    batch = {"clip": tf.constant([4, 5])}
    assert devices.scatter([batch]) is batch
    np.testing.assert_array_equal(devices.gather(batch["clip"]), [4, 5])
    assert devices.gather_number(7) == [7]


def test_an_unknown_strategy_and_workers_without_addresses_are_refused(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match="strategy must be one of auto, one, mirrored, multi_worker, not 'two'"):
        make_devices("two", 1)
    with pytest.raises(ValueError, match="finds neither TF_CONFIG nor Slurm's variables"):
        make_devices("multi_worker", 1)


@pytest.mark.parametrize(
    "config",
    ["", "{", "[]", '{"cluster": {"worker": ["a:1"]}}',
     json.dumps({"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}),
     json.dumps({"cluster": {"ps": ["a:1"], "worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}),
     json.dumps({"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}})],
)  # fmt: skip
def test_a_damaged_tf_config_is_refused(monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match="TF_CONFIG must be"):
        make_devices("auto", 1)
