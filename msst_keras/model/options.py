"""What a network can be made of: the choices, and the options of a training's network. Nothing here needs Keras."""

from __future__ import annotations

import dataclasses
from typing import Any

from msst_keras.model.backbones import BACKBONES, OUTPUT_STRIDES
from msst_keras.options import check_options, option

VARIANTS = ("os", "st", "msst")
# What the temporal stream sees. "prior": the frame and the motion prior, RGBM, as in the paper. "flow": flow itself, as
# as an image of three channels (`motion.flow_image`). It needs neither superpixels nor a prior network, which saves
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
_OF_THE_LIGHT_NETWORK = ("motion_input", "decoder", "fusion", "motion_backbone", "batch_norm", "frozen_stride")


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """The network."""

    variant: str = option(
        "The spatial stream alone (os), both (st), or both and a ConvLSTM (msst); Fig. 6.", "msst", choices=VARIANTS
    )
    num_frames: int = option("T, the number of frames in a clip (msst; the other variants need one frame).", 4, low=1)
    backbone: str = option("The network of both streams; vgg16 is the paper's.", "vgg16", choices=BACKBONES)
    weights: str = option("The backbone's first weights: imagenet, hed (for vgg16), none, or a file.", "imagenet")
    output_stride: int = option(
        "Pixels per cell of the backbone's last map. 16 is the paper read literally; 8 is finer and slower.",
        16,
        choices=OUTPUT_STRIDES[::-1],
    )
    width: float = option("A factor for every number of channels.", 1.0, low=0.01)
    motion_input: str = option(
        "What the temporal stream sees: the frame and the motion prior, as in the paper, or the flow itself as an "
        "image (records made with --prior=flow), which needs no superpixels and no prior network.",
        "prior",
        choices=MOTION_INPUTS,
    )
    decoder: str = option(
        "What makes the map: the paper's two branches, or topdown, which fuses levels one by one down to stride 4, for "
        "small objects. topdown needs the backbone efficientnet_lite0 or _lite2 and sizes that are multiples of 32.",
        "branches",
        choices=DECODERS,
    )
    fusion: str = option(
        "How the streams are fused: linearly (Eq. 5), or, with --decoder=topdown, gated, so that one stream can switch "
        "the other off.",
        "linear",
        choices=FUSIONS,
    )
    motion_backbone: str | None = option(
        "The network of the temporal stream; by default that of --backbone.", None, choices=BACKBONES
    )
    batch_norm: str = option(
        "Batch norms of --decoder=topdown and of backbones that have some are trained, frozen as they are, or, with "
        "--init_from, folded into the convolutions before them, which makes a step twice as fast.",
        "trained",
        choices=BATCH_NORMS,
    )
    frozen_stride: int = option(
        "With --decoder=topdown, the layers of the spatial backbone up to this stride (4 or more) are not trained, "
        "which saves a third of a step; 0 trains all layers.",
        0,
        low=0,
    )

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def clip_length(self) -> int:
        """Frames that a clip needs: T, or the one frame that a network without memory looks at."""
        return self.num_frames if self.variant == "msst" else 1

    def arguments(self) -> dict[str, Any]:
        """The arguments of `msst.build_msst`, which runs and models remember.

        Arguments of the light network are named only where they differ from the paper's network, so that runs from
        before there was a light network can still be continued.
        """
        arguments = {
            "variant": self.variant, "backbone": self.backbone, "num_frames": self.clip_length, "width": self.width,
            "output_stride": self.output_stride, "weights": self.weights,
        }  # fmt: skip
        defaults = ModelOptions()
        light = {name: getattr(self, name) for name in _OF_THE_LIGHT_NETWORK}
        return arguments | {name: value for name, value in light.items() if value != getattr(defaults, name)}
