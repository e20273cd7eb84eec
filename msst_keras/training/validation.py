"""Looking at a model while it trains: its maps on validation clips are scored, and those of a few clips drawn."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from msst_keras.evaluation.evaluator import Evaluator
from msst_keras.evaluation.protocols import PROTOCOLS
from msst_keras.pipeline.batches import picture_clips, validation_batches
from msst_keras.pipeline.clip_index import ClipIndex
from msst_keras.training.strategy import Devices

NUM_PICTURES = 4


def make_validation(
    model: keras.Model,
    index: ClipIndex,
    num_frames: int,
    batch_size: int,
    image_size: tuple[int, int],
    devices: Devices | None = None,
) -> Callable[[], dict[str, Any]]:
    """Returns a function that scores `model` on every clip of `index` at `image_size`, protocol `paper`.

    The maps are scored at `image_size`, not at the frames' own size. That serves to watch a training, not to publish
    numbers (`msst evaluate` gives those). The devices share the clips; every process gets the scores of all clips.

    Returns:
      a function () -> `Evaluator.result()`: "mae", "max_f", "s_measure", the curves "precision" and "recall", ...
    """
    devices = devices or Devices()
    predict = _make_prediction(model, devices)

    def validate() -> dict[str, Any]:
        """Scores the whole validation set."""
        evaluator = Evaluator(PROTOCOLS["paper"])
        batches = iter(validation_batches(index, num_frames, batch_size, image_size, devices.share))
        while local := list(itertools.islice(batches, devices.share.num_replicas)):
            batch = devices.scatter(local)
            outputs = predict({name: batch[name] for name in model.input})
            maps, masks, clips = (devices.gather(value) for value in (outputs["fused"], batch["mask"], batch["clip"]))
            for saliency, mask, clip in zip(maps[..., 0], masks[..., 0], clips, strict=True):
                if clip >= 0:  # the last batch is filled up
                    sequence, frame = index.names[clip].rsplit("/", 1)
                    evaluator.add(sequence, frame, saliency, mask > 0.5)
        return evaluator.result()

    return validate


def make_drawing(
    model: keras.Model,
    index: ClipIndex,
    num_frames: int,
    image_size: tuple[int, int],
    flow_to_color: Callable[[np.ndarray], np.ndarray],
    devices: Devices | None = None,
) -> Callable[[], list[dict[str, np.ndarray]]]:
    """Returns a function that gives what `log.Log.pictures` draws: a few clips, evenly spread over `index`.

    `flow_to_color` makes a picture (h, w, 3) uint8 of a flow map (h, w, 2), if records hold flow.
    """
    chosen = np.unique(np.linspace(0, len(index) - 1, NUM_PICTURES).astype(int))
    clips = picture_clips(index, chosen, num_frames, image_size)
    devices = devices or Devices()
    predict = _make_prediction(model, devices)
    inputs = {name: tf.constant(clips[name]) for name in model.input}

    def draw() -> list[dict[str, np.ndarray]]:
        """The maps of the chosen clips, one dictionary of images for each."""
        # Every replica computes the same pictures, because the processes of a training must do everything together.
        outputs = predict(devices.scatter([inputs] * devices.share.num_replicas))
        outputs = {name: devices.gather(value)[: len(chosen), ..., 0] for name, value in outputs.items()}
        rows = []
        for clip in range(len(chosen)):
            row = {"frame": clips["frames"][clip, -1]}
            if "flow" in clips:
                row["flow"] = flow_to_color(clips["flow"][clip])
            if "prior" in inputs:
                prior = clips["prior"][clip, -1]
                row["prior"] = prior[..., 0] if prior.shape[-1] == 1 else np.round(255 * prior).astype(np.uint8)
            if "recurrent" in outputs:
                row["recurrent"] = outputs["recurrent"][clip]
            rows.append(row | {"saliency": outputs["fused"][clip], "mask": clips["mask"][clip, ..., 0]})
        return rows

    return draw


def _make_prediction(model: keras.Model, devices: Devices) -> Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]:
    """A graph: inputs on every replica -> {"fused"[, "recurrent"]}, maps in 0..1."""

    def predict(clip: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The maps in 0..1 of a clip."""
        return {name: tf.sigmoid(logits) for name, logits in model(clip, training=False).items()}

    return tf.function(lambda clip: devices.strategy.run(predict, (clip,)), reduce_retracing=True, autograph=False)
