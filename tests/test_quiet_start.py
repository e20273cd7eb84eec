"""A stand-in for TensorFlow writes its notes and a real error: the error alone reaches the user."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from msst_keras import quiet_start

FAKE = """
import os
os.write(2, b'''WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795717181.347305    2716 port.cc:153] oneDNN custom operations are on. ...
W0000 00:00:1795717181.400000    2716 wheel.cc:1] this wheel is broken
I0000 00:00:1795717181.347638    2716 cudart_stub.cc:31] Could not find cuda drivers on your machine, ...
I0000 00:00:1.39 2716 cpu.cc:2] This TensorFlow binary is optimized to use available CPU instructions ...
To enable the following instructions: AVX2 AMX_BF16 FMA, in other operations, rebuild TensorFlow with ...
''')
class config:
    def list_physical_devices():
        os.write(2, b"E0000 00:00:1795717183.93 2716 cuda_platform.cc:52] failed call to cuInit: INTERNAL: (303)\\n")
"""
PROGRAM = """
import sys
from msst_keras.quiet_start import quiet_tensorflow
quiet_tensorflow()
try:
    import tensorflow
except ImportError:
    sys.exit(3)
assert tensorflow.config and "tensorflow" in sys.modules
print("after", file=sys.stderr)
"""


def start(folder, text):
    (folder / "tensorflow.py").write_text(text)
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr.splitlines()


def test_notes_are_dropped_and_errors_are_not(tmp_path):
    status, lines = start(tmp_path, FAKE)
    has_card = bool(quiet_start.glob.glob("/dev/nvidia[0-9]*"))
    assert status == 0
    assert lines[0].endswith("this wheel is broken")
    assert lines[-1] == "after"
    assert len(lines) == 2 + has_card


def test_an_import_that_fails_shows_everything(tmp_path):
    status, lines = start(tmp_path, FAKE + "\nraise ImportError")
    assert (status, len(lines)) == (3, 6)


@pytest.mark.parametrize("has_card", [False, True])
def test_a_card_that_cannot_be_used_is_news_where_there_is_one(has_card, monkeypatch, capfd):
    monkeypatch.setattr(quiet_start.glob, "glob", lambda pattern: ["/dev/nvidia0"] * has_card)
    with quiet_start._without_notes():
        quiet_start.os.write(2, b"E0000 cuda_platform.cc:52] failed call to cuInit: CUDA_ERROR_NO_DEVICE\n")
    assert ("cuInit" in capfd.readouterr().err) == has_card


def test_the_real_tensorflow_starts_and_works_on_integers_without_a_word():
    program = PROGRAM.replace("print(", "tensorflow.transpose(tensorflow.constant([[1, 2]]))\nprint(")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    has_card = bool(quiet_start.glob.glob("/dev/nvidia[0-9]*"))
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1] == "after"
    assert has_card or done.stderr == "after\n"


def test_threads_of_opencv_sleep_while_they_wait_unless_the_user_says_otherwise():
    names = [f"OPENCV_THREAD_POOL_ACTIVE_WAIT_{thread}" for thread in ("MAIN", "WORKER")]
    code = (
        f"import sys, os, msst_keras; assert 'cv2' not in sys.modules; print(*(os.environ[name] for name in {names!r}))"
    )
    others = {name: value for name, value in os.environ.items() if name not in names}
    for said, found in (({}, "0 0"), ({names[0]: "7"}, "7 0")):
        run = subprocess.run([sys.executable, "-c", code], env=others | said, capture_output=True, text=True)
        assert run.stdout.strip() == found, run.stderr
