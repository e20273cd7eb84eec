"""What a network can be made of: the choices, and the options of a training's network. Nothing here needs Keras."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from msst_keras.model.backbones import BACKBONES, FROZEN_STRIDES, MAX_WIDTH, OUTPUT_STRIDES
from msst_keras.options import check_options, option

VARIANTS = ("os", "st", "msst")
# The Keras dtype policies that a network can compute in.
FLOAT32, BFLOAT16 = POLICIES = ("float32", "mixed_bfloat16")
# What the temporal stream sees. "prior": the frame and the motion prior, RGBM, as in the paper. "flow": flow itself, as
# an image of three channels (`motion.flow_image`). It needs neither superpixels nor a prior network, which saves
# time, and a pre-trained first convolution fits it.
MOTION_INPUTS = ("prior", "flow")
# What turns the streams' features into a map. "branches": the paper's branches, one map per stream and scale.
# "topdown": the light network's decoder, see the module `topdown`.
DECODERS = ("branches", "topdown")
# How the streams are fused at a level. "linear": a 1x1 convolution of both. "gated": spatial * sigmoid(1x1 convolution
# of both) + temporal, so that motion can switch off what the frame shows, and the frame what moves.
FUSIONS = ("linear", "gated")
# What becomes of batch norms. "trained": they use the statistics of the batch and keep their average for later.
# "frozen": they use the statistics that they have; their scale and offset are frozen too. "folded": there are none,
# because each is folded into the convolution before it. Exported models are folded, since that saves time.
BATCH_NORMS = ("trained", "frozen", "folded")
# Weight of the loss of each side output. Four side outputs together weigh a little more than the map itself, as in
# other networks of that kind (.3 to .4 each); they steer the coarse levels early in a training.
DEFAULT_SIDE_WEIGHT = 0.3
# The least share of an image that its salient, or its other, pixels count as in a balanced Eq. 7. Balanced by the true
# share p an image weighs about 2 p (1 - p) in all, so that one without an object would weigh nothing whatever is
# predicted; given 1 / 2 instead, it weighs 25 times one whose object covers 1 %, 125 times one of .2 %. With shares of
# .01 at least, an empty image weighs half as much as one of 1 %, a little less than one of .2 %, and nothing jumps when
# an object leaves the picture.
DEFAULT_MIN_SHARE = 0.01
# Channels of the ConvLSTM's state; the paper gives none. Twice the four maps it reads, so that a map's past and its
# change can be held apart; 16 took twice the time, since it works at full resolution.
LSTM_FILTERS = 8
# The paper gives none; 3 is the size of all its other kernels with an extent. At full resolution it reaches one pixel a
# step, and what moves faster has left the state behind: a clip of 4 frames sees 4 pixels far, where half of the objects
# of DAVIS at 512x512 move more than 4 pixels a frame. 7 reaches 12 pixels for five times the operations.
LSTM_KERNEL_SIZE = 3
# More takes more memory than a machine has, and a file may ask for any.
MAX_LSTM_FILTERS, MAX_LSTM_KERNEL_SIZE = 256, 31
# Named in a run's arguments where they are not the paper's network's.
_DEPARTURES = (
    "motion_input", "decoder", "fusion", "motion_backbone", "batch_norm", "frozen_stride", "lstm_filters",
    "lstm_kernel_size",
)  # fmt: skip


def check_sizes(decoder: str, sizes: Iterable[tuple[int, int]], flag: str) -> None:
    """Refuses images whose levels would not lie on each other in the decoder "topdown".

    Raises:
      ValueError: a side of a size (h, w) is no multiple of the largest stride; the sentence names the flag.
    """
    if decoder == "topdown" and any(side % 32 for size in sizes for side in size):
        raise ValueError(f"--decoder=topdown needs --{flag} of multiples of 32, such as 288x512")


def check_effects(decoder: str, fusion: str, output_stride: int, frozen_stride: int, lstm: tuple[int, int]) -> None:
    """Refuses options that differ from their defaults and have no effect beside the decoder.

    What has no effect beside the variant is passed over: `msst ablate` gives the same flags to all variants.

    Args:
        decoder, fusion, output_stride, frozen_stride: See `ModelOptions`.
        lstm: lstm_filters and lstm_kernel_size.

    Raises:
        ValueError: One has no effect, or frozen_stride is no stride of a pyramid.
    """
    # Not as the option's choices, which would be remembered as text: runs remember a number.
    if frozen_stride not in FROZEN_STRIDES:
        raise ValueError(f"frozen_stride must be one of {', '.join(map(str, FROZEN_STRIDES))}, not {frozen_stride!r}")
    if decoder == "topdown":
        if output_stride != OUTPUT_STRIDES[0]:
            raise ValueError(
                f"output_stride={output_stride} is of the decoder branches; topdown has every stride from 4 to 32"
            )
        if lstm != (LSTM_FILTERS, LSTM_KERNEL_SIZE):
            raise ValueError(
                "lstm_filters and lstm_kernel_size are of the decoder branches; that of topdown has its own ConvLSTM"
            )
        return
    if fusion != "linear":
        raise ValueError('The decoder "branches" fuses by Eq. 5: set fusion to "linear", or decoder to "topdown"')
    if frozen_stride:
        raise ValueError(f"frozen_stride={frozen_stride} is of the decoder topdown; branches trains every layer")


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """The network."""

    variant: str = option(
        "The variant of Fig. 6: the spatial stream alone (os), both streams (st), or both and a ConvLSTM (msst).",
        "msst",
        choices=VARIANTS,
    )
    # Each frame is a copy of the streams in the graph: 256 take minutes to build.
    num_frames: int = option(
        "T, the number of frames in a clip. It is for msst; the other variants need one frame.", 4, low=1, high=64
    )
    backbone: str = option("The network of both streams. The paper has vgg16.", "vgg16", choices=BACKBONES)
    weights: str = option("The backbone's first weights: imagenet, hed (for vgg16), none, or a file.", "imagenet")
    output_stride: int = option(
        "The number of pixels that a cell of the backbone's last map stands for. 16 is the paper read literally; 8 is "
        "finer and slower. It is for --decoder=branches.",
        16,
        choices=OUTPUT_STRIDES[::-1],
    )
    width: float = option("A factor for every number of channels.", 1.0, low=0.01, high=MAX_WIDTH)
    motion_input: str = option(
        "What the temporal stream sees. It is the frame and the motion prior, as in the paper, or the flow itself as "
        "an image. The flow needs no superpixels and no prior network, and its records are made with --prior=flow.",
        "prior",
        choices=MOTION_INPUTS,
    )
    decoder: str = option(
        "What makes the map: the paper's two branches, or topdown. topdown fuses one level after the other down to "
        "stride 4, which shows small objects; it needs the backbone efficientnet_lite0 or efficientnet_lite2, and "
        "image sizes that are multiples of 32.",
        "branches",
        choices=DECODERS,
    )
    fusion: str = option(
        "How the streams are fused: linearly (Eq. 5), or gated, so that one stream can switch the other off. gated is "
        "for --decoder=topdown.",
        "linear",
        choices=FUSIONS,
    )
    motion_backbone: str | None = option(
        "The network of the temporal stream. By default it is that of --backbone.", None, choices=BACKBONES
    )
    batch_norm: str = option(
        "What becomes of the batch norms of --decoder=topdown and of the backbone. They are trained, or frozen as "
        "they are, or, with --init_from, folded into the convolutions before them, which makes a step twice as fast.",
        "trained",
        choices=BATCH_NORMS,
    )
    frozen_stride: int = option(
        "The layers of the spatial backbone up to this stride (4, 8, 16 or 32) are not trained, which saves a third of "
        "a step. 0 trains all layers. It is for --decoder=topdown.",
        0,
        low=0,
    )
    lstm_filters: int = option(
        "The number of channels of the ConvLSTM's state, which the paper does not give. It is for --variant=msst with "
        "--decoder=branches.",
        LSTM_FILTERS,
        low=1,
        high=MAX_LSTM_FILTERS,
    )
    lstm_kernel_size: int = option(
        "The side of the ConvLSTM's kernel, an odd number, which the paper does not give. It is for --variant=msst "
        "with --decoder=branches.",
        LSTM_KERNEL_SIZE,
        low=1,
        high=MAX_LSTM_KERNEL_SIZE,
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.lstm_kernel_size % 2 == 0:
            raise ValueError(
                f"lstm_kernel_size must be odd, not {self.lstm_kernel_size}: an even kernel moves the maps by half a "
                "pixel at every step"
            )
        check_effects(
            self.decoder, self.fusion, self.output_stride, self.frozen_stride,
            (self.lstm_filters, self.lstm_kernel_size),
        )  # fmt: skip

    @property
    def clip_length(self) -> int:
        """Frames that a clip needs: T, or the one frame that a network without memory looks at."""
        return self.num_frames if self.variant == "msst" else 1

    def arguments(self) -> dict[str, Any]:
        """The arguments of `msst.build_msst`, which runs and models remember.

        Arguments that depart from the paper's network are named only where they do, so that runs from before there was
        a choice can still be continued.
        """
        arguments = {
            "variant": self.variant, "backbone": self.backbone, "num_frames": self.clip_length, "width": self.width,
            "output_stride": self.output_stride, "weights": self.weights,
        }  # fmt: skip
        defaults = ModelOptions()
        departures = {name: getattr(self, name) for name in _DEPARTURES}
        return arguments | {name: value for name, value in departures.items() if value != getattr(defaults, name)}


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Checks arguments of `msst.build_msst` that were read from a file.

    Raises:
        ValueError: One is unknown, of another type, or out of range.
    """
    if unknown := sorted(set(arguments) - {field.name for field in dataclasses.fields(ModelOptions)}):
        raise ValueError(f"a network has no setting {unknown[0]!a}")
    ModelOptions(**arguments)
