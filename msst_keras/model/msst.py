"""The saliency networks of section 3.2: OS, ST and MSST.

    frames ---------- spatial stream ----> X^s  (n = 2 maps at low resolution)  \\
    frames + prior -- temporal stream ---> X^t  (n = 2 maps at low resolution)  /  encoder: one frame at a time
    X^s, X^t of T frames -> upsampled, concatenated (Eq. 2) -> ConvLSTM -> O^T (Eq. 4)
    S = W^s * X^s + W^t * X^t + O^T (Eq. 5), X^s and X^t of frame T                fuser: T frames at once

OS is the spatial stream alone, ST the two streams without ConvLSTM; both look at frame T only.

Alignment. Pooling with "same" padding makes a cell k of stride s begin at pixel k * s, also where s does not divide the
frame. So maps are upsampled bilinearly, with half-pixel centres, by exactly s, and the far edges that lie outside the
frame are cut off once, behind everything else. (A resize of the 21 cells of 321 pixels to 321 would move the far edge
by 15 pixels.) The fuser needs no frame size for that: it gives maps of size cells * s, at least as large as the frame.

Precision. Under a mixed policy these stay float32: the branches' 1-channel maps and their upsampling, the 1x1
convolutions W^s, W^t and that of O^T, and the sum. So the encoder and the model give float32 under every policy.

Start. The kernels of the branches' maps begin as a Gaussian of .01 (as FCN's and DeepLab's score layers do), W^s and
W^t as means over their maps, and biases at 0. So the first prediction is near .5, where a balanced loss begins, and
every weight has a gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from msst_keras.model import topdown
from msst_keras.model.backbones import BACKBONES, build_backbone, output_strides
from msst_keras.model.layers import fold_batch_norms, scale_channels
from msst_keras.model.losses import SIDES
from msst_keras.model.options import (
    BATCH_NORMS,
    DECODERS,
    FUSIONS,
    LSTM_FILTERS,
    LSTM_KERNEL_SIZE,
    MOTION_INPUTS,
    VARIANTS,
    check_effects,
)
from msst_keras.model.recurrent import ConvLSTM2D, CropToFrame, MergeTime, SplitTime, UpsampleScales
from msst_keras.model.topdown import MotionImage

# Channels of a branch's 3x3 convolution (section 3.2).
BRANCH_CHANNELS = 128


def build_msst(
    variant: str = "msst",
    backbone: str = "vgg16",
    num_frames: int = 4,
    output_stride: int = 16,
    width: float = 1.0,
    weights: str = "none",
    lstm_filters: int = LSTM_FILTERS,
    lstm_kernel_size: int = LSTM_KERNEL_SIZE,
    first_convolution_std: float | None = None,
    motion_input: str = "prior",
    motion_backbone: str | None = None,
    fusion: str = "linear",
    decoder: str = "branches",
    batch_norm: str = "trained",
    frozen_stride: int = 0,
    name: str = "msst",
) -> keras.Model:
    """Builds a network clip -> saliency for any frame size (with the decoder "topdown": multiples of 32).

    Args:
        variant: One of VARIANTS.
        backbone: One of `backbones.BACKBONES`, for both streams; one of `backbones.PYRAMID_BACKBONES` for "topdown".
        num_frames: T, 4 in the paper. OS and ST take clips of any length and use their last frame alone.
        output_stride: Pixels per cell of the backbone's last map, one of `backbones.OUTPUT_STRIDES`.
        width: Multiplies the channels of the backbone (at least 4) and of the branches (at least 8).
        weights: "none", "imagenet" or a file, for both streams (see `backbones.build_backbone`).
        lstm_filters: Channels of the ConvLSTM's state.
        lstm_kernel_size: Size of the ConvLSTM's kernels; odd.
        first_convolution_std: Standard deviation of the Gaussian that initialises the temporal stream's first
            convolution (section 4.1); None for He's.
        motion_input: One of MOTION_INPUTS.
        motion_backbone: Backbone of the temporal stream; None for that of the spatial one. It is easier to see what
            moves than what it is, so a smaller backbone suffices.
        fusion: One of FUSIONS; the decoder "branches" allows only "linear", Eq. 5.
        decoder: One of DECODERS. With "topdown", `output_stride`, `lstm_filters`, `lstm_kernel_size` and
            `first_convolution_std` would have no effect, so they must be the defaults.
        batch_norm: What becomes of the batch norms of backbones and decoders that have some; one of
            `options.BATCH_NORMS`.
        frozen_stride: How much of the spatial backbone is not trained, see `backbones.build_pyramid`; 0 with the
            decoder "branches".
        name: Name of the model.

    Returns:
        A functional model. Input: {"frames": (B, T, H, W, 3) float32, R, G, B in 0..255, "prior": (B, T, H, W, 1, or 3
        for flow) float32 in 0..1}; OS has "frames" alone. Output, float32 logits for frame T: {"fused": (B, H, W, 1),
        S of Eq. 5, "recurrent": (B, H, W, 1), O^T, the R of Eq. 8}; only MSST has "recurrent". With "topdown" there
        are side outputs too (`topdown.build_fuser`). `get_parts` gives the model's two parts.

    Raises:
        ValueError: An argument is none of these or would have no effect, or the weights do not fit.
        FileNotFoundError: The weights file is missing.
    """
    _check_choice("variant", variant, VARIANTS)
    if not isinstance(num_frames, int) or num_frames < 1:
        raise ValueError(f"num_frames must be a positive whole number, found {num_frames!r}.")
    _check_choice("motion_input", motion_input, MOTION_INPUTS)
    _check_choice("fusion", fusion, FUSIONS)
    _check_choice("decoder", decoder, DECODERS)
    _check_choice("batch_norm", batch_norm, BATCH_NORMS)
    if motion_backbone is not None:
        _check_choice("motion_backbone", motion_backbone, BACKBONES)
    check_effects(decoder, fusion, output_stride, frozen_stride, (lstm_filters, lstm_kernel_size))
    if decoder == "topdown" and first_convolution_std is not None:
        raise ValueError("first_convolution_std is of the decoder branches; that of topdown begins with He's.")
    strides = output_strides(backbone, output_stride)
    networks = backbone, motion_backbone or backbone
    frames, motion = keras.Input((None, None, 3), name="frames"), None
    if variant != "os":
        motion = _motion_image(frames, motion_input)
    if decoder == "topdown":
        encoder = topdown.build_encoder(frames, motion, networks, fusion, width, weights, batch_norm, frozen_stride)
        length = num_frames if variant == "msst" else None
        fuser = topdown.build_fuser(encoder, length, batch_norm)
        return _join(encoder, fuser, variant, num_frames, name)
    if motion is not None and output_strides(networks[1], output_stride) != strides:
        raise ValueError(
            f"The streams' maps must lie on one grid: those of {networks[0]} have the strides {strides}, those of "
            f"{networks[1]} {output_strides(networks[1], output_stride)}; choose backbones of one kind."
        )
    encoder = _build_encoder(frames, motion, networks, output_stride, width, weights, first_convolution_std, batch_norm)
    if variant == "msst":
        fuser = _build_recurrent_fuser(strides, num_frames, lstm_filters, lstm_kernel_size)
    else:
        fuser = _build_fuser(strides, num_streams=1 if variant == "os" else 2)
    return _join(encoder, fuser, variant, num_frames, name)


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, found {value!r}.")


def _motion_image(frames: keras.KerasTensor, motion_input: str) -> MotionImage:
    """What the temporal stream sees, and the inputs beside the frames that it is made of."""
    if motion_input == "prior":
        prior = keras.Input((None, None, 1), name="prior")
        return {"prior": prior}, keras.layers.Concatenate(dtype="float32")([frames, prior])
    flow = keras.Input((None, None, 3), name="prior")
    return {"prior": flow}, keras.layers.Rescaling(255.0, dtype="float32", name="motion_image")(flow)


def _join(encoder: keras.Model, fuser: keras.Model, variant: str, num_frames: int, name: str) -> keras.Model:
    """The clip's model: the encoder on each frame, then the fuser."""
    length = num_frames if variant == "msst" else None
    clip = {"frames": keras.Input((length, None, None, 3), name="frames")}
    if variant != "os":
        clip["prior"] = keras.Input((length, None, None, encoder.input["prior"].shape[-1]), name="prior")
    if variant == "msst":
        maps = encoder({key: MergeTime(dtype="float32")(value) for key, value in clip.items()})
        maps = {key: SplitTime(num_frames, dtype="float32", name=key)(value) for key, value in maps.items()}
    else:
        maps = encoder({key: value[:, -1] for key, value in clip.items()})
        maps = {key: keras.ops.expand_dims(value, axis=1) for key, value in maps.items()}
    # The fuser reads some maps of all T frames (windows), the others of frame T alone.
    windows = {key for key, value in fuser.input.items() if len(value.shape) == 5}
    outputs = fuser({key: value if key in windows else value[:, -1] for key, value in maps.items()})
    crop = CropToFrame(dtype="float32", name="crop")
    outputs = {key: value if key in SIDES else crop([value, clip["frames"]]) for key, value in outputs.items()}
    return keras.Model(clip, outputs, name=name)


def get_parts(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """The encoder and the fuser inside a model of `build_msst`; they share its weights.

    Encoding each frame once and fusing the maps of the last T frames gives the model's output before it is cut to
    H x W.

    Returns:
        encoder: {"frames": (B, H, W, 3), "prior": (B, H, W, 1, or 3 for flow)} (OS: "frames" alone) -> {"middle":
            (B, h, w, S), "last": (B, h', w', S)} float32: X of Eq. 3 before upsampling, one map per stream (S = 2:
            spatial, temporal; OS: 1) for each of the n = 2 scales, of the strides `backbones.output_strides` gives.
            With the decoder "topdown" it gives features of every stride instead, see `topdown.build_encoder`.
        fuser: {"middle": (B, T, h, w, S), "last": (B, T, h', w', S)} -> the model's output at (h * stride, w * stride)
            of the middle map. OS and ST take any T. With "topdown" it takes T frames of stride 16 and frame T of the
            rest, see `topdown.build_fuser`.
    """
    return model.get_layer("encoder"), model.get_layer("fuser")


def has_batch_norms(model: keras.Model) -> bool:
    """Whether a model of `build_msst` has batch norms that are not folded."""
    return any(isinstance(layer, keras.layers.BatchNormalization) for layer in model._flatten_layers())


def fold_model(model: keras.Model, settings: dict[str, Any]) -> keras.Model:
    """The same network with its batch norms folded into the convolutions before them: the same maps in less time.

    Args:
        model: A model of `build_msst`.
        settings: The arguments that it was built with.

    Returns:
        A model with weights of its own; `model` itself where it has no batch norms.
    """
    if not has_batch_norms(model):
        return model
    folded = build_msst(**settings | {"batch_norm": "folded", "weights": "none"})
    fold_batch_norms(model, folded)
    return folded


def get_serving_parts(model: keras.Model, logit_shift: float = 0.0) -> tuple[keras.Model, keras.Model]:
    """`get_parts` without what only training needs: the fuser gives "fused", the encoder what that is made of.

    Args:
        model: A model of `build_msst`.
        logit_shift: What is added to the logits "fused".

    Returns:
        encoder, fuser; they share the weights of `model`. The inputs of the fuser with five axes are windows of T
        steps, those with four are of frame T alone.
    """
    encoder, fuser = get_parts(model)
    outputs, used, maps = dict(encoder.output), dict(fuser.input), fuser.output
    if topdown.has_memory(fuser):
        used, maps = topdown.cut_at_memory(outputs, fuser)
    used.pop("temporal", None)
    fused = maps["fused"]
    if logit_shift:
        fused = keras.layers.Rescaling(1.0, logit_shift, dtype="float32", name="logit_shift")(fused)
    fuser = keras.Model(used, {"fused": fused}, name="fuser")
    return keras.Model(encoder.input, {name: outputs[name] for name in used}, name="encoder"), fuser


def _build_encoder(
    frames: keras.KerasTensor,
    motion: MotionImage | None,
    backbones: tuple[str, str],
    output_stride: int,
    width: float,
    weights: str,
    first_convolution_std: float | None,
    batch_norm: str,
) -> keras.Model:
    inputs, streams = {"frames": frames}, {"spatial": frames}
    if motion is not None:
        more_inputs, streams["temporal"] = motion
        inputs |= more_inputs
    maps: dict[str, list[keras.KerasTensor]] = {"middle": [], "last": []}
    for backbone, (stream, image) in zip(backbones, streams.items(), strict=False):
        network = build_backbone(
            backbone, image.shape[-1], output_stride, width, weights, first_convolution_std, batch_norm, name=stream
        )
        for scale, features in zip(maps, network(image), strict=True):
            maps[scale].append(_branch(features, width, f"{stream}_{scale}"))
    outputs = {
        scale: keras.layers.Concatenate(dtype="float32")(branches) if len(branches) > 1 else branches[0]
        for scale, branches in maps.items()
    }
    return keras.Model(inputs, outputs, name="encoder")


def _branch(features: keras.KerasTensor, width: float, name: str) -> keras.KerasTensor:
    """A branch of section 3.2: a 128-channel 3x3 convolution (ReLU), then a 1-channel 1x1 convolution (linear)."""
    channels = scale_channels(BRANCH_CHANNELS, width, minimum=8)
    x = keras.layers.Conv2D(
        channels, 3, padding="same", activation="relu", kernel_initializer="he_normal", name=f"{name}_features"
    )(features)
    initializer = keras.initializers.RandomNormal(stddev=0.01)
    return keras.layers.Conv2D(1, 1, kernel_initializer=initializer, dtype="float32", name=f"{name}_map")(x)


def _fuse_streams(maps: keras.KerasTensor, num_streams: int) -> list[keras.KerasTensor]:
    """W^s * X^s, W^t * X^t of Eq. 5 from the concatenated maps (B, H, W, S * n) of Eq. 2, without bias as there."""
    num_scales = maps.shape[-1] // num_streams
    return [
        keras.layers.Conv2D(
            1,
            1,
            use_bias=False,
            kernel_initializer=keras.initializers.Constant(1 / num_scales),
            dtype="float32",
            name=f"fuse_{stream}",
        )(maps[..., index * num_scales : (index + 1) * num_scales])
        for index, stream in enumerate(("spatial", "temporal")[:num_streams])
    ]


def _build_fuser(strides: tuple[int, int], num_streams: int) -> keras.Model:
    inputs = {scale: keras.Input((None, None, None, num_streams), name=scale) for scale in ("middle", "last")}
    maps = UpsampleScales(strides, dtype="float32", name="upsample")([value[:, -1] for value in inputs.values()])
    streams = _fuse_streams(maps, num_streams)
    fused = keras.layers.Add(dtype="float32", name="sum")(streams) if num_streams > 1 else streams[0]
    return keras.Model(inputs, {"fused": fused}, name="fuser")


def _build_recurrent_fuser(
    strides: tuple[int, int], num_frames: int, lstm_filters: int, lstm_kernel_size: int
) -> keras.Model:
    inputs = {scale: keras.Input((num_frames, None, None, 2), name=scale) for scale in ("middle", "last")}
    maps = [MergeTime(dtype="float32")(value) for value in inputs.values()]
    maps = UpsampleScales(strides, dtype="float32", name="upsample")(maps)
    maps = SplitTime(num_frames, dtype="float32")(maps)
    state = ConvLSTM2D(lstm_filters, lstm_kernel_size, name="conv_lstm")(maps)
    recurrent = keras.layers.Conv2D(1, 1, dtype="float32", name="recurrent_map")(state)
    streams = _fuse_streams(maps[:, -1], num_streams=2)
    fused = keras.layers.Add(dtype="float32", name="sum")([*streams, recurrent])
    return keras.Model(inputs, {"fused": fused, "recurrent": recurrent}, name="fuser")
