"""A run directory: what a training run leaves behind, and how another program gets its model back.

    flags.txt        the flags of the run, usable with --flagfile
    run.json         how to build the model, and where its motion prior came from
    prior.keras      the motion prior's model (none for variant `os`)
    checkpoints/     the last few states of model and optimizer
    log.jsonl        one line a step
    events.out.*     TensorBoard
    result.json      when done
"""

from __future__ import annotations

import json
from pathlib import Path

import keras
import tensorflow as tf

from msst_keras.files import publish
from msst_keras.model.msst import build_msst


def write_run(run_dir: str | Path, settings: dict) -> None:
    """Writes run.json. `settings` holds "model" (keyword arguments of `build_msst`), "motion" (of the records), "image_size".

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
    """
    path = Path(run_dir) / "run.json"
    if not path.is_file():
        raise FileNotFoundError(f"{run_dir}: not a run directory (it has no run.json); `msst train` makes one")
    return json.loads(path.read_text())


def load_model(run_dir: str | Path) -> keras.Model:
    """Builds a run's model and restores the weights of its last checkpoint.

    Raises:
      FileNotFoundError: no run directory, or one without a checkpoint.
    """
    model = build_msst(**(read_run(run_dir)["model"] | {"weights": "none"}))
    checkpoint = tf.train.latest_checkpoint(str(Path(run_dir) / "checkpoints"))
    if checkpoint is None:
        raise FileNotFoundError(f"{run_dir}: no checkpoint yet; train it first")
    tf.train.Checkpoint(model=model).restore(checkpoint).expect_partial().assert_existing_objects_matched()
    return model


def transfer_weights(source: keras.Model, target: keras.Model) -> int:
    """Copies every weight of `source` to the weight of the same path and shape in `target` (os -> st -> msst).

    Returns:
      how many weights were copied.

    Raises:
      ValueError: no weight fits.
    """
    weights = {weight.path: weight for weight in source.weights}
    fitting = [w for w in target.weights if w.path in weights and weights[w.path].shape == w.shape]
    if not fitting:
        raise ValueError("no weight of the run to start from fits this model; do backbone and width agree?")
    for weight in fitting:
        weight.assign(weights[weight.path])
    return len(fitting)
