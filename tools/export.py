"""Exports a run as a SavedModel with its motion prior inside, for predict, query and TF Serving.

msst export --run_dir=runs/msst --output_dir=saved_models/msst
"""

from __future__ import annotations

from msst_keras import cli
from msst_keras.serving.options import ExportOptions
from msst_keras.tools._flags import define_flags

_read_options = define_flags(ExportOptions)


def main() -> None:
    """Exports what the flags say."""
    options = _read_options()
    from msst_keras.jobs.export import export

    export(options)


if __name__ == "__main__":
    cli.run(main)
