"""The options of the local page that takes a video."""

from __future__ import annotations

import dataclasses

from msst_keras.options import check_options, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class AppOptions:
    """Which model to use, where the page is, and what it takes."""

    model: str | None = option(
        "Folder of a SavedModel: saved_models/NAME (the newest) or NAME/VERSION. The default is the "
        "one that is installed with the package.",
        None,
    )
    host: str = option(
        "Address to listen on. On any address but this machine's own, the page asks for a token.", "127.0.0.1"
    )
    port: int = option("Port to listen on; 0 takes a free one.", 8766, low=0, high=65535)
    max_megabytes: int = option("Size of the largest file that is taken, in MB.", 500, low=1)
    max_frames: int = option("Length of the longest video that is taken, in frames.", 3000, low=1)

    def __post_init__(self) -> None:
        check_options(self)
