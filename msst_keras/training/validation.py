"""Validation during training: the model's maps on clips of validation records, scored."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from msst_keras.data.pipeline import ClipIndex, validation_batches
from msst_keras.evaluation.protocols import PROTOCOLS, Evaluator


def make_validation(
    model: keras.Model, index: ClipIndex, num_frames: int, batch_size: int, image_size: tuple[int, int]
) -> Callable[[], dict[str, float]]:
    """Returns a function that scores `model` on every clip of `index` at `image_size`, protocol `paper`.

    The maps are scored at `image_size`, not at the frames' own size: good for watching a training, not for publishing
    (`msst evaluate` does that).

    Returns:
      a function () -> {"mae", "max_f", "s_measure"}.
    """
    predict = tf.function(lambda clip: tf.sigmoid(model(clip, training=False)["fused"]), reduce_retracing=True)

    def validate() -> dict[str, float]:
        evaluator = Evaluator(PROTOCOLS["paper"])
        for batch in validation_batches(index, num_frames, batch_size, image_size):
            maps = predict({name: batch[name] for name in model.input}).numpy()
            for saliency, mask, clip in zip(
                maps[..., 0], batch["mask"].numpy()[..., 0], batch["clip"].numpy(), strict=True
            ):
                sequence, frame = index.names[clip].rsplit("/", 1)
                evaluator.add(sequence, frame, saliency, mask > 0.5)
        result = evaluator.result()
        return {name: result[name] for name in ("mae", "max_f", "s_measure")}

    return validate
