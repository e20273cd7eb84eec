"""Trains the network of the paper, or one of its ablations, on records; `msst train`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from msst_keras.files import publish
from msst_keras.jobs.trained import find_export, load_trained
from msst_keras.locks import hold_folder
from msst_keras.model.backbones import PYRAMID_BACKBONES
from msst_keras.model.msst import build_msst, has_batch_norms
from msst_keras.model.options import POLICIES, check_sizes
from msst_keras.motion.flow_pictures import flow_to_color
from msst_keras.motion.settings import FLOW
from msst_keras.options import plain_values, write_flags
from msst_keras.pipeline import clip_index
from msst_keras.pipeline.batches import training_batches
from msst_keras.pipeline.clip_index import ClipIndex
from msst_keras.records.folders import check_disjoint
from msst_keras.records.manifest import read_manifest
from msst_keras.training import loop, run_dir
from msst_keras.training.optimizer import note_loaded
from msst_keras.training.options import AUTO, DeviceOptions, TrainOptions
from msst_keras.training.precision import choose_precision, time_step
from msst_keras.training.strategy import Devices, describe_devices, make_devices
from msst_keras.training.validation import make_drawing, make_validation


def train(options: TrainOptions) -> dict:
    """Checks that records, prior and model fit, then trains; goes on where the run was left.

    It chooses devices, precision and random numbers for the whole process, so it comes before anything else that uses
    TensorFlow.

    Returns:
      the content of result.json; see `loop.train`.

    Raises:
      ValueError, FileNotFoundError: records, prior and options that do not fit each other.
      Interrupted: by a signal; the run has saved itself.
      ConnectionError, OSError: see `loop.train`.
    """
    devices = _choose_devices(options.devices, options.clips.batch_size)
    _check_parts(options, devices)
    groups = clip_index.find_record_groups(options.records)
    index = _index_training(options, groups)
    val_index = _index_validation(options.val_records, options, groups, index) if options.val_records else None
    folder = Path(options.run_dir)
    with _hold(folder, devices):
        prior = index.motion.prior if index.motion else None
        if devices.is_chief:
            print(f"training on {describe_devices(devices)}", file=sys.stderr)
            run_dir.find_prior(folder, prior, options.prior)
        precision = _choose_precision(options, devices)
        model = _build(options, devices, precision)
        if devices.is_chief:
            run_dir.write_run(folder, _describe_run(options, index, groups) | {"precision": precision})
            run_dir.keep_prior(folder, prior, options.prior)
            with publish(folder / "flags.txt") as temporary:
                temporary.write_text(write_flags(options), encoding="utf-8")  # as flagfiles are read
        validate, draw = _make_views(options, model, index, val_index, devices)
        results = loop.train(
            model, _make_batches(options, index, devices), index.names, folder, options.training, devices, validate,
            draw, plain_values(options),
        )  # fmt: skip
    print(f"{options.run_dir}: " + ", ".join(f"{name} {value:.4g}" for name, value in results.items()))
    return results


@contextlib.contextmanager
def _hold(folder: Path, devices: Devices) -> Iterator[None]:
    """Keeps other trainings off the run directory; of several processes the chief does. Leaves no empty folder."""
    if not devices.is_chief:
        yield
        return
    try:
        with hold_folder(folder):
            yield
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _describe_run(options: TrainOptions, index: ClipIndex, groups: dict[tuple[str, ...], int]) -> dict:
    """What makes the run what it is, for run.json: the records by the hashes of their shards."""
    shards = [
        [share, [shard["sha256"] for folder in folders for shard in read_manifest(folder)["shards"]]]
        for folders, share in groups.items()
    ]
    return {
        "model": options.model.arguments(), "motion": index.motion, "image_size": options.clips.image_sizes[-1],
        "training": run_dir.describe_training(options),
        "records": hashlib.sha256(json.dumps(shards).encode()).hexdigest(),
    }  # fmt: skip


def _choose_devices(options: DeviceOptions, batch_size: int) -> Devices:
    if options.cpu_devices > 1:
        parts = [tf.config.LogicalDeviceConfiguration()] * options.cpu_devices
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
    if options.deterministic:
        tf.config.experimental.enable_op_determinism()
    return make_devices(options.strategy, batch_size)


def _check_parts(options: TrainOptions, devices: Devices) -> None:
    """Every part of a device's share has as many clips: what is over would be left out, and the losses be others."""
    share, parts = options.clips.batch_size // devices.num_replicas, options.training.step.accumulation_steps
    if share % parts:
        raise ValueError(
            f"--accumulation_steps={parts} does not divide the {share} clips of --batch_size that a device computes; "
            f"give a divisor of {share}"
        )


def _weigh_labels(options: TrainOptions) -> dict[str, float]:
    return {"fine": options.clips.fine_weight, "coarse": options.clips.coarse_weight}


def _index_training(options: TrainOptions, groups: dict[tuple[str, ...], int]) -> ClipIndex:
    """The clips to train on, whose motion is what the temporal stream is to see."""
    kinds = [kind for kind, weight in _weigh_labels(options).items() if weight > 0]
    index = clip_index.index_groups(groups, options.model.clip_length, options.model.variant != "os", kinds)
    model = options.model
    if index.motion:
        kind = index.motion.prior.kind
        if ("flow" if kind == FLOW else "prior") != model.motion_input:
            mend = "give --motion_input=flow" if kind == FLOW else "leave out --motion_input=flow"
            raise ValueError(
                f"--motion_input={model.motion_input} does not fit the records, whose prior is of the kind {kind}; "
                f"{mend}, or give them another prior by `msst make_records --add_prior`"
            )
    check_sizes(model.decoder, options.clips.image_sizes, "image_sizes")
    _check_batch_norms(options)
    return index


def _check_batch_norms(options: TrainOptions) -> None:
    """Refuses what would not do what it says where batch norms are trained."""
    model = options.model
    if model.batch_norm != "trained" or not {model.backbone, model.motion_backbone} & set(PYRAMID_BACKBONES):
        return
    if options.training.step.recompute:
        raise ValueError("--recompute shows batch norms one frame at a time; give --batch_norm=frozen with it")
    if options.training.optimizer.backbone_factor == 0:
        raise ValueError(
            "--backbone_factor=0 leaves the backbone's batch norms in training, so that it would still change; give "
            "--batch_norm=frozen with it"
        )


def _index_validation(
    records: Sequence[str], options: TrainOptions, groups: dict[tuple[str, ...], int], index: ClipIndex
) -> ClipIndex:
    """The clips to validate on: of other sequences than those of `groups`, and with motion like that of `index`."""
    folders = clip_index.find_record_folders(records)
    check_disjoint([folder for group in groups for folder in group], folders)
    val_index = clip_index.index_clips(folders, options.model.clip_length, options.model.variant != "os")
    if index.motion and val_index.motion and (differences := index.motion.differences(val_index.motion)):
        raise ValueError(
            f"--val_records were made with other flow or prior settings than --records ({differences}); make them alike"
        )
    return val_index


def _choose_precision(options: TrainOptions, devices: Devices) -> str:
    """The Keras dtype policy; of "auto" the one that the run began with, or else what the chief measures to be fast."""
    if options.devices.precision != AUTO:
        return options.devices.precision
    arguments, number = options.model.arguments() | {"weights": "none"}, 0

    def measure(policy: str) -> float:
        """Seconds of a step in this policy, on the smallest images."""
        size = min(options.clips.image_sizes)
        return time_step(policy, lambda: build_msst(**arguments), size, options.training.step)

    if devices.is_chief:
        begun = run_dir.read_precision(options.run_dir)
        number = POLICIES.index(begun or choose_precision(measure, options.training.steps))
    return POLICIES[devices.gather_number(number)[0]]


def _build(options: TrainOptions, devices: Devices, precision: str) -> keras.Model:
    keras.config.set_dtype_policy(precision)
    keras.utils.set_random_seed(options.seed)
    with devices.strategy.scope():
        model = build_msst(**options.model.arguments())
        if options.init_from:
            source = _load_start(options.init_from, options.model.batch_norm, model)
            run_dir.transfer_weights(source, model)
            note_loaded(model, source)
    return model


def _load_start(name: str, batch_norm: str, model: keras.Model) -> keras.Model:
    """The network that `model` is to start from: a run's, or that of an exported model."""
    if find_export(name) and has_batch_norms(model):
        raise ValueError(
            f"--init_from={name} is an exported model, whose batch norms are folded; give --batch_norm=folded"
        )
    return load_trained(name, folded=batch_norm == "folded")


def _make_batches(
    options: TrainOptions, index: ClipIndex, devices: Devices
) -> Callable[[int], Iterable[dict[str, Any]]]:
    """A function: step -> the batches from that step on."""
    clips = options.clips
    return lambda first_step: training_batches(
        index,
        options.model.clip_length,
        clips.batch_size,
        clips.image_sizes,
        options.seed,
        first_step,
        last_step=options.training.steps,
        augmentation=options.augmentation,
        share=devices.share,
        label_weights=_weigh_labels(options),
        service=clips.data_service,
    )


def _make_views(
    options: TrainOptions, model: keras.Model, index: ClipIndex, val_index: ClipIndex | None, devices: Devices
) -> tuple[Callable | None, Callable]:
    """What validates and what draws; the pictures are of validation clips where there are any."""
    length, size = options.model.clip_length, options.clips.image_sizes[-1]
    validate = None
    if val_index:
        validate = make_validation(model, val_index, length, options.clips.batch_size, size, devices)
    return validate, make_drawing(model, val_index or index, length, size, flow_to_color, devices)
