"""The options of what is done to frames and maps."""

from __future__ import annotations

import dataclasses

from msst_keras.inference.crf import BACKENDS, CRF_PRESETS, UNARIES, CrfOptions
from msst_keras.motion.settings import MAX_TEMPORAL_SHARE
from msst_keras.options import check_options, option, options_of


def _by_preset(name: str) -> str:
    """What an option of the CRF is without its flag."""
    values = ", ".join(f"{getattr(settings, name)} in {preset}" for preset, settings in CRF_PRESETS.items())
    return f"By default it is the preset's: {values}."


@dataclasses.dataclass(frozen=True)
class CrfChoice:
    """The dense CRF: a preset, and settings in place of some of its own."""

    preset: str = option(
        "The settings of the CRF, named after their source. tuned is for blurry maps.",
        "pdb",
        choices=tuple(CRF_PRESETS),
    )
    backend: str = option("The code that computes the CRF. The maps of both agree to 1e-4.", "numpy", choices=BACKENDS)
    iterations: int | None = option(f"The number of mean-field updates. {_by_preset('iterations')}", None, low=1)
    unary: str | None = option(
        "How values become energies: log is minus the logarithm of a label's probability p, and dss divides "
        "that by 1.05 sigmoid(p). "
        f"{_by_preset('unary')}",
        None,
        choices=UNARIES,
    )
    gaussian_sxy: float | None = option(
        f"The standard deviation of the spatial kernel, in pixels. {_by_preset('gaussian_sxy')}", None, low=0
    )
    gaussian_compat: float | None = option(
        f"The weight of the spatial kernel. {_by_preset('gaussian_compat')}", None, low=0
    )
    bilateral_sxy: float | None = option(
        f"The standard deviation of the bilateral kernel in space, in pixels. {_by_preset('bilateral_sxy')}",
        None,
        low=0,
    )
    bilateral_srgb: float | None = option(
        "The standard deviation of the bilateral kernel in colour, in grey levels of 0 to 255. "
        f"{_by_preset('bilateral_srgb')}",
        None,
        low=0,
    )
    bilateral_compat: float | None = option(
        f"The weight of the bilateral kernel. {_by_preset('bilateral_compat')}", None, low=0
    )

    def __post_init__(self) -> None:
        check_options(self)

    def settings(self) -> CrfOptions:
        """The preset's settings with those that are given in their place.

        Raises:
          ValueError: see `CrfOptions`.
        """
        names = [field.name for field in dataclasses.fields(CrfOptions)]
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return dataclasses.replace(CRF_PRESETS[self.preset], **given)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefineOptions:
    """What to refine."""

    maps: str = option("The folder of the maps, which are 8-bit grey PNGs.")
    frames: str = option("The folder of their frames.")
    output_dir: str = option("The folder for the refined maps.")
    overwrite: bool = option("Refine maps anew that were made from other maps, frames or settings.", False)
    num_workers: int | None = option(
        "How many frames are worked on at a time. By default it is one per core.", None, low=1
    )
    crf: CrfChoice = options_of(CrfChoice, prefix="crf_")

    def __post_init__(self) -> None:
        check_options(self)


# Options that belong to another one, that one, and what they are.
_BELONGING = {
    "model_name": ("server", "that of a model on a server"),
    "timeout": ("server", "that of a server's answer"),
    "frame_quality": ("server", "that of the frames for a server"),
    "crf_workers": ("crf", "for the CRF, which is off"),
    "port": ("live", "that of a live video's page"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """What to predict, with which model."""

    model: str | None = option(
        "The folder of a SavedModel: saved_models/NAME, whose newest version is taken, or saved_models/NAME/VERSION. "
        "By default it is the model that is installed with the package.",
        None,
        remembered=False,
    )
    input: tuple[str, ...] = option(
        "Video files, folders of frames, or folders of such folders, with commas between them. With --live it is the "
        "number of a camera, an address (rtsp://..., http://...), a named pipe, or - for standard input.",
        remembered=False,
    )
    output_dir: str = option("The folder for the maps.", "maps", remembered=False)
    overwrite: bool = option(
        "Make maps anew that were made from another input, with another model or with other flags.",
        False,
        remembered=False,
    )
    server: str | None = option(
        "The address of a TensorFlow Serving that has the model: grpc://HOST:PORT or http://HOST:PORT, or with "
        "encryption grpcs:// or https://. It takes the place of --model.",
        None,
        remembered=False,
    )
    model_name: str = option(
        "The name of the model on --server: NAME, whose newest version is asked, or NAME/VERSION, or NAME/LABEL.",
        "msst",
        remembered=False,
    )
    timeout: float = option(
        "The seconds in which --server must have answered, all attempts together.", 30.0, low=0.001, remembered=False
    )
    frame_quality: int = option(
        "The JPEG quality of the frames that --server is sent, at the network's size. 100 sends them as PNG, without "
        "loss.",
        95,
        low=1,
        high=100,
    )
    mirror: bool = option("Average each map with that of the mirrored video, which takes twice the time.", False)
    crf: bool = option("Refine each map with the dense CRF, as the paper does in testing.", False)
    crf_workers: int = option(
        "How many frames the CRF refines at a time, beside the network. More than one pays where cores are idle.",
        1,
        low=1,
        remembered=False,
    )
    temporal_filter: float | None = option(
        "How much the maps around it count in each map, carried along the optical flow to where their points have "
        "moved. The next map counts by this share, the one after that by its square, and so on. It makes maps steadier "
        "and better. 0 turns it off. The default is what the model's export says, 0.85 for the installed model.",
        None,
        low=0.0,
        high=MAX_TEMPORAL_SHARE,
    )
    alternate_mirror: bool = option(
        "Show the network every second frame mirrored. Its mistakes then differ from frame to frame, and "
        "--temporal_filter averages both kinds, in no more time. It is not done without --temporal_filter, with "
        "--mirror, or for a model with a ConvLSTM over several frames.",
        True,
    )
    look_ahead: int | None = option(
        "How many maps after its own count at least in each map by --temporal_filter. The default is 7. With --live it "
        "is 0, because those maps are not there yet.",
        None,
        low=0,
        high=30,
    )
    threshold: float | None = option(
        "Write masks in place of maps: 255 where the map, 0 to 1, is above this value, and 0 elsewhere.",
        None,
        low=0.0,
        high=1.0,
    )
    flow_dir: str | None = option(
        "Read the flow from FLOW_DIR/SEQUENCE/FRAME.flo or .png. It is for a model that was trained on such flow.",
        None,
        remembered=False,
    )
    overlay: str = option(
        "The MP4 video to write of the frames with their maps laid over them. auto writes OUTPUT_DIR/NAME.mp4 for "
        "each input that is a video file, and none writes no video.",
        "auto",
        remembered=False,
    )
    live: bool = option(
        "Show the maps of a camera or a stream as it comes, on a page of this machine. The newest frame is always the "
        "one that is worked on; the others are dropped and counted. Nothing is written.",
        False,
        remembered=False,
    )
    port: int = option("The port of the page of --live. 0 takes a free one.", 8767, low=0, high=65535, remembered=False)
    dense_crf: CrfChoice = options_of(CrfChoice, prefix="crf_")

    def __post_init__(self) -> None:
        check_options(self)
        self._check_live()
        if not self.crf and self.dense_crf != CrfChoice():
            raise ValueError("settings of the CRF are given, which is off: give --crf too")
        if self.server and self.model:
            raise ValueError("--server has the model: give --model_name in place of --model")
        for name, (owner, what) in _BELONGING.items():
            if self._is_given(name) and not getattr(self, owner):
                raise ValueError(f"--{name} is given, which is {what}: give --{owner} too")

    def _is_given(self, name: str) -> bool:
        return getattr(self, name) != getattr(PredictOptions, name)

    def _check_live(self) -> None:
        if not self.live:
            return
        if len(self.input) != 1:
            raise ValueError(f"--live has one source, and there are {len(self.input)}: {', '.join(self.input)}")
        useless = (
            "output_dir", "overwrite", "server", "model_name", "timeout", "frame_quality", "mirror", "crf",
            "crf_workers", "look_ahead", "threshold", "flow_dir", "overlay",
        )  # fmt: skip
        right_already = {"look_ahead": 0, "overlay": "none"}
        given = filter(self._is_given, useless)
        if names := [f"--{name}" for name in given if getattr(self, name) != right_already.get(name)]:
            raise ValueError(f"--live shows maps as they come, and has no use for {', '.join(names)}")
