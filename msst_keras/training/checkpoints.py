"""Checkpoints of a run: the last few and the best, and which of them are whole.

A checkpoint is whole when its index names its files and every tensor in it has the checksum that was written. A kill,
a full disk or a crash of the machine can leave one that is not: it is recognised, set aside, and the one before it is
used. Nothing is removed for being damaged, and what cannot be read, on a disk that fails, is not taken for damaged.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import keras
import tensorflow as tf

from msst_keras.evaluation.scores import DECISIVE
from msst_keras.files import read_json, tells_of_full_disk, write_json
from msst_keras.model.msst import build_msst
from msst_keras.model.options import check_arguments
from msst_keras.training.run_dir import read_run

LAST, BEST = "checkpoints", "best"
_AVERAGE = "update/averages/{}/.ATTRIBUTES/VARIABLE_VALUE"  # of `optimizer.Update.state`, in a checkpoint
_TORN = "torn-"
_NAME = re.compile(r"ckpt-(\d+)\.index")


def newest_checkpoint(folder: str | Path) -> str | None:
    """The prefix of the newest whole checkpoint in a folder; those that are torn are named on standard error.

    Returns:
      the prefix; None if there is no checkpoint.

    Raises:
      ValueError: there are checkpoints, and none is whole.
      OSError: one cannot be read.
    """
    step = _find_whole(Path(folder))
    return None if step is None else f"{folder}/ckpt-{step}"


def load_model(run_dir: str | Path, checkpoint: str = "last") -> keras.Model:
    """Builds a run's model and restores its weights: the averaged ones where the run averages.

    Args:
      run_dir: of the run.
      checkpoint: "last", or "best" of the validations.

    Raises:
      FileNotFoundError: no run directory, or one without a checkpoint.
      ValueError, OSError: see `newest_checkpoint`; or run.json says something else than a network.
    """
    arguments = read_run(run_dir)["model"] | {"weights": "none"}
    try:
        check_arguments(arguments)
    except ValueError as error:
        raise ValueError(f"{run_dir}/run.json: damaged ({error}); train again into another --run_dir") from error
    model = build_msst(**arguments)
    prefix = newest_checkpoint(Path(run_dir) / (BEST if checkpoint == "best" else LAST))
    if prefix is None:
        how = "validate it (--val_records)" if checkpoint == "best" else "train it first"
        raise FileNotFoundError(f"{run_dir}: no checkpoint yet; {how}")
    tf.train.Checkpoint(model=model).read(prefix).expect_partial().assert_existing_objects_matched()
    reader = tf.train.load_checkpoint(prefix)
    if reader.has_tensor(_AVERAGE.format(0)):
        for number, weight in enumerate(model.trainable_variables):
            weight.assign(reader.get_tensor(_AVERAGE.format(number)))
    return model


class Checkpoints:
    """Saves and restores the state of a training.

    checkpoints/ckpt-STEP holds all that a step changes; best/ckpt-STEP the weights alone, of the best validation, and
    best/best.json its scores.

    Args:
      run_dir: of the run.
      keep: how many of the last checkpoints are kept.
      model, state: what a checkpoint holds; `state` is the optimizer's (`optimizer.Update.state`).
      writes: whether this process is the one that writes.
    """

    def __init__(
        self, run_dir: str | Path, keep: int, model: keras.Model, state: tf.train.Checkpoint, writes: bool = True
    ):
        self._folder, self._best = Path(run_dir) / LAST, Path(run_dir) / BEST
        self._keep, self._writes = keep, writes
        self._weights = tf.train.Checkpoint(model=model)
        self._all = tf.train.Checkpoint(model=model, update=state)

    def restore(self) -> int:
        """Restores the newest whole checkpoint; those that are torn are named on standard error and set aside.

        Returns:
          its step, 0 if there never was one.

        Raises:
          ValueError: there are checkpoints, and none is whole: a training does not begin again by itself.
          OSError: one cannot be read.
        """
        step = _find_whole(self._folder)
        if step is None:
            return 0
        self._all.read(f"{self._folder}/ckpt-{step}").assert_existing_objects_matched()
        if self._writes:
            for torn in _list_steps(self._folder):
                if torn > step:
                    _set_aside(self._folder, torn)
        return step

    def save(self, step: int) -> None:
        """Writes checkpoints/ckpt-STEP and removes all but the last few.

        Raises:
          OSError: it could not be written, as on a full disk; those before it stay.
        """
        if not self._writes:
            return
        self._write(self._all, self._folder, step)
        for old in _list_steps(self._folder)[self._keep :]:
            _remove(self._folder, old)

    def save_best(self, step: int, scores: dict[str, float]) -> bool:
        """Keeps the weights as they are now if their S-measure is the best so far.

        Returns:
          whether it is.

        Raises:
          OSError: as `save`.
        """
        path = self._best / "best.json"
        if not self._writes:
            return False
        if path.is_file():
            best = read_json(path, "remove it to choose the best anew")
            if not isinstance(best.get(DECISIVE), int | float):
                raise ValueError(f"{path}: damaged (expected {DECISIVE}); remove it to choose the best anew")
            # A resumed run validates again what it had validated after its last checkpoint.
            if best.get("step") != step and best[DECISIVE] >= scores[DECISIVE]:
                return False
        self._write(self._weights, self._best, step)
        write_json(path, {"step": step, **scores})
        for old in _list_steps(self._best):
            if old != step:
                _remove(self._best, old)
        return True

    def _write(self, checkpoint: tf.train.Checkpoint, folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_partial(folder)  # of a save that was killed
        try:
            checkpoint.write(f"{folder}/ckpt-{step}")
        except (tf.errors.OpError, OSError) as error:
            _remove_partial(folder)
            _remove(folder, step)
            before = next(iter(_list_steps(folder)), None)
            stays = f"ckpt-{before} is intact" if before is not None else "there was none before it"
            reason = getattr(error, "message", str(error)).splitlines()[0]
            reason = "the disk is full" if tells_of_full_disk(reason) else reason
            raise OSError(
                f"{folder}: ckpt-{step} could not be written ({reason}); {stays}; "
                "make room and run the same command to go on"
            ) from error


def _list_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in a folder that have an index, the newest first."""
    matches = (_NAME.fullmatch(path.name) for path in folder.glob("ckpt-*.index"))
    return sorted((int(match[1]) for match in matches if match), reverse=True)


def _find_whole(folder: Path) -> int | None:
    """The step of the newest whole checkpoint; None if there is no checkpoint at all."""
    steps = _list_steps(folder)
    for step in steps:
        if _is_whole(f"{folder}/ckpt-{step}"):
            return step
        print(f"{folder}/ckpt-{step} is torn; going on from the checkpoint before it", file=sys.stderr)
    left = [f"ckpt-{step}" for step in steps] or sorted(path.stem for path in folder.glob(f"{_TORN}*.index"))
    if left:
        raise ValueError(
            f"{folder}: none of its checkpoints is whole ({', '.join(left)}), and a training does not begin again by "
            "itself; nothing was removed: put back a copy of one, or choose another --run_dir"
        )
    return None


def _is_whole(prefix: str) -> bool:
    """Whether a checkpoint is as it was written.

    Raises:
      OSError: a file of it cannot be read, which says nothing about what is in it.
    """
    path = Path(prefix)
    for part in path.parent.glob(f"{path.name}.*"):
        _read_through(part)
    try:
        reader = tf.train.load_checkpoint(prefix)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)  # compares the checksum
    except (tf.errors.ResourceExhaustedError, tf.errors.UnavailableError) as error:
        raise OSError(f"{prefix} could not be read ({error.message.splitlines()[0]}); nothing was changed") from error
    except (tf.errors.OpError, ValueError, IndexError, RuntimeError):  # as TensorFlow's reader tells of damage
        return False
    return True


def _read_through(path: Path) -> None:
    """Reads every byte of a file: what TensorFlow's reader finds wrong after that is wrong in the file."""
    try:
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 24):
                pass
    except OSError as error:
        raise OSError(
            f"{path} cannot be read ({error.strerror}), so nobody knows whether the checkpoint is whole; nothing was "
            "changed: look at the disk, then run the same command again"
        ) from error


def _set_aside(folder: Path, step: int) -> None:
    """Renames a torn checkpoint; the index last, so that a kill meanwhile leaves what is still seen as torn."""
    for path in sorted(folder.glob(f"ckpt-{step}.*"), key=lambda path: path.suffix == ".index"):
        path.replace(folder / f"{_TORN}{path.name}")


def _remove_partial(folder: Path) -> None:
    """Removes what TensorFlow writes to before it renames."""
    for path in folder.glob("*temp*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _remove(folder: Path, step: int) -> None:
    # The index first: without it the rest is no checkpoint.
    for path in sorted(folder.glob(f"ckpt-{step}.*"), key=lambda path: path.suffix != ".index"):
        path.unlink()
