"""Training of the motion prior's region classifier, and of its backbone where that is trained too (section 3.1)."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from msst_keras.motion import regions
from msst_keras.motion.kept_training import KeptTraining
from msst_keras.motion.prior import MotionPrior
from msst_keras.ordered_sums import find_gradients, ordered_sums
from msst_keras.progress import progress


def train_prior(
    batches: Iterable[dict],
    model: MotionPrior,
    steps: int,
    learning_rate: float = 1e-3,
    seed: int = 0,
    min_purity: float = 0.7,
    kept: KeptTraining | None = None,
    folds: Sequence[MotionPrior] = (),
) -> dict:
    """Trains a prior in place, and beside it those that are to be without a fold of the data.

    Sigmoid cross-entropy of the regions that are clearly salient or not (`regions.label_regions`), both classes with
    the same weight in sum, since most regions are background. Adam; gradients are clipped to norm 1, against the first
    steps of a backbone without weights, and the learning rate falls to zero along a half cosine, so that the last few
    batches do not decide. Half of the batches, drawn by `seed`, are mirrored left to right.

    The priors of folds see the same batches without the examples of their own fold, so each sees its examples as often
    as the prior itself does. Features of a backbone that is not trained are computed once for all.

    Args:
        batches: Dicts of arrays, at least `steps` of them: "flow" (B, h, w, 2) float32, pixels per frame, "superpixels"
            (B, h, w, M) int32 of the model's settings, "mask" (B, h, w) bool, or float with salient above 0.5, and
            "frame" (B, H, W, 3) RGB in 0..255 for a model that needs frames, and "fold" (B,) int, the number of each
            example's fold, where there are folds.
        model: The prior.
        steps: Batches to train on.
        learning_rate: The first. A narrow backbone trained from scratch for 150 steps ends alike from 3e-4 to 2e-3 and
            worse at 3e-3.
        seed: Of the mirroring.
        min_purity: See `regions.label_regions`.
        kept: What an interrupted training has kept; `batches` are then those from step `kept.done` on. It is kept up to
            date.
        folds: Of `model.spawn`; number k is trained without the examples of fold k.

    Returns:
        {"steps", "loss"} and what `summarise_regions` gives, over the last tenth of the steps, on training data.

    Raises:
        ValueError: Bad arguments or batches, too few batches, or a loss that is not finite.
    """
    if not (isinstance(steps, int) and steps >= 1):
        raise ValueError(f"steps must be a whole number, 1 or more, found {steps!r}.")
    if not 0.5 <= min_purity < 1:
        raise ValueError(f"min_purity must be from 0.5 to below 1, found {min_purity!r}.")
    priors = [model, *folds]
    optimizers = [make_optimizer(prior.trainable_variables, steps, learning_rate) for prior in priors]
    step = _make_step(priors, optimizers, min_purity)
    kept = kept or KeptTraining(os.devnull, seconds=math.inf)
    weights = {id(each): each for owner in priors for each in owner.weights}  # a shared backbone's once
    variables = [*weights.values(), *(each for optimizer in optimizers for each in optimizer.variables)]
    kept.restore(variables)
    generator = np.random.default_rng(seed)
    for _ in range(kept.done):  # the draws of the steps that are done
        generator.random()
    first_reported, first = steps - max(1, steps // 10), kept.done
    batches = itertools.islice(batches, steps - first)
    with ordered_sums():
        for batch in progress(batches, total=steps, description="train prior", initial=first):
            inputs, mask = _prepare(batch, model, mirror=generator.random() < 0.5)
            loss, batch_counts = step(inputs, mask, _read_folds(batch, len(folds), len(mask)))
            if not np.isfinite(float(loss)):
                raise ValueError(
                    f"The loss of the prior is {float(loss)} at step {kept.done}; use a lower learning rate."
                )
            if kept.done >= first_reported:
                kept.counts += batch_counts.numpy()
                kept.losses.append(float(loss))
            kept.done += 1
            kept.keep(variables)
    if kept.done < steps:
        raise ValueError(f"Expected {steps} batches to train on, found {kept.done}; repeat them or take fewer steps.")
    return {"steps": steps, "loss": float(np.mean(kept.losses)), **summarise_regions(kept.counts)}


def predict_priors(
    batches: Iterable[dict], model: MotionPrior, min_purity: float = 0.7
) -> Iterator[tuple[dict, np.ndarray, np.ndarray]]:
    """Runs a prior on batches that it was not trained on, or was.

    Args:
        batches: As in `train_prior`.
        model: The prior.
        min_purity: See `regions.label_regions`.

    Yields:
        The batch; its priors, (B, h, w) float32 in 0..1; and four counts, whose sum over batches `summarise_regions`
        takes.

    Raises:
        ValueError: Bad batches.
    """

    @tf.function(input_signature=[_input_specs(model), tf.TensorSpec([None, None, None], tf.float32)], autograph=False)
    def predict(inputs: dict[str, tf.Tensor], mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The prior maps of a batch, and how many of its clear regions are right."""
        return model(inputs), _count_correct(model.score_regions(inputs), *_label(inputs, mask, model, min_purity))

    for batch in batches:
        maps, counts = predict(*_prepare(batch, model, mirror=False))
        yield batch, maps.numpy()[..., 0], counts.numpy()


def summarise_regions(counts: np.ndarray) -> dict:
    """How many of the regions that are clearly salient or not were found.

    Args:
        counts: Salient regions that were found, salient regions, other regions that were found, other regions.

    Returns:
        {"region_accuracy", "balanced_accuracy" (the mean of both classes' shares of correct regions, null if a class
        did not occur), "num_regions", "num_salient_regions"}.
    """
    salient_found, salient, other_found, other = counts
    both = salient > 0 and other > 0
    return {
        "region_accuracy": float((salient_found + other_found) / max(salient + other, 1)),
        "balanced_accuracy": float(salient_found / salient + other_found / other) / 2 if both else None,
        "num_regions": int(salient + other),
        "num_salient_regions": int(salient),
    }


def make_optimizer(variables: list, steps: int, learning_rate: float) -> keras.optimizers.Optimizer:
    """The optimizer of `train_prior`, built for `variables`."""
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    optimizer = keras.optimizers.Adam(schedule, global_clipnorm=1.0)
    optimizer.build(variables)
    return optimizer


def balanced_loss(logits: tf.Tensor, salient: tf.Tensor, sampled: tf.Tensor) -> tf.Tensor:
    """The loss of `train_prior`: the mean over salient and the mean over other samples, averaged.

    Args:
        logits, salient, sampled: float32 of one shape; the latter two as of `regions.label_regions`.
    """
    losses = tf.nn.sigmoid_cross_entropy_with_logits(salient, logits)
    parts = [tf.reduce_sum(losses * w) / tf.maximum(tf.reduce_sum(w), 1) for w in (salient, sampled - salient)]
    return tf.add_n(parts) / 2


def _make_step(
    priors: Sequence[MotionPrior], optimizers: Sequence[keras.optimizers.Optimizer], min_purity: float
) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """A graph (inputs, mask, fold) -> the first prior's loss and counts; the others are those of the folds 0, 1, ..."""
    model = priors[0]
    share = len(priors) > 1 and all(prior.backbone is model.backbone for prior in priors)

    @tf.function(
        input_signature=[
            _input_specs(model),
            tf.TensorSpec([None, None, None], tf.float32),
            tf.TensorSpec([None], tf.int32),
        ],
        autograph=False,
    )
    def step(inputs: dict[str, tf.Tensor], mask: tf.Tensor, fold: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Updates every prior by one batch, those of folds by what is not of their own."""
        salient, sampled = _label(inputs, mask, model, min_purity)
        shared = model.pool_features(inputs, training=True) if share else None
        results = []
        for number, (prior, optimizer) in enumerate(zip(priors, optimizers, strict=True), start=-1):
            seen = tf.cast(fold != number, tf.float32)[:, None, None]  # the first prior sees all
            pooled = shared if share else prior.pool_features(inputs, training=True)
            logits = prior.score_pooled(pooled, training=True)
            loss = balanced_loss(logits, salient * seen, sampled * seen)
            variables = prior.trainable_variables
            optimizer.apply(find_gradients([loss], [variable.value for variable in variables]), variables)
            results.append((loss, logits))
        loss, logits = results[0]
        return loss, _count_correct(logits, salient, sampled)

    return step


def _read_folds(batch: dict, num_folds: int, batch_size: int) -> np.ndarray:
    """The fold of each example, int32 (B,); without folds a number that is none's."""
    if not num_folds:
        return np.full(batch_size, -2, np.int32)
    folds = np.asarray(batch.get("fold", ()))
    if folds.shape != (batch_size,) or not np.isin(folds, range(num_folds)).all():
        raise ValueError(f"A batch must hold fold ({batch_size},), numbers below {num_folds}, found {folds.tolist()}.")
    return folds.astype(np.int32)


def _input_specs(model: MotionPrior) -> dict[str, tf.TensorSpec]:
    """What the model's inputs are, of any size."""
    specs = {
        "flow": tf.TensorSpec([None, None, None, 2], tf.float32),
        "superpixels": tf.TensorSpec([None, None, None, model.superpixel_settings.num_levels], tf.int32),
    }
    if model.needs_frames:
        specs["frame"] = tf.TensorSpec([None, None, None, 3], tf.float32)
    return specs


def _label(
    inputs: dict[str, tf.Tensor], mask: tf.Tensor, model: MotionPrior, min_purity: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """`regions.label_regions` of a batch."""
    return regions.label_regions(mask, inputs["superpixels"], model.superpixel_settings.max_regions, min_purity)


def _count_correct(logits: tf.Tensor, salient: tf.Tensor, sampled: tf.Tensor) -> tf.Tensor:
    """Salient regions that were found, salient regions, other regions that were found, other regions."""
    found, other = tf.cast(logits > 0, tf.float32), sampled - salient
    return tf.stack([tf.reduce_sum(x) for x in (salient * found, salient, other * (1 - found), other)])


def _prepare(batch: dict, model: MotionPrior, mirror: bool) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Checks a batch; returns the model's inputs and the mask as the step wants them."""
    names = ["flow", "superpixels", *(["frame"] if model.needs_frames else []), "mask"]
    missing = [name for name in names if name not in batch]
    if missing:
        listed = f"{', '.join(names[:-1])} and {names[-1]}"
        raise ValueError(f"A batch must hold {listed}, found no {' and no '.join(missing)}.")
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
    inputs = {"flow": flow.astype(np.float32), "superpixels": superpixels.astype(np.int32)}
    if model.needs_frames:
        frame = np.asarray(batch["frame"])
        if frame.ndim != 4 or frame.shape[0] != size[0] or frame.shape[3] != 3:
            raise ValueError(f"A batch must hold frame ({size[0]}, H, W, 3), found {frame.shape}.")
        inputs["frame"] = frame.astype(np.float32)
    mask = (mask > 0.5).astype(np.float32)
    if not mirror:
        return inputs, mask
    inputs = {name: array[:, :, ::-1] for name, array in inputs.items()}
    inputs["flow"] = inputs["flow"] * np.array([-1, 1], np.float32)
    return inputs, mask[:, :, ::-1]
