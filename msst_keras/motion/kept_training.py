"""The state of a prior's training, kept beside its output, so that a killed one goes on where it was."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msst_keras.files import publish

_SECONDS = 30.0  # of work that a kill may cost


class KeptTraining:
    """What a training has done so far.

    Attributes:
      done: steps that are done; 0 before the first.
      counts, losses: of the reported steps, as `prior_training.train_prior` sums them up.
    """

    def __init__(self, path: str | Path, seconds: float = _SECONDS):
        """Reads the file, if it is there.

        Args:
          path: NumPy's .npz.
          seconds: the least time between two writings of it.

        Raises:
          ValueError: the file is damaged.
        """
        self._path, self._seconds, self._written = Path(path), seconds, time.monotonic()
        self.done, self.counts = 0, np.zeros(4)
        self.losses: list[float] = []
        self._arrays: list[np.ndarray] | None = None
        if not self._path.is_file():
            return
        try:
            # NumPy leaves a file of its own open when it is damaged.
            with self._path.open("rb") as file, np.load(file, allow_pickle=False) as content:
                state = json.loads(str(content["state"]))
                self._arrays = [content[f"variable_{number}"] for number in range(state["num_variables"])]
                self.done, self.losses = int(state["done"]), list(map(float, state["losses"]))
                self.counts = np.asarray(content["counts"], float)
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{self._path}: damaged ({error}); remove it to train from the start") from error

    def restore(self, variables: Sequence) -> None:
        """Gives the variables of model and optimizer the values that they had, if there are any.

        Raises:
          ValueError: they are of another model.
        """
        if self._arrays is None:
            return
        shapes = [tuple(array.shape) for array in self._arrays]
        if shapes != [tuple(variable.shape) for variable in variables]:
            raise ValueError(f"{self._path}: holds the state of another model; remove it to train from the start")
        for variable, array in zip(variables, self._arrays, strict=True):
            variable.assign(array)
        self._arrays = None

    def keep(self, variables: Sequence) -> None:
        """Writes the state, unless it has been written a moment ago."""
        if time.monotonic() - self._written < self._seconds:
            return
        state = {"num_variables": len(variables), "done": self.done, "losses": self.losses}
        arrays: dict[str, Any] = {f"variable_{number}": np.asarray(value) for number, value in enumerate(variables)}
        with publish(self._path) as temporary, open(temporary, "wb") as file:
            np.savez(file, state=json.dumps(state), counts=self.counts, **arrays)
        self._written = time.monotonic()

    def remove(self) -> None:
        """Removes the file; the training has ended."""
        self._path.unlink(missing_ok=True)
