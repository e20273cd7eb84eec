"""One step of training: the gradients of a global batch, in as many parts as replicas and accumulation ask for."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from msst_keras.model.losses import joint_loss, list_sides
from msst_keras.model.msst import get_parts
from msst_keras.ordered_sums import find_gradients
from msst_keras.training.optimizer import Update
from msst_keras.training.options import StepOptions
from msst_keras.training.strategy import Devices

# A model's outputs and the batch that they are of -> the losses, each divided by the number of parts.
LossOf = Callable[[dict[str, tf.Tensor], dict[str, tf.Tensor]], dict[str, tf.Tensor]]
Sums = tuple[dict[str, tf.Tensor], list[tf.Tensor]]  # of the losses, and of the gradients


def make_step(
    model: keras.Model, update: Update, options: StepOptions, devices: Devices
) -> Callable[[dict[str, tf.Tensor], tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]:
    """Returns a graph (batch, learning_rate, stop) -> scalars, traced once per image size.

    The batch comes from `Devices.scatter`: "frames", "prior", "mask" as in `batches.training_batches`, and "weight"
    (B,) if examples have different weights. The losses are means over the global batch, and the gradient is that of the
    loss. `stop` is summed over all replicas, so that every process learns of a signal that one of them got.

    Returns:
      a function that gives {"loss", "loss_fused", "loss_recurrent"[, "loss_sides"], "gradient_norm", "stop"}, float32
      scalars, the same in all processes. The losses are those of the weights before the step.
    """
    compute = _add_recomputed_gradients if options.recompute else _add_gradients
    num_parts = devices.num_replicas * options.accumulation_steps
    names = ("loss", "loss_fused", "loss_recurrent", *(["loss_sides"] if list_sides(model.output) else []))

    @tf.function(jit_compile=options.xla, reduce_retracing=False, autograph=False)
    def sum_gradients(batch: dict[str, tf.Tensor]) -> Sums:
        """Sums of the losses and gradients of a device's batch, part by part."""

        def loss_of(outputs: dict[str, tf.Tensor], part: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            """The losses of one part, each divided by the number of parts of the whole batch."""
            losses = joint_loss(
                outputs, part["mask"], options.alpha, options.beta, options.region_weight, part.get("weight"),
                options.side_weight, options.min_share,
            )  # fmt: skip
            return {name: value / num_parts for name, value in losses.items()}

        size = batch["mask"].shape[0] // options.accumulation_steps
        if size * options.accumulation_steps != batch["mask"].shape[0]:  # clips would be left out without a word
            raise ValueError(
                f"a device's {batch['mask'].shape[0]} clips do not divide into {options.accumulation_steps} parts"
            )
        sums = {name: tf.zeros(()) for name in names}
        state = (tf.constant(0), sums, [tf.zeros(variable.shape) for variable in update.variables])
        if options.accumulation_steps == 1:
            return compute(model, update.variables, batch, loss_of, *state[1:])

        def add(
            part: tf.Tensor, sums: dict[str, tf.Tensor], gradients: list[tf.Tensor]
        ) -> tuple[tf.Tensor, dict[str, tf.Tensor], list[tf.Tensor]]:
            """Adds the losses and gradients of the next part."""
            first = part * size
            rows = {name: value[first : first + size] for name, value in batch.items()}
            return part + 1, *compute(model, update.variables, rows, loss_of, sums, gradients)

        _, sums, gradients = tf.while_loop(
            lambda part, *_: part < options.accumulation_steps, add, state, parallel_iterations=1
        )
        return sums, gradients

    def replica_step(batch: dict[str, tf.Tensor], learning_rate: tf.Tensor, stop: tf.Tensor) -> dict[str, tf.Tensor]:
        """What each device does with its share of the batch."""
        losses, gradients = sum_gradients(batch)
        context = tf.distribute.get_replica_context()
        stop = tf.identity(stop)  # puts it on the replica's device, where the reduction needs it
        losses, stop, gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, (losses, stop, gradients))
        return {**losses, "gradient_norm": update.apply(gradients, learning_rate), "stop": stop}

    @tf.function(autograph=False)
    def step(batch: dict[str, tf.Tensor], learning_rate: tf.Tensor, stop: tf.Tensor) -> dict[str, tf.Tensor]:
        """One step on all devices; gives the losses, the gradient's norm and the sum of `stop`."""
        results = devices.strategy.run(replica_step, (batch, learning_rate, stop))
        return {name: devices.strategy.experimental_local_results(value)[0] for name, value in results.items()}

    return step


def _add_gradients(
    model: keras.Model,
    variables: list[keras.Variable],
    batch: dict[str, tf.Tensor],
    loss_of: LossOf,
    sums: dict[str, tf.Tensor],
    gradients: list[tf.Tensor],
) -> Sums:
    """Adds a part's losses to `sums` and its gradients to `gradients`."""
    losses = loss_of(model({name: batch[name] for name in model.input}, training=True), batch)
    found = find_gradients([losses["loss"]], [variable.value for variable in variables])
    return {name: sums[name] + losses[name] for name in sums}, _add(gradients, found)


def _add_recomputed_gradients(
    model: keras.Model,
    variables: list[keras.Variable],
    batch: dict[str, tf.Tensor],
    loss_of: LossOf,
    sums: dict[str, tf.Tensor],
    gradients: list[tf.Tensor],
) -> Sums:
    """Does the same with the activations of one frame at a time.

    The streams do not look at time, so a frame's maps can be computed alone. First all maps are computed, without what
    their gradient needs; then the fuser's gradient for the maps; then, frame by frame, the streams' gradient from that
    of the frame's maps.
    """
    encoder, fuser = get_parts(model)
    length = model.input["frames"].shape[1] or 1  # OS and ST look at the last frame
    images = {name: batch[name][:, -length:] for name in model.input}
    shape = tf.shape(images["frames"])
    images = {name: tf.reshape(value, (-1, *value.shape[2:])) for name, value in images.items()}
    num_images = shape[0] * length
    values = [variable.value for variable in variables]

    def encode(image: tf.Tensor) -> dict[str, tf.Tensor]:
        """The encoder's maps of one image of the batch."""
        return encoder({name: value[image : image + 1] for name, value in images.items()}, training=True)

    maps = tf.map_fn(
        lambda image: {name: value[0] for name, value in encode(image).items()},
        tf.range(num_images),
        fn_output_signature={
            name: tf.TensorSpec((None, None, value.shape[-1]), tf.float32) for name, value in encoder.output.items()
        },
        parallel_iterations=1,
    )
    clips = {name: tf.reshape(value, (-1, length, *tf.unstack(tf.shape(value))[1:])) for name, value in maps.items()}
    outputs = fuser(clips, training=True)
    losses = loss_of({name: value[:, : shape[2], : shape[3]] for name, value in outputs.items()}, batch)
    found = find_gradients([losses["loss"]], [*clips.values(), *values], stop=list(clips.values()))
    map_gradients = {
        name: tf.reshape(gradient, tf.shape(maps[name])) for name, gradient in zip(clips, found, strict=False)
    }

    def add_image(image: tf.Tensor, gradients: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Adds the encoder's gradients of one image, whose maps are computed again."""
        again = encode(image)
        ahead = [map_gradients[name][image : image + 1] for name in again]
        return image + 1, _add(gradients, find_gradients(list(again.values()), values, ahead))

    _, gradients = tf.while_loop(
        lambda image, _: image < num_images,
        add_image,
        (tf.constant(0), _add(gradients, found[len(clips) :])),
        parallel_iterations=1,
    )
    return {name: sums[name] + losses[name] for name in sums}, gradients


def _add(sums: list[tf.Tensor], gradients: list[tf.Tensor | None]) -> list[tf.Tensor]:
    return [total if gradient is None else total + gradient for total, gradient in zip(sums, gradients, strict=True)]
