"""Who makes the shards: worker processes of this machine, or Apache Beam."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from msst_keras.conversion import workers
from msst_keras.conversion.options import ENGINES
from msst_keras.conversion.sources import Shard, StoredShard
from msst_keras.conversion.work_report import WorkReport
from msst_keras.motion.settings import MotionOptions
from msst_keras.progress import progress

# (shards, what is stored, what is called for each frame, a report to fill in) -> what the manifest says of each shard.
Engine = Callable[[Sequence[Shard], MotionOptions, Callable[[], object], WorkReport], list[dict]]


def choose_engine(engine: str, num_workers: int, beam_args: Sequence[str]) -> Engine:
    """What makes the shards, see `Engine`.

    Raises:
      ValueError: an unknown engine, less than one worker, or Beam is not installed.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, not '{engine}'")
    if num_workers < 1:
        raise ValueError(f"num_workers must be at least 1, not {num_workers}")
    if engine == "local":
        return lambda shards, motion, *rest: workers.make_shards(shards, motion, num_workers, *rest)
    try:
        from msst_keras.conversion import beam_engine
    except ImportError as error:
        raise ValueError(
            f"the engine beam needs Apache Beam ({error}); pip install 'msst-keras[beam]', or take the engine local"
        ) from error
    return lambda shards, motion, on_frame, report: beam_engine.make_shards(shards, motion, beam_args, report)


def run_engine(
    run: Engine, shards: Sequence[Shard], motion: MotionOptions, folder: Path, report: WorkReport
) -> list[dict]:
    """Runs the engine under a progress bar; what an interrupted one leaves half-written is removed before and after."""
    remove_files(folder, ".partial-*")
    # Whether a stored shard is done costs reading it: its worker will see.
    total = sum(len(shard) for shard in shards if isinstance(shard, StoredShard) or not shard.is_made()) or None
    bar = progress(iter(int, 1), total, f"{len(shards)} shards")  # endless: the workers' messages move it on
    try:
        next(bar)
        return run(shards, motion, lambda: next(bar), report)
    finally:
        bar.close()
        remove_files(folder, ".partial-*")


def remove_files(folder: Path, pattern: str) -> None:
    """Removes the files of these names from a folder."""
    for path in folder.glob(pattern):
        path.unlink(missing_ok=True)
