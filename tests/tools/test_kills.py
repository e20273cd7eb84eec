"""Killed at random moments and started again, a job ends with what an undisturbed one gives."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import numpy as np
import pytest

from msst_keras.data import synthetic
from msst_keras.training import run

pytestmark = pytest.mark.slow
NUM_KILLS = 5


def start(*arguments):
    command = [sys.executable, "-m", "msst_keras", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


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
    synthetic.write_davis(root, 8, 20, (64, 96), seed=0)
    return root


def test_conversion(davis, tmp_path):
    def arguments(folder):
        return ["make_records", "--dataset=davis", f"--root={davis}", f"--output_dir={folder}", "--motion_size=64x96"]

    seconds = finish(*arguments(tmp_path / "whole"))
    kill_and_finish(seconds, *arguments(tmp_path / "killed"))
    whole, killed = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("whole", "killed")
    )
    assert killed == whole  # byte for byte, and no stray file


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
    whole, killed = (run.load_model(tmp_path / name).weights for name in ("whole", "killed"))
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
