"""Trains the network of the paper, or one of its ablations, on records.

  msst train --records=records/davis_train --val_records=records/davis_val --prior=prior.keras --run_dir=runs/msst

Started again with the same --run_dir, it goes on where it was. SIGTERM or SIGINT finishes the step, saves, and exits
with 75. On several hosts, run the same command on each, with TF_CONFIG set or under Slurm's srun (docs/training.md).
"""

from __future__ import annotations

import sys

from msst_keras import cli
from msst_keras.processes import Interrupted
from msst_keras.tools._flags import define_flags
from msst_keras.training.options import TrainOptions

_read_options = define_flags(TrainOptions)


def main() -> int:
    """Trains what the flags say."""
    options = _read_options()
    from msst_keras.jobs.train import train

    try:
        train(options)
    except Interrupted as interruption:
        print(f"msst train: {interruption}", file=sys.stderr)
        return cli.INTERRUPTED
    return 0


if __name__ == "__main__":
    cli.run(main)
