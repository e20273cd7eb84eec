"""The training loop: steps, log, TensorBoard, checkpoints, and the continuation of an earlier run.

Keras's own `fit` cannot train on several hosts and fails on a short last batch, so we have a loop of our own. Every
process of a training runs it; one of them, the chief, writes the run directory.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from msst_keras.files import read_json, write_json
from msst_keras.ordered_sums import ordered_sums
from msst_keras.processes import Interrupted
from msst_keras.progress import progress
from msst_keras.training.checkpoints import LAST, Checkpoints, newest_checkpoint
from msst_keras.training.log import Log
from msst_keras.training.optimizer import Update, learning_rate_at
from msst_keras.training.options import TrainingOptions
from msst_keras.training.step import make_step
from msst_keras.training.strategy import Devices
from msst_keras.training.watch import Watch

_MEND = "remove it, and the same command writes it again"


def train(
    model: keras.Model,
    make_batches: Callable[[int], Iterable[dict[str, tf.Tensor]]],
    clip_names: tuple[str, ...],
    run_dir: str | Path,
    options: TrainingOptions,
    devices: Devices | None = None,
    validate: Callable[[], Mapping[str, Any]] | None = None,
    draw: Callable[[], list[dict[str, np.ndarray]]] | None = None,
    settings: Mapping[str, bool | int | float | str] | None = None,
) -> dict[str, float]:
    """Trains `model` to step `options.steps`, from the last complete checkpoint in `run_dir` if there is one.

    A run that has so many steps already, or more, is not trained; its model is validated if its result is not there.

    Args:
      model: a model of `build_msst`, built in the scope of `devices.strategy`; its inputs are keys of a batch.
      make_batches: a function from a step to the batches of this process's share from that step on (see
        `batches.training_batches`).
      clip_names: the name of each clip, for the message about a loss that is not finite.
      run_dir: the run directory, see `training.run_dir`; all processes must see the same one.
      options: see `TrainingOptions`.
      devices: what `make_devices` gave; None for one device.
      validate: scores the model as it is and gives an evaluator's result. The best model by S-measure is kept.
      draw: gives pictures of the model's work (see `log.Log.pictures`).
      settings: the run's flags, for TensorBoard's table of runs.

    Returns:
      {"steps" (those that the model has), "loss" (mean of the last tenth of the steps), the headline scores of
      `validate`, "seconds" and "input_wait" (the share of them spent waiting for batches) of this process}; also in
      result.json.

    Raises:
      ValueError: a loss is not finite, with the step and the clips (the last checkpoint stays), the processes do not
        see the same run directory, or this update cannot go on from a checkpoint.
      ConnectionError: another process of the training was lost.
      OSError: a file could not be written, for example because the disk is full.
      Interrupted: a signal came; a checkpoint was written.
    """
    devices, run_dir = devices or Devices(), Path(run_dir)
    with devices.strategy.scope():
        update = Update(model, options.optimizer)
    checkpoints = Checkpoints(run_dir, options.keep_checkpoints, model, update.state, writes=devices.is_chief)
    if prefix := newest_checkpoint(run_dir / LAST):
        update.check_checkpoint(prefix)
    first = _restore(checkpoints, devices, run_dir)
    result_path = run_dir / "result.json"
    if first >= options.steps and (kept := _read_result(result_path, first)):
        return kept
    done = max(first, options.steps)
    started = time.perf_counter()
    with Log(run_dir, first, options.log_every, writes=devices.is_chief) as log, ordered_sums():
        if settings:
            log.hparams(settings)
        watch = Watch(run_dir, update, checkpoints, log, options, devices.is_chief, validate, draw)
        step_function = make_step(model, update, options.step, devices)
        try:
            waited = _run_steps(step_function, make_batches(first), first, update, options, devices, watch, clip_names)
        except (tf.errors.UnavailableError, tf.errors.CancelledError, tf.errors.AbortedError) as error:
            raise ConnectionError(
                f"another process of this training was lost ({error.message.splitlines()[0]}); "
                "start all of them again with the same command to go on"
            ) from error
        seconds = time.perf_counter() - started
        results: dict[str, float] = {"steps": done}
        if devices.is_chief:
            results["loss"] = log.recent_loss(done // 10)
        results |= watch.validate(done)
        watch.draw(done)
    results |= {"seconds": round(time.perf_counter() - started, 1), "input_wait": waited / seconds}
    if devices.is_chief:
        write_json(result_path, results)
    return results


def _read_result(path: Path, steps: int) -> dict | None:
    """The result that is there, if it is that of a model of so many steps.

    A run that was lengthened and killed before its end has the result of the shorter one.
    """
    if not path.exists():
        return None
    found = read_json(path, _MEND)
    if not isinstance(found.get("steps"), int):
        raise ValueError(f"{path}: damaged (expected a number of steps, found {found.get('steps')!r}); {_MEND}")
    return found if found["steps"] >= steps else None


def _restore(checkpoints: Checkpoints, devices: Devices, run_dir: Path) -> int:
    """Restores all processes to the same step. The chief goes first, because it removes what a kill has torn."""
    step = checkpoints.restore() if devices.is_chief else 0
    if devices.num_workers == 1:
        return step
    devices.gather_number(step)
    step = step if devices.is_chief else checkpoints.restore()
    steps = devices.gather_number(step)
    if len(set(steps)) > 1:
        raise ValueError(
            f"the processes of this training see different checkpoints in {run_dir} (steps {sorted(set(steps))}); "
            "--run_dir must be on a file system that all hosts share"
        )
    return step


def _run_steps(
    step_function: Callable[[dict[str, tf.Tensor], tf.Tensor, tf.Tensor], dict[str, tf.Tensor]],
    batches: Iterable[dict[str, tf.Tensor]],
    first: int,
    update: Update,
    options: TrainingOptions,
    devices: Devices,
    watch: Watch,
    clip_names: tuple[str, ...],
) -> float:
    """Does the steps from `first` on; returns the seconds spent waiting for batches."""
    waiting_batches, total_wait = iter(batches), 0.0
    steps = range(first, options.steps)
    counted = progress(steps, options.steps, "training", initial=first) if devices.is_chief else (s for s in steps)
    # The bar is closed here, so that its last line does not come after the sentence of an error.
    with _Signals() as signals, contextlib.closing(counted), contextlib.closing(watch):
        for step in counted:
            watch.before(step)
            rate = learning_rate_at(options.optimizer, step, options.steps)
            before = time.perf_counter()
            local = list(itertools.islice(waiting_batches, devices.share.num_replicas))
            waited = time.perf_counter() - before
            total_wait += waited
            watch.computing(step)
            batch = devices.scatter(local)
            stop = tf.constant(1.0 if signals.received else 0.0)
            results = step_function(batch, tf.constant(rate, tf.float32), stop)
            scalars = {name: float(value) for name, value in results.items()}
            watch.computed(step)
            seconds = time.perf_counter() - before
            # Several processes stop together, by the `stop` of a step. One alone can stop at once.
            stopped = scalars.pop("stop") > 0 or (devices.num_workers == 1 and signals.received is not None)
            if not math.isfinite(scalars["loss"]):
                names = ", ".join(clip_names[clip] for clip in devices.gather(batch["clip"]))
                raise ValueError(f"the loss of step {step} is {scalars['loss']}; its clips are {names}")
            scalars |= {f"learning_rate/{group}": rate * factor for group, factor in update.groups.items()}
            scalars |= {"learning_rate": rate, "input_wait": waited / seconds}
            scalars["clips_per_second"] = local[0]["mask"].shape[0] * devices.num_replicas / seconds
            last = step + 1 == options.steps
            watch.after(step, scalars, is_last=last or stopped)
            if stopped and not last:
                signal_name = signals.received or "a signal to another process"
                raise Interrupted(f"stopped by {signal_name} after step {step + 1}; run the same command to go on")
    return total_wait


class _Signals:
    """Notes SIGTERM and SIGINT, so that the step is finished and saved before the end. A second signal kills."""

    def __init__(self) -> None:
        self.received: str | None = None

    def __enter__(self) -> _Signals:
        self._old = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def _note(self, number: int, _: object) -> None:
        if self.received:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.received = signal.Signals(number).name

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
