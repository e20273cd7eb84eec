"""Killed at random moments and started again, a job ends with what an undisturbed one gives."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from msst_keras.synthetic import videos
from msst_keras.training import checkpoints

pytestmark = pytest.mark.slow
NUM_KILLS = 5


def start(*arguments):
    command = [sys.executable, "-m", "msst_keras", *map(str, arguments)]
    nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, **nowhere, start_new_session=True)  # a process group of its own


def finish(*arguments):
    """Runs to the end; returns how long that took."""
    started = time.monotonic()
    assert start(*arguments).wait(600) == 0
    return time.monotonic() - started


def kill_and_finish(seconds, *arguments):
    """Kills the job at random moments, the later the likelier that it has got somewhere, then lets it finish."""
    moments = random.Random(0)
    for _ in range(NUM_KILLS):
        process = start(*arguments)
        time.sleep(moments.uniform(0.3, 0.95) * seconds)
        process.kill()
        process.wait()
    finish(*arguments)


@pytest.fixture(scope="module")
def davis(tmp_path_factory):
    root = tmp_path_factory.mktemp("davis") / "davis"
    videos.write_davis(root, 8, 20, (64, 96), seed=0)
    return root


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_conversion(davis, tmp_path):
    """Twenty kills of two workers: sometimes all processes at once, sometimes their parent alone."""

    def arguments(folder):
        return [
            "make_records", "--dataset=davis", f"--root={davis}", f"--output_dir={folder}", "--store_flow",
            "--num_workers=2",
        ]  # fmt: skip

    seconds = finish(*arguments(tmp_path / "whole"))
    whole, killed = contents(tmp_path / "whole"), tmp_path / "killed"
    moments, num_kills, is_fresh = random.Random(0), 0, True
    while num_kills < 20:
        started, process = time.monotonic(), start(*arguments(killed))
        try:
            assert process.wait(moments.uniform(0.3, 1) * seconds) == 0
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL) if moments.random() < 0.5 else process.kill()
            process.wait()
            num_kills, is_fresh = num_kills + 1, False
        else:  # it got to its end before its moment came: the next kills are for another conversion
            assert contents(killed) == whole
            shutil.rmtree(killed)
            if is_fresh:  # the machine is less busy than it was
                seconds = time.monotonic() - started
            is_fresh = True
    finish(*arguments(killed))
    assert contents(killed) == whole  # byte for byte, and no stray file


def test_ctrl_c_leaves_nothing_running(davis, tmp_path):
    process = start("make_records", "--dataset=davis", f"--root={davis}", f"--output_dir={tmp_path}", "--num_workers=2")
    while not list(tmp_path.glob(".partial-*.tfrecord")):  # a worker has begun a shard
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(60) == 130
    assert not list(tmp_path.glob(".partial-*")) and not (tmp_path / "manifest.json").exists()
    with pytest.raises(ProcessLookupError):  # the process group is empty
        os.killpg(process.pid, 0)


def test_an_added_prior(davis, tmp_path):
    def make(folder, prior):
        common = [f"--root={davis}", f"--output_dir={folder}", "--num_workers=2"]
        finish("make_records", "--dataset=davis", f"--prior={prior}", *common)

    make(tmp_path / "whole", "magnitude")
    make(tmp_path / "killed", "none")
    shutil.copytree(tmp_path / "killed", tmp_path / "timed")
    change = ("make_records", "--add_prior=magnitude", "--num_workers=2")
    seconds = finish(*change, f"--output_dir={tmp_path}/timed")
    kill_and_finish(seconds, *change, f"--output_dir={tmp_path}/killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "timed") == contents(tmp_path / "whole")


def test_training(davis, tmp_path):
    records = tmp_path / "records"
    finish("make_records", "--dataset=davis", f"--root={davis}", f"--output_dir={records}", "--motion_size=64x96")

    def arguments(run_dir):
        return [
            "train", f"--records={records}", f"--run_dir={run_dir}", "--width=0.0625", "--weights=none", "--steps=40",
            "--image_sizes=64x64,64x96", "--checkpoint_every=4", "--batch_size=2", "--precision=float32",
        ]  # fmt: skip

    seconds = finish(*arguments(tmp_path / "whole"))
    process = start(*arguments(tmp_path / "killed"))
    while not (tmp_path / "killed/log.jsonl").exists() or not (tmp_path / "killed/log.jsonl").stat().st_size:
        time.sleep(0.1)
    process.terminate()
    assert process.wait(60) == 75  # it finished its step and saved itself
    kill_and_finish(seconds, *arguments(tmp_path / "killed"))
    whole, killed = (checkpoints.load_model(tmp_path / name).weights for name in ("whole", "killed"))
    for expected, found in zip(whole, killed, strict=True):
        np.testing.assert_array_equal(expected, found)
    losses = [
        [
            line.partition('"loss": ')[2].partition(",")[0]
            for line in (tmp_path / name / "log.jsonl").read_text().splitlines()
        ]
        for name in ("whole", "killed")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 40
