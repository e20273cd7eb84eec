"""Workers end with their parents, and a job that another starts gets its signals."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from msst_keras import processes

POOL = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from msst_keras.processes import end_with_parent

def begin():
    end_with_parent(multiprocessing.parent_process().sentinel)

if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), begin)
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(600)
"""


def is_alive(pid):
    with contextlib.suppress(FileNotFoundError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="asks Linux which processes there are")
def test_a_pool_ends_with_a_parent_that_is_killed(tmp_path):
    (tmp_path / "pool.py").write_text(POOL)
    process = subprocess.Popen([sys.executable, tmp_path / "pool.py"], stdout=subprocess.PIPE, text=True)
    worker = int(process.stdout.readline())
    assert is_alive(worker)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(worker)


def test_a_job_gives_its_status_and_is_printed(capfd):
    assert processes.run_job("nothing", "--a=b c") == 2
    found = capfd.readouterr()
    assert found.out == "\n$ msst nothing '--a=b c'\n" and "there is no job 'nothing'" in found.err
    assert processes.run_job("evaluate", "--helpshort") == 0


def test_a_job_hears_of_a_signal(tmp_path):
    program = "import sys; from msst_keras.processes import run_job; sys.exit(run_job('serve_data', '--port=0'))"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    lines = [process.stdout.readline() for _ in range(3)]
    assert lines[1] == "$ msst serve_data --port=0\n" and lines[2].startswith("dispatcher at ")
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=60)
    assert rest == "stopped by SIGTERM\n" and process.returncode == 0


def test_cores():
    assert 1 <= processes.count_cores() <= os.cpu_count()
