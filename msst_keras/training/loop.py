"""The training loop: steps, log, TensorBoard, checkpoints, and going on where a run was left.

Keras's own `fit` cannot train on several hosts and falls over on a short last batch, hence a loop of our own.
"""

from __future__ import annotations

import dataclasses
import json
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from msst_keras.files import publish
from msst_keras.model.losses import joint_loss
from msst_keras.progress import progress


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """What a step does and how often the loop looks up.

    Attributes:
      steps: how many steps the whole training has.
      learning_rate: Adam's; 1e-3 is the paper's (section 4.1).
      alpha: Eq. 7's balance factor, a number or "balanced" (per image; the paper names no value).
      beta: Eq. 8's weight of the loss behind the ConvLSTM; 0.1 is the paper's.
      region_weight: weight of a soft IoU loss beside Eq. 7; 0 is the paper. Class-balanced cross-entropy alone
        leaves halos around objects (a worse MAE at the same ranking), which a region loss repairs.
      checkpoint_every, keep_checkpoints: steps between checkpoints, and how many are kept.
      validate_every: steps between validations; 0 validates at the end alone.
      log_every: steps between TensorBoard scalars (log.jsonl has every step).
    """

    steps: int
    learning_rate: float = 1e-3
    alpha: str | float = "balanced"
    beta: float = 0.1
    region_weight: float = 0.0
    checkpoint_every: int = 200
    keep_checkpoints: int = 2
    validate_every: int = 0
    log_every: int = 10


class Interrupted(Exception):
    """SIGTERM or SIGINT ended the training after a step; the state is saved."""


def train(
    model: keras.Model,
    make_batches: Callable[[int], tf.data.Dataset],
    clip_names: tuple[str, ...],
    run_dir: str | Path,
    options: TrainingOptions,
    validate: Callable[[], dict[str, float]] | None = None,
) -> dict:
    """Trains `model` to step `options.steps`, from the last checkpoint in `run_dir` if there is one.

    Args:
      model: of `build_msst`; its inputs are keys of a batch.
      make_batches: step -> the dataset of the batches from that step on (see `pipeline.training_batches`).
      clip_names: the name of each clip, for the message about a loss that is not finite.
      run_dir: see `training.run`.
      options: see `TrainingOptions`.
      validate: computes scalars such as "mae" with the model as it is.

    Returns:
      {"steps", "loss" (mean of the last tenth of the steps), "seconds", and what `validate` gave}; also in result.json.

    Raises:
      ValueError: a loss that is not finite; names the step and the clips. The last checkpoint stays.
      Interrupted: by a signal; a checkpoint was written.
    """
    run_dir = Path(run_dir)
    optimizer = keras.optimizers.Adam(options.learning_rate)
    optimizer.build(model.trainable_variables)
    done = tf.Variable(0, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer, step=done)
    manager = tf.train.CheckpointManager(checkpoint, str(run_dir / "checkpoints"), options.keep_checkpoints)
    if manager.latest_checkpoint:
        checkpoint.restore(manager.latest_checkpoint).assert_existing_objects_matched()
    first = int(done.numpy())
    result_path = run_dir / "result.json"
    if first >= options.steps and result_path.exists():
        return json.loads(result_path.read_text())
    step_function = _make_step(model, optimizer, options)
    started = time.perf_counter()
    with _Log(run_dir, first) as log, _Signals() as signals:
        batches = iter(make_batches(first))
        for step in progress(range(first, options.steps), options.steps, "training", initial=first):
            before = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - before
            scalars = {name: float(value) for name, value in step_function(batch).items()}
            seconds = time.perf_counter() - before
            if not math.isfinite(scalars["loss"]):
                names = ", ".join(clip_names[clip] for clip in batch["clip"].numpy())
                raise ValueError(f"the loss of step {step} is {scalars['loss']}; its clips are {names}")
            scalars |= {"learning_rate": options.learning_rate, "input_wait": waited / seconds}
            scalars["clips_per_second"] = batch["mask"].shape[0] / seconds
            log.step(step, scalars, to_tensorboard=step % options.log_every == 0)
            done.assign(step + 1)
            last = step + 1 == options.steps
            if last or (step + 1) % options.checkpoint_every == 0 or signals.received:
                manager.save(checkpoint_number=step + 1)
                log.images(step, batch, model)
            if signals.received and not last:
                raise Interrupted(f"stopped by {signals.received} after step {step + 1}; run the same command to go on")
            if validate and not last and options.validate_every and (step + 1) % options.validate_every == 0:
                log.validation(step, validate())
        scores = validate() if validate else {}
        log.validation(options.steps - 1, scores)
        results = {"steps": options.steps, "loss": log.recent_loss(options.steps // 10), **scores}
    results["seconds"] = round(time.perf_counter() - started, 1)
    with publish(result_path) as temporary:
        temporary.write_text(json.dumps(results, indent=1) + "\n")
    return results


def _make_step(model, optimizer, options):
    """One step as a graph: traced once per image size."""

    @tf.function
    def step(batch):
        with tf.GradientTape() as tape:
            outputs = model({name: batch[name] for name in model.input}, training=True)
            losses = joint_loss(outputs, batch["mask"], options.alpha, options.beta, options.region_weight)
        gradients = tape.gradient(losses["loss"], model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return {**losses, "gradient_norm": tf.linalg.global_norm(gradients)}

    return step


class _Log:
    """log.jsonl (every step) and TensorBoard events of a run."""

    def __init__(self, run_dir: Path, first_step: int):
        self._path = run_dir / "log.jsonl"
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        # Steps after the last checkpoint are done again, so their lines go, and a torn last line with them.
        with publish(self._path) as temporary:
            temporary.write_text("".join(line + "\n" for line in lines[:first_step]))
        self._file = self._path.open("a", buffering=1)
        self._writer = tf.summary.create_file_writer(str(run_dir))

    def __enter__(self) -> _Log:
        return self

    def step(self, step: int, scalars: dict[str, float], to_tensorboard: bool) -> None:
        self._file.write(json.dumps({"step": step, **scalars}) + "\n")
        if to_tensorboard:
            self._draw(step, scalars)

    def validation(self, step: int, scores: dict[str, float]) -> None:
        self._draw(step, {f"validation_{name}": value for name, value in scores.items()})

    def _draw(self, step: int, scalars: dict[str, float]) -> None:
        with self._writer.as_default(step):
            for name, value in scalars.items():
                tf.summary.scalar(name, value)

    def images(self, step: int, batch: dict, model: keras.Model) -> None:
        """Frame, prior, saliency map and mask of the batch's first clip, side by side."""
        clip = {name: batch[name][:1] for name in model.input}
        saliency = tf.sigmoid(model(clip, training=False)["fused"])
        grey = [clip["prior"][:, -1]] if "prior" in clip else []
        grey = [tf.repeat(image, 3, axis=-1) for image in (*grey, saliency, batch["mask"][:1])]
        with self._writer.as_default(step):
            tf.summary.image("frame, prior, saliency, mask", tf.concat([clip["frames"][:, -1] / 255.0, *grey], axis=2))
            self._writer.flush()

    def recent_loss(self, num_steps: int) -> float:
        """The mean loss of the last `num_steps` steps (at least one)."""
        lines = self._path.read_text().splitlines()[-max(1, num_steps) :]
        return sum(json.loads(line)["loss"] for line in lines) / max(1, len(lines))

    def __exit__(self, *_) -> None:
        self._file.close()
        self._writer.close()


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
