"""The training loop: steps, log, TensorBoard, checkpoints, and going on where a run was left.

Keras's own `fit` cannot train on several hosts and falls over on a short last batch, hence a loop of our own. Every
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

import keras
import tensorflow as tf

from msst_keras.files import read_json, write_json
from msst_keras.processes import Interrupted
from msst_keras.progress import progress
from msst_keras.training.checkpoints import LAST, Checkpoints, newest_checkpoint
from msst_keras.training.log import Log
from msst_keras.training.optimizer import Update, learning_rate_at
from msst_keras.training.options import TrainingOptions
from msst_keras.training.step import make_step
from msst_keras.training.strategy import Devices
from msst_keras.training.watch import Watch


def train(
    model: keras.Model,
    make_batches: Callable[[int], Iterable[dict[str, tf.Tensor]]],
    clip_names: tuple[str, ...],
    run_dir: str | Path,
    options: TrainingOptions,
    devices: Devices | None = None,
    validate: Callable[[], Mapping] | None = None,
    draw: Callable[[], list[dict]] | None = None,
    settings: dict | None = None,
) -> dict:
    """Trains `model` to step `options.steps`, from the last whole checkpoint in `run_dir` if there is one.

    Args:
      model: of `build_msst`, built in the scope of `devices.strategy`; its inputs are keys of a batch.
      make_batches: step -> the batches from that step on of this process's share (see `batches.training_batches`).
      clip_names: the name of each clip, for the message about a loss that is not finite.
      run_dir: see `training.run_dir`; all processes must see the same.
      options: see `TrainingOptions`.
      devices: of `make_devices`; None is one device.
      validate: scores the model as it is: an evaluator's result. The best by S-measure is kept.
      draw: gives pictures of the model's work (see `log.Log.pictures`).
      settings: flags, for TensorBoard's table of runs.

    Returns:
      {"steps", "loss" (mean of the last tenth of the steps), the headline scores of `validate`, "seconds" and
      "input_wait" (the share of them spent waiting for batches) of this process}; also in result.json.

    Raises:
      ValueError: a loss that is not finite; names the step and the clips. The last checkpoint stays. Or processes that
        do not see the same run directory. Or a checkpoint that this update cannot go on from.
      ConnectionError: another process of the training was lost.
      OSError: a file could not be written, as on a full disk.
      Interrupted: by a signal; a checkpoint was written.
    """
    devices, run_dir = devices or Devices(), Path(run_dir)
    with devices.strategy.scope():
        update = Update(model, options.optimizer)
    checkpoints = Checkpoints(run_dir, options.keep_checkpoints, model, update.state, writes=devices.is_chief)
    if prefix := newest_checkpoint(run_dir / LAST):
        update.check_checkpoint(prefix)
    first = _restore(checkpoints, devices, run_dir)
    result_path = run_dir / "result.json"
    if first >= options.steps and result_path.exists():
        return read_json(result_path, "remove it, and the same command writes it again")
    started = time.perf_counter()
    with Log(run_dir, first, options.log_every, writes=devices.is_chief) as log:
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
        results = {"steps": options.steps}
        if devices.is_chief:
            results["loss"] = log.recent_loss(options.steps // 10)
        results |= watch.validate(options.steps)
        watch.draw(options.steps)
    results |= {"seconds": round(time.perf_counter() - started, 1), "input_wait": waited / seconds}
    if devices.is_chief:
        write_json(result_path, results)
    return results


def _restore(checkpoints: Checkpoints, devices: Devices, run_dir: Path) -> int:
    """Restores all processes to one step; the chief first, since it removes what a kill has torn."""
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
    step_function: Callable,
    batches: Iterable[dict[str, tf.Tensor]],
    first: int,
    update: Update,
    options: TrainingOptions,
    devices: Devices,
    watch: Watch,
    clip_names: tuple[str, ...],
) -> float:
    """Does the steps from `first` on; returns the seconds spent waiting for batches."""
    batches, total_wait = iter(batches), 0.0
    steps = (step for step in range(first, options.steps))
    if devices.is_chief:
        steps = progress(steps, options.steps, "training", initial=first)
    # Closed here, so that the bar's last line does not come behind the sentence of an error.
    with _Signals() as signals, contextlib.closing(steps):
        for step in steps:
            watch.before(step)
            rate = learning_rate_at(options.optimizer, step, options.steps)
            before = time.perf_counter()
            local = list(itertools.islice(batches, devices.share.num_replicas))
            waited = time.perf_counter() - before
            total_wait += waited
            watch.computing(step)
            batch = devices.scatter(local)
            stop = tf.constant(1.0 if signals.received else 0.0)
            results = step_function(batch, tf.constant(rate, tf.float32), stop)
            scalars = {name: float(value) for name, value in results.items()}
            watch.computed(step)
            seconds = time.perf_counter() - before
            # What another process is to hear of must have gone through the step; alone there is no need to wait.
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
    """Notes SIGTERM and SIGINT instead of dying of them, so that the step is finished and saved. A second one kills."""

    def __enter__(self):
        self.received = None
        self._old = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def _note(self, number, _):
        if self.received:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.received = signal.Signals(number).name

    def __exit__(self, *_):
        for number, handler in self._old.items():
            signal.signal(number, handler)
