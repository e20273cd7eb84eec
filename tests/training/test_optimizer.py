"""Schedules by hand; the update beside Keras's own; groups, clipping and averages by hand."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from msst_keras.model.layers import set_layers
from msst_keras.model.msst import build_msst, get_parts
from msst_keras.model.vgg16 import CONVOLUTIONS
from msst_keras.training.optimizer import Update, learning_rate_at, note_loaded
from msst_keras.training.options import OptimizerOptions


def make_model():
    keras.utils.set_random_seed(0)
    return build_msst("st", width=0.03)


def load_convolutions(model):
    """Loads weights as a VGG16 file without classifier does; returns the ids of the weights that have them."""
    loaded = set()
    for stream in ("spatial", "temporal"):
        network = get_parts(model)[0].get_layer(stream)
        set_layers(network, {name: network.get_layer(name).get_weights() for name in CONVOLUTIONS}, "block1_conv1", "")
        names = CONVOLUTIONS if stream == "spatial" else CONVOLUTIONS[1:]  # of four channels the first is left Gaussian
        loaded |= {id(weight) for name in names for weight in network.get_layer(name).weights}
    return loaded


def make_gradients(variables, seed=0):
    generator = np.random.default_rng(seed)
    return [tf.constant(generator.normal(size=variable.shape), tf.float32) for variable in variables]


def apply(update, gradients, rate):
    if not hasattr(update, "graph"):  # made once for each update: that takes far longer than to run it
        update.graph = tf.function(update.apply)
    return float(update.graph(gradients, tf.constant(rate)))


def values(weights):
    return [weight.numpy() for weight in weights]


def test_schedules_by_hand():
    assert [learning_rate_at(OptimizerOptions(0.5), step, 4) for step in range(4)] == [0.5] * 4
    cosine = OptimizerOptions(2.0, "cosine")
    expected = [2, 1 + math.sqrt(0.5), 1, 1 - math.sqrt(0.5)]
    np.testing.assert_allclose([learning_rate_at(cosine, step, 4) for step in range(4)], expected, rtol=1e-12)
    polynomial = OptimizerOptions(1.0, "polynomial", decay_power=2.0)
    assert [learning_rate_at(polynomial, step, 4) for step in range(4)] == [1, 0.5625, 0.25, 0.0625]
    warm = OptimizerOptions(1.0, "polynomial", warmup_steps=2, decay_power=1.0)
    assert [learning_rate_at(warm, step, 6) for step in range(6)] == [0.5, 1, 1, 0.75, 0.5, 0.25]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"schedule": "step"}, "schedule must be one of constant, cosine, polynomial, not 'step'"),
     ({"learning_rate": -1.0}, "learning_rate must be a number from 0 up"),
     ({"clip_norm": math.inf}, "clip_norm must be a number from 0 up"),
     ({"average_decay": 1.0}, r"average_decay must lie in \[0, 1\), not 1.0")],
)  # fmt: skip
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        OptimizerOptions(**options)


def test_without_options_the_update_is_adams():
    ours, theirs = make_model(), make_model()
    update, adam = Update(ours, OptimizerOptions(0.01)), keras.optimizers.Adam(0.01)
    assert len(update.variables) == len(ours.trainable_variables)
    for step in range(3):
        gradients = make_gradients(ours.trainable_variables, step)
        apply(update, gradients, 0.01)
        adam.apply(gradients, theirs.trainable_variables)
    for found, expected in zip(values(ours.weights), values(theirs.weights), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_clipping_limits_the_norm_of_all_gradients_together():
    clipped, scaled = make_model(), make_model()
    gradients = make_gradients(clipped.trainable_variables)
    norm = math.sqrt(sum(float(np.sum(np.square(gradient, dtype=np.float64))) for gradient in gradients))
    update, other = Update(clipped, OptimizerOptions(clip_norm=norm / 4)), Update(scaled, OptimizerOptions())
    apply(update, gradients, 0.01)
    assert apply(update, gradients, 0.01) == pytest.approx(norm, rel=1e-5)  # the norm before clipping
    for _ in range(2):
        apply(other, [gradient / 4 for gradient in gradients], 0.01)
    for found, expected in zip(values(update.adam.variables), values(other.adam.variables), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("factor", [0.0, 0.5])
def test_the_backbone_has_its_own_rate(factor):
    model, plain = make_model(), make_model()
    backbone = load_convolutions(model)  # fc6 and fc7 have no weights to be kept
    before = values(model.trainable_variables)
    update, other = Update(model, OptimizerOptions(backbone_factor=factor)), Update(plain, OptimizerOptions())
    assert update.groups == {"backbone": factor, "head": 1.0}
    assert (len(update.variables) == len(before)) == (factor > 0)
    gradients = make_gradients(plain.trainable_variables)
    trained = {id(variable) for variable in update.variables}
    apply(update, [g for g, v in zip(gradients, model.trainable_variables, strict=True) if id(v) in trained], 0.01)
    apply(other, gradients, 0.01)
    for weight, old, reference in zip(model.trainable_variables, before, plain.trainable_variables, strict=True):
        share = factor if id(weight) in backbone else 1.0
        np.testing.assert_allclose(weight.numpy() - old, share * (reference.numpy() - old), atol=1e-6)


def test_averages_by_hand_and_the_weights_come_back():
    model = make_model()
    update = Update(model, OptimizerOptions(average_decay=0.75))
    means = values(model.trainable_variables)
    for step in range(3):
        apply(update, make_gradients(model.trainable_variables, step), 0.1)
        weights = values(model.trainable_variables)
        means = [0.75 * mean + 0.25 * weight for mean, weight in zip(means, weights, strict=True)]
    now = values(model.trainable_variables)
    with pytest.raises(KeyError), update.averaged():
        inside = values(model.trainable_variables)
        raise KeyError
    for found, expected in zip(inside, means, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert any((one != other).any() for one, other in zip(inside, now, strict=True))
    for found, expected in zip(values(model.trainable_variables), now, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_backbone_is_also_what_another_run_gave():
    """Of a spatial network alone the temporal stream gets nothing."""
    keras.utils.set_random_seed(0)
    source, model = build_msst("os", width=0.03), make_model()
    note_loaded(model, source)
    frozen = Update(model, OptimizerOptions(backbone_factor=0))
    spatial = {id(weight) for weight in get_parts(model)[0].get_layer("spatial").trainable_variables}
    assert {id(weight) for weight in frozen.variables} == {
        id(weight) for weight in model.trainable_variables if id(weight) not in spatial
    }
    other = make_model()
    note_loaded(other, build_msst("os", width=0.1))  # of other shapes
    with pytest.raises(ValueError, match="--backbone_factor=0.5 is for weights that were loaded, and this network has"):
        Update(other, OptimizerOptions(backbone_factor=0.5))


def test_the_state_of_another_kind_of_update_is_refused(tmp_path):
    model = make_model()
    load_convolutions(model)

    def make(**options):
        return Update(model, OptimizerOptions(**options))

    def write(name, **options):
        return tf.train.Checkpoint(model=model, update=make(**options).state).write(str(tmp_path / name))

    plain, averaged, frozen = write("a"), write("b", average_decay=0.5), write("c", backbone_factor=0.0)
    make(backbone_factor=0.5).check_checkpoint(plain)  # another factor, the same weights
    make(average_decay=0.9).check_checkpoint(averaged)
    make(backbone_factor=0.0).check_checkpoint(frozen)
    with pytest.raises(ValueError, match="a was trained without averaged weights and is to go on with them; repeat"):
        make(average_decay=0.5).check_checkpoint(plain)
    with pytest.raises(ValueError, match="b was trained with averaged weights and is to go on without them; repeat"):
        make().check_checkpoint(averaged)
    for update, prefix in ((make(), frozen), (make(backbone_factor=0.0), plain)):
        with pytest.raises(ValueError, match="Adam's state of other weights .* repeat its --backbone_factor"):
            update.check_checkpoint(prefix)
