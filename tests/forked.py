"""`msst JOB` in a fork of a process that has imported TensorFlow already.

What runs is what the command `msst JOB` runs, in a process of its own, with flags, an environment, output, signals and
an exit status of its own. Only the start is missing: importing TensorFlow takes seconds, and the tests run a hundred
jobs. Tests of the start itself, of kills and of jobs that talk to each other start real processes.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import warnings


class Forked:
    """A running job, with the methods of `subprocess.Popen` that the tests of a job need.

    Attributes:
      pid: of its process.
      returncode: None until `communicate` has returned.
    """

    def __init__(self, *arguments, cwd=None, env=None):
        self.returncode = None
        self._outputs = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        self._control, theirs = socket.socketpair()
        request = {"argv": ["msst", *map(str, arguments)], "cwd": str(cwd or os.getcwd()), "env": env or {**os.environ}}
        with theirs, tempfile.TemporaryFile("w+") as file:
            json.dump(request, file)
            file.seek(0)
            files = theirs, file, *self._outputs
            socket.send_fds(_find_server(), [b"a job"], [each.fileno() for each in files])
        self._lines = self._control.makefile()
        self.pid = int(self._lines.readline())

    def send_signal(self, number):
        os.kill(self.pid, number)

    def communicate(self, timeout=300):
        """Waits for the job's end; returns what it wrote to standard output and to standard error."""
        self._control.settimeout(timeout)
        try:
            self.returncode = int(self._lines.readline())
        except TimeoutError:
            os.kill(self.pid, signal.SIGKILL)
            raise
        self._lines.close()
        self._control.close()
        texts = []
        for output in self._outputs:
            with output:
                output.seek(0)
                texts.append(output.read().decode())
        return tuple(texts)


def msst(*arguments, timeout=300, **options):
    """Runs `msst JOB --flag=value ...`; returns what `subprocess.run` with `capture_output` and `text` does."""
    job = Forked(*arguments, **options)
    output, errors = job.communicate(timeout)
    return subprocess.CompletedProcess(arguments, job.returncode, output, errors)


@functools.cache
def _find_server():
    """The socket of the process that forks. It starts when the first job is wanted and ends with this process."""
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-P", __file__, str(theirs.fileno())]
        server = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    atexit.register(server.wait, 60)
    atexit.register(ours.close)
    return ours


def _serve(requests):
    """Forks for each request. Returns the request in the fork; in the server itself None, when nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait for the jobs
    while True:
        content, descriptors, *_ = socket.recv_fds(requests, 5, 4)
        if not content:
            return None
        if not _fork():
            requests.close()
            return _fork_job(*descriptors)
        for each in descriptors:
            os.close(each)


def _fork_job(control, request, output, errors):
    """Forks once more and returns in the job. The process between says the job's number and later its exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if pid := _fork():
        os.write(control, b"%d\n" % pid)
        os.write(control, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        os._exit(0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(output, 1)
    os.dup2(errors, 2)
    with open(request) as file:
        given = json.load(file)
    for each in (control, output, errors):
        os.close(each)
    return given


def _fork():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which wait in libraries that expect a fork
        return os.fork()


def _main():
    from msst_keras.quiet_start import quiet_tensorflow

    quiet_tensorflow()
    for job in ("evaluate", "export", "fuse_labels", "make_records", "predict", "refine", "train", "train_prior"):
        importlib.import_module(f"msst_keras.jobs.{job}")
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        given = _serve(requests)
    if given:
        from msst_keras.__main__ import main

        os.chdir(given["cwd"])
        os.environ.clear()
        os.environ.update(given["env"])
        sys.argv = given["argv"]
        main(sys.argv)


if __name__ == "__main__":
    _main()
