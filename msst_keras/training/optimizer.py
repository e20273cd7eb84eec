"""The update of the weights: learning-rate schedules and groups, clipping, Adam, and averaged weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

from msst_keras.model.msst import get_parts
from msst_keras.training.options import OptimizerOptions


def learning_rate_at(options: OptimizerOptions, step: int, num_steps: int) -> float:
    """The learning rate of step number `step` (from 0) of `num_steps`: a pure function, so a resumed run has the same.

    The last warm-up step has the full rate, and the schedule's progress counts from there to `num_steps`.
    """
    if step < options.warmup_steps:
        return options.learning_rate * (step + 1) / options.warmup_steps
    progress = (step - options.warmup_steps) / max(1, num_steps - options.warmup_steps)
    factor = {
        "constant": 1.0,
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
        "polynomial": (1 - progress) ** options.decay_power,
    }[options.schedule]
    return options.learning_rate * factor


class Update:
    """Adam on the weights of a model of `build_msst`, and the averages of them. Make it in the strategy's scope.

    Attributes:
      groups: group of weights -> factor of its learning rate. "backbone" is what ImageNet has trained: the streams but
        for the temporal one's first convolution; "head" is all else.
      variables: the weights that are trained, those of a factor above 0, in the model's order.
      averages: averaged weights, one per trainable weight of the model; [] without.
      state: of Adam and the averages, for checkpoints.
    """

    def __init__(self, model: keras.Model, options: OptimizerOptions):
        self._options, self._weights = options, list(model.trainable_variables)
        self.groups = {"backbone": options.backbone_factor, "head": 1.0}
        backbone = _find_backbone(model)
        factors = [self.groups["backbone" if id(weight) in backbone else "head"] for weight in self._weights]
        self.variables = [weight for weight, factor in zip(self._weights, factors, strict=True) if factor > 0]
        self._factors = [factor for factor in factors if factor > 0]
        self.adam = keras.optimizers.Adam(options.learning_rate)
        self.adam.build(self.variables)
        self.averages = []
        if options.average_decay:
            self.averages = [tf.Variable(weight.value, trainable=False) for weight in self._weights]
        self.state = tf.train.Checkpoint(adam=self.adam, averages=self.averages)

    def apply(self, gradients: Sequence[tf.Tensor], learning_rate: tf.Tensor) -> tf.Tensor:
        """Changes the weights, in the replica context of a graph.

        Not through Adam's own `apply`: under tf.distribute that clips each replica's gradients before it sums them.

        Args:
          gradients: of `variables`, summed over the replicas already (the same on each).
          learning_rate: float32 scalar, before the groups' factors.

        Returns:
          the gradients' global norm before clipping, float32 scalar.
        """
        norm = tf.linalg.global_norm(gradients)
        if self._options.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self._options.clip_norm, use_norm=norm)
        context = tf.distribute.get_replica_context()
        rates = {factor: learning_rate * factor for factor in set(self._factors)}
        context.merge_call(self._update, args=(list(gradients), [rates[factor] for factor in self._factors]))
        return norm

    def _update(self, strategy, gradients, rates):
        def step(variable, gradient, rate):
            return self.adam.update_step(gradient, variable, rate)

        def average(mean, weight):
            return mean.assign_sub((1 - self._options.average_decay) * (mean - weight))

        for variable, gradient, rate in zip(self.variables, gradients, rates, strict=True):
            strategy.extended.update(variable.value, step, args=(gradient, rate), group=False)
        for mean, weight in zip(self.averages, self._weights, strict=False):
            strategy.extended.update(mean, average, args=(weight.value,), group=False)
        self.adam.iterations.assign_add(1)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model's weights are the averages, if there are any; then they are what they were."""
        kept = [weight.numpy() for weight in self._weights] if self.averages else []
        for weight, mean in zip(self._weights, self.averages, strict=False):
            weight.assign(mean)
        try:
            yield
        finally:
            for weight, value in zip(self._weights, kept, strict=False):
                weight.assign(value)


def _find_backbone(model) -> set[int]:
    encoder, _ = get_parts(model)
    backbone = set()
    for stream in ("spatial", "temporal"):
        if stream not in {layer.name for layer in encoder.layers}:
            continue
        layers = [layer for layer in encoder.get_layer(stream).layers if layer.trainable_variables]
        if stream == "temporal":
            first = next(layer for layer in layers if len(layer.trainable_variables[0].shape) == 4)
            layers.remove(first)
        backbone |= {id(weight) for layer in layers for weight in layer.trainable_variables}
    return backbone
