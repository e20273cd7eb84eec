"""Which devices a strategy finds, and what it refuses. (What they learn: tests/tools/test_train.py.)"""

from __future__ import annotations

import json
import types

import numpy as np
import pytest
import tensorflow as tf

from msst_keras.pipeline.share import Share
from msst_keras.training import strategy
from msst_keras.training.strategy import describe_devices, make_devices


def test_alone_on_a_cpu_auto_is_one_device(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    devices = make_devices("auto", 3)
    assert (devices.num_replicas, devices.is_chief, devices.share) == (1, True, Share())
    batch = {"clip": tf.constant([4, 5])}
    assert devices.scatter([batch]) is batch
    np.testing.assert_array_equal(devices.gather(batch["clip"]), [4, 5])
    assert devices.gather_number(7) == [7]


@pytest.mark.parametrize("batch_size, used", [(8, 4), (6, 3), (5, 1), (1, 1)])
def test_auto_takes_as_many_gpus_as_share_the_batch_and_says_so(monkeypatch, capsys, batch_size, used):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [f"{kind}:{number}" for number in range(4)])
    stand_in = types.SimpleNamespace
    monkeypatch.setattr(
        tf.distribute, "MirroredStrategy", lambda gpus: stand_in(gpus=gpus, num_replicas_in_sync=len(gpus))
    )
    devices = make_devices("auto", batch_size)
    assert devices.strategy.gpus == [f"GPU:{number}" for number in range(used)]
    expected = "" if used == 4 else f"{used} of 4 GPUs are used; more cannot share {batch_size} clips equally\n"
    assert capsys.readouterr().err == expected


def test_mirrored_without_a_gpu_is_refused_and_the_device_is_named(monkeypatch):
    with pytest.raises(ValueError, match="--strategy=mirrored finds no GPU; leave it out"):
        make_devices("mirrored", 2)
    assert describe_devices(make_devices("one", 2)) == "the CPU: TensorFlow sees no GPU"
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [f"{kind}:{number}" for number in range(4)])
    assert describe_devices(make_devices("one", 2)) == "1 of 4 GPUs"


def test_slurm_gives_each_task_its_number_and_every_job_its_ports(monkeypatch):
    for name, value in {"JOB_ID": "4711", "PROCID": "2", "STEP_NUM_TASKS": "3", "STEP_NODELIST": "n[1-2]",
                        "STEP_TASKS_PER_NODE": "2,1"}.items():  # fmt: skip
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    resolver = strategy._find_cluster("auto")()
    assert resolver.cluster_spec().as_dict() == {"worker": ["n1:27110", "n1:27111", "n2:27110"]}
    assert (resolver.task_type, resolver.task_id) == ("worker", 2)
    assert resolver.num_accelerators() == {"GPU": 0}


def test_an_unknown_strategy_and_workers_without_addresses_are_refused(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match="strategy must be one of auto, one, mirrored, multi_worker, not 'two'"):
        make_devices("two", 1)
    with pytest.raises(ValueError, match="finds neither TF_CONFIG nor Slurm's variables"):
        make_devices("multi_worker", 1)


@pytest.mark.parametrize(
    "config",
    ["", "{", "[]", '{"cluster": {"worker": ["a:1", "b:1"]}}',
     json.dumps({"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}),
     json.dumps({"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": -1}}),
     json.dumps({"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}),
     *(json.dumps({"cluster": {"worker": ["a:1"]}, "task": task}) for task in (
         {"type": "worker", "index": 1}, {"type": "worker", "index": "0"}, {"type": "chief", "index": 0},
         {"type": "worker"}, "worker", None, [])),
     json.dumps({"cluster": {"ps": ["a:1"], "worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}),
     json.dumps({"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "chief", "index": 0}})],
)  # fmt: skip
def test_a_damaged_tf_config_is_refused(monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match="TF_CONFIG must be"):
        make_devices("auto", 1)


@pytest.mark.parametrize("name, cluster", [
    ("auto", {"workerpool0": ["127.0.0.1:23456"]}), ("auto", {"worker": []}), ("auto", {}),
    ("auto", {"chief": ["a:1"]}), ("auto", None),
    ("one", {"worker": ["a:1", "b:1"]}), ("one", {"chief": ["a:1"], "worker": ["b:1"]}),
])  # fmt: skip
def test_a_cluster_of_nobody_else_is_one_device(monkeypatch, name, cluster):
    config = {"environment": "cloud"} | ({} if cluster is None else {"cluster": cluster})
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS", raising=False)
    assert make_devices(name, 2).num_replicas == 1
    if cluster and len(cluster) == 1:  # and its own task may be named
        monkeypatch.setenv("TF_CONFIG", json.dumps(config | {"task": {"type": min(cluster), "index": 0}}))
        assert make_devices(name, 2).num_replicas == 1
