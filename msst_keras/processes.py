"""Processes: how many this machine has room for, how a worker computes and ends, and how one job runs another.

No process that is started here outlives the one that started it, however that ended. None imports modules from the
folder that it happens to work in. Each inherits the locks on folders that its parent holds.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator
from typing import Any

from msst_keras.locks import held_locks


class Interrupted(Exception):
    """SIGTERM or SIGINT ended the work; its state is saved, and the same command goes on."""


def count_cores() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # macOS does not have it
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def use_one_thread(tensorflow: bool = False) -> None:
    """Makes this process compute with one thread: what two threads add up in another order may round differently.

    Args:
      tensorflow: whether TensorFlow too is to use one thread, and no GPU, whose sums differ from a CPU's. Importing it
        takes seconds.
    """
    import cv2

    cv2.setNumThreads(1)
    if tensorflow:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        tf.config.set_visible_devices([], "GPU")


def end_with_parent(descriptor: int) -> None:
    """Ends this process, whatever it is doing, as soon as its parent is gone, be it by kill -9.

    Args:
      descriptor: a pipe or socket whose other end the parent holds and nobody else; it may carry messages. Of a process
        of `multiprocessing` that is `multiprocessing.parent_process().sentinel`.
    """
    threading.Thread(target=_wait_for_end, args=(descriptor,), daemon=True).start()


def _wait_for_end(descriptor: int) -> None:
    # Signals are the main thread's: one that it has blocked, to wait for it, must not be delivered here.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    poll = select.poll()
    poll.register(descriptor, 0)  # 0: hang-ups alone
    poll.poll()
    os._exit(1)


def start_python(program: str, *arguments: str, pass_fds: Collection[int] = (), **options: Any) -> subprocess.Popen:
    """Starts a Python process that runs a program's text with the modules that this process can import.

    Args:
      program: what `python -c` runs.
      arguments: of it.
      pass_fds: file descriptors that it inherits beside the locks on folders.
      options: of `subprocess.Popen`; "env" is added to the environment.
    """
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1", **options.pop("env", {})}
    # -P: what lies in the current folder, beside somebody's videos, is no module of ours.
    command = [sys.executable, "-P", "-c", program, *arguments]
    return subprocess.Popen(command, pass_fds=[*pass_fds, *held_locks()], env=environment, **options)


@contextlib.contextmanager
def safe_path() -> Iterator[None]:
    """Python processes that others start in this block, as `multiprocessing` does, import nothing from their folder."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


_JOB = """
import sys
from msst_keras.processes import end_with_parent
end_with_parent({})
from msst_keras.__main__ import main
main(["msst", *sys.argv[1:]])
"""


def run_job(job: str, *arguments: str) -> int:
    """Prints the command `msst JOB ...`, runs it as a process of its own and returns its exit status.

    SIGTERM is passed on, and Ctrl-C reaches the job too: a training saves itself before this program ends. When this
    program is killed the job ends, too. The status of a job that a signal ended is 128 and the signal's number, as in a
    shell.
    """
    print(f"\n$ {shlex.join(['msst', job, *arguments])}", flush=True)
    theirs, ours = os.pipe()
    try:
        process = start_python(_JOB.format(theirs), job, *arguments, pass_fds=[theirs])
        old = [
            signal.signal(signal.SIGTERM, lambda *_: process.terminate()),
            signal.signal(signal.SIGINT, signal.SIG_IGN),
        ]
        try:
            status = process.wait()
        finally:
            signal.signal(signal.SIGTERM, old[0])
            signal.signal(signal.SIGINT, old[1])
    finally:
        os.close(theirs)
        os.close(ours)
    return status if status >= 0 else 128 - status
