"""Processes: how many this machine has room for, how a worker computes and ends, and how one job runs another."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator


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


@contextlib.contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Within this block SIGTERM raises SystemExit, as Ctrl-C raises KeyboardInterrupt.

    So threads are ended and unfinished files removed before the process exits, with the status 143 that a shell shows
    for one that SIGTERM ended. Threads other than the main one cannot set this, and the block is left as it is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


def end_with_parent(descriptor: int) -> None:
    """Ends this process, whatever it is doing, as soon as its parent is gone, be it by kill -9.

    Args:
      descriptor: a pipe or socket whose other end the parent holds and nobody else; it may carry messages. Of a process
        of `multiprocessing` that is `multiprocessing.parent_process().sentinel`.
    """
    threading.Thread(target=_wait_for_end, args=(descriptor,), daemon=True).start()


def _wait_for_end(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, 0)  # 0: hang-ups alone
    poll.poll()
    os._exit(1)


def run_job(job: str, *arguments: str) -> int:
    """Prints the command `msst JOB ...`, runs it as a process of its own and returns its exit status.

    SIGTERM is passed on, and Ctrl-C reaches the job too: a training saves itself before this program ends. The status
    of a job that a signal ended is 128 and the signal's number, as in a shell.
    """
    print(f"\n$ {shlex.join(['msst', job, *arguments])}", flush=True)
    process = subprocess.Popen([sys.executable, "-m", "msst_keras", job, *arguments])
    old = signal.signal(signal.SIGTERM, lambda *_: process.terminate()), signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        status = process.wait()
    finally:
        signal.signal(signal.SIGTERM, old[0])
        signal.signal(signal.SIGINT, old[1])
    return status if status >= 0 else 128 - status
