from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from keras import ops

from msst_keras.model.losses import joint_loss, soft_iou_loss, weighted_cross_entropy

LOG3 = math.log(3)  # the logit of 3/4


def image(values):
    return np.array(values, np.float32).reshape(1, 2, 2, 1)


# Probabilities 3/4, 1/2, 1/4, 1/2 against one salient pixel.
LOGITS = image([LOG3, 0, -LOG3, 0])
LABELS = image([1, 0, 0, 0])
# Eq. 7: -log(3/4) for the salient pixel; -log(1/2) - log(3/4) - log(1/2) for the others.
SALIENT = math.log(4 / 3)
REST = 2 * math.log(2) + math.log(4 / 3)


def test_eq_7_by_hand():
    for alpha, expected in ((0.5, 0.5 * SALIENT + 0.5 * REST), (0.9, 0.9 * SALIENT + 0.1 * REST)):
        loss = weighted_cross_entropy(LOGITS, LABELS, alpha)
        np.testing.assert_allclose(np.asarray(loss), [expected / 4], atol=1e-6)


def test_balanced_alpha_is_the_share_of_non_salient_pixels_of_each_image():
    other = np.concatenate([LOGITS, LOGITS]), np.concatenate([LABELS, 1 - LABELS])
    loss = weighted_cross_entropy(*other)
    # second image: three salient pixels of probability 1/2, 1/4, 1/2, weight 1/4; one non-salient of 3/4
    second = 0.25 * (2 * math.log(2) + math.log(4)) + 0.75 * math.log(4)
    np.testing.assert_allclose(np.asarray(loss), [(0.75 * SALIENT + 0.25 * REST) / 4, second / 4], atol=1e-6)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize(("min_share", "weight"), [(0, 0.5), (0.01, 0.01), (0.2, 0.2)])
def test_image_of_one_kind_still_has_a_loss(label, min_share, weight):
    loss = weighted_cross_entropy(image([0] * 4), image([label] * 4), min_share=min_share)
    np.testing.assert_allclose(np.asarray(loss), [weight * math.log(2)], atol=1e-6)


def weigh(num_salient, **arguments):
    """The loss of an image of a thousand pixels, all logits 0, in units of log 2: what the image weighs."""
    labels = (np.arange(1000) < num_salient).astype(np.float32).reshape(1, 25, 40, 1)
    return float(weighted_cross_entropy(np.zeros_like(labels), labels, **arguments)[0]) / math.log(2)


def test_an_image_without_object_weighs_no_more_than_one_with_a_small_one():
    """The gradient at the start is half of that."""
    empty, tiny, small, usual = (weigh(count) for count in (0, 2, 10, 80))
    assert empty == pytest.approx(0.01, rel=1e-4)
    assert empty < tiny < small < usual == pytest.approx(2 * 0.08 * 0.92, rel=1e-4)
    assert tiny == pytest.approx(0.99 * 0.002 + 0.01 * 0.998, rel=1e-4)
    assert small == pytest.approx(2 * 0.01 * 0.99, rel=1e-4)
    # Continuous where the object leaves, and likewise where it fills the image; the share itself jumps there.
    assert weigh(1) - empty < 0.11 * empty and weigh(999) - weigh(1000) < 0.11 * empty
    assert weigh(0, min_share=0) / weigh(2, min_share=0) == pytest.approx(125, rel=0.01)
    assert weigh(0, alpha=0.3) == pytest.approx(0.7, rel=1e-4)  # a number is what it is


@pytest.mark.parametrize("min_share", [-0.1, 0.5, float("nan")])
def test_wrong_min_share_is_refused(min_share):
    with pytest.raises(ValueError, match="min_share must be a number from 0 to below 0.5, found"):
        joint_loss({"fused": LOGITS}, LABELS, min_share=min_share)


def test_image_size_does_not_change_the_loss():
    tiled = (np.tile(array, (1, 3, 5, 1)) for array in (LOGITS, LABELS))
    np.testing.assert_allclose(weighted_cross_entropy(*tiled), weighted_cross_entropy(LOGITS, LABELS), rtol=1e-6)


def test_soft_iou_by_hand():
    # intersection 3/4; union 1 + (1/2 + 1/4 + 1/2); one pixel added to both
    np.testing.assert_allclose(np.asarray(soft_iou_loss(LOGITS, LABELS)), [1 - 1.75 / 3.25], atol=1e-6)
    perfect = soft_iou_loss(np.where(LABELS == 1, 50, -50).astype(np.float32), LABELS)
    np.testing.assert_allclose(np.asarray(perfect), [0], atol=1e-6)
    empty = [float(soft_iou_loss(image([x] * 4), image([0] * 4))[0]) for x in (0, -2, -50)]
    assert empty[0] > empty[1] > empty[2] >= 0 and empty[2] < 1e-6


def test_eq_8_by_hand():
    outputs = {"fused": LOGITS, "recurrent": image([0] * 4)}
    fused, recurrent = (0.9 * SALIENT + 0.1 * REST) / 4, (0.9 + 3 * 0.1) * math.log(2) / 4
    expected = {"loss": fused + 0.1 * recurrent, "loss_fused": fused, "loss_recurrent": recurrent}
    found = joint_loss(outputs, LABELS, alpha=0.9)
    assert sorted(found) == sorted(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(float(found[key]), value, atol=1e-6)
    np.testing.assert_allclose(
        float(joint_loss(outputs, LABELS, alpha=0.9, beta=0.5)["loss"]), fused + 0.5 * recurrent, atol=1e-6
    )


def test_without_recurrent_map_its_loss_is_zero():
    found = joint_loss({"fused": LOGITS}, LABELS)
    assert float(found["loss_recurrent"]) == 0
    assert float(found["loss"]) == float(found["loss_fused"]) > 0


def test_region_weight_adds_to_both_losses():
    outputs = {"fused": LOGITS, "recurrent": image([0] * 4)}
    plain, region = joint_loss(outputs, LABELS), joint_loss(outputs, LABELS, region_weight=2)
    for key, logits in (("loss_fused", "fused"), ("loss_recurrent", "recurrent")):
        expected = float(plain[key]) + 2 * float(soft_iou_loss(outputs[logits], LABELS)[0])
        np.testing.assert_allclose(float(region[key]), expected, rtol=1e-6)


def test_sample_weights_multiply_and_are_not_divided_out():
    logits, labels = np.concatenate([LOGITS, -LOGITS]), np.concatenate([LABELS, LABELS])
    each = np.asarray(weighted_cross_entropy(logits, labels))
    assert each[0] != each[1]
    weights = np.array([0.5, 0.25], np.float32)
    found = joint_loss({"fused": logits}, labels, sample_weight=weights)["loss"]
    np.testing.assert_allclose(float(found), (0.5 * each[0] + 0.25 * each[1]) / 2, rtol=1e-6)
    single = joint_loss({"fused": LOGITS}, LABELS, sample_weight=weights[:1])["loss"]
    np.testing.assert_allclose(float(single), 0.5 * each[0], rtol=1e-6)
    region = np.asarray(soft_iou_loss(logits, labels))
    np.testing.assert_allclose(np.asarray(soft_iou_loss(logits, labels, weights)), weights * region, rtol=1e-6)


def test_shares_of_a_batch_average_to_the_batch():
    generator = np.random.default_rng(0)
    outputs = {key: generator.normal(size=(4, 3, 5, 1)).astype(np.float32) for key in ("fused", "recurrent")}
    labels, weights = generator.uniform(size=(4, 3, 5, 1)) > 0.6, np.array([1, 0.3, 0, 2], np.float32)
    whole = joint_loss(outputs, labels, sample_weight=weights)["loss"]
    shares = [
        joint_loss({key: value[part] for key, value in outputs.items()}, labels[part], sample_weight=weights[part])
        for part in (slice(0, 2), slice(2, 4))
    ]
    np.testing.assert_allclose(float(whole), np.mean([float(share["loss"]) for share in shares]), rtol=1e-6)


def test_bool_labels_and_low_precision_logits_give_float32():
    logits = ops.cast(LOGITS, "bfloat16")
    found = joint_loss({"fused": logits}, LABELS.astype(bool), region_weight=1.0)
    assert {keras.backend.standardize_dtype(value.dtype) for value in found.values()} == {"float32"}
    expected = joint_loss({"fused": np.asarray(ops.cast(logits, "float32"))}, LABELS, region_weight=1.0)
    np.testing.assert_allclose(float(found["loss"]), float(expected["loss"]), rtol=1e-6)


def test_huge_logits_keep_loss_and_gradient_finite():
    tf = pytest.importorskip("tensorflow")
    logits = tf.constant(image([1e4, -1e4, 1e4, -1e4]))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = joint_loss({"fused": logits}, image([1, 1, 0, 0]), region_weight=1.0)["loss"]
    gradient = np.ravel(tape.gradient(loss, logits))
    # two of four pixels wrong by 1e4, weight 1/2; soft IoU 1 - (1 + 1) / (3 + 1)
    np.testing.assert_allclose(float(loss), 2 * 0.5 * 1e4 / 4 + 0.5, rtol=1e-6)
    np.testing.assert_allclose(gradient, [0, -0.125, 0.125, 0], atol=1e-6)


@pytest.mark.parametrize("alpha", ["equal", 0, 1.0, -0.5, float("nan")])
def test_wrong_alpha_is_refused(alpha):
    with pytest.raises(ValueError, match='alpha must be "balanced" or a number between 0 and 1, found'):
        weighted_cross_entropy(LOGITS, LABELS, alpha)


@pytest.mark.parametrize("argument", ["beta", "region_weight"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_negative_weights_are_refused(argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be a number from 0 up, found"):
        joint_loss({"fused": LOGITS}, LABELS, **{argument: value})


@pytest.mark.parametrize("loss", [weighted_cross_entropy, soft_iou_loss])
@pytest.mark.parametrize("labels", [LABELS[..., 0], LABELS[:, :1], LABELS[0]])
def test_labels_of_another_shape_are_refused(loss, labels):
    with pytest.raises(ValueError, match=r"one shape \(B, H, W, 1\), found \(1, 2, 2, 1\) and"):
        loss(LOGITS, labels)


def test_the_labels_of_a_side_output_are_the_shares_of_its_cells():
    """One cell of 8x8 pixels, a quarter salient, at logit log 3: -log(3/4) for that quarter, -log(1/4) for the rest."""
    labels = np.zeros((1, 8, 8, 1), np.float32)
    labels[:, :4, :4] = 1
    outputs = {"fused": np.zeros_like(labels), "side8": np.full((1, 1, 1, 1), LOG3, np.float32)}
    found = joint_loss(outputs, labels, alpha=0.5)["loss_sides"]
    np.testing.assert_allclose(float(found), 0.5 * (0.25 * math.log(4 / 3) + 0.75 * math.log(4)), rtol=1e-6)
    region = joint_loss(outputs, labels, alpha=0.5, region_weight=1)["loss_sides"]
    # intersection 3/4 * 1/4, union 3/4 + 1/4 - 3/16, one pixel added to both
    np.testing.assert_allclose(float(region - found), 1 - (3 / 16 + 1) / (13 / 16 + 1), rtol=1e-5)


@pytest.mark.parametrize("loss", [weighted_cross_entropy, soft_iou_loss])
@pytest.mark.parametrize("shape", [(), (1,), (2, 1), (1, 2), (3,)])
def test_sample_weights_of_another_shape_are_refused(loss, shape):
    logits, labels = np.concatenate([LOGITS, -LOGITS]), np.concatenate([LABELS, LABELS])
    with pytest.raises(ValueError, match=r"sample weights of shape \(B,\), here \(2,\), found \("):
        loss(logits, labels, sample_weight=np.ones(shape, np.float32))


def test_sample_weights_of_a_size_unknown_in_the_graph_are_taken():
    tf = pytest.importorskip("tensorflow")
    image_spec, weight_spec = tf.TensorSpec((None, 2, 2, 1)), tf.TensorSpec((None,))
    graph = tf.function(lambda x, y, w: soft_iou_loss(x, y, w), input_signature=[image_spec, image_spec, weight_spec])
    found = graph(LOGITS, LABELS, np.array([0.5], np.float32))
    np.testing.assert_allclose(found, [0.5 * (1 - 1.75 / 3.25)], rtol=1e-6)
    column = tf.TensorSpec((None, 1))
    with pytest.raises(ValueError, match=r"sample weights of shape \(B,\), here \(None,\), found \(None, 1\)"):
        tf.function(soft_iou_loss).get_concrete_function(image_spec, image_spec, column)
