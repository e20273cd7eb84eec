"""What goes on beside the steps of a training: validation, pictures, the log, checkpoints and the profiler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from msst_keras.evaluation.scores import choose_headline
from msst_keras.training.checkpoints import Checkpoints
from msst_keras.training.log import Log, Profile
from msst_keras.training.optimizer import Update
from msst_keras.training.options import TrainingOptions


class Watch:
    """Does what is due beside the steps; the loop calls it before and after each step.

    Args:
      run_dir: the run's folder, for the profiler.
      update: the update of the weights; its averaged weights are validated and drawn.
      checkpoints, log: those of the run.
      options: how often each thing is due; see `TrainingOptions`.
      writes: whether this process is the one that writes.
      validate, draw: see `loop.train`.
    """

    def __init__(
        self,
        run_dir: str | Path,
        update: Update,
        checkpoints: Checkpoints,
        log: Log,
        options: TrainingOptions,
        writes: bool = True,
        validate: Callable[[], Mapping[str, Any]] | None = None,
        draw: Callable[[], list[dict[str, np.ndarray]]] | None = None,
    ):
        self._update, self._checkpoints, self._log, self._options = update, checkpoints, log, options
        self._validate, self._draw = validate, draw
        self._profile = Profile(run_dir, options.profile_steps if writes else None)

    def before(self, step: int) -> None:
        """Validates and draws the model of `step` steps if that is due.

        This is done here and not after the checkpoint of so many steps, so that a run that continues from the
        checkpoint does it too.
        """
        if _is_due(step, self._options.validate_every):
            self.validate(step)
        if _is_due(step, self._options.pictures_every):
            self.draw(step)

    def computing(self, step: int) -> None:
        """Is called when the batch is there and the step is about to be computed."""
        self._profile.before(step)

    def computed(self, step: int) -> None:
        """Is called when the step has been computed."""
        self._profile.after(step)

    def close(self) -> None:
        """Is called when no step is to come: a profile whose last step did not come is written."""
        self._profile.close()

    def after(self, step: int, scalars: dict[str, float], is_last: bool) -> None:
        """Logs the step, and saves a checkpoint if that is due or the step is the last of this process."""
        self._log.step(step, scalars)
        if is_last or (step + 1) % self._options.checkpoint_every == 0:
            self._checkpoints.save(step + 1)

    def validate(self, step: int) -> dict[str, float]:
        """Validates the model of `step` steps, keeps it if it is the best, and returns its headline scores."""
        if not self._validate:
            return {}
        with self._update.averaged():
            result = self._validate()
            self._log.validation(step, result)
            scores = choose_headline(result)
            self._checkpoints.save_best(step, scores)
        return scores

    def draw(self, step: int) -> None:
        """Draws what the model of `step` steps does."""
        if self._draw:
            with self._update.averaged():
                self._log.pictures(step, self._draw())


def _is_due(done: int, every: int) -> bool:
    return done > 0 and every > 0 and done % every == 0
