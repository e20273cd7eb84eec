"""One table of motion priors as saliency maps: flow magnitude by camera model, trained priors by levels and backbone.

  python benchmarks/prior.py --train_root=DAVIS_TRAIN --test_root=DAVIS --weights_dir=WEIGHTS --output=prior.json
  python benchmarks/prior.py --train_root=DAVIS_TRAIN --hold_out=5 --weights_dir=WEIGHTS --output=held_out.json

The first trains on one DAVIS tree and scores on another, under protocol `paper`; settings are not to be chosen by it.
The second is for choosing: of the training tree every fifth sequence is held out and scored. Rows that the output file
holds already are not made again, so that a run that was stopped goes on.

A frozen backbone's features of a region do not change while its classifier learns: they are pooled once (in float16,
half of the maps mirrored, which the job `train_prior` draws anew each time) and the classifiers learn from them, with
the loss and the optimizer of `train_prior`. VGG16 is narrow and trained from scratch by `train_prior` itself, since
its ImageNet weights are not a file in --weights_dir.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import cv2
import keras
import numpy as np
import tensorflow as tf

from msst_keras.data import datasets, images
from msst_keras.evaluation.evaluator import Evaluator
from msst_keras.evaluation.protocols import PROTOCOLS
from msst_keras.evaluation.scores import HEADLINE
from msst_keras.files import publish
from msst_keras.motion import regions
from msst_keras.motion.camera import CAMERAS
from msst_keras.motion.flow import FlowEstimator, FlowSettings
from msst_keras.motion.flow_pictures import magnitude_prior
from msst_keras.motion.prior import MotionPrior
from msst_keras.motion.prior_training import balanced_loss, make_optimizer, train_prior
from msst_keras.motion.superpixels import SuperpixelSettings, segment

WEIGHTS = {
    "vgg16": "none",
    "resnet50v2": "resnet50v2_stages123_gluon_nchw.npz",
    "mobilenetv2": "mobilenetv2_bnfolded_nchw.npz",
}
NARROW = 0.25  # width of a backbone without weights
LEVELS = {1: [2], 3: [0, 2, 4], 5: [0, 1, 2, 3, 4]}  # of five from coarse to fine; M = 1 and 3 are among them
MIN_PURITY = 0.7  # of a sample, as `train_prior` has it
BATCH_SIZE = 4  # maps


def read_examples(sequences, every: int) -> list[dict]:
    """Every `every`-th frame of each sequence: names, frame, flow, five levels of superpixels, mask at frame size."""
    estimator, settings, examples = FlowEstimator(FlowSettings()), SuperpixelSettings(num_levels=5), []
    for sequence in sequences:
        for index in range(0, len(sequence), every):
            last = index + 1 == len(sequence)
            first, second = (images.read_frame(sequence.frame_paths[i]) for i in (index, index + (-1 if last else 1)))
            flow = estimator.between(first, second) * np.float32(-1 if last else 1)
            examples.append({
                "sequence": sequence.name, "name": sequence.frame_names[index], "frame": first, "flow": flow,
                "superpixels": segment(flow, settings).astype(np.int16), "mask": sequence.read_mask(index),
            })  # fmt: skip
    return examples


def make_batch(examples: list[dict], levels: list[int], mirror: bool = False) -> dict[str, np.ndarray]:
    """Inputs of a prior of these levels, and the masks at the size of the flow; several frames at its size too."""
    arrays = []
    for example in examples:
        size, frame = example["flow"].shape[1::-1], example["frame"]
        mask = cv2.resize(example["mask"].astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5
        superpixels = example["superpixels"][..., levels].astype(np.int32)
        if len(examples) > 1:
            frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        arrays.append({"flow": example["flow"], "superpixels": superpixels, "frame": frame, "mask": mask})
    batch = {name: np.stack([each[name] for each in arrays]) for name in arrays[0]}
    if mirror:
        batch = {name: array[:, :, ::-1] for name, array in batch.items()}
        batch["flow"] = batch["flow"] * np.float32([-1, 1])
    return batch


def pool_samples(prior: MotionPrior, examples: list[dict]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The pure regions of each map: features (N, F) float16, salient (N,) bool, level (N,)."""
    pool = tf.function(prior.pool_features, reduce_retracing=True)
    generator, samples = np.random.default_rng(0), []
    for example in examples:
        batch = make_batch([example], LEVELS[5], mirror=generator.random() < 0.5)
        inputs = {name: tf.constant(batch[name]) for name in ("flow", "superpixels", "frame")}
        salient, sampled = regions.label_regions(
            tf.constant(batch["mask"].astype(np.float32)), inputs["superpixels"],
            prior.superpixel_settings.max_regions, MIN_PURITY,
        )  # fmt: skip
        features = pool(inputs).numpy()[0]
        salient, chosen = (x.numpy()[0, :, : features.shape[1]] > 0 for x in (salient, sampled))
        samples.append((features[chosen].astype(np.float16), salient[chosen], np.nonzero(chosen)[0]))
    return samples


def train_classifier(prior: MotionPrior, samples, levels: list[int], steps: int, learning_rate: float) -> None:
    """Trains a shared classifier on pooled features as `train_prior` does."""
    (classifier,) = prior.classifiers
    variables = classifier.trainable_variables
    optimizer = make_optimizer(variables, steps, learning_rate)

    @tf.function(input_signature=[tf.TensorSpec([None, samples[0][0].shape[1]]), tf.TensorSpec([None])])
    def step(features, salient):
        with tf.GradientTape() as tape:
            logits = classifier(features[None, None], training=True)[0, 0, :, 0]
            loss = balanced_loss(logits, salient, tf.ones_like(salient))
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    generator = np.random.default_rng(0)
    for _ in range(steps):
        chosen = [samples[i] for i in generator.choice(len(samples), BATCH_SIZE, replace=False)]
        kept = [np.isin(level, levels) for _, _, level in chosen]
        features, salient = (np.concatenate([s[k][keep] for s, keep in zip(chosen, kept, strict=True)]) for k in (0, 1))
        step(features.astype(np.float32), salient.astype(np.float32))


def score(maps, examples: list[dict]) -> dict[str, float]:
    """MAE, max F and S of a map for each example."""
    evaluator = Evaluator(PROTOCOLS["paper"])
    for saliency, example in zip(maps, examples, strict=True):
        evaluator.add(example["sequence"], example["name"], saliency, example["mask"])
    result = evaluator.result()
    return {key: result[key] for key in (*HEADLINE, "num_frames", "num_sequences")}


def predict(prior: MotionPrior, levels: list[int], examples: list[dict]):
    """Yields the map of each example, by the prior as it is."""
    call = tf.function(prior, reduce_retracing=True)
    for example in examples:
        batch = make_batch([example], levels)
        names = ("flow", "superpixels", *(["frame"] if prior.needs_frames else []))
        yield call({name: tf.constant(batch[name]) for name in names}).numpy()[0, ..., 0]


class Table:
    """Rows by name, kept in a JSON file."""

    def __init__(self, path: str):
        self._path = Path(path)
        self.rows = json.loads(self._path.read_text()) if self._path.exists() else {}

    def add(self, name: str, row: dict) -> None:
        self.rows[name] = row
        with publish(self._path) as temporary:
            temporary.write_text(json.dumps(self.rows, indent=1) + "\n")
        print(f"{name:42s} {row['mae']:6.3f} {row['max_f']:6.3f} {row['s_measure']:6.3f}", flush=True)


def add_magnitudes(table: Table, test: list[dict]) -> None:
    for camera in CAMERAS:
        if (name := f"magnitude, camera {camera}") not in table.rows:
            table.add(name, score((magnitude_prior(example["flow"], camera) for example in test), test))
    if "all black" not in table.rows:
        table.add("all black", score((np.zeros_like(example["flow"][..., 0]) for example in test), test))


def add_priors(table: Table, backbone: str, rgb: bool, train: list[dict], test: list[dict], arguments) -> None:
    weights = WEIGHTS[backbone]
    frozen = weights != "none"
    names = {levels: f"{backbone}{'' if frozen else f' x {NARROW}'}, {'flow + RGB' if rgb else 'flow'}, "
                     f"M = {levels}{arguments.tag}" for levels in arguments.levels}  # fmt: skip
    names = {levels: name for levels, name in names.items() if name not in table.rows}
    samples = None
    for levels, name in names.items():
        started = time.perf_counter()

        def make(num_levels):
            keras.utils.set_random_seed(0)
            return MotionPrior(
                superpixels=SuperpixelSettings(num_levels=num_levels), backbone=backbone, rgb_features=rgb,
                camera=arguments.camera, width=1.0 if frozen else NARROW,
                backbone_weights=str(Path(arguments.weights_dir) / weights) if frozen else "none",
            )  # fmt: skip

        prior = make(levels)
        if frozen:
            samples = samples or pool_samples(make(5), train)
            train_classifier(prior, samples, LEVELS[levels], arguments.steps, arguments.learning_rate)
        else:
            generator = np.random.default_rng(0)
            chosen = (generator.choice(len(train), BATCH_SIZE) for _ in range(arguments.scratch_steps))
            batches = (make_batch([train[i] for i in batch], LEVELS[levels]) for batch in chosen)
            train_prior(batches, prior, arguments.scratch_steps)
        row = score(predict(prior, LEVELS[levels], test), test)
        table.add(name, {**row, "seconds": round(time.perf_counter() - started)})


def split(arguments) -> tuple[list[dict], list[dict]]:
    """Examples to learn from and to score on."""
    sequences = datasets.find_sequences("davis", arguments.train_root)
    held_out = sequences[arguments.hold_out - 1 :: arguments.hold_out] if arguments.hold_out else []
    train = [sequence for sequence in sequences if sequence not in held_out]
    test = held_out or datasets.find_sequences("davis", arguments.test_root)
    print(f"scored: {' '.join(sequence.name for sequence in test)}")
    return read_examples(train, arguments.train_every), read_examples(test, arguments.every)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_root", required=True, help="a DAVIS tree to learn from")
    scored = parser.add_mutually_exclusive_group(required=True)
    scored.add_argument("--test_root", help="a DAVIS tree to score on")
    scored.add_argument("--hold_out", type=int, help="score on every so-manieth sequence of --train_root instead")
    parser.add_argument("--weights_dir", default=os.curdir, help=f"folder of {', '.join(list(WEIGHTS.values())[1:])}")
    parser.add_argument("--output", required=True, help="JSON file of the rows")
    parser.add_argument("--every", type=int, default=4, help="score every so-manieth frame of a sequence")
    parser.add_argument("--train_every", type=int, default=8)
    parser.add_argument("--backbones", default=",".join(WEIGHTS))
    parser.add_argument("--levels", type=lambda text: [int(part) for part in text.split(",")], default=list(LEVELS))
    parser.add_argument("--rgb", choices=["both", "with", "without"], default="both", help="features of the frame")
    parser.add_argument("--camera", choices=CAMERAS, default="homography", help="of the trained priors")
    parser.add_argument("--steps", type=int, default=500, help="of a frozen backbone's classifier")
    parser.add_argument("--scratch_steps", type=int, default=200, help="of a backbone without weights")
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--tag", default="", help="added to the names of trained rows, to tell settings apart")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    train, test = split(arguments)
    print(f"{len(train)} maps to learn from, {len(test)} to score\n{'prior':42s}    MAE  max F      S")
    table = Table(arguments.output)
    add_magnitudes(table, test)
    for backbone in arguments.backbones.split(","):
        for rgb in {"both": (False, True), "with": (True,), "without": (False,)}[arguments.rgb]:
            add_priors(table, backbone, rgb, train, test, arguments)


if __name__ == "__main__":
    main()
