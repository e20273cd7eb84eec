"""A local page that takes a video and shows its saliency maps; `msst app`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from msst_keras.app.options import AppOptions
from msst_keras.inference import SHIPPED_MODEL
from msst_keras.web.extra import import_page


def app(options: AppOptions) -> None:
    """Serves the page until it is stopped.

    Raises:
      FileNotFoundError: no such model folder.
      ValueError: the extra `labels` is not installed.
    """
    model = Path(options.model or SHIPPED_MODEL)
    if not model.is_dir():
        raise FileNotFoundError(
            f"{model}: no such model folder; `msst export` writes saved_models/NAME/VERSION, name it with --model"
        )
    with import_page():
        from msst_keras.app.job import Limits
        from msst_keras.app.server import AppPage
        from msst_keras.web.server import serve
    limits = Limits(options.max_megabytes * 2**20, options.max_frames)
    with tempfile.TemporaryDirectory(prefix="msst_app_", ignore_cleanup_errors=True) as folder:
        page = AppPage(Path(folder) / "job", str(model.resolve()), limits)
        serve(page.make_app(), options.host, options.port, "app")
