"""A network that was trained, wherever it lies: in a run directory, or in a SavedModel of `msst export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from msst_keras.inference import SHIPPED_MODEL, saved_models
from msst_keras.model.msst import fold_model
from msst_keras.serving.reload import load_network
from msst_keras.training import run_dir
from msst_keras.training.checkpoints import load_model

INSTALLED = "installed"  # the name of the model that is installed with the package


def find_export(name: str) -> Path | None:
    """The folder of the SavedModel that `name` means, "installed" being the model of the package; None for a run."""
    try:
        return saved_models.find_version(SHIPPED_MODEL if name == INSTALLED else Path(name))
    except FileNotFoundError:
        return None


def read_settings(name: str) -> dict[str, Any]:
    """The settings of the network: "model" (arguments of `build_msst`), "motion" (or None), "image_size".

    Raises:
      FileNotFoundError: neither a run nor an exported model.
      ValueError: its settings are damaged.
    """
    if (path := find_export(name)) is None:
        return run_dir.read_run(name)
    settings, motion = saved_models.read_settings(path)
    return settings | {"motion": motion}


def load_trained(name: str, checkpoint: str = "last", folded: bool = False) -> keras.Model:
    """Builds the network with its weights. An exported one has no side outputs of use.

    Args:
      name: a run directory, saved_models/NAME or saved_models/NAME/VERSION, or "installed".
      checkpoint: of a run, "last" or "best".
      folded: whether its batch norms are folded into its convolutions, as those of an exported one are anyway.

    Raises:
      FileNotFoundError, ValueError, OSError: see `read_settings`, `checkpoints.load_model`, `reload.load_network`.
    """
    if (path := find_export(name)) is None:
        model = load_model(name, checkpoint)
        return fold_model(model, run_dir.read_run(name)["model"]) if folded else model
    return load_network(path, saved_models.read_settings(path)[0])
