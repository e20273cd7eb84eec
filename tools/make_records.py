"""Converts a dataset to sharded TFRecords with flow, motion prior and masks.

  msst make_records --dataset=davis --root=DAVIS --split=train --output_dir=records/davis_train --store_flow
  msst make_records --dataset=folder --root=my_frames --output_dir=records/mine --prior=prior.keras
  msst make_records --add_prior=prior.keras --output_dir=records/davis_train

If the prior's file has folds (`msst train_prior --folds`), a sequence that it was trained on gets the prior of the
classifier that did not see it.

The folders that each dataset is expected in are listed in msst_keras/data/layouts.py. Started again after any
interruption, it makes only what is missing. The bytes written depend on the input and on the flags, but not on
--num_workers, --engine or interruptions. The last lines say how long each stage took.
"""

from __future__ import annotations

from absl import flags

from msst_keras import cli
from msst_keras.conversion.options import MakeRecordsOptions
from msst_keras.options import list_options
from msst_keras.tools._flags import define_flags

_read_options = define_flags(MakeRecordsOptions)
_OF_RUNS = ("output_dir", "num_workers", "engine", "beam_args", "add_prior")  # the flags that --add_prior goes with


@flags.multi_flags_validator(["add_prior", "dataset", "root"], "needs --dataset and --root, or --add_prior")
def _check_input(values: dict) -> bool:
    if not values["add_prior"]:
        return bool(values["dataset"] and values["root"])
    if others := [name for name in _list_given() if name not in _OF_RUNS]:
        raise flags.ValidationError(f"--add_prior takes the records as they are; leave --{others[0]} away")
    return True


def _list_given() -> list[str]:
    """The flags that are set, to whatever value."""
    return [name for name, *_ in list_options(MakeRecordsOptions) if flags.FLAGS[name].present]


def main() -> None:
    """Converts what the flags say."""
    options = _read_options()
    from msst_keras.jobs.make_records import make_records

    make_records(options, _list_given())


if __name__ == "__main__":
    cli.run(main)
