"""One step of training: the gradients of a global batch, whatever share of it each replica computes at a time."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from msst_keras.model.losses import joint_loss, list_sides
from msst_keras.model.msst import get_parts
from msst_keras.training.optimizer import Update
from msst_keras.training.options import StepOptions
from msst_keras.training.strategy import Devices


def make_step(model: keras.Model, update: Update, options: StepOptions, devices: Devices) -> Callable:
    """Returns a graph (batch, learning_rate, stop) -> scalars, traced once per image size.

    The batch is of `Devices.scatter`: "frames", "prior", "mask" as in `batches.training_batches`, and "weight" (B,) if
    examples weigh differently. The losses are means over the global batch, the gradient is theirs. `stop` is summed
    over all replicas, so that every process hears of a signal that one of them got.

    Returns:
      a function that gives {"loss", "loss_fused", "loss_recurrent"[, "loss_sides"], "gradient_norm", "stop"}, float32
      scalars, the same in all processes; the loss is that of the weights before the step.
    """
    compute = _add_recomputed_gradients if options.recompute else _add_gradients
    num_parts = devices.num_replicas * options.accumulation_steps
    names = ("loss", "loss_fused", "loss_recurrent", *(["loss_sides"] if list_sides(model.output) else []))

    @tf.function(jit_compile=options.xla, reduce_retracing=False)
    def sum_gradients(batch):
        def loss_of(outputs, part):
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

        def add(part, sums, gradients):
            first = part * size
            rows = {name: value[first : first + size] for name, value in batch.items()}
            return part + 1, *compute(model, update.variables, rows, loss_of, sums, gradients)

        _, sums, gradients = tf.while_loop(
            lambda part, *_: part < options.accumulation_steps, add, state, parallel_iterations=1
        )
        return sums, gradients

    def replica_step(batch, learning_rate, stop):
        losses, gradients = sum_gradients(batch)
        context = tf.distribute.get_replica_context()
        stop = tf.identity(stop)  # on the replica's device, which the reduction asks for
        losses, stop, gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, (losses, stop, gradients))
        return {**losses, "gradient_norm": update.apply(gradients, learning_rate), "stop": stop}

    @tf.function
    def step(batch, learning_rate, stop):
        results = devices.strategy.run(replica_step, (batch, learning_rate, stop))
        return {name: devices.strategy.experimental_local_results(value)[0] for name, value in results.items()}

    return step


def _add_gradients(model, variables, batch, loss_of, sums, gradients):
    """Adds a part's losses to `sums` and its gradients to `gradients`."""
    with tf.GradientTape() as tape:
        losses = loss_of(model({name: batch[name] for name in model.input}, training=True), batch)
    found = tape.gradient(losses["loss"], [variable.value for variable in variables])
    return {name: sums[name] + losses[name] for name in sums}, _add(gradients, found)


def _add_recomputed_gradients(model, variables, batch, loss_of, sums, gradients):
    """The same, with the activations of one frame at a time.

    The streams know no time, so a frame's maps can be computed alone: first all maps without what their gradient needs,
    then the fuser's gradient to the maps, then frame by frame the streams' gradient from that of its maps.
    """
    encoder, fuser = get_parts(model)
    length = model.input["frames"].shape[1] or 1  # OS and ST look at the last frame
    images = {name: batch[name][:, -length:] for name in model.input}
    shape = tf.shape(images["frames"])
    images = {name: tf.reshape(value, (-1, *value.shape[2:])) for name, value in images.items()}
    num_images = shape[0] * length
    values = [variable.value for variable in variables]

    def encode(image):
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
    with tf.GradientTape() as tape:
        tape.watch(clips)
        outputs = fuser(clips, training=True)
        losses = loss_of({name: value[:, : shape[2], : shape[3]] for name, value in outputs.items()}, batch)
    map_gradients, fuser_gradients = tape.gradient(losses["loss"], (clips, values))
    map_gradients = {name: tf.reshape(value, tf.shape(maps[name])) for name, value in map_gradients.items()}

    def add_image(image, gradients):
        with tf.GradientTape() as tape:
            found = encode(image)
        ahead = {name: value[image : image + 1] for name, value in map_gradients.items()}
        return image + 1, _add(gradients, tape.gradient(found, values, output_gradients=ahead))

    _, gradients = tf.while_loop(
        lambda image, _: image < num_images,
        add_image,
        (tf.constant(0), _add(gradients, fuser_gradients)),
        parallel_iterations=1,
    )
    return {name: sums[name] + losses[name] for name in sums}, gradients


def _add(sums, gradients):
    return [total if gradient is None else total + gradient for total, gradient in zip(sums, gradients, strict=True)]
