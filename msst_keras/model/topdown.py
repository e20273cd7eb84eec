"""The light network's two parts: fusion of the streams at every level, and a decoder to stride 4.

    frame  - spatial backbone, strides 4, 8, 16, 32 -\\   at each level both to 64 channels by a 1x1 convolution, then
    motion - temporal backbone, strides 4, 8, 16 ----/   fused: "gated" or "linear"
                                                              encoder: one frame at a time
    stride 16 of T frames -> ConvLSTM -> 1x1 -> added to stride 16 of frame T
    stride 32 + its mean -> x2, with stride 16 -> x2, with stride 8 -> x2, with stride 4 -> map -> x4
                                                              fuser: T frames at once

It stands beside the paper's network (`msst`), whose branches fuse two maps of one channel by a linear 1x1 convolution
(Eq. 5). There one stream cannot veto the other: in a crowd the temporal stream alone was right and the sum was not.
The multi-scale branches of section 3.2 become the decoder's levels. Each level has a map of its own that the loss sees
(a side output), and X^t is the map of the temporal stream alone. Of a past frame only its map of stride 16 is kept.
"""

from __future__ import annotations

from typing import Any

import keras

from msst_keras.model.backbones import build_pyramid
from msst_keras.model.layers import normalized_convolution, scale_channels
from msst_keras.model.recurrent import ConvLSTM2D, MergeTime, SplitTime, Upsample

# The inputs that the temporal stream's image is made of, and the image (B, H, W, 3 or 4).
MotionImage = tuple[dict[str, keras.KerasTensor], keras.KerasTensor]

LEVEL_CHANNELS = 64
# Channels of the ConvLSTM's state, at stride 16: half of a level's. Its four gates over four frames then cost a tenth
# of the network instead of a third.
MEMORY_CHANNELS = 32
# The motion stream stops at stride 16: what moves is large, or its outline comes from the frame.
MOTION_STRIDE = 16
STRIDES = (4, 8, 16, 32)


def build_encoder(
    frames: keras.KerasTensor,
    motion: MotionImage | None,
    backbones: tuple[str, str],
    fusion: str,
    width: float,
    weights: str,
    batch_norm: str,
    frozen_stride: int,
) -> keras.Model:
    """One frame -> fused features at every stride.

    Args:
        frames: Input (B, H, W, 3), R, G, B in 0..255; H and W multiples of 32.
        motion: The temporal stream's image, with the inputs that it is made of; None without a temporal stream.
        backbones: Names of the backbones of the spatial and the temporal stream.
        fusion: One of `options.FUSIONS`.
        width, weights: See `backbones.build_backbone`.
        batch_norm: See `options.BATCH_NORMS`.
        frozen_stride: How much of the spatial backbone is not trained, see `backbones.build_pyramid`. The temporal
            backbone is trained whole, because its image is no photograph.

    Returns:
        Functional model {"frames"[, "prior"]} -> {"stride4", "stride8", "stride16", "stride32": (B, H / stride,
        W / stride, LEVEL_CHANNELS)[, "temporal": (B, H / 16, W / 16, 1)]} float32: the levels, and X^t, the logits of
        the temporal stream alone.
    """
    channels = scale_channels(LEVEL_CHANNELS, width, minimum=8)
    inputs = {"frames": frames}
    network = build_pyramid(backbones[0], 3, STRIDES[-1], width, weights, batch_norm, frozen_stride, name="spatial")
    spatial = network(frames)
    levels = {
        stride: _lateral(features, channels, f"spatial{stride}", batch_norm)
        for stride, features in zip(STRIDES, spatial, strict=True)
    }
    outputs = {}
    if motion is not None:
        more_inputs, image = motion
        inputs |= more_inputs
        network = build_pyramid(
            backbones[1], image.shape[-1], MOTION_STRIDE, width, weights, batch_norm, name="temporal"
        )
        for stride, features in zip(STRIDES, network(image), strict=False):
            features = _lateral(features, channels, f"temporal{stride}", batch_norm)
            levels[stride] = _fuse(levels[stride], features, fusion, stride, channels, batch_norm)
        outputs["temporal"] = _score(features, "temporal_map")
    whole = keras.layers.GlobalAveragePooling2D(keepdims=True, name="whole")(levels[32])
    whole = keras.layers.Conv2D(channels, 1, kernel_initializer="he_normal", name="whole_features")(whole)
    levels[32] = keras.layers.Add(name="context")([levels[32], whole])
    for stride, features in levels.items():
        outputs[f"stride{stride}"] = keras.layers.Activation("linear", dtype="float32", name=f"level{stride}")(features)
    return keras.Model(inputs, outputs, name="encoder")


def build_fuser(encoder: keras.Model, num_frames: int | None, batch_norm: str) -> keras.Model:
    """Builds the fuser: levels of frame T, and stride 16 of all T frames -> the saliency map and the side outputs.

    Args:
        encoder: The model that `build_encoder` gave.
        num_frames: T, with a ConvLSTM over the T frames; None for a network without memory, which takes any number of
            frames and looks at the last.
        batch_norm: See `options.BATCH_NORMS`.

    Returns:
        Functional model {"stride4", "stride8", "stride32": (B, h, w, C), "stride16": (B, T, h, w, C)[, "temporal"]} ->
        logits, float32: {"fused": (B, H, W, 1), "side8", "side16", "side32"[, "temporal"]: (B, h, w, 1) at these
        strides (temporal: 16)[, "recurrent": (B, H, W, 1), the R of Eq. 8]}.
    """
    shapes = {name: output.shape for name, output in encoder.output.items()}
    channels = shapes["stride16"][-1]
    inputs = {name: keras.Input(shape[1:], name=name) for name, shape in shapes.items() if name != "stride16"}
    inputs["stride16"] = keras.Input((num_frames, *shapes["stride16"][1:]), name="stride16")
    levels = {stride: inputs[f"stride{stride}"] for stride in STRIDES}
    levels[16] = levels[16][:, -1]
    outputs = {}
    if "temporal" in inputs:
        outputs["temporal"] = keras.layers.Identity(dtype="float32", name="temporal_alone")(inputs["temporal"])
    if num_frames is not None:
        memory_channels = max(4, channels * MEMORY_CHANNELS // LEVEL_CHANNELS)
        past = MergeTime()(inputs["stride16"])
        past = keras.layers.Conv2D(memory_channels, 1, kernel_initializer="he_normal", name="memory_inputs")(past)
        state = ConvLSTM2D(memory_channels, 3, name="conv_lstm")(SplitTime(num_frames)(past))
        outputs["recurrent"] = Upsample(16, dtype="float32", name="upsample_recurrent")(_score(state, "recurrent_map"))
        # Zeros, so that a network that continues one without memory begins by giving the same maps.
        remembered = keras.layers.Conv2D(channels, 1, kernel_initializer="zeros", name="remembered")(state)
        levels[16] = keras.layers.Add(name="memory")([levels[16], remembered])
    x = levels[32]
    outputs["side32"] = _score(x, "side32_map")
    for stride in (16, 8, 4):
        x = Upsample(2, name=f"upsample{stride}")(x)
        x = keras.layers.Concatenate(name=f"decoder{stride}_inputs")([x, levels[stride]])
        for number in (1, 2):
            prefix = f"decoder{stride}_{number}"
            x = normalized_convolution(x, None, 3, f"{prefix}_depthwise", batch_norm, activation=None)
            x = normalized_convolution(x, channels, 1, f"{prefix}_pointwise", batch_norm, activation="relu")
        if stride > 4:
            outputs[f"side{stride}"] = _score(x, f"side{stride}_map")
    fused = _score(x, "map", kernel_size=3)
    outputs["fused"] = Upsample(4, dtype="float32", name="upsample")(fused)
    return keras.Model(inputs, outputs, name="fuser")


def has_memory(fuser: keras.Model) -> bool:
    """Whether a fuser is one of `build_fuser` with a ConvLSTM."""
    return any(layer.name == "memory_inputs" for layer in fuser.layers)


def cut_at_memory(
    encoded: dict[str, keras.KerasTensor], fuser: keras.Model
) -> tuple[dict[str, keras.KerasTensor], dict[str, keras.KerasTensor]]:
    """Moves the cut between encoder and fuser to where a past frame leaves least, as a stream keeps what it leaves.

    That is behind the 1x1 convolution that makes the ConvLSTM's inputs: half the channels of stride 16.

    Args:
        encoded: Outputs of the encoder; "memory", (B, h, w, MEMORY_CHANNELS), is added.
        fuser: Of `build_fuser`, with a ConvLSTM. It stays as it is.

    Returns:
        Inputs and outputs of the fuser behind the cut, of the same layers: "memory", (B, T, h, w, MEMORY_CHANNELS), is
        added to the inputs, and "stride16" becomes (B, h, w, C), of frame T alone.
    """
    arguments = {}

    def call(layer: keras.layers.Layer, *tensors: keras.KerasTensor, **options: Any) -> keras.KerasTensor:
        """Calls a layer and remembers what it was given."""
        arguments[layer.name] = tensors
        return layer(*tensors, **options)

    # A second graph of the same layers: Keras would take the inputs of the first one away from it, and a model that has
    # lost them cannot be saved.
    graph = keras.models.clone_model(fuser, clone_function=lambda layer: layer, call_function=call)
    encoded["memory"] = fuser.get_layer("memory_inputs")(encoded["stride16"])
    inputs = dict(graph.input) | {"memory": arguments["conv_lstm"][0], "stride16": arguments["memory"][0][0]}
    for name in ("memory", "stride16"):
        inputs[name].name = name  # Keras wants the tensors of a dict to be named as there
    return inputs, graph.output


def _lateral(features: keras.KerasTensor, channels: int, name: str, batch_norm: str) -> keras.KerasTensor:
    return normalized_convolution(features, channels, 1, f"{name}_lateral", batch_norm, activation="relu")


def _fuse(
    spatial: keras.KerasTensor, temporal: keras.KerasTensor, fusion: str, stride: int, channels: int, batch_norm: str
) -> keras.KerasTensor:
    both = keras.layers.Concatenate(name=f"streams{stride}")([spatial, temporal])
    if fusion == "linear":
        return normalized_convolution(both, channels, 1, f"fused{stride}", batch_norm, activation=None)
    gate = keras.layers.Conv2D(channels, 1, activation="sigmoid", name=f"gate{stride}")(both)
    kept = keras.layers.Multiply(name=f"gated{stride}")([spatial, gate])
    return keras.layers.Add(name=f"fused{stride}")([kept, temporal])


def _score(features: keras.KerasTensor, name: str, kernel_size: int = 1) -> keras.KerasTensor:
    """Logits of one channel, float32; small at first, so that the first prediction is near .5."""
    initializer = keras.initializers.RandomNormal(stddev=0.01)
    return keras.layers.Conv2D(
        1, kernel_size, padding="same", kernel_initializer=initializer, dtype="float32", name=name
    )(features)
