"""Trains the motion prior, the classifier of superpixels of the flow map (section 3.1); `msst train_prior`."""

from __future__ import annotations

import collections
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import keras
import numpy as np

from msst_keras.evaluation.evaluator import Evaluator
from msst_keras.evaluation.protocols import PROTOCOLS
from msst_keras.evaluation.scores import ALL_BLACK, FLOW_MAGNITUDE, choose_headline
from msst_keras.files import DifferentSettingsError, check_writable, publish, write_json
from msst_keras.locks import hold_folder
from msst_keras.motion import prior_training
from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.flow_pictures import magnitude_prior
from msst_keras.motion.kept_training import KeptTraining
from msst_keras.motion.options import PriorOptions, TrainPriorOptions
from msst_keras.motion.prior import MotionPrior
from msst_keras.motion.prior_files import save_prior
from msst_keras.motion.prior_folds import PriorFolds, add_folds, deal_sequences, trained_weights
from msst_keras.motion.superpixels import SuperpixelSettings, segment
from msst_keras.options import remembered_values
from msst_keras.outputs import Memory
from msst_keras.pipeline import clip_index
from msst_keras.pipeline.batches import flow_batches
from msst_keras.pipeline.clip_index import ClipIndex
from msst_keras.records.folders import check_disjoint
from msst_keras.records.manifest import read_manifest
from msst_keras.records.options import LABEL_KINDS


def train_prior(options: TrainPriorOptions) -> dict:
    """Reads flow and masks, segments, trains, writes the prior and, beside it, how good it is.

    Returns:
      what OUTPUT.json holds: "training", of the training data, "out_of_fold", of the same data by the classifiers that
      did not see it, or None without folds, and "validation", of the validation records, or None.

    Raises:
      ValueError, FileNotFoundError: records or options that do not fit each other, or a training that was begun with
        others.
      OSError: nothing can be written to `output`, which is found out before the first step.
    """
    if not options.output.endswith(".keras"):
        raise ValueError(f"--output must end with .keras, not '{options.output}'")
    output = Path(options.output)
    index, val_index, flow = _index(options)
    check_writable(output)
    check_writable(output.with_suffix(".json"))
    work = output.with_name(f".training-{output.name}")
    with hold_folder(work):
        report = _train(options, index, val_index, flow, work)
        shutil.rmtree(work)
    _print(options.output, report)
    return report


def _train(
    options: TrainPriorOptions, index: ClipIndex, val_index: ClipIndex | None, flow: FlowSettings, work: Path
) -> dict:
    """Trains, or goes on with what `work` holds, then writes prior and report; returns the report."""
    output, state_path = Path(options.output), work / "state.npz"
    memory = Memory(work, "train_prior", _describe(options))
    try:
        known = memory.compare() is not None
    except DifferentSettingsError as error:
        raise ValueError(
            f"{work} holds a training that was begun with something else: {error.difference}; repeat those flags to go "
            "on with it, or remove that folder"
        ) from None
    if not known:
        state_path.unlink(missing_ok=True)  # nothing says what it is of
    keras.utils.set_random_seed(options.seed)
    prior = _build(options.prior, flow)
    fold_of = _deal(index, options.folds) if options.folds else {}
    spawned = [prior.spawn() for _ in range(options.folds)]
    kept = KeptTraining(state_path)
    batches = _read_batches(index, prior, options.batch_size, options.steps, options.seed, kept.done, fold_of)
    trained = prior_training.train_prior(
        batches if known else _remember_kept(batches, memory, state_path), prior, options.steps,
        options.learning_rate, options.seed, folds=spawned, kept=kept,
    )  # fmt: skip
    weights = [trained_weights(each) for each in spawned]
    report = {"training": trained, "out_of_fold": None, "validation": None}
    if options.folds:
        report["out_of_fold"] = _validate(index, prior, options, PriorFolds(prior, fold_of, weights))
    if val_index:
        report["validation"] = _validate(val_index, prior, options)
    with publish(output) as temporary:
        save_prior(prior, temporary)
        if options.folds:
            add_folds(temporary, fold_of, weights)
    write_json(output.with_suffix(".json"), report)
    return report


def _remember_kept(batches: Iterator[dict], memory: Memory, state_path: Path) -> Iterator[dict]:
    """The batches; what the training was begun with is remembered as soon as there is a state to go on with.

    What refuses earlier, be it weights, folds or a learning rate, is mended by other flags, and nothing is lost with
    them.
    """
    is_remembered = False
    for batch in batches:
        if not is_remembered and state_path.exists():
            memory.write()
            is_remembered = True
        yield batch


def _describe(options: TrainPriorOptions) -> dict:
    """All that the weights are made from: flags, and records by the hashes of their shards."""
    folders = clip_index.find_record_folders(options.records)
    shards = [shard["sha256"] for folder in folders for shard in read_manifest(folder)["shards"]]
    records = hashlib.sha256(json.dumps(shards).encode()).hexdigest()
    return {"records": records} | remembered_values(options)


def _index(options: TrainPriorOptions) -> tuple[ClipIndex, ClipIndex | None, FlowSettings]:
    """The frames to train on, those to validate on, and how the flow of both was made."""
    folders = clip_index.find_record_folders(options.records)
    index, flow = clip_index.index_flow(folders, ("fine",) if options.fine_only else LABEL_KINDS)
    val_index = None
    if options.val_records:
        val_folders = clip_index.find_record_folders(options.val_records)
        check_disjoint(folders, val_folders)
        val_index, val_flow = clip_index.index_flow(val_folders)
        if val_flow != flow:
            raise ValueError("--val_records were made with other flow settings than --records; make them alike")
    return index, val_index, FlowSettings.from_dict(flow)


def _deal(index: ClipIndex, num_folds: int) -> dict[str, int]:
    """The fold of each sequence of an index."""
    return deal_sequences(collections.Counter(map(_sequence_of, index.names)), num_folds)


def _sequence_of(name: str) -> str:
    return name.rpartition("/")[0]


def _build(options: PriorOptions, flow: FlowSettings) -> MotionPrior:
    return MotionPrior(
        flow,
        SuperpixelSettings(num_levels=options.num_levels, max_regions=options.max_regions),
        backbone=options.backbone,
        width=options.width,
        backbone_weights=options.weights,
        train_backbone=options.train_backbone,
        camera=options.camera,
        rgb_features=options.rgb_features,
        classifier_per_level=options.classifier_per_level,
    )


def _read_batches(
    index: ClipIndex,
    prior: MotionPrior,
    batch_size: int,
    steps: int,
    seed: int,
    first: int = 0,
    fold_of: Mapping[str, int] | None = None,
) -> Iterator[dict]:
    """Yields batches of the records from step `first` on, with the prior's superpixels, and folds where there are."""
    if first >= steps:
        return
    dataset = flow_batches(index, batch_size, seed, first, steps, prior.needs_frames)
    for batch in dataset.as_numpy_iterator():
        labels = np.stack([segment(flow, prior.superpixel_settings) for flow in batch["flow"]])
        folds = [fold_of[_sequence_of(index.names[clip])] for clip in batch["clip"]] if fold_of else []
        yield {**batch, "superpixels": labels, "mask": batch["mask"] > 0.5, "fold": np.asarray(folds)}


def _validate(
    index: ClipIndex, prior: MotionPrior, options: TrainPriorOptions, folds: PriorFolds | None = None
) -> dict:
    """The accuracy over regions, and MAE, max F and S of the prior, flow magnitude and black as saliency maps.

    With folds each frame is seen by the classifier that was trained without its sequence.
    """
    evaluators = {name: Evaluator(PROTOCOLS["paper"]) for name in ("prior", FLOW_MAGNITUDE, ALL_BLACK)}
    counts, num_frames = np.zeros(4), min(options.val_frames, len(index))
    batches = _read_batches(index, prior, 1, num_frames, options.seed)
    if folds:
        batches = _use_folds(batches, index, folds)
    for batch, maps, found in prior_training.predict_priors(batches, prior):
        sequence, _, frame = index.names[batch["clip"][0]].rpartition("/")
        magnitude = magnitude_prior(batch["flow"][0], options.prior.camera)
        for evaluator, saliency in zip(evaluators.values(), (maps[0], magnitude, np.zeros_like(maps[0])), strict=True):
            evaluator.add(sequence, frame, saliency, batch["mask"][0])
        counts += found
    scores = {name: choose_headline(evaluator.result()) for name, evaluator in evaluators.items()}
    return {"num_frames": num_frames, "regions": prior_training.summarise_regions(counts), "maps": scores}


def _use_folds(batches: Iterator[dict], index: ClipIndex, folds: PriorFolds) -> Iterator[dict]:
    """Batches of one frame, each handed out when the prior has the weights that are for it; at the end those of all."""
    for batch in batches:
        folds.use(_sequence_of(index.names[batch["clip"][0]]))
        yield batch
    folds.use(None)


def _print(output: str, report: dict) -> None:
    print(f"{output}: {json.dumps(report['training'])} on training data")
    if report["out_of_fold"]:
        _print_validation("by the classifiers of the folds, which had not seen them", report["out_of_fold"])
    if report["validation"]:
        _print_validation("held out", report["validation"])
    elif not report["out_of_fold"]:
        print("nothing was held out; --folds, or --val_records of other sequences, tell how good the prior is")


def _print_validation(what: str, validation: dict) -> None:
    print(f"{what}, {validation['num_frames']} frames: {json.dumps(validation['regions'])}\n")
    print("                  MAE   max F      S")
    for name, scores in validation["maps"].items():
        print(f"{name:14s} " + " ".join(f"{score:6.3f}" for score in scores.values()))
