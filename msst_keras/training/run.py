"""A run directory: what a training run leaves behind, and how another program gets its model back.

flags.txt        the flags of the run, usable with --flagfile
run.json         how to build the model, and where its motion prior came from
prior.keras      the motion prior's model (none for variant `os`)
checkpoints/     the last few states of model and optimizer
best/            the weights of the best validation, and its scores
log.jsonl        one line a step
events.out.*     TensorBoard
result.json      when done
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import keras
import tensorflow as tf

from msst_keras.files import publish
from msst_keras.model.msst import build_msst
from msst_keras.training.checkpoints import BEST, LAST, newest_checkpoint

PRIOR_NAME = "prior.keras"
_AVERAGE = "update/averages/{}/.ATTRIBUTES/VARIABLE_VALUE"  # of `optimizer.Update.state`, in a checkpoint


def write_run(run_dir: str | Path, settings: dict) -> None:
    """Writes run.json: "model" (keyword arguments of `build_msst`), "motion" (of the records) and "image_size".

    Raises:
      ValueError: the directory holds a run of another model or other records, which this one cannot continue.
    """
    path = Path(run_dir) / "run.json"
    settings = json.loads(json.dumps(settings))
    if path.exists():
        found = json.loads(path.read_text())
        changed = [key for key in settings if found.get(key) != settings[key]]
        if changed:
            raise ValueError(
                f"{run_dir} holds a run whose {', '.join(changed)} differ from the flags given; "
                "choose another --run_dir, or repeat the flags in its flags.txt to continue it"
            )
    with publish(path) as temporary:
        temporary.write_text(json.dumps(settings, indent=1) + "\n")


def read_run(run_dir: str | Path) -> dict:
    """The settings of a run.

    Raises:
      FileNotFoundError: `run_dir` is no run directory.
      ValueError: its run.json is damaged.
    """
    path = Path(run_dir) / "run.json"
    if not path.is_file():
        raise FileNotFoundError(f"{run_dir}: not a run directory (it has no run.json); `msst train` makes one")
    try:
        settings = json.loads(path.read_text())
        missing = {"model", "motion", "image_size"} - settings.keys()
    except (ValueError, RecursionError, AttributeError) as error:  # AttributeError: no object
        raise ValueError(f"{path}: damaged ({error}); train again into another --run_dir") from error
    if missing or not isinstance(settings["model"], dict):
        raise ValueError(f"{path}: expected model, motion and image_size, found {', '.join(settings)}; train again")
    return settings


def load_model(run_dir: str | Path, checkpoint: str = "last") -> keras.Model:
    """Builds a run's model and restores its weights: the averaged ones where the run averages.

    Args:
      run_dir: of the run.
      checkpoint: "last", or "best" of the validations.

    Raises:
      FileNotFoundError: no run directory, or one without a (whole) checkpoint.
    """
    model = build_msst(**(read_run(run_dir)["model"] | {"weights": "none"}))
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


def keep_prior(run_dir: str | Path, motion: dict | None, prior_path: str | Path | None) -> None:
    """Copies the prior that the records were made with into the run directory, where `msst export` looks for it.

    Nothing is to be copied when there is none (`os`), when it is the magnitude, or when the run has it already.

    Raises:
      ValueError: the records' prior is a network, and `prior_path` is missing or another file.
      FileNotFoundError: `prior_path` does not exist.
    """
    if motion is None or motion["prior"]["kind"] != "network":
        return
    kept = Path(run_dir) / PRIOR_NAME
    path = Path(prior_path) if prior_path else kept
    if prior_path and not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give the file that `msst make_records --prior` was given")
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != motion["prior"]["sha256"]:
        raise ValueError("the records hold the prior of another file; give the file they were made with as --prior")
    if path != kept:
        with publish(kept) as temporary:
            temporary.write_bytes(path.read_bytes())


def transfer_weights(source: keras.Model, target: keras.Model) -> int:
    """Copies every weight of `source` to the weight of the same name and shape in `target` (os -> st -> msst).

    Returns:
      how many weights were copied.

    Raises:
      ValueError: no weight fits.
    """
    weights, fitting = _name_weights(source), 0
    for name, weight in _name_weights(target).items():
        if name in weights and weights[name].shape == weight.shape:
            weight.assign(weights[name])
            fitting += 1
    if not fitting:
        raise ValueError("no weight of the run to start from fits this model; do backbone and width agree?")
    return fitting


def _name_weights(model: keras.Model, prefix: str = "") -> dict[str, keras.Variable]:
    """The weights by the names of the models and layers around them (Keras's own paths leave the models out)."""
    names = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            names |= _name_weights(layer, f"{prefix}{layer.name}/")
        else:
            names |= {prefix + weight.path: weight for weight in layer.weights}
    return names
