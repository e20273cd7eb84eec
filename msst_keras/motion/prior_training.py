"""Training of the motion prior's region classifier, and of its backbone where that is trained too (section 3.1)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf

from msst_keras.motion import regions
from msst_keras.motion.prior import MotionPrior
from msst_keras.progress import progress


def train_prior(
    batches: Iterable[dict],
    model: MotionPrior,
    steps: int,
    learning_rate: float = 1e-3,
    seed: int = 0,
    min_purity: float = 0.7,
) -> dict:
    """Trains a prior in place.

    Sigmoid cross-entropy of the regions that are clearly salient or not (`regions.label_regions`), both classes with
    the same weight in sum, since most regions are background. Adam; gradients are clipped to norm 1, against the first
    steps of a backbone without weights, and the learning rate falls to zero along a half cosine, so that the last few
    batches do not decide. Half of the batches, drawn by `seed`, are mirrored left to right.

    Args:
        batches: Dicts of arrays, at least `steps` of them: "flow" (B, h, w, 2) float32, pixels per frame, "superpixels"
            (B, h, w, M) int32 of the model's settings, "mask" (B, h, w) bool, or float with salient above 0.5.
        model: The prior.
        steps: Batches to train on.
        learning_rate: The first. A narrow backbone trained from scratch for 150 steps ends alike from 3e-4 to 2e-3 and
            worse at 3e-3.
        seed: Of the mirroring.
        min_purity: See `regions.label_regions`.

    Returns:
        {"steps", "loss", "region_accuracy", "balanced_accuracy" (the mean of both classes' shares of correct
        regions, null if a class did not occur), "num_regions", "num_salient_regions"} over the last tenth of the
        steps, on training data.

    Raises:
        ValueError: Bad arguments or batches, too few batches, or a loss that is not finite.
    """
    if not (isinstance(steps, int) and steps >= 1):
        raise ValueError(f"steps must be a whole number, 1 or more, found {steps!r}.")
    if not 0.5 <= min_purity < 1:
        raise ValueError(f"min_purity must be from 0.5 to below 1, found {min_purity!r}.")
    step = _make_step(model, steps, learning_rate, min_purity)
    generator = np.random.default_rng(seed)
    first_reported = steps - max(1, steps // 10)
    counts, losses = np.zeros(4), []
    done = 0
    for batch in progress(itertools.islice(batches, steps), total=steps, description="train prior"):
        loss, batch_counts = step(*_prepare(batch, model, mirror=generator.random() < 0.5))
        if not np.isfinite(float(loss)):
            raise ValueError(f"The loss of the prior is {float(loss)} at step {done}; use a lower learning rate.")
        if done >= first_reported:
            counts += batch_counts.numpy()
            losses.append(float(loss))
        done += 1
    if done < steps:
        raise ValueError(f"Expected {steps} batches to train on, found {done}; repeat them or take fewer steps.")
    return _report(counts, losses, steps)


def _make_step(model: MotionPrior, steps: int, learning_rate: float, min_purity: float):
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    optimizer = keras.optimizers.Adam(schedule, global_clipnorm=1.0)
    variables = model.trainable_variables
    optimizer.build(variables)
    settings = model.superpixel_settings

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, None, 2], tf.float32),
            tf.TensorSpec([None, None, None, settings.num_levels], tf.int32),
            tf.TensorSpec([None, None, None], tf.float32),
        ]
    )
    def step(flow, superpixels, mask):
        salient, sampled = regions.label_regions(mask, superpixels, settings.max_regions, min_purity)
        other = sampled - salient
        with tf.GradientTape() as tape:
            logits = model.score_regions({"flow": flow, "superpixels": superpixels}, training=True)
            losses = tf.nn.sigmoid_cross_entropy_with_logits(salient, logits)
            parts = [tf.reduce_sum(losses * w) / tf.maximum(tf.reduce_sum(w), 1) for w in (salient, other)]
            loss = tf.add_n(parts) / 2
        optimizer.apply(tape.gradient(loss, variables), variables)
        found = tf.cast(logits > 0, tf.float32)
        counts = [tf.reduce_sum(x) for x in (salient * found, salient, other * (1 - found), other)]
        return loss, tf.stack(counts)

    return step


def _prepare(batch: dict, model: MotionPrior, mirror: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Checks a batch; returns flow, superpixels and mask as the step wants them."""
    missing = {"flow", "superpixels", "mask"} - batch.keys()
    if missing:
        raise ValueError(f"A batch must hold flow, superpixels and mask, found no {' and no '.join(sorted(missing))}.")
    flow, superpixels, mask = (np.asarray(batch[name]) for name in ("flow", "superpixels", "mask"))
    size = mask.shape
    num_levels = model.superpixel_settings.num_levels
    if len(size) != 3 or flow.shape != (*size, 2) or superpixels.shape != (*size, num_levels):
        raise ValueError(
            f"A batch must hold mask (B, h, w), flow (B, h, w, 2) and superpixels (B, h, w, {num_levels}), "
            f"found {mask.shape}, {flow.shape} and {superpixels.shape}."
        )
    if superpixels.max() >= model.superpixel_settings.max_regions:
        raise ValueError(
            f"Superpixel labels must be below the prior's max_regions, {model.superpixel_settings.max_regions}, "
            f"found {superpixels.max()}; segment with the prior's own settings."
        )
    arrays = flow.astype(np.float32), superpixels.astype(np.int32), (mask > 0.5).astype(np.float32)
    if not mirror:
        return arrays
    flow, superpixels, mask = (array[:, :, ::-1] for array in arrays)
    return flow * np.float32([-1, 1]), superpixels, mask


def _report(counts: np.ndarray, losses: list[float], steps: int) -> dict:
    salient_found, salient, other_found, other = counts
    both = salient > 0 and other > 0
    return {
        "steps": steps,
        "loss": float(np.mean(losses)),
        "region_accuracy": float((salient_found + other_found) / max(salient + other, 1)),
        "balanced_accuracy": float(salient_found / salient + other_found / other) / 2 if both else None,
        "num_regions": int(salient + other),
        "num_salient_regions": int(salient),
    }
