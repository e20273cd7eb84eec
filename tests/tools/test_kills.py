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

from msst_keras.data import images
from msst_keras.synthetic import videos
from msst_keras.training import checkpoints

pytestmark = pytest.mark.slow
# MSST_NUM_KILLS=3 makes a shorter round of the jobs below.
NUM_KILLS = int(os.environ.get("MSST_NUM_KILLS", "10"))


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
        wait_for_children(process.pid)
    finish(*arguments)


def wait_for_children(group):
    """Waits until no process of a killed job's group is left, which must not take long."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("children outlive a job that was killed")


def all_contents(folder):
    """Every file below a folder, hidden ones too, by its path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }  # fmt: skip


def check_kills(tmp_path, *arguments, output="--output_dir", name=""):
    """A killed job, started again, leaves the bytes of an undisturbed one and nothing else."""
    seconds = finish(*arguments, f"{output}={tmp_path}/whole{name}")
    whole = {path.replace("whole", "killed"): content for path, content in all_contents(tmp_path).items()
             if path.startswith("whole")}  # fmt: skip
    kill_and_finish(seconds, *arguments, f"{output}={tmp_path}/killed{name}")
    killed = {path: content for path, content in all_contents(tmp_path).items() if not path.startswith("whole")}
    assert killed == whole and whole


def check_trainings(whole, killed, steps):
    """The weights of two runs are the same to the bit, and so are their losses."""
    for expected, found in zip(*(checkpoints.load_model(run).weights for run in (whole, killed)), strict=True):
        np.testing.assert_array_equal(expected, found)
    losses = [
        [line.partition('"loss": ')[2].partition(",")[0] for line in (run / "log.jsonl").read_text().splitlines()]
        for run in (whole, killed)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == steps


@pytest.fixture(scope="module")
def maps(davis, tmp_path_factory):
    """Maps that stand for a method's."""
    folder = tmp_path_factory.mktemp("maps") / "maps"
    generator = np.random.default_rng(0)
    for sequence in sorted((davis / "JPEGImages/480p").iterdir()):
        for frame in sorted(sequence.iterdir()):
            images.write_map(folder / sequence.name / f"{frame.stem}.png", generator.random((64, 96)))
    return folder


def test_predict(davis, tmp_path):
    frames = sorted(path for path in (davis / "JPEGImages/480p").iterdir())[:3]
    check_kills(tmp_path, "predict", f"--input={','.join(map(str, frames))}")


def test_evaluate(davis, maps, tmp_path):
    check_kills(
        tmp_path, "evaluate", f"--predictions={maps}", f"--ground_truth={davis}", "--protocol=paper,davis16",
        "--num_workers=2", "--noreport",
    )  # fmt: skip


def test_refine(davis, maps, tmp_path):
    check_kills(tmp_path, "refine", f"--maps={maps}", f"--frames={davis}/JPEGImages/480p", "--num_workers=2")


def test_train_prior(davis, tmp_path):
    records = tmp_path.parent / "prior_records"
    finish("make_records", "--dataset=davis", f"--root={davis}", f"--output_dir={records}", "--motion_size=64x96",
           "--store_flow")  # fmt: skip
    check_kills(
        tmp_path, "train_prior", f"--records={records}", "--width=0.0625", "--weights=none", "--max_regions=64",
        "--num_levels=2", "--steps=60", output="--output", name="/prior.keras",
    )  # fmt: skip


def test_ablate(davis, tmp_path):
    """Table, figures, maps, weights and losses.

    Other bytes differ between any two runs: log.jsonl and TensorBoard's events hold times, a checkpoint's index and
    the graph in saved_model.pb are numbered as the process happened to, and report.html names its own folder.
    """
    records = tmp_path.parent / "ablate_records"
    finish("make_records", "--dataset=davis", f"--root={davis}", f"--output_dir={records}", "--motion_size=64x96")
    config = tmp_path.parent / "st.cfg"
    config.write_text("--variant=st\n")
    train_args = f"--records={records} --width=0.0625 --weights=none --steps=12 --checkpoint_every=3"
    train_args += " --image_sizes=64x96 --precision=float32"
    arguments = ["ablate", f"--configs={config}", f"--train_args={train_args}", f"--ground_truth={davis}"]
    seconds = finish(*arguments, f"--output_dir={tmp_path}/whole")
    kill_and_finish(seconds, *arguments, f"--output_dir={tmp_path}/killed")
    whole, killed = (all_contents(tmp_path / name) for name in ("whole", "killed"))
    for name, content in whole.items():
        if name.endswith((".csv", ".png", "variables.data-00000-of-00001")):
            assert killed[name] == content, name
    assert sum(name.endswith(".png") for name in whole) > 160  # the maps of all frames are among them
    check_trainings(tmp_path / "whole/runs/st", tmp_path / "killed/runs/st", 12)
    assert not [name for name in killed if ".partial" in name or "torn-" in name]


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
    check_trainings(tmp_path / "whole", tmp_path / "killed", 40)
