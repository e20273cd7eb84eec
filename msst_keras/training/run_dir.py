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

import json
from pathlib import Path

import keras

from msst_keras.files import DifferentSettingsError, compare_settings, hash_file, publish, read_json, write_json
from msst_keras.model.options import POLICIES
from msst_keras.motion.settings import NETWORK, MotionSettings, PriorSettings
from msst_keras.options import list_options, list_passed_over, remembered_values
from msst_keras.training.options import TrainOptions

PRIOR_NAME = "prior.keras"
_MEND = "train again into another --run_dir"


def describe_training(options: TrainOptions) -> dict:
    """The flags, by name, that make a run what it is, but for those of its model.

    `steps` is none of them as long as the learning rate does not depend on it.
    """
    passed_over = {name for name, *_ in list_options(options.model)}
    if options.training.optimizer.schedule == "constant":
        passed_over.add("steps")
    return {name: value for name, value in remembered_values(options).items() if name not in passed_over}


def _list_changeable() -> list[str]:
    """The flags that may change when a run goes on; `records` may be in another place, but must have that content."""
    return [name for name in list_passed_over(TrainOptions) if name not in ("run_dir", "records")]


def write_run(run_dir: str | Path, settings: dict) -> None:
    """Writes run.json, or compares it with what is there: a run directory goes on only as itself.

    Args:
      run_dir: of the run.
      settings: "model" (keyword arguments of `build_msst`), "motion" (`MotionSettings` of the records, or None),
        "image_size", and where they are given "training" (of `describe_training`), "records" (a hash) and "precision"
        (what --precision=auto chose).

    Raises:
      ValueError: the directory holds a run of another model, other records or other flags, which this one cannot
        continue; or its run.json is damaged.
    """
    path, motion = Path(run_dir) / "run.json", settings["motion"]
    settings = settings | {"motion": motion.to_dict() if motion else None}
    if not path.exists():
        write_json(path, settings)
        return
    found = read_json(path, _MEND)
    unknown = [key for key in ("training", "records", "precision") if key in settings and key not in found]
    try:
        # Runs from before these were kept go on as what they are given first.
        compare_settings(path, settings, found | {key: json.loads(json.dumps(settings[key])) for key in unknown})
    except DifferentSettingsError as error:
        raise ValueError(
            f"{run_dir} holds a run whose {', '.join(error.keys)} differ from the flags given: {error.difference}; "
            "choose another --run_dir, or repeat the flags in its flags.txt to continue it (these alone may change: "
            f"--{', --'.join(_list_changeable())}, and --steps without a schedule)"
        ) from None
    if unknown:
        write_json(path, settings)


def read_run(run_dir: str | Path) -> dict:
    """The settings of a run: what `write_run` was given.

    Raises:
      FileNotFoundError: `run_dir` is no run directory.
      ValueError: its run.json is damaged.
    """
    path = Path(run_dir) / "run.json"
    if not path.is_file():
        raise FileNotFoundError(f"{run_dir}: not a run directory (it has no run.json); `msst train` makes one")
    settings = read_json(path, _MEND)
    missing = {"model", "motion", "image_size"} - settings.keys()
    if missing or not isinstance(settings["model"], dict):
        raise ValueError(f"{path}: expected model, motion and image_size, found {', '.join(settings)}; train again")
    if settings["motion"] is None:
        return settings
    try:
        return settings | {"motion": MotionSettings.from_dict(settings["motion"])}
    except ValueError as error:
        raise ValueError(f"{path}: {error}; train again") from error


def read_precision(run_dir: str | Path) -> str | None:
    """The precision of a run that was begun; None where there is none, or one from before run.json held it.

    Raises:
      ValueError: its run.json is damaged.
    """
    if not (Path(run_dir) / "run.json").exists():
        return None
    precision = read_run(run_dir).get("precision")
    if precision not in (None, *POLICIES):
        raise ValueError(f"{run_dir}/run.json: expected {' or '.join(POLICIES)}, found {precision!r}; {_MEND}")
    return precision


def keep_prior(run_dir: str | Path, prior: PriorSettings | None, prior_path: str | Path | None) -> None:
    """Copies the prior that the records were made with into the run directory, where `msst export` looks for it.

    It replaces the one that is there, so it comes after `write_run`, which refuses to go on with another run.

    Raises:
      ValueError, FileNotFoundError: see `find_prior`.
    """
    if path := find_prior(run_dir, prior, prior_path):
        with publish(Path(run_dir) / PRIOR_NAME) as temporary:
            temporary.write_bytes(path.read_bytes())


def find_prior(run_dir: str | Path, prior: PriorSettings | None, prior_path: str | Path | None) -> Path | None:
    """Checks that a run can have the prior that its records were made with; changes nothing.

    Returns:
      the file that is to be copied into the run directory; None when there is no prior (`os`), when it needs no
      training, or when no file is given because the run has it already.

    Raises:
      ValueError: the records' prior is a network, and `prior_path` is missing or another file; or it is none, and there
        is a `prior_path`.
      FileNotFoundError: `prior_path` does not exist.
    """
    if prior is not None and prior.kind != NETWORK and prior_path:
        raise ValueError(f"--prior={prior_path} is not the prior of the records, which is {prior.kind}; leave it out")
    if prior is None or prior.kind != NETWORK:
        return None
    if not prior_path:
        check_prior(run_dir, prior)
        return None
    path = Path(prior_path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give the file that `msst make_records --prior` was given")
    _check_file(path, prior)
    return path


def check_prior(run_dir: str | Path, prior: PriorSettings) -> None:
    """Checks that a run holds the prior that its records were made with, where that is a file.

    Raises:
      ValueError: it holds none, or another one.
    """
    if prior.kind == NETWORK:
        _check_file(Path(run_dir) / PRIOR_NAME, prior)


def _check_file(path: Path, prior: PriorSettings) -> None:
    if not path.is_file() or hash_file(path) != prior.sha256:
        raise ValueError("the records hold the prior of another file; give the file they were made with as --prior")


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
    names: dict[str, keras.Variable] = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            names |= _name_weights(layer, f"{prefix}{layer.name}/")
        else:
            names |= {prefix + weight.path: weight for weight in layer.weights}
    return names
