"""What goes on beside the steps of a training: validation, pictures, the log, checkpoints and the profiler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from msst_keras.evaluation.scores import choose_headline
from msst_keras.training.checkpoints import Checkpoints
from msst_keras.training.log import Log, Profile
from msst_keras.training.optimizer import Update
from msst_keras.training.options import TrainingOptions


class Watch:
    """Is told before and after each step, and does what is due then.

    Args:
      run_dir: of the run, for the profiler.
      update: its averaged weights are those that are validated and drawn.
      checkpoints, log: of the run.
      options: says how often; see `TrainingOptions`.
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
        validate: Callable[[], Mapping] | None = None,
        draw: Callable[[], list[dict]] | None = None,
    ):
        self._update, self._checkpoints, self._log, self._options = update, checkpoints, log, options
        self._validate, self._draw = validate, draw
        self._profile = Profile(run_dir, options.profile_steps if writes else None)

    def before(self, step: int) -> None:
        """Validates and draws the model of `step` steps where that is due.

        Here, and not after the checkpoint of so many steps, so that a run that goes on from it does not miss them.
        """
        if _is_due(step, self._options.validate_every):
            self.validate(step)
        if _is_due(step, self._options.pictures_every):
            self.draw(step)

    def computing(self, step: int) -> None:
        """The batch is there, and the step is about to be computed."""
        self._profile.before(step)

    def computed(self, step: int) -> None:
        """The step is computed."""
        self._profile.after(step)

    def after(self, step: int, scalars: dict[str, float], is_last: bool) -> None:
        """Logs the step, and saves where that is due or the step is the last of this process."""
        self._log.step(step, scalars)
        if is_last or (step + 1) % self._options.checkpoint_every == 0:
            self._checkpoints.save(step + 1)

    def validate(self, step: int) -> dict[str, float]:
        """Validates the model of `step` steps and keeps it if it is the best; returns its headline scores."""
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
