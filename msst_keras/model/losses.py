"""The losses of section 3.2, computed from logits: each loss per example, and their weighted sum."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from keras import KerasTensor, ops

from msst_keras.model.options import DEFAULT_MIN_SHARE, DEFAULT_SIDE_WEIGHT

# The side outputs of `topdown.build_fuser` and their strides.
SIDES = {"side32": 32, "side16": 16, "side8": 8, "temporal": 16}


def weighted_cross_entropy(
    logits: KerasTensor,
    labels: KerasTensor,
    alpha: float | str = "balanced",
    sample_weight: KerasTensor | None = None,
    min_share: float = DEFAULT_MIN_SHARE,
) -> KerasTensor:
    """Eq. 7 of each example, divided by its number of pixels.

    The paper sums over pixels. The mean differs from the sum by the factor 1 / (H * W) alone; with it gradients are of
    the same size, and a learning rate means the same, at every image size.

    Args:
        logits: (B, H, W, 1), any float type; computed in float32.
        labels: (B, H, W, 1), 0 or 1, float or bool; 1 is salient. A share between counts as so much of either kind.
        alpha: Weight of salient pixels; non-salient ones weigh 1 - alpha. The paper gives no value. "balanced", the
            default, takes the share of non-salient pixels of each image, so that both kinds weigh the same in sum. A
            number between 0 and 1 is taken as it is.
        sample_weight: None, or (B,): multiplies each example's loss.
        min_share: Of a balanced alpha, which lies between this and 1 minus this, so that the loss of an image is
            continuous where its object's share goes to 0, and no image of one kind is without a loss; see
            `options.DEFAULT_MIN_SHARE`. At 0 alpha is the share itself and .5 for an image of one kind.

    Returns:
        (B,) float32.

    Raises:
        ValueError: Shapes that differ, sample weights that are not (B,), another alpha, or a min_share outside
            [0, .5).
    """
    logits, labels = _prepare(logits, labels)
    if not 0 <= min_share < 0.5:
        raise ValueError(f"min_share must be a number from 0 to below 0.5, found {min_share!r}.")
    if isinstance(alpha, str):
        if alpha != "balanced":
            raise ValueError(f'alpha must be "balanced" or a number between 0 and 1, found {alpha!r}.')
        salient = ops.mean(labels, axis=(1, 2, 3), keepdims=True)
        weight = 1 - ops.clip(salient, min_share, 1 - min_share)
        if not min_share:
            weight = ops.where(ops.logical_or(salient <= 0, salient >= 1), 0.5, weight)
    elif not 0 < alpha < 1:
        raise ValueError(f'alpha must be "balanced" or a number between 0 and 1, found {alpha!r}.')
    else:
        weight = alpha
    # -log sigmoid(x) = softplus(-x), which neither overflows nor loses small values
    pixels = weight * labels * ops.softplus(-logits) + (1 - weight) * (1 - labels) * ops.softplus(logits)
    return _weigh(ops.mean(pixels, axis=(1, 2, 3)), sample_weight)


def soft_iou_loss(logits: KerasTensor, labels: KerasTensor, sample_weight: KerasTensor | None = None) -> KerasTensor:
    """1 - intersection / union of the probabilities and the labels of each example; not in the paper.

    Balanced cross-entropy alone rewards halos round an object; this punishes them. One pixel is added to intersection
    and union, so that an image without salient pixels has a loss that falls to 0 with its probabilities.

    A label that is a share, as those of side outputs are, is taken as the chance that its cell is salient: p g and
    p + g - p g are then the chances that both, and that either, are. So a map that equals such labels does not have the
    least loss: that has a map of 0 and 1 alone, where the share is above a bound of 1 / 2 at most.

    Args:
        logits: (B, H, W, 1), any float type; computed in float32.
        labels: (B, H, W, 1), 0 or 1, or a share between; float or bool.
        sample_weight: None, or (B,): multiplies each example's loss.

    Returns:
        (B,) float32 in 0..1, before the sample weights.

    Raises:
        ValueError: Shapes that differ, or sample weights that are not (B,).
    """
    logits, labels = _prepare(logits, labels)
    probabilities = ops.sigmoid(logits)
    intersection = ops.sum(probabilities * labels, axis=(1, 2, 3))
    union = ops.sum(probabilities + labels - probabilities * labels, axis=(1, 2, 3))
    return _weigh(1 - (intersection + 1) / (union + 1), sample_weight)


def joint_loss(
    outputs: Mapping[str, KerasTensor],
    labels: KerasTensor,
    alpha: float | str = "balanced",
    beta: float = 0.1,
    region_weight: float = 0.0,
    sample_weight: KerasTensor | None = None,
    side_weight: float = DEFAULT_SIDE_WEIGHT,
    min_share: float = DEFAULT_MIN_SHARE,
) -> dict[str, KerasTensor]:
    """Eq. 8: L = L_f(S, G) + beta * L_r(R, G) + side_weight * the sides' losses, the mean over a batch's examples.

    Args:
        outputs: {"fused": (B, H, W, 1)[, "recurrent": (B, H, W, 1)][, side outputs: (B, h, w, 1)]} logits, as the
            models of `build_msst` give.
        labels: (B, H, W, 1), 0 or 1, float or bool.
        alpha: See `weighted_cross_entropy`.
        beta: Weight of the ConvLSTM's own loss, .1 in the paper.
        region_weight: Adds that many `soft_iou_loss` to each cross-entropy; 0, the default, is the paper.
        sample_weight: None, or (B,): multiplies each example's loss. The sum is divided by B, not by the sum of the
            weights, which would cancel the weight in a batch of one. So the mean over replicas with equal shares of a
            batch is the loss of the whole batch.
        side_weight: Weight of each side output's loss. Its labels are the share of salient pixels in each of its cells,
            also for `soft_iou_loss`, which drives such a cell to 0 or 1.
            The paper's network has no side outputs, so there this weight has no effect.
        min_share: See `weighted_cross_entropy`.

    Returns:
        {"loss", "loss_fused", "loss_recurrent"[, "loss_sides"]}: float32 scalars, the last two before their weights;
        "loss_recurrent" is 0 where the outputs have no "recurrent"; "loss_sides" is there only if they have sides.

    Raises:
        ValueError: Shapes that differ, sample weights that are not (B,), another alpha, or a beta, region_weight or
            side_weight that is negative or not finite.
    """
    for name, value in {"beta": beta, "region_weight": region_weight, "side_weight": side_weight}.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a number from 0 up, found {value!r}.")

    def mean_loss(logits: KerasTensor, labels: KerasTensor = labels) -> KerasTensor:
        """The loss of one map, a scalar: the mean over the batch."""
        loss = weighted_cross_entropy(logits, labels, alpha, sample_weight, min_share)
        if region_weight:
            loss = loss + region_weight * soft_iou_loss(logits, labels, sample_weight)
        return ops.mean(loss)

    fused = mean_loss(outputs["fused"])
    recurrent = mean_loss(outputs["recurrent"]) if "recurrent" in outputs else ops.zeros((), "float32")
    losses = {"loss": fused + beta * recurrent, "loss_fused": fused, "loss_recurrent": recurrent}
    if names := list_sides(outputs):
        sides = sum(mean_loss(outputs[name], _shrink(labels, SIDES[name])) for name in names)
        losses |= {"loss": losses["loss"] + side_weight * sides, "loss_sides": sides}
    return losses


def list_sides(outputs: Collection[str]) -> list[str]:
    """The names of the side outputs among a model's outputs."""
    return [name for name in SIDES if name in outputs]


def _shrink(labels: KerasTensor, stride: int) -> KerasTensor:
    """The share of salient pixels in each cell of `stride` pixels a side."""
    return ops.average_pool(ops.cast(labels, "float32"), stride, strides=stride)


def _prepare(logits: KerasTensor, labels: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
    shapes = tuple(logits.shape), tuple(labels.shape)
    fits = len(shapes[0]) == len(shapes[1]) == 4
    if not fits or any(None not in pair and pair[0] != pair[1] for pair in zip(*shapes, strict=True)):
        raise ValueError(f"Expected logits and labels of one shape (B, H, W, 1), found {shapes[0]} and {shapes[1]}.")
    return ops.cast(logits, "float32"), ops.cast(labels, "float32")


def _weigh(losses: KerasTensor, sample_weight: KerasTensor | None) -> KerasTensor:
    if sample_weight is None:
        return losses
    weights = ops.convert_to_tensor(sample_weight, "float32")
    (batch,), found = losses.shape, tuple(weights.shape)
    # (B, 1) would give (B, B), and one number each example the same weight. A size may be unknown in a graph.
    if len(found) != 1 or (None not in (batch, *found) and found != (batch,)):
        raise ValueError(f"Expected sample weights of shape (B,), here ({batch},), found {found}.")
    return losses * weights
