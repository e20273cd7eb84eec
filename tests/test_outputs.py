"""What a result folder remembers, and one process at a time in it."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from msst_keras import cli, files, locks
from msst_keras.files import DifferentSettingsError, check_writable, hash_files, hash_folder, publish, read_json
from msst_keras.locks import hold_folder
from msst_keras.outputs import Memory, check_apart


def test_the_same_goes_on_and_another_is_named(tmp_path):
    made_from = {"input": "a" * 64, "threshold": 0.5, "size": (3, 4)}
    memory = Memory(tmp_path, "predict", made_from)
    assert memory.compare() is None
    memory.write(maps=3)
    assert Memory(tmp_path, "predict", made_from).compare() == {"maps": 3}
    for job, changed, difference in (
        ("predict", {"input": "b" * 64}, "another input"),
        ("predict", {"threshold": 0.7}, "threshold 0.5 .now 0.7."),
        ("predict", {"crf": True}, "crf none .now True."),
        ("refine", {}, "job predict .now refine."),
    ):
        with pytest.raises(DifferentSettingsError, match=f"was made from something else: {difference}; choose another"):
            Memory(tmp_path, job, {**made_from, **changed}).compare()
    with pytest.raises(ValueError, match=r"files that `msst refine` did not write \(a, b, c, ...\)"):
        Memory(tmp_path, "refine", {}).refuse_strangers("abcd")


def test_the_version_counts(tmp_path, monkeypatch):
    Memory(tmp_path, "predict", {}).write()
    monkeypatch.setattr("msst_keras.outputs.__version__", "9.9")
    with pytest.raises(DifferentSettingsError, match=r"version .* \(now 9.9\)"):
        Memory(tmp_path, "predict", {}).compare()


def test_content_counts_and_not_the_place(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "x").write_text("same")
    assert hash_folder(tmp_path / "a") == hash_folder(tmp_path / "b")
    assert hash_files([tmp_path / "a/deep/x"]) == hash_files({"x": tmp_path / "b/deep/x"})
    (tmp_path / "b/deep/x").write_text("else")
    assert hash_folder(tmp_path / "a") != hash_folder(tmp_path / "b")
    (tmp_path / "b/deep/x").write_text("same")
    (tmp_path / "b/deep/x").rename(tmp_path / "b/deep/y")
    assert hash_folder(tmp_path / "a") != hash_folder(tmp_path / "b")


@pytest.mark.parametrize("output", ["in", "in/out", "link/out", "clip.mp4"])
def test_an_output_in_its_own_input(tmp_path, output):
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to("in")
    with pytest.raises(ValueError, match="would land in its own input"):
        check_apart(tmp_path / output, [tmp_path / "in", tmp_path / "clip.mp4"])
    check_apart(tmp_path / "input2", [tmp_path / "in"])


def test_one_process_at_a_time_and_nothing_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_ORPHANS_SECONDS", 0.1)
    with hold_folder(tmp_path / "new"):
        with pytest.raises(BlockingIOError, match="new: another process is writing here; let it end first"):
            with hold_folder(tmp_path / "new"):
                pass
        (tmp_path / "new").rename(tmp_path / "moved")  # whole now, under another name
        with hold_folder(tmp_path / "new"):
            pass
    with hold_folder(tmp_path / "moved"):
        assert not list((tmp_path / "moved").iterdir())


def test_a_child_inherits_the_lock(tmp_path, monkeypatch):
    from msst_keras.processes import start_python

    monkeypatch.setattr(locks, "_ORPHANS_SECONDS", 0.1)
    with hold_folder(tmp_path):
        child = start_python("import sys; print(sys.flags.safe_path, flush=True); sys.stdin.read()",
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
        assert child.stdout.readline() == "True\n"
    with pytest.raises(BlockingIOError), hold_folder(tmp_path):
        pass
    child.communicate()
    with hold_folder(tmp_path):
        pass


def test_no_module_of_the_current_folder_is_imported(tmp_path, monkeypatch):
    (tmp_path / "shlex.py").write_text("print('mine')\nraise SystemExit(9)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    from msst_keras.processes import run_job

    assert run_job("nothing") == 2


PARENT = """
import sys
from msst_keras import processes
processes._JOB = (
    "import os, time; print(os.getpid(), flush=True); from msst_keras.processes import end_with_parent; "
    "end_with_parent({}); time.sleep(600)"
)
processes.run_job("x")
"""


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="asks Linux which processes there are")
def test_a_job_does_not_outlive_the_one_that_runs_it(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    parent.stdout.readline(), parent.stdout.readline()
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 30
    while files._is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not files._is_alive(child)


def test_what_a_killed_process_left_goes_and_what_a_living_one_writes_stays(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = socket.gethostname()
    strays = [tmp_path / f".partial-{host}-{gone.pid}-{name}" for name in ("a.png", "folder")]
    strays[0].write_bytes(b"half")
    (strays[1] / "deep").mkdir(parents=True)
    stay = [tmp_path / f".partial-{host}-{os.getppid()}-a.png", tmp_path / f".partial-elsewhere-{gone.pid}-a.png"]
    for path in stay:
        path.write_bytes(b"half")
    with publish(tmp_path / "b.png") as temporary:
        temporary.write_bytes(b"whole")
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "b.png", *stay])


def test_errors_name_the_file(tmp_path):
    path = tmp_path / "map.png"
    with pytest.raises(OSError) as caught, publish(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert cli.describe_error(caught.value) == f"{path}: the disk is full; make room and run the same command again"

    class ResourceExhaustedError(Exception):  # as TensorFlow's
        def __init__(self, message):
            self.message = message

    with pytest.raises(OSError) as caught, publish(path) as temporary:
        raise ResourceExhaustedError(f"{temporary}; No space left on device\nmore")
    assert cli.describe_error(caught.value) == f"{path}: the disk is full; make room and run the same command again"
    with pytest.raises(OSError, match=f"^{path}: {path}; Input/output error$"), publish(path) as temporary:
        raise ResourceExhaustedError(f"{temporary}; Input/output error\nmore")
    with pytest.raises(ResourceExhaustedError), publish(path):
        raise ResourceExhaustedError("of memory, which is another matter")
    assert not list(tmp_path.iterdir())
    assert "not enough memory" in cli.describe_error(MemoryError())
    assert cli.describe_error(KeyError("x")) is None


def test_an_output_that_cannot_be_written_is_found_out_at_once(tmp_path):
    check_writable(tmp_path / "new" / "prior.keras")
    assert not list((tmp_path / "new").iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(IsADirectoryError, match="new is a folder"):
        check_writable(tmp_path / "new")
    with pytest.raises(OSError, match="file"):
        check_writable(tmp_path / "file" / "prior.keras")


@pytest.mark.parametrize("content", [b"{", b"[1]", b"7", b"[" * 10**5, b"\xff\xfe"])
def test_damaged_json_is_named(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(ValueError, match="run.json: damaged .*; train again"):
        read_json(tmp_path / "run.json", "train again")


ENDED = """
import sys, time
from pathlib import Path
from msst_keras import cli
from msst_keras.files import publish

def main():
    with publish(Path(sys.argv[1]) / "out.txt") as temporary:
        temporary.write_text("half")
        print("ready", flush=True)
        time.sleep(60)

cli.run(main, ["msst wait"])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_clean_up(tmp_path, number):
    process = subprocess.Popen(
        [sys.executable, "-c", ENDED, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    assert len(list(tmp_path.iterdir())) == 1
    process.send_signal(number)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number and not list(tmp_path.iterdir())
    said = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    assert errors == f"msst wait: {said}\n"
