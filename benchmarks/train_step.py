"""Seconds of a training step of the whole network, beside the same network and step in PyTorch; they take turns.

  python benchmarks/train_step.py [--precision=float32] [--image_size=321] [--width=1] [--steps=5] [--xla]

One clip of T = 4 frames, variant msst, VGG16, output stride 16; forward, joint loss, gradients, Adam. PyTorch
(2.13, to be installed beside: it is no requirement of this package) starts from the same weights, channels-last, and
under autocast in bfloat16. The two must have as many parameters and the same first loss, else there is no ratio.
Each framework has a process of its own; its memory is the peak of its resident set less what it had before the first
step, with its weights but without Adam's moments.

Only an otherwise idle machine gives a ratio that counts: PyTorch's threads wait for each other at every operation, so
other work slows it down more than it does TensorFlow.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

NUM_FRAMES = 4
LEARNING_RATE = 1e-5  # small, so that the loss of random weights on random pixels stays finite
EPSILON = 1e-7  # Keras's, for both
BETA = 0.1
BAR = 1.2
LOSS_TOLERANCE = {"float32": 1e-4, "mixed_bfloat16": 1e-3}  # relative; swapped ConvLSTM gates change it by 5e-4
STREAMS = ("spatial", "temporal")
# Of model.vgg16, again, because importing it would bring TensorFlow into PyTorch's process; equal losses hold them.
CONVOLUTIONS, DILATIONS, FC6_DILATION = (2, 2, 3, 3, 3), (1, 1, 1, 1, 2), 6
RGB_MEAN, PIXEL_STD, PRIOR_SCALE = (123.68, 116.779, 103.939), 58.0, 255.0


def make_batch(image_size: int) -> dict[str, np.ndarray]:
    """One clip of random pixels with a square mask."""
    generator = np.random.default_rng(0)
    shape = (1, NUM_FRAMES, image_size, image_size)
    mask = np.zeros((1, image_size, image_size, 1), np.float32)
    mask[:, image_size // 4 : image_size // 2, image_size // 3 : 2 * image_size // 3] = 1
    return {
        "frames": generator.uniform(0, 255, (*shape, 3)).astype(np.float32),
        "prior": generator.uniform(0, 1, (*shape, 1)).astype(np.float32),
        "mask": mask,
    }


def make_keras_step(arguments, weights_path):
    """Writes the weights to `weights_path`; gives (step, number of parameters)."""
    import keras
    import tensorflow as tf

    from msst_keras.model.losses import joint_loss
    from msst_keras.model.msst import build_msst, get_parts

    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(arguments.precision)
    model = build_msst(num_frames=NUM_FRAMES, width=arguments.width)
    write_weights(weights_path, *get_parts(model))
    optimizer = keras.optimizers.Adam(LEARNING_RATE, epsilon=EPSILON)
    optimizer.build(model.trainable_variables)
    batch = {name: tf.constant(array) for name, array in make_batch(arguments.image_size).items()}

    @tf.function(jit_compile=arguments.xla)
    def step(batch):
        with tf.GradientTape() as tape:
            outputs = model({name: batch[name] for name in ("frames", "prior")}, training=True)
            loss = joint_loss(outputs, batch["mask"], beta=BETA)["loss"]
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    return lambda: float(step(batch)), sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def write_weights(path, encoder, fuser) -> None:
    """Writes the weights of a network's parts by the names that `build_torch_network` reads."""
    layers = {f"{stream}.{layer.name}": layer for stream in STREAMS for layer in encoder.get_layer(stream).layers}
    layers |= {layer.name: layer for part in (encoder, fuser) for layer in part.layers if layer.name not in STREAMS}
    arrays = {name: layer.get_weights() for name, layer in layers.items() if layer.trainable_variables}
    np.savez(path, **{f"{name}:{index}": array for name, parts in arrays.items()
                      for index, array in enumerate(parts)})  # fmt: skip


def make_torch_step(arguments, weights_path):
    """The same from the weights in `weights_path`."""
    import torch

    with np.load(weights_path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    model = build_torch_network(arrays).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, eps=EPSILON)
    batch = {name: torch.from_numpy(np.moveaxis(array, -1, -3).copy())
             for name, array in make_batch(arguments.image_size).items()}  # fmt: skip

    def mean_loss(logits, labels):
        alpha = 1 - labels.mean()
        pixels = alpha * labels * torch.nn.functional.softplus(-logits)
        return (pixels + (1 - alpha) * (1 - labels) * torch.nn.functional.softplus(logits)).mean()

    def step():
        optimizer.zero_grad(set_to_none=True)
        low = arguments.precision == "mixed_bfloat16"
        with torch.autocast("cpu", torch.bfloat16) if low else contextlib.nullcontext():
            fused, recurrent = model(batch["frames"][0], batch["prior"][0])
        loss = mean_loss(fused.float(), batch["mask"]) + BETA * mean_loss(recurrent.float(), batch["mask"])
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step, sum(parameter.numel() for parameter in model.parameters())


def build_torch_network(arrays):
    """MSST in PyTorch: (frames (T, 3, H, W), prior (T, 1, H, W)) -> fused, recurrent (1, 1, H, W) logits."""
    import torch
    from torch.nn import functional

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ParameterDict({name.replace(".", "/"): self._parameter(array)
                                                  for name, array in arrays.items()})  # fmt: skip

        def _parameter(self, array):
            tensor = torch.from_numpy(array)
            if array.ndim == 4:
                tensor = tensor.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
            return torch.nn.Parameter(tensor)

        def convolution(self, x, name, dilation=1, index=0):
            kernel = self.layers[f"{name}:{index}"]
            bias = self.layers[f"{name}:{index + 1}"] if f"{name}:{index + 1}" in self.layers else None
            return functional.conv2d(x, kernel, bias, padding=kernel.shape[-1] // 2 * dilation, dilation=dilation)

        def stream(self, x, name):
            for block, (num_convolutions, dilation) in enumerate(zip(CONVOLUTIONS, DILATIONS, strict=True), start=1):
                for index in range(1, num_convolutions + 1):
                    x = self.convolution(x, f"{name}/block{block}_conv{index}", dilation).relu()
                if block < 5:
                    middle = x = functional.max_pool2d(x, 2, ceil_mode=True)
            x = self.convolution(x, f"{name}/fc6", FC6_DILATION).relu()
            maps = {"middle": middle, "last": self.convolution(x, f"{name}/fc7").relu()}
            for scale, features in maps.items():
                features = self.convolution(features, f"{name}_{scale}_features").relu()
                yield self.convolution(features, f"{name}_{scale}_map").float()

        def recur(self, maps):
            hidden = cell = maps.new_zeros(1, self.layers["conv_lstm_state:0"].shape[1], *maps.shape[-2:])
            inputs = self.convolution(maps, "conv_lstm_input")
            for frame in inputs.split(1):
                gates = frame + self.convolution(hidden, "conv_lstm_state")
                read, keep, new, write = gates.chunk(4, dim=1)
                cell = keep.sigmoid() * cell + read.sigmoid() * new.tanh()
                hidden = write.sigmoid() * cell.tanh()
            return hidden

        def forward(self, frames, prior):
            frames = frames.contiguous(memory_format=torch.channels_last)
            rgb = (frames - torch.tensor(RGB_MEAN)[:, None, None]) / PIXEL_STD
            clips = {"spatial": rgb, "temporal": torch.cat([rgb, prior * (PRIOR_SCALE / PIXEL_STD)], 1)}
            maps = torch.cat([low for name, clip in clips.items() for low in self.stream(clip, name)], 1)
            maps = functional.interpolate(maps, scale_factor=16, mode="bilinear", align_corners=False)
            recurrent = self.convolution(self.recur(maps), "recurrent_map")
            fused = recurrent
            for index, name in enumerate(STREAMS):
                fused = fused + self.convolution(maps[-1:, 2 * index : 2 * index + 2], f"fuse_{name}")
            height, width = frames.shape[-2:]
            return fused[..., :height, :width], recurrent[..., :height, :width]

    kernel, state_kernel, bias = (arrays.pop(f"conv_lstm:{index}") for index in range(3))
    arrays |= {"conv_lstm_input:0": kernel, "conv_lstm_input:1": bias, "conv_lstm_state:0": state_kernel}
    return Network()


def serve(make_step, arguments, weights_path, pipe) -> None:
    """Body of a framework's process: a step for every message, (loss, seconds, bytes above the start) back."""
    step, num_parameters = make_step(arguments, weights_path)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    pipe.send(num_parameters)
    while pipe.recv():
        started = time.perf_counter()
        loss = step()
        seconds = time.perf_counter() - started
        pipe.send((loss, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before))


def take_turns(arguments) -> dict[str, list[tuple[float, float, int]]]:
    """What `serve` sent for each step of both; the first of each, which builds graphs, included.

    Raises:
        ValueError: The two are not the same network.
    """
    context, pipes, counts = multiprocessing.get_context("spawn"), {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make_step in {"this package": make_keras_step, "PyTorch": make_torch_step}.items():
            pipes[name], far_end = context.Pipe()
            arguments_of_process = (make_step, arguments, os.path.join(folder, "weights.npz"), far_end)
            context.Process(target=serve, args=arguments_of_process, daemon=True).start()
            far_end.close()
            counts[name] = pipes[name].recv()  # the weights are written before the second process starts
    if len(set(counts.values())) > 1:
        raise ValueError(f"Expected as many parameters in both networks, found {counts}.")
    results = {name: [] for name in pipes}
    for turn in range(1 + arguments.steps):
        for name, pipe in pipes.items():
            pipe.send(True)
            results[name].append(pipe.recv())
        (ours, seconds, _), (theirs, torch_seconds, _) = (result[-1] for result in results.values())
        print(f"step {turn}: loss {ours:.6f} | {theirs:.6f}, {seconds:.2f} s | {torch_seconds:.2f} s", flush=True)
        if turn == 0 and not abs(ours - theirs) <= LOSS_TOLERANCE[arguments.precision] * abs(theirs):
            raise ValueError(f"Expected the same first loss of both networks, found {ours} and {theirs}.")
    for pipe in pipes.values():
        pipe.send(False)
    print(f"{next(iter(counts.values())):,} parameters in both")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", default="float32", choices=["float32", "mixed_bfloat16"])
    parser.add_argument("--image_size", type=int, default=321)
    parser.add_argument("--width", type=float, default=1.0, help="of the network; 1 is the paper's")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each, in turn, after one that is not")
    parser.add_argument("--xla", action="store_true", help="compile this package's step with XLA")
    arguments = parser.parse_args()
    results = take_turns(arguments)
    seconds = {name: [result[1] for result in steps[1:]] for name, steps in results.items()}
    compiled = ", XLA" if arguments.xla else ""
    size = f"{arguments.image_size}x{arguments.image_size}"
    print(f"{size}, T = {NUM_FRAMES}, {arguments.precision}{compiled}, width {arguments.width:g}, "
          f"medians of {arguments.steps}:")  # fmt: skip
    for name, times in seconds.items():
        above = results[name][-1][2] / 2**30
        print(f"{name}: {np.median(times):.3f} s a step (least {min(times):.3f}), {above:.2f} GiB above the start")
    ratios = [summary(seconds["this package"]) / summary(seconds["PyTorch"]) for summary in (np.median, min)]
    print(f"{ratios[0]:.2f} times PyTorch's (bar {BAR}), least by least {ratios[1]:.2f}")


if __name__ == "__main__":
    main()
