"""The options of an export."""

from __future__ import annotations

import dataclasses

from msst_keras.model.options import FLOAT32, POLICIES
from msst_keras.options import Size, check_options, option

CHECKPOINTS = ("last", "best")
SAVED_MODEL, ONNX = FORMATS = ("saved_model", "onnx")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export, and how."""

    run_dir: str = option("The folder of the run.")
    output_dir: str = option(
        "The folder of the model, saved_models/NAME. The export goes to saved_models/NAME/VERSION."
    )
    image_size: Size | None = option(
        "The size of the network's input. By default it is the last one that it was trained with.", None
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
    checkpoint: str = option(
        "Which checkpoint of the run to export: the last one, or the one whose validation had the best S-measure.",
        "last",
        choices=CHECKPOINTS,
    )

    def __post_init__(self) -> None:
        check_options(self)
