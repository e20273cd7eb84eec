"""Shows what record folders hold: manifest, counts per sequence and label kind, bytes per feature, a contact sheet.

  msst inspect_records --records=records/davis_train --output=sheet.png
  msst inspect_records --records='records/*' --verify

--verify reads everything (SHA-256, checksums, images) and exits with 1 at the first thing that is not as it should be.
"""

from __future__ import annotations

from msst_keras import cli
from msst_keras.records.options import InspectRecordsOptions
from msst_keras.tools._flags import define_flags

_read_options = define_flags(InspectRecordsOptions)


def main() -> None:
    """Shows what the flags say."""
    options = _read_options()
    from msst_keras.jobs.inspect_records import inspect_records

    inspect_records(options)


if __name__ == "__main__":
    cli.run(main)
