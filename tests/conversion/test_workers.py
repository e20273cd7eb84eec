"""Worker processes: as many as one likes, the same bytes; what goes wrong in one; and none outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from msst_keras import locks
from msst_keras.conversion import convert, workers
from msst_keras.conversion.shard_maker import ShardMaker
from msst_keras.conversion.sources import NewShard
from msst_keras.conversion.work_report import WorkReport
from msst_keras.data.datasets import find_sequences
from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.settings import MotionOptions
from msst_keras.synthetic import videos

MOTION = MotionOptions(FlowSettings("dis_fast", motion_size=(32, 48)), None, "magnitude", store_flow=True)


@pytest.fixture(scope="module")
def davis(tmp_path_factory):
    root = tmp_path_factory.mktemp("davis") / "davis"
    videos.write_davis(root, 3, 4, (48, 64), seed=0)
    return root


@pytest.fixture(scope="module")
def made_by_two(davis, tmp_path_factory):
    """A folder that two workers made, and their report."""
    folder = tmp_path_factory.mktemp("two") / "out"
    report = WorkReport()
    convert.convert(find_sequences("davis", davis), folder, MOTION, {}, num_workers=2, report=report)
    return folder, report


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def children():
    """The commands of this process's children, by process."""
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in found}


def is_alive(pid):
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_the_number_of_workers_does_not_show(davis, made_by_two, tmp_path):
    folder, report = made_by_two
    convert.convert(find_sequences("davis", davis), tmp_path / "one", MOTION, {}, num_workers=1)
    assert contents(tmp_path / "one") == contents(folder) and len(contents(folder)) == 4
    assert report.num_frames == 12 and report.elapsed > 0
    for number in range(3):  # and this process, whatever its threads, makes the same
        shard = NewShard(tmp_path / f"{number}", (find_sequences("davis", davis)[number],), "fine")
        ShardMaker(MOTION).make(shard)
        assert shard.path.read_bytes() == (folder / f"shard-{number:05d}-of-00003.tfrecord").read_bytes()
    assert not [command for command in children().values() if b"workers.serve" in command]


def test_a_fault_in_a_worker_is_its_own_sentence(davis, tmp_path):
    broken = tmp_path / "davis"
    subprocess.run(["cp", "-r", davis, broken], check=True)
    path = broken / "JPEGImages/480p/generated_001/00002.jpg"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match="generated_001/00002.jpg: cut off or damaged"):
        convert.convert(find_sequences("davis", broken), tmp_path / "out", MOTION, {}, num_workers=2)
    left = [name for name in contents(tmp_path / "out") if not name.startswith("shard-")]
    assert left == ["plan.json"] and "shard-00001-of-00003.tfrecord" not in contents(tmp_path / "out")


def test_a_worker_that_dies_is_noticed(davis, tmp_path):
    worker = workers.Worker(MOTION)
    os.kill(worker._process.pid, signal.SIGKILL)
    with pytest.raises(ChildProcessError, match="a worker was ended by signal 9.*start the same command again"):
        worker.receive()
    worker.stop()


def test_an_error_of_the_program_comes_with_its_traceback():
    worker = workers.Worker(None)  # no options at all
    with pytest.raises(RuntimeError, match="in a worker:\nTraceback(.|\n)*AttributeError"):
        worker.receive()
    worker.stop()


PARENT = """
import sys, time
from pathlib import Path
from msst_keras.conversion import workers
from msst_keras.locks import hold_folder
with hold_folder(Path(sys.argv[1])):
    worker = workers.Worker(None)
    print(worker._process.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_worker_ends_with_its_parent_and_holds_the_folder_until_then(tmp_path, kill):
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    pid = int(process.stdout.readline())
    os.kill(pid, signal.SIGSTOP)  # an orphan that is slow to notice
    process.send_signal(kill)
    process.wait()
    process.stdout.close()
    descriptor = os.open(tmp_path, os.O_RDONLY)
    assert is_alive(pid) and not locks.lock(descriptor)
    os.close(descriptor)
    os.kill(pid, signal.SIGCONT)
    with locks.hold_folder(tmp_path):  # waits for it
        assert not is_alive(pid)


def test_two_runs_do_not_share_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_ORPHANS_SECONDS", 0.1)
    with locks.hold_folder(tmp_path / "new"):
        started = time.monotonic()
        with pytest.raises(BlockingIOError, match="another process is writing here"):
            with locks.hold_folder(tmp_path / "new"):
                pass
        assert time.monotonic() - started > 0.1
    with locks.hold_folder(tmp_path / "new"):
        assert not list((tmp_path / "new").iterdir())
