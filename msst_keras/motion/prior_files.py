"""Motion priors by kind or by file: made, loaded with care, and written with the same bytes each time."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import keras
import numpy as np
from keras import ops

from msst_keras.model.weights import check_unpacked_size
from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.flow_image import FlowImage
from msst_keras.motion.prior import MagnitudePrior, MotionPrior
from msst_keras.motion.settings import FILES, FLOW, MAGNITUDE, NO_PRIOR

_CLASSES = ("MotionPrior", "MagnitudePrior", "FlowImage")
_NO_DATE = "1980-01-01@00:00:00"


# What makes the motion image without being trained, by the kind that manifests name.
UNTRAINED_PRIORS: dict[str, type[MagnitudePrior] | type[FlowImage]] = {MAGNITUDE: MagnitudePrior, FLOW: FlowImage}


def make_prior(source: str | Path, flow: FlowSettings) -> MotionPrior | MagnitudePrior | FlowImage | None:
    """The prior of a kind that needs no training, or of a file.

    Args:
        source: NO_PRIOR, FILES, MAGNITUDE or FLOW of `settings`, or a file of `msst train_prior`.
        flow: How the flow is made that it is to see; a file holds its own settings.

    Returns:
        The prior's model, None for NO_PRIOR and FILES, which nothing here computes.

    Raises:
        FileNotFoundError, ValueError: See `load_prior`.
    """
    if source in (NO_PRIOR, FILES):
        return None
    kind = UNTRAINED_PRIORS.get(str(source))
    return kind(flow) if kind else load_prior(source)


def load_prior(path: str | Path) -> MotionPrior | MagnitudePrior | FlowImage:
    """Loads a prior that was saved with `prior.save(path)`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file holds no motion prior.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such motion prior; `msst train_prior` writes one.")
    no_prior = f"{path}: expected a motion prior, a .keras file that `msst train_prior` wrote"
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{no_prior}; found no .keras file.")
    try:
        check_unpacked_size(path)
        name = _read_class(path)
    except (zipfile.BadZipFile, KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"{no_prior}; Keras cannot load it: {error}") from error
    if name not in _CLASSES:  # Keras would build any network of its own first, of any size
        raise ValueError(f"{no_prior}; found a {name}.")
    try:
        prior = keras.saving.load_model(path, compile=False)
    except Exception as error:  # of a damaged file zipfile, h5py and Keras raise nearly anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{no_prior}; Keras cannot load it: {reason}") from error
    if not isinstance(prior, MotionPrior | MagnitudePrior | FlowImage):
        raise ValueError(f"{no_prior}; found a {type(prior).__name__}.")
    if bad := [weight.path for weight in prior.weights if not np.isfinite(ops.convert_to_numpy(weight)).all()]:
        raise ValueError(f"{path}: {len(bad)} arrays of this prior are not finite, such as {bad[0]}; train it again.")
    return prior


def _read_class(path: Path) -> str:
    """The name of the class that a .keras file holds.

    Raises:
        ValueError: There is none.
        KeyError, zipfile.BadZipFile, RecursionError: As `zipfile` and `json` tell of damage.
    """
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    if not isinstance(config, dict) or not isinstance(config.get("class_name"), str):
        raise ValueError("its config.json names no class")
    registered = config.get("registered_name")
    return config["class_name"] if registered in (None, f"msst_keras>{config['class_name']}") else str(registered)


def save_prior(prior: keras.Model, path: str | Path) -> None:
    """Writes a prior as a .keras file that `load_prior` reads; the same prior gives the same bytes.

    Keras writes the time of day into the file, twice. Records and runs know a prior by its file's hash, so that one
    that was trained again, or after an interruption, would be another.
    """
    prior.save(path)
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    metadata = json.loads(contents["metadata.json"])
    metadata["date_saved"] = _NO_DATE
    contents["metadata.json"] = json.dumps(metadata).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content)
