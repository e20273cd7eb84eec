"""The update of the weights: learning-rate schedules and groups, clipping, Adam, and averaged weights."""

from __future__ import annotations

import contextlib
import itertools
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

    Raises ValueError where the options have a backbone factor and no weight was loaded that it could be for.

    Attributes:
      groups: group of weights -> factor of its learning rate. "backbone" is what was loaded into the streams, from
        `--weights` or from another run, but for the temporal one's first convolution, whose image is no photograph;
        "head" is all else: also fc6 and fc7 of a VGG16 that came without its classifier, which frozen would stay noise.
      variables: the weights that are trained, those of a factor above 0, in the model's order.
      averages: averaged weights, one per trainable weight of the model; [] without.
      state: of Adam and the averages, for checkpoints.
    """

    def __init__(self, model: keras.Model, options: OptimizerOptions):
        self._options, self._weights = options, list(model.trainable_variables)
        self.groups = {"backbone": options.backbone_factor, "head": 1.0}
        backbone = _find_backbone(model)
        if options.backbone_factor != 1 and not backbone:
            raise ValueError(
                f"--backbone_factor={options.backbone_factor:g} is for weights that were loaded, and this network has "
                "none; give --weights or --init_from, or leave out the flag"
            )
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
        number = tf.cast(self.adam.iterations.value + 1, tf.float32)
        mean, square = 1 - tf.pow(self.adam.beta_1, number), 1 - tf.pow(self.adam.beta_2, number)
        rates = {factor: learning_rate * factor * tf.sqrt(square) / mean for factor in set(self._factors)}
        context.merge_call(self._update, args=(list(gradients), [rates[factor] for factor in self._factors]))
        return norm

    def _update(self, strategy: tf.distribute.Strategy, gradients: list[tf.Tensor], rates: list[tf.Tensor]) -> None:
        """Does what Keras's Adam does, to the bit. That corrects the rate for each weight anew, in a larger graph.

        The rates are corrected already: by the bias of the means, which begin at 0.
        """
        adam = self.adam

        def step(
            variable: tf.Variable, mean: tf.Variable, square: tf.Variable, gradient: tf.Tensor, rate: tf.Tensor
        ) -> tf.Tensor:
            """Adam's step of one weight."""
            mean.assign_add((gradient - mean) * (1 - adam.beta_1))
            square.assign_add((tf.square(gradient) - square) * (1 - adam.beta_2))
            return variable.assign_sub(mean * rate / (tf.sqrt(square) + adam.epsilon))

        def average(mean: tf.Variable, weight: tf.Tensor) -> tf.Tensor:
            """Moves the mean of one weight."""
            return mean.assign_sub((1 - self._options.average_decay) * (mean - weight))

        moments = zip(adam._momentums, adam._velocities, strict=True)
        for variable, (mean, square), gradient, rate in zip(self.variables, moments, gradients, rates, strict=True):
            arguments = mean.value, square.value, gradient, rate
            strategy.extended.update(variable.value, step, args=arguments, group=False)
        for mean, weight in zip(self.averages, self._weights, strict=False):
            strategy.extended.update(mean, average, args=(weight.value,), group=False)
        adam.iterations.assign_add(1)

    def check_checkpoint(self, prefix: str) -> None:
        """Checks that a checkpoint's state is of an update like this one.

        TensorFlow restores it by position: Adam's moments would go to other weights where their shapes allow it.

        Raises:
          ValueError: other weights were trained, or averages were kept and are not now, or the reverse.
        """
        shapes = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()

        def list_shapes(name: str) -> list[tuple[int, ...]]:
            """The shapes of the variables of this name in the checkpoint."""
            keys = (f"update/{name}/{number}/.ATTRIBUTES/VARIABLE_VALUE" for number in itertools.count())
            return [tuple(shapes[key]) for key in itertools.takewhile(shapes.__contains__, keys)]

        if bool(list_shapes("averages")) != bool(self.averages):
            now, then = ("with", "without") if self.averages else ("without", "with")
            raise ValueError(
                f"{prefix} was trained {then} averaged weights and is to go on {now} them; repeat its --average_decay, "
                "or start another run from it by --init_from"
            )
        if list_shapes("adam/_trainable_variables") != [tuple(variable.shape) for variable in self.variables]:
            raise ValueError(
                f"{prefix} has Adam's state of other weights than those that are to be trained now; repeat its "
                "--backbone_factor (0 freezes) and --weights, or start another run from it by --init_from"
            )

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


def note_loaded(model: keras.Model, source: keras.Model) -> None:
    """Notes which layers of a model's streams have the weights of `source`'s (see `run_dir.transfer_weights`)."""
    theirs = _list_streams(source)
    for stream, layers in _list_streams(model).items():
        shapes = {layer.name: _shapes(layer) for layer in theirs.get(stream, ())}
        for layer in layers:
            if layer.weights and shapes.get(layer.name) == _shapes(layer):
                layer.is_loaded = True


def _find_backbone(model: keras.Model) -> set[int]:
    """The ids of the weights that are "backbone"; see `Update.groups`."""
    backbone = set()
    for stream, layers in _list_streams(model).items():
        layers = [layer for layer in layers if layer.trainable_variables]
        if stream == "temporal":
            first = next(layer for layer in layers if len(layer.trainable_variables[0].shape) == 4)
            layers.remove(first)
        loaded = [layer for layer in layers if getattr(layer, "is_loaded", False)]
        backbone |= {id(weight) for layer in loaded for weight in layer.trainable_variables}
    return backbone


def _list_streams(model: keras.Model) -> dict[str, list[keras.layers.Layer]]:
    encoder, _ = get_parts(model)
    streams = [layer for layer in encoder.layers if layer.name in ("spatial", "temporal")]
    return {stream.name: list(stream.layers) for stream in streams}


def _shapes(layer: keras.layers.Layer) -> list[tuple]:
    return [tuple(weight.shape) for weight in layer.weights]
