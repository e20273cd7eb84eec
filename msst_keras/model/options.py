"""What a network can be made of: the choices, and the options of a training's network. None of it needs Keras."""

from __future__ import annotations

import dataclasses

from msst_keras.model.backbones import BACKBONES, OUTPUT_STRIDES
from msst_keras.options import check_options, option

VARIANTS = ("os", "st", "msst")
# What the temporal stream sees. "prior": the frame and the motion prior, RGBM, as in the paper. "flow": flow itself, as
# an image of three channels (`motion.flow_image`); it needs neither superpixels nor a prior network, which saves
# their time, and a pre-trained first convolution fits it.
MOTION_INPUTS = ("prior", "flow")
# What becomes of the streams' features. "branches": the paper's, one map per stream and scale. "topdown": see the
# module of that name.
DECODERS = ("branches", "topdown")
# How the streams meet at a level. "linear": a 1x1 convolution of both. "gated": spatial * sigmoid(1x1 of both) +
# temporal, so that motion can switch off what the frame shows and the reverse.
FUSIONS = ("linear", "gated")
# What becomes of batch norms. "trained": with the statistics of the batch, whose average is kept for later. "frozen":
# with the statistics that they have; their scale and offset are frozen too. "folded": there are none, the convolution
# before each has taken it in: what an exported model is, since it saves their time.
BATCH_NORMS = ("trained", "frozen", "folded")
# Of the loss on each side output. Four sides together weigh a little more than the map itself, as in networks of that
# kind (.3 to .4 each); they steer the coarse levels early in a training.
DEFAULT_SIDE_WEIGHT = 0.3
_OF_THE_LIGHT_NETWORK = ("motion_input", "decoder", "fusion", "motion_backbone", "batch_norm", "frozen_stride")


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """The network."""

    variant: str = option("Spatial stream, both, or both and ConvLSTM (Fig. 6).", "msst", choices=VARIANTS)
    # Each frame is a copy of the streams in the graph: 256 take minutes to build.
    num_frames: int = option("T, frames a clip has (msst; the others need one).", 4, low=1, high=64)
    backbone: str = option("Of the streams; vgg16 is the paper's.", "vgg16", choices=BACKBONES)
    weights: str = option("Of the backbone: imagenet, hed (vgg16), none, or a file.", "imagenet")
    output_stride: int = option("16 is the paper read literally; 8 is finer, slower.", 16, choices=OUTPUT_STRIDES[::-1])
    width: float = option("Multiplies every number of channels.", 1.0, low=0.01)
    motion_input: str = option(
        "What the temporal stream sees: the frame and the motion prior, as in the paper, or flow itself as an image "
        "(records of --prior=flow), which needs no superpixels and no prior network.",
        "prior",
        choices=MOTION_INPUTS,
    )
    decoder: str = option(
        "The paper's two branches, or levels fused one by one down to stride 4, for small objects; topdown needs a "
        "backbone efficientnet_lite0 or _lite2 and sizes of multiples of 32.",
        "branches",
        choices=DECODERS,
    )
    fusion: str = option(
        "How the streams meet: linearly (Eq. 5), or, with --decoder=topdown, so that one can switch the other off.",
        "linear",
        choices=FUSIONS,
    )
    motion_backbone: str | None = option("Of the temporal stream; by default --backbone.", None, choices=BACKBONES)
    batch_norm: str = option(
        "Of backbones that have batch norms, and of --decoder=topdown: trained, kept as they are, or, with "
        "--init_from, taken into the convolutions before them, which makes a step twice as fast.",
        "trained",
        choices=BATCH_NORMS,
    )
    frozen_stride: int = option(
        "Layers of the spatial backbone up to this stride, 4 or more, are not trained, which saves a third of a step; "
        "0 trains all. With --decoder=topdown.",
        0,
        low=0,
    )

    def __post_init__(self):
        check_options(self)

    @property
    def clip_length(self) -> int:
        """Frames that a clip needs: T, or the one frame that a network without memory looks at."""
        return self.num_frames if self.variant == "msst" else 1

    def arguments(self) -> dict:
        """The arguments of `msst.build_msst`, which runs and models remember.

        Those of the light network are named where they differ from the paper's network, so that runs from before there
        was another can go on.
        """
        arguments = {
            "variant": self.variant, "backbone": self.backbone, "num_frames": self.clip_length, "width": self.width,
            "output_stride": self.output_stride, "weights": self.weights,
        }  # fmt: skip
        defaults = ModelOptions()
        light = {name: getattr(self, name) for name in _OF_THE_LIGHT_NETWORK}
        return arguments | {name: value for name, value in light.items() if value != getattr(defaults, name)}
