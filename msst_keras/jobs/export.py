"""Exports a run as a SavedModel with its motion prior inside; `msst export`."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from msst_keras import __version__
from msst_keras.inference.temporal_filter import read_share
from msst_keras.jobs.trained import find_export, load_trained, read_settings
from msst_keras.model.msst import fold_model
from msst_keras.model.options import ModelOptions, check_sizes
from msst_keras.motion.prior_files import make_prior
from msst_keras.motion.settings import FILES, NETWORK, MotionSettings
from msst_keras.serving.export import export_saved_model
from msst_keras.serving.onnx_files import export_onnx
from msst_keras.serving.options import ONNX, ExportOptions
from msst_keras.training import run_dir


def export(options: ExportOptions) -> Path:
    """Loads the run, or the exported model, and its prior, and writes the SavedModel or the ONNX files.

    Returns:
      its folder, saved_models/NAME/VERSION.

    Raises:
      FileNotFoundError: no run, or none with a checkpoint.
      FileExistsError: the version is there already.
      ValueError: a run whose prior is not that of its records, or came from files; an exported model whose prior is a
        network; runs of different networks; a size that the network, the flow or such a prior cannot have.
    """
    settings = read_settings(options.run_dir)
    motion = settings["motion"]
    if motion and motion.prior.kind == FILES:
        raise ValueError(
            f"{options.run_dir}: its motion prior came from files (--prior_dir), which no model makes; train with a "
            "prior of `msst train_prior` to export"
        )
    if motion and motion.prior.kind == NETWORK and find_export(options.run_dir):
        raise ValueError(
            f"{options.run_dir}: its motion prior is a network, which is not read from exported models; export the run"
        )
    runs = [options.run_dir, *options.average_with]
    if options.checkpoint != ExportOptions.checkpoint and all(map(find_export, runs)):
        raise ValueError(
            f"--checkpoint={options.checkpoint} is for training runs, and {' and '.join(runs)} has one model alone; "
            "leave it out"
        )
    if options.motion_size:
        motion = _resize_motion(options.run_dir, motion, options.motion_size)
    image_size = options.image_size or settings["image_size"]
    check_sizes(settings["model"].get("decoder", ModelOptions.decoder), [image_size], "image_size")
    keras.config.set_dtype_policy(options.precision)
    model = fold_model(_load_mean(runs, options.checkpoint), settings["model"])
    keras.config.set_dtype_policy("float32")
    output_dir = Path(options.output_dir)
    versions = [int(path.name) for path in output_dir.glob("*") if path.name.isdecimal()]
    path = output_dir / str(options.version or max(versions, default=0) + 1)
    asset = {
        "num_frames": settings["model"]["num_frames"],
        "image_size": image_size,
        "motion": motion.to_dict() if motion else None,
        "model": settings["model"],
        "precision": options.precision,
        "run": " and ".join(map(_name_run, runs)),
        "logit_shift": settings.get("logit_shift", 0.0) if options.logit_shift is None else options.logit_shift,
        "temporal_filter": read_share(settings) if options.temporal_filter is None else options.temporal_filter,
        "versions": {
            "msst_keras": __version__, "tensorflow": tf.__version__, "keras": keras.__version__,
            "python": platform.python_version(),
        },
    }  # fmt: skip
    if options.format == ONNX:
        export_onnx(path, model, asset)
    else:
        export_saved_model(path, model, _load_prior(options.run_dir, motion), asset)
    print(path)
    return path


def _resize_motion(run: str, motion: MotionSettings | None, size: tuple[int, int]) -> MotionSettings:
    """The settings with flow of another size."""
    if motion is None:
        raise ValueError(f"{run}: its network sees no motion, so there is no --motion_size to change")
    flow = dataclasses.replace(motion.flow_settings, motion_size=size).to_dict()
    if motion.prior.kind == NETWORK and flow != motion.flow:
        height, width = motion.flow_settings.motion_size
        raise ValueError(
            f"{run}: its motion prior is a network, which was fitted to flow of {height}x{width}; make records and a "
            "prior with another --motion_size"
        )
    return dataclasses.replace(motion, flow=flow)


def _name_run(run: str) -> str:
    """What a run is called; an exported model is called after those it was made of."""
    return read_settings(run).get("run", Path(run).resolve().name)


def _load_mean(runs: list[str], checkpoint: str) -> keras.Model:
    """The model of the first run, with the mean of the weights of all; any of them may be an exported model."""
    folded = any(map(find_export, runs))  # of an exported model there is no other mean
    passed_over = {"weights", "frozen_stride"} | ({"batch_norm"} if folded else set())
    first, *others = (_describe_network(run, passed_over) for run in runs)
    for run, network in zip(runs[1:], others, strict=True):
        differing = sorted(name for name in first.keys() | network.keys() if first.get(name) != network.get(name))
        if differing:
            raise ValueError(
                f"{run}: its network is not that of {runs[0]}: another {', '.join(differing)}; weights of different "
                "networks have no mean"
            )
    models = [load_trained(run, checkpoint, folded) for run in runs]
    for weights in zip(*(model.weights for model in models), strict=True):
        weights[0].assign(sum(np.asarray(weight) / len(models) for weight in weights))
    return models[0]


def _describe_network(run: str, passed_over: set[str]) -> dict[str, Any]:
    """What makes a run's network, and the maps it sees; not where its weights began."""
    settings = read_settings(run)
    network = {name: value for name, value in settings["model"].items() if name not in passed_over}
    return network | {"motion": settings["motion"]}


def _load_prior(folder: str, motion: MotionSettings | None) -> keras.Model | None:
    """The prior that the run's records were made with; None for a network that sees no motion."""
    if motion is None:
        return None
    if find_export(folder) is None:
        run_dir.check_prior(folder, motion.prior)
    kind = motion.prior.kind
    return make_prior(Path(folder) / run_dir.PRIOR_NAME if kind == NETWORK else kind, motion.flow_settings)
