"""The options of an export."""

from __future__ import annotations

import dataclasses

from msst_keras.model.options import FLOAT32, POLICIES
from msst_keras.motion.settings import MAX_LOGIT_SHIFT, MAX_TEMPORAL_SHARE
from msst_keras.options import Size, check_options, option

CHECKPOINTS = ("last", "best")
SAVED_MODEL, ONNX = FORMATS = ("saved_model", "onnx")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export, and how."""

    run_dir: str = option(
        "The folder of the run. An exported model can be named too, and `installed`, the model that is installed with "
        "the package. It is exported once more: at another size, as ONNX, or by a newer version of this program."
    )
    output_dir: str = option(
        "The folder of the model, saved_models/NAME. The export goes to saved_models/NAME/VERSION."
    )
    image_size: Size | None = option(
        "The size of the network's input. By default it is the last one that it was trained with.", None
    )
    motion_size: Size | None = option(
        "The size that optical flow is computed at. By default it is that of the run's records. Smaller flow takes "
        "less time and makes the maps a little worse (the installed model's card has numbers). It cannot be changed "
        "for a prior of `msst train_prior`, whose superpixels are of one size.",
        None,
    )
    version: int | None = option(
        "The number of the version. By default it is one more than the newest that is there.", None, low=1
    )
    precision: str = option(
        "What the network computes in. float32 runs well everywhere, and bfloat16 only where the hardware multiplies "
        "it.",
        FLOAT32,
        choices=POLICIES,
    )
    format: str = option(
        "What to write. saved_model is what predict and TF Serving use. onnx is the encoder and the fuser alone, as "
        "ONNX files for other programs (pip install 'msst-keras[onnx]').",
        SAVED_MODEL,
        choices=FORMATS,
    )
    average_with: tuple[str, ...] = option(
        "More runs of the same network, comma-separated: the mean of all their weights is exported. Runs that continue "
        "one another lie close enough together for that, and their mean often does better on new video than each of "
        "them (Wortsman et al. 2022, Model soups). Exported models count as runs, and so does `installed`, the model "
        "that is installed with the package.",
        (),
    )
    logit_shift: float | None = option(
        "Added to the logits of all maps: below 0 makes them darker. A network that has learnt from stills, whose "
        "objects are large, paints too much in video. Choose it on sequences that were held out from training. The "
        "default is 0, and of an exported model what it has.",
        None,
        low=-MAX_LOGIT_SHIFT,
        high=MAX_LOGIT_SHIFT,
    )
    temporal_filter: float | None = option(
        "How much the maps around it count in each map that `msst predict` and other clients write, carried along the "
        "optical flow: the next map counts by this share, the one after that by its square, and so on. A network "
        "without ConvLSTM gains by it, most where it is in doubt (.85 in the installed model, chosen on held-out "
        "sequences). The paper has no such filter. The default is 0, and of an exported model what it has.",
        None,
        low=0.0,
        high=MAX_TEMPORAL_SHARE,
    )
    checkpoint: str = option(
        "Which checkpoint of the run to export: the last one, or the one whose validation had the best S-measure.",
        "last",
        choices=CHECKPOINTS,
    )

    def __post_init__(self) -> None:
        check_options(self)
