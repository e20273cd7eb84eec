"""The whole network on an accelerator under JAX: what share of the machine's arithmetic and memory a step uses.

  pip install "jax[cuda13]" keras     # or whatever JAX the accelerator asks for; TensorFlow is not needed
  python benchmarks/gpu.py [--image_sizes=321,512] [--batch_sizes=1,2,4,8,16,32] [--precision=mixed_bfloat16]
  python benchmarks/gpu.py --count    # the arithmetic alone, on any machine

Variant msst, VGG16, output stride 16, T = 4 frames a clip, random weights and pixels. First the machine: the rate of
square matrix products in the precision of the network, and of reading and writing an array. Then, per image size and
batch, the forward pass and the training step (forward, joint loss, gradients, Adam), as the median of several runs
behind two that are not counted. Arithmetic is counted from the traced program, 2 for a multiplication with its
addition, in convolutions and matrix products alone; bytes are XLA's own estimate of what the compiled program reads and
writes. Both are printed as shares of what the machine could do in that time.

The paper's forward pass of one clip at 512x512 takes 2.1 s on a Titan X (section 4.1): the last column of such rows
is how many times as fast this machine is.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
# A machine with JAX alone has not installed the package.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import keras
import numpy as np

from msst_keras.model.losses import joint_loss
from msst_keras.model.msst import build_msst

NUM_FRAMES = 4
PAPER_SECONDS, PAPER_SIZE = 2.1, 512  # a clip of four frames, network alone
LEARNING_RATE = 1e-5  # small, so that the loss of random weights on random pixels stays finite


def median_seconds(function, arguments, repeats: int) -> float:
    """Of a call that gives what the next call takes as its first arguments, or anything if it takes the same ones."""
    times = []
    for _ in range(repeats + 2):
        before = time.perf_counter()
        arguments = jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - before)
    return statistics.median(times[2:])


def matrix_rate(size: int, dtype: str, repeats: int) -> float:
    """Operations a second of products of two (size, size) matrices, ten in a row."""
    factor = jnp.eye(size, dtype=dtype)

    @jax.jit
    def multiply(matrix):
        for _ in range(10):
            matrix = jax.lax.dot(matrix, factor)
        return (matrix,)

    matrix = jax.random.normal(jax.random.key(0), (size, size), dtype)
    return 10 * 2 * size**3 / median_seconds(multiply, (matrix,), repeats)


def copy_rate(mebibytes: int, repeats: int) -> float:
    """Bytes read and written a second by adding 1 to an array, ten times in a row."""

    @jax.jit
    def add(array):
        # A barrier, or XLA would add 10 at once.
        for _ in range(10):
            array = jax.lax.optimization_barrier(array + 1)
        return (array,)

    array = jnp.zeros(mebibytes * 2**18, jnp.float32)
    return 10 * 2 * array.nbytes / median_seconds(add, (array,), repeats)


def count_operations(jaxpr) -> int:
    """Of the convolutions and matrix products of a traced program, loops of known length unrolled."""
    total = 0
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        if name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            outputs = kernel[parameters["dimension_numbers"].rhs_spec[0]]
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // outputs
        elif name == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
        for value in parameters.values():
            for part in value if isinstance(value, (tuple, list)) else (value,):
                part = getattr(part, "jaxpr", part)
                if hasattr(part, "eqns"):
                    total += count_operations(part) * (parameters["length"] if name == "scan" else 1)
    return total


def make_batch(image_size: int, batch_size: int) -> dict[str, jax.Array]:
    """Clips of random pixels with a square mask."""
    keys = jax.random.split(jax.random.key(0))
    shape = (batch_size, NUM_FRAMES, image_size, image_size)
    mask = np.zeros((batch_size, image_size, image_size, 1), np.float32)
    mask[:, image_size // 4 : image_size // 2, image_size // 3 : 2 * image_size // 3] = 1
    return {
        "frames": jax.random.uniform(keys[0], (*shape, 3), maxval=255.0),
        "prior": jax.random.uniform(keys[1], (*shape, 1)),
        "mask": jnp.asarray(mask),
    }


def make_functions(model: keras.Model):
    """Returns pure functions (forward, its arguments) and (step, its arguments), without the batch that comes last."""
    optimizer = keras.optimizers.Adam(LEARNING_RATE)
    optimizer.build(model.trainable_variables)
    weights = [variable.value for variable in model.trainable_variables]
    fixed = [variable.value for variable in model.non_trainable_variables]
    state = [variable.value for variable in optimizer.variables]

    def run(weights, fixed, batch, training):
        inputs = {name: batch[name] for name in ("frames", "prior")}
        return model.stateless_call(weights, fixed, inputs, training=training)[0]

    def forward(weights, fixed, batch):
        return jax.nn.sigmoid(run(weights, fixed, batch, False)["fused"])

    def step(weights, fixed, state, batch):
        def loss_of(weights):
            return joint_loss(run(weights, fixed, batch, True), batch["mask"])["loss"]

        loss, gradients = jax.value_and_grad(loss_of)(weights)
        weights, state = optimizer.stateless_apply(state, gradients, weights)
        return loss, weights, state

    return {"forward": (forward, (weights, fixed)), "step": (step, (weights, fixed, state))}


def measure(model: keras.Model, what: str, image_size: int, batch_size: int, repeats: int) -> tuple[float, int, float]:
    """Returns (seconds, operations, bytes) of a forward pass or of a training step.

    Raises:
      ValueError: the result is not finite.
      jax.errors.JaxRuntimeError: among others, it does not fit into memory.
    """
    function, arguments = make_functions(model)[what]
    arguments = (*arguments, make_batch(image_size, batch_size))
    operations = count_operations(jax.make_jaxpr(function)(*arguments).jaxpr)
    program = jax.jit(function).lower(*arguments).compile()
    estimates = program.cost_analysis()
    result = program(*arguments)
    if not np.isfinite(np.asarray(jax.tree.leaves(result)[0], np.float32)).all():
        raise ValueError(f"{what} at {image_size} with {batch_size} clips gave numbers that are not finite")

    def again(*arguments):
        jax.block_until_ready(program(*arguments))
        return arguments

    return median_seconds(again, arguments, repeats), operations, estimates.get("bytes accessed", math.nan)


def print_counts(model: keras.Model, image_sizes: list[int]) -> None:
    """Prints the operations of one clip, without doing any."""
    for what, (function, arguments) in make_functions(model).items():
        for image_size in image_sizes:
            batch = make_batch(image_size, 1)
            operations = count_operations(jax.make_jaxpr(function)(*arguments, batch).jaxpr)
            print(f"{what} of a clip at {image_size}x{image_size}: {operations / 1e12:.2f} T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image_sizes", default="321,512")
    parser.add_argument("--batch_sizes", default="1,2,4,8,16,32")
    parser.add_argument("--precision", default="mixed_bfloat16", choices=["mixed_bfloat16", "float32"])
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--matrix_size", type=int, default=8192)
    parser.add_argument("--copy_mebibytes", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--count", action="store_true", help="only count the operations of a clip")
    arguments = parser.parse_args()
    image_sizes, batch_sizes = (
        [int(size) for size in sizes.split(",")] for sizes in (arguments.image_sizes, arguments.batch_sizes)
    )
    keras.config.set_dtype_policy(arguments.precision)
    keras.utils.set_random_seed(0)
    model = build_msst(variant="msst", num_frames=NUM_FRAMES, width=arguments.width)
    if arguments.count:
        return print_counts(model, image_sizes)
    dtype = "bfloat16" if arguments.precision == "mixed_bfloat16" else "float32"
    matrix = matrix_rate(arguments.matrix_size, dtype, arguments.repeats)
    copy = copy_rate(arguments.copy_mebibytes, arguments.repeats)
    print(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}, Keras {keras.__version__}, {arguments.precision}")
    print(f"matrix products {matrix / 1e12:.1f} T/s in {dtype}, copy {copy / 1e9:.0f} GB/s", flush=True)
    print("| what | pixels | clips | ms | ms a clip | share of matrix products | share of copy | paper's time / ours |")
    print("|---|---|---|---|---|---|---|---|")
    for what in ("forward", "step"):
        for image_size in image_sizes:
            for batch_size in batch_sizes:
                row = f"| {what} | {image_size} | {batch_size} | "
                try:
                    seconds, operations, moved = measure(model, what, image_size, batch_size, arguments.repeats)
                except jax.errors.JaxRuntimeError as error:
                    if "RESOURCE_EXHAUSTED" not in str(error):
                        raise
                    print(row + "does not fit into memory | | | | |", flush=True)
                    continue
                row += f"{1e3 * seconds:.1f} | {1e3 * seconds / batch_size:.1f} | "
                row += f"{operations / seconds / matrix:.2f} | {moved / seconds / copy:.2f} | "
                if what == "forward" and image_size == PAPER_SIZE:
                    row += f"{PAPER_SECONDS * batch_size / seconds:.0f}"
                print(row + " |", flush=True)


if __name__ == "__main__":
    main()
