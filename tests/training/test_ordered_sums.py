"""No sum of a step has an order that depends on when other operations end.

Such a sum shows itself in the last bits alone, and only now and then: the graph that TensorFlow really runs tells more.
"""

from __future__ import annotations

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from msst_keras.model.msst import build_msst
from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.prior import MotionPrior
from msst_keras.motion.prior_training import train_prior
from msst_keras.motion.superpixels import SuperpixelSettings
from msst_keras.ordered_sums import find_gradients, ordered_sums
from msst_keras.training import loop
from msst_keras.training.options import OptimizerOptions, StepOptions, TrainingOptions

LIGHT = {"variant": "st", "backbone": "efficientnet_lite0", "motion_input": "flow", "decoder": "topdown"}
LIGHT |= {"fusion": "gated"}
PAPER = {"variant": "msst", "backbone": "vgg16", "num_frames": 3}


@contextlib.contextmanager
def collected_graphs():
    """A list that holds, after the block, all nodes of the graphs that ran in it, as they were optimized."""
    nodes = []
    context.context().enable_graph_collection()
    try:
        yield nodes
        for graphs in context.context().export_run_metadata().function_graphs:
            whole = graphs.post_optimization_graph
            nodes += [*whole.node, *(node for function in whole.library.function for node in function.node_def)]
    finally:
        context.context().disable_graph_collection()


def list_long_sums(nodes):
    return [node.name for node in nodes if node.op.startswith("AddN") and node.attr["N"].i > 2]


def make_batch(model):
    generator = np.random.default_rng(0)
    length = model.input["frames"].shape[1] or 1
    channels = model.input["prior"].shape[-1]
    return {
        "frames": generator.uniform(0, 255, (2, length, 64, 64, 3)).astype("float32"),
        "prior": generator.uniform(0, 1, (2, length, 64, 64, channels)).astype("float32"),
        "mask": (generator.uniform(size=(2, 64, 64, 1)) > 0.5).astype("float32"),
        "clip": np.array([0, 1]),
    }


@pytest.mark.parametrize(
    ("settings", "step"),
    [
        (LIGHT, StepOptions(accumulation_steps=2)),
        (PAPER, StepOptions()),
        (PAPER, StepOptions(recompute=True)),
    ],
)
def test_a_step_of_training_has_no_sum_of_three(tmp_path, settings, step):
    keras.utils.set_random_seed(0)
    model = build_msst(**settings, width=0.125)
    batch = {name: tf.constant(value) for name, value in make_batch(model).items()}
    options = TrainingOptions(steps=1, optimizer=OptimizerOptions(clip_norm=1.0, average_decay=0.9), step=step)
    with collected_graphs() as nodes:
        loop.train(model, lambda _: [batch], ("a", "b"), tmp_path, options)
    assert any(node.op == "AssignSubVariableOp" for node in nodes)  # the step is among them
    assert not list_long_sums(nodes)


def test_a_step_of_the_prior_has_no_sum_of_three():
    keras.utils.set_random_seed(0)
    settings = SuperpixelSettings()
    model = MotionPrior(FlowSettings(motion_size=(48, 64)), settings, "mobilenetv2", width=0.35)
    generator = np.random.default_rng(0)
    mask = np.zeros((1, 48, 64), bool)
    mask[:, 10:30, 10:30] = True
    labels = np.broadcast_to(np.arange(12).repeat(4)[None, :, None, None], (1, 48, 64, settings.num_levels))
    flow = generator.normal(size=(1, 48, 64, 2)).astype("float32") + 3 * mask[..., None]
    with collected_graphs() as nodes:
        train_prior([{"flow": flow, "superpixels": labels.astype("int32"), "mask": mask}], model, steps=1)
    assert any(node.op == "AssignSubVariableOp" for node in nodes)
    assert not list_long_sums(nodes)


def test_gradients_are_those_of_a_tape():
    values = [tf.Variable([0.5, -2.0, 3.0]), tf.Variable(1.5), tf.Variable(7.0)]

    @tf.function(autograph=False)
    def compute():
        with tf.GradientTape() as tape:
            middle = values[0] * values[0]
            outputs = [tf.sin(middle) + values[1], tf.exp(-middle) * values[1], tf.tanh(middle)]
        ahead = [tf.constant([1.0, 2.0, 3.0]) * number for number in (1.0, -1.0, 0.5)]
        expected = tape.gradient(outputs, values, ahead)
        behind = find_gradients(outputs, [middle, *values[:2]], ahead, stop=[middle])
        return expected[:2], find_gradients(outputs, values, ahead)[:2], behind[:1], behind[1] is None

    with ordered_sums():
        expected, found, (of_middle,), is_stopped = compute()
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-6)
    np.testing.assert_allclose(2 * values[0] * of_middle, expected[0], rtol=1e-6)
    assert is_stopped  # nothing before what is a constant has a gradient through it


def test_the_graph_is_optimized_as_before_afterwards():
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": True})
    with ordered_sums():
        assert tf.config.optimizer.get_experimental_options()["arithmetic_optimization"] is False
    assert tf.config.optimizer.get_experimental_options()["arithmetic_optimization"] is True
