"""What a run writes about itself while it runs: log.jsonl, TensorBoard events, and the profiler's window."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from msst_keras.evaluation.scores import HEADLINE
from msst_keras.files import publish

PICTURES = ("frame", "flow", "prior", "recurrent", "saliency", "mask")  # shown side by side, if they are there
_TITLES = {"recurrent": "O^T"}
_SALIENT = np.float32(1e6)  # see _pr_curve


class Log:
    """log.jsonl (a line a step) and TensorBoard events of a run.

    Args:
      run_dir: the run's folder.
      first_step: the step at which the run goes on. Lines of later steps, which will be done again, are removed, and so
        is a torn last line.
      every: steps between TensorBoard scalars.
      writes: whether this process is the one that writes.
    """

    def __init__(self, run_dir: str | Path, first_step: int, every: int, writes: bool = True):
        self._path, self._every, self._writes = Path(run_dir) / "log.jsonl", every, writes
        if not writes:
            return
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        with publish(self._path) as temporary:
            temporary.write_text("".join(line + "\n" for line in lines[:first_step]))
        self._file = self._path.open("a", buffering=1)
        self._writer = tf.summary.create_file_writer(str(run_dir))

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writes:
            self._file.close()
            self._writer.close()

    def step(self, step: int, scalars: dict[str, float]) -> None:
        """Writes a step's scalars."""
        if not self._writes:
            return
        self._file.write(json.dumps({"step": step, **scalars}) + "\n")
        if step % self._every == 0:
            self._draw(step, scalars | _memory())

    def validation(self, step: int, result: Mapping[str, Any]) -> None:
        """Writes an evaluator's result after `step` steps: MAE, max F, S, and the curve of precision and recall."""
        if not self._writes:
            return
        self._draw(step, {f"validation/{name}": result[name] for name in HEADLINE})
        if result.get("precision") is not None:
            with self._writer.as_default(step):
                tf.summary.experimental.write_raw_pb(_pr_curve(result["precision"], result["recall"]))
                self._writer.flush()

    def pictures(self, step: int, clips: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Draws clips, a row each, as one picture.

        Args:
          step: how many steps were done.
          clips: pictures by the names of PICTURES: "frame" (H, W, 3) in 0..255, "flow" (h, w, 3) uint8, which is
            coloured already and is resized to the frame, and maps (H, W) in 0..1.
        """
        if not self._writes:
            return
        names = [name for name in PICTURES if name in clips[0]]
        rows = [np.concatenate([_to_picture(clip[name], clip["frame"].shape) for name in names], 1) for clip in clips]
        title = ", ".join(_TITLES.get(name, name) for name in names)
        with self._writer.as_default(step):
            tf.summary.image(title, np.concatenate(rows, 0)[None])
            self._writer.flush()

    def hparams(self, flags: Mapping[str, bool | int | float | str]) -> None:
        """Writes the flags of the run, for TensorBoard's table of runs."""
        if not self._writes:
            return
        from tensorboard.plugins.hparams import api

        with self._writer.as_default(0):
            api.hparams(dict(flags))

    def recent_loss(self, num_steps: int) -> float:
        """The mean loss of the last `num_steps` steps (at least one)."""
        lines = self._path.read_text().splitlines()[-max(1, num_steps) :]
        try:
            return sum(json.loads(line)["loss"] for line in lines) / max(1, len(lines))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self._path}: damaged ({error}); the checkpoints are not touched by that") from error

    def _draw(self, step: int, scalars: Mapping[str, float]) -> None:
        with self._writer.as_default(step):
            for name, value in scalars.items():
                tf.summary.scalar(name, value)


class Profile:
    """A window of steps for TensorBoard's profiler (pip install tensorboard-plugin-profile shows it).

    Args:
      run_dir: the run's folder.
      window: first and last step; None for no profile. A run that begins inside or after the window records nothing.
    """

    def __init__(self, run_dir: str | Path, window: tuple[int, int] | None):
        self._run_dir, self._window, self._running = str(run_dir), window, False

    def before(self, step: int) -> None:
        """Starts the profiler if `step` is the first of the window."""
        if self._window and step == self._window[0]:
            tf.profiler.experimental.start(self._run_dir)
            self._running = True

    def after(self, step: int) -> None:
        """Stops the profiler after the last step of the window."""
        if self._window and step >= self._window[1]:
            self.close()

    def close(self) -> None:
        """Stops the profiler, if it is running, which writes what it has."""
        if self._running:
            tf.profiler.experimental.stop()
            self._running = False


def _to_picture(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    image = np.asarray(image, np.float32)
    if image.ndim == 2:
        image = np.repeat(image[..., None] * 255, 3, axis=2)
    if image.shape[:2] != shape[:2]:
        image = tf.image.resize(image, shape[:2]).numpy()
    return (np.clip(image, 0, 255) + 0.5).astype(np.uint8)


def _pr_curve(precision: Sequence[float], recall: Sequence[float]) -> bytes:
    from tensorboard.plugins.pr_curve import summary

    # The dashboard leaves out points without counts, and only the curve is known. So these are the counts for a million
    # salient pixels; precision and recall say nothing about the true negatives, which are 0 here.
    precisions, recalls = np.asarray(precision, np.float32), np.asarray(recall, np.float32)
    hits = _SALIENT * recalls
    false_alarms = np.divide(hits * (1 - precisions), precisions, out=np.zeros_like(hits), where=precisions > 0)
    return summary.raw_data_pb(
        "validation", hits, false_alarms, np.zeros_like(hits), _SALIENT - hits, precisions, recalls, len(precisions)
    ).SerializeToString()


def _memory() -> dict[str, float]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    scalars = {"memory/peak_mib": peak / (2**20 if sys.platform == "darwin" else 2**10)}
    for number in range(len(tf.config.list_logical_devices("GPU"))):
        peak = tf.config.experimental.get_memory_info(f"GPU:{number}")["peak"]
        scalars[f"memory/gpu_{number}_peak_mib"] = peak / 2**20
    return scalars
