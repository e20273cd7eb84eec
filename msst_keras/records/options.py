"""The options of looking at records, and the kinds of labels."""

from __future__ import annotations

import dataclasses

from msst_keras.options import check_options, option

LABEL_KINDS = ("fine", "coarse")


@dataclasses.dataclass(frozen=True, kw_only=True)
class InspectRecordsOptions:
    """What to look at."""

    records: tuple[str, ...] = option("The record folders to look at, as globs with commas between them.")
    output: str | None = option("Write a contact sheet of them to this PNG file.", None)
    rows: int = option("The number of rows of the sheet for each folder, spread evenly over its sequences.", 12, low=1)
    verify: bool = option(
        "Read and check everything. The sizes that are printed are then those of all frames, not of a few.", False
    )

    def __post_init__(self) -> None:
        check_options(self)
