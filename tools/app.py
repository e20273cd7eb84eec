"""A local page: drop a video, see its saliency maps laid over it, download them.

  msst app
  msst app --model=saved_models/msst --port=8080

One video at a time, through `msst predict`; nothing leaves this machine, and what was made is removed when the program
ends. Needs the extra: pip install "msst-keras[labels]".
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from absl import flags

from msst_keras import cli

_MODEL = flags.DEFINE_string(
    "model", None, "Folder of a SavedModel: saved_models/NAME (the newest) or NAME/VERSION. By default the one that is "
    "installed with the package.",
)  # fmt: skip
_HOST = flags.DEFINE_string(
    "host", "127.0.0.1", "Address to listen on. On any but this machine's own the page asks for a token."
)
_PORT = flags.DEFINE_integer("port", 8766, "Port to listen on; 0 takes a free one.", 0, 65535)
_MAX_MEGABYTES = flags.DEFINE_integer("max_megabytes", 500, "Largest file that is taken.", 1)
_MAX_FRAMES = flags.DEFINE_integer("max_frames", 3000, "Longest video that is taken.", 1)


def main() -> None:
    """Serves the page until it is stopped."""
    from msst_keras.inference import SHIPPED_MODEL

    model = Path(_MODEL.value or SHIPPED_MODEL)
    if not model.is_dir():
        raise FileNotFoundError(
            f"{model}: no such model folder; `msst export` writes saved_models/NAME/VERSION, name it with --model"
        )
    try:
        from msst_keras.app.job import Limits
        from msst_keras.app.server import AppPage
        from msst_keras.web.server import serve
    except ModuleNotFoundError as error:
        raise ValueError(f"the page needs '{error.name}': pip install 'msst-keras[labels]'") from None
    limits = Limits(_MAX_MEGABYTES.value * 2**20, _MAX_FRAMES.value)
    with tempfile.TemporaryDirectory(prefix="msst_app_", ignore_cleanup_errors=True) as folder:
        page = AppPage(Path(folder) / "job", str(model.resolve()), limits)
        serve(page.make_app(), _HOST.value, _PORT.value, "app")


if __name__ == "__main__":
    cli.run(main)
