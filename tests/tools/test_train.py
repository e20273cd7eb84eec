"""`msst train` as processes: one device, mirrored, two workers; killed and started again."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from forked import Forked

from msst_keras.conversion.shard_maker import ShardMaker
from msst_keras.conversion.sources import NewShard
from msst_keras.jobs.trained import load_trained
from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.settings import MAGNITUDE, MotionOptions
from msst_keras.records.manifest import join_manifest, write_manifest
from msst_keras.records.shard_files import shard_path
from msst_keras.synthetic import videos

FLAGS = ["--width=0.0625", "--weights=none", "--image_sizes=32x48,48x64", "--num_frames=2", "--batch_size=4",
         "--output_stride=16", "--precision=float32", "--seed=3"]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A record folder of two generated sequences, one of fine labels and one of coarse."""
    path = tmp_path_factory.mktemp("records")
    motion = MotionOptions(FlowSettings(motion_size=(48, 64)), prior=MAGNITUDE)
    maker, described = ShardMaker(motion), []
    for number, kind in enumerate(("fine", "coarse")):
        sequence = videos.generate_sequence(number, 6, (48, 64), name=f"s{number}")
        described.append(maker.make(NewShard(shard_path(path, number, 2), (sequence,), kind))[0])
    description = {"dataset": "generated", "motion": motion.to_dict()}
    write_manifest(path, join_manifest(path, described, description))
    return path


def train(folder, run_dir, *flags):
    """Trains in a process that talks to no other."""
    finish(Forked("train", f"--records={folder}", f"--run_dir={run_dir}", *FLAGS, *flags))


def start(folder, run_dir, *flags, **environment):
    command = [sys.executable, "-m", "msst_keras", "train", f"--records={folder}", f"--run_dir={run_dir}"]
    return subprocess.Popen(
        [*command, *FLAGS, *flags], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | environment,
    )  # fmt: skip


def finish(*processes, status=0):
    """Waits for processes; returns what they wrote to standard error."""
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [status] * len(processes), outputs
    return "".join(errors for _, errors in outputs)


def start_workers(folder, run_dir, *flags):
    """Two workers on loopback."""
    sockets = [socket.socket() for _ in range(2)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    cluster = {"worker": addresses}
    return [
        start(folder, run_dir, *flags,
              TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}))
        for index in range(2)
    ]  # fmt: skip


def losses(run_dir):
    return [json.loads(line)["loss"] for line in (run_dir / "log.jsonl").read_text().splitlines()]


def weights(run_dir):
    reader = tf.train.load_checkpoint(str(next((run_dir / "checkpoints").glob("*.index")).with_suffix("")))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def test_one_device_two_mirrored_ones_and_two_workers_learn_the_same(tmp_path, folder):
    flags = ["--steps=20", "--coarse_weight=0.5", "--clip_norm=1", "--image_sizes=32x48"]
    train(folder, tmp_path / "one", *flags)
    train(folder, tmp_path / "parts", *flags, "--accumulation_steps=2", "--recompute")
    train(folder, tmp_path / "mirrored", *flags, "--strategy=mirrored", "--cpu_devices=2")
    finish(*start_workers(folder, tmp_path / "workers", *flags))
    expected = losses(tmp_path / "one")
    assert len(expected) == 20
    for name in ("parts", "mirrored", "workers"):
        np.testing.assert_allclose(losses(tmp_path / name), expected, rtol=0, atol=1e-5, err_msg=name)
    assert json.loads((tmp_path / "workers" / "result.json").read_text())["steps"] == 20
    assert len(list((tmp_path / "workers").glob("events*"))) == 1  # the chief's


def test_a_run_begins_with_the_weights_of_an_exported_model(tmp_path, folder):
    flags = "--variant=os", "--batch_size=2", "--image_sizes=32x48", "--num_frames=1"
    train(folder, tmp_path / "first", *flags, "--steps=2")
    finish(Forked("export", f"--run_dir={tmp_path / 'first'}", f"--output_dir={tmp_path / 'model'}"))
    train(folder, tmp_path / "second", *flags, "--steps=1", "--learning_rate=1e-12",
          f"--init_from={tmp_path / 'model'}")  # fmt: skip
    first, second = (load_trained(str(tmp_path / name)) for name in ("first", "second"))
    for expected, found in zip(first.weights, second.weights, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-9)
    errors = finish(Forked("train", f"--records={folder}", f"--run_dir={tmp_path / 'third'}", *FLAGS, *flags,
                           "--decoder=topdown", "--backbone=efficientnet_lite0", "--image_sizes=32x64",
                           f"--init_from={tmp_path / 'model'}"), status=1)  # fmt: skip
    assert "is an exported model, whose batch norms are folded; give --batch_norm=folded" in errors


@pytest.mark.slow
def test_two_tasks_of_slurm_learn_as_one_device_does(tmp_path, folder):
    flags = ["--steps=5", "--image_sizes=32x48"]
    finish(start(folder, tmp_path / "one", *flags))
    step = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost",
            "SLURM_STEP_TASKS_PER_NODE": "2"}  # fmt: skip
    finish(*(start(folder, tmp_path / "slurm", *flags, **step, SLURM_PROCID=str(task)) for task in range(2)))
    np.testing.assert_allclose(losses(tmp_path / "slurm"), losses(tmp_path / "one"), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_run_that_is_killed_ten_times_ends_with_the_same_bits(tmp_path, folder):
    flags = ["--steps=60", "--checkpoint_every=3", "--average_decay=0.9", "--schedule=cosine", "--keep_checkpoints=1"]
    finish(start(folder, tmp_path / "whole", *flags))
    chance = random.Random(0)
    kills = {signal.SIGKILL: 10, signal.SIGTERM: 3}
    for kind, count in kills.items():
        run_dir = tmp_path / kind.name
        for _ in range(count):
            done = len((run_dir / "log.jsonl").read_text().splitlines()) if (run_dir / "log.jsonl").exists() else 0
            process = start(folder, run_dir, *flags)
            while process.poll() is None:
                path = run_dir / "log.jsonl"
                if path.exists() and len(path.read_text().splitlines()) >= min(done + 4, 57):
                    break
                time.sleep(0.02)
            time.sleep(chance.uniform(0, 0.4))
            process.send_signal(kind)
            process.communicate(timeout=120)
            assert process.returncode in (-kind, 0, 75)
        finish(start(folder, run_dir, *flags))
        assert losses(run_dir) == losses(tmp_path / "whole")
        found, expected = weights(run_dir), weights(tmp_path / "whole")
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.slow
def test_two_workers_of_which_one_is_killed_go_on_when_started_again(tmp_path, folder):
    flags = ["--steps=30", "--checkpoint_every=5", "--image_sizes=32x48"]
    finish(start(folder, tmp_path / "one", *flags))
    run_dir = tmp_path / "workers"
    workers = start_workers(folder, run_dir, *flags)
    while not (run_dir / "checkpoints" / "ckpt-10.index").exists():
        assert [worker.poll() for worker in workers] == [None, None]
        time.sleep(0.05)
    workers[1].kill()
    _, errors = workers[0].communicate(timeout=300)
    assert workers[0].returncode == 1, errors
    assert "another process of this training was lost" in errors.splitlines()[-1]
    workers[1].communicate()
    finish(*start_workers(folder, run_dir, *flags))
    np.testing.assert_allclose(losses(run_dir), losses(tmp_path / "one"), rtol=0, atol=1e-4)


@contextlib.contextmanager
def serve_data(*flags):
    """`msst serve_data` on a free port; (process, what it says when it serves)."""
    command = [sys.executable, "-m", "msst_keras", "serve_data", "--port=0", *flags]
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE)
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.parametrize("kills", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_a_data_service_prepares_is_learned_as_if_it_were_prepared_here(tmp_path, folder, kills):
    flags = ["--steps=100" if kills else "--steps=8", "--image_sizes=32x48"]
    with serve_data() as (dispatcher, said):
        address = said.removeprefix("dispatcher at ")
        worker_flags = f"--dispatcher={address.removeprefix('grpc://')}", "--host=localhost"
        with serve_data(*worker_flags) as (first, _), serve_data(*worker_flags) as (second, _):
            served = start(folder, tmp_path / "served", *flags, f"--data_service={address}")
            if kills:
                while not (tmp_path / "served/log.jsonl").exists() or len(losses(tmp_path / "served")) < 5:
                    time.sleep(0.02)
                first.kill()
            finish(served)
    assert [process.returncode for process in (dispatcher, first, second)] == [0, -signal.SIGKILL if kills else 0, 0]
    train(folder, tmp_path / "here", *flags)
    assert losses(tmp_path / "served") == losses(tmp_path / "here")


def test_a_data_service_that_is_not_there_is_one_sentence(tmp_path, folder):
    errors = finish(start(folder, tmp_path / "run", "--steps=2", "--data_service=grpc://127.0.0.1:9"), status=1)
    assert "no data service answers at grpc://127.0.0.1:9" in errors.splitlines()[-1]
