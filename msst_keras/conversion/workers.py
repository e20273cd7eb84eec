"""Worker processes that make shards side by side; each is set up the same way, so that bytes do not depend on them.

A worker is a Python process of its own, not a fork: a TensorFlow that has computed something does not survive forking.
It computes with one thread and without GPU: what two threads add up in another order, or a GPU in another way, could
round to another grey level.

A worker never outlives its parent: it ends as soon as the other end of its connection is closed, be it by kill -9. And
it holds the lock of the folder that it writes to (see `locks`): a conversion that is started again waits for the
workers of the killed one to be gone.
"""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from msst_keras.processes import end_with_parent, start_python, use_one_thread
from msst_keras.quiet_start import quiet_tensorflow

if TYPE_CHECKING:  # these bring TensorFlow, for which a worker must be set up first
    from msst_keras.conversion.sources import Shard
    from msst_keras.conversion.work_report import WorkReport
    from msst_keras.motion.settings import MotionOptions


def make_shards(
    shards: Sequence[Shard],
    motion: MotionOptions,
    num_workers: int,
    on_frame: Callable[[], object],
    report: WorkReport,
) -> list[dict]:
    """Makes shards in worker processes, the longest first, so that none is left alone with a long one at the end.

    Args:
      shards: what to make.
      motion: what is stored in them.
      num_workers: processes, at most one a shard.
      on_frame: called for each frame that is written.
      report: filled in.

    Returns:
      what the manifest says of each shard, in their order.

    Raises:
      FileNotFoundError, OSError, ValueError: an input at fault, as the worker raised it.
      ChildProcessError: a worker died.
      RuntimeError: a worker's program is at fault; with its traceback.
    """
    waiting = collections.deque(sorted(range(len(shards)), key=lambda number: -len(shards[number])))
    done: dict[int, dict] = {}
    busy: dict[Any, Worker] = {}  # by connection
    ready: list[float] = []
    workers: list[Worker] = []
    try:
        for _ in range(min(num_workers, len(shards))):
            workers.append(Worker(motion))
            busy[workers[-1].connection] = workers[-1]
        while busy:
            for connection in multiprocessing.connection.wait(list(busy)):
                worker = busy[connection]
                kind, content = worker.receive()
                if kind == "frame":
                    on_frame()
                    continue
                if kind == "ready":
                    ready.append(time.perf_counter())
                else:
                    done[worker.shard], shard_report = content
                    report.add(shard_report)
                if waiting:
                    worker.shard = waiting.popleft()
                    worker.send(shards[worker.shard])
                else:
                    busy.pop(connection).stop()
        report.elapsed = time.perf_counter() - sum(ready) / len(ready)
    finally:
        for worker in workers:
            worker.stop()
    return [done[number] for number in range(len(shards))]


class Worker:
    """A worker process as its parent sees it.

    Attributes:
      connection: its end here; readable when it has something to say.
      shard: the number of the shard that it makes; -1 before the first.
    """

    connection: Connection
    shard: int

    def __init__(self, motion: MotionOptions):
        """Starts the process; it says "ready" when it has loaded the prior."""
        self.connection, theirs = multiprocessing.Pipe()
        self.shard = -1
        program = f"from msst_keras.conversion import workers; workers.serve({theirs.fileno()})"
        with _interrupts_held_back():
            self._process = start_python(
                program, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env={"OMP_NUM_THREADS": "1"}
            )
        theirs.close()
        self.send(motion)

    def send(self, message: MotionOptions | Shard) -> None:
        """Sends the motion options, then one shard after the other."""
        with contextlib.suppress(ConnectionError):  # it has died; `receive` says so
            self.connection.send(message)

    def receive(self) -> tuple:
        """Returns ("ready", None), ("frame", None) or ("done", result); raises what the worker raised."""
        try:
            kind, content = self.connection.recv()
        except (EOFError, ConnectionError):
            status = self._process.wait()
            ended = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
            raise ChildProcessError(
                f"a worker {ended}, perhaps for want of memory; start the same command again, with fewer --num_workers "
                "if it happens again: what is made will not be made again"
            ) from None
        if kind == "failed":
            raise content
        return kind, content

    def stop(self) -> None:
        """Ends the process, whatever it does, and waits until it is gone."""
        self._process.kill()
        self._process.wait()
        self.connection.close()


def serve(descriptor: int) -> None:
    """What a worker process runs: makes the shards that arrive on a connection until the parent is gone."""
    end_with_parent(descriptor)
    connection = multiprocessing.connection.Connection(descriptor)
    try:
        motion = connection.recv()
        quiet_tensorflow()
        use_one_thread(tensorflow=True)
        # This takes seconds, and the end of the parent must be noticed meanwhile.
        from msst_keras.conversion.shard_maker import ShardMaker

        maker = ShardMaker(motion)
        connection.send(("ready", None))
        while True:
            shard = connection.recv()
            connection.send(("done", maker.make(shard, lambda: connection.send(("frame", None)))))
    except (EOFError, ConnectionError):  # the parent is gone
        os._exit(1)
    except BaseException as error:
        connection.send(("failed", _plain_error(error)))


def _plain_error(error: BaseException) -> Exception:
    """An error of a kind that can be pickled, as what libraries raise may not be."""
    if isinstance(error, OSError) and error.errno is not None:  # a full disk: the parent words it
        return OSError(error.errno, error.strerror, error.filename)
    for kind in (FileNotFoundError, OSError, ValueError, MemoryError):
        if isinstance(error, kind):
            return kind(str(error))
    if "OpError" in [kind.__name__ for kind in type(error).__mro__]:  # TensorFlow's: no memory, a disk that fails
        return OSError(str(getattr(error, "message", error)).splitlines()[0])
    return RuntimeError(f"in a worker:\n{traceback.format_exc()}")


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Ctrl-C reaches every process of a terminal; what is started in this block leaves it to its parent."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
