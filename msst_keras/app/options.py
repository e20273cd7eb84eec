"""The options of the local page that takes a video."""

from __future__ import annotations

import dataclasses

from msst_keras.options import check_options, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class AppOptions:
    """Which model to use, where the page is, and what it takes."""

    model: str | None = option(
        "The folder of a SavedModel: saved_models/NAME, whose newest version is taken, or saved_models/NAME/VERSION. "
        "By default it is the model that is installed with the package.",
        None,
    )
    host: str = option(
        "The address to listen on. On any address but this machine's own, the page asks for a token.", "127.0.0.1"
    )
    port: int = option("The port to listen on. 0 takes a free one.", 8766, low=0, high=65535)
    max_megabytes: int = option("The size of the largest file that is taken, in MB.", 500, low=1)
    max_frames: int = option("The length of the longest video that is taken, in frames.", 3000, low=1)

    def __post_init__(self) -> None:
        check_options(self)
